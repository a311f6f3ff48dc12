"""A backup's dump in a database of its own: made, with the roles it needs, loaded, compared with what was dumped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release_tasks.database import catalog, contents, postgres
from release_tasks.errors import Problem

if TYPE_CHECKING:
    from psycopg import Connection

    from release_tasks.settings import Backup as BackupSettings

ALWAYS_THERE = ("role", "membership", "schema", "extension", "grants")
PROVIDERS = {"i": "icu", "b": "builtin"}  # PostgreSQL, pg_database.datlocprovider; c, the C library's, is the default


def create_database(admin: Connection, name: str, database: Mapping[str, Any], locale: bool = True) -> None:
    """Make the empty database `name` with encoding and locale of `database`; without `locale`, with the locale C."""
    from psycopg import sql

    words = [sql.SQL("template template0 encoding {}").format(database["encoding"])]
    collate, ctype = (database["datcollate"], database["datctype"]) if locale else ("C", "C")
    words.append(sql.SQL("lc_collate {} lc_ctype {}").format(collate, ctype))
    provider = PROVIDERS.get(database.get("datlocprovider", "c"))
    if provider and locale:
        of_provider = database.get("datlocale") or database.get("daticulocale")
        words.append(sql.SQL(f"locale_provider {provider} {provider}_locale {{}}").format(of_provider))
    admin.execute(sql.SQL("create database {} {}").format(sql.Identifier(name), sql.SQL(" ").join(words)))


def exists(admin: Connection, name: str) -> bool:
    """Tell whether the server has the database `name`."""
    return admin.execute("select from pg_database where datname = %s", [name]).fetchone() is not None


def sessions(admin: Connection, name: str) -> list[str]:
    """Return who is connected to the database `name`."""
    query = """select format('%%s as %%s from %%s, process %%s', coalesce(nullif(application_name, ''), 'a program'),
      usename, coalesce(host(client_addr), 'this machine'), pid) from pg_stat_activity
      where datname = %s and usename is not null and coalesce(backend_type, '') in ('client backend', '')"""
    return [text for (text,) in admin.execute(query, [name]).fetchall()]


def held_by(dsn: str) -> list[str]:
    """Return what a database holds that an empty one does not."""
    import psycopg

    query = "select 'large object ' || oid from pg_largeobject_metadata"
    with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
        large = [name for (name,) in connection.execute(query).fetchall()]
        return [name for name in catalog.read(connection) if catalog.kind_of(name) not in ALWAYS_THERE] + large


def drop(admin: Connection, name: str) -> None:
    """Drop the database `name`, where there is one, and end whatever is connected to it."""
    from psycopg import sql

    admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def missing_roles(admin: Connection, facts: Mapping[str, Any]) -> list[str]:
    """Return the roles of the backup, quoted where need be, that this server does not have."""
    there = {name for (name,) in admin.execute("select quote_ident(rolname) from pg_roles").fetchall()}
    return [role for role in facts["roles"] if role not in there]


def owners_out_of_reach(admin: Connection, facts: Mapping[str, Any]) -> list[str]:
    """Return the owners in the backup to whom the role of `admin` cannot give anything: those it cannot become."""
    become = "set" if admin.info.server_version >= 160000 else "member"
    query = """select owner from unnest(%s::text[]) as owner where not exists (select from pg_roles
      where rolname = current_user and rolsuper or quote_ident(rolname) = owner and pg_has_role(oid, %s))"""
    return [owner for (owner,) in admin.execute(query, [facts["owners"], become]).fetchall()]


def make_roles(admin: Connection, facts: Mapping[str, Any], missing: list[str]) -> list[str]:
    """Make the `missing` roles as the backup knows them, all or none; return the objects that stay as they are here.

    They have no passwords: a backup holds none. A role that is there is never altered, nor given to another that is.
    """
    stay = [f"role {role}" for role in facts["roles"] if role not in missing]
    with admin.transaction():
        for role in missing:
            _run(admin, facts["roles"][role][0])
        for of, to, statement in facts["memberships"]:
            if of in missing or to in missing:
                _run(admin, statement)
            else:
                stay.append(f"membership {of} to {to}")
        for role in missing:
            for statement in facts["roles"][role][1:]:
                _run(admin, statement)
    return stay


def load(dump: Path, dsn: str, facts: Mapping[str, Any], settings: BackupSettings, target_major: int) -> None:
    """Load the directory `dump` into the empty database `dsn`; the first error ends it. Raises `Refused`."""
    tool = postgres.client_tool("pg_restore", max(target_major, facts["pg_dump"]))
    dbname, variables = contents.for_programs(dsn)
    argv: list[str | Path] = [tool, "--exit-on-error", f"--jobs={settings.jobs}", "--no-tablespaces", "--no-password"]
    full = "df -h   # where that server keeps its data"
    contents.run_program([*argv, f"--dbname={dbname}", dump], variables, settings.timeout, full)


def finish(connection: Connection, facts: Mapping[str, Any], stay: list[str], timeout: float) -> list[str]:
    """Give the loaded database its owner, grants and settings, and return how it differs from what was dumped."""
    from psycopg import sql

    connection.execute("select set_config('statement_timeout', %s, false)", [f"{timeout * 1000:.0f}"])
    told = contents.differences(facts, connection, stay)
    name = sql.Identifier(connection.info.dbname).as_string(connection)
    with connection.transaction():
        for statement in facts["statements"]:
            _run(connection, statement.replace(contents.DATABASE, name, 1))
    found = contents.statements(connection)
    return told + [f"of the database, it lacks: {text}" for text in facts["statements"] if text not in found]


def _run(connection: Connection, statement: str) -> None:
    """Run a statement that the backup holds; a `%` in it is no placeholder, for there are no parameters."""
    connection.execute(statement.encode())


def server_is_too_old(facts: Mapping[str, Any], major: int, where: str, mend: str) -> Problem:
    """Return the problem of a server that does not know all that the backup's server did."""
    found = f"{where} is PostgreSQL {major}; the backup is of PostgreSQL {facts['server']['major']}, and needs that."
    return Problem(found, mend)
