"""Drift: what a database holds, against what its DDL pack makes on a scratch server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from release_tasks.database import catalog
from release_tasks.database.catalog import DIFFERS, EXTRA, MISSING, Difference
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.schema import ddl, scratch

if TYPE_CHECKING:
    from psycopg import Connection

    from release_tasks.environments import Environment
    from release_tasks.settings import Ddl


REMADE = ("view", "function", "trigger", "rule", "policy", "grants")  # what a pack replaces where it is there
PARTS = ("column", "constraint")  # what `create table if not exists` passes over where the table is there
# What PostgreSQL itself grants to a role that makes another one ("CREATE ROLE"): to give it to others, no more.
MAKER = "with admin option with inherit false without set"


def drift_of(connection: Connection, pack: list[ddl.DdlFile], environment: Environment) -> list[Difference]:
    """Return each object that differs here from what `pack` makes, is missing, or was made by no file of it.

    A role that can only log in may look. Raises `Refused` where the pack cannot be applied, or nothing be read.
    """
    import psycopg

    settings = environment.settings
    made = scratch.made_by(pack, environment.root, settings, _major(connection))
    try:
        found = catalog.read(connection)
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        raise Refused(f"The catalogs of {environment.name} cannot be read: {reason}", "Run it again.") from None
    return [
        each
        for each in catalog.differences(made.objects, _of_the_pack(found, made, settings.ddl))
        if each.how != MISSING or each.name in made.files or catalog.kind_of(each.name) not in ("schema", "grants")
    ]


def _of_the_pack(found: catalog.Objects, made: scratch.Made, settings: Ddl) -> catalog.Objects:
    """Return `found` without what is no business of a pack: other databases' roles, the ledger and its schema."""
    schema = f"schema {settings.ledger.partition('.')[0]}"
    return {
        name: definition
        for name, definition in catalog.without(found, settings.ledger).items()
        if name in made.objects
        or (name != schema and catalog.kind_of(name) not in catalog.SERVER_S)
        or (catalog.kind_of(name) == "membership" and definition != MAKER and _member(name) in made.objects)
    }


def _member(membership: str) -> str:
    return f"role {catalog.WORD.findall(membership)[-1]}"


def excepted(text: str, exceptions: dict[str, str]) -> str | None:
    """Return the reason that the settings give why `text`, a finding or a difference, may be; None without one."""
    return next((reason for pattern, reason in exceptions.items() if re.search(pattern, text)), None)


def report(config: Any, where: str, as_json: bool) -> None:
    """Show how the database of `where` differs from the pack it should have: HEAD's, on dev the files here.

    Raises `Refused` when an object differs, is missing, or was made by no file, without an exception in the settings.
    """
    from release_tasks import screen
    from release_tasks.release import environment_of, project_root, settings_of

    screen.for_machines(as_json)
    settings = settings_of(config)
    pack = ddl.pack_for(where, project_root(config), settings)
    with (
        environment_of(config, where) as environment,
        screen.busy(f"Comparing {where} with a scratch server"),
        environment.connect() as connection,
    ):
        there, here = _major(connection), scratch.major_like(_major(connection))
        found = drift_of(connection, pack, environment)
    rows = [(each, excepted(str(each), settings.ddl.exceptions)) for each in found]
    problems = [_problem(where, each) for each, reason in rows if not reason]
    if as_json:
        drift = [{**vars(each), "excepted": reason} for each, reason in rows]
        screen.as_json({"server": there, "scratch": here, "drift": drift})
    elif rows:
        cells = [(each.name, each.how, _detail(each), reason or "") for each, reason in rows]
        screen.table(f"Drift of {where}", ["object", "is", "expected → found", "excepted because"], cells)
    else:
        screen.say(f"No drift: {where} is what its {len(pack)} files make.", "bold green")
    if rows and there != here:
        what = (
            f"{where} is PostgreSQL {there}, the scratch server {here}: the same view or rule may be written otherwise."
        )
        screen.say(f"{what} With PostgreSQL {there} on this machine, they would be the same.", "yellow")
    refuse(problems)


def _major(connection: Connection) -> int:
    return connection.info.server_version // 10000


def _detail(each: Difference) -> str:
    return " → ".join(each.apart) if each.how == DIFFERS else ""


def _problem(where: str, each: Difference) -> Problem:
    kind, why = catalog.kind_of(each.name), "or say why in release.ddl.exceptions"
    if each.how == EXTRA:
        mend = f"psql …   # drop {each.name}, or bring it into the pack, {why}"
    elif kind in REMADE or (each.how == MISSING and kind not in PARTS):
        mend = f"inv ddl.apply --env {where} --again   # or mend it by hand, {why}"
    else:
        mend = f"psql …   # mend it by hand (alter …), {why}"
    return Problem(f"{where}: {each}.", mend)
