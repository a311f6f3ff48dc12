"""A DDL pack as a script for psql, which a DBA can read and run by hand, and what psql printed while it ran."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from psycopg.sql import quote

from release_tasks.database import programs, structure
from release_tasks.database.pack import DdlFile
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.settings import Ddl

ADVISORY_LOCK = 0x11EA5E  # any number will do, as long as every release takes the same
SLACK = 60.0  # seconds for psql beyond the time limit of a statement
RETRIED = ("55P03", "40P01")  # lock not available, deadlock detected
LOST = 2  # psql's exit code where the connection ended
OPENING = """\\set ON_ERROR_STOP on
\\set VERBOSITY verbose
\\set SHOW_CONTEXT never
"""
# It is tried, not waited for: in PostgreSQL's queue for it, CREATE INDEX CONCURRENTLY would be a deadlock.
LOCK = f"""do $$ begin
  if not pg_try_advisory_lock({ADVISORY_LOCK}) then
    raise exception using errcode = 'object_in_use', message = 'another release applies DDL here: ' || coalesce((
      select format('%s, role %s, process %s, since %s', application_name, usename, pid, backend_start::timestamptz(0))
      from pg_locks join pg_stat_activity using (pid) where locktype = 'advisory' and granted
        and objid = {ADVISORY_LOCK} and datname = current_database() limit 1), 'it has just ended');
  end if;
end $$;
"""
LEDGER = """do $$ begin
  if to_regclass('{ledger}') is null then
    set local client_min_messages = warning;
    create schema if not exists {schema};
    create table {ledger} (file text primary key, sha256 text not null, version text not null,
      applied_at timestamptz not null default clock_timestamp(), applied_by text not null default current_user);
  end if;
end $$;
delete from {ledger} where file in ({paths});
"""
# What a stopped CREATE INDEX CONCURRENTLY leaves: `if not exists` would pass over it.
DROP_INVALID = """select format('drop index concurrently %I.%I', nspname, relname) from pg_index
  join pg_class c on c.oid = indexrelid join pg_namespace n on n.oid = relnamespace
  where relkind = 'i' and not indisvalid
    and not exists (select from pg_stat_progress_create_index where index_relid = indexrelid)
\\gexec
"""
SCRIPT = "apply.sql"
# A server sees that its client was killed while a statement runs, if it looks; one on Windows cannot.
FILE = """
-- {path}
\\echo release: {quoted}
set session authorization default; reset all; discard temp; deallocate all;
select set_config('client_connection_check_interval',
  case when version() ~* 'windows|mingw|visual c' then '0' else '1000' end, false) as release_interval \\gset
set release.file = {quoted};
{before}{begin}\\ir {quoted}
\\set ON_ERROR_STOP on
set session authorization default; reset role;
{watch}{enter}{commit}"""
BEGUN = re.compile(r"^release: (.+)$", re.MULTILINE)
# psql's message, with PostgreSQL's severity and SQLSTATE where it is the server's; of its fields, DETAIL is kept.
MESSAGE = re.compile(
    r"""^psql:(?P<path>[^\n]+?):(?P<line>\d+):\ (?!warning:)(?:error:\ )?(?:(?P<severity>\w+):\ \ (?P<state>\w{5}):\ )?
    (?P<text>.*(?:\n(?!psql:|LINE\ \d|[A-Z ]+:\ \ ).*)*)
    (?:\n(?!psql:|DETAIL:).*)*(?:\nDETAIL:\ \ (?P<detail>.*))?""",
    re.MULTILINE | re.VERBOSE,
)
HARMLESS = ("WARNING", "NOTICE", "INFO", "LOG", "DEBUG")


@dataclass(frozen=True)
class Ran:
    """Outcome of psql: file → its warnings, for each file that was applied; then which one failed, and why.

    `file` is empty where none had begun.
    """

    applied: dict[str, list[str]]
    file: str = ""
    state: str = ""
    problem: Problem | None = None


def script(pack: Sequence[DdlFile], ddl: Ddl, version: str, watch: str = "") -> str:
    """Return the script that applies `pack` (not empty); it lies in the folder from where the files' paths begin.

    `watch` is SQL that is run in the transaction of each file, whose path is then the setting release.file.
    """
    opening = f"{OPENING}\n-- One release at a time; the lock ends with this session.\n{LOCK}"
    opening += f"\n-- A file counts as applied when it is so to its end.\n{ledger(pack, ddl)}"
    files = [
        FILE.format(
            path=file.path,
            quoted=quote(file.path),
            before="" if file.in_transaction else DROP_INVALID,
            begin="begin;\n" if file.in_transaction else "",
            watch=watch,
            enter=enter(file, ddl, version),
            commit="commit;\n" if file.in_transaction else "",
        )
        for file in pack
    ]
    return "".join([opening, *files])


def ledger(pack: Sequence[DdlFile], ddl: Ddl) -> str:
    """Return the SQL that makes the ledger, and lets all of `pack` count as unapplied: a killed run is seen as such."""
    paths = ", ".join(quote(file.path) for file in pack)
    return LEDGER.format(ledger=ddl.ledger, schema=ddl.ledger.partition(".")[0], paths=paths)


def enter(file: DdlFile, ddl: Ddl, version: str) -> str:
    """Return the SQL that enters `file` into the ledger."""
    values = ", ".join(map(quote, (file.path, file.sha256, version)))
    return f"insert into {ddl.ledger} (file, sha256, version) values ({values});\n"


def options(ddl: Ddl, given: str = "") -> str:
    """Return PGOPTIONS with the timeouts of the settings and what is `given`, for the clients of libpq."""
    return f"-c lock_timeout={ddl.lock_timeout * 1000:.0f} -c statement_timeout={ddl.timeout * 1000:.0f} {given}"


def run(dsn: str, pack: Sequence[DdlFile], ddl: Ddl, version: str, where: str, watch: str = "") -> Ran:
    """Apply `pack` to the database `dsn` of `where` by one psql, up to the first error. Raises `Refused`."""
    with TemporaryDirectory(prefix="release-ddl-") as name:
        folder = Path(name)
        contents = {SCRIPT: script(pack, ddl, version, watch).encode(), **{file.path: file.content for file in pack}}
        for path, content in contents.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        env = {"PGOPTIONS": options(ddl), "PGCLIENTENCODING": "UTF8", "LC_MESSAGES": "C"}
        argv = ("--no-psqlrc", "--quiet", "--file", folder / SCRIPT)
        ran = programs.run("psql", dsn, *argv, env=env, timeout=ddl.timeout + SLACK, check=False)
    begun = BEGUN.findall(ran.stdout)
    applied = {path: list[str]() for path in (begun if ran.code == 0 else begun[:-1])}
    error: dict[str, str] = {}
    for found in MESSAGE.finditer(ran.stderr):
        path = Path(found["path"]).as_posix().removeprefix(f"{folder.as_posix()}/")
        parts = (" ".join(part.split()).rstrip(".") for part in (found["text"], found["detail"]) if part)
        message = {**found.groupdict(), "path": path, "text": ": ".join(parts)}
        if found["severity"] == "WARNING" and path in applied:
            applied[path].append(f"WARNING: {message['text']}")
        elif found["severity"] not in HARMLESS and (found["state"] or "")[:2] not in ("00", "01"):
            error = error or message
    if ran.code == 0:
        return Ran(applied)
    if not error:
        raise Refused(f"psql ended with exit code {ran.code}: {ran.tail(3)}", "Run the same command again.")
    file = begun[-1] if begun else ""
    return Ran(applied, file, error["state"], _problem(error, file, where, ddl, lost=ran.code == LOST))


def _problem(error: Mapping[str, str], file: str, where: str, ddl: Ddl, lost: bool) -> Problem:
    """Return why psql stopped: file, line, message and SQLSTATE, and what to do about it."""
    others = "select pid, query from pg_stat_activity where state <> 'idle'   -- who holds it; then run again"
    marker = f"Where it has to be: write -- release: no-transaction into {file}, on a line of its own."
    hints = {
        **dict.fromkeys(("25001", "2D000"), marker),
        **dict.fromkeys(RETRIED, others),
        "42501": "Grant what is missing, or let the owner of the database release; then run again.",
        "42883": f"Fix {file}, or use the version of PostgreSQL that it is written for.",
        "55006": "Wait for it to end, then run again.",
        "57014": f"Run again; where it needs more than {ddl.timeout:g} s, set release.ddl.timeout.",
    }
    hint = hints.get(error["state"], f"Fix {file}; once the tag is published, a fix is a new version.")
    at = f"{file}, line {error['line']}" if error["path"] == file else file
    state = f" (SQLSTATE {error['state']})" if error["state"] else ""
    what = f"{at or f'The DDL pack was not applied to {where}'}: {error['text']}{state}."
    return Problem(what, "Run the same command again." if lost else hint)


def run_each(
    dsn: str, pack: Sequence[DdlFile], ddl: Ddl, watch: str = ""
) -> tuple[dict[str, list[str]], dict[str, Problem]]:
    """Apply each file of `pack` on a scratch server; return file → its warnings, and file → why it failed."""
    ours = ddl.model_copy(update={"ledger": f"{structure.OURS}.ledger"})
    applied, failed, rest = dict[str, list[str]](), dict[str, Problem](), list(pack)
    while rest:
        ran = run(dsn, rest, ours, "proof", "the scratch server", watch)
        applied |= ran.applied
        rest = rest[len(ran.applied) + 1 :]
        if ran.problem and not ran.file:
            refuse([ran.problem])
        elif ran.problem:
            failed[ran.file] = ran.problem
    return applied, failed
