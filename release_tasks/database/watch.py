"""A DDL pack applied under watch on a scratch server: what each file makes, drops, rewrites, empties and locks there.

PostgreSQL says so itself (PostgreSQL, "Event Triggers"); what becomes of rows is counted and hashed before and after.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from release_tasks.database import programs, psql
from release_tasks.database.pack import DdlFile
from release_tasks.database.psql import Applied
from release_tasks.errors import Problem
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
select pg_stat_force_next_flush();
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
    found = Watched()
    ours = ddl.model_copy(update={"ledger": "release_proof.ledger"})
    with programs.connect(dsn) as connection:
        found.before = rows(connection)
        connection.execute(WATCH)
        try:
            found.applied, found.failed = psql.run_each(dsn, pack, ours, AFTER_FILE)
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
