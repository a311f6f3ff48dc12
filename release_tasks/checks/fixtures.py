"""What a check is handed; what it observed is kept by pytest's own `record_property`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest

from release_tasks import process
from release_tasks.checks import CheckFailed, deployed
from release_tasks.checks.api import Api
from release_tasks.checks.gate import TARGET
from release_tasks.checks.logs import SQL_TROUBLE, Log
from release_tasks.checks.series import Series
from release_tasks.checks.target import Target
from release_tasks.checks.views import check_view, launch_options
from release_tasks.database import structure
from release_tasks.errors import listed
from release_tasks.masks import short

Record = Callable[[str, object], None]


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


@pytest.fixture
def run(target: Target, record_property: Record) -> Callable[..., process.Finished]:
    """Run a program of the application, in its folder, with its variables: `run("node", "x.mts", must_print="^OK")`.

    It has to end with exit code 0 within `timeout` seconds, print what `must_print` matches and nothing that
    `must_not_print` does. What it started ends with it.
    """

    def run(
        *argv: str, must_print: str, must_not_print: str = SQL_TROUBLE, timeout: float = 60, **env: str
    ) -> process.Finished:
        if re.search(must_print, ""):
            raise ValueError(f"must_print={must_print!r} matches silence; expected what a program has to say")
        name, folder, env = short(" ".join(argv), 80), Path(target.folder), {**target.env, **env}
        try:
            ran = process.run(argv, cwd=folder, env=env, timeout=timeout, check=False, supervised=True)
        except process.CommandFailed as late:
            said = late.finished.tail(3) or "nothing"
            raise CheckFailed(f"{name} did not end within {timeout:g} s; it said: {said}") from None
        trouble = [line for line in ran.output.splitlines() if must_not_print and re.search(must_not_print, line)]
        if ran.code or trouble or not re.search(must_print, ran.output, re.MULTILINE):
            said = short("; ".join(trouble[:3])) or ran.tail(5) or "nothing"
            how = "printed trouble" if trouble else f"did not print {must_print!r}"
            raise CheckFailed(f"{name} {f'ended with exit code {ran.code}' if ran.code else how}; it said: {said}")
        record_property("run", ran.tail(1))
        return ran

    return run


@pytest.fixture(scope="module", autouse=True)
def database_stays_as_it_is(request: pytest.FixtureRequest, target: Target) -> Iterator[None]:
    """After the smokes of a file the database consists of what it did before, unless they are marked `changes`."""
    watched = request.path.parent.name == "smokes" and not request.node.get_closest_marker("changes")
    before = structure.read(target.dsn, target.name, roles=False) if watched else {}
    yield
    after = structure.read(target.dsn, target.name, roles=False) if watched else {}
    if changed := structure.differences(before, after):
        hint = 'Let it leave the database as it is; or say why not: pytestmark = pytest.mark.changes("…")'
        raise CheckFailed(f"While {request.path.name} ran, the database changed: {listed(map(str, changed))}.", hint)


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """pytest-playwright's, for the browser of this machine."""
    return {**launch_options(), **browser_type_launch_args}
