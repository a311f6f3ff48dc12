"""Rows over time: each expected key is fresh, and has no gap over a window that ends now, by the database's clock.

Table, key, keys and time are SQL text, and stand in the query as they are; numbers are its parameters. The raw columns
are compared, so that an index on key and time answers: one probe a key, or one range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from release_tasks.checks import CheckFailed, Inconclusive

if TYPE_CHECKING:
    from psycopg import Connection

SHOWN = 10  # keys or gaps
AHEAD = 1.0  # seconds that a row may be ahead of the database's clock


# unit → types that a column of such times may be of; the moment {} seconds ago, as the column has it; the column {} as
# seconds since 1970
UNITS = {
    "timestamptz": (("timestamptz",), "now() - make_interval(secs => {})", "extract(epoch from {})::float8"),
    "ms": (
        ("int8", "int4", "numeric", "float8", "float4"),
        "((extract(epoch from now()) - {}) * 1000)::bigint",
        "{} / 1000::float8",
    ),
}
NOW = "extract(epoch from now())::float8"
FRESH = """
select {name}, {now} - {seconds} from expected left join lateral (
  select {time} as at from {table} where {same_key} and {time} is not null order by {time} desc limit 1
) as newest on true"""
# The window's beginning is a mark as a row is; the last row is compared with now, from which `late` is taken.
GAPS = """
select *, count(*) over () from (
  select {name} as name, at,
    coalesce(lead(at) over (partition by {columns} order by at), {now} - %(late)s) - at as length
  from expected cross join lateral (
    select {seconds} as at from (
      select {time} as at from {table} where {same_key} and {time} > {begin} and {time} <= {end}
    ) as rows
    union all select {now} - %(window)s
  ) as marks
) as steps where length > %(every)s * 1.5 order by length desc, name, at limit %(most)s"""


class Series:
    """The rows of `table` by time: `series("str_aux.samples_5s", keys="select symbol from …")`.

    `key` names a row's key, a column or several; `keys` is a query for those that are expected. `unit` is timestamptz,
    or ms for milliseconds since 1970.
    """

    def __init__(
        self,
        db: Connection,
        record: Callable[[str, object], None],
        table: str,
        keys: str,
        key: str | Sequence[str] = "symbol",
        time: str = "ts",
        unit: str = "timestamptz",
    ) -> None:
        self.db, self.record, self.table, self.keys = db, record, table, keys.strip().rstrip(";")
        self.key = [key] if isinstance(key, str) else list(key)
        self.time, self.unit = time, unit

    def is_fresh(self, within: float) -> None:
        """Raise `CheckFailed` with each expected key whose newest row is older than `within`, missing or future."""
        ages = dict(self._query(FRESH, {}))
        there = {name: age for name, age in ages.items() if age is not None}
        problems = [f"{self.table} has no row for {name}." for name in ages if name not in there]
        for name, age in sorted(there.items(), key=lambda each: -each[1]):
            if age < -AHEAD:
                problems.append(f"{self.table}: the newest row of {name} is {_seconds(-age)} s in the future.")
            elif age > within:
                old = f"the newest row of {name} is {_seconds(age)} s old"
                problems.append(f"{self.table}: {old}; expected {within:g} s at most.")
        oldest = f"the oldest {max(there.values()):.1f} s old" if there else "none there"
        self._conclude(problems, len(problems), "keys", f"{self.table}: {len(ages)} keys, {oldest}")

    def has_no_gaps(self, every: float, window: float = 600, late: float = 15) -> None:
        """Raise `CheckFailed` with each gap of each expected key, the longest first.

        Rows come `every` seconds; 1.5 times as much is a gap. The window's edges count, too; until now `late` seconds
        more are allowed.
        """
        if window <= every * 1.5 + late:
            least = every * 1.5 + late
            raise ValueError(f"window is {window:g} s; expected more than {least:g} s: a dead key would pass")
        problems, total = [], 0
        spans = {"every": every, "window": window, "late": late, "most": SHOWN}
        for name, at, length, total in self._query(GAPS, spans):  # noqa: B007
            start = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
            missing = max(round(length / every) - 1, 1)
            gap = f"{name} has a gap of {_seconds(length)} s from {start}, of about {missing} rows"
            problems.append(f"{self.table}: {gap}.")
        self._conclude(problems, total, "gaps", f"{self.table}: no gap in {window:g} s")

    def _conclude(self, problems: list[str], total: int, noun: str, observed: str) -> None:
        if problems:
            more = [f"And {total - SHOWN} more {noun}."] if total > SHOWN else []
            raise CheckFailed(" ".join([*problems[:SHOWN], *more]))
        self.record("series", observed)

    def _query(self, question: str, spans: Mapping[str, float]) -> list[Any]:
        """Return the rows of `question`. Raises where there are no keys to ask about, or times that are no moments."""
        counted = self.db.execute(f"select count(*) over (), keys.* from (\n{self.keys}\n) as keys limit 1".encode())
        if (columns := len(counted.description or ()) - 1) != len(self.key):
            said = f"The query for the expected keys gives {columns} columns; expected {len(self.key)}"
            raise Inconclusive(f"{said}: {', '.join(self.key)}.", final=True)
        if counted.fetchone() is None:
            raise CheckFailed(f"No keys are expected: {self.keys!r} gives no row; a check on nothing passes nothing.")
        moment = self.db.execute(f"select {self.time} from {self.table} limit 0".replace("%", "%%").encode())
        types, ago, seconds = UNITS[self.unit]
        if (found := (moment.description or [])[0].type_display) not in types:
            said = f"{self.time} of {self.table} is of type {found}; expected {self.unit}."
            hint = 'unit="ms" for milliseconds; for another zone, time="ts at time zone \'UTC\'"'
            raise Inconclusive(said, hint, final=True)
        return self.db.execute(self._filled(question, ago, seconds).encode(), spans).fetchall()

    def _filled(self, question: str, ago: str, seconds: str) -> str:
        """Return `question` about the table, for each of the expected keys."""
        columns = [f"key_{number}" for number in range(len(self.key))]
        keys, table, time, *names = (text.replace("%", "%%") for text in (self.keys, self.table, self.time, *self.key))
        body = question.format(
            table=table,
            time=time,
            now=NOW,
            seconds=seconds.format("at"),
            begin=ago.format("%(window)s"),
            end=ago.format(0),
            columns=", ".join(columns),
            name=" || '/' || ".join(f"coalesce({column}::text, 'NULL')" for column in columns),
            same_key=" and ".join(f"({name}) = {column}" for name, column in zip(names, columns, strict=True)),
        )
        return (
            f"with expected({', '.join(columns)}) as materialized (select distinct * from (\n{keys}\n) as keys){body}"
        )


def _seconds(length: float) -> str:
    return f"{length:.1f}".removesuffix(".0")
