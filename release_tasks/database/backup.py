"""A backup of a database: taken whole or not at all, and kept. It is a folder with

dump/           by pg_dump, in directory format
roles.sql       by pg_dumpall: the roles of the server, without passwords
backup.json     when, by whom, for which release, and the rows of each table in the dump's own snapshot
SHA256SUMS      of all files above
verified.json   what was found when it was restored (restore.py); without it the backup does not count
"""

import json
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import psycopg
from pydantic import AwareDatetime, BaseModel, Field

from release_tasks import files, machine
from release_tasks.database import programs
from release_tasks.environments import Environment
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.settings import Backup as BackupSettings

DUMP, ROLES = "dump", "roles.sql"
FACTS, SUMS, VERIFIED = "backup.json", "SHA256SUMS", "verified.json"
INCOMPLETE = ".incomplete"

# Tables of an extension are dumped as the extension says, and not counted.
TABLES = """select format('%I.%I', nspname, relname) from pg_class c join pg_namespace n on n.oid = relnamespace
  where relkind = 'r' and nspname !~ '^pg_' and nspname <> 'information_schema' and not exists (
    select from pg_depend where classid = 'pg_class'::regclass and objid = c.oid and deptype = 'e') order by 1"""

# Of our session, which waits for pg_dump; the second one is there from PostgreSQL 17 on.
NO_TIMEOUT = """select set_config(name, '0', false) from pg_settings
  where name in ('idle_in_transaction_session_timeout', 'transaction_timeout')"""


class Backup(BaseModel):
    """The backup in `folder`, as its backup.json says; `server` is a major version, names of tables are quoted."""

    folder: Path = Field(exclude=True)
    database: str
    server: int
    rows: dict[str, int]
    by: str
    at: AwareDatetime
    version: str = ""
    commit: str = ""
    warnings: list[str] = []  # pg_dump's

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls.model_validate(dict(json.loads((folder / FACTS).read_bytes()), folder=folder))

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def verified(self) -> dict[str, Any]:
        """The facts found when exactly these files were restored; empty when that has not been done."""
        with suppress(OSError, ValueError, TypeError):
            found = dict(json.loads((self.folder / VERIFIED).read_bytes()))
            if found.get(SUMS) == files.file_sha256(self.folder / SUMS):
                return found
        return {}

    def mark_verified(self, summary: str, then: list[str]) -> None:
        """Record that it was verified: `summary` is what was found, `then` the command that has received it."""
        found = {SUMS: files.file_sha256(self.folder / SUMS), "summary": summary, "then": then}
        files.atomic_write(self.folder / VERIFIED, json.dumps(found, indent=1).encode())


@contextmanager
def locked(environment: Environment) -> Iterator[Path]:
    """Let one process at a time write backups of `environment`; yield their folder, without what a killed one left."""
    folder, prefix = files.ignored_by_git(folder_of(environment)), f".{environment.settings.app}-{environment.name}"
    with machine.locked(folder / f"{prefix}.lock", f"backup of {environment.name}"):
        for left in folder.glob(f"{prefix}-*{INCOMPLETE}"):
            shutil.rmtree(left)
        yield folder


def take(environment: Environment, version: str, commit: str = "") -> Backup:
    """Dump the database of `environment` for a release, and return the backup, not yet verified. Raises `Refused`."""
    with locked(environment) as folder:
        name = f"{environment.settings.app}-{environment.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        incomplete = folder / f".{name}{INCOMPLETE}"
        try:
            incomplete.mkdir(mode=0o700)
            settings, about = environment.settings.backup, {"version": version, "commit": commit}
            taken = dump(environment.dsn, incomplete, settings, environment.name, **about)
            files.atomic_write(incomplete / FACTS, taken.model_dump_json(indent=1).encode())
            files.atomic_write(incomplete / SUMS, files.checksum_lines(files.file_hashes(incomplete)))
            return taken.model_copy(update={"folder": incomplete.rename(folder / name)})
        finally:
            shutil.rmtree(incomplete, ignore_errors=True)


def dump(dsn: str, folder: Path, settings: BackupSettings, where: str = "", **about: Any) -> Backup:
    """Write dump and roles of `dsn` into `folder`; `about` is for which release."""
    with programs.connect(dsn, where, settings.timeout) as connection:
        major = connection.info.server_version // 10000
        how: dict[str, Any] = {"major": major, "timeout": settings.timeout}
        # Of SQL_ASCII the bytes, which need be no UTF-8; all others come back from UTF-8 as they were.
        encoding = "SQL_ASCII" if connection.info.parameter_status("server_encoding") == "SQL_ASCII" else "UTF8"
        flags = ["--format=directory", f"--jobs={settings.jobs}", "--compress=1", "--no-tablespaces"]
        flags += [f"--encoding={encoding}", f"--file={folder / DUMP}"]
        for is_last in (False, False, False, True):
            limits = [f"--snapshot={_begin(connection)}", "--lock-wait-timeout=5s"]
            try:
                printed = programs.run("pg_dump", dsn, *flags, *limits, **how).stderr.splitlines()
                break
            except Refused as no:
                if is_last or "Query was: LOCK TABLE" not in str(no):
                    raise
                connection.execute("rollback")  # who came in between waits for us, and pg_dump for them
                shutil.rmtree(folder / DUMP, ignore_errors=True)
        no_secrets = ("--roles-only", "--no-role-passwords", "--database=")
        programs.run("pg_dumpall", dsn, *no_secrets, f"--file={folder / ROLES}", **how)
        about = {**about, "warnings": [line for line in printed if line.startswith("pg_dump: ")]}
        whose = {"folder": folder, "database": connection.info.dbname, "server": major, "by": programs.who()}
        return Backup(**whose, rows=rows(connection), at=datetime.now(UTC), **about)


def _begin(connection: psycopg.Connection) -> str:
    """Lock all tables, then return the snapshot to read: an older one would see no row of what was truncated since."""
    tables = ", only ".join(_tables(connection))
    connection.execute(NO_TIMEOUT)
    connection.execute("begin isolation level repeatable read read only")
    connection.execute(f"set local lock_timeout = '{programs.LOCK_WAIT}'".encode())
    with suppress(psycopg.Error), connection.transaction():  # where it is refused, pg_dump says why
        if tables:
            connection.execute(f"lock table only {tables} in access share mode".encode())
    connection.execute("set local row_security = off")  # refuse, as pg_dump does, rather than leave rows out
    return str(connection.execute("select pg_export_snapshot()").fetchall()[0][0])


def rows(connection: psycopg.Connection) -> dict[str, int]:
    """Return table → number of its own rows; those of a partitioned table are in its partitions."""
    count = "select count(*) from only {}".format
    return {name: connection.execute(count(name).encode()).fetchall()[0][0] for name in _tables(connection)}


def _tables(connection: psycopg.Connection) -> list[str]:
    return [name for (name,) in connection.execute(TABLES).fetchall()]


def folder_of(environment: Environment) -> Path:
    """Return the folder of all backups."""
    return environment.root / environment.settings.backup.folder


def read(folder: Path) -> Backup:
    """Return the backup in `folder`, all of whose files are read. Raises `Refused` where it is damaged, or none."""
    fix = f"cd {shlex.quote(str(folder))} && sha256sum --check {SUMS}\n{another_hint(folder)}"
    found = files.mismatches(folder, SUMS, ignored=[VERIFIED])
    if found == [SUMS]:
        raise Refused(f"{folder / SUMS} is missing, or no text.", fix)
    refuse(Problem(f"{folder / name} is not what {SUMS} says.", fix) for name in found)
    try:
        return Backup.load(folder)
    except (OSError, ValueError, TypeError):
        raise Refused(f"{folder / FACTS} is not of a backup of this version.", fix) from None


def another_hint(folder: Path) -> str:
    at = shlex.quote(str(folder))
    return f"mv {at} {at}.damaged   # then use another one; a release takes it anew"


def all_of(environment: Environment) -> list[Backup]:
    """Return the backups of `environment`, the newest first; one whose backup.json cannot be read is left out."""
    found = []
    for path in folder_of(environment).glob(f"{environment.settings.app}-{environment.name}-[0-9]*Z/{FACTS}"):
        with suppress(ValueError, TypeError):
            found.append(Backup.load(path.parent))
    return sorted(found, key=lambda each: each.at, reverse=True)


def made_for(environment: Environment, commit: str | None) -> Backup | None:
    """Return the newest backup of `environment` that the release of `commit` made, None without one."""
    return next((each for each in all_of(environment) if commit and each.commit == commit), None)


def prune(environment: Environment) -> None:
    """Delete all but the newest `backup.keep` of those that count; what is not verified stays."""
    counting = [each for each in all_of(environment) if each.verified]
    for old in counting[environment.settings.backup.keep :]:
        shutil.rmtree(old.folder)
