"""A DDL pack as a script for psql, which a DBA can read and run by hand, and what psql printed while it ran."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from release_tasks.database import programs
from release_tasks.database.pack import DdlFile
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.settings import Ddl

if TYPE_CHECKING:
    from psycopg import Connection

ADVISORY_LOCK = 0x11EA5E  # any number will do, as long as every release takes the same
LOCKED = "55006"  # PostgreSQL's object_in_use
OPENING = """\\set ON_ERROR_STOP on
\\set ECHO errors
\\set VERBOSITY verbose
\\set SHOW_CONTEXT never
"""
LOCK = f"""do $$ begin
  if not pg_try_advisory_lock({ADVISORY_LOCK}) then
    raise exception using errcode = 'object_in_use', message = coalesce((
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
    applied_at = excluded.applied_at, duration = excluded.duration, runner = excluded.runner;
"""
CONCURRENTLY = re.compile(
    r'index\s+concurrently\s+(?:if\s+not\s+exists\s+)?("(?:[^"]|"")+"|[\w$]+)'
    r'\s+on\s+(?:only\s+)?((?:"(?:[^"]|"")+"|[\w$.])+)',
    re.IGNORECASE,
)
# What a stopped CREATE INDEX CONCURRENTLY leaves: `if not exists` would pass over it.
DROP_INVALID = """select format('drop index concurrently %I.%I', nspname, relname) from pg_index
  join pg_class c on c.oid = indexrelid join pg_namespace n on n.oid = relnamespace
  join (values {made}) as made (name, of) on relname = (parse_ident(name))[1] and indrelid = to_regclass(of)
  where not indisvalid and not exists (select from pg_stat_progress_create_index where index_relid = indexrelid)
\\gexec
"""
ENDED = """do $$ begin
  if now() <> statement_timestamp() then raise exception 'it begins a transaction and does not end it'; end if;
end $$;
"""
MESSAGE = re.compile(
    r"^psql:(?P<path>[^\n]+?):(?P<line>\d+): (?:(?P<severity>\w+):  (?P<state>\w{5}): )?(?P<text>.*(?:\n(?!psql:).*)*)",
    re.MULTILINE,
)
FIELD = re.compile(r"^(LINE \d+|DETAIL|HINT|QUERY|LOCATION|[A-Z ]+ NAME): ", re.MULTILINE)
PASSWORD = re.compile(r"\bpassword\b.*", re.IGNORECASE | re.DOTALL)


@dataclass
class Message:
    """One of psql's messages: the file and line it names, PostgreSQL's severity, SQLSTATE and text, the statement."""

    path: str
    line: int
    severity: str
    state: str
    text: str
    fields: str = ""
    statement: str = ""

    @property
    def warns(self) -> bool:
        return self.severity == "WARNING" or self.state[:2] == "01"

    @property
    def is_error(self) -> bool:
        return self.severity not in ("WARNING", "NOTICE", "INFO", "LOG", "DEBUG") and self.state[:2] not in ("00", "01")

    @property
    def at(self) -> int:
        """The line where it went wrong: psql names that in which the statement ends."""
        lines = self.statement.splitlines()
        position = re.search(r"^LINE (\d+):", self.fields, re.MULTILINE)
        code = (number for number, line in enumerate(lines) if line.strip() and not line.strip().startswith("--"))
        return self.line - max(0, len(lines) - 1) + (int(position[1]) - 1 if position else next(code, 0))

    def __str__(self) -> str:
        detail = re.search(r"^DETAIL:  (.*?)\.?$", self.fields, re.MULTILINE)
        state = f" (SQLSTATE {self.state})" if self.state and self.is_error else ""
        severity = "" if self.is_error else f"{self.severity}: "
        return f"{severity}{' '.join(self.text.split())}{f': {detail[1]}' if detail else ''}{state}"

    @property
    def shown(self) -> str:
        """The statement in one line, without what follows the word password."""
        text = " ".join(PASSWORD.sub("password …", self.statement).rstrip(";").split())
        return text if len(text) <= 100 else f"{text[:99]}…"


@dataclass
class Applied:
    """One applied file: its seconds (None where unknown), PostgreSQL's messages, and how often it was tried."""

    file: DdlFile
    seconds: float | None = None
    messages: list[Message] = field(default_factory=list)
    attempts: int = 1

    @property
    def warnings(self) -> list[Message]:
        return [each for each in self.messages if each.warns]

    @property
    def notices(self) -> int:
        return len(self.messages) - len(self.warnings)


def script(pack: Sequence[DdlFile], ddl: Ddl, version: str, watch: str = "") -> str:
    """Return the script that applies `pack`; it lies in the folder from where the files' paths begin.

    `watch` is SQL that is run in the transaction of each file, whose path is then the setting release.file.
    """
    parts = [
        OPENING,
        f"\n-- One release at a time; the lock ends with this session.\n{LOCK}",
        f"\n-- A file counts as applied when it is so to its end.\n{ledger(pack, ddl)}",
    ]
    for file in pack:
        path = literal(file.path)
        duration = "clock_timestamp() - now()" if file.in_transaction else "clock_timestamp() - :'began'::timestamptz"
        began = "begin;\n" if file.in_transaction else "select now() as began \\gset\n" + drop_invalid(file)
        parts += [
            f"\n-- {file.path}\nset session authorization default; reset all; discard temp; deallocate all;\n",
            f"set release.file = {path};\n" if watch else "",
            f"{began}\\ir {path}\n\\set ON_ERROR_STOP on\n",
            "" if file.in_transaction else ENDED,
            f"set session authorization default; reset role; set datestyle = iso;\n{watch}",
            enter(file, ddl, version, duration, "psql"),
            "commit;\n" if file.in_transaction else "",
        ]
    return "".join(parts)


def ledger(pack: Sequence[DdlFile], ddl: Ddl) -> str:
    """Return the SQL that makes the ledger, and lets all of `pack` count as unapplied: a killed run is seen as such."""
    paths = ", ".join(literal(file.path) for file in pack)
    return LEDGER.format(ledger=ddl.ledger, schema=ddl.ledger.partition(".")[0], paths=paths)


def enter(file: DdlFile, ddl: Ddl, version: str, duration: str, runner: str) -> str:
    """Return the SQL that enters `file` into the ledger; `duration` is an expression."""
    texts = {"path": file.path, "sha256": file.sha256, "version": version, "runner": runner}
    quoted = {name: literal(text) for name, text in texts.items()}
    return ENTER.format(ledger=ddl.ledger, duration=duration, **quoted)


def note_seconds(connection: Connection, applied: Iterable[Applied], ddl: Ddl) -> None:
    """Note how long each of the applied files took, by the ledger."""
    query = f"select file, extract(epoch from duration)::float8 from {ddl.ledger}"
    took: dict[str, float] = dict(connection.execute(query.encode()).fetchall())
    for each in applied:
        each.seconds = took.get(each.file.path)


def literal(text: str) -> str:
    """Return `text` as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def drop_invalid(file: DdlFile) -> str:
    """Return the script that drops the invalid indexes a stopped run of `file` has left."""
    made = CONCURRENTLY.findall(file.content.decode(errors="replace"))
    values = ", ".join(f"({literal(index)}, {literal(table)})" for index, table in made)
    return DROP_INVALID.format(made=values) if made else ""


def run(
    dsn: str, text: str, pack: Sequence[DdlFile], pgoptions: str, timeout: float
) -> tuple[list[Applied], DdlFile | None, Message | None]:
    """Run the script `text` over the files of `pack`; return those applied to their end, the next one, and its error.

    A lock that another release holds is an error of no file. Raises `Refused` where psql cannot connect.
    """
    with TemporaryDirectory(prefix="release-ddl-") as name:
        folder = Path(name)
        for path, content in {"apply.sql": text.encode(), **{file.path: file.content for file in pack}}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        env = {"PGOPTIONS": pgoptions, "PGCLIENTENCODING": "UTF8", "LC_MESSAGES": "C"}
        argv = ("--no-psqlrc", "--quiet", "--file", folder / "apply.sql")
        ran = programs.run("psql", dsn, *argv, env=env, timeout=timeout, check=False)
    files, found, failed = {file.path: Applied(file) for file in pack}, list(messages(ran.stderr)), None
    for message in found:
        path = Path(message.path).relative_to(folder).as_posix()
        if path not in files:  # of the script itself: of the file that it has come to, as at a commit
            path, message.line, message.statement = _file_at(text, message.line, files), 0, ""
        if not message.is_error and path in files:
            files[path].messages.append(message)
        elif message.is_error and not failed:
            failed = path, message
    if ran.code == 0:
        return list(files.values()), None, None
    if not failed:
        raise Refused(f"psql ended with exit code {ran.code}: {ran.tail(3)}", "Run the same command again.")
    path, message = failed
    if path not in files:
        return [], None, message
    return list(files.values())[: list(files).index(path)], files[path].file, message


def messages(printed: str) -> Iterator[Message]:
    """Yield psql's messages, each with the statement that psql prints after an error."""
    last: Message | None = None
    for found in MESSAGE.finditer(printed):
        if last and found["text"].startswith("STATEMENT:"):
            last.statement = found["text"].removeprefix("STATEMENT:").strip()
            continue
        if last:
            yield last
        text, _, fields = found["text"].strip().partition("\n")
        if more := FIELD.search(found["text"]):
            text, fields = found["text"][: more.start()].strip(), found["text"][more.start() :]
        severity, state = found["severity"] or "", found["state"] or ""
        last = Message(found["path"], int(found["line"]), severity, state, text.removeprefix("error: "), fields)
    if last:
        yield last


def _file_at(text: str, line: int, files: Container[str]) -> str:
    """Return the path of the file whose part of the script the line is in, "" before the first."""
    comments = (each.removeprefix("-- ") for each in text.splitlines()[line - 1 :: -1] if each.startswith("-- "))
    return next((path for path in comments if path in files), "")


def run_each(dsn: str, pack: Sequence[DdlFile], ddl: Ddl, watch: str = "") -> tuple[list[Applied], dict[str, Problem]]:
    """Apply each file of `pack` in its turn; one that fails is left out, and why is in path → problem."""
    from release_tasks.database import apply

    done, failed, rest = list[Applied](), dict[str, Problem](), list(pack)
    with programs.connect(dsn) as connection:
        while rest:
            options = apply.options(connection, ddl)
            applied, file, error = run(dsn, script(rest, ddl, "proof", watch), rest, options, ddl.timeout)
            done, rest = [*done, *applied], rest[len(applied) + 1 :]
            if error:
                problem = apply.failure(error, file, ddl, 1, connection.info.server_version // 10000)
                if file is None:
                    refuse([problem])
                else:
                    failed[file.path] = problem
        if done:
            note_seconds(connection, done, ddl)
    return done, failed
