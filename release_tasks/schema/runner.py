"""Applying a DDL pack, one release at a time: by psycopg, file by file, or by the application's own runner."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from release_tasks import screen
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.processes import shell
from release_tasks.schema.ddl import DdlFile, encoding_problems, mention_of
from release_tasks.schema.sending import Applied, Hook, Notice, refuse_warnings, send_file

if TYPE_CHECKING:
    from pathlib import Path

    from psycopg import Connection

    from release_tasks.environments import Environment
    from release_tasks.settings import Ddl

ADVISORY_LOCK = 0x11EA5E  # any number will do, as long as every release takes the same
# So that a server sees that its client was killed while a statement runs; one on Windows cannot.
WATCH = """select set_config(name, '1000', false) from pg_settings
  where name = 'client_connection_check_interval' and version() !~* 'windows|mingw|visual c'"""
SAID = re.compile(r"\b(NOTICE|WARNING|ERROR|FATAL|PANIC)\b[:\s]*(.*)")
LOGGED = re.compile(r"\b(WARNING|ERROR|FATAL|PANIC): +(.*)")
SERVER_LOG = "the pack (server log)"  # no line of the log says of which file it is


def keep_others_out(connection: Connection, where: str, patience: float) -> bool:
    """Let no other release apply DDL here while `connection` lives (PostgreSQL, "Advisory Locks").

    The lock is polled, never waited for inside PostgreSQL, where the queue for it would deadlock with CREATE INDEX
    CONCURRENTLY. Says whom it waits for; raises `Refused` after `patience` seconds. Returns whether it had to wait.
    """
    deadline, told = time.monotonic() + patience, ""
    while connection.execute("select pg_try_advisory_lock(%s)", [ADVISORY_LOCK]).fetchone() != (True,):
        holder = _holder(connection)
        if time.monotonic() > deadline:
            raise Refused(
                f"Another release applies DDL to {where}: {holder}; waited {patience:g} s.",
                "Wait for it, then run again.",
            )
        if holder != told:
            screen.say(f"  …        waiting up to {patience:g} s for another release on {where}: {holder}")
            told = holder
        time.sleep(random.uniform(0.2, 0.6))
    return bool(told)


def _holder(connection: Connection) -> str:
    row = connection.execute(
        "select format('%%s, role %%s, process %%s, since %%s', application_name, usename, pid,"
        " backend_start::timestamptz(0)) from pg_locks join pg_stat_activity using (pid) where locktype = 'advisory'"
        " and objid = %s and granted and database = (select oid from pg_database where datname = current_database())",
        [ADVISORY_LOCK],
    ).fetchone()
    return row[0] if row else "it has just ended"


def server_problems(connection: Connection, where: str, ddl: Ddl) -> list[Problem]:
    """Return why nothing can be applied here: a standby, a read-only database, a server older than the pack needs."""
    row = connection.execute("select pg_is_in_recovery(), current_setting('default_transaction_read_only')").fetchone()
    found, problems = connection.info.server_version // 10000, []
    if row and row[0]:
        problems.append(
            Problem(f"The database of {where} is a read-only standby; expected the primary.", "Mend its dsn.")
        )
    elif row and row[1] == "on":
        problems.append(
            Problem(
                f"The database of {where} is read-only; expected one that can be changed.",
                "alter database … reset default_transaction_read_only   # or of the role",
            )
        )
    if found < ddl.min_server:
        what = f"The server of {where} is PostgreSQL {found}; the DDL pack needs {ddl.min_server} or newer."
        problems.append(Problem(what, "Upgrade the server, or lower release.ddl.min_server if the pack allows it."))
    return problems


def run(connection: Connection, pack: list[DdlFile], ddl: Ddl, before_commit: Hook) -> Iterator[Applied]:
    """Apply each file of `pack` over `connection` (in autocommit), and yield it with what PostgreSQL said.

    `before_commit(file, seconds)` is called in the file's own transaction, so that what it writes stands or falls
    with the file. Raises `Refused` naming file, line, statement and PostgreSQL's message; the file has then left
    nothing, unless it commits by itself.
    """
    refuse(encoding_problems(pack))
    connection.execute(WATCH)
    for file in pack:
        yield send_file(connection, file, ddl, before_commit)


def run_command(environment: Environment, pack: list[DdlFile], code: Path, version: str) -> list[Applied]:
    """Apply `pack` by the application's runner in `code`, or by whatever the settings name, and see what it says.

    It passes with exit code 0, `must_print`, and the files that it names in the locked order. Timeouts go by PGOPTIONS,
    which libpq's clients honour. What only the server log got meanwhile, from WARNING on, comes last, as of no file.
    """
    if not pack:
        return []
    settings, ddl = environment.settings, environment.settings.ddl
    env, told, names = environment.variables(version), " ".join(ddl.command), [file.name for file in pack]
    options = {"lock_timeout": ddl.lock_timeout, "statement_timeout": ddl.statement_timeout}
    given = [f"-c {name}={seconds * 1000:.0f}" for name, seconds in options.items()]
    env["PGOPTIONS"] = " ".join([*given, env.get("PGOPTIONS", "")]).strip()
    log = environment.log if environment.log and environment.log.exists() else None
    offset = log.stat().st_size if log else 0
    ran = shell.run(ddl.command, cwd=code / settings.folder, env=env, timeout=ddl.timeout, leash=True)
    expected = ddl.must_print.replace("{count}", rf"(?<!\d){len(pack)}(?!\d)")
    if not re.search(expected, ran.output):
        raise Refused(
            f"{told} ended without an error, but did not print {ddl.must_print.replace('{count}', str(len(pack)))!r}: "
            f"expected it to apply {len(pack)} files. It said: {ran.tail(3)}",
            "Run it by hand with --dry-run and compare with the order lock.",
        )
    named = list(dict.fromkeys(mention_of(names).findall(ran.stdout)))
    if len(named) == len(names) and named != names:
        found, instead = next(pair for pair in zip(named, names, strict=True) if pair[0] != pair[1])
        raise Refused(
            f"{told} applied the files in another order than the locked one: {found} before {instead}.",
            "Let release.ddl.order in invoke.yaml say how the runner sorts.",
        )
    applied = _by_file(pack, ran.output.splitlines())
    printed = [warning.message for each in applied for warning in each.warnings]
    logged = _logged_since(log, offset)
    if unprinted := [each for each in logged if not any(each.message in message for message in printed)]:
        applied.append(Applied(DdlFile(SERVER_LOG, b""), notices=unprinted))
    refuse_warnings(applied, ddl)
    return applied


def _logged_since(log: Path | None, offset: int) -> list[Notice]:
    if not log:
        return []
    with log.open("rb") as file:
        file.seek(offset if log.stat().st_size >= offset else 0)
        lines = file.read().decode(errors="replace").splitlines()
    return [Notice(*said.groups()) for line in lines if (said := LOGGED.search(line))]


def _by_file(pack: list[DdlFile], lines: list[str]) -> list[Applied]:
    """Give each NOTICE and WARNING among `lines` to the file that was named last."""
    applied = {file.name: Applied(file) for file in pack}
    owner, mention = next(iter(applied.values())), mention_of(applied)
    for line in lines:
        if named := mention.search(line):
            owner = applied[named.group()]
        if said := SAID.search(line):
            severity, message = said.groups()
            owner.notices.append(Notice(severity, message.removeprefix(owner.file.name).lstrip(": ") or line.strip()))
    return list(applied.values())
