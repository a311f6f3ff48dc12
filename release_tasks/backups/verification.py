"""A backup counts once it has been restored: on a scratch server, compared object by object and count by count."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from release_tasks import smokes
from release_tasks.backups import backup, restoring
from release_tasks.backups.shelf import FACTS, VERIFIED, Backup, held, prune
from release_tasks.database import postgres
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.files import file_sha256, write_aside
from release_tasks.processes.links import read_link
from release_tasks.schema import scratch

if TYPE_CHECKING:
    from psycopg import Connection

    from release_tasks.environments import Environment

NAME = "restored"


def verify(taken: Backup, environment: Environment) -> str:
    """Restore `taken`, compare it and run the smokes marked `on_backup`; then encrypt it, where that is set.

    Returns a few words on what was seen; the backup counts from then on, and older ones make room. Raises `Refused`
    with everything that differs; the backup then does not count.
    """
    settings = environment.settings.backup
    try:
        with held(environment):
            if not taken.verified:
                refuse(taken.problems())
                seen = {FACTS: file_sha256(taken.folder / FACTS), **_restored(taken, environment)}
                write_aside(taken.folder / VERIFIED, json.dumps(seen, indent=1).encode())
            if settings.recipients:
                backup.seal(taken, settings.recipients)
            prune(environment)
    except OSError as error:
        raise Refused(f"{taken.name} cannot be verified: {error}.", f"df -h {taken.folder}") from None
    return in_words(taken)


def begin(taken: Backup, environment: Environment) -> Future[str]:
    """Begin to `verify` beside what goes on here; it ends with this process, and waits for nothing."""
    future: Future[str] = Future()

    def work() -> None:
        try:
            future.set_result(verify(taken, environment))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


def in_words(taken: Backup) -> str:
    """Say what was seen when `taken` was restored."""
    seen = taken.verified
    ran = ", ".join(seen["smokes"]) or seen["why_no_smokes"]
    return (
        f"restored on PostgreSQL {seen['server']} in {seen['seconds']:.1f} s: {seen['objects']} objects, "
        f"{seen['tables']} tables and {seen['rows']} rows are the same; smokes: {ran}"
    )


def _restored(taken: Backup, environment: Environment) -> dict[str, Any]:
    """Restore `taken` on a scratch server, and return what was seen there. Raises `Refused`."""
    import psycopg

    facts, settings = taken.facts, environment.settings.backup
    began = time.monotonic()
    with (
        scratch.server(environment.root, like=facts["server"]["major"]) as server,
        psycopg.connect(server.dsn("postgres"), autocommit=True) as admin,
    ):
        major = postgres.major(server.bin / "postgres")
        if major < facts["server"]["major"]:
            mend = "PG_BIN=…   # the programs of that version, or a newer one"
            refuse([restoring.server_is_too_old(facts, major, "The scratch server", mend)])
        try:
            locale = _make_database(admin, facts)
            stay = restoring.make_roles(admin, facts, restoring.missing_roles(admin, facts))
            restoring.load(taken.dump, server.dsn(NAME), facts, settings, major)
            with psycopg.connect(server.dsn(NAME), autocommit=True) as connection:
                told = restoring.finish(connection, facts, stay, settings.timeout)
        except psycopg.Error as error:
            what = f"{taken.name} cannot be restored: {' '.join(str(error).split())}"
            raise Refused(what, f"less {server.log}") from None
        mend = f"rm -r {taken.folder}   # it does not count; then run again, for another one"
        refuse(Problem(f"{taken.name}, restored, is not what was dumped: {each}.", mend) for each in told)
        admin.execute(f"alter database {NAME} set default_transaction_read_only = on")  # so that a smoke only reads
        ran, why_none = _smokes(taken, replace(environment, dsn=server.dsn(NAME), held=[]))
    return {
        "at": datetime.now(UTC).isoformat(),
        "seconds": round(time.monotonic() - began, 1),
        "server": str(major),
        "locale": locale,
        "objects": len(facts["objects"]),
        "tables": len(facts["rows"]),
        "rows": sum(facts["rows"].values()),
        "smokes": ran,
        "why_no_smokes": why_none,
    }


def _make_database(admin: Connection, facts: Mapping[str, Any]) -> str:
    """Make the database with the backup's locale, or with C where this machine does not have that; return it."""
    from psycopg import errors

    try:
        restoring.create_database(admin, NAME, facts["database"])
    except (errors.WrongObjectType, errors.FeatureNotSupported):
        restoring.create_database(admin, NAME, facts["database"], locale=False)
        return f"C: this machine does not have {facts['database']['datcollate']}"
    return str(facts["database"]["datcollate"])


def _smokes(taken: Backup, restored: Environment) -> tuple[list[str], str]:
    """Ask the smokes that only read, with the code that made the data; return their names, or why there are none.

    Raises `Refused` with those that do not pass.
    """
    code = restored.root if restored.name == "dev" else read_link(restored.current)
    if code is None:
        return [], "none ran, for nothing has been deployed there yet"
    return smokes.pass_on_backup(restored, taken.facts["version"], code, f"the restored {taken.name}")
