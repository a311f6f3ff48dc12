"""What pytest calls the outcome of a test, as a verdict; and what a test of the team says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from release_tasks.checks.verdict import FAIL, PASS, UNKNOWN, Unknown, Wrong, name_of
from release_tasks.errors import Refused
from release_tasks.masks import mask


def title_of(item: pytest.Item) -> str:
    """Return the name of a team's own test: of its file, and its own."""
    return f"{name_of(item.path)}/{item.name}"


def about(item: pytest.Item) -> str:
    """Return what a test of the team is about: its docstring's first line, else its file's, else its name."""
    for told in (getattr(item, "obj", None), getattr(item, "module", None)):
        if text := (getattr(told, "__doc__", "") or "").strip():
            return str(text.splitlines()[0].rstrip("."))
    return item.name


def wait_of(item: pytest.Item) -> tuple[float, float]:
    """Return the seconds and the interval of the marker `wait`; 0 without one. Raises `Unknown` where it gives none."""
    mark = item.get_closest_marker("wait")
    if mark is None:
        return 0.0, 1.0
    told = {**dict(zip(("seconds", "interval"), mark.args, strict=False)), **mark.kwargs}
    try:
        return float(told["seconds"]), float(told.get("interval", 1.0))
    except (KeyError, TypeError, ValueError):
        raise Unknown(
            "The marker wait needs seconds, as in @pytest.mark.wait(30, interval=1).", definite=True
        ) from None


def seconds_of(mark: pytest.Mark | None) -> float:
    """Return the seconds of the marker `timeout`; 0 without one, or where it gives none."""
    told = [*mark.args, mark.kwargs.get("timeout", 0)][0] if mark else 0
    return max(float(told), 0.0) if isinstance(told, int | float) else 0.0


def judged(report: pytest.TestReport, call: pytest.CallInfo[None]) -> tuple[str, tuple[str, ...], str]:
    """Return the verdict of one phase of a test, what there is to say, and what mends it."""
    error = call.excinfo.value if call.excinfo else None
    if hasattr(report, "wasxfail"):
        return UNKNOWN, ("It is marked xfail: a failure that is expected is no pass.",), ""
    if report.skipped:
        reason = one_sentence(report.longrepr).removeprefix("Skipped: ")
        return UNKNOWN, (f"It was skipped: {reason or 'no reason was given'}.",), ""
    if error is None:
        return (PASS if report.passed else FAIL), (), ""
    if isinstance(error, Wrong | Unknown):
        return (FAIL if isinstance(error, Wrong) else UNKNOWN), tuple(map(mask, error.said)), error.mend
    if isinstance(error, Refused):
        return UNKNOWN, tuple(mask(each.what) for each in error.problems), error.problems[0].mend
    said = mask(one_sentence(report.longrepr) or f"{type(error).__name__}: {error}")
    failed = report.when == "call" and isinstance(error, AssertionError | pytest.fail.Exception)
    return (FAIL if failed else UNKNOWN), (said,), ""


def one_sentence(longrepr: Any) -> str:
    """Return what pytest says of a failure in one line: the exception, and where it was raised."""
    if isinstance(longrepr, tuple):
        return str(longrepr[2])
    if told := getattr(longrepr, "errorstring", ""):  # of a fixture that there is not
        return str(told).splitlines()[0].removeprefix("E").strip()
    crash = getattr(longrepr, "reprcrash", None)
    if crash is not None:
        return f"{' '.join(crash.message.split())} ({Path(crash.path).name}, line {crash.lineno})"
    lines = [line.removeprefix("E").strip() for line in str(longrepr or "").splitlines()]
    return next((line for line in reversed(lines) if line), "")
