"""One file of a DDL pack sent by psycopg: in a transaction of its own, unless it says otherwise."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from release_tasks.database import sql
from release_tasks.errors import Problem, Refused, refuse

if TYPE_CHECKING:
    from psycopg import Connection, Error
    from psycopg.errors import Diagnostic

    from release_tasks.schema.ddl import DdlFile
    from release_tasks.settings import Ddl

SESSION = """select set_config('client_encoding', 'UTF8', false), set_config('lock_timeout', %s, false),
  set_config('statement_timeout', %s, false)"""
ONLY_PSQL = re.compile(r"\\|copy\b.*\b(from stdin|to stdout)\b", re.IGNORECASE | re.DOTALL)
MAYBE_ONLY_PSQL = re.compile(r"\\|\bstd(in|out)\b", re.IGNORECASE)  # seen without taking the text apart
NAME = r'(?:"(?:[^"]|"")+"|[^\s"]+)'
CONCURRENT_INDEX = re.compile(
    rf"create (?:unique )?index concurrently (?:if not exists )?({NAME}) on (?:only )?({NAME}(?: \. {NAME})?)",
    re.IGNORECASE,
)
INVALID = """select format('%%I.%%I', n.nspname, c.relname) from pg_index x
  join pg_class c on c.oid = x.indexrelid join pg_namespace n on n.oid = c.relnamespace where not x.indisvalid
  and c.relname = (parse_ident(%s))[1] and x.indrelid = to_regclass(%s)
  and not exists (select from pg_stat_progress_create_index p where p.index_relid = c.oid)"""
FROM_PASSWORD = re.compile(r"\bpassword\b.*", re.IGNORECASE | re.DOTALL)

OWN_TRANSACTIONS = "holds its own transactions: what it commits stays, whatever fails later"

Hook = Callable[["DdlFile", float], None]


@dataclass(frozen=True)
class Notice:
    """What PostgreSQL said while a file was applied; `severity` is NOTICE, WARNING or another."""

    severity: str
    message: str

    @property
    def warns(self) -> bool:
        return self.severity in ("WARNING", "ERROR", "FATAL", "PANIC")

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}"


@dataclass
class Applied:
    """One applied file: its seconds (None where unknown), what PostgreSQL said, and how often it was tried."""

    file: DdlFile
    seconds: float | None = None
    notices: list[Notice] = field(default_factory=list)
    attempts: int = 1
    statement: sql.Statement | None = None  # the one that is being sent

    @property
    def warnings(self) -> list[Notice]:
        return [notice for notice in self.notices if notice.warns]


def send_file(connection: Connection, file: DdlFile, ddl: Ddl, before_commit: Hook) -> Applied:
    """Apply `file`; again after a lock timeout or a deadlock, for the others may have ended.

    It is sent as a whole, which is quick. PostgreSQL tells a line for few errors, so what fails is sent once more, one
    statement after the other.
    """
    from psycopg import Error, errors

    attempt, whole = 1, not (file.stands_alone or MAYBE_ONLY_PSQL.search(file.text))
    while True:
        applied = Applied(file, attempts=attempt)
        keep = _keeper_of(applied.notices)
        connection.add_notice_handler(keep)
        try:
            _once(connection, applied, ddl, before_commit, whole)
            return applied
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            if attempt > ddl.retries and not whole:
                raise _refused(applied, error, ddl) from None
            attempt, whole = attempt + 1, False
            time.sleep(random.uniform(0.1, 0.3) * 2 ** min(attempt, 5))
        except Error as error:
            if connection.closed:
                what = f"The connection was lost while {file.path} was applied: {message_of(error)}."
                raise Refused(what, "Run the same command again.") from None
            if not whole or isinstance(error, errors.QueryCanceled):
                raise _refused(applied, error, ddl) from None
            whole = False
        finally:
            connection.remove_notice_handler(keep)


def _keeper_of(notices: list[Notice]) -> Callable[[Diagnostic], None]:
    def keep(diagnostic: Diagnostic) -> None:
        notices.append(Notice(diagnostic.severity_nonlocalized or "", diagnostic.message_primary or ""))

    return keep


def _once(connection: Connection, applied: Applied, ddl: Ddl, before_commit: Hook, whole: bool) -> None:
    file, began = applied.file, time.monotonic()
    connection.execute(SESSION, [f"{ddl.lock_timeout * 1000:.0f}", f"{ddl.statement_timeout * 1000:.0f}"])
    with nullcontext() if file.stands_alone else connection.transaction():
        if whole:
            connection.execute(file.text.encode(), prepare=False)
        else:
            (_send_by_itself if file.stands_alone else _send)(connection, applied)
        applied.seconds = time.monotonic() - began
        refuse_warnings([applied], ddl)
        before_commit(file, applied.seconds)


def _send(connection: Connection, applied: Applied) -> None:
    """Send the statements one after the other, so that it is known which of them fails."""
    file = applied.file
    for statement in file.statements:
        applied.statement = statement
        if ONLY_PSQL.match(statement.bare):
            told = f"only psql understands this; expected plain SQL. In: {_shown(statement)}"
            raise Refused(f"{file.path}, line {statement.line}: {told}", f"Mend {file.path}.")
        connection.execute(statement.source.encode(), prepare=False)
    applied.statement = None


def _send_by_itself(connection: Connection, applied: Applied) -> None:
    """Send a file without a transaction around it. It leaves no transaction open, and no invalid index behind."""
    from psycopg import Error

    file = applied.file
    if file.holds_transactions:
        applied.notices.append(Notice("NOTICE", OWN_TRANSACTIONS))
    for index in _drop_invalid_indexes(connection, file):
        what = f"dropped the invalid index {index}, which a killed run left, to make it anew"
        applied.notices.append(Notice("NOTICE", what))
    try:
        _send(connection, applied)
    except (Error, Refused):
        if not connection.closed:
            _roll_back(connection)
            _drop_invalid_indexes(connection, file)
        raise
    if _roll_back(connection):
        raise Refused(f"{file.path} begins a transaction and does not end it.", f"Add COMMIT to {file.path}.")


def _roll_back(connection: Connection) -> bool:
    """End the transaction that a file left open, if any; PostgreSQL would log a warning where there is none."""
    is_open = connection.info.transaction_status.name != "IDLE"
    if is_open:
        connection.execute("rollback")
    return is_open


def _drop_invalid_indexes(connection: Connection, file: DdlFile) -> list[str]:
    """Drop what CREATE INDEX CONCURRENTLY leaves where it fails or is killed, for the indexes that `file` makes so."""
    dropped = []
    for statement in file.statements:
        if index := CONCURRENT_INDEX.match(statement.bare):
            for (name,) in connection.execute(INVALID, index.groups()).fetchall():
                connection.execute(f"drop index concurrently {name}".encode())
                dropped.append(name)
    return dropped


def _refused(applied: Applied, error: Error, ddl: Ddl) -> Refused:
    """Name file, line, message, SQLSTATE and statement (PostgreSQL, "Error and Notice Message Fields")."""
    file, statement, line, shown = applied.file, applied.statement, "", ""
    if statement:
        at = statement.start + int(error.diag.statement_position or 1) - 1
        line, shown = f", line {file.text.count(chr(10), 0, at) + 1}", f" In: {_shown(statement)}"
    detail = f": {error.diag.message_detail.rstrip('.')}" if error.diag.message_detail else ""
    tried = f" Tried {applied.attempts} times." if applied.attempts > 1 else ""
    what = f"{file.path}{line}: {message_of(error)}{detail} (SQLSTATE {error.sqlstate or 'none'}).{shown}{tried}"
    others = "select pid, query from pg_stat_activity where state <> 'idle'   -- who holds it; then run again"
    mends = {
        "25001": f"Where it has to be: write -- release: no-transaction into {file.path}, on a line of its own.",
        "40P01": others,
        "55P03": others,
        "57014": f"Run again; where it needs more than {ddl.statement_timeout:g} s, set release.ddl.statement_timeout.",
    }
    mend = mends.get(error.sqlstate or "", f"Mend {file.path}; once the tag is published, a fix is a new version.")
    return Refused(what, mend)


def _shown(statement: sql.Statement) -> str:
    return shortened(FROM_PASSWORD.sub("password …", statement.text))


def message_of(error: Error) -> str:
    """Return what PostgreSQL said in one line, or libpq where the server said nothing."""
    return " ".join((error.diag.message_primary or str(error)).split())


def refuse_warnings(applied: list[Applied], ddl: Ddl) -> None:
    """Refuse what was said at WARNING and above, where the settings want that."""
    found = [(each.file.path, warning) for each in applied for warning in each.warnings] if ddl.fail_on_warning else []
    mend = "Mend the pack, or allow warnings: release.ddl.fail_on_warning: false"
    refuse(Problem(f"{path} was applied with a {warning}.", mend) for path, warning in found)


def shortened(text: str, width: int = 100) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
