"""A DDL pack applied to a database, one release at a time: by psql, or by the application's own runner.

The ledger there makes "is this pack applied?" a look. A runner's word counts only when its objects are there.
"""

from __future__ import annotations

import random
import re
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from release_tasks.database import programs, psql, structure
from release_tasks.database.pack import DdlFile, pack_problems
from release_tasks.database.psql import Applied, Message
from release_tasks.errors import Problem, Refused, listed, refuse
from release_tasks.processes import shell
from release_tasks.settings import Ddl

if TYPE_CHECKING:
    from psycopg import Connection

ATTEMPTS = 6  # of a pack that meets a lock or a deadlock: within some ten seconds the others have ended
COLUMNS = {"file", "sha256", "version", "applied_at"}
WARNING = re.compile(r"\bWARNING\b[:\s]*(.*)")


@dataclass(frozen=True)
class Target:
    """A database that gets a pack, and its name in messages; for the application's runner its folder and variables."""

    name: str
    dsn: str
    folder: Path = Path()
    variables: Mapping[str, str] = field(default_factory=dict)


def unapplied(connection: Connection, pack: Iterable[DdlFile], ddl: Ddl) -> list[DdlFile]:
    """Return the files that were not applied to their end with their present content, in order. Raises `Refused`."""
    from psycopg import errors

    query = "select attname from pg_attribute where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped"
    columns, entered = {name for (name,) in connection.execute(query, [ddl.ledger])}, dict[str, str]()
    if lacking := columns and COLUMNS - columns:
        what = f"{ddl.ledger} is another table, no ledger: it has no column {', '.join(sorted(lacking))}."
        raise Refused(what, "Set release.ddl.ledger in invoke.yaml to another name.")
    try:
        if columns:
            query = f"select file, sha256 from {ddl.ledger} where applied_at is not null"
            entered = dict(connection.execute(query).fetchall())
    except errors.InsufficientPrivilege as error:
        what = f"The role {connection.info.user} may not read the ledger {ddl.ledger}: {error.diag.message_primary}."
        raise Refused(what, "Let the owner of the database release, or grant the right.") from None
    return [file for file in pack if entered.get(file.path) != file.sha256]


def server_problems(connection: Connection, where: str) -> list[Problem]:
    """Return why nothing can be applied here: a standby, or a read-only database."""
    row = connection.execute("select pg_is_in_recovery(), current_setting('default_transaction_read_only')").fetchone()
    if row and row[0]:
        what = f"The database of {where} is a read-only standby; expected the primary."
        return [Problem(what, "Set its dsn to the primary.")]
    if row and row[1] == "on":
        what = f"The database of {where} is read-only; expected one that can be changed."
        return [Problem(what, "alter database … reset default_transaction_read_only   # or of the role")]
    return []


def apply(
    target: Target,
    pack: Sequence[DdlFile],
    ddl: Ddl,
    version: str,
    expected: structure.Structure | None = None,
) -> list[Applied]:
    """Apply the whole `pack` to `target`; `expected` is what it makes, needed for the application's runner.

    Returns each file with its seconds and messages. Raises `Refused`, also where another release applies DDL there;
    what was not applied to its end is then not in the ledger, and the same command goes on.
    """
    from psycopg import Error

    refuse(pack_problems(pack, ddl))
    with programs.connect(target.dsn, target.name) as connection:
        refuse(server_problems(connection, target.name))
        unapplied(connection, pack, ddl)  # refuses a table that is no ledger
        try:
            if ddl.command:
                applied = _by_command(connection, target, pack, ddl, version, expected)
            else:
                applied = _by_psql(target, pack, ddl, version)
        except Error as error:
            reason = error.diag.message_primary or shell.mask(" ".join(str(error).split()))
            what = f"The DDL pack was not applied to {target.name}: {reason}."
            raise Refused(what, "Once that has ended, run the same command again.") from None
        if left := unapplied(connection, pack, ddl):
            names = listed(file.path for file in left)
            raise Refused(f"The ledger of {target.name} has no entry of {names}.", "Take \\connect out of the pack.")
    return applied


def _by_psql(target: Target, pack: Sequence[DdlFile], ddl: Ddl, version: str) -> list[Applied]:
    """Apply `pack`, and again where it meets a lock or a deadlock: a pack can be applied twice."""
    for attempt in range(ATTEMPTS):
        ran = psql.run(target.dsn, pack, ddl, version)
        if ran.error is None or ran.error.state not in psql.RETRIED:
            break
        time.sleep(random.uniform(0.1, 0.3) * 2**attempt)
    if ran.error:
        refuse([psql.problem(ran, ddl, target.name)])
    return ran.applied


def _by_command(
    connection: Connection,
    target: Target,
    pack: Sequence[DdlFile],
    ddl: Ddl,
    version: str,
    expected: structure.Structure | None,
) -> list[Applied]:
    """Let the application's runner apply `pack` while `connection` keeps others out, and see that it is there."""
    connection.execute(psql.LOCK)
    connection.execute(psql.ledger(pack, ddl).encode())
    variables = {**target.variables, "PGOPTIONS": psql.options(target.dsn, ddl, target.variables.get("PGOPTIONS", ""))}
    messages = run_command(pack, ddl, target.folder, variables)
    found = structure.read(target.dsn, target.name, roles=False)
    differing = structure.differences(expected, found) if expected else []
    missing = [
        each.name
        for each in differing
        if each.how == structure.MISSING and each.kind not in ("role", "membership") and not ddl.excepts(str(each))
    ]
    if missing:
        raise Refused(
            f"{shlex.join(ddl.command)} ended as if it had applied {len(pack)} files, "
            f"but of what they make {target.name} lacks {len(missing)}: {listed(missing, most=5)}.",
            "See which database it reaches: it has to read DATABASE_URL or PG*.",
        )
    with connection.transaction():
        for file in pack:
            connection.execute(psql.enter(file, ddl, version, "null", ddl.command[0]).encode())
    return [Applied(file, messages=messages if file is pack[-1] else []) for file in pack]


def run_command(pack: Sequence[DdlFile], ddl: Ddl, folder: Path, variables: Mapping[str, str]) -> list[Message]:
    """Run the application's own runner in `folder` with `variables`; return its warnings.

    It passes with exit code 0 and `must_print`, {count} being the number of files. Raises `Refused`.
    """
    ran = shell.run(ddl.command, cwd=folder, env=variables, timeout=ddl.timeout, leash=True)
    if not re.search(ddl.must_print.replace("{count}", rf"(?<!\d){len(pack)}(?!\d)"), ran.output):
        raise Refused(
            f"{shlex.join(ddl.command)} ended without an error, but did not print "
            f"{ddl.must_print.replace('{count}', str(len(pack)))!r}: "
            f"expected it to apply {len(pack)} files. It printed: {ran.tail(3)}",
            "Run it by hand with --dry-run and compare with the order lock.",
        )
    return [Message("", 0, "WARNING", "01000", text) for text in WARNING.findall(ran.output)]
