"""The fixtures of smokes and acceptance tests: what each of them looks at is recorded."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest

from release_tasks import process
from release_tasks.checks import JUDGED, CheckFailed, Record, Target
from release_tasks.checks.browser import launch_options
from release_tasks.checks.gate import LEFT, TARGET
from release_tasks.checks.logs import SQL_TROUBLE, Log
from release_tasks.checks.series import Series
from release_tasks.database import structure
from release_tasks.errors import listed
from release_tasks.masks import short


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
                record_property(f"{JUDGED}failed", f"a query: {error}")
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
