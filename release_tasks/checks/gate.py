"""The pytest plugin that makes a run a gate: only a test that ran, looked at something and held passes."""

import gc
import re
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from release_tasks import process
from release_tasks.checks import FAILED, INCONCLUSIVE, WAIVED, CheckFailed, Inconclusive, NoPass, Record, deployed
from release_tasks.checks.api import Api
from release_tasks.checks.logs import SQL_TROUBLE, Log
from release_tasks.checks.series import Series
from release_tasks.checks.target import Target
from release_tasks.checks.views import check_view, launch_options
from release_tasks.database import structure
from release_tasks.errors import Refused, listed
from release_tasks.masks import mask, short

TARGET = pytest.StashKey[Target]()
LIMIT = 75.0  # seconds for a test that names no other, beyond its wait
NOTHING = "It looked at nothing: no query, request or program; what a test looks at itself it records: record_property"
OTHERS = {"api", "view", "page", "context", "log", "run", "deployed"}  # fixtures that use more than the database


def pytest_configure(config: pytest.Config) -> None:
    try:
        config.stash[TARGET] = Target.load()
    except Inconclusive as no:
        raise pytest.UsageError(str(no)) from None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Take the release itself first and last, logs after the tests that may write to them; apply the marks."""
    items.sort(key=lambda item: (item.name == "test_this_release_still_runs", "log" in item.fixturenames))
    for item in items:
        for mark in item.own_markers:
            if mark.name == "waived":
                if not any(mark.args):
                    raise pytest.UsageError(f'{item.nodeid} is waived without a reason: @pytest.mark.waived("why")')
                item.user_properties += [("outcome", WAIVED), ("message", mark.args[0])]
                item.add_marker(pytest.mark.skip(reason=mark.args[0]))
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
    mistaken = type(error) in (NameError, TypeError, ValueError) or isinstance(error, psycopg.ProgrammingError)
    return getattr(error, "final", mistaken)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record the outcome of a failure, its message and what fixes it; show no secret."""
    gc.disable()  # on Python 3.11 a finalizer could break it (https://github.com/python/cpython/issues/106905)
    report = yield
    gc.enable()
    if hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", "It is marked xfail: a failure that is expected is no pass."
        del report.wasxfail
    if report.failed:
        error, text = call.excinfo.value if call.excinfo else None, mask(report.longreprtext)
        if text != report.longreprtext:
            report.longrepr = text
        lines = [line[2:].strip() for line in text.splitlines() if line.startswith("E ")]
        message = str(error) if isinstance(error, NoPass | Refused) else " ".join(lines) or text
        hint = error.problems[0].hint if isinstance(error, Refused) else getattr(error, "hint", "")
        outcome = FAILED if isinstance(error, AssertionError | pytest.fail.Exception) else INCONCLUSIVE
        item.user_properties += [("outcome", outcome), ("message", message), ("hint", hint)]
    report.user_properties = [(name, mask(str(value))) for name, value in item.user_properties]
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
def api(target: Target, record_property: Record) -> Iterator[Api]:
    with Api(target.origin, record_property) as session:
        yield session


@pytest.fixture
def log(target: Target, record_property: Record) -> Log:
    return Log(target, record_property)


@pytest.fixture(name="deployed")
def deployed_fixture(target: Target, record_property: Record) -> Callable[[], None]:
    return partial(deployed.check_release, target, record_property)


@pytest.fixture
def view(context: Any, api: Api, record_property: Record) -> Callable[..., None]:
    return partial(check_view, context, api, record_property)


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """pytest-playwright's, for the browser of this machine."""
    return {**launch_options(), **browser_type_launch_args}


@pytest.fixture
def run(target: Target, record_property: Record) -> Callable[..., process.Finished]:
    """Run a program of the application, which ends with 0 in time and prints what it must; it leaves no children."""

    def run(*argv: str, must_print: str, must_not_print: str = SQL_TROUBLE, timeout: float = 60, **env: str) -> Any:
        if re.search(must_print, ""):
            raise ValueError(f"must_print={must_print!r} matches silence; expected what a program has to say")
        late, env = False, {**target.env, **env}
        try:
            ran = process.run(argv, cwd=Path(target.folder), env=env, timeout=timeout, check=False, supervised=True)
        except process.CommandFailed as error:
            late, ran = True, error.finished
        trouble = [line for line in ran.output.splitlines() if must_not_print and re.search(must_not_print, line)]
        wrong = {
            f"did not end within {timeout:g} s": late,
            f"ended with exit code {ran.code}": ran.code,
            "printed trouble": trouble,
            f"did not print {must_print!r}": not re.search(must_print, ran.output, re.MULTILINE),
        }
        if any(wrong.values()):
            said = short("; ".join(trouble[:3])) or ran.tail(5) or "nothing"
            how = next(how for how, is_so in wrong.items() if is_so)
            raise CheckFailed(f"{short(' '.join(argv), 80)} {how}; it said: {said}")
        record_property("run", ran.tail(1))
        return ran

    return run


@pytest.fixture(scope="module", autouse=True)
def database_stays_as_it_is(request: pytest.FixtureRequest, target: Target) -> Iterator[None]:
    """After the smokes of a file the database consists of what it did before, unless they are marked `changes`."""
    if request.path.parent.name != "smokes" or request.node.get_closest_marker("changes"):
        yield
        return
    before = structure.read(target.dsn, target.name, roles=False)
    yield
    if changed := structure.differences(before, structure.read(target.dsn, target.name, roles=False)):
        hint = 'Let it leave the database as it is; or say why not: pytestmark = pytest.mark.changes("…")'
        raise CheckFailed(f"While {request.path.name} ran, the database changed: {listed(map(str, changed))}.", hint)
