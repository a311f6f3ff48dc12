"""The structure that a DDL pack makes from empty, on a scratch server; and drift, which is what differs from it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from release_tasks.database import programs, psql, scratch, structure
from release_tasks.database.pack import DdlFile
from release_tasks.database.structure import MISSING, Difference, Structure
from release_tasks.errors import refuse
from release_tasks.files import atomic_write, file_sha256, records_folder, sha256
from release_tasks.settings import Settings

# What PostgreSQL itself grants to a role that makes another one ("CREATE ROLE"): to give it to others, no more.
GRANTED_TO_MAKER = "WITH ADMIN OPTION, INHERIT FALSE, SET FALSE"


def made_by(pack: Sequence[DdlFile], root: Path, settings: Settings, major: int | None = None) -> Structure:
    """Return what `pack` makes, by psql, on a server of version `major` where this machine has that.

    It is remembered for exactly these files. Raises `Refused` where the pack cannot be applied.
    """
    remembered = cache("made", pack, root, settings, programs.major_of(programs.find_bin(major)))
    if remembered.exists():
        return dict(json.loads(remembered.read_text(encoding="utf-8")))
    with scratch.server(root, major) as running, scratch.database(running, settings.app) as dsn:
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


def drift_of(dsn: str, where: str, pack: Sequence[DdlFile], root: Path, settings: Settings) -> list[Difference]:
    """Return each object that in `where`, by its `dsn`, differs from what `pack` makes, is missing, or is of no file.

    The ledger is no drift, nor is a role that the pack does not make: another database of the server may use it.
    """
    ledger = settings.ddl.ledger
    with programs.connect(dsn, where) as connection:
        made = made_by(pack, root, settings, connection.info.server_version // 10000)
        query = "select tableowner from pg_tables where format('%%s.%%s', schemaname, tablename) = %s"
        owner = connection.execute(query, [ledger]).fetchone()
    role = owner[0] if owner else programs.variables(dsn)["PGUSER"]
    for name in made:  # who owns a table needs no grants, and has none in a dump
        if name.startswith("acl "):
            made[name] = [line for line in made[name] if not line.endswith(f" TO {role}")]
    found = structure.read(dsn, where, role=role, without=ledger)
    for name in found.keys() - made.keys():
        is_ours = f"role {name.rpartition(' ')[2]}" in made and GRANTED_TO_MAKER not in found[name][0]
        if name == f"schema {ledger.partition('.')[0]}" or (name.startswith(("role ", "membership ")) and not is_ours):
            del found[name]
    return structure.differences(made, found)


def missing(dsn: str, where: str, pack: Sequence[DdlFile], root: Path, settings: Settings) -> list[Difference]:
    """Return what of `pack` is not there, but for what the settings have a reason for. Arguments as in `drift_of`."""
    found = drift_of(dsn, where, pack, root, settings)
    return [each for each in found if each.how == MISSING and not settings.ddl.excepts(str(each))]
