"""Restoring a backup: on a scratch server, so that it counts; or beside a database, whose name it then takes."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from psycopg import conninfo, errors, sql

from release_tasks import process
from release_tasks.command_line import again
from release_tasks.database import backup, programs
from release_tasks.database.backup import Backup
from release_tasks.database.server import scratch
from release_tasks.environments import Environment
from release_tasks.errors import Problem, Refused, counted, refuse
from release_tasks.masks import mask
from release_tasks.settings import Backup as BackupSettings

LOCK = 0x2E5702E  # with the hash of a database's name: one restore into it at a time
NO_SUCH_LOCALE = (errors.WrongObjectType, errors.FeatureNotSupported)
NAME = r'("(?:[^"]|"")*"|[^\s";]+)'
QUOTED = r"""'(?:[^']|'')*'|"(?:[^"]|"")*\""""
GRANT = r"GRANT(?: [A-Z ,]+ ON PARAMETER)?"
ROLE_STATEMENT = re.compile(rf"(?ms)^(?:CREATE ROLE|ALTER ROLE|COMMENT ON ROLE|{GRANT}) {NAME}(?: TO {NAME})?.*?;$")
# Defaults that only a superuser may write out (PostgreSQL, "ALTER ROLE"), and a grantor who may not be there.
NOT_NEEDED = re.compile(rf" NO(?:SUPERUSER|CREATEROLE|CREATEDB|REPLICATION|BYPASSRLS)\b| GRANTED BY {NAME}(?=;$)")
# ANALYZE of everything, by a role that is no superuser, writes a warning for each catalog into the server log.
ANALYZE = """select format('analyze %s', oid::regclass) from pg_class
  where relkind in ('r', 'p', 'm') and oid >= 16384 and pg_has_role(relowner, 'usage') order by 1"""
RENAME, DROP = sql.SQL("alter database {} rename to {}"), sql.SQL("drop database if exists {} with (force)")


def verify(taken: Backup, environment: Environment, try_copy: Callable[[str], str] = lambda _: "") -> str:
    """Restore `taken` on a scratch server, mark it verified, hand it to `backup.then`, and return a summary.

    `try_copy` gets the DSN of the copy, which it may change, and returns what it found. Raises `Refused`.
    """
    settings = environment.settings.backup
    with backup.locked(environment):
        backup.read(taken.folder)  # refuses a damaged one
        if not taken.verified:
            with scratch(environment.root, taken.server) as server:
                _load(taken, server.dsn(taken.database), settings, any_locale=True)
                found = f"restored on PostgreSQL {programs.major_of(server.bin)}: "
                rows = counted(sum(taken.rows.values()), "row")
                found += f"{counted(len(taken.rows), 'table')} and {rows} are the same"
                tried = try_copy(server.dsn(taken.database))
            taken.mark_verified("; ".join(filter(None, [found, *taken.warnings, tried])), [])
        summary = str(taken.verified["summary"])
        if not is_done(taken, settings):
            argv = [word.replace("{folder}", str(taken.folder)) for word in settings.then]
            process.run(argv, cwd=environment.root, timeout=settings.timeout, supervised=True)
            taken.mark_verified(summary, settings.then)
        backup.prune(environment)  # which may take this one, where it is an old one
    return summary


def is_done(taken: Backup, settings: BackupSettings) -> bool:
    """Tell whether `taken` is verified, and the command `backup.then` has got it."""
    return bool(taken.verified) and settings.then in ([], taken.verified["then"])


def copy(source: str, target: str, settings: BackupSettings) -> None:
    """Copy the database `source` with its roles and rows to the database `target` of a scratch server."""
    with TemporaryDirectory(prefix="release-copy-") as folder:
        _load(backup.dump(source, Path(folder), settings), target, settings, any_locale=True)


def restore(chosen: Backup, dsn: str, settings: BackupSettings, over: str, dry: bool) -> list[str]:
    """Restore `chosen` beside the database `dsn`, then give it that name; return what was done, or `dry` would be.

    Raises `Refused`, also where a database is there that `over` does not name, or that cannot be renamed: it stays.
    """
    name = programs.variables(dsn)["PGDATABASE"]
    kept = _suffixed(name, f"_before_{datetime.now(UTC):%Y%m%d_%H%M%S}")
    beside = _suffixed(name, f"_restoring_{chosen.at:%Y%m%d_%H%M%S}")  # the same again after a kill
    keep = RENAME.format(sql.Identifier(name), sql.Identifier(kept))
    with programs.connect(_other(dsn), timeout=settings.timeout) as admin:
        if (major := admin.info.server_version // 10000) < chosen.server:
            what = f"{chosen.name} is of PostgreSQL {chosen.server}, and the server to restore it to is {major}."
            raise Refused(what, f"Restore it to a server of PostgreSQL {chosen.server} or newer.")
        there = admin.execute("select from pg_database where datname = %s", [name]).fetchone() is not None
        if there and over != name:
            what = f"The database {name} is there already, and --over names {over or 'nothing'}."
            raise Refused(what, f"{again(over=name)}   # it is then kept under another name")
        if there:
            with admin.transaction(force_rollback=True):  # where somebody is connected, PostgreSQL waits for 5 seconds
                admin.execute(keep)
        if dry:
            kept = ", and keep what is there under another name" if there else ""
            return [f"Would restore {chosen.name} into {name}{kept}."]
        if admin.execute("select pg_try_advisory_lock(%s, hashtext(%s))", [LOCK, name]).fetchone() != (True,):
            raise Refused(f"Another process is restoring into {name}.", "Wait for it to end, then run again.")
        try:
            roles = _load(chosen, conninfo.make_conninfo(dsn, dbname=beside), settings)
            with admin.transaction():
                if there:
                    admin.execute(keep)
                admin.execute(RENAME.format(sql.Identifier(beside), sql.Identifier(name)))
        except (Refused, psycopg.Error, OSError) as error:
            what = f"{chosen.name} was not restored, and {name} is as it was: {mask(str(error))}"
            own = error.problems[0].hint if isinstance(error, Refused) else ""
            raise Refused(what, own or "Fix what it says, then run the same command again.") from None
        finally:
            admin.execute(DROP.format(sql.Identifier(beside)))
    done = [f"Restored {chosen.name} into the database {name}: {sum(chosen.rows.values())} rows."]
    done += [f"Kept what was there before as the database {kept}."] if there else []
    return done + [f"Made the role {role}, without a password." for role in roles]


def _other(dsn: str) -> str:
    """Return the DSN of another database of the same server: nobody may be in one that is made or renamed."""
    is_postgres = programs.variables(dsn)["PGDATABASE"] == "postgres"
    return conninfo.make_conninfo(dsn, dbname="template1" if is_postgres else "postgres")


def _load(taken: Backup, dsn: str, settings: BackupSettings, any_locale: bool = False) -> list[str]:
    """Make `dsn` (with `any_locale` in C if need be) and missing roles, and load `taken`. Return the roles made."""
    name = programs.variables(dsn)["PGDATABASE"]
    with programs.connect(_other(dsn), timeout=settings.timeout) as admin:
        how: dict[str, Any] = {"major": max(admin.info.server_version // 10000, taken.server)}
        how |= {"timeout": settings.timeout}

        def run(*options: str) -> str:  # before the dump: PostgreSQL's own getopt of Windows ends at the first name
            return programs.run("pg_restore", dsn, *options, taken.folder / backup.DUMP, **how).stdout

        itself = run("--create", "--schema=", "--file=-")  # of no schema: of the database, and nothing in it
        create, properties = _database_statements(itself, sql.Identifier(name).as_string(admin))
        admin.execute(DROP.format(sql.Identifier(name)))
        roles = _make_roles(admin, (taken.folder / backup.ROLES).read_text(encoding="utf-8"))
        try:
            admin.execute(create.encode())
        except NO_SUCH_LOCALE:
            if not any_locale:
                raise
            admin.execute(re.sub(r" (?:LOCALE|LC_).*;", " LOCALE = 'C';", create).encode())
        run("--exit-on-error", "--no-tablespaces", f"--jobs={settings.jobs}", "--dbname=")
        with programs.connect(dsn, timeout=settings.timeout) as connection:
            found = backup.rows(connection)
            others = "inv backup.restore   # names the others: use another one"
            hint = backup.another_hint(taken.folder) if any_locale else others
            refuse(
                Problem(f"{table}, restored, has {found.get(table, 'no')} rows, expected {count}.", hint)
                for table, count in taken.rows.items()
                if found.get(table) != count
            )
            for (analyze,) in connection.execute(ANALYZE).fetchall():
                connection.execute(analyze)
            connection.execute(properties.encode())  # there: a catalog of the server has them in that encoding
    return roles


def _database_statements(text: str, name: str) -> tuple[str, str]:
    """Return of pg_restore's `text` what makes the database, as `name` (quoted), and what gives it all that it has."""
    if "\ufffd" in text:  # which stands for what is no UTF-8
        raise Refused("What the backup says of the database itself is no UTF-8 text, and cannot be restored as it was.")
    # A comment may have any lines: what is quoted is no statement. First go psql's commands and its session's settings.
    text = re.sub(rf"({QUOTED})|^(?:\\|--|SET |SELECT ).*\n", lambda found: found[1] or "", text, flags=re.MULTILINE)
    statements = [found[0].strip() for found in re.finditer(rf"(?:{QUOTED}|[^;'\"])+;", text)]
    named = [re.sub(rf"^([A-Z][^\n']*?\bDATABASE ){NAME}", lambda found: found[1] + name, each) for each in statements]
    creates = [each for each in named if each.startswith("CREATE DATABASE ")]
    return creates[0], "\n".join(each for each in named if each not in creates)


def _make_roles(admin: psycopg.Connection, dumped: str) -> list[str]:
    """Make the roles that are missing, all or none, and return them; one that is there is not altered."""
    there = {name for (name,) in admin.execute("select quote_ident(rolname) from pg_roles").fetchall()}
    statements = [*ROLE_STATEMENT.finditer(dumped)]
    missing = sorted({found[1] for found in statements if found[0].startswith("CREATE ROLE")} - there)
    with admin.transaction():
        for statement in statements:
            if not {*missing}.isdisjoint(statement.groups()):
                admin.execute(NOT_NEEDED.sub("", statement[0]).encode())
    return missing


def _suffixed(name: str, suffix: str) -> str:
    """Return `name` with `suffix`, cut where PostgreSQL would cut both."""
    return name.encode()[: 63 - len(suffix)].decode(errors="ignore") + suffix
