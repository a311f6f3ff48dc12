"""What a team's own smokes are handed: `db`, `api`, `page`, `log`, `command` and `release`; each keeps what it saw."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from release_tasks.checks.place import Place
from release_tasks.checks.plugin import GATE, SEEN
from release_tasks.checks.verdict import ROWS, Seen, Unknown, Wrong, name_of
from release_tasks.kinds import SQL_TROUBLE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from psycopg import Connection

    from release_tasks.checks.web import Session
    from release_tasks.processes.shell import Finished


@pytest.fixture
def release(pytestconfig: pytest.Config) -> Place:
    """The release under test and its environment: `version`, `commit`, `name`, `origin`, `code`, and so on."""
    return pytestconfig.stash[GATE].place


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Seen:
    """A dictionary for what a test has seen: it is kept with its result."""
    kept: Seen = request.node.stash[SEEN]
    return kept


@pytest.fixture
def db(release: Place, seen: Seen) -> Iterator[Connection]:
    """A connection that may only read, in autocommit, whose statements end after 30 s; its queries are kept.

    An error is fatal, also one that the test catches: it fails then.
    """
    from psycopg import ClientCursor, Error

    failed: list[str] = []

    class Kept(ClientCursor[Any]):
        def execute(self, query: Any, params: Any = None, **how: Any) -> Any:
            told = " ".join(self.mogrify(query, params).split())
            try:
                super().execute(query, params, **how)
            except Error as error:
                failed.append(f"{' '.join(str(error).split())} In: {told}")
                _keep(seen, "queries", f"{told} → failed")
                raise
            _keep(seen, "queries", f"{told} → {self.rowcount} rows")
            return self

    with release.connect() as connection:
        connection.cursor_factory = Kept
        yield connection
    if failed:
        raise Wrong([f"A query failed, whatever the test made of it: {each}" for each in failed[:ROWS]])


@pytest.fixture
def command(release: Place, seen: Seen) -> Iterator[Callable[..., Finished]]:
    """What runs a program in the application's folder with its variables: `command("node", "x.mts", timeout=60)`.

    It returns what was printed: `output`, or `stdout` and `stderr`. It fails the test, also one that catches it, unless
    the program ends with exit code 0 in time and prints no SQL error or warning (`must_not_print`, a regular
    expression).
    """
    from release_tasks.processes import shell

    failed: list[Wrong] = []

    def run(*argv: str, timeout: float = 60, must_not_print: str = SQL_TROUBLE) -> Finished:
        where, variables = Path(release.folder), release.variables
        try:
            ran = shell.run(argv, cwd=where, env=variables, timeout=timeout, leash=True)
        except shell.CommandFailed as no:
            failed.append(Wrong(no.problems[0].what, no.problems[0].mend))
            raise failed[-1] from None
        if trouble := [line for line in ran.output.splitlines() if must_not_print and re.search(must_not_print, line)]:
            failed.append(Wrong(f"{' '.join(argv)} ended well, but printed: {trouble[0]}"))
            raise failed[-1]
        _keep(seen, "commands", f"{' '.join(argv)} → {ran.tail(1)}")
        return ran

    yield run
    if failed:
        raise failed[0]


@pytest.fixture
def api(release: Place, seen: Seen) -> Iterator[Session]:
    """A session of requests on ORIGIN, as in `api.get("/api/health").json()`: no redirects, 10 s, never elsewhere."""
    from release_tasks.checks.web import Session

    def keep(answer: Any, **_: Any) -> None:
        _keep(seen, "requests", f"{answer.request.method} {answer.url} → {answer.status_code}")

    with Session(release.origin) as session:
        session.hooks["response"] = [keep]
        yield session


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The browser of all tests that use `page`: the program that the page checks use as well."""
    from release_tasks.checks.browser import started

    with started() as one:
        yield one


@pytest.fixture
def page(release: Place, seen: Seen, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of Playwright on ORIGIN, which it never leaves by `goto`; what fails in the page fails the test.

    That is: an uncaught exception, an error on the console, a request to ORIGIN that fails or gets a status from 400
    up. A screenshot is kept. What a test waits for has 10 s.
    """
    from playwright.sync_api import Error

    from release_tasks.checks.page import safe
    from release_tasks.checks.watch import Watch
    from release_tasks.checks.web import own_url

    name = safe(f"{name_of(request.path)}-{request.node.name}.png")
    context = browser.new_context(base_url=release.origin, viewport={"width": 1280, "height": 800})
    one = context.new_page()
    one.set_default_timeout(10_000)
    go = one.goto

    def goto(url: str, **how: Any) -> Any:
        answer = go(own_url(url, release.origin), **how)
        seen["screenshot"] = name
        _keep(seen, "requests", f"GET {one.url} → {answer.status if answer else 'nothing'}")
        return answer

    one.goto = goto  # type: ignore[method-assign]
    Watch(one, release.origin, "The page", lambda said: seen.setdefault("page_errors", []).append(said), itself=True)
    yield one
    with suppress(Error):
        one.screenshot(path=Path(release.kept) / name, full_page=True, animations="disabled")
    context.close()
    if wrong := list(dict.fromkeys(seen.get("page_errors", []))):
        raise Wrong(wrong[:ROWS])


def _keep(seen: Seen, what: str, told: str) -> None:
    """Keep the last ten of what a test did, and the very last for the table."""
    seen[what], seen["in_words"] = [*seen.get(what, []), told][-ROWS:], told


@pytest.fixture
def log(release: Place, seen: Seen) -> Callable[[str], list[str]]:
    """What looks into PostgreSQL's server log: `log(pattern)` → the entries that match, since the deployment began.

    Where nothing was deployed, as on dev: since the first look at it in this run.
    """
    from release_tasks.checks.log import positions_of, server_log
    from release_tasks.checks.rotation import Reading

    positions_of(release)

    def matching(pattern: str) -> list[str]:
        try:
            re.compile(pattern)
        except re.error as error:
            raise Unknown(f"{pattern!r} is no regular expression: {error}.", definite=True) from None
        reading = Reading()
        found = [entry for entry in server_log(release, reading) if re.search(pattern, entry)]
        if reading.lost:
            raise Unknown(f"What was logged to {', '.join(reading.lost)} cannot be read any more.", definite=True)
        _keep(seen, "log", f"{pattern!r}: {len(found)} entries of {reading.lines} lines")
        return found

    return matching
