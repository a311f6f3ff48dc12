"""A smoke passes by exit code 0 and its mark; silence, another word or a hang is a failure."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from release_tasks import masks, shell
from release_tasks.settings import Smoke
from release_tasks.smokes import Result, run_smoke, smoke_problems
from tests.test_shell import alive, until

HANG_WITH_A_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("PASS idhr", child.pid, flush=True)
open("child", "w").write(str(child.pid))
time.sleep(60)
"""


@pytest.fixture
def smoke(tmp_path: Path) -> Callable[..., Result]:
    """Return what runs Python code as the smoke idhr, which has to print PASS idhr."""

    def smoke(code: str, timeout: float = 20, must_print: str = "(?m)^PASS idhr") -> Result:
        made = Smoke(command=[sys.executable, "-c", code], must_print=must_print, timeout=timeout)
        return run_smoke("idhr", made, "staging", tmp_path, {"ORIGIN": "http://here"})

    return smoke


def test_exit_code_0_and_the_mark_are_a_pass(smoke: Callable[..., Result]) -> None:
    result = smoke("import os; print('looking'); print('PASS idhr at', os.environ['ORIGIN'])")
    assert (result.name, result.where, result.problem) == ("idhr", "staging", "")
    assert result.seen == "PASS idhr at http://here" and 0 < result.seconds < 20


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("print('PASS idhr'); raise SystemExit(3)", "exit code 3; it said: PASS idhr"),
        ("raise SystemExit(1)", "exit code 1; it said: nothing"),
        ("pass", "exit code 0, but it did not print '(?m)^PASS idhr'; it said: nothing"),
        ("print('all is well')", "exit code 0, but it did not print '(?m)^PASS idhr'; it said: all is well"),
        ("print('no PASS idhr')", "exit code 0, but it did not print '(?m)^PASS idhr'; it said: no PASS idhr"),
    ],
    ids=["fails after its mark", "fails in silence", "silent", "another word", "mark elsewhere"],
)
def test_everything_else_is_a_failure_that_says_what_was_seen(
    smoke: Callable[..., Result], code: str, told: str
) -> None:
    assert smoke(code).problem == told


def test_a_mark_on_the_error_stream_counts(smoke: Callable[..., Result]) -> None:
    assert not smoke("import sys; print('PASS idhr', file=sys.stderr)").problem


def test_a_hang_ends_at_its_deadline_with_all_it_started(smoke: Callable[..., Result], tmp_path: Path) -> None:
    began = time.monotonic()
    result = smoke(HANG_WITH_A_CHILD, timeout=2)
    assert "did not end within 2 s" in result.problem and "PASS idhr" in result.problem
    assert time.monotonic() - began < 20
    assert until(lambda: not alive(int((tmp_path / "child").read_text())))


def test_a_program_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    result = run_smoke("idhr", Smoke(command=["no-such-smoke"], must_print="x"), "dev", tmp_path, {})
    assert "no-such-smoke was not found" in result.problem


def test_what_a_smoke_says_is_kept_without_secrets(
    smoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "_hidden", set())
    shell.hide("hunter2-hunter2")
    assert smoke("print('PASS idhr with hunter2-hunter2')").seen == "PASS idhr with ***"
    for code in ("print('hunter2-hunter2')", "print('hunter2-hunter2'); raise SystemExit(1)"):
        assert "hunter2" not in repr(smoke(code))


def test_each_smoke_that_failed_is_one_problem_with_the_command_that_repeats_it() -> None:
    passed, failed = Result("idhr", "dev", 0.1, "PASS"), Result("sampling", "dev", 0.1, "", "exit code 1")
    (problem,) = smoke_problems([passed, failed])
    assert problem.what == "The smoke sampling fails on dev: exit code 1"
    assert problem.mend == "inv smokes --env dev --only sampling"
    assert smoke_problems([passed]) == []
