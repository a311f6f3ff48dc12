"""Three hosts by Ansible, with the team's inventory: the same as by ssh, and a check that changes nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from release_tasks import process
from release_tasks.deploy.drivers import Ansible, hosts_of
from release_tasks.errors import Refused
from release_tasks.files import file_sha256
from release_tasks.settings import Settings
from tests.deploy.servers import Network, Server, facts, put, tree, version_at


@pytest.fixture
def inventory(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an inventory of the three, beside a host that is no business of ours."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not shutil.which("ansible-playbook") and "CI" not in os.environ:
        pytest.skip("Ansible is not installed: pip install ansible-core")
    own = tmp_path / "ansible.cfg"  # what a team may have set for itself
    own.write_text("[defaults]\ncallback_format_pretty = True\nverbosity = 3\ndisplay_failed_stderr = True\n")
    monkeypatch.setenv("ANSIBLE_CONFIG", str(own))
    inventory = tmp_path / "inventory.yml"
    lines = [
        f"    {name}: {{ansible_host: 127.0.0.1, ansible_port: {host.port}}}" for name, host in network.hosts.items()
    ]
    common = (
        f"-F /dev/null -i {network.folder}/key -o IdentitiesOnly=yes -o UserKnownHostsFile={network.folder}/known_hosts"
    )
    text = ["shops:", "  hosts:", *reversed(lines), "  vars:", f"    ansible_ssh_common_args: {common}"]
    text += ["    ansible_python_interpreter: /usr/bin/python3", "others:", "  hosts: {database: {}}"]
    inventory.write_text("\n".join(text) + "\n")
    return inventory


def test_a_host_without_variables_gets_the_release_too(inventory: Path, network: Network) -> None:
    """`ansible-inventory` tells variables only of hosts that have some: it kept the old version, and nobody saw it."""
    inventory.write_text("web:\n  hosts:\n    app1.example: {ansible_user: deploy}\n    app2.example:\n")
    hosts = Ansible("production", network.host(), str(inventory), ["ssh"], [1], limit="web")
    assert hosts.names == ["app1.example", "app2.example"]


@pytest.fixture
def hosts(network: Network, inventory: Path) -> Ansible:
    return Ansible("production", network.host(), str(inventory), ["ssh"], [1, 2], limit="shops")


def deployed(network: Network, folder: Path, version: str = "0.1.1") -> None:
    """Deploy a version by ssh, which is quicker."""
    by_ssh = network.driver()
    put(by_ssh, version, folder)
    by_ssh.switch(f"v{version}")


def test_a_release_is_placed_on_all_hosts_seen_on_the_first_and_switched_in_batches(
    network: Network, hosts: Ansible, tmp_path: Path
) -> None:
    assert hosts.names == ["h1", "h2", "h3"]
    deployed(network, tmp_path)
    assert network.versions() == ["0.1.1"] * 3
    put(hosts, "0.1.2", tmp_path)
    with hosts.idle("v0.1.2") as origin:
        assert version_at(origin) == "0.1.2" and network.versions() == ["0.1.1"] * 3
    hosts.switch("v0.1.2")
    assert network.versions() == ["0.1.2"] * 3 and hosts.is_live("v0.1.2", "0.1.2")
    assert not list(Path("/tmp").glob("release-v0.1.*"))


def test_a_check_changes_nothing_as_does_a_second_run(
    network: Network, hosts: Ansible, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, ran = process.run, list[list[str]]()
    monkeypatch.setattr(process, "run", lambda argv, **how: (ran.append(argv), run(argv, **how))[1])
    deployed(network, tmp_path)
    which, hosts.which = hosts.which, [*hosts.which, "--check"]
    before = hosts.try_status()
    skipped = pytest.raises(Refused, match="Command would have run if not in check mode")
    with skipped:
        hosts.place("v0.1.2", facts("0.1.2"), tree(tmp_path, "0.1.2"))
    assert hosts.try_status() == before
    put(network.driver(), "0.1.2", tmp_path)
    before = hosts.try_status()
    with skipped:
        hosts.switch("v0.1.2")
    assert hosts.try_status() == before and network.versions() == ["0.1.1"] * 3
    argv = next(argv for argv in ran if argv[0] == "ansible-playbook")
    assert "ServerAliveInterval=5" in argv[argv.index("--ssh-extra-args") + 1], "it waited for a lost host for hours"
    assert not list(Path("/tmp").glob("release-v0.1.*"))
    hosts.which = which
    network.driver().switch("v0.1.2")
    before = hosts.try_status()
    hosts.switch("v0.1.2")
    assert hosts.try_status() == before


@pytest.fixture
def of_nobody() -> Iterator[Server]:
    """Return a host whose folder is that of the user `nobody`, who can reach it."""
    if os.getuid() or not shutil.which("su"):
        pytest.skip("only root can become another user without a password")
    with TemporaryDirectory(dir="/tmp") as name:  # where others may go
        Path(name).chmod(0o755)
        server = Server(Path(name) / "shop")
        service = server.folder / "service"
        service.write_text(service.read_text().replace(sys.executable, "/usr/bin/python3"))
        for path in (server.folder, *server.folder.rglob("*")):
            shutil.chown(path, "nobody")
        yield server
        server.power_off()


def test_the_settings_say_which_hosts_of_the_inventory_get_the_release(inventory: Path, tmp_path: Path) -> None:
    """All did, also a database's."""
    about = {"dsn": "dbname=app", "origin": "http://127.0.0.1:9", "folder": "/srv/app", "restart": ["true"], "log": "x"}
    production = {**about, "inventory": str(inventory), "limit": "shops"}
    settings = Settings.model_validate({"environments": {"production": production}})
    assert hosts_of("production", tmp_path, settings, lambda _: {}).names == ["h1", "h2", "h3"]


def test_looks_take_a_variable_by_each_of_its_names(inventory: Path, hosts: Ansible) -> None:
    """What ssh needs was left out where the inventory had it as ansible_ssh_user, or the key by its shorter name."""
    about = "ansible_ssh_host: other, ansible_ssh_port: 2222, ansible_ssh_user: rita, ansible_private_key_file: ~/key, "
    about += "ansible_user: nobody"
    inventory.write_text(inventory.read_text().replace("h1: {", f"h1: {{{about}, "))
    again = Ansible("production", hosts.host, str(inventory), ["ssh"], [1], limit="h1")
    words = shlex.join(again.argv("h1", "true"))
    assert " -p 2222 -l rita -i '~/key' -F /dev/null " in words and words.endswith(" other true")


def test_hosts_become_the_user_that_the_inventory_names(inventory: Path, of_nobody: Server, tmp_path: Path) -> None:
    become = "{ansible_become: true, ansible_become_user: nobody, ansible_become_method: su, "
    become += "ansible_become_flags: -s /bin/sh, "
    inventory.write_text(inventory.read_text().replace("h1: {", f"h1: {become}"))
    hosts = Ansible("production", of_nobody.plain(), str(inventory), ["ssh"], [1], limit="h1")
    for version in ("0.1.1", "0.1.2"):
        put(hosts, version, tmp_path)
        hosts.switch(f"v{version}")
        assert of_nobody.version() == version and hosts.is_live(f"v{version}", version)
    ours = [path for path in of_nobody.folder.rglob("*") if path.owner() != "nobody"]
    assert ours == [] and hosts.tag() == "v0.1.2"
    (pid,) = of_nobody.pids().values()
    assert Path(f"/proc/{pid}").owner() == "nobody"
    assert not list(Path("/tmp").glob("release-v0.1.*"))


@pytest.mark.faults
def test_an_unreachable_host_at_place_means_that_no_host_is_switched(
    network: Network, hosts: Ansible, tmp_path: Path
) -> None:
    deployed(network, tmp_path)
    file, about = tree(tmp_path, "0.1.2"), facts("0.1.2")
    network.hosts["h3"].stop()
    with pytest.raises(Refused, match=r"^Production, h3: cannot be reached"):  # by the look that comes first
        hosts.place("v0.1.2", about, file)
    with pytest.raises(Refused) as refused:
        hosts.call_all(hosts.names, "place", tag="v0.1.2", facts=about, tree=str(file), sha256=file_sha256(file))
    (problem,) = refused.value.problems
    assert problem.what.startswith("Production, h3: cannot be reached") and "Connection refused" in problem.what
    assert "{" not in problem.what and network.versions() == ["0.1.1"] * 3
    assert not list(Path("/tmp").glob("release-v0.1.*")), "what was copied to the others stayed there"
    network.hosts["h3"].start()
    put(hosts, "0.1.2", tmp_path)
    assert hosts.facts("v0.1.2")["version"] == "0.1.2"


@pytest.mark.faults
def test_a_host_that_fails_in_the_second_batch_is_named_by_its_own_sentence_and_the_same_call_finishes(
    network: Network, hosts: Ansible, tmp_path: Path
) -> None:
    deployed(network, tmp_path)
    put(network.driver(), "0.1.2", tmp_path)
    server = network.hosts["h3"].server
    hosts.host.wait = 1
    server.fault("0.1.2", "unwell")
    with pytest.raises(Refused) as refused:
        hosts.switch("v0.1.2")
    (problem,) = refused.value.problems
    assert problem.what.startswith("Production, h3: v0.1.2 does not answer within 1 s: http://127.0.0.1:")
    assert problem.what.endswith("\nv0.1.1 is still live.") and "Look at the logs" in problem.hint
    assert network.versions() == ["0.1.2", "0.1.2", "0.1.1"]
    server.fault("0.1.2")
    network.hosts["h2"].stop()
    with pytest.raises(Refused, match=r"^Production, h2: cannot be reached"):
        hosts.switch("v0.1.2")
    network.hosts["h2"].start()
    hosts.switch("v0.1.2")
    assert network.versions() == ["0.1.2"] * 3 and hosts.is_live("v0.1.2", "0.1.2")


def test_what_keeps_ansible_from_its_work_is_a_sentence(
    hosts: Ansible, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Refused, match="Ansible finds no host of production: ") as refused:
        Ansible("production", hosts.host, hosts.which[1], ["ssh"], [1], limit="nobody")
    assert "--limit nobody --list" in refused.value.problems[0].hint
    monkeypatch.setenv("ANSIBLE_STRATEGY", "no-such-strategy")
    with pytest.raises(Refused, match=r"^Ansible ended with exit code \d+:\n(.|\n)*no-such-strategy"):
        hosts.switch("v0.1.1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match=r"^The program ansible-inventory was not found\.$"):
        Ansible("production", hosts.host, hosts.which[1], ["ssh"], [1], "all")


def test_the_configuration_of_ansible_in_the_root_is_read(
    hosts: Ansible, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was read only where the command was typed beside it."""
    (tmp_path / "ansible.cfg").write_text("[defaults]\nstrategy = no-such-strategy\n")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    configured = Ansible("production", hosts.host, hosts.which[1], ["ssh"], [1], "shops", tmp_path)
    with pytest.raises(Refused, match="no-such-strategy"):
        configured.switch("v0.1.1")
