"""A DDL pack applied to a database, one release at a time: by psql, or by the application's own runner.

The ledger there makes "is this pack applied?" a look. A runner's word counts only when its objects are there.
"""

from __future__ import annotations

import random
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from release_tasks.database import programs, psql, runner, structure
from release_tasks.database.pack import DdlFile, pack_problems
from release_tasks.database.psql import Applied, Message
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.git import listed
from release_tasks.settings import Ddl

if TYPE_CHECKING:
    from psycopg import Connection

RETRIED = ("55P03", "40P01")  # lock not available, deadlock detected
RETRIES = 5  # of a file, after one of these
GRACE = 10.0  # seconds more for psql than for a statement, whose own end names file and line
LOCK_WAIT = 60.0  # seconds for another release that applies DDL here
LOST = ("57P01", "57P02", "57P03", "08")  # the server ends, or the connection
COLUMNS = {"file", "sha256", "version", "applied_at"}
# So that a server sees that its client was killed while a statement runs; one on Windows cannot.
WATCHES_CLIENT = """select name from pg_settings
  where name = 'client_connection_check_interval' and version() !~* 'windows|mingw|visual c'"""


@dataclass(frozen=True)
class Target:
    """A database that gets a pack: its name in messages; for the application's runner its folder, variables, log."""

    name: str
    dsn: str
    folder: Path = Path()
    variables: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None


def unapplied(connection: Connection, pack: Iterable[DdlFile], ddl: Ddl) -> list[DdlFile]:
    """Return the files that were not applied to their end with their present content, in order. Raises `Refused`."""
    from psycopg import errors

    query = "select attname from pg_attribute where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped"
    columns, entered = {name for (name,) in connection.execute(query, [ddl.ledger])}, dict[str, str]()
    if lacking := columns and COLUMNS - columns:
        what = f"{ddl.ledger} is another table, no ledger: it has no column {', '.join(sorted(lacking))}."
        raise Refused(what, "Set release.ddl.ledger in invoke.yaml to another name.")
    try:
        if columns:
            query = f"select file, sha256 from {ddl.ledger} where applied_at is not null"
            entered = dict(connection.execute(query).fetchall())
    except errors.InsufficientPrivilege as error:
        what = f"The role {connection.info.user} may not read the ledger {ddl.ledger}: {error.diag.message_primary}."
        raise Refused(what, "Let the owner of the database release, or grant the right.") from None
    return [file for file in pack if entered.get(file.path) != file.sha256]


def server_problems(connection: Connection, where: str, ddl: Ddl) -> list[Problem]:
    """Return why nothing can be applied here: a standby, or a read-only database."""
    row = connection.execute("select pg_is_in_recovery(), current_setting('default_transaction_read_only')").fetchone()
    problems = []
    if row and row[0]:
        what = f"The database of {where} is a read-only standby; expected the primary."
        problems.append(Problem(what, "Set its dsn to the primary."))
    elif row and row[1] == "on":
        what = f"The database of {where} is read-only; expected one that can be changed."
        problems.append(Problem(what, "alter database … reset default_transaction_read_only   # or of the role"))
    return problems


def apply(
    target: Target,
    pack: Sequence[DdlFile],
    ddl: Ddl,
    version: str,
    expected: structure.Structure | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> list[Applied]:
    """Apply the whole `pack` to `target`; `expected` is what it makes, needed for the application's runner.

    Returns each file with its time and messages, last what only the server's log has; nothing when another release
    that was waited for has applied them meanwhile. Whom it waits for goes to `tell`. Raises `Refused`; what was not
    applied to its end is then not in the ledger, and the same command goes on.
    """
    import psycopg

    refuse(pack_problems(pack, ddl))
    wait = _waiting(target.name, LOCK_WAIT, tell)
    with programs.connect(target.dsn, target.name) as connection:
        try:
            refuse(server_problems(connection, target.name, ddl))
            unapplied(connection, pack, ddl)  # refuses a table that is no ledger
            if not ddl.command:
                return _by_psql(connection, target, pack, ddl, version, wait)
            return _by_command(connection, target, pack, ddl, version, wait, expected)
        except psycopg.Error as error:
            reason = " ".join((error.diag.message_primary or str(error)).split())
            what = f"The DDL pack was not applied to {target.name}: {reason}."
            raise Refused(what, "Run the same command again.") from None


def _waiting(where: str, limit: float, tell: Callable[[str], object]) -> Callable[[str], None]:
    """Return what waits a moment for the holder of the lock; it raises `Refused` after `limit` seconds in all."""
    deadline, known = time.monotonic() + limit, ""

    def wait(holder: str) -> None:
        nonlocal known
        if time.monotonic() > deadline:
            what = f"Another release applies DDL to {where}: {holder}; waited {limit:g} s."
            raise Refused(what, "Wait for it, then run again.")
        if holder != known:
            tell(f"waiting up to {limit:g} s for another release on {where}: {holder}")
            known = holder
        time.sleep(random.uniform(0.2, 0.6))

    return wait


def _by_psql(
    connection: Connection,
    target: Target,
    pack: Sequence[DdlFile],
    ddl: Ddl,
    version: str,
    wait: Callable[[str], None],
) -> list[Applied]:
    """Apply `pack` by psql, and again from the file that met a lock or a deadlock, for the others may have ended."""
    rest, done, attempts, pgoptions = list(pack), list[Applied](), 1, options(connection, ddl)
    while rest:
        text, limit = psql.script(rest, ddl, version), ddl.timeout + GRACE
        applied, failed, error = psql.run(target.dsn, text, rest, pgoptions, limit)
        done, rest = [*done, *applied], rest[len(applied) :]
        if applied:
            applied[0].attempts, attempts = attempts, 1
        if error is None:
            break
        if failed is None and error.state == psql.LOCKED:
            _wait_for_lock(connection, wait)
            if not unapplied(connection, pack, ddl):
                return []
            connection.execute("select pg_advisory_unlock(%s)", [psql.ADVISORY_LOCK])
        elif failed and error.state in RETRIED and attempts <= RETRIES:
            attempts += 1
            time.sleep(random.uniform(0.1, 0.3) * 2 ** min(attempts, 5))
        else:
            if failed and not failed.in_transaction:
                psql.run(target.dsn, psql.drop_invalid(failed), [], pgoptions, ddl.timeout)
            refuse([failure(error, failed, ddl, attempts, connection.info.server_version // 10000)])
    psql.note_seconds(connection, done, ddl)
    if left := unapplied(connection, pack, ddl):
        names = listed(file.path for file in left)
        raise Refused(f"The ledger of {target.name} has no entry of {names}.", "Take \\connect out of the pack.")
    return done


def options(connection: Connection, ddl: Ddl, given: str = "") -> str:
    """Return PGOPTIONS with the timeouts of the settings, for the clients of libpq."""
    check = "-c client_connection_check_interval=1000" if connection.execute(WATCHES_CLIENT).fetchone() else ""
    timeouts = f"-c lock_timeout={ddl.lock_timeout * 1000:.0f} -c statement_timeout={ddl.timeout * 1000:.0f}"
    return " ".join(f"{check} {timeouts} {given}".split())


def failure(error: Message, file: DdlFile | None, ddl: Ddl, attempts: int, server: int) -> Problem:
    """Return why `file` could not be applied: line, message, SQLSTATE, statement, and what to do about it."""
    if file is None:
        return Problem(f"The DDL pack could not be begun: {error}.", "Let the owner of the database release.")
    if error.state.startswith(LOST) or "server was lost" in error.text or "closed the connection" in error.text:
        what = f"The connection was lost while {file.path} was applied: {error.text}."
        return Problem(what, "Run the same command again.")
    more = f" In: {error.shown}" * bool(error.shown) + f" Tried {attempts} times." * (attempts > 1)
    marker = f"Where it has to be: write -- release: no-transaction into {file.path}, on a line of its own."
    others = "select pid, query from pg_stat_activity where state <> 'idle'   -- who holds it; then run again"
    newer = f"Fix {file.path}; or use a server newer than PostgreSQL {server}."
    hints = {
        **dict.fromkeys(("25001", "2D000"), marker),
        **dict.fromkeys(RETRIED, others),
        **dict.fromkeys(("42883", "42601", "42704"), newer),
        "57014": f"Run again; where it needs more than {ddl.timeout:g} s, set release.ddl.timeout.",
    }
    hint = hints.get(error.state, f"Fix {file.path}; once the tag is published, a fix is a new version.")
    line = f", line {error.at}" if error.line else ""
    return Problem(f"{file.path}{line}: {error}.{more}", hint)


def _by_command(
    connection: Connection,
    target: Target,
    pack: Sequence[DdlFile],
    ddl: Ddl,
    version: str,
    wait: Callable[[str], None],
    expected: structure.Structure | None,
) -> list[Applied]:
    """Let the application's runner apply `pack` while `connection` keeps others out, and see that it is there."""
    if _wait_for_lock(connection, wait) and not unapplied(connection, pack, ddl):
        return []
    connection.execute(psql.ledger(pack, ddl).encode())
    pgoptions = options(connection, ddl, target.variables.get("PGOPTIONS", ""))
    applied = runner.run(pack, ddl, target.folder, {**target.variables, "PGOPTIONS": pgoptions}, target.log)
    found = structure.read(target.dsn, target.name, roles=False)
    differing = structure.differences(expected, found) if expected else []
    missing = [
        each.name
        for each in differing
        if each.how == structure.MISSING and each.kind not in ("role", "membership") and not ddl.excepts(str(each))
    ]
    if missing:
        raise Refused(
            f"{shlex.join(ddl.command)} ended as if it had applied {len(pack)} files, "
            f"but of what they make {target.name} lacks {len(missing)}: {listed(missing, most=5)}.",
            "See which database it reaches: it has to read DATABASE_URL or PG*.",
        )
    with connection.transaction():
        for file in pack:
            connection.execute(psql.enter(file, ddl, version, "null", ddl.command[0]).encode())
    return applied


def _wait_for_lock(connection: Connection, wait: Callable[[str], None]) -> bool:
    """Take the lock for as long as `connection` lives; return whether another release had it before."""
    from psycopg import errors

    waited = False
    while True:
        try:
            connection.execute(psql.LOCK.encode())
            return waited
        except errors.ObjectInUse as error:
            wait(error.diag.message_primary or "")
            waited = True
