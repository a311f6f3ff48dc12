"""Two people, two clones, one release: the second is refused, may take over, and nothing happens twice."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from outside import Ran, ended, git, until
from world import World

IN_PRODUCTION = [
    "after the stamp on production",
    "in the smoke writing on production",
    "before the restart on production",
    "after the restart on production",
]


def _take_over(ran: Ran) -> list[str]:
    """Return the options that a refusal shows to take the release over with."""
    found = re.search(r"--take-over (\w+)", ran.flat)
    assert found, ran.output
    return ["--take-over", found[1]]


@contextmanager
def _asleep(little: World, point: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Stop the release at `point`; yield its process, and the clone of a colleague who has fetched all."""
    colleague = little.colleague()
    with little.paused(point) as asleep:
        asleep.send_signal(signal.SIGSTOP)
        git(colleague, "fetch", "--quiet", "--tags")
        yield asleep, colleague


def _woken(little: World, asleep: subprocess.Popen[str]) -> Ran:
    """Let the release go on, and return how it ended."""
    little.go_on()
    asleep.send_signal(signal.SIGCONT)
    return ended(asleep)


def test_another_clone_is_refused_while_a_release_is_under_way_and_after_it_was_killed(little: World) -> None:
    """F2"""
    colleague = little.colleague()
    with little.paused("after the stamp on staging") as first:
        git(colleague, "fetch", "--quiet", "--tags")
        for version in ("0.1.1", "0.2.0"):
            ran = little.inv("release", "--version", version, "--yes", cwd=colleague)
            assert ran.refuses("Another release is under way: v0.1.1 ", "Ada, since 20", "last sign of life 20")
        first.kill()
    assert little.release(cwd=colleague).refuses("Another release is under way", "--take-over")


@pytest.mark.faults
@pytest.mark.parametrize("point", IN_PRODUCTION)
def test_a_release_that_sleeps_in_production_is_taken_over_and_nothing_happens_twice(little: World, point: str) -> None:
    """F1, F3"""
    with _asleep(little, point) as (asleep, colleague):
        take_over = _take_over(little.release(cwd=colleague))
        ran = little.release(*take_over, cwd=colleague)
        assert ran.refuses("Production is being changed: v0.1.1 by ", "pg_terminate_backend"), "it has not woken up yet"
        assert _woken(little, asleep).refuses("This release was overtaken: v0.1.1")
    before = little.look()["stamps"]
    assert little.release().refuses("Another release is under way")
    assert little.look()["stamps"] == before
    little.repo = colleague
    little.finish()
    assert little.is_released()


@pytest.mark.faults
def test_a_release_that_sleeps_once_production_runs_it_is_finished_from_another_clone(little: World) -> None:
    colleague = little.colleague()
    waiting = little.folder / "waiting"
    little.hook("pre-push", f"if grep --quiet refs/heads/main; then touch {waiting}; sleep 600; fi")
    with little.inv_begun("release", "--version", "0.1.1", "--yes") as asleep:
        assert until(lambda: waiting.exists() or asleep.poll() is not None)
        git(colleague, "fetch", "--quiet", "--tags")
        assert little.release(*_take_over(little.release(cwd=colleague)), cwd=colleague).code == 0
    little.repo = colleague
    assert little.is_released()


@pytest.mark.slow
def test_a_release_that_is_withdrawn_leaves_its_tag_and_a_later_one_goes_through(little: World) -> None:
    """F3: 0.1.1 waits in production, a colleague withdraws it and releases 0.1.2 whole; then 0.1.1 wakes up."""
    with _asleep(little, "in the smoke writing on production") as (asleep, colleague):
        ran = little.inv("withdraw", "--version", "0.1.1", cwd=colleague)
        take_over = _take_over(ran)
        ran = little.inv("withdraw", "--version", "0.1.1", *take_over, cwd=colleague)
        assert ran.refuses("A withdrawal of v0.1.1 needs a reason", "--reason")
        withdraw = ("withdraw", "--version", "0.1.1", "--reason", "its smoke hangs", *take_over)
        ran = little.inv(*withdraw, cwd=colleague)
        assert ran.code == 0 and "Withdrew 0.1.1: 2 steps" in ran.flat, ran.output
        assert "v0.1.1 stays; staging runs 0.1.1, stamped for 0.1.1; production runs nothing, stamped" in ran.flat
        assert little.inv(*withdraw, cwd=colleague).code == 0, "once more is no harm"
        assert "No release is under way." in little.inv("deploy.running", cwd=colleague).output
        assert _woken(little, asleep).refuses("This release was overtaken: v0.1.1 is withdrawn")
    notes = little.text_at("main", "docs/releases/v0.1.1.md").splitlines()
    assert re.fullmatch(r"> Withdrawn on 20\S+ by Ada: its smoke hangs\. v0\.1\.1 stays; .*", notes[2])
    assert little.on_the_remote("refs/tags/v0.1.1")
    git(colleague, "pull", "--quiet", "origin", "main")
    ran = little.inv("release", "--version", "0.1.2", "--yes", "--highlights", "It goes on.", cwd=colleague)
    assert ran.code == 0, ran.output
    assert little.places["production"].stamps() == ["0.1.1", "0.1.2"] and little.runs()["production"] == "0.1.2"
    told = little.text_at("main", "docs/releases/v0.1.2.md")
    assert "first release of the pack" in told and "withdraw" not in told, "it went back to what never got there"
    ran = little.inv("release", "--version", "0.1.1", "--yes", cwd=colleague)
    assert ran.refuses("v0.1.1: Withdrawn on ", "--version 0.1.2")


def test_who_was_overtaken_pushes_neither_branch_nor_tag(little: World) -> None:
    colleague = little.colleague()
    waiting = little.folder / "waiting"
    wait = f"touch {waiting}; while test -e {waiting}; do sleep 0.05; done"
    little.hook("pre-push", f"if grep --quiet refs/tags; then {wait}; fi")
    with little.inv_begun("release", "--version", "0.1.1", "--yes") as slow:
        assert until(waiting.exists)
        ran = little.release(cwd=colleague)
        assert little.inv("tag", "--version", "0.1.1", *_take_over(ran), cwd=colleague).code == 0
        theirs = little.on_the_remote("refs/tags/v0.1.1")
        waiting.unlink()
        assert ended(slow).refuses("This release was overtaken")
    assert little.on_the_remote("refs/tags/v0.1.1") == theirs == git(colleague, "rev-parse", "refs/tags/v0.1.1")
