"""Sections 7.1 and 8: the tag's code put in place, the DDL pack applied, the session stamped, the release run.

deploy/local.py says what a deployment leaves in the world for later looks.
"""

import json
import shlex
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from release_tasks import ddl, smokes
from release_tasks.checks.logs import positions
from release_tasks.database import apply
from release_tasks.database.environment_lock import pooler_problems
from release_tasks.database.pack import DdlFile
from release_tasks.deploy import local
from release_tasks.environments import Environment
from release_tasks.errors import Problem, refuse, require
from release_tasks.files import atomic_write, emptied, readable_by_all
from release_tasks.git import Git
from release_tasks.release import Release, Step, until_live

UNPACK = 120.0  # seconds to unpack the code


@until_live
def reach_the_environment(release: Release, env: Environment) -> str:
    """The environment can be reached and written to, and has no later release."""
    with env.connect() as connection:
        server = connection.info.server_version // 10000
        refuse([*apply.server_problems(connection, env.name), *pooler_problems(connection, env.name)])
    refuse(env.later_problems(release.version))
    env.variables(release.version)
    return f"{'embedded ' if env.is_embedded else ''}PostgreSQL {server}, {env.origin}"


@until_live
def put_the_code_in_place(release: Release, env: Environment) -> Step:
    """Put the tag's code in place."""
    commit, code = require(release.published, "after the tag is pushed"), local.folder_of(env, release.tag)
    if local.facts_of(env, release.tag)["commit"] == commit and code.exists():
        return f"{commit:.9}"
    yield f"the tree of {release.tag} → {shown(code, release)}"
    with env.connect() as connection:  # its clock is the one that stamps and rows have
        (now,) = connection.execute("select now()").fetchall()[0]
    logs = positions([str(env.log or ""), *env.settings.acceptance.logs], env.root)
    about = {"commit": commit, "began": now.isoformat(), "began_unix": time.time(), "positions": logs}
    unpack_commit(release.git, commit, code)
    with readable_by_all():
        env.install(code)
    atomic_write(local.folder_of(env, f"{release.tag}.json"), json.dumps(about).encode())


@readable_by_all()
def unpack_commit(git: Git, commit: str, code: Path) -> None:
    """Write the whole tree of `commit` to the new folder `code`; the working tree has no part in it.

    With an index of its own, not `git archive`, which leaves out and rewrites files by `export-…` attributes.
    """
    to = ["-c", "core.autocrlf=false", "-c", "core.sparseCheckout=false", f"--work-tree={emptied(code).resolve()}"]
    with TemporaryDirectory() as folder:
        git.run(*to, "read-tree", "--reset", "-u", commit, timeout=UNPACK, GIT_INDEX_FILE=f"{folder}/index")


def submodule_problems(release: Release) -> Iterator[Problem]:
    """Yield which submodules, but the docs, would be put in place as empty folders."""
    for line in release.git.look("ls-tree", "-r", "-z", release.tip).stdout.split("\0"):
        path = line.partition("\t")[2]
        if line.startswith("160000 ") and path != release.settings.docs_pack.folder:
            what = f"{path}/ is a submodule, and would be deployed as an empty folder; expected its files right here."
            yield Problem(what, f"git submodule status {shlex.quote(path)}   # then bring them in by git subtree")


def placed(release: Release, env: Environment) -> Path:
    """Return the folder of the code that is in place; raises `NotYet` before it is."""
    commit = release.published
    require(commit and local.facts_of(env, release.tag)["commit"] == commit, "after the code is in place")
    return local.folder_of(env, release.tag)


@until_live
def apply_the_ddl_pack(release: Release, env: Environment) -> Step:
    """Apply the DDL pack."""
    command, pack = " ".join(release.settings.ddl.command) or "psql", release.pack
    missing = unapplied_files(release, env)
    if not missing:
        if not release.only_checks:
            release.only_in_a_run()  # a scratch server says what the files make
            refuse(ddl.missing_problems(env, pack))
        return f"all {len(pack)} files are in the ledger"
    folder = release.root if env.name == "dev" else placed(release, env)
    yield f"{command}: {len(pack)} files, {len(missing)} of them new or changed"
    if env.is_embedded:
        env.install(folder)  # on dev nothing has done it yet, and a runner may need packages
    warnings = apply.apply(env, pack, folder, release.version)
    release.journal.record("ddl", where=env.name, files=[file.path for file in pack], warnings=warnings)


def unapplied_files(release: Release, env: Environment) -> list[DdlFile]:
    """Return the files of this release's pack that the ledger of `env` does not have as they are."""
    with env.connect() as connection:
        return apply.unapplied(connection, release.pack, release.settings.ddl)


@until_live
def run_the_release(release: Release, env: Environment) -> Step:
    """Run it: `current` names the release, web app and jobs start from there."""
    if release.runs_on(env):
        return env.origin
    code = placed(release, env)
    restart = f"; {' '.join(env.restart)}" if env.restart else ""
    yield f"current → {shown(code, release)}{restart}"
    local.flip(env, release.tag)
    local.prune(env)


@until_live
def pass_the_smokes(release: Release, env: Environment) -> str:
    """The smokes pass."""
    require(release.runs_on(env), "after the release runs here")
    return smokes.pass_all(release, env)


@until_live
def stamp_the_session(release: Release, env: Environment) -> Step:
    """Stamp the ops session."""
    stamp = release.settings.stamp
    if not stamp.command:
        return "no stamp.command is set"
    if stamped := stamped_at(release, env):
        return f"stamped at {stamped}"
    placed(release, env)
    yield f"APP_NAME={release.settings.app} APP_VERSION={release.version} {' '.join(stamp.command)}"
    local.stamp(env, release.tag)


def stamped_at(release: Release, env: Environment) -> str | None:
    """Return when this deployment was stamped; None before, and where another version was stamped since."""
    deployment, stamp = local.facts_of(env, release.tag), env.last_stamp()
    if not (deployment["commit"] and stamp):
        return None
    version, at = stamp
    is_ours = version == release.version and at >= datetime.fromisoformat(deployment["began"])
    return at.isoformat(timespec="seconds") if is_ours else None


def shown(path: Path, release: Release) -> str:
    """Return `path` from the root where it is inside, with forward slashes."""
    return (path.relative_to(release.root) if path.is_relative_to(release.root) else path).as_posix()
