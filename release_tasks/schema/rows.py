"""Rows made up for whatever tables a database has, and which of them are gone later.

Of a table only the catalogs are known, so values are guesses: by the type, and by the numbers and strings that stand in
its constraints (the hints). The server judges them, and what a constraint refused is guessed anew.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psycopg import Connection

Keys = dict[str, tuple[str, list[tuple[str, ...]]]]  # table → its primary key, and the values of that in each row

TRIES, EARLY = 200, 40  # for a row; after the early ones a column may also be null, and one with a default be given
STRING, NUMBER, LENGTH = re.compile(r"'((?:[^']|'')*)'"), re.compile(r"-?\d+(?:\.\d+)?"), re.compile(r"\b\d{1,3}\b")
DATE = re.compile(r"[12]\d{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])")  # days that every month has

# `kind` is a category, but d of a domain; `part` is what a domain, an array or a range is made of.
TYPES = """select t.oid, typname as name, case typtype when 'd' then 'd' else typcategory end::text as kind,
    coalesce(nullif(typbasetype, 0), rngsubtype, case typcategory when 'A' then typelem end) as part,
    array(select enumlabel::text from pg_enum where enumtypid = t.oid order by enumsortorder) as labels,
    concat_ws(' ', format_type(nullif(typbasetype, 0), typtypmod),
      (select string_agg(pg_get_constraintdef(k.oid), ' ') from pg_constraint k where contypid = t.oid)) as hints
  from pg_type t left join pg_range on rngtypid = t.oid"""
COLUMNS = """select c.oid::regclass::text as table, quote_ident(attname) as name, atttypid as type,
    atthasdef or attidentity <> '' as default, not attnotnull as nullable,
    concat_ws(' ', format_type(atttypid, atttypmod), pg_get_partition_constraintdef(c.oid),
      (select string_agg(pg_get_constraintdef(k.oid), ' ') from pg_constraint k
       where conrelid = c.oid and contype = 'c' and attnum = any(conkey))) as hints
  from pg_class c left join pg_attribute on attrelid = c.oid and attnum > 0 and not attisdropped
    and attgenerated = '' and attidentity <> 'a'
  where relkind = 'r' and relpersistence <> 't' and c.oid >= 16384 and not exists (select from pg_depend
    where classid = 'pg_class'::regclass and objid = c.oid and deptype = 'e') order by 1, attnum"""
# A foreign key to a partitioned table is there a second time for each partition.
CONSTRAINTS = """select conrelid::regclass::text as table, conname as name, parent.oid::regclass::text as parent,
    array(select quote_ident(attname) from pg_attribute where attrelid = conrelid and attnum = any(conkey)
      order by array_position(conkey, attnum)) as columns,
    array(select quote_ident(attname) from pg_attribute where attrelid = confrelid and attnum = any(confkey)
      order by array_position(confkey, attnum)) as theirs,
    array(select quote_ident(attname) from pg_attribute where attrelid = conrelid and attnum = any(conkey)
      and not attnotnull) as nullable
  from pg_constraint left join pg_class parent on parent.oid = confrelid
  where conrelid <> 0 and parent.relispartition is not true"""
PRIMARY_KEY = """select coalesce(string_agg(quote_ident(attname) || '::text', ', ' order by attnum), ''),
    coalesce(string_agg(quote_ident(attname) || ' ' || format_type(atttypid, atttypmod), ', ' order by attnum), '')
  from pg_index join pg_attribute on attrelid = indrelid and attnum = any(indkey)
  where indisprimary and indrelid = to_regclass(%s)"""


def fill(connection: Connection, tables: Collection[str] | None = None, rows: int = 3) -> dict[str, int]:
    """Insert up to `rows` rows into each table or partition (schema.table, quoted where need be), or into those named.

    Returns how many were made for each: 0 where nothing was found that its constraints and triggers let through.
    """
    filling = Filling(connection)
    made = {name: 0 for name in filling.columns if tables is None or name in tables}
    waiting = list(made)
    while waiting:  # first of all those that lack least: so a circle of foreign keys is entered where one may be null
        lacking = {name: filling.lacks(name) for name in waiting}
        waiting = [name for name in waiting if lacking[name] > min(lacking.values())]
        for name in [name for name in lacking if name not in waiting]:
            made[name] = next((count for count in range(rows) if not filling.insert(name)), rows)
    return made


class Filling:
    """What is known of a database's tables and types, and the guesses; the same for the same database."""

    def __init__(self, connection: Connection) -> None:
        from psycopg.rows import namedtuple_row

        self.connection, self.random = connection, random.Random(0)
        self.columns, self.constraints = defaultdict[str, list[Any]](list), defaultdict[str, list[Any]](list)
        cursor: Any = connection.cursor(row_factory=namedtuple_row)
        with connection.transaction():
            cursor.execute("select set_config('search_path', '', true)")  # so that all names are written in full
            self.types = {each.oid: each for each in cursor.execute(TYPES)}
            for column in cursor.execute(COLUMNS):
                self.columns[column.table] += [column] if column.name else []
            for constraint in cursor.execute(CONSTRAINTS):
                self.constraints[constraint.table].append(constraint)

    def lacks(self, table: str) -> tuple[int, int]:
        """Return to how many tables without rows it refers: where it has to, and where it could be null instead."""
        others = [key for key in self.constraints[table] if key.parent not in (None, table)]
        needed = [not key.nullable for key in others if not self._parents(key)]
        return needed.count(True), needed.count(False)

    def _parents(self, key: Any) -> list[tuple[str, ...]]:
        theirs = ", ".join(f"{name}::text" for name in key.theirs)
        return self.connection.execute(f"select {theirs} from {key.parent} limit 100".encode()).fetchall()

    def insert(self, table: str) -> bool:
        """Insert a row into `table`, and return whether there was a way."""
        from psycopg import Error, sql

        columns, row = self.columns[table], dict[str, str | None]()
        wrong = names = {each.name for each in columns}
        for attempt in range(TRIES):
            self._guess(table, row, wrong, late=attempt >= EARLY)
            what = f"({', '.join(row)}) values ({', '.join(map(sql.quote, row.values()))})" if row else "default values"
            try:
                with self.connection.transaction():
                    if self.connection.execute(f"insert into {table} {what}".encode()).rowcount == 1:
                        return True
            except Error as error:
                said = (error.diag.constraint_name, error.diag.datatype_name)
                blamed = [name for each in self.constraints[table] if each.name in said for name in each.columns]
                wrong = {x.name for x in columns if x.name in blamed or self.types[x.type].name in said} or names
        return False

    def _guess(self, table: str, row: dict[str, str | None], wrong: set[str], late: bool) -> None:
        """Put new values for the columns `wrong` into `row`, of a foreign key all or none from the same parent."""
        for column in self.columns[table]:
            if column.name in wrong:
                row.pop(column.name, None)
                chance = 0.5 if late and (column.default or column.nullable) else not column.default
                if self.random.random() < chance:
                    row[column.name] = f"{self._value(column.type, column.hints)}"
        for key in self.constraints[table]:
            if key.parent and wrong & set(key.columns):
                parents = self._parents(key)
                if key.nullable and (not parents or (late and self.random.getrandbits(1))):
                    row.update(dict.fromkeys(key.nullable))
                elif parents:
                    row.update(zip(key.columns, self.random.choice(parents), strict=True))
                else:  # the first row refers to itself
                    for ours, theirs in zip(key.columns, key.theirs, strict=True):
                        row[ours] = row.setdefault(theirs, row.get(ours))

    def _value(self, oid: int, hints: str) -> Any:
        """Return a value of the type `oid` as PostgreSQL reads it, or what may be one; half of them by the hints."""
        kind, pick, n, m = self.types[oid], self.random.choice, self.random.randint(1, 254), self.random.randint(0, 59)
        near, length = pick([hints, ""]), int(pick(LENGTH.findall(hints) or ["6"]))
        told = [text.replace("''", "'") for text in STRING.findall(near)]
        word = "".join(self.random.choices(pick(["abcdef", "ABCDEF", "0123456789"]), k=length))
        match kind.kind:
            case "d":
                return self._value(kind.part, f"{hints} {kind.hints}")
            case "A":
                item = json.dumps(f"{self._value(kind.part, hints)}", ensure_ascii=False)
                return f"{{{','.join([item] * length)}}}"
            case "R" if kind.part:
                return pick(["[{0},{0}]", "[{0},)"]).format(self._value(kind.part, hints))
            case "N":
                exact = Decimal if kind.name in ("numeric", "float4", "float8") else int
                around = [each for x in map(Decimal, NUMBER.findall(near)) for each in (x, x + m, x - m, x * m)]
                return exact(pick(around or [Decimal(n), Decimal(m), Decimal(m) / 100]))
            case "D":
                days = DATE.findall(near) or ["1999-12-31", "2024-01-01", "2100-01-01"]
                day = date.fromisoformat(pick(days)) + timedelta(days=pick([0, m, -n]))
                return pick([day, f"{day:%Y-%m}-01", f"{day} {n % 24:02}:30:00+00"])
            case "S":
                limit = re.search(r"character(?: varying)?\((\d+)\)", hints)
                texts = [word, word, word, f"{word}@example.org", f"https://example.org/{word}", f"{word}-{n}"]
                return pick(told or texts)[: int(limit[1]) if limit else None]
        document = pick([json.dumps(dict.fromkeys(told, word)), "[]"])
        shapes = {"bool": pick(["true", "false"]), "json": document, "jsonb": document, "inet": f"10.0.{m}.{n}"}
        shapes |= {"uuid": f"{self.random.getrandbits(128):032x}", "interval": f"{n} hours"}
        return shapes.get(kind.name) or pick(kind.labels or [*told, word, n, "{}", f"({n},{m})"])


def keys(connection: Connection, tables: Iterable[str]) -> Keys:
    """Return what tells the rows of each table apart that is there: its primary key; without one they are all alike."""
    found: Keys = {}
    for table in tables:
        if connection.execute("select to_regclass(%s)", [table]).fetchone() != (None,):
            ((values, key),) = connection.execute(PRIMARY_KEY, [table]).fetchall()
            found[table] = key, connection.execute(f"select {values} from {table}".encode()).fetchall()
    return found


def lost(before: Keys, after: Keys) -> list[str]:
    """Return a sentence for each table that has lost rows: by its primary key, where that is still the same one."""
    told = []
    for table, (key, rows) in before.items():
        key_now, left = after.get(table, (key, []))
        gone = (Counter(rows) - Counter(left)).total() if key == key_now else len(rows) - len(left)
        if gone > 0:
            told.append(f"table {table} lost {gone} of {len(rows)} rows")
    return told
