"""The engine: look, then change, then look again; first by itself, then in a real Invoke with little steps."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from release_tasks import command_line
from release_tasks.errors import Manual, NotYet, Problem, Refused, refuse
from release_tasks.failures import problem_of
from release_tasks.journal import Journal
from release_tasks.outcome import CHANGED, DONE, MANUAL, PENDING, PLANNED, REFUSED, Outcome
from release_tasks.plan import PlannedStep, first_open
from tests.test_bad_input import run_here
from tests.test_process import until

if TYPE_CHECKING:
    from release_tasks.release import Release
    from tests.conftest import Work

ROOT = Path(__file__).parents[1]
TOOK = re.compile(r"^  (done|planned|pending|refused|changed|manual) +(.*)$", re.MULTILINE)


# One step

Take = Callable[..., Outcome]


def it(release: Release) -> Path:
    return release.root / "it"


def write_it(release: Release) -> Iterator[str]:
    if it(release).exists():
        return "it is there"
    yield "write it"
    it(release).touch()


def write_in_vain(release: Release) -> Iterator[str]:
    yield "write it"


def write_it_twice(release: Release) -> Iterator[str]:
    yield "write it"
    it(release).touch()
    yield "write it again"


def test_what_is_missing_is_to_do_then_changed_then_done(work: Work, take: Take) -> None:
    release = work.release()
    look = take(write_it, release, change=False)
    assert (look.state, look.text, it(release).exists()) == (PLANNED, "write it", False)
    look = take(write_it, release)
    assert (look.state, look.text, it(release).exists()) == (CHANGED, "write it", True)
    for change in (False, True):
        look = take(write_it, release, change=change)
        assert (look.state, look.text) == (DONE, "it is there")


@pytest.mark.parametrize(("said", "state"), [(None, DONE), ("on main", DONE), (Manual("tell the team"), MANUAL)])
@pytest.mark.parametrize("change", [True, False])
def test_a_gate_that_returns_has_passed(work: Work, take: Take, said: str | None, state: str, change: bool) -> None:
    def gate(release: Release) -> str | None:
        return said

    look = take(gate, work.release(), change=change)
    assert (look.state, look.text) == (state, said or "")


@pytest.mark.parametrize("change", [True, False])
def test_a_refusal_keeps_all_its_problems(work: Work, take: Take, change: bool) -> None:
    problems = (Problem("One.", "mend one"), Problem("Two."))

    def step(release: Release) -> Iterator[str]:
        refuse(problems)
        yield "never"

    look = take(step, work.release(), change=change)
    assert (look.state, look.problems) == (REFUSED, problems)


def test_what_needs_an_earlier_change_is_later_while_looking_and_refused_when_it_never_came(
    work: Work, take: Take
) -> None:
    def wait(release: Release) -> Iterator[str]:
        raise NotYet("after the tag")
        yield

    look = take(wait, work.release(), change=False)
    assert (look.state, look.text) == (PENDING, "after the tag")
    look = take(wait, work.release())
    assert look.state == REFUSED and "only be done after the tag" in look.problems[0].what


def test_a_refusal_while_changing_is_a_refusal(work: Work, take: Take) -> None:
    def half(release: Release) -> Iterator[str]:
        yield "do it"
        raise Refused("The remote said no.", "git push")

    assert take(half, work.release()).problems == (Problem("The remote said no.", "git push"),)


def test_a_change_that_does_not_hold_is_refused(work: Work, take: Take) -> None:
    look = take(write_in_vain, work.release())
    assert look.state == REFUSED
    assert look.problems[0].what == "The change was made, but the check after it still plans: write it."


def test_a_look_leaves_nothing_open_and_does_not_change(work: Work, take: Take) -> None:
    closed = []

    def step(release: Release) -> Iterator[str]:
        try:
            yield "do it"
        finally:
            closed.append(True)

    take(step, work.release(), change=False)
    assert closed == [True]


def test_the_second_look_asks_the_remote_afresh(work: Work, take: Take) -> None:
    def push_it(release: Release) -> Iterator[str]:
        if "refs/heads/it" in release.git.remote_refs:
            return
        yield "push it"
        release.git.push("HEAD:refs/heads/it")

    assert take(push_it, work.release()).state == CHANGED


def test_a_step_that_yields_twice_is_a_mistake_of_ours(work: Work, take: Take) -> None:
    with pytest.raises(TypeError, match="write_it_twice yields twice"):
        take(write_it_twice, work.release())


# Whole runs

TASKS = '''
import time
from release_tasks.engine import section, steps
from release_tasks import command_line
from release_tasks.errors import Manual, NotYet, Refused


def ask_the_gate(release):
    """Ask the gate."""
    if (release.root / "slow").exists():
        (release.root / "hangs").touch()
        time.sleep(600)
    if (release.root / "again").exists():
        raise Refused("A signature is missing.", release.again("Sign it.", sign="…"))
    with (release.root / "asked").open("a") as file:
        file.write("x")
    if (release.root / "closed").exists():
        raise Refused("The gate is closed.", "rm closed")


def write_it(release):
    """Write it."""
    if (release.root / "costs").exists():
        release.only_in_a_run()
        (release.root / "it-cost").touch()
    if (release.root / "it").exists():
        return "it is there"
    yield "write it"
    if (release.root / "crash").exists():
        raise RuntimeError("unforeseen, with password=hunter2")
    if (release.root / "full").exists():
        from release_tasks.files import atomic_write
        atomic_write(release.root / "full" / "x" / "y", b"x" * 10_000_000)
    if (release.root / "ask").exists():
        input("Really? ")
    if (release.root / "hang").exists():
        (release.root / "hangs").touch()
        time.sleep(600)
    if not (release.root / "leak").exists():
        (release.root / "it").touch()


def send_it(release):
    """Send it."""
    if not (release.root / "it").exists():
        raise NotYet("after it is written")
    if (release.root / "sent").exists():
        return
    yield "send it"
    (release.root / "sent").touch()


def tell_people(release):
    """Tell people."""
    if (release.root / "arrow").exists():
        return Manual("0.1.0 → 0.1.1")
    return Manual("tell them")


def show_options(release, sign=None, until=None):
    """Show the options."""
    (release.root / "options").open("a").write(f"{release.version} {sign} {until}\\n")


@section()
def first(release):
    """1. First"""
    return steps(ask_the_gate, write_it, show_options)


@section(first)
def second(release, sign=False, until=None):
    """2. Second"""
    return steps(send_it, ask_the_gate, tell_people, show_options, sign=sign, until=until)


@section(second)
def whole(release, sign=False, yes=False):
    """All of it."""
    return steps()


@section()
def withdraw(release):
    """Withdraw a release."""
    return steps(write_it)


@section(second, only_checks=True)
def status(release, json=False):
    """Check only."""
    return steps()
'''

PLAIN = '\nfrom invoke import task\n\n@task\ndef hello(c):\n    """Say hello."""\n    print("hello")\n'
V = ("--version", "0.1.1")
EXECUTOR = "tasks: {executor_class: release_tasks.engine.ReleaseExecutor}\n"
CHECKED = [
    ("done", "Ask the gate."),
    ("planned", "Write it.  write it"),
    ("done", "Show the options."),
    ("pending", "Send it.  after it is written"),
    ("done", "Ask the gate."),
    ("manual", "Tell people.  tell them"),
    ("done", "Show the options."),
]


@dataclass
class Project:
    """A small project whose tasks.py is TASKS, and what `inv` says in it."""

    root: Path
    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    def start(self, *args: str, stdin: int | None = subprocess.DEVNULL, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "invoke", *args],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def sh(self, command: str, **variables: str) -> tuple[int, str, str]:
        """Run a shell's `command` with `inv` in it; return its exit code and what it says."""
        inv = f"{shlex.quote(sys.executable)} -m invoke"
        env = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
        command = re.sub(r"\binv\b", lambda _: inv, command)
        ran = subprocess.run(["/bin/sh", "-c", command], cwd=self.root, env=env, capture_output=True, timeout=300)
        return ran.returncode, ran.stdout.decode(errors="replace"), ran.stderr.decode(errors="replace")

    def on_a_terminal(self, *args: str, types: str) -> tuple[int, str]:
        """Run `inv args` with a terminal as its input, on which a person `types`; return exit code and output."""
        import pty

        person, terminal = pty.openpty()
        process = self.start(*args, stdin=terminal)
        os.close(terminal)
        os.write(person, types.encode())
        out, err = process.communicate(timeout=300)
        os.close(person)
        assert "Traceback" not in out + err
        return process.returncode, err + out  # the questions, then all else

    def inv(self, *args: str, code: int = 0, **variables: str) -> str:
        """Run `inv args` in this process, which has to end with `code`; return all it says."""
        self.capture.readouterr()
        ended = run_here(list(args), self.root, variables, self.patch)
        said = "".join(self.capture.readouterr())
        assert ended == code, said
        return said

    def has(self, *names: str) -> list[bool]:
        return [(self.root / name).exists() for name in names]

    def text(self, name: str) -> str:
        return (self.root / name).read_text()

    @property
    def journal(self) -> Journal:
        return Journal(self.root / ".release" / "v0.1.1" / "journal.jsonl")


@pytest.fixture
def project(work: Work, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Project:
    work.commit({"tasks.py": TASKS, "invoke.yaml": EXECUTOR})
    return Project(work.root, monkeypatch, capfd)


def test_a_dry_run_and_a_status_look_and_change_nothing(project: Project) -> None:
    for command in (["--dry", "whole", *V], ["status", *V]):
        said = project.inv(*command)
        assert TOOK.findall(said) == CHECKED
    assert project.has("it", "sent", ".release") == [False, False, False]


def test_a_run_changes_what_is_missing_and_the_next_one_finds_it_done(project: Project) -> None:
    said = project.inv("whole", *V)
    assert [state for state, _ in TOOK.findall(said)] == [
        "done",
        "changed",
        "done",
        "changed",
        "done",
        "manual",
        "done",
    ]
    assert "Released 0.1.1: 7 steps, 4 done, 2 changed, 1 manual." in said
    assert project.has("it", "sent") == [True, True]
    steps = [record for record in project.journal.records() if record["event"] == "step"]
    told = [(step["section"], step["step"], step["state"]) for step in steps]
    assert told[:2] == [("1. First", "Ask the gate", "done"), ("1. First", "Write it", "changed")]
    checked = [record["state"] for record in project.journal.records() if record["event"] == "checked"]
    assert checked == [state for state, _ in CHECKED]
    assert "Released 0.1.1: 7 steps, 6 done, 1 manual." in project.inv("whole", *V)


def test_the_last_line_says_how_far_it_came(project: Project) -> None:
    assert "Ready to take 0.1.1 to 1. First; nothing was changed: 3 steps" in project.inv("--dry", "first", *V)
    said = project.inv("first", *V)
    assert "Took 0.1.1 to 1. First: 3 steps" in said and "Released" not in said
    assert "Ready to release 0.1.1; nothing was changed: 7 steps" in project.inv("status", *V)


def test_the_last_line_of_a_withdrawal_says_what_became_of_it(project: Project, work: Work) -> None:
    work.git("branch", "release/v0.1.1")
    assert "Ready to withdraw 0.1.1; nothing was changed: 1 step" in project.inv("--dry", "withdraw", *V)
    assert "Withdrew 0.1.1: 1 step, 1 changed." in project.inv("withdraw", *V)


def test_a_section_beside_the_process_needs_no_variable_of_dev(project: Project) -> None:
    dev = 'release: {environments: {dev: {dsn: "${NO_DSN}", origin: "http://x"}}}\n'
    (project.root / "invoke.yaml").write_text(EXECUTOR + dev)
    project.inv("withdraw", *V)
    assert "the environment variable NO_DSN is not set" in project.inv("--dry", "first", *V, code=1)


def test_half_way_a_status_says_what_comes_next(project: Project, work: Work) -> None:
    """It said "Ready to release"."""
    project.inv("first", *V)
    work.git("branch", "release/v0.1.1")
    assert "Next: 2. Second, to release 0.1.1; nothing was changed: 7 steps" in project.inv("status", *V)
    project.inv("whole", *V)
    assert "Released 0.1.1; nothing was changed: 7 steps" in project.inv("status", *V)


def test_a_rehearsal_never_hints_at_a_real_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """It printed `inv release --yes --highlights "…"`, which asks nothing."""
    monkeypatch.setattr(command_line, "typed", [("release", {"version": "0.1.4", "yes": True})])
    assert command_line.again(highlights="…") == 'inv release --version 0.1.4 --yes --highlights "…"'
    with monkeypatch.context() as patch:  # typed as shown, it was a real release
        patch.setattr(sys, "argv", ["inv", "--dry", "release"])
        assert command_line.again(yes=True) == "inv --dry release --version 0.1.4 --yes"
    monkeypatch.setenv(command_line.REHEARSING, "{}")
    assert command_line.again(highlights="…") == "inv rehearse"
    assert command_line.again(version="0.1.2") == "inv rehearse --version 0.1.2", "0.1.1 was withdrawn"
    assert command_line.again("Write them.", highlights="…") == "Write them."


def test_what_comes_next_is_a_change_not_a_gate_that_waits_for_the_run() -> None:
    """After the tag it was section 2, whose browser is started by each run."""

    def gate(release: Release) -> str:
        return ""

    steps = [PlannedStep("2. First", gate), PlannedStep("7. Second", write_it), PlannedStep("7. Second", gate)]
    waits = [Outcome(step.section, step.title, PENDING) for step in steps]
    assert first_open(steps, waits) == waits[1]
    assert first_open(steps[:1], waits[:1]) == waits[0]
    refused = Outcome("2. First", "Gate", REFUSED)
    assert first_open(steps, [refused, *waits[1:]]) == refused
    assert first_open(steps[:1], [Outcome("2. First", "Gate", DONE)]) is None


def test_a_gate_is_asked_once_a_section_until_something_changes(project: Project) -> None:
    project.inv("whole", *V)
    assert project.text("asked") == "x" * 3  # two looks, and the second section's again after the changes
    project.inv("whole", *V)
    assert project.text("asked") == "x" * 5


def test_nothing_changes_when_any_look_is_refused_and_one_cause_is_told_once(project: Project) -> None:
    (project.root / "closed").touch()
    for command in (["whole"], ["--dry", "whole"], ["status"]):
        said = project.inv(*command, *V, code=1)
        assert "Refused, 1 problem:" in said and "rm closed" in said
    assert project.has("it", "sent") == [False, False]


def test_a_run_that_is_refused_after_the_tag_names_the_withdrawal_last(project: Project, work: Work) -> None:
    (project.root / "closed").touch()
    way_out = 'If it cannot be finished: inv withdraw --version 0.1.1 --reason "…"\n'
    assert way_out not in project.inv("whole", *V, code=1)
    work.release_before("v0.1.1")
    assert project.inv("whole", *V, code=1).endswith(f"\n\n{way_out}")
    assert way_out not in project.inv("status", *V, code=1)


def test_a_change_that_did_not_hold_ends_the_run_there(project: Project) -> None:
    (project.root / "leak").touch()
    said = project.inv("whole", *V, code=1)
    assert "the check after it still plans: write it." in said and "Send it" not in said
    assert project.journal.records()[-1]["state"] == "refused"
    (project.root / "leak").unlink()
    assert "Released 0.1.1" in project.inv("whole", *V)


def test_options_reach_the_sections_before_that_declare_them(project: Project) -> None:
    project.inv("--dry", "whole", "--sign", *V)
    assert project.text("options").splitlines() == ["0.1.1 None None", "0.1.1 True None"]


def test_an_option_of_a_section_named_twice_is_not_lost_and_two_values_are_refused(project: Project) -> None:
    """R29: `inv deploy.staging tag --sign` once lost --sign."""
    project.inv("--dry", "whole", "second", "--sign", *V)
    assert project.text("options").splitlines()[-1] == "0.1.1 True None"
    said = project.inv("--dry", "second", "--until", "noon", "second", "--until", "dusk", *V, code=1)
    assert "--until is given twice: found noon and dusk." in said


def test_a_section_takes_the_options_of_those_before_it_and_no_later_ones(project: Project) -> None:
    assert "'--until'" in project.inv("--dry", "first", "--until", "noon", *V, code=1)
    for section in ("second", "whole"):
        project.inv("--dry", section, "--until", "noon", *V)
        assert project.text("options").splitlines()[-1] == "0.1.1 False noon"


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (["second", *V, "--until", "noon"], 'inv second --version 0.1.1 --until noon --sign "…"'),
        (["--dry", "first", "whole", "--yes", *V], 'inv --dry first whole --version 0.1.1 --yes --sign "…"'),
        (["status", "--json"], "Sign it."),
    ],
)
def test_a_hint_is_the_command_that_was_typed_with_what_is_missing(
    project: Project, command: list[str], hint: str
) -> None:
    """It was another command, as `inv release`, and lacked the options that were typed."""
    (project.root / "again").touch()
    said = project.inv(*command, code=1)
    assert (hint in said) or json.loads(said)[0]["problems"][0]["hint"] == hint


def test_what_starts_something_is_left_out_once_a_quick_look_is_refused(project: Project, work: Work) -> None:
    """A dirty tree was refused after 15 seconds, when the smokes had run."""
    (project.root / "costs").touch()
    (project.root / "closed").touch()
    assert "The gate is closed" in project.inv("whole", *V, code=1) and project.has("it-cost") == [False]
    (project.root / "closed").unlink()
    assert "Released 0.1.1" in project.inv("whole", *V) and project.has("it-cost") == [True]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            ["first", "--version", "0.1.1", "second", "--version", "0.1.2"],
            "--version is given twice: found 0.1.1 and 0.1.2.",
        ),
        (["first", "--version", "1.0"], "'1.0' is not a version"),
        (["first", "--version", ""], "'' is not a version"),
        (["first"], "Which version? None was given, and VERSION says '0.1.1-dev'"),
        (["first", "--version", "0.1.1-dev"], "work in progress"),
    ],
)
def test_one_run_is_about_one_version_that_can_be_released(project: Project, command: list[str], told: str) -> None:
    said = project.inv(*command, code=1)
    assert told in said and "Traceback" not in said
    assert project.has("it") == [False]


def test_the_version_is_taken_from_version_where_that_names_a_release(project: Project) -> None:
    (project.root / "VERSION").write_text("0.1.1\n")
    project.inv("first")
    assert project.text("options").startswith("0.1.1 ")


def test_a_status_without_a_version_takes_the_one_in_work(project: Project) -> None:
    """M16"""
    assert TOOK.findall(project.inv("status")) == CHECKED
    assert project.text("options").startswith("0.1.1 ")


def test_a_status_without_a_version_takes_the_candidate_that_is_under_way(project: Project) -> None:
    """It was about the release that the candidate leads to."""
    (project.root / "VERSION").write_text("0.1.1-rc.1\n")
    project.inv("status")
    assert project.text("options").startswith("0.1.1-rc.1 ")


def test_asking_for_help_starts_nothing(project: Project) -> None:
    assert "1. First" in project.inv("first", "--help") + project.inv("--help", "first")
    assert project.has("it", "asked") == [False, False]


@pytest.mark.parametrize(
    "settings", ["", "release: {app: x}\n", "tasks: {executor_class: release_tasks.executor.ReleaseExecutor}\n"]
)
def test_without_its_executor_a_section_says_what_is_missing(project: Project, settings: str) -> None:
    (project.root / "invoke.yaml").write_text(settings)
    said = project.inv("whole", *V, code=1)
    assert "executor_class: release_tasks.engine.ReleaseExecutor" in said and "Traceback" not in said
    assert project.has("it") == [False]


def test_settings_that_cannot_be_are_refused_all_at_once(project: Project) -> None:
    (project.root / "invoke.yaml").write_text(EXECUTOR + "release: {apps: x, freeze_days: soon}\n")
    said = project.inv("whole", *V, code=1)
    assert "release.apps" in said and "release.freeze_days" in said and "Traceback" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="modes and devices are POSIX")
@pytest.mark.parametrize(
    ("prepare", "told", "hint"),
    [
        ("touch full", "/full/x cannot be used: Not a directory.", "ls -ld "),
        ("mkdir full; ln -s /dev/full full/x; mkdir -p .release/v0.1.1", "full/x", "ls -ld "),
        ("mkdir -p .release; touch .release/v0.1.1", ".release/v0.1.1", "ls -ld "),
        (
            "mkdir -p .release/v0.1.1; ln -s /dev/full .release/v0.1.1/journal.jsonl",
            "journal.jsonl cannot be used: No space",
            "df -h ",
        ),
        ("rm -rf .release; touch .release", ".release", "ls -ld "),
    ],
)
def test_what_the_disk_refuses_is_a_sentence_with_path_and_reason(
    project: Project, prepare: str, told: str, hint: str
) -> None:
    """F6"""
    assert project.sh(prepare)[0] == 0
    said = project.inv("whole", *V, code=1)
    assert told in said and hint in said and "Traceback" not in said and "mistake" not in said


def test_a_file_that_is_no_text_is_a_sentence(project: Project) -> None:
    """F10"""
    (project.root / "VERSION").write_bytes(b"\xff\xfe0.1.1")
    said = project.inv("status", code=1)
    assert "VERSION cannot be read as UTF-8 text" in said
    assert "Traceback" not in said


def test_an_input_that_ends_is_a_sentence(project: Project) -> None:
    """F7"""
    (project.root / "ask").touch()
    for command in ("inv whole --version 0.1.1 < /dev/null", "inv whole --version 0.1.1 <&-"):
        code, out, err = project.sh(command)
        assert code == 1 and "The input ended before an answer" in out + err
        assert "Traceback" not in out + err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_output_that_lacks_a_character_gets_another_one(project: Project, encoding: str) -> None:
    """F9"""
    (project.root / "arrow").touch()
    code, out, err = project.sh(f"inv whole {shlex.join(V)}", PYTHONIOENCODING=encoding)
    assert code == 0 and "0.1.0 ? 0.1.1" in out, out + err
    process = project.start("status", "--json", *V, PYTHONIOENCODING=encoding)
    assert "0.1.0 → 0.1.1" in [seen["text"] for seen in json.loads(process.communicate(timeout=300)[0])]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    ("command", "closed"),
    [
        ("whole", False),
        ("whole", True),
        ("status", False),
        ("status --json", True),
        ("first --version 1.0", False),
        ("hello", False),
    ],
)
def test_a_full_output_ends_the_run_with_a_sentence(project: Project, work: Work, command: str, closed: bool) -> None:
    """F9"""
    if closed:  # the gate, so that there are problems to print
        (project.root / "closed").touch()
    work.write({"tasks.py": TASKS + PLAIN})
    code, _, err = project.sh(
        f"inv {command} {'' if 'version' in command or command == 'hello' else ' '.join(V)} > /dev/full"
    )
    assert (code, err) == (1, "Something cannot be read or written: No space left on device.\n    df -h\n")


@pytest.mark.parametrize("command", ["whole", "status", "status --json"])
def test_nothing_is_begun_where_nobody_would_see_what_became_of_it(project: Project, command: str) -> None:
    """It ended with exit code 0 and without a word; a refusal was lost too."""
    code, _, err = project.sh(f"inv {command} {shlex.join(V)} >&-")
    assert (code, err) == (1, "Standard output is closed: nothing was begun, as nobody would see what became of it.\n")
    assert project.sh(f"inv {command} {shlex.join(V)} >&- 2>&-")[0] == 1
    assert project.has("it") == [False]


@pytest.mark.parametrize("command", [["whole", *V], ["status", *V], ["status", "--json", *V], ["--list"]])
def test_an_output_that_nobody_reads_ends_the_run_with_a_sentence(project: Project, command: list[str]) -> None:
    """`inv release | head` ended with exit code 1 and without a word."""
    reader, writer = os.pipe()
    os.close(reader)
    argv, env = [sys.executable, "-m", "invoke", *command], {**os.environ, "PYTHONPATH": str(ROOT)}
    env |= {"PYTHONUNBUFFERED": ""}  # which some machines set, and then it was well
    ran = subprocess.run(argv, cwd=project.root, env=env, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=300)
    os.close(writer)
    said = "Standard output was closed. What is done stays done; run it again.\n"
    assert (ran.returncode, ran.stderr) == (141, said)
    assert project.sh("PYTHONUNBUFFERED= inv --list | head -1")[2] == "", "enough was read"


def test_a_variable_that_does_not_fit_its_key_is_named(project: Project) -> None:
    """F10"""
    (project.root / "invoke.yaml").write_text(EXECUTOR + "release: {freeze_days: 2, install: [a]}\n")
    said = project.inv("whole", *V, code=1, INVOKE_RELEASE_FREEZE_DAYS="abc")
    assert "INVOKE_RELEASE_FREEZE_DAYS" in said and "'abc'" in said and "Traceback" not in said
    assert "INVOKE_RELEASE_INSTALL" in project.inv("whole", *V, code=1, INVOKE_RELEASE_INSTALL="abc")
    said = project.inv("whole", *V, code=1, INVOKE_RELEASE_FREEZE_DAYS="1000000000")
    assert "release.freeze_days: found 1000000000" in said


def test_a_manual_step_before_the_tag_waits_for_a_person(project: Project, work: Work) -> None:
    """M21: where output goes to a file or a pipe, the question was in there, and nobody saw it."""
    code, said = project.on_a_terminal("whole", *V, types="y\n")
    assert code == 0 and said.count("Tell people: done?") == 1 and "Released 0.1.1" in said
    assert [record["confirmed"] for record in project.journal.records() if record["event"] == "answer"] == [True]
    code, said = project.on_a_terminal("whole", *V, types="\n")
    assert code == 1 and "Tell people: not confirmed." in said
    code, said = project.on_a_terminal("whole", "--sign", *V, types="\x04")
    assert code == 1 and "Tell people: not confirmed. Do it, then go on:" in said
    assert said.rstrip().endswith("inv whole --version 0.1.1 --sign")
    assert "Tell people: done?" not in project.on_a_terminal("--dry", "whole", *V, types="")[1]
    assert "Tell people: done?" not in project.inv("whole", *V)
    assert "Tell people: done?" not in project.on_a_terminal("whole", "--yes", *V, types="")[1]
    work.git("tag", "--annotate", "--message", "x", "v0.1.1")
    work.git("push", "--quiet", "origin", "v0.1.1")
    assert "Tell people: done?" not in project.on_a_terminal("whole", *V, types="")[1]


def test_a_status_is_json_on_stdout_alone_for_machines(project: Project) -> None:
    process = project.start("status", "--json", *V)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert [(seen["section"], seen["state"]) for seen in json.loads(out)] == [
        (heading, state) for heading, (state, _) in zip(["1. First"] * 3 + ["2. Second"] * 4, CHECKED, strict=True)
    ]
    (project.root / "closed").touch()
    process = project.start("status", "--json", *V)
    problems = [seen["problems"] for seen in json.loads(process.communicate(timeout=300)[0])]
    assert process.returncode == 1 and problems[0] == [{"what": "The gate is closed.", "hint": "rm closed"}]


def test_a_status_that_cannot_begin_leaves_stdout_to_json(project: Project) -> None:
    out, err = project.start("status", "--json", "--version", "1.0").communicate(timeout=300)
    assert out == "" and "'1.0' is not a version" in err


def test_what_nobody_foresaw_is_told_as_our_mistake_without_secrets(project: Project) -> None:
    (project.root / "crash").touch()
    said = project.inv("whole", *V, code=1)
    assert "mistake in the release layer" in said and "unforeseen, with password=***" in said


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM is POSIX")
def test_a_run_is_alone_ends_on_sigterm_in_words_and_goes_on_later(project: Project) -> None:
    (project.root / "hang").touch()
    process = project.start("whole", *V)
    assert until(lambda: project.has("hangs") == [True])
    assert "Another release run is under way" in project.inv("whole", *V, code=1)
    assert TOOK.findall(project.inv("status", *V)) == CHECKED
    process.terminate()
    assert "the same command goes on" in process.communicate(timeout=300)[1]
    assert process.returncode == 130
    (project.root / "hang").unlink()
    assert "Released 0.1.1" in project.inv("whole", *V)


def test_a_second_run_is_refused_while_the_first_one_checks(project: Project) -> None:
    """F11: it emptied the checks/ of the first one."""
    (project.root / "slow").touch()
    process = project.start("whole", *V)
    assert until(lambda: project.has("hangs") == [True])
    assert "Another release run is under way" in project.inv("whole", *V, code=1)
    (project.root / "slow").unlink()
    assert TOOK.findall(project.inv("status", *V)) == CHECKED
    process.kill()
    process.communicate()


def test_a_kill_in_the_middle_loses_nothing(project: Project) -> None:
    (project.root / "hang").touch()
    process = project.start("whole", *V)
    assert until(lambda: project.has("hangs") == [True])
    process.kill()
    process.communicate()
    (project.root / "hang").unlink()
    assert "Released 0.1.1" in project.inv("whole", *V)


def test_other_tasks_run_as_ever(project: Project, work: Work) -> None:
    work.write({"tasks.py": TASKS + PLAIN})
    assert project.inv("hello") == "hello\n"
    assert (project.root / ".release" / ".gitignore").read_text() == "*\n"  # before anything is written there
    said = project.inv("hello", "first", *V, code=1)
    assert "hello cannot be run in one command with sections of the process" in said
    assert project.has("it") == [False]


@pytest.mark.parametrize("command", [["whole", "status"], ["status", "first"], ["hello", "status"]])
def test_a_status_is_a_command_of_its_own(project: Project, work: Work, command: list[str]) -> None:
    """One word more made a status of the whole line: nothing was released, with exit code 0."""
    work.write({"tasks.py": TASKS + PLAIN})
    said = project.inv(*command, code=1)
    assert "status cannot be run in one command with sections of the process" in said
    assert project.has("it") == [False]


def test_a_task_of_the_repo_cannot_have_a_section_as_its_pre(project: Project, work: Work) -> None:
    """It was told that an executor is missing, which is set."""
    local = "import process\nfrom invoke import task\n\n@task(pre=[process.first])\ndef hi(c):\n    print('hi')\n"
    tasks = "from invoke import Collection\nimport tasks_local\nnamespace = Collection(local=tasks_local)\n"
    work.write({"process.py": TASKS, "tasks_local.py": local, "tasks.py": tasks})
    said = project.inv("local.hi", code=1)
    assert "local.hi cannot be run in one command with sections of the process, nor have one as its pre." in said
    assert "executor" not in said and project.has("it") == [False]


@pytest.mark.parametrize(
    ("error", "told", "hint"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/no/where"),
            "/no/where cannot be used: No space",
            "df -h /",
        ),
        (PermissionError(errno.EACCES, "Permission denied", Path("/tmp")), "/tmp cannot be used: Perm", "ls -ld /tmp"),
        (OSError(errno.EROFS, "Read-only file system"), "Something cannot be read or written: Read-only", ""),
        (
            shutil.Error([("a", "/b c", "[Errno 28] No space left on device")]),
            "/b c cannot be used: [Errno 28]",
            "df -h /",
        ),
    ],
)
def test_what_the_system_refuses_names_path_reason_and_a_command(error: OSError, told: str, hint: str) -> None:
    """F6"""
    problem = problem_of(error)
    assert problem.what.startswith(told) and problem.hint == hint
