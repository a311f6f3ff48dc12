"""What a check is handed: `target`, `db`, `api`, `view`, `page`, `series`, `log`, `run`, `deployed`.

What they observed is kept with the test, by pytest's own `record_property`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
from psycopg import Connection

from release_tasks import node
from release_tasks.checks import CheckFailed, Inconclusive, browser, deployed
from release_tasks.checks.api import Api, own_url, short
from release_tasks.checks.gate import TARGET
from release_tasks.checks.logs import SQL_TROUBLE, Log
from release_tasks.checks.series import Series
from release_tasks.checks.target import CheckCursor, Target
from release_tasks.processes import shell

Record = Callable[[str, object], None]
# What a database consists of, as far as a smoke may take it from the next one.
OBJECTS = """
select format('%s %s', case relkind when 'v' then 'view' when 'm' then 'view' when 'i' then 'index' else 'table' end,
    c.oid::regclass), concat_ws(' ', pg_get_viewdef(case when relkind in ('v', 'm') then c.oid end),
    pg_get_indexdef(case when relkind = 'i' then c.oid end),
    (select string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull), ', ' order by attnum)
     from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped),
    (select string_agg(conname || pg_get_constraintdef(oid), ', ' order by 1)
     from pg_constraint where conrelid = c.oid),
    (select string_agg(pg_get_triggerdef(oid), ', ' order by 1)
     from pg_trigger where tgrelid = c.oid and not tgisinternal))
from pg_class c join pg_namespace n on n.oid = relnamespace
where nspname !~ '^pg_|^information_schema$' and relkind in ('r', 'p', 'v', 'm', 'f', 'i', 'S')
union all
select format('function %s', p.oid::regprocedure), concat_ws(' ', prosrc, pg_get_function_result(p.oid))
from pg_proc p join pg_namespace n on n.oid = pronamespace where nspname !~ '^pg_|^information_schema$'"""


@pytest.fixture(scope="session")
def target(pytestconfig: pytest.Config) -> Target:
    """The environment under test: `version`, `commit`, `name`, `origin`, `code`, `is_backup` …"""
    return pytestconfig.stash[TARGET]


@pytest.fixture
def db(target: Target, record_property: Record) -> Iterator[Connection]:
    """A psycopg connection that may only read, in autocommit, whose statements end after 30 s.

    A query that fails makes the test inconclusive, also where the test catches the error.
    """
    failed: list[Inconclusive] = []

    class Recorded(CheckCursor):
        def execute(self, query: Any, params: Any = None, **how: Any) -> Self:
            try:
                super().execute(query, params, **how)
            except Inconclusive as no:
                failed.append(no)
                raise
            record_property("query", f"{short(str(query), 80)} → {self.rowcount} rows")
            return self

    with target.connect() as connection:
        connection.cursor_factory = Recorded
        yield connection
    if final := [no for no in failed if no.final]:
        raise final[0]


@pytest.fixture
def series(target: Target, record_property: Record) -> Iterator[Callable[..., Series]]:
    """Rows over time: `series(table, keys=…)` → `is_fresh(within=…)`, `has_no_gaps(every=…)`."""
    with target.connect() as connection:
        yield partial(Series, connection, record_property)


@pytest.fixture
def api(target: Target, record_property: Record) -> Iterator[Api]:
    """HTTP on ORIGIN: a session of requests, and `api.expect(path, json={…}, status=200, within=5)`."""

    def record(answer: Any, **_: Any) -> None:
        took = answer.elapsed.total_seconds()
        record_property("request", f"{answer.status_code} in {took:.2f} s, {answer.request.path_url}")

    with Api(target.origin) as session:
        session.hooks["response"] = [record]
        yield session


@pytest.fixture
def log(target: Target, record_property: Record) -> Log:
    """PostgreSQL's server log, or a file, since the deployment began: `log.has_no_trouble()`, `log.lines()`."""
    return Log(target, record_property)


@pytest.fixture
def run(target: Target, record_property: Record) -> Callable[..., shell.Finished]:
    """Run a program of the application, in its folder, with its variables: `run("node", "x.mts", must_print="^OK")`.

    It has to end with exit code 0 within `timeout` seconds, print what `must_print` matches and nothing that
    `must_not_print` does. What it started ends with it.
    """
    own_node = node.wheel_node() if sys.prefix != target.prefix else None  # of a smoke that names a version

    def run(
        *argv: str, must_print: str, must_not_print: str = SQL_TROUBLE, timeout: float = 60, **env: str
    ) -> shell.Finished:
        if re.search(must_print, ""):
            raise ValueError(f"must_print={must_print!r} matches silence; expected what a program has to say")
        path = env.get("PATH") or target.env.get("PATH") or os.environ["PATH"]
        env["PATH"] = os.pathsep.join([*([str(own_node.parent)] if own_node else []), path])
        name = short(" ".join(argv), 80)
        try:
            ran = shell.run(
                argv, cwd=Path(target.folder), env={**target.env, **env}, timeout=timeout, check=False, leash=True
            )
        except shell.CommandFailed as late:
            said = late.finished.tail(3) or "nothing"
            raise CheckFailed(f"{name} did not end within {timeout:g} s; it said: {said}") from None
        trouble = [line for line in ran.output.splitlines() if must_not_print and re.search(must_not_print, line)]
        said = short("; ".join(trouble[:3])) or ran.tail(5) or "nothing"
        if ran.code:
            raise CheckFailed(f"{name} ended with exit code {ran.code}; it said: {said}")
        if trouble:
            raise CheckFailed(f"{name} ended with exit code 0, but printed: {said}")
        if not re.search(must_print, ran.output, re.MULTILINE):
            raise CheckFailed(f"{name} ended with exit code 0, but did not print {must_print!r}; it said: {said}")
        record_property("run", ran.tail(1))
        return ran

    return run


@pytest.fixture(name="deployed")
def deployed_fixture(target: Target, record_property: Record) -> Callable[[], None]:
    """`deployed()`: API, session stamp, DDL ledger and deployed files are those of this release."""
    return partial(deployed.check_release, target, record_property)


@pytest.fixture(scope="module", autouse=True)
def database_stays_as_it_is(request: pytest.FixtureRequest, target: Target) -> Iterator[None]:
    """After the smokes of a file the database consists of what it did before, unless they are marked `changes`."""
    if request.path.parent.name != "smokes" or request.node.get_closest_marker("changes"):
        yield
        return
    with target.connect() as connection:
        before: dict[str, str] = dict(connection.execute(OBJECTS).fetchall())
        yield
        after: dict[str, str] = dict(connection.execute(OBJECTS).fetchall())
    if changed := sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)):
        how = ["gone" if name not in after else "new" if name not in before else "another" for name in changed]
        said = ", ".join(f"{name} is {what}" for name, what in zip(changed[:5], how, strict=False))
        hint = 'Let it leave the database as it is; or say why not: pytestmark = pytest.mark.changes("…")'
        raise CheckFailed(f"While {request.path.name} ran, the database changed: {said}.", hint)


# The browser: pytest-playwright, with the machine's own browser


@pytest.fixture(scope="session")
def base_url(target: Target) -> str:
    return target.origin


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    return {**browser.launch_options(), **browser_type_launch_args}


@pytest.fixture(scope="session")
def playwright() -> Iterator[Any]:
    browser.use_a_node_that_starts()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session", name="browser")
def browser_fixture(launch_browser: Callable[[], Any]) -> Iterator[Any]:
    try:
        started = launch_browser()
    except browser.Error as error:
        raise browser.not_started(error) from None
    yield started
    started.close()


@pytest.fixture
def view(target: Target, new_context: Callable[..., Any], record_property: Record) -> Any:
    """Visit a page in a browser: `view("/prices", shows="main", must_not_show=["…"])`; a screenshot is kept."""
    from release_tasks.checks.views import View

    return View(target.origin, new_context, record_property)


@pytest.fixture
def page(page: Any, target: Target, record_property: Record) -> Iterator[Any]:
    """pytest-playwright's page on ORIGIN, which `goto` never leaves; what fails in the page fails the test."""
    from release_tasks.checks.views import Watch

    problems, goto = list[str](), page.goto
    page.set_default_timeout(10_000)
    page.goto = lambda url, **how: goto(own_url(url, target.origin), **how)
    page.on("framenavigated", lambda frame: record_property("page", frame.url))
    Watch(page, target.origin, "The page", problems.append)
    yield page
    if problems:
        raise CheckFailed(" ".join(dict.fromkeys(problems)))
