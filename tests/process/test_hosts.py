"""A whole release to three hosts that ssh reaches, two colours behind nginx on each; the releasing machine may end."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from outside import until
from world import World

from tests.deploy.servers import APP, BLUE, FOLDER, FRONT, GREEN, SSHD, Network, facts, tree

OWN = """
      folder: "${PRODUCTION_FOLDER}"
      restart: ["${PYTHON}", current/restart.py]
      log: "${SERVER_LOG}"

  evidence"""
pytestmark = [pytest.mark.faults, pytest.mark.skipif(not SSHD, reason="apt-get install openssh-server")]


@pytest.fixture
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with Network.of_three(tmp_path_factory.mktemp("network")) as network:
        network.reset()
        yield network


@pytest.fixture
def three(little: World, network: Network) -> World:
    """A little world whose production is three hosts, on which 0.1.0 runs."""
    hosts = network.driver()
    commit = little.git("rev-parse", "HEAD")
    hosts.place("v0.1.0", {**facts("0.1.0"), "commit": commit}, tree(network.folder, "0.1.0"))
    hosts.switch("v0.1.0")
    own = {"hosts": hosts.names, "ssh": network.ssh, "batches": [1, 2], "folder": FOLDER, "log": str(little.folder)}
    own |= {"restart": [f"{FOLDER}/service", "restart"], "stop": [f"{FOLDER}/service", "stop"]}
    own |= {"colours": {"blue": BLUE, "green": GREEN}, "nginx": hosts.host.nginx}
    own |= {"front": f"http://127.0.0.1:{FRONT}", "drain": 3}
    lines = "".join(f"\n      {key}: {json.dumps(value)}" for key, value in own.items())
    little.set((OWN, f"{lines}\n\n  evidence"))
    acceptance = "def test_api_ok(api, target):\n    api.expect('/api/version', {'version': target.version})\n"
    little.settle("feat: an app for hosts", {"app.py": APP.read_text(), "acceptance/test_little.py": acceptance})
    little.variables["PRODUCTION_ORIGIN"] = network.hosts["h1"].server.origin
    return little


def test_killed_in_each_phase_the_same_command_finishes_and_users_always_have_a_version(
    three: World, network: Network
) -> None:
    folders = [host.server.folder for host in network.hosts.values()]

    def has_it(folder: Path) -> bool:
        return "v0.1.1" in (folder / "traffic.conf").read_text()

    phases = [
        lambda: any((folder / "releases" / ".v0.1.1.part").exists() or is_placed(folder) for folder in folders),
        lambda: all(map(is_placed, folders)),
        lambda: (folders[0] / "green").exists() and "v0.1.1" in str((folders[0] / "green").readlink()),
        lambda: has_it(folders[0]),
        lambda: has_it(folders[2]),
    ]
    for phase in phases:
        with three.inv_begun("release", "--version", "0.1.1", "--yes") as process:
            assert until(lambda phase=phase, process=process: phase() or process.poll() is not None, 120)
            process.kill()
            output = process.communicate()[0]
        assert process.returncode in (0, -signal.SIGKILL), output
        assert set(network.versions()) <= {"0.1.0", "0.1.1"}
    three.finish()
    assert network.versions() == ["0.1.1"] * 3
    assert three.stamps()["production"] == ["0.1.1"]

    rows = three.inv("deploy.running", "--json").json["environments"]
    assert (rows[2]["answers"], rows[2]["tag"], rows[2]["colour"]) == ("0.1.1", "v0.1.1", "green")
    ran = three.inv("deploy.rollback", "--yes")
    assert ran.code == 0 and network.versions() == ["0.1.0"] * 3, ran.output
    told = three.inv("deploy.history", "--json").json
    assert {row["where"] for row in told if "v0.1.1 is live" in row["what"]} == set(network.hosts)


def is_placed(folder: Path) -> bool:
    return (folder / "releases" / "v0.1.1").exists()
