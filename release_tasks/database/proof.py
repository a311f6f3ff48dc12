"""The proof of a DDL pack on a scratch server: from empty, again, over the last release, over a copy of real rows.

What a file drops, rewrites, empties and locks is what PostgreSQL saw happen there (PostgreSQL, "Event Triggers").
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from release_tasks.database import apply, programs, psql, scratch, structure
from release_tasks.database.pack import DdlFile
from release_tasks.database.psql import Applied
from release_tasks.database.server import Running
from release_tasks.database.structure import Structure
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.settings import Ddl

if TYPE_CHECKING:
    from psycopg import Connection

WATCH = """create schema release_proof;
create unlogged table release_proof.seen (
  id serial, file text, what text, object text, unique nulls not distinct (file, what, object)
);
create unlogged table release_proof.was as
  select oid, relfilenode, relnamespace::regnamespace || '.' || quote_ident(relname) as name from pg_class
  where relkind in ('r', 'm') and oid >= 16384 and relnamespace <> 'release_proof'::regnamespace;
create function release_proof.see() returns event_trigger language plpgsql security definer set search_path = '' as $$
declare file text := current_setting('release.file', true);
begin
  if tg_event = 'ddl_command_end' then
    insert into release_proof.seen (file, what, object) select file, 'makes', object_identity
      from pg_catalog.pg_event_trigger_ddl_commands() where object_identity is not null on conflict do nothing;
  elsif tg_event = 'sql_drop' then
    insert into release_proof.seen (file, what, object) select file, 'drops', object_type || ' ' || object_identity
      from pg_catalog.pg_event_trigger_dropped_objects() where original and not is_temporary
      and object_type in ('table', 'table column', 'materialized view', 'schema', 'sequence', 'type')
      on conflict do nothing;
  else
    insert into release_proof.seen (file, what, object) select file, 'rewrites', name from release_proof.was
      where oid = pg_catalog.pg_event_trigger_table_rewrite_oid() on conflict do nothing;
  end if;
end $$;
create event trigger release_proof_made on ddl_command_end execute function release_proof.see();
create event trigger release_proof_drop on sql_drop execute function release_proof.see();
create event trigger release_proof_rewrite on table_rewrite execute function release_proof.see();
"""
AFTER_FILE = """insert into release_proof.seen (file, what, object)
  select current_setting('release.file', true), what, name from (
    select 'locks', relation from pg_locks where pid = pg_backend_pid() and mode = 'AccessExclusiveLock'
    union select 'changes rows of', relid from pg_stat_xact_user_tables where n_tup_upd + n_tup_del > 0
    union select 'empties', w.oid from release_proof.was w join pg_class c using (oid)
      where c.relfilenode <> w.relfilenode
      and not exists (select from release_proof.seen where seen.what = 'rewrites' and object = name)
  ) as done (what, oid) join release_proof.was using (oid) on conflict do nothing;
update release_proof.was w set relfilenode = c.relfilenode from pg_class c where c.oid = w.oid;
"""
END = """drop event trigger if exists release_proof_made; drop event trigger if exists release_proof_drop;
  drop event trigger if exists release_proof_rewrite; drop schema release_proof cascade"""
COLUMNS = """select relnamespace::regnamespace || '.' || quote_ident(relname), array_agg(quote_ident(attname)),
    array_agg(format_type(atttypid, atttypmod)), array_agg(format('sum(hashtextextended(%%I::text, 0))', attname))
  from pg_class c join pg_attribute a on attrelid = c.oid where relkind = 'r' and c.oid >= 16384 and attnum > 0
  and not attisdropped and relnamespace <> all (%s::regnamespace[]) and relpersistence <> 't' group by c.oid"""
AS_TEXT = """set timezone = 'UTC'; set datestyle = 'ISO'; set intervalstyle = 'postgres'; set bytea_output = 'hex';
  set extra_float_digits = 1; set row_security = off; set statement_timeout = 0"""
Rows = dict[str, tuple[int, dict[str, tuple[str, object]]]]  # table → its rows, and column → type, hash of its values
ABSENT = ("42P01", "42883", "42704", "42703", "3F000")  # undefined table, function, object, column, schema


@dataclass
class Watched:
    """A pack applied under watch: its files, why some failed, what each was seen to do, rows before and after."""

    applied: list[Applied] = field(default_factory=list)
    failed: dict[str, Problem] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    before: Rows = field(default_factory=dict)
    after: Rows = field(default_factory=dict)

    def did(self, *what: str) -> list[tuple[str, str, str]]:
        """Return (path, what, object) for what the files did to what was there before."""
        return [each for each in self.seen if each[1] in what]

    def makers(self, names: Iterable[str]) -> dict[str, str]:
        """Return object → path of the file that made or changed it last, as far as is known."""
        made = {identity: file for file, what, identity in self.seen if what == "makes"}
        found = {}
        for name in names:
            kind, _, thing = name.partition(" ")
            of, _, part = thing.partition(" ")  # "trigger s.t g" is known to PostgreSQL as "g on s.t"
            for identity, file in made.items():
                is_column = kind == "table" and identity.startswith(f"{thing}.")
                if is_column or identity in (thing, f"{part} on {of}"):
                    found[name] = file
        return found

    def losses(self) -> Iterator[str]:
        """Yield which rows and values that were there before are gone or others now."""
        writers: dict[str, list[str]] = {}
        for file, _, name in self.did("drops", "empties", "changes rows of"):
            writers.setdefault(name.removeprefix("table ").removeprefix("column "), []).append(file)
        for table, (count, values) in self.before.items():
            by = f" ({', '.join(dict.fromkeys(writers.get(table, [])))})" if table in writers else ""
            now, left = self.after.get(table, (0, {}))
            if now < count:
                yield f"table {table} had {count} rows and has {now} now{by}"
            for column, (type_, hashed) in values.items() if now == count > 0 else ():
                if column not in left:
                    of = f" ({', '.join(writers[f'{table}.{column}'])})" if f"{table}.{column}" in writers else ""
                    yield f"column {table}.{column} is dropped, with the values of {count} rows{of}"
                elif left[column] != (type_, hashed) and left[column][0] == type_:
                    yield f"values in column {table}.{column} change{by}"


def watched(dsn: str, pack: Sequence[DdlFile], ddl: Ddl) -> Watched:
    """Apply `pack` by psql to a database of a scratch server, each file in its turn, and watch what becomes of it.

    A file that fails is left out, and the next one is tried.
    """
    found, rest = Watched(), list(pack)
    ours = ddl.model_copy(update={"ledger": "release_proof.ledger"})
    with programs.connect(dsn) as connection:
        server = connection.info.server_version // 10000
        found.before = rows(connection)
        connection.execute(WATCH)
        try:
            while rest:
                text = psql.script(rest, ours, "proof", AFTER_FILE)
                options = apply.options(connection, ddl)
                applied, file, error = psql.run(dsn, text, rest, options, ddl.timeout)
                found.applied += applied
                rest = rest[len(applied) + 1 :]
                if error:
                    problem = apply.failure(error, file, ddl, 1, server)
                    if file is None:
                        refuse([problem])
                    else:
                        found.failed[file.path], found.states[file.path] = problem, error.state
            psql.note_seconds(connection, found.applied, ours)
            query = "select coalesce(file, 'a file'), what, object from release_proof.seen order by id"
            found.seen = connection.execute(query).fetchall()
        finally:
            connection.execute(END)
        found.after = rows(connection)
    return found


def rows(connection: Connection) -> Rows:
    """Return how many rows each table has, and a hash of the values of each column that says nothing of their order."""
    connection.execute(AS_TEXT)
    tables = connection.execute(COLUMNS, [["pg_catalog", "information_schema"]]).fetchall()
    found: Rows = {}
    for table, columns, types, sums in tables:
        query = f"select count(*), {', '.join(sums)} from only {table}"
        count, *hashes = connection.execute(query.encode()).fetchone() or [0]
        found[table] = count, dict(zip(columns, zip(types, hashes, strict=True), strict=True))
    return found


@dataclass
class FileProof:
    """One file: seconds from empty (None: not reached), messages, and what it does to tables of the last release."""

    path: str
    seconds: float | None = None
    notices: int = 0
    warnings: int = 0
    does: list[str] = field(default_factory=list)


@dataclass
class Proof:
    """The outcome: `problems` block, `told` does not, `excepted` would but for a reason in the settings."""

    files: list[FileProof] = field(default_factory=list)
    server: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    excepted: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        took = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in self.seconds.items())
        return f"{len(self.files)} files on PostgreSQL {self.server}: {took or 'not even once from empty'}"

    def add(self, problem: Problem, ddl: Ddl) -> None:
        """Add `problem`, unless the settings give a reason why it may be."""
        if reason := ddl.excepts(problem.what):
            self.excepted[problem.what] = reason
        elif problem not in self.problems:
            self.problems.append(problem)


EXCEPT = "or give a reason in release.ddl.exceptions."


@dataclass
class Proving:
    """The passes of a proof of `pack` over `last` (empty: there is none) on the scratch server `running`.

    `runner` applies the pack as the application does, given the DSN and log of a database; `real` is the DSN of
    another one that has real rows, "" where there is none.
    """

    pack: Sequence[DdlFile]
    last: Sequence[DdlFile]
    ddl: Ddl
    app: str
    running: Running
    runner: Callable[[str, Path], object] | None = None
    real: str = ""
    proof: Proof = field(default_factory=Proof)
    made: Structure | None = None
    files: dict[str, str] = field(default_factory=dict)

    def prove(self) -> Proof:
        """Make all passes; what stops one is a problem of the proof, and the others are made all the same."""
        self.proof.files = [FileProof(file.path) for file in self.pack]
        self.proof.told += [f"{file.path} is empty." for file in self.pack if not file.content.strip()]
        with self._pass("from empty", "") as dsn:
            self._from_empty(dsn)
        if self.made is None:
            return self.proof
        if self.runner:
            with self._pass("by the application's runner", "By the application's runner") as dsn:
                self.runner(dsn, self.running.log)
                self._compare(dsn, "By the application's runner")
                self.runner(dsn, self.running.log)
                self._compare(dsn, "By the application's runner, applied again,")
        if self.last:
            with self._pass("over the last release", "Over the last release") as dsn:
                self._over_the_last_release(dsn)
            if self.runner:
                with self._pass("by its runner", "Over the last release, by the application's runner") as dsn:
                    watched(dsn, self.last, self.ddl)
                    self.runner(dsn, self.running.log)
                    self._compare(dsn, "Over the last release, by the application's runner,")
        if self.real:
            with self._pass("over real rows", "Over real rows") as dsn:
                self._over_real_rows(dsn)
        return self.proof

    @contextmanager
    def _pass(self, name: str, how: str) -> Iterator[str]:
        """Yield an empty database; note the seconds, and what is refused meanwhile."""
        began = time.monotonic()
        try:
            with scratch.database(self.running, self.app) as dsn:
                yield dsn
            self.proof.seconds[name] = time.monotonic() - began
        except Refused as no:
            for problem in no.problems:
                self._add(f"{how}: {problem.what}" if how else problem.what, problem.mend)

    def _add(self, what: str, hint: str) -> None:
        self.proof.add(Problem(what, hint), self.ddl)

    def _from_empty(self, dsn: str) -> None:
        with programs.connect(dsn) as connection:
            self.proof.server = connection.info.server_version // 10000
            refuse(apply.server_problems(connection, "the scratch server", self.ddl))
        found = watched(dsn, self.pack, self.ddl)
        for each, file in zip(self.proof.files, self.pack, strict=True):
            for applied in found.applied:
                if applied.file == file:
                    each.seconds, each.warnings = applied.seconds, len(applied.warnings)
                    each.notices = len(applied.messages) - each.warnings
        if found.failed:
            first, problem = next(iter(found.failed.items()))
            refuse([Problem(problem.what + self._made_later(dsn, first, found), problem.mend)])
        apply.refuse_warnings(found.applied, self.ddl)
        self.made = structure.read(dsn)
        self.files = found.makers(self.made.objects)
        self._again(dsn, self.made)

    def _made_later(self, dsn: str, path: str, found: Watched) -> str:
        """Return that a later file makes what `path` misses, where it can be applied now that all the others were."""
        file = next(each for each in self.pack if each.path == path)
        if found.states[path] not in ABSENT or watched(dsn, [file], self.ddl).failed:
            return ""
        named = re.findall(r'"(?:[^".]*\.)*([^".]+)"|function (?:\w+\.)*(\w+)\(', found.failed[path].what)
        missing = {name for names in named for name in names if name}
        makers = (by for by, what, made in found.seen if what == "makes" and missing & set(re.split(r"[.(]", made)))
        return f" What is missing is made by {next(makers, 'a file')}, which comes later."

    def _again(self, dsn: str, before: Structure) -> None:
        """Apply the pack again: each file that fails, and each that changes something, is named."""
        began, found = time.monotonic(), watched(dsn, self.pack, self.ddl)
        self.proof.seconds["again"] = time.monotonic() - began
        hint = f"Make it idempotent (if not exists, or replace), {EXCEPT}"
        for problem in found.failed.values():
            self._add(f"Applied again: {problem.what}", hint)
        for file, what, name in found.did("drops", "empties"):
            self._add(f"Applied again, {file} {what} {name}: what it holds is lost.", hint)
        for loss in found.losses():
            self._add(f"Applied again, the pack changes rows: {loss}.", f"Take the statement out, {EXCEPT}")
        now = structure.read(dsn)
        files = self.files | found.makers(now.objects)
        for each in structure.differences(before, now):
            did = {structure.MISSING: "drops", structure.EXTRA: "makes"}.get(each.how, "changes")
            by = f" ({files[each.name]})" if each.name in files else ""
            detail = f": {each.detail}" if did == "changes" else ""
            self._add(f"Applied again, the pack {did} {each.name}{detail}{by}.", hint)
        for table, (count, _) in found.after.items():
            if count > found.before.get(table, (count, {}))[0]:
                self.proof.told.append(f"Applied again, the pack adds rows to {table}.")

    def _over_the_last_release(self, dsn: str) -> None:
        """Apply the pack over the last release's: what it makes from empty has to come about here too."""
        before = watched(dsn, self.last, self.ddl)
        released = "A released pack cannot change; a reason in release.ddl.exceptions lets the upgrade go unproved."
        refuse(Problem(f"the last release's {problem.what}", released) for problem in before.failed.values())
        found = watched(dsn, self.pack, self.ddl)
        refuse(found.failed.values())
        self._note(found)
        self._compare(dsn, "Over the last release")

    def _over_real_rows(self, dsn: str) -> None:
        try:
            scratch.copy(self.real, dsn)
        except Refused as no:
            self.proof.told.append(f"Not proved over real rows, for they could not be copied: {no}")
            return
        found = over_rows(dsn, self.pack, self.ddl)
        self.proof.rows, self.proof.told = found.rows, [*self.proof.told, *found.told]
        for problem in found.problems:
            self._add(f"Over real rows: {problem.what}", problem.mend)

    def _note(self, found: Watched) -> None:
        """Note what each file does to tables that were there before."""
        files = {each.path: each for each in self.proof.files}
        for path, what, name in found.did("locks", "rewrites", "drops", "empties", "changes rows of"):
            if path in files:
                files[path].does.append(f"{what} {name}")

    def _compare(self, dsn: str, how: str) -> None:
        assert self.made is not None
        for each in structure.differences(self.made, structure.read(dsn)):
            if each.how == structure.EXTRA:
                self.proof.told.append(f"{how} the pack leaves what it does not make from empty: {each.name}.")
                continue
            hint = f"Add what brings an existing database there (alter table …), {EXCEPT}"
            self._add(f"{how} the pack does not make what it makes from empty: {each}.", hint)


@dataclass
class OverRows:
    """What a pack does to a copy of real rows: `problems` block, unless the settings except them."""

    rows: int = 0
    tables: int = 0
    problems: list[Problem] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    excepted: dict[str, str] = field(default_factory=dict)


def over_rows(dsn: str, pack: Sequence[DdlFile], ddl: Ddl) -> OverRows:
    """Apply `pack` to the copy `dsn` of a real database, on a scratch server, and see what becomes of its rows."""
    found = watched(dsn, pack, ddl)
    result = OverRows(sum(count for count, _ in found.before.values()), len(found.before))
    hint = f"Take the statement out, {EXCEPT}"
    lost = [Problem(f"{loss}.", hint) for loss in found.losses()]
    for problem in [*found.failed.values(), *lost]:
        if reason := ddl.excepts(problem.what):
            result.excepted[problem.what] = reason
        else:
            result.problems.append(problem)
    result.told = [f"{file} {what} {name}" for file, what, name in found.did("locks", "rewrites", "drops", "empties")]
    return result
