"""Points where a test wants to break in: LITTLE_KILL kills the release that called us, LITTLE_PAUSE makes us wait.

A point is "<what happens> on <environment>", as "after the stamp on staging".
"""

import os
import signal
import subprocess
import time
from pathlib import Path


def reach(what: str, lives_on: bool = False) -> None:
    point = f"{what} on {os.environ['PGDATABASE'].rpartition('_')[2]}"
    if os.environ.get("LITTLE_KILL") == point and (pid := release()):
        os.kill(pid, signal.SIGKILL)
        if not lives_on:
            time.sleep(600)  # whoever holds us ends us
    if os.environ.get("LITTLE_PAUSE") == point:
        paused = Path(os.environ["LITTLE_FAULTS"], "paused")
        paused.write_text(str(os.getpid()))
        while paused.exists():
            time.sleep(0.02)


def release() -> int:
    """Return the process id of the `invoke` that we descend from, 0 where it was killed."""
    pid = os.getpid()
    while pid and b"invoke" not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid


def psql(text: str, **variables: str) -> None:
    """Run SQL in the database that PG* names, or end as psql does, which starts sooner than Python loads a driver."""
    words = [f"--set={name}={value}" for name, value in {"ON_ERROR_STOP": "1", **variables}.items()]
    ran = subprocess.run([os.environ["PSQL"], "--no-psqlrc", "--quiet", *words], input=text, text=True)
    if ran.returncode:
        raise SystemExit(ran.returncode)
