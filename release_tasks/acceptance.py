"""Section 7.2: the release goes on only if its conditions hold; the tests in `acceptance/` are named like them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from release_tasks import screen
from release_tasks.checks import document, runner
from release_tasks.checks.runner import Result
from release_tasks.database.pack import pack_at
from release_tasks.deployment import deployment_of, stamped_at
from release_tasks.environments import Environment, in_turn
from release_tasks.errors import NotYet, Problem, Refused, refuse
from release_tasks.files import emptied, records_folder
from release_tasks.processes.links import read_link
from release_tasks.release import Release, until_live

AGAIN = "to check again; then the same command goes on, and nothing is deployed again"


@until_live
def meet_the_conditions(release: Release) -> str:
    """All conditions of section 7.2 hold."""
    here = release.here
    found = acceptance_on(release, here)
    refuse(runner.problems_of(found.results, here.name, "condition", f"inv accept --env {here.name}   # {AGAIN}"))
    took = [f"{each.name} {each.seconds:.1f} s" for each in found.results if each.outcome == runner.PASSED]
    return "; ".join([*found.waived, *took])


@dataclass(frozen=True)
class Acceptance:
    """What section 7.2 came to: of which commit, when, and each result."""

    commit: str
    at: str
    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        return bool(self.results) and all(each.is_pass for each in self.results)

    @property
    def confirmed_by(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What a person's confirmation is about: the commit, and each condition with its outcome."""
        return self.commit, tuple((each.name, each.outcome) for each in self.results)

    @property
    def waived(self) -> list[str]:
        return [f"{each.name} (waived: {each.message})" for each in self.results if each.outcome == runner.WAIVED]

    def __str__(self) -> str:
        passed = sum(each.outcome == runner.PASSED for each in self.results)
        checks = len(self.results) - len(self.waived)
        text = f"{passed} of {checks} checks of section 7.2 pass at {self.at}, on commit {self.commit:.9}"
        return "; ".join([text, *self.waived])


def acceptance_on(release: Release, here: Environment) -> Acceptance:
    """Return what section 7.2 says of the release that runs `here`; checked once until something changes."""
    if release.acceptance is None:
        if not here.runs(release):
            raise NotYet(f"after the release runs on {here.name}")
        if release.settings.stamp.command and not stamped_at(release, here):
            raise NotYet(f"after the session is stamped on {here.name}")
        evidence, commit = release.kept(f"acceptance-{here.name}"), deployment_of(release, here)["commit"]
        results = check(release, here, evidence)
        at = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        release.acceptance = Acceptance(commit or "", at, tuple(results))
        release.keep_results(f"acceptance-{here.name}", here.name, results, commit=commit, at=at)
    found: Acceptance = release.acceptance
    return found


def check(release: Release, here: Environment, evidence: Path, wait: float | None = None, **facts: Any) -> list[Result]:
    """Check the conditions `here`, in the document's order, and before and after them that the release runs.

    Each may wait until the deployment has had its time to settle, or `wait` seconds from now. Raises `Refused`.
    """
    settings, deployment = release.settings, deployment_of(release, here)
    settled_by = deployment.get("began_unix", 0.0) + settings.acceptance.wait if wait is None else time.time() + wait
    if commit := deployment["commit"]:
        facts |= {
            "commit": commit,
            "deployed_at": deployment["began"],
            "log_positions": deployment.get("positions", {}),
            "session_log": settings.stamp.log if settings.stamp.command else "",
            "session_flags": settings.stamp.flags,
            "ledger": settings.ddl.ledger,
            "pack": {file.path: file.sha256 for file in pack_at(release.git, commit, settings)},
        }
    target = runner.target_of(here, release.version, settled_by=settled_by, **facts)
    code = Path(target.code)
    refuse(document.condition_problems(code))
    files = sorted((code / "acceptance").glob("test_*.py"))
    results = runner.run(target, [runner.THE_RELEASE, *files] if not target.only_queries else files, evidence)
    order = {f"test_{document.slug(item)}": item for item in document.conditions(code)}
    named = [replace(each, name=_named(each.name, order)) for each in results]
    if target.only_queries:
        return named
    ran = {each.name.partition("[")[0] for each in results}
    missing = [item for test, item in order.items() if test not in ran]
    return [*named, *(Result(item, runner.INCONCLUSIVE, "Its test did not run.") for item in missing)]


def _named(test: str, conditions: dict[str, str]) -> str:
    """Return the condition that `test` is named like, with its parameter; a test of no condition in its own words."""
    name, bracket, parameter = test.partition("[")
    own = conditions.get(name, name.removeprefix("test_").replace("_", " "))
    return f"{own} {bracket}{parameter}" if parameter else own


def problems_on_dev(release: Release, dev: Environment) -> list[Problem]:
    """Return what section 7.2 lacks, and which of its queries cannot be run, as far as dev can tell.

    What the queries answer on dev is no matter.
    """
    results = check(release, dev, release.kept("acceptance-dev"), wait=0.0, only_queries=True)
    unclear = [each for each in results if each.outcome == runner.INCONCLUSIVE]
    return runner.problems_of(unclear, "dev", "condition", "inv accept --env dev")


def report(config: Any, where: str, version: str | None, watch: str | None, as_json: bool) -> None:
    """Check section 7.2 in the environment `where`, outside a release, and show a table.

    With `watch` each condition may take that many seconds to hold. Raises `Refused` when one does not.
    """
    from release_tasks.release import project_root, settings_of, version_here

    screen.for_machines(as_json)
    settings, root, seconds = settings_of(config), project_root(config), _seconds(watch)
    with in_turn(where, root, settings):
        release = Release(version or version_here(root), root, settings)
        try:
            release.options, release.only_looks = {"where": where}, True
            if version is None and where != "dev" and (code := read_link(release.here.current)):
                release.version = code.name.removeprefix("v")
            evidence = emptied(records_folder(root) / "checks" / f"acceptance-{where}")
            title = f"Section 7.2 on {where}, version {release.version}"
            with screen.busy(f"Checking {title}"):
                results = check(release, release.here, evidence, seconds)
        finally:
            release.close()
    runner.keep(evidence, results)
    runner.show(title, results, as_json)
    refuse(runner.problems_of(results, where, "condition", f"inv accept --env {where}"))


def _seconds(watch: str | None) -> float | None:
    """Return the seconds that `--watch` names, None without it. Raises `Refused`."""
    if watch is None:
        return None
    try:
        if 0 < float(watch) < float("inf"):
            return float(watch)
    except ValueError:
        pass
    raise Refused(f"--watch says {watch!r}; expected seconds.", "inv accept --watch 120")
