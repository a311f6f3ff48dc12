"""The pytest plugin that makes a run a gate: only a test that ran, looked at something and held passes."""

import gc
import json
import os
import re
import sys
import threading
import time
from collections.abc import Generator
from math import inf
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_fixed

from release_tasks.checks import JUDGED, LAYER, VARIABLE, Inconclusive, Target, document
from release_tasks.database import structure
from release_tasks.errors import Refused, listed
from release_tasks.masks import hide, mask
from release_tasks.outcome import FAILED, INCONCLUSIVE, WAIVED

TARGET = pytest.StashKey[Target]()
ENDED = pytest.StashKey[int]()  # how many tests came to their end
LEFT = pytest.StashKey[structure.Structure]()  # what the database consisted of after the last file of smokes
ERROR = re.compile(r"E (?! *\+  (where|and) )")  # lines of pytest's report, but for where a value came from
LIMIT = 75.0  # seconds for a test that names no other, beyond its wait
NOTHING = "It observed nothing: no query, request or program. A test records other evidence with record_property."
OTHERS = {"api", "view", "page", "context", "log", "run", "deployed"}  # fixtures that use more than the database


def pytest_configure(config: pytest.Config) -> None:
    try:
        file = Path(os.environ[VARIABLE])
        target = config.stash[TARGET] = Target(**json.loads(file.read_text(encoding="utf-8")))
        file.unlink()  # no test finds the password there
        config.stash[ENDED] = 0
        sys.path.remove(str(LAYER))  # there are the smokes of the working tree as well
        sys.path.append(target.code)
        vars(config.pluginmanager)["consider_module"] = no_plugins
    except (KeyError, OSError):
        raise pytest.UsageError("No target is given. Run: inv smokes --env dev") from None
    if getattr(config.option, "setuponly", False):
        raise pytest.UsageError("--setup-only and --setup-plan run no test.")
    for secret in (target.env.get("PGPASSWORD", ""), target.dsn):
        hide(secret)


def no_plugins(module: Any) -> None:
    """Stop a test file that names plugins: their hooks could change what runs, and what that comes to."""
    if getattr(module, "pytest_plugins", ()):
        raise Inconclusive(f"{module.__name__} names pytest_plugins; no hooks are read. Import what it needs.")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Take the release itself first and last, logs after the tests that may write to them; apply the marks."""
    for path in dict.fromkeys(item.path for item in items):
        if twice := document.named_twice(path):
            raise pytest.UsageError(f"{path.name} has {listed(twice)} twice; only the last one would run.")
    items.sort(key=lambda item: (item.name == "test_this_release_still_runs", "log" in item.fixturenames))
    for item in items:
        if item.get_closest_marker("waived"):
            known = {f"test_{name}": why for name, why, _ in document.tests_in(item.path)}  # as the notes show them
            none = 'It is waived without a reason of its own; expected @pytest.mark.waived("why") above the test.'
            reason = known.get(item.originalname) or none
            judge(item, outcome=INCONCLUSIVE if reason == none else WAIVED, message=reason)
            item.add_marker(pytest.mark.skip(reason=reason))
        if not OTHERS & set(item.fixturenames):
            item.add_marker("queries")
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LIMIT + wait_of(item)))


def judge(item: pytest.Item, **judged: str) -> None:
    """Record how `item` was judged, as the runner reads it."""
    item.user_properties += [(f"{JUDGED}{name}", value) for name, value in judged.items()]


def wait_of(item: pytest.Item) -> float:
    """Return the seconds in which `item` may come to pass: a watch's, those of its mark, or until all has settled."""
    mark, target = item.get_closest_marker("wait"), item.config.stash[TARGET]
    given = [*mark.args, *mark.kwargs.values(), "nothing"] if mark else [target.settled_by - time.time()]
    if not isinstance(given[0], int | float) or not given[0] < inf:
        raise pytest.UsageError(f"{item.nodeid} waits for {given[0]!r}; expected seconds, as in wait(30).")
    return max(given[0], target.watch, 0.0)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Call the test until it passes, its failure is final, or its wait is over."""
    own = len(pyfuncitem.user_properties)  # what its fixtures have seen stays

    def forget(_: RetryCallState) -> None:
        del pyfuncitem.user_properties[own:]

    again = Retrying(
        stop=stop_after_delay(wait_of(pyfuncitem)),
        wait=wait_fixed(1),
        retry=retry_if_exception(lambda error: not is_final(error)),
        before=forget,
        reraise=True,
    )
    pyfuncitem.obj = again.wraps(pyfuncitem.obj)
    result = yield
    if failed := dict(pyfuncitem.user_properties).get(f"{JUDGED}failed"):
        raise Inconclusive(f"The test has caught a failure: {failed}")
    page: Any = pyfuncitem.funcargs.get("page")
    if page and page.url != "about:blank":
        pyfuncitem.user_properties.append(("page", page.url))
    return result


def is_final(error: BaseException) -> bool:
    """Tell whether waiting changes nothing: an error says so, or it is a mistake in the test or its SQL."""
    if isinstance(error, pytest.fail.Exception):  # also of pytest.raises, and of a test whose time is over
        return str(error).startswith("Timeout ")
    mistaken = isinstance(error, NameError | psycopg.ProgrammingError)
    return getattr(error, "final", mistaken or not isinstance(error, Exception))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record the outcome of a failure, its message and what fixes it; show no secret."""
    gc.disable()  # on Python 3.11 a finalizer could break it (https://github.com/python/cpython/issues/106905)
    try:
        report = yield
    finally:
        gc.enable()
    if hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", "It is marked xfail: a failure that is expected is no pass."
        del report.wasxfail
    if report.when == "call" and report.passed and not any(str(value) for _, value in item.user_properties):
        report.outcome, report.longrepr = "failed", NOTHING
    if report.failed:
        error, text = call.excinfo.value if call.excinfo else None, mask(report.longreprtext)
        report.longrepr, lines = text, [line[2:].strip() for line in text.splitlines() if ERROR.match(line)]
        own = [entry.lineno + 1 for entry in call.excinfo.traceback if entry.path == item.path] if error else []
        where = f" ({item.path.name}:{own[-1]})" if own else ""
        message, hint = f"{' '.join(lines) or text}{where}", ""
        if isinstance(error, Refused):
            message, hint = str(error), error.problems[0].hint
        outcome = FAILED if isinstance(error, AssertionError | pytest.fail.Exception) else INCONCLUSIVE
        judge(item, outcome=outcome, message=message, hint=hint)
    if report.when == "teardown":
        item.config.stash[ENDED] += 1
    report.user_properties = [(name, mask(str(value))) for name, value in item.user_properties]
    report.sections = [(name, mask(printed)) for name, printed in report.sections]  # shown below a failure
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Let no run succeed that ended before its last test, as by pytest.exit("", returncode=0), unless by -x.

    End at once where a test has left a thread: Python would wait for it for as long as it likes.
    """
    if session.config.stash[ENDED] < session.testscollected and not session.shouldfail:
        session.exitstatus = pytest.ExitCode.INTERRUPTED
    yield
    if any(not each.daemon and each is not threading.main_thread() for each in threading.enumerate()):
        terminal = session.config.get_terminal_writer()
        terminal.line("A test has left a thread running, which ends with this run.")
        terminal.flush()
        os._exit(session.exitstatus)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Show no secret that a file says instead of being imported."""
    report = yield
    report.longrepr = mask(report.longreprtext) if report.failed else report.longrepr
    report.sections = [(name, mask(printed)) for name, printed in report.sections]
    return report
