"""The pytest plugin that makes a run a gate: only a test that ran, looked at something and held is a pass.

pytest has most of it, and pytest.ini switches it on. Here are the target, the mark `wait`, the mark `waived`, and what
a skip or an expected failure are: failures.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from release_tasks.checks import Inconclusive
from release_tasks.checks.target import Target
from release_tasks.masks import mask

TARGET = pytest.StashKey[Target]()
LIMIT = 60.0  # seconds for a test that names no other, beyond its wait
LATE = 15.0  # seconds that a test which waits may be late
NOTHING = "It looked at nothing: no query, request or program; what a test looks at itself it records: record_property"
OTHERS = {"api", "view", "page", "log", "run", "deployed"}
MARKS = (
    "wait(seconds): try the test again until it passes, for so long",
    "waived(reason): this condition is not checked, and why",
    "on_backup: it only reads, and runs on a restored backup as well",
    "changes(reason): it may change what the database consists of",
)
BROWSER = ["pytest_playwright.pytest_playwright"] if find_spec("pytest_playwright") else []
pytest_plugins = ["pytest_timeout", *BROWSER, "release_tasks.checks.fixtures"]  # the later one overrides


def pytest_configure(config: pytest.Config) -> None:
    for mark in MARKS:
        config.addinivalue_line("markers", mark)
    try:
        target = config.stash[TARGET] = Target.load()
    except Inconclusive as no:
        raise pytest.UsageError(str(no)) from None
    if BROWSER:
        own = {"output": str(Path(target.evidence, Path(config.args[0]).stem)), "screenshot": "on"}
        vars(config.option).update(own, full_page_screenshot=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take the release itself first and last, and logs after the tests that may write to them."""
    target = config.stash[TARGET]
    if target.marked:
        items[:] = [item for item in items if item.get_closest_marker(target.marked)]
    if target.only_queries:
        items[:] = [item for item in items if not OTHERS & set(getattr(item, "fixturenames", ()))]
    items.sort(key=lambda item: (_is_last(item), "log" in getattr(item, "fixturenames", ())))
    for item in items:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LIMIT + _wait(item) + LATE))


def _is_last(item: pytest.Item) -> bool:
    return item.name == "test_this_release_still_runs"


def _wait(item: pytest.Item) -> float:
    """Return the seconds in which `item` may come to pass: those of its mark, else until the target has settled."""
    if mark := item.get_closest_marker("wait"):
        return float(mark.args[0] if mark.args else mark.kwargs["seconds"])
    return max(item.config.stash[TARGET].settled_by - time.time(), 0.0)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if mark := next((mark for mark in item.own_markers if mark.name == "waived"), None):  # of the test, not its file
        reason = str(mark.args[0] if mark.args else "").strip()
        if not reason:
            raise Inconclusive("A waiver needs its reason.", '@pytest.mark.waived("…")')
        item.user_properties.append(("waived", reason))
        pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    """Call the test until it passes, its failure is final, or its wait is over."""

    def attempt() -> Any:
        pyfuncitem.user_properties.clear()
        return pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames})

    again = retry_if_exception(lambda error: isinstance(error, Exception) and not _is_final(error))
    returned = Retrying(stop=stop_after_delay(_wait(pyfuncitem)), wait=wait_fixed(1), retry=again, reraise=True)(
        attempt
    )
    if returned is not None:
        raise Inconclusive(f"The test returned {returned!r}; expected an assert.")
    if not pyfuncitem.user_properties:
        raise Inconclusive(NOTHING)
    return True


def _is_final(error: BaseException) -> bool:
    return getattr(error, "final", False) or type(error) in (NameError, TypeError, ValueError)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip or an expected failure is no pass, unless it is waived; no failure shows a secret."""
    gc.disable()  # on Python 3.11 a finalizer could break it (https://github.com/python/cpython/issues/106905)
    try:
        report = yield
    finally:
        gc.enable()
    if hasattr(report, "wasxfail"):
        _fail(report, "It is marked xfail: a failure that is expected is no pass.")
        del report.wasxfail
    elif report.failed and mask(text := str(report.longrepr)) != text:
        report.longrepr = mask(text)
    elif report.skipped and not dict(item.user_properties).get("waived"):
        _fail(report, f"It was skipped: {_reason(report).removeprefix('Skipped: ')}.")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that skips itself is no pass."""
    report = yield
    if report.outcome == "skipped":
        _fail(report, f"It was skipped: {_reason(report).removeprefix('Skipped: ')}.")
    return report


def _fail(report: Any, message: str) -> None:
    report.outcome, report.longrepr = "failed", f"Inconclusive: {message}"


def _reason(report: Any) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
