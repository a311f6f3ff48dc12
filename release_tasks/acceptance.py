"""Section 7.2: the release proceeds only if these hold on staging; one gate a bullet of the process."""

from __future__ import annotations

import time
from collections.abc import Callable

from release_tasks import checks
from release_tasks.deployment import deployment_of
from release_tasks.environments import Environment, wait_until
from release_tasks.errors import NotYet, Problem, Refused, refuse
from release_tasks.release import Release, until_live


@until_live
def answer_api_ok(release: Release) -> str:
    """API OK."""
    return hold(release, "health", checks.api_problems)


@until_live
def render_all_views(release: Release) -> str:
    """UI renders all views."""
    return hold(release, "views", checks.view_problems)


@until_live
def have_fresh_data(release: Release) -> str:
    """Sampling and matrices are fresh."""
    return hold(release, "fresh", checks.freshness_problems)


@until_live
def have_no_gaps(release: Release) -> str:
    """No gaps in ingest."""
    return hold(release, "gaps", checks.gap_problems)


@until_live
def log_no_sql_warnings(release: Release) -> str:
    """No SQL warnings in server logs."""
    return hold(release, "log", lambda here: checks.log_problems(here, deployment_of(release)["log_offset"]))


def hold(release: Release, name: str, check: Callable[[Environment], list[Problem]]) -> str:
    """Ask `check` until it sees no problem or the deployment has had its time to settle; then refuse.

    A check that has nothing to look at is refused before anything changes, unless it is waived with a reason.
    """
    settings = release.settings.acceptance
    if name in settings.waived:
        return f"waived: {settings.waived[name]}"
    if not getattr(settings, name, True):
        raise Refused(
            f"release.acceptance.{name} is empty; a check on nothing passes nothing.",
            f"Set it in invoke.yaml, or say why not: release.acceptance.waived.{name}",
        )
    if not release.here.runs(release):
        raise NotYet("after the release runs here")
    age = time.time() - deployment_of(release).get("began_unix", 0.0)
    problems: list[Problem] = []

    def holds() -> bool:
        problems[:] = check(release.here)
        return not problems

    wait_until(holds, time.monotonic() + settings.wait - age, every=1.0)
    release.keep_check(f"acceptance-{name}", where=release.here.name, passed=not problems, problems=problems)
    refuse(problems)
    return checks.told(release.settings, name)
