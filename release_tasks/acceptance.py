"""Section 7.2: the release proceeds only if these hold on staging; one gate a bullet of the process."""

from __future__ import annotations

import time
from collections.abc import Callable

from release_tasks import checks
from release_tasks.deployment import deployment_of, until_live
from release_tasks.environments import Environment, wait_until
from release_tasks.errors import NotYet, Problem, refuse
from release_tasks.release import Release


@until_live
def answer_api_ok(release: Release) -> str:
    """API OK."""
    hold(release, checks.api_problems)
    return release.settings.acceptance.health


@until_live
def render_all_views(release: Release) -> str:
    """UI renders all views."""
    hold(release, checks.view_problems)
    return " ".join(release.settings.acceptance.views)


@until_live
def have_fresh_data(release: Release) -> str:
    """Sampling and matrices are fresh."""
    hold(release, checks.freshness_problems)
    return ", ".join(fresh.table for fresh in release.settings.acceptance.fresh)


@until_live
def have_no_gaps(release: Release) -> str:
    """No gaps in ingest."""
    hold(release, checks.gap_problems)
    return ", ".join(f"{series.table} over {series.window:g} s" for series in release.settings.acceptance.gaps)


@until_live
def log_no_sql_warnings(release: Release) -> str:
    """No SQL warnings in server logs."""

    def log_problems(here: Environment) -> list[Problem]:
        return checks.log_problems(here, deployment_of(release)["log_offset"])

    hold(release, log_problems)
    reasons = release.settings.acceptance.log_exceptions.values()
    return "; ".join(["since the deployment began", *(f"but for: {reason}" for reason in reasons)])


def hold(release: Release, check: Callable[[Environment], list[Problem]]) -> None:
    """Ask `check` until it sees no problem, or until the deployment has had its time to settle; then refuse."""
    if not release.here.runs(release):
        raise NotYet("after the release runs here")
    age = time.time() - deployment_of(release).get("began_unix", 0.0)
    deadline = time.monotonic() + release.settings.acceptance.wait - age
    problems: list[Problem] = []

    def holds() -> bool:
        problems[:] = check(release.here)
        return not problems

    wait_until(holds, deadline, every=1.0)
    name = check.__name__.removesuffix("_problems")
    release.keep_check(f"acceptance-{name}", where=release.here.name, passed=not problems, problems=problems)
    refuse(problems)
