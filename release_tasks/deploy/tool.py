"""A tool of its own that deploys, as Kamal or kubectl: it knows its hosts, and we give it one release at a time."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from release_tasks import process
from release_tasks.deploy.host import Host
from release_tasks.deploy.settings import Tool
from release_tasks.errors import Refused
from release_tasks.files import atomic_write
from release_tasks.machine import wait_until
from release_tasks.masks import short

RUN = 1800.0  # seconds that a deployment may take
LOOK = 60.0  # seconds to say what runs


@dataclass
class ToolHost(Host):
    """All that a tool deploys to, as one host: on this machine are only the facts of each release, and the journal."""

    tool: Tool = field(kw_only=True)
    root: Path = field(kw_only=True)  # where its configuration is

    def place(self, tag: str, facts: dict[str, Any], tree: str, sha256: str) -> None:
        self.code_of(tag).mkdir(parents=True, exist_ok=True)
        atomic_write(self.code_of(f"{tag}.json"), json.dumps(facts).encode())

    def record(self) -> tuple[str, str]:
        """Return the newest release whose version, tag, commit or image `running` prints, and no colour."""
        printed = set(re.split(r"[^\w.:/@+-]+", self.say(self.tool.running, LOOK)))
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
        self.say([word.format_map(names) for word in (self.tool.rollback if was_live else self.tool.deploy)], RUN)
        if not wait_until(runs, self.wait):
            said = short(self.say(self.tool.running, LOOK))
            raise Refused(f"{tag} was deployed, and does not run within {self.wait:g} s; running: {said}")

    def names_of(self, tag: str) -> dict[str, str]:
        """Return what the placeholders stand for, by which `running` may name the release `tag`."""
        facts = self.facts(tag)
        names = {"version": facts.get("version", ""), "tag": tag, "commit": facts["commit"]}
        return {name: value for name, value in {**names, "image": self.tool.image.format(**names)}.items() if value}

    def say(self, argv: list[str], timeout: float) -> str:
        """Run a command of the tool, and return what it printed. Raises `Refused`."""
        return process.run(argv, cwd=self.root, timeout=timeout, supervised=True).stdout
