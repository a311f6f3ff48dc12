"""A tool of its own that deploys, as Kamal or kubectl: it knows its hosts, and we give it one release at a time."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from release_tasks import process
from release_tasks.deploy.hosts import Hosts
from release_tasks.deploy.local import LocalHost
from release_tasks.deploy.machine import Failed, wait_until, write
from release_tasks.deploy.settings import Tool
from release_tasks.errors import Refused
from release_tasks.masks import short

RUN = 1800.0  # seconds that a deployment may take
LOOK = 60.0  # seconds to say what runs


@dataclass
class ToolHost(LocalHost):
    """What a tool deploys to, as one host: on this machine are only the facts of each release, and the journal."""

    tool: Tool = field(kw_only=True)
    root: Path = field(kw_only=True)  # where its configuration is

    def place(self, tag: str, facts: dict[str, Any], tree: BinaryIO, sha256: str) -> None:
        self.code_of(tag).mkdir(parents=True, exist_ok=True)
        write(self.code_of(f"{tag}.json"), json.dumps(facts))

    def record(self) -> tuple[str, str]:
        """Return the newest release whose version, tag, commit or image `running` prints, and no colour."""
        printed = set(re.split(r"[^\w.:/@+-]+", self.say(self.tool.running, LOOK)))
        names = {tag: set(self.names_of(tag).values()) for tag in self.releases()}
        return next((tag for tag, known in names.items() if known & printed), ""), ""

    def give_traffic(self, tag: str) -> None:
        """Let the tool deploy `tag`, or roll back to it where it had the traffic, and see that it runs then."""
        had_it = self.facts(tag).get("by") and self.tool.rollback  # written by its first switch
        names = self.names_of(tag)
        self.say([word.format_map(names) for word in (self.tool.rollback if had_it else self.tool.deploy)], RUN)
        if not wait_until(lambda: self.record()[0] == tag and self.answers(tag), self.wait):
            said = short(self.say(self.tool.running, LOOK))
            raise Failed(f"{tag} was deployed, and does not run within {self.wait:g} s; running: {said}")

    def names_of(self, tag: str) -> dict[str, str]:
        """Return what the placeholders stand for, by which `running` may name the release `tag`."""
        facts = self.facts(tag)
        names = {"version": facts.get("version", ""), "tag": tag, "commit": facts["commit"]}
        return {name: value for name, value in {**names, "image": self.tool.image.format(**names)}.items() if value}

    def say(self, argv: list[str], timeout: float) -> str:
        """Run a command of the tool, and return what it printed. Raises `Failed`."""
        try:
            return process.run(argv, cwd=self.root, timeout=timeout, supervised=True).stdout
        except Refused as no:
            raise Failed(str(no), no.problems[0].hint) from None


class ToolHosts(Hosts):
    """The hosts that only the tool knows."""

    is_here = False

    def __init__(self, name: str, host: ToolHost) -> None:
        super().__init__(name, host)
        self.tool = host.tool

    @property
    def names(self) -> list[str]:
        return self.tool.deploy[:1]
