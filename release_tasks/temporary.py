"""One temporary folder per run: removed at its end, or by the next run after a kill.

It is in the system's temporary folder, as the sockets that programs make below TMPDIR need a short path (107 bytes on
Linux, 103 on macOS; unix(7)). `.release/tmp/` holds where it is.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from release_tasks.files import records_folder

VARIABLES = ("TMPDIR", "TEMP", "TMP")
ORIGINAL_TMPDIR = "RELEASE_SYSTEM_TMP"  # a variable: the system's own temporary folder, set within a run


@contextmanager
def run_directory(root: Path) -> Iterator[None]:
    """Give this process and all it starts a temporary folder for the block; a run within a run shares it."""
    if os.environ.get(ORIGINAL_TMPDIR):
        yield
        return
    parent, before, records = tempfile.gettempdir(), dict(os.environ), records_folder(root) / "tmp"
    records.mkdir(exist_ok=True)
    for orphan in records.glob("*.parent"):
        _remove(orphan)
    record = records / f"release-{secrets.token_hex(4)}.parent"
    try:
        with FileLock(record.with_suffix(".lock")):
            record.write_bytes(os.fsencode(parent))
            folder = Path(parent, record.stem)
            folder.mkdir(mode=0o700)
            os.environ.update({ORIGINAL_TMPDIR: parent, **dict.fromkeys(VARIABLES, str(folder))})
            tempfile.tempdir = None  # so that it is looked up again
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        tempfile.tempdir = None
        _remove(record)


def original_variables() -> dict[str, str]:
    """Return the variables for a program that outlives the run, as a web app that is started by a deployment."""
    original = os.environ.get(ORIGINAL_TMPDIR)
    return {ORIGINAL_TMPDIR: "", **dict.fromkeys(VARIABLES, original)} if original else {}


def _remove(record: Path) -> None:
    """Delete the folder of a run that has ended; the record stays as long as something of it does."""
    with suppress(OSError), FileLock(record.with_suffix(".lock"), timeout=0):  # whose Timeout is an OSError
        folder = Path(os.fsdecode(record.read_bytes()), record.stem)
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            record.unlink()
            record.with_suffix(".lock").unlink()  # on Windows this fails, and the release of the lock does it
