"""`inv backup.restore`: a backup into a database, under another name first, put in place only once it is whole."""

from __future__ import annotations

import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release_tasks import screen
from release_tasks.backups import restoring, sealing
from release_tasks.backups.shelf import DUMP, SEALED, Backup, choose
from release_tasks.database import catalog
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.files import file_hashes, records_folder
from release_tasks.masks import hide, mask
from release_tasks.processes.shell import wait_until

if TYPE_CHECKING:
    from psycopg import Connection

    from release_tasks.settings import Settings

LOCK = 0x2E5702E  # with the hash of a database's name: one restore into it at a time
OURS = "the release layer is restoring a backup into this database"
GOING = 2.0  # seconds in which a session may end whose program has just ended
LONGEST = 63  # bytes of a name in PostgreSQL


@dataclass(frozen=True)
class Restored:
    """What a restore did: into which database, the roles it made, what it found other than the backup knows it."""

    name: str
    before: str = ""
    made: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def report(config: Any, from_: str | None, into: str | None, over: str | None, identity: str | None) -> None:
    """Restore the backup `from_` into `into`: dev, staging, production, or the URL of a database; say what was done.

    Raises `Refused`; the target is then as it was.
    """
    from release_tasks.release import project_root, settings_of

    root, settings = project_root(config), settings_of(config)
    chosen = choose(root / settings.backup.folder, from_)
    refuse(chosen.problems())
    if into is None:
        raise Refused("Into which database? None was named.", f"inv backup.restore --from {chosen.name} --into dev")
    with target(into, root, settings) as dsn:
        key, dry = Path(identity) if identity else None, bool(config.run.dry)
        with screen.busy(f"{'Looking at' if dry else 'Restoring'} {chosen.name} into {into}"):
            done = restore(chosen, dsn, root, settings, over, key, into=into, dry=dry)
    if dry:
        screen.say(f"Would restore {chosen.name} into the database {done.name}.")
        if done.before:
            screen.say(f"  What is there now would be the database {done.before} then.")
        if done.made:
            screen.say(f"  The roles that would be made: {', '.join(done.made)}.")
        return
    counted = f"{len(chosen.facts['rows'])} tables, {sum(chosen.facts['rows'].values())} rows"
    screen.say(f"{chosen.name} is restored into the database {done.name}: {counted}.", "bold green")
    if done.before:
        screen.say(f"  What was there before is the database {done.before} now.")
    for role in done.made:
        screen.say(f"  The role {role} was made; a backup holds no passwords: alter role {role} password '…'")
    for note in done.notes:
        screen.say(f"  {note}")


@contextmanager
def target(into: str, root: Path, settings: Settings) -> Iterator[str]:
    """Yield the DSN that `into` means; of an embedded environment the server alone runs, for services would connect."""
    from psycopg import Error, conninfo

    if "://" in into or "=" in into:
        try:
            hide(str(conninfo.conninfo_to_dict(into).get("password") or ""))
        except Error as error:
            raise Refused(f"--into is no URL of a database: {error}", "--into postgresql://user@host/name") from None
        yield into
    elif (own := settings.environments.named(into)).embedded:
        from release_tasks import embedded

        server = embedded.start_server(into, root, settings)
        try:
            yield server.dsn(settings.app)
        finally:
            server.stop()
    else:
        yield own.dsn


def restore(
    chosen: Backup,
    dsn: str,
    root: Path,
    settings: Settings,
    over: str | None = None,
    identity: Path | None = None,
    *,
    into: str = "",
    dry: bool = False,
) -> Restored:
    """Restore `chosen`, undamaged, into the database `dsn`, which has nothing in it or is named again by `over`.

    Whatever goes wrong, that database is as it was. With `dry` it is only looked at, and what would be done is
    returned. `into` is what a person calls `dsn`. Raises `Refused`.
    """
    import psycopg

    name = _name_in(dsn)
    aside = _named(name, "_restoring")
    try:
        with _administrator(dsn, name) as admin:
            _keep_others_out(admin, name)
            roles = restoring.missing_roles(admin, chosen.facts)
            again = f"inv backup.restore --from {shlex.quote(chosen.name)} --into {shlex.quote(mask(into or dsn))}"
            if identity:
                again += f" --identity {shlex.quote(str(identity))}"
            elif chosen.is_sealed:
                again += " --identity FILE"
            refuse([*_problems(admin, chosen, roles), *_in_the_way(admin, dsn, aside, over, again)])
            if chosen.is_sealed and identity is None:
                again += f" --over {shlex.quote(over)}" if over else ""
                raise Refused(f"{chosen.name} is encrypted.", f"{again}   # with the key of one of its recipients")
            if dry:
                keeps = restoring.exists(admin, name) and restoring.held_by(dsn)
                return Restored(name, f"{name}_before_<UTC time>" if keeps else "", roles)
            with _dump_of(chosen, identity, root) as dump:
                _make_aside(admin, aside, chosen)
                try:
                    stay = restoring.make_roles(admin, chosen.facts, roles)
                    _fill(dump, _to(dsn, aside), chosen, stay, settings)
                    before = _put_in_place(admin, dsn, aside, name)
                finally:
                    with suppress(psycopg.Error):
                        restoring.drop(admin, aside)
            found = catalog.read(admin)
    except (psycopg.Error, OSError) as error:
        what = f"{chosen.name} cannot be restored into {name}: {' '.join(mask(str(error)).split())}."
        raise Refused(what, f"Nothing was changed in {name}. Mend it, then run the same command.") from None
    wanted = {each: chosen.facts["objects"].get(each) for each in stay}
    notes = [
        f"Left as it is: {each}; in the backup it is {text or 'there'}."
        for each, text in wanted.items()
        if found.get(each) != text
    ]
    return Restored(name, before, roles, notes)


def _name_in(dsn: str) -> str:
    from psycopg import conninfo

    parts = conninfo.conninfo_to_dict(dsn)
    name = parts.get("dbname") or parts.get("user")
    if not name:
        raise Refused("--into names no database.", "--into postgresql://user@host/name")
    return str(name)


def _named(name: str, suffix: str) -> str:
    """Return `name` with `suffix`, cut where PostgreSQL would cut both."""
    return name.encode()[: LONGEST - len(suffix)].decode(errors="ignore") + suffix


def _to(dsn: str, name: str) -> str:
    from psycopg import conninfo

    return conninfo.make_conninfo(dsn, dbname=name)


def _administrator(dsn: str, name: str) -> Connection:
    """Connect to another database of the same server: one cannot rename the database that one is in."""
    import psycopg

    other = "template1" if name == "postgres" else "postgres"
    return psycopg.connect(_to(dsn, other), autocommit=True, connect_timeout=5, application_name="release: restore")


def _keep_others_out(admin: Connection, name: str) -> None:
    row = admin.execute("select pg_try_advisory_lock(%s, hashtext(%s))", [LOCK, name]).fetchone()
    if row != (True,):
        raise Refused(f"Another process is restoring into {name}.", "Wait for it to end, then run again.")


def _problems(admin: Connection, chosen: Backup, roles: list[str]) -> Iterator[Problem]:
    """Yield why nothing can be restored on this server: it is old, or the role has too few rights."""
    needed, found = chosen.facts["server"]["major"], admin.info.server_version // 10000
    if found < needed:
        mend = f"--into a database of a server of PostgreSQL {needed}, or newer"
        yield restoring.server_is_too_old(chosen.facts, found, "The server", mend)
    rights = admin.execute(
        "select rolcreatedb or rolsuper, rolcreaterole or rolsuper from pg_roles where rolname = current_user"
    ).fetchone()
    if rights and not rights[0]:
        mend = f"alter role {admin.info.user} createdb   -- or --into with a role that may"
        yield Problem(f"The role {admin.info.user} may not make databases on this server.", mend)
    if rights and roles and not rights[1]:
        missing = ", ".join(roles)
        what = f"The role {admin.info.user} may not make roles, and {missing} of the backup are missing on this server."
        yield Problem(what, f"alter role {admin.info.user} createrole   -- or make the roles first")
    if owners := ", ".join(restoring.owners_out_of_reach(admin, chosen.facts)):
        what = f"The role {admin.info.user} is no superuser, and no member of {owners}, to whom objects in it belong."
        yield Problem(what, "--into with a superuser, or with a member of all of them")


def _in_the_way(admin: Connection, dsn: str, aside: str, over: str | None, again: str) -> Iterator[Problem]:
    """Yield what of the target is in the way: sessions, what it holds, and a database of the name that is needed."""
    name = _name_in(dsn)
    yield from _foreign(admin, aside)
    if not restoring.exists(admin, name):
        return
    wait_until(lambda: not restoring.sessions(admin, name), time.monotonic() + GOING)
    if sessions := restoring.sessions(admin, name):
        yield Problem(
            f"Somebody is connected to {name}: {'; '.join(sessions)}.", "End what runs there, then run again."
        )
    held = restoring.held_by(_to(dsn, name))
    again = f"{again} --over {shlex.quote(name)}   # it is then kept under another name"
    if over is not None and over != name:
        yield Problem(f"--over says {over}, but the database is {name}.", again)
    elif over is None and held:
        yield Problem(f"The database {name} holds {len(held)} objects, such as {held[0]}.", again)


def _foreign(admin: Connection, aside: str) -> Iterator[Problem]:
    query = "select shobj_description(oid, 'pg_database'), quote_ident(datname) from pg_database where datname = %s"
    left = admin.execute(query, [aside]).fetchone()
    if left and left[0] != OURS:
        what = f"There is a database {aside}, and no restore has made it."
        yield Problem(what, f"alter database {left[1]} rename to …")


@contextmanager
def _dump_of(chosen: Backup, identity: Path | None, root: Path) -> Iterator[Path]:
    """Yield the folder of the dump, decrypted for as long as the block lasts where it is encrypted."""
    if not chosen.is_sealed:
        yield chosen.dump
        return
    assert identity is not None  # else it was refused
    folder = Path(tempfile.mkdtemp(prefix="restore-", dir=records_folder(root)))
    try:
        sealing.unseal(chosen.folder / SEALED, folder, identity)
        if file_hashes(folder / DUMP) != chosen.facts[DUMP]:
            raise Refused(f"{chosen.name}, decrypted, is not what was dumped.", "Restore another backup.")
        yield folder / DUMP
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_aside(admin: Connection, aside: str, chosen: Backup) -> None:
    """Make the database in which the backup is restored; what a killed restore left of it is dropped."""
    from psycopg import sql

    refuse(_foreign(admin, aside))  # again, for decrypting takes long
    restoring.drop(admin, aside)
    restoring.create_database(admin, aside, chosen.facts["database"])
    admin.execute(sql.SQL("comment on database {} is {}").format(sql.Identifier(aside), OURS))


def _fill(dump: Path, dsn: str, chosen: Backup, stay: list[str], settings: Settings) -> None:
    """Load the dump into the database `dsn`, and see that all of it is there. Raises `Refused`."""
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as connection:
        restoring.load(dump, dsn, chosen.facts, settings.backup, connection.info.server_version // 10000)
        told = restoring.finish(connection, chosen.facts, stay, settings.backup.timeout)
        mend = "Nothing was changed. To see the other backups: inv backup.restore"
        refuse(Problem(f"{chosen.name}, restored, is not what was dumped: {each}.", mend) for each in told)
        connection.execute("analyze")  # a planner that knows no table makes a slow database


def _put_in_place(admin: Connection, dsn: str, aside: str, name: str) -> str:
    """Give the restored database its name, in one step with what had it before; return what that is called now.

    Only when it holds nothing it is dropped: that may have changed since it was looked at.
    """
    from psycopg import sql

    before = _named(name, f"_before_{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    rename = sql.SQL("alter database {} rename to {}")
    there = restoring.exists(admin, name)
    with admin.transaction():
        admin.execute(sql.SQL("comment on database {} is null").format(sql.Identifier(aside)))
        if there:
            admin.execute(rename.format(sql.Identifier(name), sql.Identifier(before)))
        admin.execute(rename.format(sql.Identifier(aside), sql.Identifier(name)))
    if there and not restoring.held_by(_to(dsn, before)):
        restoring.drop(admin, before)
    return before if restoring.exists(admin, before) else ""
