"""`inv backup.take` and `inv backup.restore`: the commands, and what they print."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from release_tasks import embedded, screen, suites
from release_tasks.config import project_root, settings_of
from release_tasks.database import backup, programs, restore
from release_tasks.embedded import environment_of
from release_tasks.errors import Refused, refuse
from release_tasks.masks import hide
from release_tasks.settings import Settings
from release_tasks.values import dsn_problems
from release_tasks.versions import version_here


def take(config: Any, where: str) -> None:
    """Back up the database of `where` outside a release, and restore the backup to see that it counts."""
    with environment_of(config, where) as environment:
        version = version_here(environment.root)
        with screen.busy(f"Backing up {where}"):
            taken = backup.take(environment, version)
            summary = restore.verify(taken, environment, partial(suites.pass_smokes_on_copy, environment, version))
    screen.say(f"{taken.folder}: {summary}.", "bold green")


def restore_backup(config: Any, from_: str | None, into: str | None, over: str | None) -> None:
    """Restore the backup `from_` into `into`: dev, staging, production, or the URL of a database."""
    root, settings = project_root(config), settings_of(config)
    folder = root / settings.backup.folder
    at = (folder / str(from_), Path(str(from_)))
    found = [path for path in at if any((path / name).is_file() for name in (backup.SUMS, backup.FACTS))]
    if not (found and into):
        names = "\n  ".join(sorted(path.parent.name for path in folder.glob(f"[!.]*/{backup.FACTS}"))) or "none"
        what = "--into names no database." if found else f"--from names no backup: {from_ or 'nothing'}."
        raise Refused(f"{what} Backups in {folder}:\n  {names}", "inv backup.restore --from NAME --into dev")
    chosen = backup.read(found[0].resolve())
    if not chosen.verified:
        screen.say(f"{chosen.name} was never verified: only now its rows are compared with those that it should have.")
    with _target(into, root, settings) as dsn, screen.busy(f"Restoring {chosen.name} into {into}"):
        done = restore.restore(chosen, dsn, settings.backup, over or "", dry=config.run.dry)
    screen.say("\n".join(done))


@contextmanager
def _target(into: str, root: Path, settings: Settings) -> Iterator[str]:
    """Yield the DSN that `into` means; of an embedded environment only the server runs, for services would connect."""
    if "://" not in into and "=" not in into:
        with closing(embedded.open_environment(into, root, settings)) as environment:
            yield environment.dsn
        return
    refuse(dsn_problems("--into", into))
    given = programs.variables(into)
    hide(given.get("PGPASSWORD", ""))
    if not given["PGDATABASE"]:
        raise Refused("--into is no URL that names a database.", "--into postgresql://user@host/name")
    yield into
