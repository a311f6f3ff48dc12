"""The pytest plugin that makes a run a gate: only a test that ran, looked at something and held is a pass.

pytest.ini has what pytest does itself. The outcome of a failure goes into JUnit XML beside what was observed.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from psycopg import ProgrammingError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from release_tasks.checks import FAILED, INCONCLUSIVE, WAIVED, Inconclusive, NoPass
from release_tasks.checks.target import Target
from release_tasks.masks import mask

TARGET = pytest.StashKey[Target]()
LIMIT = 75.0  # seconds for a test that names no other, beyond its wait
NOTHING = "It looked at nothing: no query, request or program; what a test looks at itself it records: record_property"
OTHERS = {"api", "view", "page", "context", "log", "run", "deployed"}  # fixtures that use more than the database
BROWSER = ["pytest_playwright.pytest_playwright"] if find_spec("pytest_playwright") else []
pytest_plugins = ["pytest_timeout", *BROWSER, "release_tasks.checks.fixtures"]  # the later one overrides


def pytest_configure(config: pytest.Config) -> None:
    try:
        config.stash[TARGET] = Target.load()
    except Inconclusive as no:
        raise pytest.UsageError(str(no)) from None
    if BROWSER:
        screenshots = str(Path(config.option.xmlpath).with_suffix(""))
        vars(config.option).update(output=screenshots, screenshot="on", full_page_screenshot=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Take the release itself first and last, logs after the tests that may write to them; apply the marks."""
    items.sort(key=lambda item: (item.name == "test_this_release_still_runs", "log" in item.fixturenames))
    for item in items:
        waived = [mark.args[0] for mark in item.own_markers if mark.name == "waived" and any(mark.args)]
        if waived:  # the test itself, with a reason
            item.user_properties += [("outcome", WAIVED), ("message", waived[0])]
            item.add_marker(pytest.mark.skip(reason=waived[0]))
        if not OTHERS & set(item.fixturenames):
            item.add_marker("queries")
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LIMIT + wait_of(item)))


def wait_of(item: pytest.Item) -> float:
    """Return the seconds in which `item` may come to pass: those of its mark, else until the target has settled."""
    mark = item.get_closest_marker("wait")
    return float(mark.args[0]) if mark else max(item.config.stash[TARGET].settled_by - time.time(), 0.0)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Call the test until it passes, its failure is final, or its wait is over."""
    again = Retrying(
        stop=stop_after_delay(wait_of(pyfuncitem)),
        wait=wait_fixed(1),
        retry=retry_if_exception(lambda error: isinstance(error, Exception) and not is_final(error)),
        before=lambda _: pyfuncitem.user_properties.clear(),
        reraise=True,
    )
    pyfuncitem.obj = again.wraps(pyfuncitem.obj)
    result = yield
    kept = dict(pyfuncitem.user_properties)
    if "failed" in kept or not kept:
        raise Inconclusive(f"A query failed: {kept['failed']}" if kept else NOTHING)
    return result


def is_final(error: BaseException) -> bool:
    mistaken = type(error) in (NameError, TypeError, ValueError) or isinstance(error, ProgrammingError)
    return getattr(error, "final", mistaken)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record the outcome of a failure, its message and what fixes it; show no secret."""
    gc.disable()  # on Python 3.11 a finalizer could break it (https://github.com/python/cpython/issues/106905)
    try:
        report = yield
    finally:
        gc.enable()
    if hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", "It is marked xfail: a failure that is expected is no pass."
        del report.wasxfail
    if report.failed:
        error, text = call.excinfo.value if call.excinfo else None, mask(report.longreprtext)
        if text != report.longreprtext:
            report.longrepr = text
        lines = [line[2:].strip() for line in text.splitlines() if line.startswith("E ")]
        message = str(error) if isinstance(error, NoPass) else " ".join(lines) or text
        outcome = FAILED if isinstance(error, AssertionError | pytest.fail.Exception) else INCONCLUSIVE
        own = [("outcome", outcome), ("message", message), ("hint", getattr(error, "hint", ""))]
        item.user_properties += own
        report.user_properties += own
    report.user_properties = [(name, mask(str(value))) for name, value in report.user_properties]
    return report
