"""What people see: plain lines where there is no terminal, no secrets, and JSON that machines can read."""

from __future__ import annotations

import io
import json
import os
import string
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from release_tasks import masks, screen
from release_tasks.errors import Problem
from release_tasks.outcome import CHANGED, DONE, REFUSED, Outcome
from tests.conftest import LAYER
from tests.test_process import until

LINES = st.text(string.printable.split(" ")[0] + "äß数😀", min_size=1, max_size=30)
SECTION = "5. Tag the Release"


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")


def shown(show: Callable[..., None], *args: object) -> str:
    """Return what `show(*args)` prints."""
    with redirect_stdout(io.StringIO()) as out:
        show(*args)
    return out.getvalue()


def test_a_step_is_one_line_with_its_state_and_without_colour() -> None:
    text = "git tag --annotate v0.1.1 " + "x" * 200
    assert shown(screen.step, Outcome(SECTION, "Tag the release commit", CHANGED, text), False) == (
        f"  changed  Tag the release commit.  {text}\n"
    )


@given(LINES)
@example("[bold]no[/bold] [/dim] \\")
@example("a:key:b :x:")
def test_whatever_is_said_is_shown_as_it_is(text: str) -> None:
    masked = masks.mask(text)
    assert shown(screen.say, text) == f"{masked}\n"
    assert shown(screen.step, Outcome(SECTION, "Tag", DONE, text), False).endswith(f" Tag.  {masked}\n")
    assert masked in shown(screen.problems, [Problem(text, text)])
    assert masked in shown(screen.table, "T", ["column"], [[text]])


def test_a_refusal_names_its_step_what_was_found_and_the_hint() -> None:
    problem = Problem("v0.1.1 names 012345678; expected 876543210.", "git tag --delete v0.1.1\ninv release")
    said = shown(screen.refusals, [Outcome(SECTION, "Tag the release commit", REFUSED, problems=(problem,))])
    assert said.splitlines()[1:] == [
        "Refused, 1 problem:",
        "",
        f"  {SECTION} · Tag the release commit",
        "  v0.1.1 names 012345678; expected 876543210.",
        "      git tag --delete v0.1.1",
        "      inv release",
    ]


def test_one_cause_that_refuses_many_steps_is_told_once() -> None:
    same, other = Problem("The remote does not answer."), Problem("The tree is dirty.")
    outcomes = [
        Outcome(SECTION, "A", REFUSED, problems=(same, other)),
        Outcome(SECTION, "B", REFUSED, problems=(same,)),
    ]
    said = shown(screen.refusals, outcomes)
    assert "Refused, 2 problems:" in said and said.count(same.what) == 1


def test_a_section_and_a_run_are_counted() -> None:
    outcomes = [Outcome(SECTION, "A", DONE), Outcome(SECTION, "B", CHANGED), Outcome(SECTION, "C", DONE)]
    later = Outcome("6. Prepare Release Notes", "A", REFUSED)
    assert shown(screen.summary, [*outcomes, later]) == (
        f"  checked {SECTION}: 2 done, 1 changed\n  checked {later.section}: 1 refused\n"
    )
    assert shown(screen.finished, outcomes, "Released 0.1.1") == "\nReleased 0.1.1: 3 steps, 2 done, 1 changed.\n"


SECRET_PROBLEM = Problem("It says hunter2-hunter2.", "psql 'dbname=app password=hunter2-hunter2'")


@pytest.mark.parametrize(
    ("show", "args"),
    [
        (screen.say, ["hunter2-hunter2"]),
        (screen.step, [Outcome(SECTION, "Push", DONE, "https://rita:hunter2-hunter2@example.org"), True]),
        (screen.refusals, [[Outcome(SECTION, "Push", REFUSED, problems=(SECRET_PROBLEM,))]]),
        (screen.problems, [[SECRET_PROBLEM]]),
        (screen.as_json, [[Outcome(SECTION, "Push", REFUSED, "hunter2-hunter2", (SECRET_PROBLEM,))]]),
        (screen.table, ["T", ["column"], [["hunter2-hunter2"]]]),
        (screen.bug, [RuntimeError("hunter2-hunter2")]),
    ],
)
def test_no_secret_is_shown(show: Callable[..., None], args: list[object]) -> None:
    masks.hide("hunter2-hunter2")
    said = shown(show, *args)
    assert "***" in said and "hunter2" not in said


def test_no_secret_is_shown_while_it_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    with screen.busy("Restoring into postgresql://rita:hunter2@example.org/app"):
        said = said_at_last(capsys)
    assert "postgresql://***@example.org/app" in said and "hunter2" not in said


def test_no_secret_is_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(screen, "_stderr", Console(file=terminal, force_terminal=True, width=200))
    url = "postgresql://rita:hunter2@example.org/app"
    with screen.busy(url):
        pass
    assert "***@example.org" in terminal.getvalue() and "hunter2" not in terminal.getvalue()


def test_json_goes_to_stdout_alone_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    masks.hide('hun"ter2')
    text = "x" * 5000 + ' password=abcdef [red]:x:[/] Grüße "quoted" hun"ter2'
    screen.as_json([Outcome(SECTION, "Tag", REFUSED, text, (Problem("what", "fix"),))])
    said = capsys.readouterr()
    assert said.err == "" and said.out.isascii(), "whatever encoding the output has"
    (outcome,) = json.loads(said.out)
    assert outcome == {
        "section": SECTION,
        "step": "Tag",
        "state": "refused",
        "text": "x" * 5000 + ' password=*** [red]:x:[/] Grüße "quoted" ***',
        "problems": [{"what": "what", "hint": "fix"}],
    }


def test_a_bug_is_told_with_its_traceback() -> None:
    try:
        raise RuntimeError("unforeseen")
    except RuntimeError as error:
        said = shown(screen.bug, error)
    assert "Traceback" in said and "test_screen.py" in said
    assert "mistake in the release layer, not in your release: RuntimeError" in said


def test_a_table_keeps_its_rows_on_a_line_each() -> None:
    rows = [("schema-diagnostics", "passed", "PASS " + "x" * 100), ("idhr", "failed", "[oops]")]
    printed = shown(screen.table, "Smokes [all]", ["smoke", "outcome", "line"], rows)
    assert " \n" not in printed
    lines = [line.split() for line in printed.splitlines()]
    assert lines[:2] == [["Smokes", "[all]"], ["smoke", "outcome", "line"]]
    assert lines[-2:] == [["schema-diagnostics", "passed", "PASS", "x" * 100], ["idhr", "failed", "[oops]"]]


def test_only_what_takes_long_is_announced_and_never_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with screen.busy("Quick"):
        pass
    with screen.busy("Slow [work]"):
        said = said_at_last(capsys)
    assert said.split() == ["…", "Slow", "[work]"] and capsys.readouterr() == ("", "")


def said_at_last(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what is said on the error stream, once that is a whole line; nothing may come on the other one."""
    said: list[str] = []

    def hear() -> bool:
        out, err = capsys.readouterr()
        said.append(err)
        assert out == ""
        return "".join(said).endswith("\n")

    assert until(hear)
    return "".join(said)


def test_a_terminal_breaks_sentences_between_words_and_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    narrow = Console(file=terminal, force_terminal=True, color_system=None, soft_wrap=True, width=40)
    monkeypatch.setattr(screen, "_console", narrow)
    hint = "git switch main && git merge --no-ff release/v0.1.1   # resolve, then go on"
    screen.problems([Problem("release/v0.1.1 does not merge into main: CHANGELOG.md. It was taken back.", hint)])
    screen.step(Outcome(SECTION, "Tag the release commit", CHANGED, "git tag --annotate v0.1.1 0123456"), False)
    assert [line.rstrip() for line in terminal.getvalue().splitlines()] == [
        "  release/v0.1.1 does not merge into",
        "  main: CHANGELOG.md. It was taken back.",
        f"      {hint}",
        "  changed  Tag the release commit.  git",
        "           tag --annotate v0.1.1 0123456",
    ]


def test_no_spinner_is_drawn_where_ci_forces_colours() -> None:
    """Rich draws one then, a line for each frame."""
    program = "import time\nfrom release_tasks import screen\nwith screen.busy('Comparing'):\n    time.sleep(0.3)"
    env = {**os.environ, "FORCE_COLOR": "1"}
    ran = subprocess.run([sys.executable, "-c", program], cwd=LAYER.parent, env=env, capture_output=True, text=True)
    assert ran.returncode == 0 and "\x1b" not in ran.stderr
