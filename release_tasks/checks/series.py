"""Rows over time: each expected key is fresh, and has no gap over a window that ends now, by the database's clock.

Table, key, keys and time are SQL text, and stand in the query as they are; numbers are its parameters. The raw columns
are compared, so that an index on key and time answers: one probe a key, or one range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from release_tasks.checks import CheckFailed, Inconclusive

if TYPE_CHECKING:
    from psycopg import Connection

SHOWN = 10  # keys or gaps
AHEAD = 1.0  # seconds that a row may be ahead of the database's clock
SLACK = 1.5  # times `every`: rows further apart have a gap between them


class Clock(NamedTuple):
    """How a unit of time says now, a span of seconds, and what a moment is in seconds since 1970."""

    type: str
    types: tuple[str, ...]  # that a column of such times may be of
    now: str
    span: str
    seconds: str


CLOCKS = {
    "timestamptz": Clock(
        "timestamptz", ("timestamptz",), "now()", "make_interval(secs => {})", "extract(epoch from {})::float8"
    ),
    "ms": Clock(
        "bigint",
        ("int8", "int4", "numeric", "float8", "float4"),
        "(extract(epoch from now()) * 1000)::bigint",
        "({} * 1000)::bigint",
        "{} / 1000::float8",
    ),
}
FRESH = """
select {names}, extract(epoch from now())::float8 - {newest_in_seconds}
from expected left join lateral (
  select {time} as at from {table} where {same_key} and {time} is not null order by {time} desc limit 1
) as newest on true"""
# A row that is not more than {apart} older than the window is the first mark, else the window's beginning is.
GAPS = """,
gaps as materialized (
  select {names} as names, gap.* from expected cross join lateral (
    select before, at, false as last from (
      select at, lag(at, 1, {begin}) over (order by at) as before from (
        select ({time})::{type} as at from {table}
        where {same_key} and {time} >= {begin} - {apart} and {time} <= {now}
      ) as rows
    ) as steps where at > {begin} and at - before > {apart}
    union all
    select at, {now}, true from (
      select coalesce((
        select ({time})::{type} from {table} where {same_key} and {time} > {begin} and {time} <= {now}
        order by {time} desc limit 1
      ), {begin}) as at
    ) as newest where {now} - at > {apart_and_late}
  ) as gap
)
select names, {before_in_seconds}, {at_in_seconds}, last or before = {begin}, (select count(*) from gaps)
from gaps order by at - before desc, names, before limit %(most)s"""


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
        self.time, self.unit, self.clock = time, unit, CLOCKS[unit]

    def is_fresh(self, within: float) -> None:
        """Raise `CheckFailed` with each expected key whose newest row is older than `within`, missing or future."""
        ages = {_name(names): age for names, age in self._query(FRESH, {})}
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
        apart = every * SLACK
        if window <= apart + late:
            raise ValueError(f"window is {window:g} s; expected more than {apart + late:g} s: a dead key would pass")
        spans = {"window": window, "apart": apart, "apart_and_late": apart + late}
        problems, total = [], 0
        for names, before, at, at_an_edge, count in self._query(GAPS, {**spans, "most": SHOWN}):
            length, total = at - before, count
            start = datetime.fromtimestamp(before, UTC).isoformat(timespec="milliseconds")
            missing = max(int(length / every) if at_an_edge else round(length / every) - 1, 1)
            many = "1 row is" if missing == 1 else f"{missing} rows are"
            gap = f"{_name(names)} has a gap of {_seconds(length)} s from {start}"
            problems.append(f"{self.table}: {gap}: {many} missing.")
        self._conclude(problems, total, "gaps", f"{self.table}: no gap in {window:g} s")

    def _conclude(self, problems: list[str], total: int, noun: str, observed: str) -> None:
        if problems:
            more = [f"And {total - SHOWN} more {noun}."] if total > SHOWN else []
            raise CheckFailed(" ".join([*problems[:SHOWN], *more]))
        self.record("series", observed)

    def _query(self, question: str, spans: Mapping[str, float]) -> list[Any]:
        """Return the rows of `question`. Raises where there are no keys to ask about, or times that are no moments."""
        counted = self.db.execute(f"select count(*) over (), keys.* from (\n{self.keys}\n) as keys limit 1")
        if (columns := len(counted.description or ()) - 1) != len(self.key):
            said = f"The query for the expected keys gives {columns} columns; expected {len(self.key)}"
            raise Inconclusive(f"{said}: {', '.join(self.key)}.", final=True)
        if counted.fetchone() is None:
            raise CheckFailed(f"No keys are expected: {self.keys!r} gives no row; a check on nothing passes nothing.")
        moment = self.db.execute(f"select {self.time} from {self.table} limit 0".replace("%", "%%"))
        if (found := (moment.description or [])[0].type_display) not in self.clock.types:
            said = f"{self.time} of {self.table} is of type {found}; expected {self.unit}."
            hint = 'unit="ms" for milliseconds; for another zone, time="ts at time zone \'UTC\'"'
            raise Inconclusive(said, hint, final=True)
        return self.db.execute(self._with_parts(question), spans).fetchall()

    def _with_parts(self, question: str) -> str:
        """Return `question` about the table, for each of the expected keys."""
        clock, columns = self.clock, [f"key_{number}" for number in range(len(self.key))]
        keys, table, time, *names = (text.replace("%", "%%") for text in (self.keys, self.table, self.time, *self.key))
        spans = {name: clock.span.format(f"%({name})s") for name in ("window", "apart", "apart_and_late")}
        body = question.format(
            **spans,
            begin=f"({clock.now} - {spans['window']})",
            now=clock.now,
            type=clock.type,
            newest_in_seconds=clock.seconds.format("newest.at"),
            before_in_seconds=clock.seconds.format("before"),
            at_in_seconds=clock.seconds.format("at"),
            table=table,
            time=time,
            same_key=" and ".join(f"({name}) = expected.{column}" for name, column in zip(names, columns, strict=True)),
            names=f"array[{', '.join(f'expected.{column}::text' for column in columns)}]",
        )
        return (
            f"with expected({', '.join(columns)}) as materialized (select distinct * from (\n{keys}\n) as keys){body}"
        )


def _name(names: list[str | None]) -> str:
    return "/".join("NULL" if name is None else name for name in names)


def _seconds(length: float) -> str:
    return f"{length:.1f}".removesuffix(".0")
