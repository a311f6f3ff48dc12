"""A throw-away PostgreSQL server: a whole one, for DDL packs make roles, and roles belong to the server."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from release_tasks.database import catalog, postgres, sql
from release_tasks.errors import Refused
from release_tasks.files import file_sha256, records_folder, sha256, write_aside
from release_tasks.processes.shell import wait_until
from release_tasks.schema import runner

if TYPE_CHECKING:
    from psycopg import Connection

    from release_tasks.schema.ddl import DdlFile
    from release_tasks.schema.sending import Applied
    from release_tasks.settings import Settings

ENDING = 10.0  # seconds for a server to end whose owner was killed
# What a GRANT writes over, so that only looking after each file tells which one made it.
THERE = """select pg_current_xact_id()::text::bigint, array(select 'schema ' || quote_ident(nspname) from pg_namespace
  union all select 'role ' || quote_ident(rolname) from pg_roles)"""


@contextmanager
def server(root: Path, like: int | None = None) -> Iterator[postgres.Running]:
    """Run a new server for the length of the block, of the major version `like` where this machine has that.

    What a killed run left is removed first. Raises `Refused`.
    """
    from filelock import FileLock

    home = records_folder(root) / "scratch"
    home.mkdir(exist_ok=True)
    for lock in home.glob("*.lock"):
        _clear(lock)
    folder = home / secrets.token_hex(4)
    lock = folder.with_suffix(".lock")
    with FileLock(lock):
        try:
            running = postgres.start(folder, [], durable=False, like=like)
            try:
                yield running
            finally:
                running.stop()
        finally:
            postgres.remove(folder)
            lock.unlink()


def _clear(lock: Path) -> None:
    """Remove what a killed run left, unless that is in use, or its server does not end."""
    from filelock import FileLock, Timeout

    def removed() -> bool:
        with contextlib.suppress(Refused):
            postgres.remove(lock.with_suffix(""))
            return True
        return False

    with contextlib.suppress(Timeout), FileLock(lock, timeout=0):
        if wait_until(removed, time.monotonic() + ENDING, every=0.1):
            lock.unlink(missing_ok=True)


@contextmanager
def database(running: postgres.Running, name: str = "scratch") -> Iterator[str]:
    """Make an empty database on a scratch server and yield its URL; afterwards it is gone, and every role with it."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(running.dsn("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        try:
            yield running.dsn(name)
        finally:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
            made = connection.execute("select rolname from pg_roles where oid >= 16384").fetchall()
            if made:
                roles = sql.SQL(", ").join(sql.Identifier(role) for (role,) in made)
                connection.execute(sql.SQL("drop owned by {} cascade").format(roles))
                connection.execute(sql.SQL("drop role {}").format(roles))


@dataclass(frozen=True)
class Made:
    """What a pack makes from empty: `objects` of the catalogs, and `files`, object → path of what wrote it last.

    What no file wrote has none: what PostgreSQL brings, as the schema public, and what an owner may do.
    """

    objects: Mapping[str, str]
    files: Mapping[str, str]


def made_by(pack: list[DdlFile], root: Path, settings: Settings, like: int | None = None) -> Made:
    """Return what `pack` makes on a scratch server, by psycopg in its order; remembered for exactly these files.

    The ledger is not in it. The database has the name of the app, which packs know. Raises `Refused` where the pack
    cannot be applied.
    """
    import psycopg

    remembered = _remembered(pack, root, settings, major_like(like))
    if remembered.exists():
        return Made(**json.loads(remembered.read_text(encoding="utf-8")))
    with (
        server(root, like) as running,
        database(running, settings.app) as dsn,
        psycopg.connect(dsn, autocommit=True) as connection,
    ):
        made = make(connection, pack, settings)
    remember(made, pack, root, settings, major_like(like))
    return made


def remember(made: Made, pack: list[DdlFile], root: Path, settings: Settings, major: int) -> None:
    """Let `made_by` know what `pack` has made, from empty, on a scratch server of the version `major`."""
    content = json.dumps({"objects": made.objects, "files": made.files}).encode()
    write_aside(_remembered(pack, root, settings, major), content)


def major_like(like: int | None) -> int:
    """Return the major version of a scratch server: `like`, or another where this machine does not have that."""
    return postgres.major(postgres.find_bin(like=like) / "postgres")


def _remembered(pack: list[DdlFile], root: Path, settings: Settings, major: int) -> Path:
    return memory("made", pack, root, settings, major)


def memory(kind: str, pack: list[DdlFile], root: Path, settings: Settings, major: int, *more: str) -> Path:
    """Return the file in which what was seen of `pack` is remembered.

    It is another one for any other file of the pack, server of another version, way of reading it, and for what else
    it depends on (`more`).
    """
    readers = [
        file_sha256(path) for path in (catalog.QUERY, Path(catalog.__file__), Path(sql.__file__), Path(__file__))
    ]
    files = [f"{file.sha256} {file.path}" for file in pack]
    key = sha256("\n".join([str(major), settings.app, *readers, *more, *files]).encode())
    return records_folder(root) / "cache" / f"{kind}-{key[:16]}.json"


def make(
    connection: Connection,
    pack: list[DdlFile],
    settings: Settings,
    seen: Callable[[Applied], object] = lambda _: None,
) -> Made:
    """Apply `pack` to the empty scratch database of `connection`, tell `seen` of each file, and return what it made."""
    end, there = _there(connection)
    ends, first_seen = [end], dict.fromkeys(there, 0)
    for place, applied in enumerate(runner.run(connection, pack, settings.ddl, lambda *_: None), start=1):
        seen(applied)
        end, there = _there(connection)
        ends.append(end)
        first_seen = dict.fromkeys(there, place) | first_seen
    objects, files = {}, {}
    for name, definition, writer in catalog.read_with_writers(connection):
        objects[name] = definition
        place = first_seen.get(name, 0) if writer is None else bisect_left(ends, writer)
        if 0 < place <= len(pack) and definition != catalog.OWNER:
            files[name] = pack[place - 1].path
    return Made(objects, files)


def _there(connection: Connection) -> tuple[int, list[str]]:
    """Return the id of a transaction begun now, and the schemas and roles that are there."""
    row = connection.execute(THERE).fetchone()
    assert row is not None, "a select without from has one row"
    return row
