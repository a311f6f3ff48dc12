"""Restoring a backup: on a scratch server, so that it counts; or beside a database, whose name it then takes."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg
from psycopg import conninfo, errors, sql

from release_tasks.database import backup, programs, scratch
from release_tasks.database.backup import SUMS, VERIFIED, Backup
from release_tasks.environments import Environment
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.files import file_sha256, records_folder, write_aside
from release_tasks.processes import shell
from release_tasks.settings import Backup as BackupSettings

LOCK = 0x2E5702E  # with the hash of a database's name: one restore into it at a time
NO_SUCH_LOCALE = (errors.WrongObjectType, errors.FeatureNotSupported)
ENDING = 2.0  # seconds in which a session may end whose program has just ended
NAME = r'("(?:[^"]|"")*"|[^\s";]+)'
ROLE_STATEMENT = re.compile(rf"(?ms)^(?:CREATE ROLE|ALTER ROLE|COMMENT ON ROLE|GRANT) {NAME}(?: TO {NAME})?.*?;$")
# Defaults that only a superuser may write out (PostgreSQL, "ALTER ROLE"), and a grantor who may not be there.
NOT_NEEDED = re.compile(rf" NO(?:SUPERUSER|CREATEROLE|CREATEDB|REPLICATION|BYPASSRLS)\b| GRANTED BY {NAME}(?=;$)")
# ANALYZE of everything, by a role that is no superuser, writes a warning for each catalog into the server log.
ANALYZE = """select format('analyze %s', oid::regclass) from pg_class
  where relkind in ('r', 'p', 'm') and oid >= 16384 and pg_has_role(relowner, 'usage') order by 1"""
# Tables, types, functions depend on their schema.
NOT_EMPTY = """select exists (select from pg_depend where objid >= 16384)
  or exists (select from pg_largeobject_metadata)"""
SESSIONS = """select coalesce(nullif(application_name, ''), 'a program') || ' as ' || usename || ', process ' || pid
  from pg_stat_activity where datname = %s and usename is not null"""


def verify(taken: Backup, environment: Environment, try_copy: Callable[[str], str] = lambda _: "") -> str:
    """Restore `taken` on a scratch server; it counts from then on. Return a summary, raise `Refused` where it fails.

    `try_copy` gets the DSN of the copy, which it may change, and returns what it found, or raises `Refused`.
    Afterwards the command `backup.then` gets the backup, and older backups are deleted.
    """
    settings = environment.settings.backup
    with backup.locked(environment):
        if not taken.verified:
            _write_verified(taken, _restore_on_scratch(backup.read(taken.folder), environment, try_copy), [])
        if not is_done(taken, settings):
            argv = [word.replace("{folder}", str(taken.folder)) for word in settings.then]
            shell.run(argv, cwd=environment.root, timeout=settings.timeout, leash=True)
            _write_verified(taken, taken.verified["summary"], settings.then)
        summary = str(taken.verified["summary"])
        backup.prune(environment)  # which may take this one, where it is an old one
    return summary


def is_done(taken: Backup, settings: BackupSettings) -> bool:
    """Tell whether `taken` is verified, and the command `backup.then` has got it."""
    return bool(taken.verified) and settings.then in ([], taken.verified["then"])


def _write_verified(taken: Backup, summary: str, then: list[str]) -> None:
    found = {SUMS: file_sha256(taken.folder / SUMS), "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    write_aside(taken.folder / VERIFIED, json.dumps({**found, "summary": summary, "then": then}, indent=1).encode())


def _restore_on_scratch(taken: Backup, environment: Environment, try_copy: Callable[[str], str]) -> str:
    began, facts, settings = time.monotonic(), taken.facts, environment.settings.backup
    with scratch.server(records_folder(environment.root) / "scratch", facts.server) as server:
        dsn = server.dsn(facts.database)
        with _administrator(dsn, settings.timeout, f"{taken.name} cannot be restored") as admin:
            _load(taken, admin, dsn, settings, *NO_SUCH_LOCALE)
        summary = f"restored on PostgreSQL {programs.major_of(server.bin)} in {time.monotonic() - began:.1f} s"
        summary += f": {len(facts.rows)} tables and {sum(facts.rows.values())} rows are the same"
        return "; ".join(filter(None, [summary, try_copy(dsn)]))


def restore(chosen: Backup, dsn: str, settings: BackupSettings, over: str, again: str) -> list[str]:
    """Restore `chosen` beside the database `dsn`, then give it that name; what was there is kept under another.

    `over` and `again` are as in `check_target`. Return what was done. Raises `Refused`; the database is then as it was.
    """
    name, there = programs.database_of(dsn), check_target(dsn, over, again)
    kept = _suffixed(name, f"_before_{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    beside = _suffixed(name, f"_restoring_{chosen.facts.at:%Y%m%dT%H%M%SZ}")  # the same again after a kill
    rename = sql.SQL("alter database {} rename to {}")
    with _administrator(dsn, settings.timeout, f"{chosen.name} was not restored, and {name} is as it was") as admin:
        if admin.execute("select pg_try_advisory_lock(%s, hashtext(%s))", [LOCK, name]).fetchone() != (True,):
            raise Refused(f"Another process is restoring into {name}.", "Wait for it to end, then run again.")
        try:
            roles = _load(chosen, admin, conninfo.make_conninfo(dsn, dbname=beside), settings)
            with admin.transaction():
                for old, new in [(name, kept)] * there + [(beside, name)]:
                    admin.execute(rename.format(sql.Identifier(old), sql.Identifier(new)))
        finally:
            _drop(admin, beside)
    done = [f"Restored {chosen.name} into the database {name}: {sum(chosen.facts.rows.values())} rows."]
    done += [f"Kept what was there before as the database {kept}."] if there else []
    return done + [f"Made the role {role}, without a password." for role in roles]


def check_target(dsn: str, over: str, again: str) -> bool:
    """Return whether the database `dsn` is there.

    Raises `Refused` where somebody is connected to it, or it holds something and `over` is not its name; `again` is the
    command for such hints.
    """
    name, problems = programs.database_of(dsn), []
    with _administrator(dsn, 60, f"{name} cannot be checked") as admin:
        there = admin.execute("select from pg_database where datname = %s", [name]).fetchone() is not None

        def sessions() -> str:
            return "; ".join(session for (session,) in admin.execute(SESSIONS, [name]).fetchall())

        if not shell.wait_until(lambda: not sessions(), time.monotonic() + ENDING, every=0.1):
            what = f"Somebody is connected to {name}: {sessions()}."
            problems.append(Problem(what, "End what runs there, then run again."))
        if there and over != name:
            with programs.connect(dsn) as connection:
                if connection.execute(NOT_EMPTY).fetchone() == (True,):
                    what = f"The database {name} is not empty, and --over names {over or 'nothing'}."
                    again = f"{again} --over {shlex.quote(name)}   # it is then kept under another name"
                    problems.append(Problem(what, again))
    refuse(problems)
    return there


@contextmanager
def _administrator(dsn: str, timeout: float, failed: str) -> Iterator[psycopg.Connection]:
    """Connect to another database of the server of `dsn`: nobody may be in one that is renamed.

    What goes wrong in the block is `Refused`, beginning with `failed`.
    """
    other = "template1" if programs.database_of(dsn) == "postgres" else "postgres"
    try:
        with backup.connect(conninfo.make_conninfo(dsn, dbname=other), timeout) as admin:
            yield admin
    except (psycopg.Error, shell.CommandFailed, OSError) as error:
        raise Refused(f"{failed}: {shell.mask(str(error))}", backup.RUN_AGAIN) from None


def _load(
    chosen: Backup, admin: psycopg.Connection, dsn: str, settings: BackupSettings, *accepted: type[psycopg.Error]
) -> list[str]:
    """Make the database `dsn` and the missing roles, load `chosen` and compare its rows. Return the roles made.

    After an error that is `accepted` the database is made with the locale C.
    """
    name, expected = programs.database_of(dsn), chosen.facts.rows
    create, properties = _database_statements(chosen, sql.Identifier(name).as_string(admin))
    _drop(admin, name)
    roles = _make_roles(admin, chosen)
    try:
        admin.execute(create.encode())
    except accepted:
        admin.execute(re.sub(r" (?:LOCALE|LC_).*;", " LOCALE = 'C';", create).encode())
    argv = ("--exit-on-error", "--no-tablespaces", f"--jobs={settings.jobs}", "--dbname=", chosen.folder / backup.DUMP)
    major = max(admin.info.server_version // 10000, chosen.facts.server)
    programs.run("pg_restore", dsn, *argv, major=major, timeout=settings.timeout)
    with backup.connect(dsn, settings.timeout) as connection:
        found = backup.rows(connection)
        differ = [table for table, count in expected.items() if found.get(table) != count]
        what = "{}, restored: {} has {} rows, expected {}."
        refuse(Problem(what.format(chosen.name, each, found.get(each, "no"), expected[each])) for each in differ)
        for (analyze,) in connection.execute(ANALYZE).fetchall():
            connection.execute(analyze)
    admin.execute(properties.encode())
    return roles


def _database_statements(chosen: Backup, name: str) -> tuple[str, str]:
    """Return what makes the database of `chosen`, called `name` (quoted), and what gives it owner, grants, settings."""
    text = (chosen.folder / backup.DATABASE).read_text(encoding="utf-8")
    text = re.sub(r"(?m)^(?:\\|--|SET |SELECT ).*\n", "", text)  # psql's commands, and settings of its session
    text = re.sub(rf"(?m)^([A-Z][^\n']*?\bDATABASE ){NAME}", lambda found: found[1] + name, text)
    before, create, after = re.split(r"(?m)^(CREATE DATABASE .*;)$", text)
    return create, before + after


def _make_roles(admin: psycopg.Connection, chosen: Backup) -> list[str]:
    """Make the roles that are missing, all or none, and return them; one that is there is not altered."""
    there = {name for (name,) in admin.execute("select quote_ident(rolname) from pg_roles").fetchall()}
    statements = [*ROLE_STATEMENT.finditer((chosen.folder / backup.ROLES).read_text(encoding="utf-8"))]
    missing = sorted({found[1] for found in statements if found[0].startswith("CREATE ROLE")} - there)
    with admin.transaction():
        for statement in statements:
            if not {*missing}.isdisjoint(statement.groups()):
                admin.execute(NOT_NEEDED.sub("", statement[0]).encode())
    return missing


def _drop(admin: psycopg.Connection, name: str) -> None:
    admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def _suffixed(name: str, suffix: str) -> str:
    """Return `name` with `suffix`, cut where PostgreSQL would cut both."""
    return name.encode()[: 63 - len(suffix)].decode(errors="ignore") + suffix
