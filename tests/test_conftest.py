"""How the tests themselves fail and end: each failure is named, and nothing of them stays behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_process import alive, posix, until

HANGS = """
import os, subprocess, sys, time, pathlib

def test_hangs(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    pathlib.Path(os.environ["TOLD"]).write_text(f"{child.pid} {os.environ['RELEASE_TESTS']}")
    time.sleep(600)
"""

ROOT = Path(__file__).resolve().parents[1]
PYTEST = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-q"]

# Garbage whose end parses something, as a log line with a traceback does, while pytest parses the file of the failure:
# before Python 3.12 that is a SystemError (https://github.com/python/cpython/issues/106905).
FAILS = """
import ast, gc

class Parses:
    def __init__(self):
        self.me = self

    def __del__(self):
        ast.parse("(1)")

def test_fails():
    gc.disable()
    for _ in range(20):
        Parses()
    gc.set_threshold(5000)  # reached in the long function below
    gc.enable()
    assert 3 == 4

def long():
"""
LONG = "    print((1, [2, 3]))\n" * 3000


def test_each_failure_is_named_on_every_python(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(FAILS + LONG)
    ran = subprocess.run([*PYTEST, str(tmp_path / "test_it.py")], cwd=ROOT, capture_output=True, text=True)
    assert "INTERNALERROR" not in ran.stdout + ran.stderr
    assert "1 failed" in ran.stdout and re.search(r"(?m)^FAILED .*test_it.py::test_fails", ran.stdout), ran.stdout


@posix
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_tests_nothing_of_them_stays(tmp_path: Path, ending: signal.Signals, workers: int) -> None:
    (tmp_path / "test_it.py").write_text(HANGS)
    told = tmp_path / "told"
    argv = [*PYTEST, *(["--numprocesses=1"] if workers else []), str(tmp_path / "test_it.py")]
    # A run of its own: what belongs to the one that we are part of is not its business.
    ours = ("RELEASE_", "PYTEST_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    run = subprocess.Popen(argv, cwd=ROOT, env={**environment, "TOLD": str(told)}, stdout=subprocess.DEVNULL)
    try:
        assert until(lambda: told.exists() and told.read_text(), 120)
        pid, folder = told.read_text().split()
        run.send_signal(ending)
        run.wait(120)
        assert until(lambda: not Path(folder).exists(), 120)
        assert not alive(int(pid))
    finally:
        run.kill()
