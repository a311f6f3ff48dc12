"""`inv backup.take` and `inv backup.restore`: the commands, and what they print."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from psycopg import Error, conninfo

from release_tasks import embedded, screen, smokes
from release_tasks.database import backup, restore
from release_tasks.database.backup import FACTS, SUMS, VERIFIED, Backup
from release_tasks.errors import Refused
from release_tasks.processes.shell import hide, mask
from release_tasks.release import environment_of, project_root, settings_of, version_here
from release_tasks.settings import Settings


def take(config: Any, where: str) -> None:
    """Back up the database of `where` outside a release, and restore the backup to see that it counts."""
    with environment_of(config, where) as environment:
        if config.run.dry:
            folder = backup.folder_of(environment)
            screen.say(f"Would back up {where} to {folder}, and restore the backup on a scratch server.")
            return
        version = version_here(environment.root)
        with screen.busy(f"Dumping {where}"):
            taken = backup.take(environment, version)
        with screen.busy(f"Restoring {taken.name} on a scratch server"):
            summary = restore.verify(taken, environment, partial(smokes.pass_on_copy, environment, version))
    screen.say(f"{taken.folder}: {summary}.", "bold green")


def bring_back(config: Any, from_: str | None, into: str | None, over: str | None) -> None:
    """Restore the backup `from_` into `into`: dev, staging, production, or the URL of a database."""
    root, settings, dry = project_root(config), settings_of(config), bool(config.run.dry)
    chosen = _chosen(root / settings.backup.folder, from_)
    if not into:
        raise Refused("Into which database? None was named.", f"inv backup.restore --from {chosen.name} --into dev")
    again = shlex.join(["inv", "backup.restore", "--from", str(from_), "--into", mask(into)])
    with _target(into, root, settings) as dsn, screen.busy(f"Restoring {chosen.name} into {into}"):
        done = restore.restore(chosen, dsn, settings.backup, over or "", again, dry)
    for line in done:
        screen.say(f"Would have {line}." if dry else f"{line[0].upper()}{line[1:]}.", "" if dry else "green")


def _chosen(folder: Path, wanted: str | None) -> Backup:
    """Return the backup `wanted`, a name in `folder` or a path. Raises `Refused`, naming those there are."""
    for path in (folder / wanted, Path(wanted)) if wanted else ():
        if (path / SUMS).is_file() or (path / FACTS).is_file():
            return backup.read(path.resolve())
    there = sorted((path.parent for path in folder.glob(f"[!.]*/{FACTS}")), reverse=True)
    names = [f"{path.name}{'' if (path / VERIFIED).exists() else ', not verified'}" for path in there] or ["none"]
    what = f"There is no backup {wanted!r}." if wanted else "Which backup? None was named."
    example = f"inv backup.restore --from {there[0].name} --into dev" if there else "inv backup.take"
    raise Refused("\n  ".join([f"{what} In {folder} are:", *names]), example)


@contextmanager
def _target(into: str, root: Path, settings: Settings) -> Iterator[str]:
    """Yield the DSN that `into` means; of an embedded environment only the server runs, for services would connect."""
    if "://" in into or "=" in into:
        try:
            given = conninfo.conninfo_to_dict(into)
        except Error as error:
            raise Refused(f"--into is no URL of a database: {error}", "--into postgresql://user@host/name") from None
        if not given.get("dbname"):
            raise Refused("--into names no database.", "--into postgresql://user@host/name")
        hide(str(given.get("password") or ""))
        yield into
    elif (own := settings.environments.named(into)).embedded:
        server = embedded.start_server(into, root, settings)
        try:
            yield server.dsn(settings.app)
        finally:
            server.stop()
    else:
        yield own.dsn
