"""The shelf of backups: what one is, which there are, which are kept.

A backup is a folder with the dump, what was counted in the dump's own snapshot, and checksums. It counts once
`verified.json` says that it has been restored.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import AwareDatetime, BaseModel, ValidationError

from release_tasks import screen
from release_tasks.errors import Problem, Refused
from release_tasks.files import file_sha256, read_checksums

if TYPE_CHECKING:
    from release_tasks.environments import Environment

FACTS, SUMS, VERIFIED = "backup.json", "SHA256SUMS", "verified.json"
DUMP, SEALED = "dump", "dump.tar.age"
RECENT = 3600.0  # seconds after which a backup is not "just before" the change any more
ASIDE = ".aside"


class Server(BaseModel):
    major: int


class Database(BaseModel):
    encoding: str
    datcollate: str
    datctype: str


class Facts(BaseModel):
    """What a restore needs of backup.json; there is more in it."""

    ended: AwareDatetime
    server: Server
    database: Database
    objects: dict[str, str]
    owners: list[str]
    roles: dict[str, list[str]]
    memberships: list[tuple[str, str, str]]
    statements: list[str]
    rows: dict[str, int]
    pg_dump: int
    dump: dict[str, str]


@dataclass(frozen=True)
class Backup:
    """The backup in `folder`; `facts` is what its backup.json says."""

    folder: Path
    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def dump(self) -> Path:
        """The folder of the dump, in pg_dump's directory format; not there once it is encrypted."""
        return self.folder / DUMP

    @property
    def listed(self) -> dict[str, str]:
        """Path → SHA-256 of each file, as SHA256SUMS says; empty where that cannot be read."""
        try:
            return read_checksums((self.folder / SUMS).read_bytes())
        except (OSError, ValueError):
            return {}

    @property
    def is_sealed(self) -> bool:
        """Whether the encrypted file is what counts; until it is, the folder `dump`."""
        return SEALED in self.listed

    @property
    def verified(self) -> dict[str, Any]:
        """What was seen when this backup was restored; empty when that has not been done."""
        seen = read_json(self.folder / VERIFIED)
        return seen if seen.get(FACTS) == file_sha256(self.folder / FACTS) else {}

    @property
    def counts(self) -> bool:
        """Whether it has been restored, and is still what it was then."""
        return bool(self.verified) and not self.damages()

    @property
    def ended(self) -> datetime:
        return datetime.fromisoformat(self.facts["ended"])

    @property
    def is_recent(self) -> bool:
        return (datetime.now(UTC) - self.ended).total_seconds() < RECENT

    @property
    def size(self) -> int:
        """The bytes of all its files."""
        return sum(size for _, size, _ in self._files())

    def damages(self) -> list[str]:
        """Return the files that are not what was written: changed, missing, or not of this backup."""
        listed = self.listed
        if not listed:
            return [SUMS]
        found = _hashes(self.folder, tuple(self._files()))
        return sorted(path for path in listed.keys() | found.keys() if listed.get(path) != found.get(path))

    def lacks(self) -> list[str]:
        """Return what a restore needs and backup.json does not hold."""
        try:
            Facts.model_validate_json(json.dumps(self.facts), strict=True)
        except ValidationError as error:
            return [".".join(map(str, each["loc"])) for each in error.errors()]
        return []

    def problems(self) -> list[Problem]:
        """Return a problem for each of its `damages`, or one for what it `lacks`."""
        mend = f"cd {self.folder} && sha256sum --check {SUMS}   # and take another backup"
        damaged = [Problem(f"{self.folder / path} is not what {SUMS} says.", mend) for path in self.damages()]
        if damaged or not (lacks := self.lacks()):
            return damaged
        what = f"{self.folder / FACTS} is not of a backup; it lacks, or has in another form: {', '.join(lacks)}."
        return [Problem(what, "inv backup.take   # or restore another one")]

    def _files(self) -> list[tuple[str, int, int]]:
        """Return path, size and time of each file that has a checksum; what a killed encryption left has none."""
        left = DUMP if self.is_sealed else SEALED
        found = []
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            if path.is_file() and name.parts[0] not in (SUMS, VERIFIED, left) and path.suffix != ASIDE:
                found.append((name.as_posix(), path.stat().st_size, path.stat().st_mtime_ns))
        return found


@functools.lru_cache(maxsize=64)
def _hashes(folder: Path, files: tuple[tuple[str, int, int], ...]) -> dict[str, str]:
    """Return the hashes of `files`, read once as long as they stay as they are: a release looks at them often."""
    return {path: file_sha256(folder / path) for path, _, _ in files}


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`, an empty one where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def folder_of(environment: Environment) -> Path:
    """Return the folder of all backups."""
    return environment.root / environment.settings.backup.folder


def backups_in(folder: Path) -> list[Backup]:
    """Return the backups in `folder`, of all applications and environments, by name, the newest of each first."""
    return [Backup(path.parent, read_json(path)) for path in sorted(folder.glob(f"[!.]*/{FACTS}"), reverse=True)]


def backups_of(environment: Environment) -> list[Backup]:
    """Return the backups of `environment`, the newest first."""
    form = re.compile(re.escape(stem(environment)) + r"-\d{8}T\d{6}Z")
    return [backup for backup in backups_in(folder_of(environment)) if form.fullmatch(backup.name)]


def made_for(environment: Environment, commit: str | None) -> Backup | None:
    """Return the newest whole backup of `environment` that the release of `commit` made, None when there is none."""
    mine = (backup for backup in backups_of(environment) if commit and backup.facts.get("commit") == commit)
    return next((backup for backup in mine if not backup.problems()), None)


def stem(environment: Environment) -> str:
    """Return how the names of the backups of `environment` begin."""
    return f"{environment.settings.app}-{environment.name}"


@contextmanager
def held(environment: Environment) -> Iterator[Path]:
    """Let one process at a time write backups of `environment`; yield their folder, what a killed one left tidied."""
    from filelock import FileLock, Timeout

    folder = folder_of(environment)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{stem(environment)}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        what = f"Another process is writing a backup of {environment.name} in {folder}."
        raise Refused(what, "Wait for it to end, then run again.") from None
    with lock:
        for aside in folder.glob(f".{stem(environment)}-*{ASIDE}"):
            remove(aside)
        for backup in backups_of(environment):
            left = backup.dump if backup.is_sealed else backup.folder / SEALED
            if left.exists():
                remove(left)
        yield folder


def prune(environment: Environment) -> list[str]:
    """Keep the newest verified backups of `environment`, as many as are set, remove older ones and return their names.

    What is not verified, or damaged, counts for nothing, and stays while it is newer than one that is kept.
    """
    kept, removed = 0, []
    for backup in backups_of(environment):
        if kept >= environment.settings.backup.keep:
            aside = backup.folder.with_name(f".{backup.name}{ASIDE}")
            backup.folder.rename(aside)  # so that no half of it is ever taken for a backup
            remove(aside)
            removed.append(backup.name)
        elif backup.counts:
            kept += 1
    return removed


def remove(path: Path) -> None:
    """Delete the folder or the file `path`."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def choose(folder: Path, wanted: str | None) -> Backup:
    """Return the backup `wanted`, a name in `folder` or a path; without it, refuse with a table of all there are."""
    if wanted is not None:
        named = Path(wanted).parent if Path(wanted).is_file() else Path(wanted)
        for path in (folder / named, named):
            if (path / FACTS).is_file() or (path / SUMS).is_file():
                return Backup(path.resolve(), read_json(path / FACTS))
    there = backups_in(folder)
    show(f"Backups in {folder}", there)
    what = "Which backup? None was named." if wanted is None else f"There is no backup {wanted!r}."
    verified = sorted((each for each in there if each.verified and not each.lacks()), key=lambda each: each.ended)
    raise Refused(what, f"inv backup.restore --from {verified[-1].name} --into dev" if verified else "inv backup.take")


def show(title: str, backups: list[Backup]) -> None:
    """Print a table of `backups`."""
    rows = []
    for backup in backups:
        size = f"{backup.size / 1e6:.1f} MB{', encrypted' if backup.is_sealed else ''}"
        facts = {} if backup.lacks() else backup.facts
        held_rows = sum(facts.get("rows", {}).values())
        rows.append((backup.name, size, held_rows, _minute(facts.get("ended")), _minute(backup.verified.get("at"))))
    screen.table(title, ["backup", "size", "rows", "taken", "restored to verify"], rows)


def _minute(moment: str | None) -> str:
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M} UTC" if moment else "no"
