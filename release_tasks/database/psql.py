"""A DDL pack as a script for psql, which a DBA can read and run by hand, and what psql printed while it ran."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from release_tasks.database import programs
from release_tasks.database.pack import DdlFile
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.settings import Ddl

ADVISORY_LOCK = 0x11EA5E  # any number will do, as long as every release takes the same
SLACK = 60.0  # seconds for psql beyond the time limit of a statement
RETRIED = ("55P03", "40P01")  # lock not available, deadlock detected
LOST = ("57P01", "57P02", "57P03", "08")  # the server ends, or the connection
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
  if not exists (select from pg_attribute where attrelid = to_regclass('{ledger}') and attname = 'runner') then
    set local client_min_messages = warning;
    create schema if not exists {schema};
    create table if not exists {ledger} (
      file text primary key, sha256 text not null, version text not null, applied_at timestamptz
    );
    alter table {ledger} alter column applied_at drop not null, add column if not exists duration interval,
      add column if not exists by text not null default current_user,
      add column if not exists runner text not null default '';
  end if;
end $$;
update {ledger} set applied_at = null where file in ({paths});
"""
ENTER = """insert into {ledger} (file, sha256, version, applied_at, duration, runner)
  values ({path}, {sha256}, {version}, clock_timestamp(), {duration}, {runner})
  on conflict (file) do update set sha256 = excluded.sha256, version = excluded.version, by = current_user,
    applied_at = excluded.applied_at, duration = excluded.duration, runner = excluded.runner"""
DURATION = "make_interval(secs => extract(epoch from clock_timestamp()) - :release_began)"
# What a stopped CREATE INDEX CONCURRENTLY leaves: `if not exists` would pass over it.
DROP_INVALID = """select format('drop index concurrently %I.%I', nspname, relname) from pg_index
  join pg_class c on c.oid = indexrelid join pg_namespace n on n.oid = relnamespace
  where relkind = 'i' and not indisvalid
    and not exists (select from pg_stat_progress_create_index where index_relid = indexrelid)
\\gexec
"""
ENDED = """do $$ begin
  if now() <> statement_timestamp() then raise exception 'it begins a transaction and does not end it'; end if;
end $$;
"""
SCRIPT = "apply.sql"
FILE = """
-- {path}
set session authorization default; reset all; discard temp; deallocate all;
{watched}{before}select extract(epoch from clock_timestamp()) as release_began \\gset
{begin}\\ir {quoted}
\\set ON_ERROR_STOP on
{ended}set session authorization default; reset role;
{watch}{enter}
  returning extract(epoch from duration)::numeric(10, 3) as release_seconds \\gset
{commit}\\echo release: applied {quoted} :release_seconds
"""
MESSAGE = re.compile(
    r"^psql:(?P<path>[^\n]+?):(?P<line>\d+): (?:(?P<severity>\w+):  (?P<state>\w{5}): )?(?P<text>.*(?:\n(?!psql:).*)*)",
    re.MULTILINE,
)
DETAIL = re.compile(r"^DETAIL:  (.*)$", re.MULTILINE)
FIELD = re.compile(r"^(?:LINE \d+|[A-Z ]+):  ?", re.MULTILINE)
APPLIED = re.compile(r"^release: applied (.+) ([\d.]+)$", re.MULTILINE)
# So that a server sees that its client was killed while a statement runs; one on Windows cannot.
WATCHES_CLIENT = """select 1 from pg_settings
  where name = 'client_connection_check_interval' and version() !~* 'windows|mingw|visual c'"""


@dataclass(frozen=True)
class Message:
    """One of psql's messages: the file and line it names, PostgreSQL's severity, SQLSTATE and text."""

    path: str
    line: int
    severity: str
    state: str
    text: str

    @property
    def is_error(self) -> bool:
        return self.severity not in ("WARNING", "NOTICE", "INFO", "LOG", "DEBUG") and self.state[:2] not in ("00", "01")

    def __str__(self) -> str:
        state = f" (SQLSTATE {self.state})" if self.state and self.is_error else ""
        return f"{'' if self.is_error else f'{self.severity}: '}{self.text}{state}"


@dataclass
class Applied:
    """A file that was applied to its end: its seconds (None where unknown) and PostgreSQL's messages."""

    file: DdlFile
    seconds: float | None = None
    messages: list[Message] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        return [str(each) for each in self.messages if each.severity == "WARNING"]


@dataclass(frozen=True)
class Ran:
    """How far psql came: the files applied to their end, then the file (None: none yet) and the error that stopped."""

    applied: list[Applied]
    file: DdlFile | None = None
    error: Message | None = None


def literal(text: str) -> str:
    """Return `text` as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def script(pack: Sequence[DdlFile], ddl: Ddl, version: str, watch: str = "") -> str:
    """Return the script that applies `pack`; it lies in the folder from where the files' paths begin.

    `watch` is SQL that is run in the transaction of each file, whose path is then the setting release.file.
    """
    opening = f"{OPENING}\n-- One release at a time; the lock ends with this session.\n{LOCK}"
    opening += f"\n-- A file counts as applied when it is so to its end.\n{ledger(pack, ddl)}"
    files = [
        FILE.format(
            path=file.path,
            quoted=literal(file.path),
            watched=f"set release.file = {literal(file.path)};\n" if watch else "",
            before="" if file.in_transaction else DROP_INVALID,
            begin="begin;\n" if file.in_transaction else "",
            ended="" if file.in_transaction else ENDED,
            watch=watch,
            enter=enter(file, ddl, version, DURATION, "psql"),
            commit="commit;\n" if file.in_transaction else "",
        )
        for file in pack
    ]
    return "".join([opening, *files])


def ledger(pack: Sequence[DdlFile], ddl: Ddl) -> str:
    """Return the SQL that makes the ledger, and lets all of `pack` count as unapplied: a killed run is seen as such."""
    paths = ", ".join(literal(file.path) for file in pack)
    return LEDGER.format(ledger=ddl.ledger, schema=ddl.ledger.partition(".")[0], paths=paths)


def enter(file: DdlFile, ddl: Ddl, version: str, duration: str, runner: str) -> str:
    """Return the SQL that enters `file` into the ledger; `duration` is an expression."""
    texts = {"path": file.path, "sha256": file.sha256, "version": version, "runner": runner}
    return ENTER.format(ledger=ddl.ledger, duration=duration, **{name: literal(text) for name, text in texts.items()})


def options(dsn: str, ddl: Ddl, given: str = "") -> str:
    """Return PGOPTIONS with the timeouts of the settings, for the clients of libpq."""
    with programs.connect(dsn) as connection:
        check = "-c client_connection_check_interval=1000" if connection.execute(WATCHES_CLIENT).fetchone() else ""
    timeouts = f"-c lock_timeout={ddl.lock_timeout * 1000:.0f} -c statement_timeout={ddl.timeout * 1000:.0f}"
    return " ".join(f"{check} {timeouts} {given}".split())


def run(dsn: str, pack: Sequence[DdlFile], ddl: Ddl, version: str, watch: str = "") -> Ran:
    """Apply `pack` to the database `dsn` by one psql; it stops at the first error. Raises `Refused` without psql."""
    text = script(pack, ddl, version, watch)
    with TemporaryDirectory(prefix="release-ddl-") as name:
        folder = Path(name)
        for path, content in {SCRIPT: text.encode(), **{file.path: file.content for file in pack}}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        env = {"PGOPTIONS": options(dsn, ddl), "PGCLIENTENCODING": "UTF8", "LC_MESSAGES": "C"}
        argv = ("--no-psqlrc", "--quiet", "--file", folder / SCRIPT)
        ran = programs.run("psql", dsn, *argv, env=env, timeout=ddl.timeout + SLACK, check=False)
        printed = list(messages(ran.stderr, folder))
    seconds = {path: float(took) for path, took in APPLIED.findall(ran.stdout)}
    files = {file.path: file for file in pack}
    applied = [
        Applied(files[path], took, [each for each in printed if each.path == path and not each.is_error])
        for path, took in seconds.items()
    ]
    if ran.code == 0:
        return Ran(applied)
    error = next((each for each in printed if each.is_error), None)
    if error is None:
        raise Refused(f"psql ended with exit code {ran.code}: {ran.tail(3)}", "Run the same command again.")
    opening = text[: text.index(f"\n-- {pack[0].path}\n")].count("\n")
    begun = error.path != SCRIPT or error.line > opening
    return Ran(applied, next((file for file in pack if file.path not in seconds), None) if begun else None, error)


def messages(printed: str, folder: Path) -> Iterator[Message]:
    """Yield psql's messages; `folder` is where the script lies. Of an error's fields, DETAIL is kept."""
    for found in MESSAGE.finditer(printed):
        first = FIELD.split(found["text"], maxsplit=1)[0].removeprefix("error: ")
        text = ": ".join(" ".join(part.split()).rstrip(".") for part in (first, *DETAIL.findall(found["text"])))
        path = Path(found["path"])
        path = path.relative_to(folder) if path.is_relative_to(folder) else path  # a file may include others by \i
        yield Message(path.as_posix(), int(found["line"]), found["severity"] or "", found["state"] or "", text)


def problem(ran: Ran, ddl: Ddl, where: str) -> Problem:
    """Return why psql stopped: file, line, message and SQLSTATE, and what to do about it."""
    error, file = ran.error, ran.file
    assert error is not None, "only a run that was stopped has a problem"
    if file is None:
        fix = "Wait for it to end" if error.state == "55006" else "Let the owner of the database release"
        return Problem(f"The DDL pack was not applied to {where}: {error}.", f"{fix}, then run again.")
    if error.state.startswith(LOST) or "server was lost" in error.text or "closed the connection" in error.text:
        what = f"The connection was lost while {file.path} was applied: {error.text}."
        return Problem(what, "Run the same command again.")
    marker = f"Where it has to be: write -- release: no-transaction into {file.path}, on a line of its own."
    others = "select pid, query from pg_stat_activity where state <> 'idle'   -- who holds it; then run again"
    hints = {
        **dict.fromkeys(("25001", "2D000"), marker),
        **dict.fromkeys(RETRIED, others),
        "42883": f"Fix {file.path}, or use the version of PostgreSQL that it is written for.",
        "57014": f"Run again; where it needs more than {ddl.timeout:g} s, set release.ddl.timeout.",
    }
    hint = hints.get(error.state, f"Fix {file.path}; once the tag is published, a fix is a new version.")
    line = f", line {error.line}" if error.path == file.path else ""
    return Problem(f"{file.path}{line}: {error}.", hint)


def run_each(dsn: str, pack: Sequence[DdlFile], ddl: Ddl, watch: str = "") -> tuple[list[Applied], dict[str, Problem]]:
    """Apply each file of `pack` in its turn, for a proof: one that fails is left out, and why is in path → problem."""
    applied, failed, rest = list[Applied](), dict[str, Problem](), list(pack)
    while rest:
        ran = run(dsn, rest, ddl, "proof", watch)
        applied += ran.applied
        rest = rest[len(ran.applied) + 1 :]
        if ran.error and ran.file is None:
            refuse([problem(ran, ddl, "the scratch server")])
        elif ran.error and ran.file:
            failed[ran.file.path] = problem(ran, ddl, "the scratch server")
    return applied, failed
