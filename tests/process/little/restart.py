"""Restart the web app of the environment whose folder is the working directory, from its `current`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from point import reach

reach("before the restart", lives_on=True)
reach(f"before the restart of {json.loads(Path('current/package.json').read_text())['version']}", lives_on=True)
pid_file = Path("web.pid")
if pid_file.exists():
    old = int(pid_file.read_text())
    try:
        os.kill(old, signal.SIGTERM)
        while Path(f"/proc/{old}").exists() and "Z" not in Path(f"/proc/{old}/stat").read_text().split()[2]:
            time.sleep(0.02)
    except (ProcessLookupError, FileNotFoundError):
        pass
with Path("web.log").open("ab") as log:
    web = subprocess.Popen(
        [sys.executable, "web.py"],
        cwd=Path("current").resolve(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
pid_file.write_text(str(web.pid))
reach("after the restart", lives_on=True)
