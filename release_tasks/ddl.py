"""The DDL pack and the environments: applied there, and the tasks `ddl.validate`, `ddl.apply` and `ddl.drift`."""

from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from release_tasks import command_line, screen, versions
from release_tasks.config import project_root, settings_of
from release_tasks.database import apply, pack, programs, proof, psql, restore
from release_tasks.database.pack import DdlFile
from release_tasks.database.server import scratch
from release_tasks.database.structure import CHANGED, MISSING, NEW
from release_tasks.embedded import environment_of
from release_tasks.environments import Environment, shared_problems
from release_tasks.errors import Problem, Refused, counted, listed, refuse
from release_tasks.files import atomic_write
from release_tasks.git import Git
from release_tasks.release import Release
from release_tasks.settings import Settings


def pack_for(where: str, root: Path, settings: Settings) -> list[DdlFile]:
    """Return the pack that the environment `where` should have: on dev the files as they lie here, else HEAD's."""
    if where == "dev":
        return pack.pack_in(root, settings)
    with closing(Git.open(root, settings.remote)) as git:
        return pack.pack_at(git, "HEAD", settings)


def pack_there(env: Environment, git: Git) -> tuple[str, list[DdlFile]]:
    """Return whose pack `env` should have, and the pack. Raises `Refused` where that is not here.

    It is that of the release that was applied last, as the ledger says, for a rollback undoes no DDL; also where that
    was applied as work in progress. Before any, and on dev, it is that of `pack_for`.
    """
    head = pack_for(env.name, git.root, env.settings)
    if env.name == "dev":
        return "the working tree", head
    version, entered = apply.last_applied(env)
    if not versions.is_version(version):
        return "HEAD", head
    is_in_work = versions.is_in_work(version)
    tag = env.settings.tag_of(versions.release_of(version) if is_in_work else version)
    if entered == hashes_of(head):
        return "HEAD" if is_in_work else tag, head
    is_here = git.commit_named(f"refs/tags/{tag}")
    released = pack.pack_at(git, f"refs/tags/{tag}", env.settings) if is_here else head
    if is_in_work and entered != hashes_of(released):
        return "HEAD", head
    if not is_here:
        what = f"{env.name.capitalize()} has the DDL pack of {tag}, which is not here."
        raise Refused(what, f"git fetch --tags   # or where it is no tag: inv ddl.apply --env {env.name}")
    return tag, released


def hashes_of(files: list[DdlFile]) -> set[tuple[str, str]]:
    """Return what the ledger has of a pack: the path and the SHA-256 of each file."""
    return {(file.path, file.sha256) for file in files}


def missing_problems(environment: Environment, files: list[DdlFile]) -> list[Problem]:
    """Return which objects are not there though the ledger has every file that makes them."""
    where, missing = environment.name, apply.missing_in(environment, files)
    yes = " --yes" if where == "production" else ""
    hint = f"inv ddl.apply --env {where} --again{yes}   # inv ddl.drift --env {where} names all differences"
    return [Problem(f"All files are in the ledger of {where}, but {each}.", hint) for each in missing]


def proof_of(
    files: list[DdlFile], last: list[DdlFile], root: Path, settings: Settings, dsn: str = "", remembered: bool = True
) -> proof.Proof:
    """Return the proof of `files` over the pack `last` and over the rows of `dsn`; a good one is remembered."""
    major = programs.server_major(dsn) if dsn else None
    key = [programs.major_of(programs.find_bin(major)), len(files), settings.ddl.model_dump_json()]
    kinds = ["rows"] if dsn else ["rows", "proof"]
    paths = [proof.cache(kind, [*files, *last], root, settings, *key) for kind in kinds]
    for path in paths if remembered else ():
        if path.exists():
            return proof.Proof.model_validate_json(path.read_bytes())
    copy = partial(restore.copy, dsn, settings=settings.backup) if dsn else None
    with screen.busy("Proving the DDL pack"), scratch(root, major) as running:
        proved = proof.prove(files, last, settings, running, copy)
    if not proved.problems:
        atomic_write(paths[-1], proved.model_dump_json().encode())
    return proved


# The tasks


def validate(config: Any, as_json: bool) -> None:
    """Prove the DDL pack as it lies here, over that of the last released version. Raises `Refused`."""
    root, settings = project_root(config), settings_of(config)
    with closing(Release(versions.version_here(root), root, settings)) as release:
        files = pack.pack_in(root, settings)
        problems = pack.pack_problems(files, settings.ddl)
        since = None if problems else release.last()
        last = release.pack_of(since)
    proved = proof.Proof(problems=problems) if problems else proof_of(files, last, root, settings, remembered=False)
    if as_json:
        screen.as_json({"over": since, **proved.model_dump()})
    elif proved.files:
        screen.say(f"{proved}{f' ({since})' if since else '; there is no release before, so no upgrade to prove'}.")
    done = [f"{path} {each}." for path, does in proved.files.items() for each in does]
    for line in (*done, *proved.notes, *(f"{what} Excepted: {reason}" for what, reason in proved.excepted.items())):
        screen.say(f"  {line}")
    refuse(proved.problems)
    screen.say("Proved.", "bold green")


def report_apply(config: Any, where: str, again: bool, yes: bool) -> None:
    """Apply the pack for `where`, unless its ledger has it; a dry run prints the script. Raises `Refused`."""
    root, settings = project_root(config), settings_of(config)
    files, version = pack_for(where, root, settings), versions.version_here(root)
    refuse(pack.pack_problems(files, settings.ddl))
    here = files if where == "dev" else pack.pack_in(root, settings)  # which a runner applies
    if others := {file.path for file in {*files} ^ {*here}}:
        what = f"{where} gets what is committed; here this is not: {listed(sorted(others))}."
        raise Refused(what, f"git status {settings.ddl.folder}")
    refuse(shared_problems(root, settings)[0])
    with environment_of(config, where) as environment:
        missing, (last, _) = apply.unapplied(environment, files), apply.last_applied(environment)
        entered = version if missing or not last else last  # what makes nothing new is still that version's
        is_older = versions.is_version(version) and versions.is_later_release(last, version)
        if where != "dev" and is_older and not versions.opens_a_cycle_after(version, last):
            what = f"{where.capitalize()} has the DDL pack of {last}; the one here is that of {version}, an older one."
            raise Refused(what, f"git switch --detach {settings.tag_of(last)}   # whose pack it has")
        if not missing and not again:
            refuse(missing_problems(environment, files))
            screen.say(f"The ledger of {where} has all: {counted(len(files), 'file')}. To apply again: --again")
        elif config.run.dry:
            if not settings.ddl.command:
                screen.say(psql.script(files, settings.ddl, entered))
            screen.say(f"-- Would apply {counted(len(files), 'file')} to {where}; {len(missing)} new or changed.")
        elif where == "production" and not yes:
            what = f"Production lacks {len(missing)} of {counted(len(files), 'file')}; this would take no backup first."
            raise Refused(what, f"{command_line.again(yes=True)}   # or inv deploy.production, which takes one first")
        else:
            environment.lock.hold(version)
            environment.install(root)
            with screen.busy(f"Applying the DDL pack to {where}"):
                warnings = apply.apply(environment, files, root, entered)
            screen.say("\n".join([*(file.path for file in files), *warnings]))
            screen.say(f"Applied {counted(len(files), 'file')} to {where}.")


def report_drift(config: Any, where: str, as_json: bool) -> None:
    """Name what differs in `where` from the pack for it. Raises `Refused` with what has no reason in the settings."""
    root, settings = project_root(config), settings_of(config)
    with (
        environment_of(config, where) as env,
        closing(Git.open(root, settings.remote)) as git,
        screen.busy(f"Comparing {where} with a scratch server"),
    ):
        whose, files = pack_there(env, git)
        server = programs.server_major(env.dsn, where)
        found = [(each, settings.ddl.excepts(str(each))) for each in apply.drift(env, files)]
    ours = programs.major_of(programs.find_bin(server))
    if as_json:
        objects = [{**asdict(each), "excepted": reason} for each, reason in found]
        screen.as_json({"server": server, "scratch": ours, "pack": whose, "drift": objects})
    if not found:
        screen.say(f"No drift: {where} is what the pack of {whose} makes.", "bold green")
        return
    screen.say(f"Compared with the pack of {whose}.")
    if server != ours:
        screen.say(f"{where} is PostgreSQL {server}, the scratch server {ours}: some objects may only look different.")
    for each, reason in found:
        if reason:
            screen.say(f"{where}: {each}. Excepted: {reason}")
    apply_it = f"inv ddl.apply --env {where} --again{' --yes' if where == 'production' else ''}"
    if files != pack_for(where, root, settings):
        apply_it = f"git switch --detach {whose} && {apply_it}"
    by_hand = "Bring it into the pack, give a reason in release.ddl.exceptions, or undo it by hand."
    hints = {NEW: by_hand, CHANGED: f"{by_hand}\n{apply_it}   # or this", MISSING: apply_it}
    refuse(Problem(f"{where}: {each}.", hints[each.how]) for each, reason in found if not reason)
