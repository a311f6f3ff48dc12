"""A rehearsal: the real `inv release` in a throw-away clone, with a bare remote and embedded environments."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from release_tasks import node, process, screen, temporary, versions
from release_tasks.config import REHEARSING
from release_tasks.database import apply
from release_tasks.database.pack import pack_in
from release_tasks.embedded import open_environment, serve
from release_tasks.environments import Environment
from release_tasks.errors import Refused, counted, listed, refuse
from release_tasks.files import point_link, records_folder
from release_tasks.git import Git
from release_tasks.journal import Journal
from release_tasks.release import project_root, settings_of, version_here
from release_tasks.sections import preconditions
from release_tasks.sections.deployment import unpack_commit
from release_tasks.settings import Settings

WHOLE_RELEASE = 1800.0  # seconds
NOX_FOLDER = "RELEASE_NOX"  # a variable for noxfile.py: where the environments of smokes are
ENVIRONMENTS = ("staging", "production")  # where something runs before
COLUMNS = ["section", "outcome", "steps", "changed", "took"]


def rehearse(config: Any, version: str | None, keep: bool) -> None:
    """Release `version` (default: the one in work) in a throw-away clone of HEAD; nothing outside it changes.

    The evidence pack is copied to .release/rehearsals/. Raises `Refused` when the release did not go through.
    """
    os.environ[REHEARSING] = "yes"
    root, settings = project_root(config), settings_of(config)
    os.environ.setdefault(NOX_FOLDER, str(root / ".nox"))
    if "web" not in settings.services:
        what = "A rehearsal runs the application itself, and release.services.web does not say how."
        raise Refused(what, "Set release.services: {web: [...]} in invoke.yaml; it has to listen on PORT.")
    git = Git.open(root, settings.remote)
    version = version or versions.release_after(version_here(root))
    refuse(versions.version_problems(version))
    if dirty := git.dirty_paths():
        screen.say(f"Rehearsing HEAD, without {counted(len(dirty), 'uncommitted change')}: {listed(dirty, 3)}.")
    with screen.busy("Starting the browser"):
        preconditions.try_the_browser(root)  # section 2 does it as well, but after the environments
    if settings.uses_node:
        os.environ.update(node.store(root / settings.folder, records_folder(root)))
    began, folder = time.monotonic(), _new_folder(keep)
    screen.say(f"Rehearsing in {folder}{', which is kept' if keep else ''}")
    clone = stage(git, folder, settings)
    ready = time.monotonic() - began
    command = ["release", "--version", version, "--yes"]
    screen.say(f"\n$ inv {' '.join(command)}")
    argv = [sys.executable, "-m", "invoke", *command]
    released = process.run(argv, cwd=clone, timeout=WHOLE_RELEASE, check=False, supervised=True, show=True)
    seconds, records = time.monotonic() - began, records_folder(clone) / f"v{version}"
    rows = rows_of(Journal(records / "journal.jsonl").records(), ready, seconds)
    screen.table(f"\nRehearsal of {version}, {seconds:.0f} s in all", COLUMNS, rows)
    if released.code:
        what = f"The rehearsal of {version} stopped with exit code {released.code}; see above."
        raise Refused(what, f"inv rehearse --keep   # then, in its clone: inv status --version {version}")
    evidence = records_folder(root) / "rehearsals" / f"v{version}-{datetime.now():%Y%m%d-%H%M%S}"
    shutil.copytree(records / "evidence", evidence)
    screen.say(f"\nThe evidence pack: {evidence.relative_to(root).as_posix()}")


def _new_folder(keep: bool) -> Path:
    """Return a folder that goes with the temporary files of this run, unless it is to be kept."""
    outlasts = temporary.original_variables().get("TMPDIR") if keep else None
    return Path(tempfile.mkdtemp(prefix="rehearsal-", dir=outlasts)).resolve()


def stage(git: Git, folder: Path, settings: Settings) -> Path:
    """Clone HEAD into `folder`, deploy it to staging and production, and return the clone."""
    with screen.busy("Cloning into a throw-away folder"):
        clone = clone_with_bare_remote(git, folder, settings)
    for name in ENVIRONMENTS:
        with screen.busy(f"Deploying HEAD to {name}"), closing(open_environment(name, clone, settings)) as environment:
            deploy_previous(environment, git)
        screen.say(f"  {name}: {environment.origin}")
    return clone


def clone_with_bare_remote(git: Git, folder: Path, settings: Settings) -> Path:
    """Make `folder/remote.git` with HEAD as its main branch and all tags, and return `folder/clone` of it."""
    if git.is_shallow:
        raise Refused("This clone is shallow; a rehearsal needs the whole history.", "git fetch --unshallow")
    remote, clone = folder / "remote.git", folder / "clone"
    git.run("init", "--quiet", "--bare", f"--initial-branch={settings.main}", str(remote))
    git.run("push", "--quiet", str(remote), f"HEAD:refs/heads/{settings.main}", "refs/tags/*:refs/tags/*", timeout=300)
    who = ("--config", "user.name=Rehearsal", "--config", "user.email=rehearsal@example.invalid")
    git.run("clone", "--quiet", "--origin", settings.remote, *who, str(remote), str(clone), timeout=300)
    return clone


def deploy_previous(environment: Environment, git: Git) -> None:
    """Let `environment` run HEAD before the release, so that there is something to back up and to replace."""
    code = environment.folder / "releases" / "before"
    unpack_commit(git, "HEAD", code)
    environment.install(code)
    apply.apply(environment, pack_in(code, git.root, environment.settings), code, "before")
    point_link(environment.current, code)
    serve(environment)


def rows_of(records: list[dict[str, Any]], ready: float, seconds: float) -> list[tuple[str, ...]]:
    """Return the rows of `COLUMNS` from the records of a journal: they explain all of the `seconds`.

    `ready` of these were over when the environments ran. A section's time is that of both passes over it.
    """
    rows: list[tuple[str, ...]] = [("Bringing up the environments", "done", "", "", f"{ready:.1f} s")]
    rest = seconds - ready
    records = [record for record in records if record["event"] in ("checked", "step")]
    for section in dict.fromkeys(record["section"] for record in records):
        own = [record for record in records if record["section"] == section]
        outcomes = [record["state"] for record in own if record["event"] == "step"]
        outcome = "refused" if "refused" in [record["state"] for record in own] else "done" if outcomes else "checked"
        took = sum(record["seconds"] for record in own)
        rows.append((section, outcome, str(len(outcomes)), str(outcomes.count("changed")), f"{took:.1f} s"))
        rest -= took
    return [*rows, ("Beginning and ending", "", "", "", f"{max(rest, 0.0):.1f} s")]
