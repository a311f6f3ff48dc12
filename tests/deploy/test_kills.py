"""A deployment that is killed at any point leaves users with the old version or the new one; the same call finishes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from release_tasks import machine
from release_tasks.deploy import host, releases
from release_tasks.deploy.drivers import Processes
from release_tasks.deploy.host import Host
from release_tasks.deploy.hosts import Hosts
from release_tasks.machine import wait_until
from tests.deploy.servers import Network, Server, put
from tests.test_process import alive

# What changes something on a host; before, inside and after each call of these the process is killed.
CHANGES = ["run", "write_traffic", "note", "start", "make_live", "stop", "place", "switch"]


def killed_at(number: int) -> None:
    """Let this process kill itself at the change of that number."""
    left = iter(range(number))

    def pass_or_die() -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(change: Callable[..., Any], before: bool) -> Callable[..., Any]:
        def changed(*args: Any, **how: Any) -> Any:
            if before:
                pass_or_die()
            result = change(*args, **how)
            pass_or_die()
            return result

        return changed

    for name in CHANGES:
        setattr(Host, name, around(getattr(Host, name), before=True))
    writes = (host, "atomic_write"), (releases, "atomic_write"), (host, "point_link")
    for module, name in (*writes, (machine.subprocess, "Popen"), (releases.shutil, "rmtree")):
        setattr(module, name, around(getattr(module, name), before=False))


def in_a_child(action: Callable[[], None]) -> int:
    """Do something in a process of its own; return its exit code, or that signal, negative."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        action()
        os._exit(0)
    finally:
        os._exit(1)


def deploy(hosts: Hosts, version: str, folder: Path) -> None:
    put(hosts, version, folder)
    hosts.switch(f"v{version}")


def kills(server: Server, hosts: Hosts, tmp_path: Path, numbers: Iterator[int] | range) -> int:
    """Deploy release after release, each killed at another change, and then once more; return how many were killed."""
    deploy(hosts, "0.0.0", tmp_path)
    users, killed = "0.0.0", 0
    for number in numbers:
        new = f"0.1.{number}"

        def die(new: str = new, number: int = number) -> None:
            killed_at(number)
            deploy(hosts, new, tmp_path)

        code = in_a_child(die)
        assert code in (0, -signal.SIGKILL)
        if hosts.host.colours:
            assert server.version() in (users, new), f"killed at change {number}"
        assert in_a_child(lambda new=new: deploy(hosts, new, tmp_path)) == 0, f"killed at change {number}"
        (seen,) = hosts.status().values()
        assert (seen.tag, seen.answers[0], server.version()) == (f"v{new}", new, new), f"killed at change {number}"
        assert hosts.is_live(f"v{new}", new) and hosts.facts(f"v{new}")["before"] == f"v{users}"
        assert sorted(server.pids()) == [f"{seen.colour or 'current'}-{each}" for each in ("jobs", "web")]
        assert not (server.folder / "two-at-once").exists()
        assert not list((server.folder / "releases").glob(".*")) and len(hosts.releases()) <= 3
        users = new
        killed += code != 0
        if code == 0:
            break
    return killed


@pytest.mark.parametrize("number", [7, 34])
def test_a_deployment_behind_nginx_is_finished_after_a_kill(server: Server, tmp_path: Path, number: int) -> None:
    hosts = Hosts("production", server.behind_nginx(services=["web", "jobs"], keep=2))
    assert kills(server, hosts, tmp_path, range(number, number + 1)) == 1


@pytest.mark.faults
def test_a_deployment_behind_nginx_is_finished_after_a_kill_at_each_change(server: Server, tmp_path: Path) -> None:
    hosts = Hosts("production", server.behind_nginx(services=["web", "jobs"], keep=2))
    assert kills(server, hosts, tmp_path, range(200)) > 50


@pytest.mark.faults
def test_a_deployment_by_a_restart_is_finished_after_a_kill_at_each_change(server: Server, tmp_path: Path) -> None:
    hosts = Hosts("production", server.plain(services=["web", "jobs"], keep=2))
    assert kills(server, hosts, tmp_path, range(200)) > 20


def killed_while_it_starts(hosts: Hosts, server: Server, version: str, folder: Path) -> None:
    """Deploy a version, and kill whoever does that while the version does not answer yet; then let it answer."""
    server.fault(version, "mute")
    if not (child := os.fork()):
        try:
            deploy(hosts, version, folder)
        finally:
            os._exit(1)
    assert wait_until(lambda: "green-web" in server.pids(), 20, every=0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert server.version() == "0.1.1"
    server.fault(version)
    assert wait_until(lambda: server.version() == version, 20, every=0.1)


def test_hosts_finish_after_whoever_told_them_was_killed(network: Network, tmp_path: Path) -> None:
    hosts = network.driver()
    deploy(hosts, "0.1.1", tmp_path)
    killed_while_it_starts(hosts, network.hosts["h1"].server, "0.1.2", tmp_path)
    assert network.versions()[1:] == ["0.1.1"] * 2
    deploy(hosts, "0.1.2", tmp_path)
    assert network.versions() == ["0.1.2"] * 3 and hosts.is_live("v0.1.2", "0.1.2")


def test_this_machine_finishes_after_the_release_was_killed(server: Server, tmp_path: Path) -> None:
    """It stayed as it was: `current` or a colour named the new release, which nobody had started."""
    hosts = Processes("production", server.behind_nginx(wait=10))
    deploy(hosts, "0.1.1", tmp_path)
    killed_while_it_starts(hosts, server, "0.1.2", tmp_path)
    deploy(hosts, "0.1.2", tmp_path)  # waits for what goes on, and has nothing to change
    assert hosts.is_live("v0.1.2", "0.1.2") and list(server.pids()) == ["green-web"]
    whats = [each["what"] for each in hosts.status()["this machine"].switches]
    assert whats.count("v0.1.2 is live") == 1


INTERRUPTED = """
from pathlib import Path
from release_tasks.deploy.host import Host
from release_tasks.deploy.drivers import Processes
from release_tasks.failures import as_sentences

class Slow(Processes):
    def argv(self, name, *command):
        return ["sh", "-c", f"echo $$ > {name}; exec sleep 600"]

with as_sentences():
    Slow("production", Host(Path(), "http://127.0.0.1:1"), names=["h1", "h2"], batches=[2]).switch("v0.1.2")
"""


def test_an_interrupt_is_answered_at_once_while_hosts_end_what_they_have_begun(tmp_path: Path) -> None:
    """It was answered when all of them had ended, which may take half an hour."""
    files = [tmp_path / "h1", tmp_path / "h2"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    release = subprocess.Popen([sys.executable, "-c", INTERRUPTED], cwd=tmp_path, env=env, stderr=subprocess.PIPE)
    try:
        assert wait_until(lambda: all(file.exists() and file.read_text() for file in files), 20)
        release.terminate()  # as Ctrl-C
        _, said = release.communicate(timeout=10)
        assert release.returncode == 130 and b"What is done stays, hosts end what they began" in said
        assert all(alive(int(file.read_text())) for file in files)
    finally:
        release.kill()
        for file in files:
            os.kill(int(file.read_text()), signal.SIGKILL)


def test_this_machine_finds_the_variables_of_the_application_and_no_module_of_the_repo(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("json.py").write_text("raise SystemExit('of the repo')")
    restart = ["sh", "-c", 'echo "$SHOP $APP_VERSION $COLOUR" > found; exec ./service restart']
    host = server.plain(restart=restart)
    deploy(Processes("production", host, variables=lambda: {"SHOP": "open"}), "0.1.1", tmp_path)
    assert (server.folder / "found").read_text() == "open 0.1.1 current\n" and server.version() == "0.1.1"
