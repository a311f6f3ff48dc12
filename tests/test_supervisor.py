"""What a supervisor runs lives exactly as long as its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from release_tasks import process, supervisor
from release_tasks.process import CommandFailed, Supervised, run
from tests.test_process import SLEEP, alive, posix, python, until

# A service that tells its process id and folder, a line each time it is started.
SERVICE = "import os, time; print(os.getpid(), os.getcwd(), flush=True); time.sleep(600)"


def service(log: Path, code: str = SERVICE, **how: Any) -> Supervised:
    return Supervised([sys.executable, "-c", code], log.parent, os.environ, log, **how)


def starts(log: Path) -> list[tuple[int, str]]:
    lines = log.read_text().split("\n")[:-1] if log.exists() else []  # what is written whole
    return [(int(pid), cwd) for pid, cwd in (line.split(maxsplit=1) for line in lines)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "service.log"


@pytest.fixture
def running() -> Iterator[list[Supervised]]:
    started: list[Supervised] = []
    yield started
    for each in started:
        each.stop()


def test_a_large_environment_reaches_the_program_whole() -> None:
    """A pipe gives it in pieces, the first of which was taken for all: "The parent ended before…"."""
    large = {f"LARGE_{number}": "x" * 60_000 for number in range(5)}
    code = "import os; print(sum(len(os.environ[f'LARGE_{number}']) for number in range(5)))"
    assert run([sys.executable, "-c", code], env=large, supervised=True).stdout == "300000\n"


def test_stop_ends_the_service_and_may_be_asked_twice(log: Path, tmp_path: Path, running: list[Supervised]) -> None:
    services = service(log)
    running.append(services)
    assert until(lambda: starts(log)) and alive(services.pid)
    services.stop()
    services.stop()
    assert services.poll() is not None
    assert not alive(starts(log)[0][0])


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_supervisor_ends_the_service(
    log: Path, tmp_path: Path, running: list[Supervised], number: int
) -> None:
    services = service(log)
    running.append(services)
    assert until(lambda: starts(log))
    os.kill(services.pid, number)
    assert until(lambda: services.poll() is not None)
    assert not alive(starts(log)[0][0])


@posix
def test_kill_9_of_the_parent_ends_services_with_their_children(log: Path, tmp_path: Path) -> None:
    children = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SERVICE!r}]); " + SERVICE
    program = f"[{sys.executable!r}, '-c', {children!r}], '.', dict(os.environ), {str(log)!r}"
    code = f"import os, time; from release_tasks.process import *; run = Supervised({program}); time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", code])
    assert until(lambda: len(starts(log)) == 2)
    parent.kill()
    parent.wait()
    assert until(lambda: not any(alive(pid) for pid, _ in starts(log)))


@posix
def test_a_deaf_service_is_killed_after_the_grace(log: Path, tmp_path: Path, running: list[Supervised]) -> None:
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); " + SERVICE
    services = service(log, deaf)
    running.append(services)
    assert until(lambda: starts(log))
    services.stop()
    assert not alive(starts(log)[0][0])


def test_the_log_tells_why_a_service_cannot_be_started(log: Path, tmp_path: Path, running: list[Supervised]) -> None:
    running.append(Supervised(["no-such-program"], tmp_path, {}, log))
    assert until(lambda: log.exists() and "no-such-program cannot be started" in log.read_text())


@posix
@pytest.mark.timeout(60)
def test_what_another_user_runs_as_with_sudo_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was waited for without an end, and a supervisor whose parent was killed looked for it without a pause."""
    leaders = list[subprocess.Popen[bytes]]()

    def denied(pid: int, number: int) -> None:
        raise PermissionError

    def sleeping(*args: Any, **how: Any) -> subprocess.Popen[bytes]:
        leaders.append(started(*args, **how))
        return leaders[-1]

    def denied_by_psutil(each: psutil.Process) -> None:
        raise psutil.AccessDenied(each.pid)

    started = subprocess.Popen
    with monkeypatch.context() as patched:
        patched.setattr(process, "GRACE", 0.5)
        patched.setattr(subprocess, "Popen", sleeping)
        patched.setattr(os, "killpg", denied)
        patched.setattr(psutil.Process, "kill", denied_by_psutil)
        with pytest.raises(CommandFailed, match=r"did not end within 0\.5 s, nor by SIGKILL") as failed:
            run(python(SLEEP), timeout=0.5)
        assert failed.value.finished.code == -signal.SIGKILL and leaders[0].poll() is None
        assert not supervisor._end_descendants(os.getpid())
    leaders[0].kill()
    leaders[0].wait()
