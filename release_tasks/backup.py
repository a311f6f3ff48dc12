"""Section 8: a backup of the database by pg_dump, whole or not there (docs/BACKUP_AND_RECOVERY.md)."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from release_tasks import postgres, shell
from release_tasks.files import file_sha256, write_aside

if TYPE_CHECKING:
    from release_tasks.environments import Environment

DUMP = 3600.0  # seconds a dump may take
RECENT = 3600.0  # seconds after which a dump is not "just before" the change any more


def dump(environment: Environment, folder: Path, server_major: int) -> Path:
    """Dump the database of `environment` into `folder`, check that it can be read, and return the file.

    The password goes by the environment, never by the command line. Raises `Refused` when no fitting pg_dump is there.
    """
    tool = postgres.client_tool("pg_dump", server_major)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{environment.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.dump"
    aside = path.with_suffix(".aside")
    variables = environment.variables("")
    try:
        shell.run([tool, "--format=custom", f"--file={aside}"], env=variables, timeout=DUMP, leash=True)
        shell.run([tool.with_name("pg_restore" + tool.suffix), "--list", aside], timeout=60)
        aside.chmod(0o600)
        with aside.open("r+b") as file:
            os.fsync(file.fileno())
        write_aside(_checksum(path), f"{file_sha256(aside)}  {path.name}\n".encode())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def newest(folder: Path, name: str) -> Path | None:
    """Return the newest dump of the environment `name` in `folder`, None when there is none."""
    return max(folder.glob(f"{name}-*.dump"), default=None)


def is_recent(path: Path) -> bool:
    return time.time() - path.stat().st_mtime < RECENT


def is_whole(path: Path) -> bool:
    """Tell whether `path` is what was dumped: its checksum fits."""
    checksum = _checksum(path)
    return checksum.exists() and checksum.read_text(encoding="utf-8").split()[:1] == [file_sha256(path)]


def _checksum(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
