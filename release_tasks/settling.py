"""What was just started gets its time: the web app to answer, the jobs to bring the data up to the clock."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from release_tasks.asking import place_of
from release_tasks.checks.place import Asked
from release_tasks.checks.series import look_at_fresh
from release_tasks.checks.verdict import Unknown, Wrong
from release_tasks.environments import Environment
from release_tasks.errors import Refused
from release_tasks.masks import mask
from release_tasks.processes.shell import wait_until

if TYPE_CHECKING:
    from release_tasks.kinds import Fresh

SETTLE = 90.0  # seconds for a fresh environment to answer
CATCH_UP = 15.0  # seconds for its jobs to bring the data up to date


def settle(environment: Environment) -> None:
    """Wait until the web app of `environment` answers, then for its jobs to catch up.

    Raises `Refused` with the web app's last words when it does not answer.
    """
    deadline = time.monotonic() + SETTLE
    if not wait_until(lambda: bool(environment.running_version()), deadline):
        log = environment.folder / "web.log"
        said = mask("\n".join(log.read_text(errors="replace").splitlines()[-5:])) if log.exists() else ""
        raise Refused(
            f"The web app of {environment.name} does not answer at {environment.origin}: {said}", f"cat {log}"
        )
    catch_up(environment)


def catch_up(environment: Environment) -> None:
    """Give the jobs of `environment` time to bring the data up to the clock; stale data is for checks to find."""
    acceptance = environment.settings.acceptance
    place = place_of(environment, "", environment.root, code=environment.root)

    def is_fresh(check: Fresh) -> bool:
        try:
            return not look_at_fresh(check, place, {}, Asked("", "", "", check))
        except Wrong:
            return False

    deadline = time.monotonic() + min(CATCH_UP, acceptance.wait)
    with suppress(Unknown):  # a query that fails will not get better, and each time leaves an ERROR in the server log
        wait_until(lambda: all(map(is_fresh, acceptance.fresh)), deadline)
