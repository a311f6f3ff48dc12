"""This machine as a host: its commands find the variables of the environment, and end with us."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from release_tasks import process, temporary
from release_tasks.deploy.host import Host
from release_tasks.deploy.machine import Failed
from release_tasks.deploy.releases import COMMAND
from release_tasks.errors import Refused


@dataclass
class LocalHost(Host):
    """This machine, as a `Host`; `environment` returns the variables of the application for a version."""

    environment: Callable[[str], dict[str, str]] = lambda version: {}

    def run(self, argv: list[str], cwd: Path | None = None, timeout: float = COMMAND, **how: dict[str, str]) -> None:
        about = how.get("variables", {})
        variables = {**self.environment(about.get("APP_VERSION", "")), **about, **temporary.original_variables()}
        try:  # what `restart` starts lives on
            folder, daemons = cwd or self.folder, cwd is None
            process.run(argv, cwd=folder, env=variables, timeout=timeout, supervised=True, daemons=daemons)
        except Refused as no:
            raise Failed(str(no), no.problems[0].hint) from None

    def record(self) -> tuple[str, str]:
        try:
            return super().record()
        except Failed as no:
            raise Refused(str(no), no.hint) from None
