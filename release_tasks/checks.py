"""What is seen of a running environment by HTTP, SQL and its server log; each check returns the problems it sees."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release_tasks.environments import Environment, wait_until
from release_tasks.errors import Problem, Refused
from release_tasks.masks import mask

if TYPE_CHECKING:
    from release_tasks.settings import Fresh, Series, Settings

AHEAD = 1.0  # seconds that a row may be ahead of the database's clock
LOG_DELAY = 5.0  # seconds until a line that was logged can be read
SETTLE = 90.0  # seconds for a fresh environment to answer
CATCH_UP = 15.0  # seconds for its jobs to bring the data up to date
LOOK_ONLY = "set statement_timeout = '30s'; set default_transaction_read_only = on"
# An embedded server ends with each run of ours, and says so to whom is still connected.
OWN_END = r"FATAL:  (terminating connection due to administrator command|the database system is (shutting|starting))"
SQL_TROUBLE = re.compile(r"\b(WARNING|ERROR|FATAL|PANIC): ")


def api_problems(here: Environment) -> list[Problem]:
    """Return why the API is not OK: health has to answer 200 *and* `ok: true`."""
    path = here.settings.acceptance.health
    answer = here.get(path)
    if answer.status == 200 and answer.json().get("ok") is True:
        return []
    found = f"{answer.status}, {answer.body[:200]!r}"
    return [_seen(f"{here.origin}{path} answers {found}; expected 200 and ok: true.")]


def view_problems(here: Environment) -> list[Problem]:
    """Return the views that do not answer with a page; a redirect, as to a login, is no page."""
    views = here.settings.acceptance.views
    answers = {path: here.get(path) for path in views}
    return [
        _seen(f"The view {path} answers {answer.status} with {len(answer.body)} characters; expected 200 and <main>.")
        for path, answer in answers.items()
        if answer.status != 200 or "<main" not in answer.body
    ]


def freshness_problems(here: Environment) -> list[Problem]:
    """Return each expected key of each table whose newest row is too old, in the future, or missing."""
    acceptance = here.settings.acceptance
    keys = expected_keys(here) if acceptance.fresh else []
    return [problem for fresh in acceptance.fresh for problem in _stale(here, fresh, keys)]


def _stale(here: Environment, fresh: Fresh, keys: list[str]) -> Iterator[Problem]:
    age = f"extract(epoch from now() - max({fresh.time}))::float8"
    ages = dict(ask(here, f"select ({fresh.key})::text, {age} from {fresh.table} group by 1"))
    for key in keys:
        if ages.get(key) is None:
            yield _seen(f"{fresh.table} has no row for {key}.")
        elif not -AHEAD <= ages[key] <= fresh.within:
            expected = f"expected {fresh.within:g} s at most"
            yield _seen(f"{fresh.table}: the newest row of {key} is {ages[key]:.0f} s old; {expected}.")


def gap_problems(here: Environment) -> list[Problem]:
    """Return each hole in each series, for every expected key, with its start and length."""
    acceptance = here.settings.acceptance
    keys = expected_keys(here) if acceptance.gaps else []
    return [problem for series in acceptance.gaps for problem in _gaps(here, series, keys)]


def _gaps(here: Environment, series: Series, keys: list[str]) -> Iterator[Problem]:
    (now,) = ask(here, "select extract(epoch from now())::float8")[0]
    rows = ask(
        here,
        f"select ({series.key})::text, extract(epoch from {series.time})::float8"
        f" from {series.table} where {series.time} > to_timestamp(%s) order by 1, 2",
        [now - series.window],
    )
    for key in keys:
        times = [moment for found, moment in rows if found == key]
        for start, length in holes(times, now - series.window, now, series.every, series.late):
            began = datetime.fromtimestamp(start).astimezone().isoformat(timespec="seconds")
            yield _seen(f"{series.table}: {key} has a hole of {length:.0f} s from {began}.")


def holes(times: list[float], begin: float, end: float, every: float, late: float) -> list[tuple[float, float]]:
    """Return (start, length) in seconds of each hole in `times`, sorted seconds between `begin` and `end`.

    Both edges count: a series that stopped, or began late, has a hole there. Rows may be half of `every` late, and
    the newest one `late` seconds more.
    """
    marks = [begin, *times, end]
    allowed = [every * 1.5] * (len(marks) - 2) + [every * 1.5 + late]
    steps = zip(pairwise(marks), allowed, strict=True)
    return [(before, after - before) for (before, after), most in steps if after - before > most]


def log_problems(here: Environment, offset: int) -> list[Problem]:
    """Return the SQL warnings and errors in the server log after `offset` bytes (all of it, if rotated since).

    A mark that we log first has to arrive in it: a log that nobody writes to proves nothing.
    """
    if here.log is None or not here.log.exists():
        return [_seen(f"The server log of {here.name} cannot be read: {here.log}.")]
    mark = f"a release looks at this log: {secrets.token_hex(8)}"
    ask(here, f"do $$ begin raise log '{mark}'; end $$")
    log, deadline = here.log, time.monotonic() + LOG_DELAY
    if not wait_until(lambda: any(mark in line for line in _lines(log, offset)), deadline, every=0.1):
        return [_seen(f"What {here.name} logs does not arrive in {log}: it is another server's log.")]
    excepted = [*here.settings.acceptance.log_exceptions, *([OWN_END] if here.is_embedded else [])]
    trouble = [line for line in _lines(log, offset) if SQL_TROUBLE.search(line)]
    unexplained = [line for line in trouble if not any(re.search(pattern, line) for pattern in excepted)]
    mend = (
        "A fix is a new version. If it is none of ours: its pattern and a reason in release.acceptance.log_exceptions."
    )
    return [Problem(f"The server log of {here.name} says: {line}", mend) for line in unexplained[:10]]


def _lines(log: Path, offset: int) -> list[str]:
    with log.open("rb") as file:
        file.seek(offset if log.stat().st_size >= offset else 0)
        return file.read().decode("utf-8", errors="replace").splitlines()


def expected_keys(here: Environment) -> list[str]:
    """Return the keys that every table is expected to have; raises `Refused` when there are none."""
    query = here.settings.acceptance.keys
    keys = [str(key) for (key,) in ask(here, query)] if query else []
    if not keys:
        raise Refused(
            f"No keys are expected on {here.name}, for {query!r} returns no row; a check on nothing passes nothing.",
            "Mend release.acceptance.keys in invoke.yaml, or enable what it asks for.",
        )
    return keys


def ask(here: Environment, query: str, values: list[Any] | None = None) -> list[Any]:
    """Return the rows of a query that may only look, for 30 s at most; raises `Refused` when it fails."""
    from psycopg import Error

    with here.connect() as connection:
        connection.execute(LOOK_ONLY)
        try:
            answer = connection.execute(query, values)
            return answer.fetchall() if answer.description else []
        except Error as error:
            raise Refused(
                f"The check cannot ask {here.name}: {' '.join(str(error).split())} In: {query}",
                "Mend release.acceptance in invoke.yaml.",
            ) from error


def _seen(what: str) -> Problem:
    return Problem(what, "Mend it and run the same command: nothing is deployed again.")


def told(settings: Settings, name: str) -> str:
    """Return in a few words what the check `name` looks at."""
    acceptance = settings.acceptance
    return {
        "health": acceptance.health,
        "views": " ".join(acceptance.views),
        "fresh": ", ".join(fresh.table for fresh in acceptance.fresh),
        "gaps": ", ".join(f"{series.table} over {series.window:g} s" for series in acceptance.gaps),
        "log": "; but for: ".join(["since the deployment began", *acceptance.log_exceptions.values()]),
    }[name]


def settle(environment: Environment) -> None:
    """Wait until the web app of `environment` answers, then for its jobs to catch up.

    Raises `Refused` with the web app's last words when it does not answer.
    """
    deadline = time.monotonic() + SETTLE
    if not wait_until(lambda: bool(environment.running_version()), deadline):
        log = environment.folder / "web.log"
        said = mask("\n".join(log.read_text(errors="replace").splitlines()[-5:])) if log.exists() else ""
        raise Refused(
            f"The web app of {environment.name} does not answer at {environment.origin}: {said}", f"cat {log}"
        )
    catch_up(environment)


def catch_up(environment: Environment) -> None:
    """Give the jobs of `environment` time to bring the data up to the clock; stale data is for smokes to find."""
    acceptance = environment.settings.acceptance
    deadline = time.monotonic() + min(CATCH_UP, acceptance.wait)
    with suppress(Refused):  # a query that fails will not get better, and each time leaves an ERROR in the server log
        wait_until(lambda: not freshness_problems(environment), deadline)
