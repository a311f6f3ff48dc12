"""What a supervisor runs lives exactly as long as its parent, and follows the link."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from release_tasks.files import point_link, read_link, rename_unless_there
from release_tasks.supervisor import Command, Supervised
from tests.test_process import alive, posix, until

# A service that tells its process id and folder, a line each time it is started.
SERVICE = "import os, time; print(os.getpid(), os.getcwd(), flush=True); time.sleep(600)"


def service(log: Path, code: str = SERVICE, cwd: str = ".", **how: Any) -> Command:
    return Command([sys.executable, "-c", code], cwd, log=str(log), **how)


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


def test_stop_ends_the_service_and_may_be_asked_twice(log: Path, tmp_path: Path, running: list[Supervised]) -> None:
    services = Supervised(service(log, cwd=str(tmp_path)))
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
    services = Supervised(service(log, cwd=str(tmp_path)))
    running.append(services)
    assert until(lambda: starts(log))
    os.kill(services.pid, number)
    assert until(lambda: services.poll() is not None)
    assert not alive(starts(log)[0][0])


@posix
def test_kill_9_of_the_parent_ends_services_with_their_children(log: Path, tmp_path: Path) -> None:
    children = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SERVICE!r}]); " + SERVICE
    code = (
        "import time; from release_tasks.supervisor import *; "
        f"services = Supervised(Command([{sys.executable!r}, '-c', {children!r}], log={str(log)!r})); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    assert until(lambda: len(starts(log)) == 2)
    parent.kill()
    parent.wait()
    assert until(lambda: not any(alive(pid) for pid, _ in starts(log)))


@posix
def test_a_deaf_service_is_killed_after_the_grace(log: Path, tmp_path: Path, running: list[Supervised]) -> None:
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); " + SERVICE
    services = Supervised(service(log, deaf, str(tmp_path), grace=0.2))
    running.append(services)
    assert until(lambda: starts(log))
    services.stop()
    assert not alive(starts(log)[0][0])


@posix
def test_a_service_that_dies_is_started_again(log: Path, tmp_path: Path, running: list[Supervised]) -> None:
    running.append(Supervised(service(log, cwd=str(tmp_path))))
    assert until(lambda: starts(log))
    os.kill(starts(log)[0][0], signal.SIGKILL)
    assert until(lambda: len(starts(log)) == 2)


def test_the_log_tells_why_a_service_cannot_be_started(log: Path, tmp_path: Path, running: list[Supervised]) -> None:
    running.append(Supervised(Command(["no-such-program"], str(tmp_path), log=str(log))))
    assert until(lambda: log.exists() and "no-such-program cannot be started" in log.read_text())


def test_services_follow_the_link(log: Path, tmp_path: Path, running: list[Supervised]) -> None:
    blue, green, current = tmp_path / "blue", tmp_path / "green", tmp_path / "current"
    for folder in (blue / "api", green / "api"):
        folder.mkdir(parents=True)
    running.append(Supervised(service(log, cwd="api", follow=str(current))))
    point_link(current, blue)
    assert until(lambda: len(starts(log)) == 1)
    point_link(current, green)
    assert until(lambda: len(starts(log)) == 2)
    (first, before), (second, after) = starts(log)
    assert [before, after] == [str((folder / "api").resolve()) for folder in (blue, green)]
    assert not alive(first) and alive(second)


def test_a_link_is_read_back_also_as_a_text_file(tmp_path: Path) -> None:
    link = tmp_path / "current"
    assert read_link(link) is None
    point_link(link, tmp_path / "one")
    assert read_link(link) == (tmp_path / "one").resolve()
    point_link(link, Path("two"))
    assert read_link(link) == (tmp_path / "two").resolve()
    link.unlink()
    link.write_text(f"{tmp_path / 'three'}\n")
    assert read_link(link) == (tmp_path / "three").resolve()
    assert [path.name for path in tmp_path.iterdir()] == ["current"]


def test_of_two_folders_made_at_once_the_first_stands(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "made by").write_text(name)
        rename_unless_there(tmp_path / name, tmp_path / "made")
    assert (tmp_path / "made" / "made by").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
