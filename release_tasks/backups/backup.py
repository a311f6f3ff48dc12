"""Section 8: a backup of a database, taken whole or not at all."""

from __future__ import annotations

import getpass
import json
import platform
import shutil
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release_tasks import screen
from release_tasks.backups import sealing
from release_tasks.backups.shelf import (
    ASIDE,
    DUMP,
    FACTS,
    SEALED,
    SUMS,
    Backup,
    backups_of,
    folder_of,
    held,
    read_json,
    remove,
    show,
    stem,
)
from release_tasks.database import contents, postgres
from release_tasks.errors import Refused
from release_tasks.files import checksum_lines, file_hashes, file_sha256, sha256, write_aside

if TYPE_CHECKING:
    from psycopg import Connection

    from release_tasks.environments import Environment


def take(environment: Environment, version: str, commit: str | None = None) -> Backup:
    """Dump the database of `environment` into a new folder, and return it: whole, and not yet verified.

    `version` and `commit` say what it was made for. What is in the database is counted in the dump's own snapshot.
    The password goes by the environment, never by a command line. Raises `Refused`; nothing is left then.
    """
    from psycopg import Error

    began = datetime.now(UTC)
    with held(environment) as folder:
        path = folder / f"{stem(environment)}-{began:%Y%m%dT%H%M%SZ}"
        aside = folder / f".{path.name}{ASIDE}"
        who = f"{getpass.getuser()} on {platform.node()}"
        about = {"app": environment.settings.app, "environment": environment.name, "version": version, "commit": commit}
        try:
            aside.mkdir(mode=0o700)
            with environment.connect() as connection:
                seen = _dump(connection, environment, aside / DUMP)
            plain = file_hashes(aside / DUMP)
            times = {"began": began.isoformat(), "ended": datetime.now(UTC).isoformat(), "by": who}
            facts = json.dumps({**about, **times, **seen, DUMP: plain}, indent=1, ensure_ascii=False).encode()
            write_aside(aside / FACTS, facts)
            dumped = {f"{DUMP}/{name}": digest for name, digest in plain.items()}
            write_aside(aside / SUMS, checksum_lines({FACTS: sha256(facts), **dumped}))
            aside.rename(path)
        except Error as error:
            what = f"The database of {environment.name} cannot be backed up: {' '.join(str(error).split())}"
            raise Refused(what, "The role of the DSN has to be able to read all of it.") from None
        except OSError as error:
            what = f"The backup cannot be written to {folder}: {error.strerror}."
            raise Refused(what, f"df -h {folder}   # or set release.backup.folder") from None
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return Backup(path, read_json(path / FACTS))


def _dump(connection: Connection, environment: Environment, target: Path) -> dict[str, Any]:
    """Dump into `target`, count rows in the same snapshot meanwhile, and return what is in the database."""
    settings = environment.settings.backup
    tool = postgres.client_tool("pg_dump", connection.info.server_version // 10000)
    dbname, variables = contents.for_programs(environment.dsn)
    snapshot = contents.begin_to_read(connection, settings.timeout)
    seen = contents.read(connection)
    argv: list[str | Path] = [
        tool,
        "--format=directory",
        "--compress=1",  # twice as fast as the default, a twentieth larger
        f"--jobs={settings.jobs}",
        f"--snapshot={snapshot}",
        "--no-password",
    ]
    with ThreadPoolExecutor(1) as beside:
        counting = beside.submit(contents.rows, connection)
        try:
            full = f"df -h {target.parents[1]}   # or set release.backup.folder"
            argv += [f"--file={target}", f"--dbname={dbname}"]
            contents.run_program(argv, variables, settings.timeout, full)
        except BaseException as error:
            first = counting.exception() if counting.done() else None  # then the snapshot was gone, which says little
            _end(counting, connection)
            raise (first if first and isinstance(error, Refused) else error) from None
        return {**seen, "pg_dump": postgres.major(tool), "rows": counting.result()}


def _end(counting: Future[Any], connection: Connection) -> None:
    """End the count, which would be of no use; a cancel between two of its queries meets none, so ask again."""
    while not counting.done():
        connection.cancel_safe(timeout=5)
        wait([counting], timeout=0.2)


def seal(backup: Backup, recipients: list[str]) -> None:
    """Put one file, encrypted to `recipients`, in the place of the dump, which is removed once that is on disk."""
    if backup.is_sealed:
        return
    sealing.seal(backup.dump, backup.folder / SEALED, recipients)
    sums = {FACTS: file_sha256(backup.folder / FACTS), SEALED: file_sha256(backup.folder / SEALED)}
    write_aside(backup.folder / SUMS, checksum_lines(sums))
    remove(backup.dump)


def report(config: Any, where: str) -> None:
    """Take a backup of `where` outside a release, restore it to see that it is one, and show what is kept.

    Raises `Refused`; what was dumped and is not verified then stays, and does not count.
    """
    from release_tasks.backups import verification
    from release_tasks.release import environment_of, version_here

    with environment_of(config, where) as environment:
        if config.run.dry:
            screen.say(f"Would back up {where} to {folder_of(environment)}, and restore it on a scratch server.")
            return
        with screen.busy(f"Dumping {where}"):
            taken = take(environment, version_here(environment.root))
        with screen.busy(f"Restoring {taken.name} on a scratch server"):
            seen = verification.verify(taken, environment)
        show(f"Backups of {where}", backups_of(environment))
    screen.say(f"{taken.name}: {seen}", "bold green")
