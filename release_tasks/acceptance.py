"""Section 7.2: a release proceeds only if these hold on staging, one gate a bullet of the process."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release_tasks.deployment import deployment_of, until_live
from release_tasks.environments import wait_until
from release_tasks.errors import NotYet, Problem, Refused, refuse
from release_tasks.release import Release

if TYPE_CHECKING:
    from release_tasks.settings import Fresh, Series

SQL_TROUBLE = re.compile(r"\b(WARNING|ERROR|FATAL|PANIC): ")
LOG_DELAY = 5.0  # seconds until a line that was logged can be read
STATEMENT = "set statement_timeout = '30s'; set default_transaction_read_only = on"


def settled(look: Callable[[Release], tuple[list[Problem], str]]) -> Any:
    """Make a gate of `look`, which returns problems and what was seen: asked again while a deployment settles."""

    @until_live
    def gate(release: Release) -> str:
        if not release.here.runs(release):
            raise NotYet("after the release runs here")
        seen: list[tuple[list[Problem], str]] = []
        began = deployment_of(release).get("began_unix", 0.0)
        left = max(0.0, began + release.settings.acceptance.wait - time.time())

        def holds() -> bool:
            seen[:] = [look(release)]
            return not seen[0][0]

        wait_until(holds, time.monotonic() + left, every=1.0)
        problems, words = seen[0]
        refuse(problems)
        return words

    gate.__doc__, gate.__name__ = look.__doc__, look.__name__
    return gate


@settled
def answer_api_ok(release: Release) -> tuple[list[Problem], str]:
    """API OK."""
    here, path = release.here, release.settings.acceptance.health
    answer = here.get(path)
    if answer.status == 200 and answer.json().get("ok") is True:
        return [], f"{path} 200, ok"
    return [
        _seen(f"{here.origin}{path} answers {answer.status}, {answer.body[:200]!r}; expected 200 and ok: true.")
    ], ""


@settled
def render_all_views(release: Release) -> tuple[list[Problem], str]:
    """UI renders all views."""
    here, views = release.here, release.settings.acceptance.views
    if not views:
        return [_unset("views", "the views of the web app")], ""
    problems = []
    for path in views:
        answer = here.get(path)
        if answer.status != 200 or "<main" not in answer.body:
            found = f"{answer.status}, {len(answer.body)} characters"
            problems.append(_seen(f"The view {path} answers {found}; expected 200 and a page with <main>."))
    return problems, " ".join(views)


@settled
def have_fresh_data(release: Release) -> tuple[list[Problem], str]:
    """Sampling and matrices are fresh."""
    acceptance = release.settings.acceptance
    if not acceptance.fresh:
        return [_unset("fresh", "the tables that must be fresh")], ""
    keys = expected_keys(release)
    problems = [problem for fresh in acceptance.fresh for problem in _stale(release, fresh, keys)]
    return problems, f"{', '.join(fresh.table for fresh in acceptance.fresh)}; {len(keys)} keys"


def _stale(release: Release, fresh: Fresh, keys: list[str]) -> Iterator[Problem]:
    rows = _ask(
        release,
        f"select ({fresh.key})::text, extract(epoch from now() - max({fresh.time}))::float8"
        f" from {fresh.table} group by 1",
    )
    ages = dict(rows)
    for key in keys:
        age = ages.get(key)
        if age is None:
            yield _seen(f"{fresh.table} has no row for {key}.")
        elif not -1 <= age <= fresh.within:
            yield _seen(
                f"{fresh.table}: the newest row of {key} is {age:.0f} s old; expected {fresh.within:g} s at most."
            )


@settled
def have_no_gaps(release: Release) -> tuple[list[Problem], str]:
    """No gaps in ingest."""
    acceptance = release.settings.acceptance
    if not acceptance.gaps:
        return [_unset("gaps", "the series that must have no gaps")], ""
    keys = expected_keys(release)
    problems = [problem for series in acceptance.gaps for problem in _gaps(release, series, keys)]
    told = ", ".join(f"{series.table} over {series.window:g} s" for series in acceptance.gaps)
    return problems, told


def _gaps(release: Release, series: Series, keys: list[str]) -> Iterator[Problem]:
    rows = _ask(
        release,
        f"select ({series.key})::text, extract(epoch from {series.time})::float8, extract(epoch from now())::float8"
        f" from {series.table} where {series.time} > now() - make_interval(secs => %s) order by 1, 2",
        [series.window],
    )
    now = rows[0][2] if rows else time.time()
    for key in keys:
        times = [moment for found, moment, _ in rows if found == key]
        for start, length in holes(times, now - series.window, now, series.every, series.late):
            began = datetime.fromtimestamp(start).astimezone().isoformat(timespec="seconds")
            yield _seen(f"{series.table}: {key} has a hole of {length:.0f} s from {began}.")


def holes(times: list[float], begin: float, end: float, every: float, late: float) -> list[tuple[float, float]]:
    """Return (start, length) in seconds of each hole in `times`, sorted seconds between `begin` and `end`.

    Both edges count: a series that stopped, or began late, has a hole there; the newest may be `late` seconds old.
    """
    marks = [begin, *times, end]
    found = []
    for position, (before, after) in enumerate(pairwise(marks)):
        at_end = position == len(marks) - 2
        allowed = every * 1.5 + (late if at_end else 0.0)
        if after - before > allowed:
            found.append((before, after - before))
    return found


@settled
def log_no_sql_warnings(release: Release) -> tuple[list[Problem], str]:
    """No SQL warnings in server logs."""
    here = release.here
    if here.log is None or not here.log.exists():
        return [_seen(f"The server log of {here.name} cannot be read: {here.log}.")], ""
    mark = f"release {release.tag} looks, {secrets.token_hex(8)}"
    _ask(release, f"do $$ begin raise log '{mark}'; end $$")
    lines = _lines_since(here.log, deployment_of(release)["log_offset"], mark)
    if lines is None:
        return [_seen(f"The server log {here.log} does not get what {here.name} logs: it is another server's.")], ""
    trouble = [line for line in lines if SQL_TROUBLE.search(line)]
    return [
        _seen(f"The server log says: {line}") for line in trouble[:10]
    ], f"{len(lines)} lines read, none of them SQL trouble"


def _lines_since(log: Path, offset: int, mark: str) -> list[str] | None:
    """Return the lines of `log` after `offset` bytes (all, when it was rotated since), None when `mark` is missing."""

    def read() -> list[str]:
        with log.open("rb") as file:
            file.seek(offset if log.stat().st_size >= offset else 0)
            return file.read().decode("utf-8", errors="replace").splitlines()

    arrived = wait_until(lambda: any(mark in line for line in read()), time.monotonic() + LOG_DELAY, every=0.1)
    return read() if arrived else None


def expected_keys(release: Release) -> list[str]:
    """Return the keys that every table is expected to have; raises `Refused` when there are none."""
    query = release.settings.acceptance.keys
    keys = [str(key) for (key,) in _ask(release, query)] if query else []
    if not keys:
        raise Refused(
            f"No keys are expected on {release.here.name}: {query!r} returns no row; a check on nothing "
            "passes nothing.",
            "Mend release.acceptance.keys, or enable what it asks for.",
        )
    return keys


def _ask(release: Release, query: str, values: list[Any] | None = None) -> list[Any]:
    from psycopg import Error

    with release.here.connect() as connection:
        connection.execute(STATEMENT)
        try:
            answer = connection.execute(query, values)
            return answer.fetchall() if answer.description else []
        except Error as error:
            raise Refused(
                f"The check cannot ask {release.here.name}: {error} in: {query}",
                "Mend release.acceptance in invoke.yaml.",
            ) from error


def _seen(what: str) -> Problem:
    return Problem(what, "Mend it and run the same command: nothing is deployed again.")


def _unset(name: str, meaning: str) -> Problem:
    return Problem(f"release.acceptance.{name} is empty; expected {meaning}.", "Set it in invoke.yaml.")
