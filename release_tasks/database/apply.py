"""A DDL pack and an environment: applied one release at a time, by psql or the application's own runner; drift.

The ledger there makes "is this pack applied?" a look. A runner's success counts only once its objects are there.
"""

import re
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from psycopg import Connection

from release_tasks import process
from release_tasks.database import proof, psql, structure
from release_tasks.database.pack import DdlFile, pack_problems
from release_tasks.database.structure import MISSING, Difference
from release_tasks.environments import Environment
from release_tasks.errors import Problem, Refused, listed, refuse
from release_tasks.settings import Ddl

ATTEMPTS = 6  # of a pack that meets a lock, for which each waits, or a deadlock
# What PostgreSQL itself grants to a role that makes another one ("CREATE ROLE"): to give it to others, no more.
GRANTED_TO_MAKER = "WITH ADMIN OPTION, INHERIT FALSE, SET FALSE"
WARNING = re.compile(r"\bWARNING\b[:\s]*(.*)")


def applied(environment: Environment) -> list[tuple[str, str, str]]:
    """Return path, SHA-256 and version of each file that was applied to its end, the last one last."""
    ledger = environment.settings.ddl.ledger
    with environment.connect() as connection:
        if connection.execute("select to_regclass(%s)", [ledger]).fetchone() == (None,):
            return []
        return connection.execute(f"select file, sha256, version from {ledger} order by applied_at").fetchall()


def unapplied(environment: Environment, pack: Iterable[DdlFile]) -> list[DdlFile]:
    """Return the files that were not applied to their end with their present content, in order."""
    entered = {(path, sha256) for path, sha256, _ in applied(environment)}
    return [file for file in pack if (file.path, file.sha256) not in entered]


def last_applied(environment: Environment) -> tuple[str, set[tuple[str, str]]]:
    """Return the version for which a file was applied last, "" for none, with path and SHA-256 of all its files."""
    rows = applied(environment)
    last = rows[-1][2] or "" if rows else ""  # a ledger of somebody else's may have none
    return last, {(path, sha256) for path, sha256, version in rows if version == last}


def server_problems(connection: Connection, where: str) -> list[Problem]:
    """Return why nothing can be applied here: a standby, or a read-only database."""
    query = "select pg_is_in_recovery() or current_setting('default_transaction_read_only')::bool"
    if connection.execute(query).fetchone() != (True,):
        return []
    what = f"The database of {where} is read-only: a standby, or default_transaction_read_only is on."
    return [Problem(what, f"Set release.environments.{where}.dsn to the primary.")]


def apply(environment: Environment, pack: Sequence[DdlFile], code: Path, version: str) -> list[str]:
    """Apply the whole `pack`, by the runner in the folder `code` if there is one; return warnings. Raises `Refused`."""
    where, ddl = environment.name, environment.settings.ddl
    refuse(pack_problems(pack, ddl))
    with environment.connect() as connection:
        refuse(server_problems(connection, where))
        if ddl.command:
            return _by_command(connection, environment, pack, code, version)
    for _ in range(ATTEMPTS):  # a pack can be applied twice
        ran = psql.run(environment.dsn, pack, ddl, version, where)
        if not ran.can_be_retried:
            break
        time.sleep(1)
    refuse(ran.problems)
    return ran.warnings


def _by_command(
    connection: Connection, environment: Environment, pack: Sequence[DdlFile], code: Path, version: str
) -> list[str]:
    """Let the application's runner apply `pack` while `connection` keeps others out, and see that all is there."""
    settings, ddl = environment.settings, environment.settings.ddl
    # What can be refused of the comparison below is refused before anything is changed; it is remembered.
    proof.made_by(pack, environment.root, settings, connection.info.server_version // 10000)
    connection.execute(psql.LOCK.encode())
    connection.execute(psql.ledger(pack, ddl).encode())
    variables = environment.variables(version)
    variables["PGOPTIONS"] = psql.options(ddl, variables.get("PGOPTIONS", ""))
    warnings = run_command(pack, ddl, code / settings.folder, variables)
    if missing := missing_in(environment, pack):
        names = listed((each.name for each in missing), most=5)
        lacking = f"of what they make {environment.name} lacks {len(missing)}: {names}"
        what = f"{shlex.join(ddl.command)} ended as if it had applied {len(pack)} files, but {lacking}."
        raise Refused(what, "See which database it reaches: it has to read DATABASE_URL or PG*.")
    connection.execute(psql.entries(pack, ddl, version).encode())
    return warnings


def run_command(pack: Sequence[DdlFile], ddl: Ddl, folder: Path, variables: Mapping[str, str]) -> list[str]:
    """Run the application's own runner, which passes with exit code 0 and `must_print`; return its warnings."""
    ran = process.run(ddl.command, cwd=folder, env=variables, timeout=ddl.timeout, supervised=True)
    if not re.search(ddl.must_print.replace("{count}", rf"(?<!\d){len(pack)}(?!\d)"), ran.output):
        what = f"{shlex.join(ddl.command)} did not print {ddl.must_print!r} for {len(pack)} files, but: {ran.tail(3)}"
        raise Refused(what, "Run it by hand with --dry-run and compare with the order lock.")
    return [f"WARNING: {text}" for text in WARNING.findall(ran.output)]


def drift(environment: Environment, pack: Sequence[DdlFile]) -> list[Difference]:
    """Return each object of `environment` that differs from what `pack` makes, is missing, or is of no file.

    The ledger is no drift, nor is a role that the pack does not make: another database of the server may use it.
    """
    ledger = environment.settings.ddl.ledger
    with environment.connect() as connection:
        major = connection.info.server_version // 10000
        query = "select tableowner from pg_tables where format('%%s.%%s', schemaname, tablename) = %s"
        ((role,),) = connection.execute(f"select coalesce(({query}), current_user)", [ledger]).fetchall()
    made = proof.made_by(pack, environment.root, environment.settings, major)
    for name in made:  # who owns a table needs no grants, and has none in a dump
        if name.startswith("acl "):
            made[name] = [line for line in made[name] if not line.endswith(f" TO {role}")]
    found = structure.read(environment.dsn, environment.name, role=role, without=ledger)
    for name in found.keys() - made.keys():
        is_ours = f"role {name.rpartition(' ')[2]}" in made and GRANTED_TO_MAKER not in found[name][0]
        if name == f"schema {ledger.partition('.')[0]}" or (name.startswith(("role ", "membership ")) and not is_ours):
            del found[name]
    return structure.differences(made, found)


def missing_in(environment: Environment, pack: Sequence[DdlFile]) -> list[Difference]:
    """Return what `pack` makes and `environment` lacks, but for what the settings have a reason for."""
    missing = [each for each in drift(environment, pack) if each.how == MISSING]
    return [each for each in missing if not environment.settings.ddl.excepts(str(each))]
