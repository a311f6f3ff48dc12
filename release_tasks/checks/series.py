"""Rows over time: each expected key is fresh, and has no gap over a window that ends now, by the database's clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from release_tasks.checks import CheckFailed, Inconclusive, Record
from release_tasks.errors import listed

AHEAD = 1.0  # seconds that a row may be ahead of the database's clock
# The raw columns are compared, so that an index on key and time answers: one probe a key, or one range.
# unit → types of such a column; the moment {} seconds ago, as the column has it; the column `at` in seconds since 1970
UNITS = {
    "timestamptz": ("timestamptz", "now() - make_interval(secs => {})", "extract(epoch from at)::float8"),
    "ms": ("int8 numeric float8", "((extract(epoch from now()) - {}) * 1000)::bigint", "at / 1000::float8"),
}
KEYS = """
with expected({columns}) as materialized (select distinct * from (
{keys}
) as keys), clock(seconds) as (select extract(epoch from now())::float8)"""
FRESH = """
select {name}, clock.seconds - {seconds} from clock, expected left join lateral (
  select {time} as at from {table} where {same_key} and {time} is not null order by {time} desc limit 1
) as newest on true order by 2 desc nulls first"""
# The window's beginning is a mark as a row is; the last row is compared with now, from which `late` is taken.
GAPS = """
select name, to_char(to_timestamp(at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"+00:00"'), length from (
  select {name} as name, at,
    coalesce(lead(at) over (partition by {columns} order by at), clock.seconds - {late}) - at as length
  from clock, expected cross join lateral (
    select {seconds} as at from (
      select {time} as at from {table} where {same_key} and {time} > {begin} and {time} <= {end}
    ) as rows
    union all select clock.seconds - {window}
  ) as marks
) as steps where length > {every} * 1.5 order by length desc, name, at limit 1000"""


@dataclass
class Series:
    """The rows of `table` by time; `keys` is a query for the expected values of `key`, a column or several."""

    db: Connection
    record: Record
    table: str
    keys: str
    key: str | Sequence[str] = "symbol"
    time: str = "ts"
    unit: str = "timestamptz"  # or ms: milliseconds since 1970

    def is_fresh(self, within: float) -> None:
        """Raise `CheckFailed` with each expected key whose newest row is older than `within`, missing or future."""
        ages = self._query(FRESH)
        wrong = [f"has no row for {name}" for name, age in ages if age is None]
        there = [(f"the newest row of {name} is", age) for name, age in ages if age is not None]
        wrong += [f"{newest} {-age:.1f} s in the future" for newest, age in there if age < -AHEAD]
        wrong += [f"{newest} {age:.1f} s old" for newest, age in there if age > within]
        oldest = max((age for _, age in there), default=0.0)
        self._conclude(wrong, f"{len(ages)} keys, the oldest {oldest:.1f} s old")

    def has_no_gaps(self, every: float, window: float = 600, late: float = 15) -> None:
        """Raise `CheckFailed` with each gap of each expected key: no row for 1.5 times `every`, or `late` more now."""
        if window <= every * 1.5 + late:
            raise ValueError(f"window is {window:g} s; expected more than every * 1.5 + late: a dead key would pass")
        found = self._query(GAPS, every=every, window=window, late=late)
        self._conclude(
            [f"{name} has a gap of {gap:.1f} s from {at}" for name, at, gap in found], f"no gap in {window:g} s"
        )

    def _conclude(self, wrong: list[str], observed: str) -> None:
        if wrong:
            raise CheckFailed(f"{self.table}: {listed(wrong)}.")
        self.record("series", f"{self.table}: {observed}")

    def _query(self, question: str, **spans: float) -> list[Any]:
        """Return the rows of `question`. Raises where no key is expected, or times are of another type."""
        moment = self.db.execute(f"select {self.time} from {self.table} limit 0".encode())
        if (found := (moment.description or [])[0].type_display) not in UNITS[self.unit][0].split():
            hint = 'unit="ms" for milliseconds; for another zone, time="ts at time zone \'UTC\'"'
            said = f"{self.time} of {self.table} is of type {found}; expected {self.unit}."
            raise Inconclusive(said, hint, final=True)
        if not self.db.execute(f"select from (\n{self.keys}\n) as keys limit 1".encode()).rowcount:
            raise CheckFailed(f"No keys are expected: {self.keys!r} gives no row; a check on nothing passes nothing.")
        return self.db.execute(self.sql(question, **spans).encode()).fetchall()

    def sql(self, question: str, **spans: float) -> str:
        """Return `question` about the table, for each of the expected keys; `spans` are in seconds."""
        _, ago, seconds = UNITS[self.unit]
        names = [self.key] if isinstance(self.key, str) else self.key
        columns = [f"key_{number}" for number in range(len(names))]
        same_key = " and ".join(f"({name}) = {column}" for name, column in zip(names, columns, strict=True))
        name = " || '/' || ".join(f"coalesce({column}::text, 'NULL')" for column in columns)
        own = {"keys": self.keys, "table": self.table, "time": self.time, "columns": ", ".join(columns)}
        edges = {"begin": ago.format(spans.get("window")), "end": ago.format(0)}
        return (KEYS + question).format(**own, **edges, **spans, name=name, same_key=same_key, seconds=seconds)
