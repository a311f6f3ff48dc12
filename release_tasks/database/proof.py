"""The proof of a DDL pack on a scratch server: from empty, again, over the last release, over a copy of real rows.

PostgreSQL itself says what each file drops, rewrites, empties and locks (PostgreSQL, "Event Triggers"); rows are
counted and hashed before and after.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from release_tasks.database import programs, psql, scratch, structure
from release_tasks.database.pack import DdlFile
from release_tasks.database.server import Running
from release_tasks.database.structure import EXTRA, MISSING, Structure
from release_tasks.errors import Problem, Refused, listed, refuse
from release_tasks.settings import Ddl

WATCH = """create schema release_proof;
create unlogged table release_proof.done (id serial, file text, what text, object text, unique (file, what, object));
create unlogged table release_proof.was as
  select oid, relfilenode, relnamespace::regnamespace || '.' || quote_ident(relname) as name from pg_class
  where relkind in ('r', 'm') and oid >= 16384 and relnamespace <> 'release_proof'::regnamespace;
create function release_proof.note() returns event_trigger language plpgsql security definer set search_path = '' as $$
begin
  insert into release_proof.done (file, what, object) select current_setting('release.file', true), what, object from (
    select 'alters', object_identity from pg_catalog.pg_event_trigger_ddl_commands() where tg_event = 'ddl_command_end'
    union select 'rewrites', name from release_proof.was
      where case tg_event when 'table_rewrite' then oid = pg_catalog.pg_event_trigger_table_rewrite_oid() end
    union select 'drops', object_type || ' ' || object_identity from pg_catalog.pg_event_trigger_dropped_objects()
      where tg_event = 'sql_drop' and original and not is_temporary
      and object_type in ('table', 'table column', 'materialized view', 'schema', 'sequence', 'type')
  ) as found (what, object) where object is not null on conflict do nothing;
end $$;
create event trigger release_proof_alter on ddl_command_end execute function release_proof.note();
create event trigger release_proof_drop on sql_drop execute function release_proof.note();
create event trigger release_proof_rewrite on table_rewrite execute function release_proof.note();
"""
AFTER_FILE = """insert into release_proof.done (file, what, object)
  select current_setting('release.file', true), what, name from (
    select 'locks', relation from pg_locks where pid = pg_backend_pid() and mode = 'AccessExclusiveLock'
    union select 'changes rows of', relid from pg_stat_xact_user_tables where n_tup_upd + n_tup_del > 0
    union select 'empties', oid from release_proof.was join pg_class c using (oid)
      where relkind = 'r' and c.relfilenode <> was.relfilenode
      and not exists (select from release_proof.done where done.what = 'rewrites' and object = name)
  ) as found (what, oid) join release_proof.was using (oid) on conflict do nothing;
update release_proof.was set relfilenode = c.relfilenode from pg_class c where c.oid = was.oid;
select pg_stat_force_next_flush();
"""
DONE = "select coalesce(nullif(file, ''), 'a file'), what, object from release_proof.done order by id"
TABLES = """select relnamespace::regnamespace || '.' || quote_ident(relname),
    coalesce(json_object_agg(quote_ident(attname), atttypid::regtype order by attnum) filter (where attnum > 0), '{}')
  from pg_class c left join pg_attribute on attrelid = c.oid and attnum > 0 and not attisdropped
  where relkind = 'r' and c.oid >= 16384 and relpersistence <> 't' group by c.oid"""
Rows = dict[str, tuple[int, dict[str, str], object]]  # table → number of rows, column → type, hash of the rows
FROM_EMPTY, BY_RUNNER = "From empty", "By the application's runner"
LOSES = ("drops", "empties", "changes rows of")
EXCEPT = "or give a reason in release.ddl.exceptions."
IDEMPOTENT, KEEP = f"Make it idempotent (if not exists, or replace), {EXCEPT}", f"Take the statement out, {EXCEPT}"
UPGRADE = f"Add what brings an existing database there (alter table …), {EXCEPT}"
RELEASED = "A released pack cannot change; a reason in release.ddl.exceptions lets the upgrade go unproved."


@dataclass
class Proof:
    """The outcome: `problems` block, `told` does not, `excepted` would but for a reason in the settings.

    `files` is path → what the file does to tables of the last release, as "locks public.t"; `rows` are real ones.
    """

    files: dict[str, list[str]] = field(default_factory=dict)
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


def prove(
    pack: Sequence[DdlFile],
    last: Sequence[DdlFile],
    ddl: Ddl,
    app: str,
    running: Running,
    runner: Callable[[str, Path], object] | None = None,
    real: str = "",
) -> Proof:
    """Return the proof of `pack` over `last` (empty: there is none) on the scratch server `running`.

    `runner` applies the pack as the application does, given the DSN and log of a database; `real` is the DSN of a
    database with real rows, "" where there is none. A pass that fails does not keep the others from being made.
    """
    proof, made = Proof({file.path: [] for file in pack}), Structure()
    proof.told += [f"{file.path} is empty." for file in pack if not file.content.strip()]

    @contextmanager
    def one_pass(how: str) -> Iterator[str]:
        """Yield an empty database; note the seconds, and what is refused meanwhile."""
        began = time.monotonic()
        try:
            with scratch.database(running, app) as dsn:
                yield dsn
            proof.seconds[how] = time.monotonic() - began
        except Refused as no:
            for problem in no.problems:
                proof.add(Problem(f"{how}: {problem.what}" if how != FROM_EMPTY else problem.what, problem.mend), ddl)

    def apply_last(dsn: str) -> None:
        failed = watched(dsn, last, ddl).failed.values()
        refuse(Problem(f"the last release's {problem.what}", RELEASED) for problem in failed)

    def compare(dsn: str) -> None:
        """Refuse what is not as it is made from empty; what is there besides is told."""
        differing = structure.differences(made, structure.read(dsn))
        proof.told += [f"There, but not made from empty: {each.name}." for each in differing if each.how == EXTRA]
        what = "the pack does not make what it makes from empty"
        refuse(Problem(f"{what}: {each}.", UPGRADE) for each in differing if each.how != EXTRA)

    with one_pass(FROM_EMPTY) as dsn:
        proof.server, found = programs.server_major(dsn), watched(dsn, pack, ddl)
        proof.told += [f"{each.file.path}: {warning}" for each in found.applied for warning in each.warnings]
        refuse(list(found.failed.values())[:1])  # others may follow from it
        made = structure.read(dsn)
        refuse(_again(dsn, pack, ddl, made, proof.told))
    if not made:
        return proof
    if runner:
        for how in (BY_RUNNER, f"Over the last release, {BY_RUNNER.lower()}")[: 2 if last else 1]:
            with one_pass(how) as dsn:
                if how != BY_RUNNER:
                    apply_last(dsn)
                for _ in range(2):  # and again
                    runner(dsn, running.log)
                    compare(dsn)
    if last:
        with one_pass("Over the last release") as dsn:
            apply_last(dsn)
            found = watched(dsn, pack, ddl)
            refuse(found.failed.values())
            for file, what, name in found.done:
                if what != "alters" and file in proof.files:
                    proof.files[file].append(f"{what} {name}")
            compare(dsn)
    if real:
        with one_pass("Over real rows") as dsn:
            try:
                scratch.copy(real, dsn)
            except Refused as no:
                proof.told.append(f"Not proved over real rows, for they could not be copied: {no}")
                return proof
            there = over_rows(dsn, pack, ddl)
            proof.rows, proof.excepted = there.rows, proof.excepted | there.excepted
            refuse(there.problems)
    return proof


def _again(dsn: str, pack: Sequence[DdlFile], ddl: Ddl, made: Structure, told: list[str]) -> Iterator[Problem]:
    """Apply the pack again, and yield each file that fails, and what each changes; added rows are told."""
    found = watched(dsn, pack, ddl)
    for problem in found.failed.values():
        yield Problem(f"Applied again: {problem.what}", IDEMPOTENT)
    for file, what, name in found.done:
        if what in ("drops", "empties"):
            yield Problem(f"Applied again, {file} {what} {name}: what it holds is lost.", IDEMPOTENT)
    for loss in found.losses():
        yield Problem(f"Applied again, the pack changes rows: {loss}.", KEEP)
    for each in structure.differences(made, structure.read(dsn)):
        did = {MISSING: "drops", EXTRA: "makes"}.get(each.how, "changes")
        by = {file for file, _, name in found.done if name.removeprefix("table ") == each.name.partition(" ")[2]}
        detail = f": {each.detail}" if each.detail else ""
        yield Problem(f"Applied again, {listed(sorted(by)) or 'the pack'} {did} {each.name}{detail}.", IDEMPOTENT)
    grown = [table for table, (count, *_) in found.before.items() if found.after.get(table, (0,))[0] > count]
    told += [f"Applied again, the pack adds rows to {table}." for table in grown]


def over_rows(dsn: str, pack: Sequence[DdlFile], ddl: Ddl) -> Proof:
    """Apply `pack` to the copy `dsn` of a real database, on a scratch server, and see what becomes of its rows."""
    found = watched(dsn, pack, ddl)
    proof = Proof(rows=sum(count for count, *_ in found.before.values()))
    for problem in [*found.failed.values(), *(Problem(f"{loss}.", KEEP) for loss in found.losses())]:
        proof.add(problem, ddl)
    return proof


@dataclass
class Watched:
    """A pack applied under watch: its files, why some failed, (file, does, what), rows before and after."""

    applied: list[psql.Applied]
    failed: dict[str, Problem]
    done: list[tuple[str, str, str]]
    before: Rows
    after: Rows

    def losses(self) -> Iterator[str]:
        """Yield which rows, values and columns that were there before are gone or others now."""
        for table, (count, columns, hashed) in self.before.items():
            files = {file for file, what, name in self.done if what in LOSES and name.removeprefix("table ") == table}
            now, columns_now, hashed_now = self.after.get(table, (0, {}, None))
            same = hashed == hashed_now if columns.items() <= columns_now.items() else not files
            if now < count:
                yield f"table {table} had {count} rows and has {now} now ({listed(sorted(files))})"
            elif 0 < count == now and not same:
                yield f"values in table {table} change ({listed(sorted(files))})"
            for file, what, name in self.done:
                if count and what == "drops" and name.startswith(f"table column {table}."):
                    yield f"{name.removeprefix('table ')} is dropped, with the values of {count} rows ({file})"


def watched(dsn: str, pack: Sequence[DdlFile], ddl: Ddl) -> Watched:
    """Apply `pack` by psql to a database of a scratch server, and watch what becomes of it; no trace is left there."""
    ours = ddl.model_copy(update={"ledger": "release_proof.ledger"})
    with programs.connect(dsn) as connection:

        def rows(before: Rows) -> Rows:
            """Hash the rows of each table in the columns that it had `before`, where it has them still."""
            found: Rows = {}
            for table, columns in connection.execute(TABLES).fetchall():
                _, was, _ = before.get(table, (0, columns, None))
                hashed = ", ".join(was if was.items() <= columns.items() else columns)
                query = f"select count(*), sum(hashtextextended(row({hashed})::text, 0)) from only {table}"
                ((count, total),) = connection.execute(query.encode()).fetchall()
                found[table] = count, columns, total
            return found

        connection.execute("set statement_timeout = 0")
        before = rows({})
        connection.execute(WATCH)
        try:
            applied, failed = psql.run_each(dsn, pack, ours, AFTER_FILE)
            done = connection.execute(DONE).fetchall()
        finally:
            connection.execute("drop schema release_proof cascade")
        return Watched(applied, failed, done, before, rows(before))
