"""What a DDL pack makes from empty, on a scratch server, and how another pack or a live database differs from that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from release_tasks.database import programs, psql, scratch, structure, watch
from release_tasks.database.pack import DdlFile
from release_tasks.database.structure import EXTRA, MISSING, Difference, Structure
from release_tasks.errors import refuse
from release_tasks.files import file_sha256, records_folder, sha256, write_aside
from release_tasks.settings import Settings

SERVER_WIDE = ("role", "membership")
# What PostgreSQL itself grants to a role that makes another one ("CREATE ROLE"): to give it to others, no more.
MAKER = "WITH ADMIN OPTION, INHERIT FALSE, SET FALSE"


@dataclass(frozen=True)
class Made:
    """What a pack makes from empty, and object → path of the file that made or changed it last, where that is known."""

    structure: Structure
    files: dict[str, str] = field(default_factory=dict)


def made_by(pack: Sequence[DdlFile], root: Path, settings: Settings, major: int | None = None) -> Made:
    """Return what `pack` makes, by psql, on a server of version `major` where this machine has that.

    It is remembered for exactly these files. The database has the name of the app, which packs know. Raises `Refused`
    where the pack cannot be applied.
    """
    remembered = cache("made", pack, root, settings, programs.major_of(programs.find_bin(major)))
    if remembered.exists():
        found = json.loads(remembered.read_text(encoding="utf-8"))
        return Made(Structure(**found["structure"]), found["files"])
    with (
        scratch.server(records_folder(root) / "scratch", major) as running,
        scratch.database(running, settings.app) as dsn,
    ):
        found = watch.watched(dsn, pack, settings.ddl)
        refuse(list(found.failed.values())[:1])
        made = structure.read(dsn)
        made.objects.pop(f"role {made.role}")  # the scratch server's own
    result = Made(made, found.makers(made.objects))
    write_aside(remembered, json.dumps({"structure": vars(made), "files": result.files}).encode())
    return result


def cache(kind: str, pack: Sequence[DdlFile], root: Path, settings: Settings, *more: object) -> Path:
    """Return the file in which what is known of `pack` is kept; another one for any other file, server or reader."""
    readers = [file_sha256(Path(module.__file__ or "")) for module in (structure, psql, watch)]
    key = [settings.app, *map(str, more), *readers, *(f"{file.sha256} {file.path}" for file in pack)]
    return records_folder(root) / "cache" / f"{kind}-{sha256(chr(10).join(key).encode())[:16]}.json"


@dataclass(frozen=True)
class Shift:
    """An object that two packs make differently, and the file it comes from."""

    difference: Difference
    file: str

    @property
    def how(self) -> str:
        return {MISSING: "dropped", EXTRA: "new"}.get(self.difference.how, "changed")

    def __str__(self) -> str:
        detail = f", {self.difference.detail}" if self.how == "changed" else ""
        return f"{self.difference.name} is {self.how}{detail}"


def shifts(old: Sequence[DdlFile], new: Sequence[DdlFile], root: Path, settings: Settings) -> list[Shift]:
    """Return what the pack `new` makes differently than `old`; equal objects are no shift, whatever the text.

    Raises `Refused` where a pack cannot be applied.
    """
    before, now = (made_by(pack, root, settings) for pack in (old, new))
    return [
        Shift(each, (before if each.how == MISSING else now).files.get(each.name, ""))
        for each in structure.differences(before.structure, now.structure)
    ]


def drift_of(dsn: str, where: str, pack: Sequence[DdlFile], root: Path, settings: Settings) -> list[Difference]:
    """Return each object that in `where`, by its `dsn`, differs from what `pack` makes, is missing, or is of no file.

    The ledger is no drift, nor is a role that the pack does not make: another database of the server may use it.
    """
    ledger = settings.ddl.ledger
    with programs.connect(dsn, where) as connection:
        major = connection.info.server_version // 10000
        query = "select tableowner from pg_tables where format('%%s.%%s', schemaname, tablename) = %s"
        owner = connection.execute(query, [ledger]).fetchone()
    made = made_by(pack, root, settings, major).structure
    found = structure.without(structure.read(dsn, where, role=owner[0] if owner else ""), ledger)
    schema = f"schema {ledger.partition('.')[0]}"
    objects = {
        name: lines
        for name, lines in found.objects.items()
        if name in made.objects
        or (name != schema and name.partition(" ")[0] not in SERVER_WIDE)
        or (
            name.startswith("membership ")
            and f"role {name.rpartition(' ')[2]}" in made.objects
            and not any(MAKER in line for line in lines)
        )
    }
    return structure.differences(made, replace(found, objects=objects))
