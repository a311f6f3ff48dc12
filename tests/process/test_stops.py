"""However a run ends, the same command finishes the same release: kill -9 anywhere, Ctrl-C, SIGTERM, a lost laptop."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path

import pytest
from outside import ended, processes_of, until
from world import World

PARENT = "sed -n 's/^PPid://p' /proc/$PPID/status 2> /dev/null || ps -o ppid= -p $PPID"
PRE_PUSH_KILL = f'test -z "$KILL_IN_PUSH" || kill -9 $({PARENT}) $PPID'
KILLS = [
    {"KILL_AFTER": "* read-tree --reset -u *"},  # in section 2; once the release commit is there, its code is unpacked
    {"KILL_AFTER": "switch * --create *"},
    {"KILL_AFTER": "add --force -- ddl/ORDER.lock"},
    {"KILL_AFTER": "*commit *ORDER.lock*"},
    {"KILL_AFTER": "add --force -- VERSION*"},
    {"KILL_AFTER": "*commit *update version*"},
    {"KILL_AFTER": "tag --annotate*"},
    {"KILL_IN_PUSH": "yes"},
    {"KILL_AFTER": "push *refs/tags/v0.1.1*"},
    {"KILL_AFTER": "add --force -- docs/releases/v0.1.1.md"},
    {"KILL_AFTER": "*commit *notes for v0.1.1*"},
    {"KILL_AFTER": "push *refs/heads/release/v0.1.1"},
    {"LITTLE_KILL": "before the restart on staging"},  # which goes on without us
    {"LITTLE_KILL": "in the smoke writing on staging"},
    {"LITTLE_KILL": "after the stamp on staging"},
    {"LITTLE_KILL": "after the stamp on production"},
    {"LITTLE_KILL": "in the smoke writing on production"},
    {"LITTLE_KILL": "after the restart on production"},
    {"KILL_AFTER": "* bundle create *"},
    {"KILL_AFTER": "switch --quiet main"},
    {"KILL_AFTER": "merge --quiet --no-ff*"},
    {"KILL_AFTER": "add --force -- VERSION SOURCE_TAG package.json CHANGELOG.md"},
    {"KILL_AFTER": "*commit *open the cycle*"},
    {"KILL_IN_PUSH": "yes"},
    {"KILL_AFTER": "push *refs/heads/main"},
]


@pytest.mark.faults
def test_one_release_killed_at_every_change_is_finished_by_the_same_command(little: World) -> None:
    little.hook("pre-push", PRE_PUSH_KILL)
    for kill in KILLS:
        little.kill(**kill)
    little.finish()
    assert little.is_released()


@pytest.mark.parametrize(
    ("number", "point"),
    [(signal.SIGINT, "in the smoke writing on dev"), (signal.SIGTERM, "after the stamp on staging")],
    ids=["SIGINT", "SIGTERM"],
)
def test_an_interrupted_run_says_so_leaves_no_child_and_goes_on_also_from_another_folder(
    little: World, number: signal.Signals, point: str
) -> None:
    with little.paused(point) as process:
        process.send_signal(number)
        ran = ended(process)
    assert ran.code == 130
    assert "the same command goes on" in ran.flat
    assert until(lambda: not _children(little))
    assert not little.leftovers()
    if "staging" in point:
        _is_finished_from_another_folder(little)


def _is_finished_from_another_folder(little: World) -> None:
    """A torn last line in the journal stays as it is, whichever clone goes on."""
    with little.journal.open("ab") as journal:
        journal.write(b'{"at": "torn')
    moved = Path(f"{little.repo} moved")
    little.repo.rename(moved)
    little.repo = moved
    little.finish()
    assert little.is_released()


def _children(little: World) -> set[int]:
    """Return the processes that a release started and that are not the web apps, which outlive it on purpose."""
    webs = {int(file.read_text()) for file in little.folder.glob("*/web.pid")}
    return set(processes_of(little.folder)) - webs


@pytest.mark.parametrize(("sent", "words"), [(signal.SIGINT, []), (signal.SIGTERM, ["--", "-x"])])
def test_a_run_of_smokes_that_is_interrupted_waits_for_none(
    little: World, sent: signal.Signals, words: list[str]
) -> None:
    file = "smokes/test_writing.py"
    little.settle("test: wait longer", {file: (little.repo / file).read_text().replace("timeout=60", "timeout=900")})
    little.let_smoke("writing", "hangs")
    with little.inv_begun("smokes", *words) as asking:
        assert until(lambda: any(b"time.sleep(600)" in _command_line(pid) for pid in processes_of(little.folder)))
        asking.send_signal(sent)
        ran = ended(asking)
    assert ran.code == 130 and "Interrupted" in ran.output
    assert until(lambda: not processes_of(little.folder))


def _command_line(pid: int) -> bytes:
    file = Path(f"/proc/{pid}/cmdline")
    return file.read_bytes() if file.exists() else b""


def test_a_fresh_clone_finishes_what_a_lost_laptop_began(little: World) -> None:
    little.let_go_wrong("staging", "unhealthy")
    assert little.release(env={"LITTLE_WAIT": "3"}).refuses("/api/health")
    assert little.stamps() == {"staging": ["0.1.1"], "production": []}
    lost = little.repo
    shutil.rmtree(lost)
    little.let_go_wrong("staging")
    little.repo = little.clone("new laptop")
    ran = little.release()
    assert ran.refuses("Another release is under way: v0.1.1")
    shown = re.search(r"inv (release .*) +# the next push", ran.output)
    assert shown and little.inv(*shown[1].split()).code == 0
    assert little.is_released()
