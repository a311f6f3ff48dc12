"""The smokes: commands that pass only with exit code 0 *and* their mark in what they print."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release_tasks import shell
from release_tasks.errors import Problem, Refused, refuse

if TYPE_CHECKING:
    from release_tasks.environments import Environment
    from release_tasks.release import Release
    from release_tasks.settings import Smoke


@dataclass(frozen=True)
class Result:
    """What one smoke said: empty `problem` when it passed; `seen` is its last line."""

    name: str
    where: str
    seconds: float
    seen: str
    problem: str = ""


def run_smoke(name: str, smoke: Smoke, where: str, code: Path, variables: Mapping[str, str]) -> Result:
    """Run `smoke` in the folder `code`; it fails on a non-zero exit, on its deadline, or without its mark."""
    began = time.monotonic()
    try:
        ran = shell.run(smoke.command, cwd=code, env=variables, timeout=smoke.timeout, check=False, leash=True)
    except Refused as no:
        return Result(name, where, round(time.monotonic() - began, 2), "", str(no))
    last = ran.tail(1) or "nothing"
    problem = ""
    if ran.code:
        problem = f"exit code {ran.code}; it said: {ran.tail(5) or 'nothing'}"
    elif not re.search(smoke.must_print, ran.output):
        problem = f"exit code 0, but it did not print {smoke.must_print!r}; it said: {last}"
    return Result(name, where, round(ran.seconds, 2), last, problem)


def pass_all(
    release: Release, environment: Environment, code: Path | None = None, variables: Mapping[str, str] | None = None
) -> str:
    """Run all smokes in `environment`, keep their results as evidence, and return a few words.

    Raises `Refused` with every smoke that failed, or when there are none.
    """
    settings = release.settings
    environment.connect().close()
    if not settings.smokes:
        raise Refused("No smokes are set; a release that nothing checks is none.", "Set release.smokes in invoke.yaml.")
    folder = (code or environment.code) / settings.folder
    variables = variables or environment.variables(release.version)
    ran = [run_smoke(name, smoke, environment.name, folder, variables) for name, smoke in settings.smokes.items()]
    release.keep_check(f"smokes-{environment.name}", where=environment.name, results=ran)
    refuse(smoke_problems(ran))
    return ", ".join(f"{result.name} {result.seconds:.1f} s" for result in ran)


def smoke_problems(ran: list[Result]) -> list[Problem]:
    """Return one problem for each smoke that failed."""
    return [
        Problem(
            f"The smoke {result.name} fails on {result.where}: {result.problem}",
            f"inv smokes --env {result.where} --only {result.name}",
        )
        for result in ran
        if result.problem
    ]


def report(config: Any, where: str, only: str | None) -> None:
    """Run the smokes (or the one named `only`) in the environment `where`, outside a release, and show a table.

    Raises `Refused` when one fails.
    """
    from release_tasks import screen
    from release_tasks.release import environment_of, settings_of, version_here

    settings = settings_of(config)
    wanted = {name: smoke for name, smoke in settings.smokes.items() if only in (None, name)}
    if not wanted:
        raise Refused(
            f"There is no smoke {only!r}; expected one of {', '.join(settings.smokes) or 'none'}.", "inv smokes"
        )
    with environment_of(config, where) as environment:
        variables = environment.variables(version_here(environment.root))
        folder = environment.code / settings.folder
        ran = []
        for name, smoke in wanted.items():
            with screen.busy(f"{name} on {where}"):
                ran.append(run_smoke(name, smoke, where, folder, variables))
    rows = [
        (result.name, "failed" if result.problem else "passed", f"{result.seconds:.1f} s", result.seen)
        for result in ran
    ]
    screen.table(f"Smokes on {where}", ["smoke", "verdict", "took", "last line"], rows)
    refuse(smoke_problems(ran))
