"""A throw-away PostgreSQL: a whole server, for DDL packs make roles, and roles belong to the server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from release_tasks.database import programs
from release_tasks.database.server import Running, remove, start
from release_tasks.errors import Refused
from release_tasks.files import locked

# They would not let the database be dropped.
DROP_SUBSCRIPTIONS = """do $$ declare one name; begin
  for one in select subname from pg_subscription loop
    execute format('alter subscription %1$I disable; alter subscription %1$I set (slot_name = none)', one);
    execute format('drop subscription %I', one);
  end loop;
end $$"""


@contextmanager
def server(folder: Path, major: int | None = None) -> Iterator[Running]:
    """Run a new server below `folder` for the length of the block, of version `major` where this machine has that.

    What a killed run left there, and nobody uses, is removed first. Raises `Refused`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for lock in folder.glob("*.lock"):
        with suppress(Refused):  # in use, or its server has not ended yet: the next run removes it
            with locked(lock, "scratch server"):
                remove(lock.with_suffix(""))
            lock.unlink(missing_ok=True)
    home = folder / secrets.token_hex(4)
    with ExitStack() as stack:
        stack.callback(home.with_suffix(".lock").unlink, missing_ok=True)
        stack.enter_context(locked(home.with_suffix(".lock"), "scratch server"))
        stack.callback(remove, home)
        running = start(home, [], durable=False, major=major)
        stack.callback(running.stop)
        yield running


@contextmanager
def database(running: Running, name: str = "scratch") -> Iterator[str]:
    """Make an empty database on a scratch server and yield its URL; afterwards it and the roles made since are gone."""
    from psycopg import sql

    roles, dsn = "select rolname from pg_roles", running.dsn(name)
    with programs.connect(running.dsn("postgres")) as connection:
        connection.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        there = set(connection.execute(roles))
        try:
            yield dsn
        finally:
            with programs.connect(dsn) as inside:
                inside.execute(DROP_SUBSCRIPTIONS)
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
            if made := [sql.Identifier(role) for (role,) in set(connection.execute(roles)) - there]:
                for statement in ("drop owned by {} cascade", "drop role {}"):
                    connection.execute(sql.SQL(statement).format(sql.SQL(", ").join(made)))
