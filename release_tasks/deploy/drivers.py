"""The driver that reaches the hosts of an environment, by its settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from release_tasks import temporary
from release_tasks.deploy.ansible import Ansible
from release_tasks.deploy.host import Host
from release_tasks.deploy.hosts import Hosts
from release_tasks.deploy.ssh import OwnProcess, Ssh
from release_tasks.deploy.tool import ToolHost
from release_tasks.files import RECORDS
from release_tasks.settings import Settings


def hosts_of(name: str, root: Path, settings: Settings, variables: Callable[[str], dict[str, str]]) -> Hosts:
    """Return the hosts of the environment `name`; on this machine commands find the application's `variables`."""
    own = settings.environments.named(name)
    named = any("{service}" in word for word in own.restart)  # else it is run once, for all
    services = ["web", *(name for name in settings.services if name != "web" and named)]
    about = {**host_settings(settings), "services": services, "drain": own.drain}
    about |= {"restart": own.restart, "halt": own.stop, "colours": own.colours, "nginx": own.nginx}
    if own.tool.deploy:
        facts = root / RECORDS / "environments" / name
        return Hosts(name, ToolHost(facts, own.origin, **about, tool=own.tool, root=root), own.tool.deploy[:1])
    if own.inventory or own.hosts:
        host = Host(Path(own.folder), own.front or "http://127.0.0.1", **about)
        if own.inventory:
            return Ansible(name, host, str(root / own.inventory), own.ssh, own.batches, own.limit)
        return Ssh(name, host, own.hosts, own.ssh, own.batches)
    host = Host(root / own.folder, own.front or own.origin, **about)
    return OwnProcess(name, host, lambda: {**variables(""), **temporary.original_variables()})


def host_settings(settings: Settings) -> dict[str, Any]:
    """Return what every host knows."""
    about = {"version_path": settings.acceptance.version, "wait": max(settings.acceptance.wait, 1)}
    return about | {"keep": settings.keep_releases, "subfolder": settings.folder, "install": settings.install}
