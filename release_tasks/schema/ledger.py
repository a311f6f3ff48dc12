"""The ledger of a DDL pack, in the database it was applied to: it makes "is this pack applied here?" a look."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from release_tasks.errors import Refused

if TYPE_CHECKING:
    from psycopg import Connection

    from release_tasks.schema.ddl import DdlFile
    from release_tasks.settings import Ddl

NEEDED = {"file", "sha256", "version", "applied_at"}
COLUMNS = "file text primary key, sha256 text not null, version text not null, applied_at timestamptz"
# What ledgers of the layer's first versions lack. The duration is unknown where the application's runner applied.
MORE = """alter column applied_at drop not null, add column if not exists duration interval,
  add column if not exists by text not null default current_user,
  add column if not exists runner text not null default ''"""


def unapplied(connection: Connection, pack: Iterable[DdlFile], ddl: Ddl) -> list[DdlFile]:
    """Return the files that were not applied to their end with their present content, in order. Raises `Refused`."""
    from psycopg import errors

    held: dict[str, str] = {}
    try:
        if _columns(connection, ddl):
            query = f"select file, sha256 from {ddl.ledger} where applied_at is not null"
            held = dict(connection.execute(query).fetchall())
    except errors.InsufficientPrivilege as no:
        what = f"The role {connection.info.user} may not read the ledger {ddl.ledger}: {no.diag.message_primary}."
        raise Refused(what, "Let the owner of the database release, or grant the right.") from None
    return [file for file in pack if held.get(file.path) != file.sha256]


def begin(connection: Connection, pack: Iterable[DdlFile], ddl: Ddl) -> None:
    """Make the ledger, and let all of `pack` count as unapplied: a run that is killed is then seen as such."""
    with connection.transaction():
        if "runner" not in _columns(connection, ddl):
            connection.execute("set local client_min_messages = warning")
            connection.execute(f"create schema if not exists {ddl.ledger.partition('.')[0]}")
            connection.execute(f"create table if not exists {ddl.ledger} ({COLUMNS})")
            connection.execute(f"alter table {ddl.ledger} {MORE}")
        paths = [file.path for file in pack]
        connection.execute(f"update {ddl.ledger} set applied_at = null where file = any(%s)", [paths])


def enter(connection: Connection, file: DdlFile, ddl: Ddl, version: str, seconds: float | None, runner: str) -> None:
    """Enter that `file` was applied, in the transaction of `connection`; it replaces what was entered before.

    A role that the file has set for its transaction is given up: it need not have rights on the ledger.
    """
    connection.execute("select set_config('role', 'none', true)")
    connection.execute(
        f"insert into {ddl.ledger} (file, sha256, version, applied_at, duration, runner)"
        " values (%s, %s, %s, clock_timestamp(), make_interval(secs => %s), %s) on conflict (file) do update"
        " set sha256 = excluded.sha256, version = excluded.version, applied_at = excluded.applied_at,"
        " duration = excluded.duration, by = current_user, runner = excluded.runner",
        [file.path, file.sha256, version, seconds, runner],
    )


def _columns(connection: Connection, ddl: Ddl) -> set[str]:
    """Return the columns of the ledger, none before it is made. Raises `Refused` where it is another table."""
    query = "select attname from pg_attribute where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped"
    found = {name for (name,) in connection.execute(query, [ddl.ledger])}
    if lacking := found and NEEDED - found:
        what = f"{ddl.ledger} is another table, no ledger: it has no column {', '.join(sorted(lacking))}."
        raise Refused(what, "Set release.ddl.ledger in invoke.yaml to another name.")
    return found
