"""One temporary folder per run, removed when the run ends, also after a kill.

It is in the system's own, as sockets that programs make there need a short path (107 bytes, on macOS 103; unix(7)).
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from release_tasks.errors import Refused
from release_tasks.process import OWN_GROUP

VARIABLES = ("TMPDIR", "TEMP", "TMP")
ORIGINAL_TMPDIR = "RELEASE_SYSTEM_TMP"  # a variable: the system's own temporary folder, set within a run
# Removes the folder when its standard input ends, which the run holds open; what ends with the run may still write.
REMOVER = """import contextlib, os, shutil, sys, time
def make_writable(_, path, error):  # Windows removes nothing that is read-only, as git's objects are
    with contextlib.suppress(OSError):
        if not os.path.islink(path):
            os.chmod(path, 0o700)
sys.stdin.read()
for _ in range(100):
    shutil.rmtree(sys.argv[1], onerror=make_writable)
    if not os.path.exists(sys.argv[1]):
        break
    time.sleep(0.1)
"""


@contextmanager
def run_directory() -> Iterator[None]:
    """Give this process and all it starts a temporary folder for the block; a run within a run shares it."""
    if os.environ.get(ORIGINAL_TMPDIR):
        yield
        return
    here = Path.cwd()  # Python's last resort, where git would find what is secret
    if Path(tempfile.gettempdir()) == here and any((each / ".git").exists() for each in (here, *here.parents)):
        raise Refused("No temporary folder can be written to.", "export TMPDIR=…")
    before = dict(os.environ)
    folder = tempfile.mkdtemp(prefix="release-")
    argv = [sys.executable, "-I", "-c", REMOVER, folder]
    null = subprocess.DEVNULL
    remover = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=null, stderr=null, **OWN_GROUP)
    try:
        os.environ.update({ORIGINAL_TMPDIR: tempfile.gettempdir(), **dict.fromkeys(VARIABLES, folder)})
        tempfile.tempdir = None  # so that it is looked up again
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        tempfile.tempdir = None
        remover.communicate()


def original_variables() -> dict[str, str]:
    """Return the variables for a program that outlives the run, as a web app that is started by a deployment."""
    original = os.environ.get(ORIGINAL_TMPDIR)
    return {ORIGINAL_TMPDIR: "", **dict.fromkeys(VARIABLES, original)} if original else {}
