"""One temporary folder per run: removed at its end, or by the next run after a kill.

The folder is in the system's temporary folder: its path stays short however deep the repo is, as the sockets that
programs make below TMPDIR need (107 bytes on Linux, 103 on macOS; unix(7)). `.release/tmp/` holds where it is.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from release_tasks.files import records_folder

VARIABLES = ("TMPDIR", "TEMP", "TMP")
ORIGINAL_TMPDIR = "RELEASE_SYSTEM_TMP"  # a variable: the system's own temporary folder, set within a run


@contextmanager
def run_directory(root: Path) -> Iterator[None]:
    """Give this process and all it starts a temporary folder for the block; a run within a run shares it."""
    if os.environ.get(ORIGINAL_TMPDIR):
        yield
        return
    from filelock import FileLock

    from release_tasks import screen

    parent, records = Path(tempfile.gettempdir()), records_folder(root) / "tmp"
    records.mkdir(exist_ok=True)
    _remove_orphaned(records)
    record = records / f"release-{secrets.token_hex(4)}.parent"
    before = {name: os.environ.get(name) for name in VARIABLES}
    with FileLock(record.with_suffix(".lock")):
        try:
            record.write_bytes(os.fsencode(parent))
            (parent / record.stem).mkdir(mode=0o700)
            os.environ.update({ORIGINAL_TMPDIR: str(parent), **dict.fromkeys(VARIABLES, str(parent / record.stem))})
            tempfile.tempdir = str(parent / record.stem)
            yield
        finally:
            tempfile.tempdir = None
            os.environ.pop(ORIGINAL_TMPDIR, None)
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})
            with screen.busy("Removing the temporary files of this run"):
                _remove(record)


def original_variables() -> dict[str, str]:
    """Return the variables for a program that outlives the run, as a web app that is started by a deployment."""
    original = os.environ.get(ORIGINAL_TMPDIR)
    return {ORIGINAL_TMPDIR: "", **dict.fromkeys(VARIABLES, original)} if original else {}


def _remove_orphaned(records: Path) -> None:
    from filelock import FileLock, Timeout

    for record in records.glob("release-*.parent"):
        with suppress(Timeout), FileLock(record.with_suffix(".lock"), timeout=0):
            _remove(record)


def _remove(record: Path) -> None:
    """Delete a run's folder; the record stays as long as something of it does."""
    with suppress(OSError):
        folder = Path(os.fsdecode(record.read_bytes()), record.stem)
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            record.unlink()
            record.with_suffix(".lock").unlink()  # on Windows this fails, and the release of the lock does it
