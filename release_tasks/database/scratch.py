"""A throw-away PostgreSQL: a whole server, for DDL packs make roles, and roles belong to the server."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from psycopg import sql

from release_tasks.database import programs
from release_tasks.database.server import Running, start
from release_tasks.errors import Refused
from release_tasks.files import records_folder
from release_tasks.machine import locked


@contextmanager
def server(root: Path, major: int | None = None) -> Iterator[Running]:
    """Run a new server for the repo at `root` while the block lasts, of version `major` where this machine has that.

    What a killed run left there is removed first; its server ends when its files are gone. Raises `Refused`.
    """
    folder = records_folder(root) / "scratch"
    folder.mkdir(exist_ok=True)
    home = folder / secrets.token_hex(4)
    with ExitStack() as stack:
        with locked(folder.with_suffix(".lock"), "start of a scratch server", timeout=60):
            for lock in folder.glob("*.lock"):
                with suppress(Refused):  # it is in use
                    with locked(lock, "scratch server"):
                        shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                    lock.unlink(missing_ok=True)  # Windows removes no file that is open
            stack.callback(home.with_suffix(".lock").unlink, missing_ok=True)
            stack.enter_context(locked(home.with_suffix(".lock"), "scratch server"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        running = start(home, [], durable=False, major=major)
        stack.callback(running.stop)
        yield running


@contextmanager
def database(running: Running, name: str = "scratch") -> Iterator[str]:
    """Make an empty database on a scratch server and yield its URL; afterwards it and the roles made since are gone."""
    query, dsn = "select rolname from pg_roles", running.dsn(name)
    with programs.connect(running.dsn("postgres")) as connection:
        connection.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        before = set(connection.execute(query))
        try:
            yield dsn
        finally:
            connection.execute("delete from pg_subscription")  # one would not let its database be dropped
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
            if roles := [sql.Identifier(role) for (role,) in set(connection.execute(query)) - before]:
                for statement in ("drop owned by {} cascade", "drop role {}"):
                    connection.execute(sql.SQL(statement).format(sql.SQL(", ").join(roles)))
