"""The DDL pack and the environments: applied there, and the tasks `ddl.validate`, `ddl.apply` and `ddl.drift`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from release_tasks import screen, versions
from release_tasks.database import apply, drift, pack, programs, proof, psql, scratch
from release_tasks.database.pack import DdlFile
from release_tasks.database.structure import DIFFERS, EXTRA, Difference
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.files import records_folder, write_aside
from release_tasks.git import Git, listed

if TYPE_CHECKING:
    from release_tasks.environments import Environment
    from release_tasks.settings import Settings


def pack_for(where: str, root: Path, settings: Settings) -> list[DdlFile]:
    """Return the pack that the environment `where` should have: on dev the files as they lie here, else HEAD's."""
    if where == "dev":
        return pack.pack_in(root, root, settings)
    git = Git.open(root, settings.remote)
    try:
        return pack.pack_at(git, "HEAD", settings)
    finally:
        git.close()


def apply_to(environment: Environment, files: list[DdlFile], code: Path, version: str) -> list[psql.Applied]:
    """Apply the pack `files` to `environment` with what is in the folder `code`. Raises `Refused`."""
    settings, expected = environment.settings, None
    target = target_of(environment, code, version)
    if settings.ddl.command:
        major = programs.server_major(environment.dsn)
        expected = drift.made_by(files, environment.root, settings, major)
    return apply.apply(target, files, settings.ddl, version, expected)


def target_of(environment: Environment, code: Path, version: str) -> apply.Target:
    """Return what applying needs to know of `environment`."""
    folder = code / environment.settings.folder
    return apply.Target(environment.name, environment.dsn, folder, environment.variables(version))


# inv ddl.validate, and section 2


def proof_of(
    files: list[DdlFile],
    last: list[DdlFile],
    root: Path,
    settings: Settings,
    real: Callable[[], AbstractContextManager[str]] | None = None,
    remembered: bool = True,
) -> proof.Proof:
    """Return the proof of the pack `files` in `root` over `last` (empty: there is none).

    `real` opens a database with real rows and yields its DSN, "" where there is none. A proof without problems is
    remembered for exactly these files.
    """
    key = [programs.major_of(programs.find_bin()), len(files), settings.ddl.model_dump_json()]
    with_rows, without = (drift.cache(kind, [*files, *last], root, settings, *key) for kind in ("rows", "proof"))
    path = next((each for each in [with_rows, *([] if real else [without])] if remembered and each.exists()), None)
    if path:
        found = json.loads(path.read_text(encoding="utf-8"))
        return proof.Proof(**found)
    runner = _runner(files, root, settings) if settings.ddl.command else None
    with (
        screen.busy("Proving the DDL pack"),
        real() if real else nullcontext("") as dsn,
        scratch.server(records_folder(root) / "scratch", programs.server_major(dsn) if dsn else None) as running,
    ):
        proved = proof.prove(files, last, settings.ddl, settings.app, running, runner, dsn)
    if real and not dsn:
        proved.told.append("Not proved over real rows: dev has no database yet.")
    if not proved.problems:
        write_aside(with_rows if dsn else without, json.dumps(asdict(proved)).encode())
    return proved


def _runner(files: list[DdlFile], root: Path, settings: Settings) -> Any:
    """Return what applies the pack by the application's own runner to a database of a scratch server."""
    from release_tasks.environments import Environment

    def run(dsn: str, log: Path) -> None:
        place = Environment("scratch", settings, root, dsn, "", root, log)
        place.install(root)
        variables = {**place.variables(""), "PGOPTIONS": psql.options(dsn, settings.ddl)}
        apply.run_command(files, settings.ddl, root / settings.folder, variables)

    return run


def validate(config: Any, as_json: bool) -> None:
    """Prove the DDL pack as it lies here, over that of the last released version; show a table. Raises `Refused`."""
    from release_tasks.release import project_root, settings_of

    screen.for_machines(as_json)
    root, settings = project_root(config), settings_of(config)
    files, (since, last) = pack.pack_in(root, root, settings), _last_released(root, settings)
    if problems := pack.pack_problems(files, settings.ddl):
        proved = proof.Proof(problems=problems)
    else:
        proved = proof_of(files, last, root, settings, remembered=False)
        proved.told += pack.order_disagreements([file.name for file in files], root, settings)
    if as_json:
        screen.as_json({"over": since, **asdict(proved)})
    else:
        _show_proof(proved, since)
    refuse(proved.problems)


def _last_released(root: Path, settings: Settings) -> tuple[str | None, list[DdlFile]]:
    git = Git.open(root, settings.remote)
    try:
        found = [version for tag in git.tagged_on("HEAD") if (version := versions.version_named(tag))]
        newest = versions.highest(found)
        return (f"v{newest}", pack.pack_at(git, f"refs/tags/v{newest}", settings)) if newest else (None, [])
    finally:
        git.close()


def _show_proof(proved: proof.Proof, since: str | None) -> None:
    cells = [(PurePosixPath(path).name, "; ".join(does)) for path, does in proved.files.items()]
    screen.table("The DDL pack", ["file", "to what is there"], cells)
    screen.say(f"\n{proved}")
    screen.say(f"Over {since}." if since else "No release came before: there is no upgrade to prove.")
    for line in proved.told:
        screen.say(f"  {line}")
    for line, reason in proved.excepted.items():
        screen.say(f"  {line} Excepted: {reason}")
    if not proved.problems:
        screen.say("Proved.", "bold green")


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.0f} ms"


# inv ddl.apply


def report_apply(config: Any, where: str, again: bool, yes: bool) -> None:
    """Apply the pack of this checkout in the environment `where`, unless its ledger has it; show a table.

    Dev gets the files as they lie here, the others what is committed in HEAD. A dry run prints the script. Raises
    `Refused`.
    """
    from release_tasks.environments import shared_problems
    from release_tasks.release import environment_of, project_root, settings_of, version_here

    root, settings = project_root(config), settings_of(config)
    files, version = pack_for(where, root, settings), version_here(root)
    refuse([*pack.pack_problems(files, settings.ddl), *_uncommitted(where, root, settings)])
    refuse(shared_problems(root, settings)[0])
    with environment_of(config, where) as environment:
        with environment.connect() as connection:
            missing = apply.unapplied(connection, files, settings.ddl)
        if not missing and not again:
            refuse(missing_problems(environment, files))
            screen.say(f"All {len(files)} files are in the ledger of {where}. To apply them again: --again")
            return
        if config.run.dry:
            if not settings.ddl.command:
                screen.say(psql.script(files, settings.ddl, version))
            screen.say(f"-- Would apply {len(files)} files to {where}; {len(missing)} of them are new or changed.")
            return
        if where == "production" and not yes:
            raise Refused(
                f"Production has {len(missing)} of {len(files)} files to get, outside a release and without a backup.",
                "inv ddl.apply --env production --yes   # or inv deploy.production, which takes a backup first",
            )
        environment.install(root)
        began = time.monotonic()
        with screen.busy(f"Applying the DDL pack to {where}"):
            applied = apply_to(environment, files, root, version)
    _show_applied(applied, f"Applied {len(files)} files to {where} in {time.monotonic() - began:.1f} s")


def missing_problems(environment: Environment, files: list[DdlFile]) -> list[Problem]:
    """Return which objects are not there though the ledger has every file that makes them."""
    settings, where = environment.settings, environment.name
    found = drift.drift_of(environment.dsn, where, files, environment.root, settings)
    hint = f"inv ddl.apply --env {where} --again   # inv ddl.drift --env {where} names all differences"
    missing = [each for each in found if each.how == "missing" and not settings.ddl.excepts(str(each))]
    return [Problem(f"All files are in the ledger of {where}, but {each}.", hint) for each in missing]


def _uncommitted(where: str, root: Path, settings: Settings) -> list[Problem]:
    """Return that the pack here is not the committed one: the application's runner would apply what lies here."""
    if where == "dev":
        return []
    git, folder = Git.open(root, settings.remote), PurePosixPath(settings.ddl.folder)
    paths = [PurePosixPath(path) for path in git.dirty_paths()]
    found = [str(path) for path in paths if path.parent == folder and path.suffix == ".sql"]
    what = f"{where} gets what is committed; here this is not: {listed(found)}."
    return [Problem(what, f"git status {folder}")] if found else []


def _show_applied(applied: Sequence[psql.Applied], title: str) -> None:
    """Show messages by number, warnings also in full; all of a release's messages are in its journal."""
    rows = [
        (
            each.file.name,
            _milliseconds(each.seconds),
            each.notices,
            len(each.warnings),
        )
        for each in applied
    ]
    screen.table(title, ["file", "took", "notices", "warnings"], rows)
    for each in applied:
        for warning in each.warnings:
            screen.say(f"  {each.file.name}: {warning}", "yellow")
        if each.file.own_transactions:
            screen.say(f"  {each.file.name} holds its own transactions: what it commits stays, whatever fails later")


# inv ddl.drift


def report_drift(config: Any, where: str, as_json: bool) -> None:
    """Show how the database of `where` differs from the pack it should have: HEAD's, on dev the files here.

    Raises `Refused` when an object differs, is missing, or was made by no file, without an exception in the settings.
    """
    from release_tasks.release import environment_of, project_root, settings_of

    screen.for_machines(as_json)
    root, settings = project_root(config), settings_of(config)
    files = pack_for(where, root, settings)
    with (
        environment_of(config, where) as environment,
        screen.busy(f"Comparing {where} with a scratch server"),
    ):
        there = programs.server_major(environment.dsn, where)
        found = drift.drift_of(environment.dsn, where, files, root, settings)
    here = programs.major_of(programs.find_bin(there))
    rows = [(each, settings.ddl.excepts(str(each))) for each in found]
    if as_json:
        objects = [{**asdict(each), "excepted": reason} for each, reason in rows]
        screen.as_json({"server": there, "scratch": here, "drift": objects})
    elif rows:
        cells = [(each.name, each.how, each.detail * (each.how == DIFFERS), reason or "") for each, reason in rows]
        screen.table(f"Drift of {where}", ["object", "is", "- expected, + found", "excepted because"], cells)
    else:
        screen.say(f"No drift: {where} is what its {len(files)} files make.", "bold green")
    if rows and there != here:
        what = f"{where} is PostgreSQL {there}, the scratch server {here}: the same object may be written differently."
        screen.say(f"{what} With PostgreSQL {there} on this machine, it would be the same.", "yellow")
    refuse(_drift_problem(where, each) for each, reason in rows if not reason)


def _drift_problem(where: str, each: Difference) -> Problem:
    why = "or say why in release.ddl.exceptions"
    if each.how == EXTRA:
        hint = f"psql …   # drop {each.name}, or bring it into the pack, {why}"
    elif each.how == DIFFERS and each.kind == "table":
        hint = f"psql …   # alter table …, {why}"
    else:
        hint = f"inv ddl.apply --env {where} --again   # or alter it by hand, {why}"
    return Problem(f"{where}: {each}.", hint)
