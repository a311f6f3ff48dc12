"""A DDL pack and a database: kept from others, applied by the set runner, seen to be there, entered in the ledger."""

from __future__ import annotations

import shlex
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from release_tasks import screen
from release_tasks.database import catalog
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.git import Git, listed
from release_tasks.schema import ddl, drift, ledger, runner
from release_tasks.schema.sending import OWN_TRANSACTIONS, Applied, message_of

if TYPE_CHECKING:
    from psycopg import Connection

    from release_tasks.environments import Environment
    from release_tasks.settings import Settings


def apply(environment: Environment, pack: list[ddl.DdlFile], code: Path, version: str) -> list[Applied]:
    """Apply the whole `pack` to `environment` with the application's runner in `code`, or with psycopg.

    Returns each file with its time and what PostgreSQL said, then what only the server's log has; nothing when another
    release that was waited for has applied them meanwhile. Raises `Refused`; what was not applied to its end is then
    not in the ledger, and the same command goes on.
    """
    import psycopg

    settings, where = environment.settings.ddl, environment.name
    try:
        with environment.connect() as connection:
            refuse(runner.server_problems(connection, where, settings))
            waited = runner.keep_others_out(connection, where, settings.lock_wait)
            if waited and not ledger.unapplied(connection, pack, settings):
                return []
            ledger.begin(connection, pack, settings)
            by = _by_command if settings.command else _by_psycopg
            return by(connection, environment, pack, code, version)
    except psycopg.Error as error:
        what = f"The DDL pack was not applied to {where}: {message_of(error)}."
        raise Refused(what, "Mend it, then run the same command again.") from None


def _by_psycopg(
    connection: Connection, environment: Environment, pack: list[ddl.DdlFile], _: Path, version: str
) -> list[Applied]:
    settings, applied = environment.settings.ddl, []

    def enter(file: ddl.DdlFile, seconds: float) -> None:
        ledger.enter(connection, file, settings, version, seconds, "psycopg")

    with screen.progress(f"DDL on {environment.name}", len(pack)) as advance:
        for each in runner.run(connection, pack, settings, enter):
            advance(each.file.name)
            applied.append(each)
    return applied


def _by_command(
    connection: Connection, environment: Environment, pack: list[ddl.DdlFile], code: Path, version: str
) -> list[Applied]:
    """Let the application's runner apply `pack` while `connection` keeps others out, and see that it is there."""
    settings = environment.settings.ddl
    applied = runner.run_command(environment, pack, code, version)
    missing = [
        each.name
        for each in drift.drift_of(connection, pack, environment)
        if each.how == catalog.MISSING and not drift.excepted(str(each), settings.exceptions)
    ]
    if missing:
        raise Refused(
            f"{shlex.join(settings.command)} said that it applied {len(pack)} files, "
            f"but of what they make {environment.name} lacks {len(missing)}: {listed(missing, most=5)}.",
            "See which database it reaches: it has to read DATABASE_URL or PG*.",
        )
    with connection.transaction():
        for file in pack:
            ledger.enter(connection, file, settings, version, None, settings.command[0])
    return applied


def report(config: Any, where: str, again: bool, yes: bool) -> None:
    """Apply the pack of this checkout in the environment `where`, unless its ledger has it; show a table.

    Dev gets the files as they lie here, the others what is committed in HEAD. Raises `Refused`.
    """
    from release_tasks.release import environment_of, project_root, settings_of, version_here

    root, settings = project_root(config), settings_of(config)
    pack = ddl.pack_for(where, root, settings)
    refuse([*ddl.pack_problems(pack, settings.ddl), *_uncommitted(where, root, settings)])
    with environment_of(config, where) as environment:
        with environment.connect() as connection:
            missing = ledger.unapplied(connection, pack, settings.ddl)
        if not missing and not again:
            screen.say(f"All {len(pack)} files are in the ledger of {where}. To apply them again: --again")
            return
        if config.run.dry:
            screen.say(f"Would apply {len(pack)} files to {where}; {len(missing)} of them are new or changed.")
            return
        if where == "production" and not yes:
            raise Refused(
                f"Production has {len(missing)} of {len(pack)} files to get, outside a release and without a backup.",
                "inv ddl.apply --env production --yes   # or inv deploy.production, which takes a backup first",
            )
        environment.install(root)
        began = time.monotonic()
        with screen.busy(f"Applying the DDL pack to {where}"):
            applied = apply(environment, pack, root, version_here(root))
    if applied:
        _show(applied, f"Applied {len(pack)} files to {where} in {time.monotonic() - began:.1f} s")
    else:
        screen.say(f"The other release has applied all {len(pack)} files to {where}.")


def _uncommitted(where: str, root: Path, settings: Settings) -> list[Problem]:
    """Return that the pack here is not the committed one: the application's runner would apply what lies here."""
    if where == "dev":
        return []
    git, folder = Git.open(root, settings.remote), PurePosixPath(settings.ddl.folder)
    paths = [PurePosixPath(path) for path in git.dirty_paths()]
    found = [str(path) for path in paths if path.parent == folder and path.suffix == ".sql"]
    what = f"{where} gets what is committed; here this is not: {listed(found)}."
    return [Problem(what, f"git status {folder}")] if found else []


def _show(applied: list[Applied], title: str) -> None:
    """Show what was said by number, what matters also in full; all of a release's notices are in its journal."""
    rows = [
        (
            each.file.name,
            "" if each.seconds is None else f"{each.seconds * 1000:.0f} ms",
            len(each.notices) - len(each.warnings),
            len(each.warnings),
            each.attempts,
        )
        for each in applied
    ]
    screen.table(title, ["file", "took", "notices", "warnings", "attempts"], rows)
    for each in applied:
        for notice in each.notices:
            if notice.warns or notice.message == OWN_TRANSACTIONS:
                screen.say(f"  {each.file.name}: {notice}", "yellow")
