"""The driver that reaches an environment's hosts, by its settings; a tool such as Kamal reaches its hosts itself."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from release_tasks import process, temporary
from release_tasks.deploy.host import Host
from release_tasks.deploy.hosts import Hosts
from release_tasks.deploy.settings import Tool
from release_tasks.deploy.transport import CHANGE, Ansible, OwnProcess, Ssh
from release_tasks.errors import Refused
from release_tasks.files import RECORDS, atomic_write
from release_tasks.machine import wait_until
from release_tasks.masks import short
from release_tasks.settings import Settings


def hosts_of(name: str, root: Path, settings: Settings, variables: Callable[[str], dict[str, str]]) -> Hosts:
    """Return the hosts of the environment `name`; on this machine commands find the application's `variables`."""
    own = settings.environments.named(name)
    named = any("{service}" in word for word in own.restart)  # else it is run once, for all
    services = ["web", *(name for name in settings.services if name != "web" and named)]
    about = {**host_settings(settings), "services": services, "halt": own.stop}
    about |= own.model_dump(include={"restart", "colours", "nginx", "drain"})
    if own.tool.deploy:
        facts = folder_of(name, root)
        return Hosts(name, ToolHost(facts, own.origin, **about, tool=own.tool, root=root), own.tool.deploy[:1])
    if own.inventory or own.hosts:
        host = Host(Path(own.folder), own.front or "http://127.0.0.1", **about)
        if own.inventory:
            return Ansible(name, host, str(root / own.inventory), own.ssh, own.batches, own.limit, root)
        return Ssh(name, host, own.hosts, own.batches, root=root, ssh=own.ssh)
    host = Host(root / own.folder, own.front or own.origin, **about)
    return OwnProcess(name, host, variables=lambda: {**variables(""), **temporary.original_variables()})


def folder_of(name: str, root: Path) -> Path:
    """Return the folder on this machine for what an environment leaves here: all of an embedded one."""
    return root / RECORDS / "environments" / name


def host_settings(settings: Settings) -> dict[str, Any]:
    """Return what every host knows."""
    about = {"version_path": settings.acceptance.version, "wait": max(settings.acceptance.wait, 1)}
    return about | {"keep": settings.keep_releases, "subfolder": settings.folder, "install": settings.install}


@dataclass
class ToolHost(Host):
    """All that a tool deploys to, as one host; here are only facts and the journal, in `root` its configuration."""

    tool: Tool = field(kw_only=True)
    root: Path = field(kw_only=True)

    def place(self, tag: str, facts: dict[str, Any], sha256: str, tree: str = "") -> None:
        self.code_of(tag).mkdir(parents=True, exist_ok=True)
        if self.facts(tag).get("commit") != facts["commit"]:
            atomic_write(self.code_of(f"{tag}.json"), json.dumps(facts).encode())

    def record(self) -> tuple[str, str]:
        """Return the newest release whose version, tag, commit or image `running` prints, and no colour."""
        printed = set(re.split(r"[^\w.:/@+-]+", self.say(self.tool.running)))
        names = {tag: set(self.names_of(tag).values()) for tag in self.releases()}
        return next((tag for tag, known in names.items() if known & printed), ""), ""

    def make_live(self, tag: str) -> None:
        """Let the tool deploy `tag`, or roll back to it where it was live before, and see that it runs then."""

        def runs() -> bool:
            return self.record()[0] == tag and self.answers(tag)

        if runs():  # by another clone, of which no facts are here
            return
        was_live = self.facts(tag).get("by") and self.tool.rollback  # written by its first switch
        names = self.names_of(tag)
        self.say([word.format_map(names) for word in (self.tool.rollback if was_live else self.tool.deploy)], CHANGE)
        if not wait_until(runs, self.wait):
            said = short(self.say(self.tool.running))
            raise Refused(f"{tag} was deployed, and does not run within {self.wait:g} s; running: {said}")

    def names_of(self, tag: str) -> dict[str, str]:
        """Return what the placeholders stand for, by which `running` may name the release `tag`."""
        facts = self.facts(tag)
        names = {"version": facts.get("version", ""), "tag": tag, "commit": facts["commit"]}
        return {name: value for name, value in {**names, "image": self.tool.image.format(**names)}.items() if value}

    def say(self, argv: list[str], timeout: float = 60) -> str:
        """Run a command of the tool, at most some seconds, and return what it printed. Raises `Refused`."""
        return process.run(argv, cwd=self.root, timeout=timeout, supervised=True).stdout
