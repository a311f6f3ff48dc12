"""A throw-away PostgreSQL: a whole server, for DDL packs make roles, and roles belong to the server."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from psycopg import sql

from release_tasks.database import programs
from release_tasks.database.server import Running, start
from release_tasks.files import emptied, records_folder
from release_tasks.machine import locked

TIMEOUT = 60.0  # seconds until the scratch server of another command has to be gone


@contextmanager
def server(root: Path, major: int | None = None) -> Iterator[Running]:
    """Run a new server for the repo at `root` while the block lasts, of version `major` where this machine has that.

    There is one at a time, which begins by removing what a killed run left. Raises `Refused`.
    """
    folder = records_folder(root) / "scratch"
    with ExitStack() as stack:
        stack.enter_context(locked(folder.with_suffix(".lock"), "scratch server", TIMEOUT))
        home = emptied(folder) / secrets.token_hex(4)  # a name of its own: a killed run's server may be ending yet
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
