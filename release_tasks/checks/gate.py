"""The pytest plugin that makes a run a gate: only a test that ran, looked at something and held passes."""

import gc
import json
import os
import re
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_fixed

from release_tasks import process
from release_tasks.checks import VARIABLE, CheckFailed, Inconclusive, Record, Target, document
from release_tasks.checks.browser import launch_options
from release_tasks.checks.logs import SQL_TROUBLE, Log
from release_tasks.checks.series import Series
from release_tasks.database import structure
from release_tasks.errors import Refused, listed
from release_tasks.masks import hide, mask, short
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
    except (KeyError, OSError):
        raise pytest.UsageError("No target is given. Run: inv smokes --env dev") from None
    for secret in (target.env.get("PGPASSWORD", ""), target.dsn):
        hide(secret)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Take the release itself first and last, logs after the tests that may write to them; apply the marks."""
    items.sort(key=lambda item: (item.name == "test_this_release_still_runs", "log" in item.fixturenames))
    for item in items:
        if item.get_closest_marker("waived"):
            known = {f"test_{name}": why for name, why, _ in document.tests_in(item.path)}  # as the notes show them
            none = 'It is waived without a reason of its own; expected @pytest.mark.waived("why") above the test.'
            reason = known.get(item.originalname) or none
            item.user_properties += [("outcome", INCONCLUSIVE if reason == none else WAIVED), ("message", reason)]
            item.add_marker(pytest.mark.skip(reason=reason))
        if not OTHERS & set(item.fixturenames):
            item.add_marker("queries")
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LIMIT + wait_of(item)))


def wait_of(item: pytest.Item) -> float:
    """Return the seconds in which `item` may come to pass: a watch's, those of its mark, or until all has settled."""
    mark, target = item.get_closest_marker("wait"), item.config.stash[TARGET]
    given = [*mark.args, *mark.kwargs.values(), "no seconds"] if mark else [target.settled_by - time.time()]
    return max(float(given[0]), target.watch, 0.0)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Call the test until it passes, its failure is final, or its wait is over."""
    own = len(pyfuncitem.user_properties)  # what its fixtures have seen stays

    def forget(_: RetryCallState) -> None:
        del pyfuncitem.user_properties[own:]

    again = Retrying(
        stop=stop_after_delay(wait_of(pyfuncitem)),
        wait=wait_fixed(1),
        retry=retry_if_exception(lambda error: isinstance(error, Exception) and not is_final(error)),
        before=forget,
        reraise=True,
    )
    pyfuncitem.obj = again.wraps(pyfuncitem.obj)
    result = yield
    if failed := dict(pyfuncitem.user_properties).get("failed"):
        raise Inconclusive(f"A query failed: {failed}")
    page: Any = pyfuncitem.funcargs.get("page")
    if page and page.url != "about:blank":
        pyfuncitem.user_properties.append(("page", page.url))
    return result


def is_final(error: BaseException) -> bool:
    """Tell whether waiting changes nothing: an error says so, or it is a mistake in the test or its SQL."""
    mistaken = type(error) in (NameError, TypeError, ValueError) or isinstance(error, psycopg.ProgrammingError)
    return getattr(error, "final", mistaken)


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
        item.user_properties += [("outcome", outcome), ("message", message), ("hint", hint)]
    if report.when == "teardown":
        item.config.stash[ENDED] += 1
    report.user_properties = [(name, mask(str(value))) for name, value in item.user_properties]
    report.sections = [(name, mask(printed)) for name, printed in report.sections]  # shown below a failure
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let no run succeed that ended before its last test, as by pytest.exit("", returncode=0), unless by -x."""
    if session.config.stash[ENDED] < session.testscollected and not session.shouldfail:
        session.exitstatus = pytest.ExitCode.INTERRUPTED


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Show no secret that a file says instead of being imported."""
    report = yield
    report.longrepr = mask(report.longreprtext) if report.failed else report.longrepr
    report.sections = [(name, mask(printed)) for name, printed in report.sections]
    return report


@pytest.fixture(scope="session")
def target(pytestconfig: pytest.Config) -> Target:
    return pytestconfig.stash[TARGET]


@pytest.fixture
def db(target: Target, record_property: Record) -> Iterator[psycopg.Connection]:
    """A psycopg connection that may only read; a failed query is no pass, also where the test catches it."""

    class Recorded(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **how: Any) -> Self:
            try:
                super().execute(query, params, **how)
            except psycopg.Error as error:
                record_property("failed", error)
                raise
            record_property("query", f"{short(query, 80)} → {self.rowcount} rows")
            return self

    with target.connect() as connection:
        connection.cursor_factory = Recorded
        yield connection


@pytest.fixture
def series(target: Target, record_property: Record) -> Iterator[Callable[..., Series]]:
    with target.connect() as connection:
        yield partial(Series, connection, record_property)


@pytest.fixture
def api(target: Target, record_property: Record) -> Iterator[Any]:
    from release_tasks.checks.web import Api  # here, as requests takes its time, and most smokes need none

    with Api(target.origin, record_property) as session:
        yield session


@pytest.fixture
def log(target: Target, record_property: Record) -> Log:
    return Log(target, record_property)


@pytest.fixture(name="deployed")
def deployed_fixture(target: Target, record_property: Record) -> Callable[[], None]:
    from release_tasks.checks import deployed

    return partial(deployed.check_release, target, record_property)


@pytest.fixture
def view(context: Any, api: Any, record_property: Record) -> Callable[..., None]:
    from release_tasks.checks.web import check_view

    return partial(check_view, context, api, record_property)


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """pytest-playwright's, for the browser of this machine."""
    return {**launch_options(), **browser_type_launch_args}


@pytest.fixture
def run(target: Target, record_property: Record) -> Callable[..., process.Finished]:
    """Run a program of the application, which ends with 0 in time and prints what it must; it leaves no children."""

    def run(*argv: str, must_print: str, timeout: float = 60, **env: object) -> process.Finished:
        if re.search(must_print, ""):
            raise ValueError(f"must_print={must_print!r} matches silence; expected what a program has to say")
        own = {name: str(value) for name, value in env.items()}
        where: dict[str, Any] = {"cwd": Path(target.folder), "env": {**target.env, **own}}
        try:
            ran, how = process.run(argv, **where, timeout=timeout, check=False, supervised=True), ""
        except process.CommandFailed as error:
            ran, how = error.finished, f"did not end within {timeout:g} s"
        trouble = [line for line in ran.output.splitlines() if re.search(SQL_TROUBLE, line)]
        how = how or (f"ended with exit code {ran.code}" if ran.code else "printed trouble" if trouble else "")
        if how or not re.search(must_print, ran.output, re.MULTILINE):
            said = short("; ".join(trouble[:3])) or ran.tail(5) or "nothing"
            how = how or f"did not print {must_print!r}"
            raise CheckFailed(f"{short(' '.join(argv), 80)} {how}; it said: {said}")
        record_property("run", ran.tail(1))
        return ran

    return run


@pytest.fixture(scope="module", autouse=True)
def database_stays_as_it_is(request: pytest.FixtureRequest, target: Target) -> Iterator[None]:
    """After the smokes of a file the database consists of what it did before, unless they are marked `changes`."""
    read, stash = partial(structure.read, target.dsn, target.name, roles=False), request.config.stash
    if request.path.parent.name != "smokes" or request.node.get_closest_marker("changes"):
        yield
        stash[LEFT] = {}
        return
    before = stash.get(LEFT, {}) or read()
    yield
    stash[LEFT] = read()
    if changed := structure.differences(before, stash[LEFT]):
        hint = 'Let it leave the database as it is; or say why not: pytestmark = pytest.mark.changes("…")'
        raise CheckFailed(f"While {request.path.name} ran, the database changed: {listed(map(str, changed))}.", hint)
