"""Three hosts by ssh: in place on all, switched in batches; what is lost on the way is found by the next run."""

from __future__ import annotations

import ast
import json
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from release_tasks.deploy.drivers import PROGRAM, Processes, hosts_of, order_of
from release_tasks.deploy.host import Host
from release_tasks.deploy.hosts import Hosts
from release_tasks.errors import Refused
from release_tasks.machine import locked, wait_until
from release_tasks.settings import Settings
from tests.deploy.servers import FOLDER, Network, facts, put, version_at

ROOT = Path(__file__).resolve().parents[2]


def released(network: Network, tmp_path: Path, version: str = "0.1.1", **about: object) -> Processes:
    """Return the three hosts with a release that is live."""
    hosts = network.driver(**about)
    put(hosts, version, tmp_path)
    hosts.switch(f"v{version}")
    assert network.versions() == [version] * 3
    return hosts


def refusal(hosts: Hosts, tag: str = "v0.1.2") -> list[str]:
    with pytest.raises(Refused) as refused:
        hosts.switch(tag)
    return [problem.what for problem in refused.value.problems]


def test_three_hosts_get_a_release_which_is_first_seen_through_a_tunnel(network: Network, tmp_path: Path) -> None:
    hosts = released(network, tmp_path)
    put(hosts, "0.1.2", tmp_path)
    assert network.versions() == ["0.1.1"] * 3 and sorted(hosts.facts("v0.1.2")) == sorted(facts("0.1.2"))
    with hosts.idle("v0.1.2") as origin:
        assert version_at(origin) == "0.1.2" and not origin.endswith(str(network.hosts["h1"].server.green))
    assert not hosts.is_live("v0.1.2", "0.1.2") and not hosts.is_here
    hosts.switch("v0.1.2")
    assert network.versions() == ["0.1.2"] * 3 and hosts.is_live("v0.1.2", "0.1.2")
    assert {seen.colour for seen in hosts.status().values()} == {"green"} and hosts.tag() == "v0.1.2"
    before = {name: seen.switches for name, seen in hosts.status().items()}
    hosts.switch("v0.1.2")
    assert {name: seen.switches for name, seen in hosts.status().items()} == before
    hosts.switch("v0.1.1")
    assert network.versions() == ["0.1.1"] * 3


def test_a_host_that_goes_away_between_place_and_switch_ends_the_batches(network: Network, tmp_path: Path) -> None:
    hosts = released(network, tmp_path)
    put(hosts, "0.1.2", tmp_path)
    network.hosts["h2"].stop()
    (said,) = refusal(hosts)
    assert said.startswith("Production, h2: cannot be reached, or its Python did not answer: ssh: connect to host")
    assert network.versions() == ["0.1.2", "0.1.1", "0.1.2"]
    with pytest.raises(Refused, match=r"^Production, h2: cannot be reached"):
        hosts.status()
    assert [name for name, seen in hosts.try_status().items() if seen.problem] == ["h2"]
    network.hosts["h2"].start()
    assert not hosts.is_live("v0.1.2", "0.1.2")
    hosts.switch("v0.1.2")
    assert hosts.is_live("v0.1.2", "0.1.2") and network.versions() == ["0.1.2"] * 3


def test_a_bad_first_host_is_the_last_one(network: Network, tmp_path: Path) -> None:
    hosts = released(network, tmp_path, wait=1)
    put(hosts, "0.1.2", tmp_path)
    network.hosts["h1"].server.fault("0.1.2", "unwell")
    (said,) = refusal(hosts)
    assert said.startswith("Production, h1: v0.1.2 does not answer within 1 s")
    assert said.endswith("v0.1.1 is still live.")
    assert network.versions() == ["0.1.1"] * 3
    assert [seen.tag for seen in hosts.status().values()] == ["v0.1.1"] * 3
    network.hosts["h1"].server.fault("0.1.2")
    hosts.switch("v0.1.2")
    assert network.versions() == ["0.1.2"] * 3


def test_where_a_host_does_not_take_the_tree_no_host_is_switched(network: Network, tmp_path: Path) -> None:
    hosts = released(network, tmp_path)
    conf = network.hosts["h3"].server.folder / "nginx.conf"
    good = conf.read_text()
    conf.write_text("by hand")
    try:
        with pytest.raises(Refused, match=r"Production, h3: .*nginx.* -t -q: exit code 1") as refused:
            put(hosts, "0.1.2", tmp_path)
    finally:
        conf.write_text(good)
    assert len(refused.value.problems) == 1 and hosts.facts("v0.1.2") == {}
    put(hosts, "0.1.2", tmp_path)
    assert hosts.facts("v0.1.2")["version"] == "0.1.2"


def test_what_a_disk_refuses_is_said_with_where_the_command_is_to_be_typed(network: Network, tmp_path: Path) -> None:
    """It was a class of Python, and nothing said that the command belongs on that host."""
    folder = network.hosts["h2"].server.folder
    (folder / "releases").write_text("by hand")
    with pytest.raises(Refused) as refused:
        put(network.driver(), "0.1.1", tmp_path)
    (problem,) = refused.value.problems
    assert problem.what == f"Production, h2: {folder}/releases/.v0.1.1.part cannot be used: Not a directory."
    assert problem.hint == f"df -h {folder}; ls -ld {folder}   # on h2"


def test_a_key_that_is_refused_is_said_with_a_command_that_shows_it(network: Network) -> None:
    hosts, keys = network.driver(), network.hosts["h1"].folder / "authorized_keys"
    good = keys.read_text()
    keys.write_text("")
    try:
        with pytest.raises(Refused) as refused:
            hosts.status()
    finally:
        keys.write_text(good)
    (problem,) = refused.value.problems
    assert (
        problem.what.startswith("Production, h1: cannot be reached") and "Permission denied (publickey)" in problem.what
    )
    hint = shlex.split(problem.hint)
    assert hint[-3:] == ["h1", "python3", "--version"]
    assert subprocess.run(hint, capture_output=True, text=True).stdout.startswith("Python 3.")


def test_a_host_key_that_has_changed_is_said_with_where_it_is(network: Network) -> None:
    hosts, host = network.driver(), network.hosts["h1"]
    host.stop()
    for file in ("host_key", "host_key.pub"):
        (host.folder / file).unlink()
    host.start()
    with pytest.raises(Refused) as refused:
        hosts.status()
    (problem,) = refused.value.problems
    assert f"{network.folder}/known_hosts" in problem.what and f"[127.0.0.1]:{host.port}" in problem.what
    assert "Host key verification failed" in problem.what
    network.know_hosts()
    assert hosts.status()


def test_a_lost_connection_leaves_the_host_to_finish_and_the_next_switch_waits_for_it(
    network: Network, tmp_path: Path
) -> None:
    hosts = released(network, tmp_path)
    put(hosts, "0.1.2", tmp_path)
    server = network.hosts["h1"].server
    server.fault("0.1.2", "mute")
    stdin = tmp_path / "order"
    stdin.write_bytes(order_of(hosts.host, "switch", {"tag": "v0.1.2", "by": "Rita"}))
    with stdin.open("rb") as order, (tmp_path / "said").open("wb") as said:
        ssh = subprocess.Popen(hosts.argv("h1", "python3", "-c", PROGRAM), stdin=order, stdout=said, stderr=said)
    assert wait_until(lambda: "green-web" in server.pids(), 10, every=0.1)
    ssh.kill()
    ssh.wait()
    assert server.version() == "0.1.1"
    threading.Timer(1, server.fault, ["0.1.2"]).start()
    hosts.switch("v0.1.2")
    assert network.versions() == ["0.1.2"] * 3
    found = [each["by"] for each in hosts.status()["h1"].switches if each["what"] == "v0.1.2 is live"]
    assert found == ["Rita"]
    assert list(server.pids()) == ["green-web"]


def test_of_two_at_once_the_second_waits(network: Network, tmp_path: Path) -> None:
    hosts = released(network, tmp_path, services=["web", "jobs"])
    put(hosts, "0.1.2", tmp_path)
    problems = []

    def switch() -> None:
        try:
            network.driver(services=["web", "jobs"]).switch("v0.1.2")
        except Refused as no:
            problems.append(no)

    both = [threading.Thread(target=switch) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert problems == [] and network.versions() == ["0.1.2"] * 3
    for host in network.hosts.values():
        assert not (host.server.folder / "two-at-once").exists()
        assert sorted(host.server.pids()) == ["green-jobs", "green-web"]
    whats = [each["what"] for each in hosts.status()["h2"].switches]
    assert whats.count("v0.1.2 is live") == 1


def test_nothing_of_an_order_is_seen_in_the_process_list(network: Network, tmp_path: Path) -> None:
    hosts = released(network, tmp_path)
    put(hosts, "0.1.2", tmp_path)
    network.hosts["h1"].server.fault("0.1.2", "mute")
    thread = threading.Thread(target=hosts.switch, args=["v0.1.2"])
    thread.start()
    server = network.hosts["h1"].server
    assert wait_until(lambda: "green-web" in server.pids(), 10, every=0.1)
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    server.fault("0.1.2")
    thread.join()
    told = [line for line in shown.splitlines() if "order" in line]
    assert told and not [line for line in told if "v0.1.2" in line or str(server.green) in line or len(line) > 700]


def test_without_ssh_or_python_a_sentence_says_so(network: Network, tmp_path: Path) -> None:
    hosts = Processes("production", network.host(), ["h1"], ssh=["no-such-ssh"])
    with pytest.raises(Refused, match=r"The program no-such-ssh was not found\."):
        hosts.status()
    python = network.hosts["h1"].folder / "bin" / "python3"
    good = python.read_text()
    python.write_text("#!/bin/sh\necho 'python3: not here' >&2; exit 127\n")
    try:
        with pytest.raises(Refused, match="h1: cannot be reached, or its Python did not answer: python3: not here"):
            network.driver().status()
    finally:
        python.write_text(good)


def test_what_the_settings_name_is_found_from_the_root_wherever_a_command_is_typed(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a subfolder ssh could not open its configuration."""
    for name in ("ops", "sub"):
        (tmp_path / name).mkdir()
    shutil.copy(network.folder / "ssh_config", tmp_path / "ops")
    monkeypatch.chdir(tmp_path / "sub")
    about = {"dsn": "dbname=app", "origin": "http://127.0.0.1:9", "folder": FOLDER, "restart": ["true"], "log": "x"}
    production = {**about, "hosts": ["h1"], "ssh": ["ssh", "-F", "ops/ssh_config"]}
    settings = Settings.model_validate({"environments": {"production": production}})
    hosts = hosts_of("production", tmp_path, settings, lambda _: {})
    assert hosts.try_status()["h1"].problem == ""
    with hosts.tunnel("h1", network.hosts["h1"].server.origin) as origin:
        assert origin.startswith("http://127.0.0.1:")


# The program that others get


def test_other_hosts_need_the_standard_library_of_python_3_8_alone() -> None:
    program = json.loads(order_of(Host(Path(FOLDER), "http://127.0.0.1"), "look", {}))["program"]
    parsed = ast.parse(program, feature_version=(3, 8))
    imported = {node.module for node in ast.walk(parsed) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(parsed) if isinstance(node, ast.Import) for alias in node.names}
    assert {str(name).partition(".")[0] for name in imported} <= set(sys.stdlib_module_names)


def test_an_order_does_not_wait_without_an_end_for_another_release(tmp_path: Path) -> None:
    host = Host(tmp_path, "http://127.0.0.1:9")
    order = json.loads(order_of(host, "stop", {}))
    order["program"] = order["program"].replace("LOCK = 600.0", "LOCK = 0.1")
    with locked(tmp_path / ".lock", "release"):
        argv = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(argv, input=json.dumps(order) + "\n", capture_output=True, text=True)
    said = {"failed": "Another release is under way.", "hint": f"Wait for it to end; it holds {tmp_path}/.lock."}
    assert (json.loads(done.stdout), done.returncode) == (said, 1)


def test_a_tunnel_that_cannot_be_had_is_a_sentence(network: Network) -> None:
    hosts = network.driver()
    network.hosts["h1"].stop()
    refused = pytest.raises(Refused, match=r"^Production, h1: ssh does not forward to http://127\.0\.0\.1:9\.")
    with refused, hosts.tunnel("h1", "http://127.0.0.1:9"):
        raise AssertionError
