"""Run `inv`, but let one thing go wrong at the change of one step: FAULT="<kind> <step>[ <environment>]".

Kinds: killed before, inside or after the change; or the remote, the database or the disk is gone from there on, or the
web app of the environment answers nothing. The test puts right again what was taken away.
"""

from __future__ import annotations

import inspect
import os
import resource
import signal
import subprocess
import sys
from functools import partialmethod
from pathlib import Path
from typing import Any

import psycopg

sys.path.insert(0, str(Path.cwd()))

from invoke.main import program

from release_tasks import plan, process
from release_tasks.release import Release

KIND, _, STEP = os.environ["FAULT"].partition(" ")
run, claim, advance, command = plan.PlannedStep.run, plan._claim, plan._advance, process.run
at_the_step = changes = False


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def the_remote() -> None:
    remote = Path(os.environ["FAULT_REMOTE"])
    remote.rename(remote.with_suffix(".away"))


def the_database() -> None:
    dsn, name = os.environ["FAULT_SERVER"], os.environ["FAULT_DATABASE"]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"alter database {name} with allow_connections false".encode())
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])


def the_disk() -> None:
    """Let nobody write: programs get an error as on a full disk, and not the signal that this would be by default."""
    subprocess.Popen.__init__ = partialmethod(subprocess.Popen.__init__, restore_signals=False)  # type: ignore[method-assign]
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def the_front() -> None:
    Path(os.environ["LITTLE_FAULTS"], os.environ["FAULT_DATABASE"]).write_text("away")


FAULTS = {"before": kill, "remote": the_remote, "database": the_database, "disk": the_disk, "front": the_front}


def run_step(self: plan.PlannedStep, release: Release, change: bool) -> Any:
    global at_the_step
    at_the_step = change and f"{self.function.__name__} {self.options.get('env', '')}".strip() == STEP
    return run(self, release, change)


def claim_for_a_change(release: Release, env: Any) -> bool:
    held = claim(release, env)
    if held and at_the_step and KIND in FAULTS:
        FAULTS[KIND]()
    return held


def advance_step(running: Any) -> Any:
    global changes
    suspended = inspect.isgenerator(running) and inspect.getgeneratorstate(running) == inspect.GEN_SUSPENDED
    changes = at_the_step and suspended
    result = advance(running)
    if changes and KIND in ("after", "inside"):  # inside: it has run no program
        kill()
    changes = False
    return result


def run_command(*args: Any, **how: Any) -> Any:
    finished = command(*args, **how)
    if changes and KIND == "inside":
        kill()
    return finished


plan.PlannedStep.run, plan._claim = run_step, claim_for_a_change  # type: ignore[method-assign]
plan._advance, process.run = advance_step, run_command
sys.argv[0] = "inv"
program.run()
