"""A throw-away PostgreSQL: a whole server, for DDL packs make roles, and roles belong to the server."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from release_tasks.database import programs
from release_tasks.database.server import Running, remove, start
from release_tasks.errors import Refused
from release_tasks.processes.shell import wait_until

MOST_COPIED = 4_000_000_000  # bytes; a larger database would take too long to copy
ENDING = 10.0  # seconds for a server to end whose owner was killed


@contextmanager
def server(folder: Path, major: int | None = None) -> Iterator[Running]:
    """Run a new server below `folder` for the length of the block, of version `major` where this machine has that.

    What a killed run left there is removed first. Raises `Refused`.
    """
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    for lock in folder.glob("*.lock"):
        _remove_if_abandoned(lock)
    home = folder / secrets.token_hex(4)
    lock = home.with_suffix(".lock")
    with FileLock(lock):
        try:
            running = start(home, [], durable=False, major=major)
            try:
                yield running
            finally:
                running.stop()
        finally:
            remove(home)
            lock.unlink()


def _remove_if_abandoned(lock: Path) -> None:
    """Remove what a killed run left, unless that is in use, or its server does not end."""
    from filelock import FileLock, Timeout

    def removed() -> bool:
        with contextlib.suppress(Refused):
            remove(lock.with_suffix(""))
            return True
        return False

    with contextlib.suppress(Timeout), FileLock(lock, timeout=0):
        if wait_until(removed, time.monotonic() + ENDING, every=0.1):
            lock.unlink(missing_ok=True)


@contextmanager
def database(running: Running, name: str = "scratch") -> Iterator[str]:
    """Make an empty database on a scratch server and yield its URL; afterwards it and the roles made since are gone."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(running.dsn("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        there = {role for (role,) in connection.execute("select rolname from pg_roles")}
        try:
            yield running.dsn(name)
        finally:
            _drop_subscriptions(running.dsn(name))
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
            roles = {role for (role,) in connection.execute("select rolname from pg_roles")} - there
            if roles:
                names = sql.SQL(", ").join(map(sql.Identifier, roles))
                connection.execute(sql.SQL("drop owned by {} cascade").format(names))
                connection.execute(sql.SQL("drop role {}").format(names))


def _drop_subscriptions(dsn: str) -> None:
    """Drop what would not let the database be dropped."""
    import psycopg
    from psycopg import sql

    with contextlib.suppress(psycopg.Error), psycopg.connect(dsn, autocommit=True) as connection:
        for (name,) in connection.execute("select subname from pg_subscription").fetchall():
            for statement in ("alter subscription {} disable", "alter subscription {} set (slot_name = none)"):
                connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
            connection.execute(sql.SQL("drop subscription {}").format(sql.Identifier(name)))


def copy(source: str, target: str, timeout: float = 600) -> None:
    """Copy the database `source` with its roles and rows into the empty database `target` of a scratch server.

    Raises `Refused` where it is too large, or not all of it can be restored there.
    """
    with programs.connect(source) as connection:
        major = connection.info.server_version // 10000
        row = connection.execute("select pg_database_size(current_database())").fetchone()
    if row and row[0] > MOST_COPIED:
        raise Refused(f"it has {row[0] / 1e9:.0f} GB, of which at most {MOST_COPIED / 1e9:.0f} are copied.")
    with TemporaryDirectory(prefix="release-copy-") as folder:
        roles, dump = Path(folder) / "roles.sql", Path(folder) / "dump"
        server_wide = ("--roles-only", "--no-role-passwords", f"--database={programs.database_of(source)}")
        programs.run("pg_dumpall", source, *server_wide, f"--file={roles}", major=major, timeout=timeout)
        programs.run(
            "pg_dump", source, "--format=custom", "--compress=0", f"--file={dump}", major=major, timeout=timeout
        )
        programs.run("psql", target, "--no-psqlrc", "--quiet", f"--file={roles}", timeout=timeout)  # some are there
        flags = (
            "--exit-on-error",
            "--no-tablespaces",
            "--no-subscriptions",
            f"--dbname={programs.database_of(target)}",
        )
        programs.run("pg_restore", target, *flags, dump, timeout=timeout)
