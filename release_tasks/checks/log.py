"""Logs since the deployment began: files, what a command prints, or PostgreSQL's server log; no trouble in them."""

from __future__ import annotations

import re
import secrets
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release_tasks.checks.rotation import Reading, entries_of, is_any, positions, written_since
from release_tasks.checks.verdict import ROWS, Seen, Unknown, Wrong
from release_tasks.masks import mask
from release_tasks.processes import shell
from release_tasks.processes.shell import wait_until

if TYPE_CHECKING:
    from release_tasks.checks.place import Asked, Place
    from release_tasks.kinds import Log

OURS = "a release looks at this log"
LOG_DELAY = 5.0  # seconds until a line that was logged can be read
# An embedded server ends with each run of ours, and says so to whom is still connected.
OWN_END = r"FATAL:  (terminating connection due to administrator command|the database system is (shutting|starting))"
NOISE = re.compile(r"-- .+ --|.*You are currently not seeing messages.*")  # what journalctl says of itself
FIRST: dict[str, dict[str, Any]] = {}  # positions of the first look, where nothing was deployed


def look_at_log(check: Log, place: Place, seen: Seen, asked: Asked) -> list[str]:
    """Read what was logged since the deployment began; raise `Wrong`, definite, where that is trouble.

    Where nothing was deployed, as on dev, it is what was logged since the first look of this process. Raises `Unknown`
    where some of it cannot be read any more, nothing was logged, or the server log is another server's.
    """
    reading, began = Reading(), positions_of(place, check.files)
    since = place.began or datetime.fromtimestamp(began["at"]).astimezone().isoformat(timespec="seconds")
    if check.command:
        entries = _printed(check, place, since, str(int(began["at"])), reading)
    elif check.files:
        if not is_any(began, check.files, place.root):
            raise Unknown(f"No file is called {' or '.join(check.files)}.", "Mend files of this check in invoke.yaml.")
        entries = written_since(began, check.files, place.root, reading)
    else:
        entries = server_log(place, reading)
    rows, count, excepted = _trouble(check, place, entries)
    seen.update(since=since, files=reading.files, lines=reading.lines, excepted=dict(excepted), rows=rows)
    what = f"The {check.title} of {place.name}"
    if rows:
        more = f" (and {count - 3} more)" if count > 3 else ""
        mend = "A fix is a new version. If it is none of ours: its pattern, and why, in `exceptions` of the check."
        said = "; ".join(row[:300] for row in rows[:3])
        raise Wrong(f"{what} says, since {since}: {said}{more}", mend, definite=True)
    if reading.lost:
        said = f"What was logged to {', '.join(reading.lost)} between {since} and now cannot be read any more"
        raise Unknown(f"{said}: it was removed or emptied, and no file beside it goes on from there.", definite=True)
    if not (reading.lines or check.silent):
        mend = "Name the log that is written to; or say in `silent` of the check why nobody writes to it."
        raise Unknown(f"{what} has no line since {since}: that proves nothing.", mend)
    known = [f"{number} excepted: {reason}" for reason, number in excepted.items()]
    lines = "1 line" if reading.lines == 1 else f"{reading.lines} lines"
    seen["in_words"] = "; ".join([lines if reading.lines else check.silent, *known])
    return []


def positions_of(place: Place, patterns: Iterable[str] = ()) -> dict[str, Any]:
    """Return the positions from when the deployment began; without one, those of the first look of this process."""
    if place.positions:
        return dict(place.positions)
    patterns = list(patterns) or [place.log]
    key = " ".join([place.root, *patterns])
    if key not in FIRST:
        FIRST[key] = positions(patterns, place.root)
    return FIRST[key]


def server_log(place: Place, reading: Reading) -> Iterator[str]:
    """Return the entries of PostgreSQL's server log since the deployment began. Raises `Unknown`.

    A mark that we log first has to arrive, within 5 s: a log that this server does not write to proves nothing, and
    nor does one without warnings. PostgreSQL 15, section 20.8.
    """
    mend = f"Set release.environments.{place.name}.log to what its PostgreSQL logs to: text, in English."
    began, now = positions_of(place), positions([place.log], place.root)
    if not now["files"]:
        raise Unknown(f"The server log of {place.name} cannot be read: {place.log or 'none is set'}.", mend)
    mark = f"{OURS}: {secrets.token_hex(8)}"
    _log_a_mark(place, mark, mend)

    def arrived() -> bool:
        return any(f"LOG:  {mark}" in each for each in written_since(now, [place.log], place.root, Reading()))

    if not wait_until(arrived, time.monotonic() + LOG_DELAY, every=0.1):
        said = f"What {place.name} logs does not arrive in {place.log} within {LOG_DELAY:g} s"
        raise Unknown(f"{said}: it is another server's log, or no text.", mend)
    return (each for each in written_since(began, [place.log], place.root, reading) if f"LOG:  {OURS}" not in each)


def _log_a_mark(place: Place, mark: str, mend: str) -> None:
    """Have the server log `mark`. Raises `Unknown` where it cannot, or logs no warnings that we could find."""
    from psycopg import Error

    query = "select reset_val, current_setting('lc_messages') from pg_settings where name = 'log_min_messages'"
    try:
        with place.connect() as connection:
            level, language = connection.execute(query).fetchone() or ("", "")
            connection.execute(f"do $$ begin raise log '{mark}'; end $$")
    except Error as error:
        raise Unknown(f"No mark can be logged on {place.name}: {' '.join(str(error).split())}", mend) from None
    if level in ("error", "log", "fatal", "panic") or not re.match(r"en|C\b|POSIX|$", language):
        said = f"{place.name} logs from {level} on, in {language}; expected warning, in English: none could be found."
        raise Unknown(said, "alter system set log_min_messages = warning, lc_messages = 'C'", definite=True)


def _printed(check: Log, place: Place, since: str, unix: str, reading: Reading) -> Iterator[str]:
    """Return the entries that the check's command prints, for `since` and, in seconds since 1970, `unix`."""
    argv = [word.replace("{since}", since).replace("{since_unix}", unix) for word in check.command]
    ran = shell.run(argv, cwd=Path(place.folder), env=place.variables, timeout=check.timeout, check=False, leash=True)
    if ran.code:
        raise Unknown(f"{argv[0]} ended with exit code {ran.code}; it said: {ran.tail(3)}", shlex.join(argv))
    reading.files.append(shlex.join(argv))
    return entries_of((line.encode() for line in ran.output.splitlines() if not NOISE.fullmatch(line)), reading)


def _trouble(check: Log, place: Place, entries: Iterable[str]) -> tuple[list[str], int, Counter[str]]:
    """Return the first entries that are trouble, how many there are, and how many each reason excepts."""
    exceptions = dict(check.exceptions)
    if place.ends_with_us:
        exceptions[OWN_END] = "the embedded server ended with an earlier run"
    rows, count, excepted = list[str](), 0, Counter[str]()
    for entry in entries:
        if not any(re.search(pattern, entry) for pattern in check.must_not_match):
            continue
        reason = next((why for pattern, why in exceptions.items() if re.search(pattern, entry)), "")
        if reason:
            excepted[reason] += 1
            continue
        count += 1
        if len(rows) < ROWS:
            rows.append(mask(entry[:2000]))
    return rows, count, excepted
