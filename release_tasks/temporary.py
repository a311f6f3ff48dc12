"""Temporary files of a run: in a folder of its own that goes with it; a killed run's goes with the next one's start.

The folder is in the system's temporary folder: its path stays short however deep the repo is, as the sockets that
programs make below TMPDIR need (107 bytes on Linux, 103 on macOS; unix(7)). A lock in `.release/tmp/` names it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from release_tasks.errors import Refused
from release_tasks.files import records_folder

if TYPE_CHECKING:
    from filelock import FileLock

VARIABLES = ("TMPDIR", "TEMP", "TMP")
SYSTEM = "RELEASE_SYSTEM_TMP"  # a variable: the system's own temporary folder, set within a run
SERVERS = "rehearsal-*/clone/.release/environments/*/postgresql"


@contextmanager
def folder_of_run(root: Path) -> Iterator[None]:
    """Give this process and all it starts a temporary folder for the block; a run within a run shares it."""
    if os.environ.get(SYSTEM):
        yield
        return
    from filelock import FileLock

    system, locks = Path(tempfile.gettempdir()), records_folder(root) / "tmp"
    locks.mkdir(exist_ok=True)
    _clear_after_killed_runs(locks, system)
    folder = system / f"release-{secrets.token_hex(4)}"
    lock = FileLock(locks / f"{folder.name}.lock")
    before = {name: os.environ.get(name) for name in VARIABLES}
    lock.acquire()
    try:
        folder.mkdir(mode=0o700)
        os.environ.update({SYSTEM: str(system), **dict.fromkeys(VARIABLES, str(folder))})
        tempfile.tempdir = str(folder)
        yield
    finally:
        tempfile.tempdir = None
        os.environ.pop(SYSTEM, None)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        from release_tasks import screen

        with screen.busy("Removing the temporary files of this run"):
            _remove(folder, lock)


def of_the_system() -> dict[str, str]:
    """Return the variables for a program that outlives the run, as a web app that is started by a deployment."""
    system = os.environ.get(SYSTEM)
    return {SYSTEM: "", **dict.fromkeys(VARIABLES, system)} if system else {}


def _clear_after_killed_runs(locks: Path, system: Path) -> None:
    from filelock import FileLock, Timeout

    for path in locks.glob("release-*.lock"):
        lock = FileLock(path, timeout=0)
        with suppress(Timeout):
            lock.acquire()
            _remove(system / path.stem, lock)


def _remove(folder: Path, lock: FileLock) -> None:
    """Delete `folder`, and what the servers of a rehearsal in it keep elsewhere, unless one of them still runs."""
    from release_tasks.database import server

    with suppress(Refused):
        for left in folder.glob(SERVERS):
            server.remove(left)
        shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    if not folder.exists():
        Path(lock.lock_file).unlink(missing_ok=True)
