"""Clean up after a run of pytest, however it ended: a program that pytest starts beside itself (conftest.py).

It waits for the end of its standard input, which pytest holds open. Then what still knows of the run's folder by its
environment is ended, in whichever session it is, and the folder is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

GRACE = 5.0  # seconds to wait for processes to end: by themselves, after SIGTERM, after SIGKILL


def main(folder: str) -> None:
    sys.stdin.buffer.read()
    for number in (0, signal.SIGTERM, signal.SIGKILL):
        end_all(folder, number)
    shutil.rmtree(folder, ignore_errors=True)


def end_all(folder: str, number: int) -> None:
    """Send the signal `number` (0: none) to what knows of `folder`, and wait for a while until nothing does."""
    deadline = time.monotonic() + GRACE
    for pid in processes_of(folder):
        with contextlib.suppress(OSError):
            os.kill(pid, number)
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.1)


def processes_of(folder: str) -> list[int]:
    """Return the ids of the processes that have `folder` in their environment (on Linux; elsewhere none)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            alive = (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if alive and os.fsencode(f"={folder}\0") in (process / "environ").read_bytes() + b"\0":
                found.append(int(process.name))
    return found


if __name__ == "__main__":
    main(sys.argv[1])
