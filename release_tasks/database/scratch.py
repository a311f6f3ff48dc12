"""A throw-away PostgreSQL, and what a DDL pack makes there from empty.

It is a whole server, for packs make roles, and roles belong to the server.
"""

import json
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from psycopg import sql

from release_tasks.database import programs, psql, structure
from release_tasks.database.pack import DdlFile
from release_tasks.database.server import Running, start
from release_tasks.database.structure import MISSING, Difference, Structure
from release_tasks.errors import Refused, refuse
from release_tasks.files import atomic_write, emptied, file_sha256, records_folder, sha256
from release_tasks.machine import locked
from release_tasks.settings import Settings

TIMEOUT = 60.0  # seconds until the scratch server of another command has to be gone


@contextmanager
def server(root: Path, major: int | None = None) -> Iterator[Running]:
    """Run a server for the repo at `root` for the block, one at a time, of version `major` where that is here."""
    folder = records_folder(root) / "scratch"
    with ExitStack() as stack:
        stack.enter_context(locked(folder.with_suffix(".lock"), "scratch server", TIMEOUT))
        home = emptied(folder) / secrets.token_hex(4)  # a name of its own: a killed run's server may be ending yet
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        running = start(home, [], durable=False, major=major)
        stack.callback(running.services.stop)
        yield running


@contextmanager
def database(running: Running, name: str) -> Iterator[str]:
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


def made_by(pack: Sequence[DdlFile], root: Path, settings: Settings, major: int | None = None) -> Structure:
    """Return what `pack` makes, by psql, remembered for exactly these files. Raises `Refused` where one fails."""
    remembered = cache("made", pack, root, settings, programs.major_of(programs.find_bin(major)))
    if remembered.exists():
        return dict(json.loads(remembered.read_text(encoding="utf-8")))
    with server(root, major) as running, database(running, settings.app) as dsn:
        refuse(psql.run_each(dsn, pack, settings.ddl)[1][:1])
        made = structure.read(dsn)
        made.pop(f"role {programs.variables(dsn)['PGUSER']}")  # the scratch server's own
    atomic_write(remembered, json.dumps(made).encode())
    return made


def cache(kind: str, pack: Sequence[DdlFile], root: Path, settings: Settings, *more: object) -> Path:
    """Return the file in which what is known of `pack` is kept; another one for any other file, server or layer."""
    layer = [file_sha256(path) for path in sorted(Path(__file__).parent.glob("*.*"))]
    key = [settings.app, *map(str, more), *layer, *(f"{file.sha256} {file.path}" for file in pack)]
    return records_folder(root) / "cache" / f"{kind}-{sha256(chr(10).join(key).encode())[:16]}.json"


def shifts(old: Sequence[DdlFile], new: Sequence[DdlFile], root: Path, settings: Settings) -> list[Difference]:
    """Return what is new, changed or dropped in what the pack `new` makes. Raises `Refused` as `made_by` does."""
    found = structure.differences(*(made_by(pack, root, settings) for pack in (old, new)))
    return [replace(each, how="dropped") if each.how == MISSING else each for each in found]


def objects_changed(before: Sequence[DdlFile], now: Sequence[DdlFile], root: Path, settings: Settings) -> list[str]:
    """Return which objects the pack `now` makes differently than `before`; one line where they cannot be compared."""
    try:
        return [str(shift) for shift in shifts(before, now, root, settings)]
    except Refused as no:
        return [f"the objects of the two packs cannot be compared: {no}"]
