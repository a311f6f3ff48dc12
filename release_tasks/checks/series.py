"""Rows over time: each expected key is fresh, and has no gap over a window that ends now, by the database's clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import inf
from typing import Any

from psycopg import Connection

from release_tasks.checks import CheckFailed, Inconclusive, Record
from release_tasks.errors import counted, listed

AHEAD = 1.0  # seconds that a row may be ahead of the database's clock
# unit → types of such a column; the moment {} seconds ago, as the column has it; the column `at` in seconds since 1970
UNITS = {
    "timestamptz": ("timestamptz", "now() - make_interval(secs => {})", "extract(epoch from at)::float8"),
    "ms": ("int8 numeric float8", "((extract(epoch from now()) - {}) * 1000)::bigint", "at / 1000::float8"),
}
# The raw columns are compared, so that an index on key and time answers: one probe a key, or one range.
TIMES = """
select {name}, extract(epoch from now())::float8, array(
  select {seconds} from (select {time} as at from {table} where {same_key} and {time} {which}) as rows)
from (select distinct * from (
{keys}
) as keys) as expected ({columns})"""
NEWEST, WINDOW = "is not null order by {time} desc limit 1", "> {begin} and {time} <= {end} order by {time}"


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
        found = self._times(NEWEST)
        ages = sorted(((clock - times[0] if times else inf, name) for name, clock, times in found), reverse=True)
        wrong = [f"has no row for {name}" for age, name in ages if age == inf]
        wrong += [f"the newest row of {name} is {-age:.1f} s in the future" for age, name in ages if age < -AHEAD]
        old = [(age, name) for age, name in ages if not age <= within and age != inf]  # NaN is no age
        wrong += [f"the newest row of {name} is {age:.1f} s old" for age, name in old]
        self._conclude(wrong, f"{counted(len(ages), 'key')}, the oldest {ages[0][0]:.1f} s old")

    def has_no_gaps(self, every: float, window: float = 600, late: float = 15) -> None:
        """Raise `CheckFailed` with each gap of each expected key: over 1.5 times `every`; at the end `late` s more."""
        if not window > every * 1.5 + late:
            raise ValueError(f"window is {window:g} s; expected more than every * 1.5 + late: a dead key would pass")
        gaps = list[tuple[float, str, str]]()
        for name, clock, times in self._times(WINDOW, window):
            for begin, end in pairwise([clock - window, *times, clock - late]):
                if end - begin > every * 1.5:
                    at = datetime.fromtimestamp(begin, UTC).isoformat(timespec="milliseconds")
                    gaps.append((begin - end, name, at))
        wrong = [f"{name} has a gap of {-length:.1f} s from {at}" for length, name, at in sorted(gaps)]
        self._conclude(wrong, f"no gap in {window:g} s")

    def _conclude(self, wrong: list[str], observed: str) -> None:
        if wrong:
            raise CheckFailed(f"{self.table}: {listed(wrong)}.")
        self.record("series", f"{self.table}: {observed}")

    def _times(self, which: str, window: float = 0) -> list[Any]:
        """Return each expected key, the clock and the key's times. Raises where there is no key, or no such time."""
        if self.unit not in UNITS:
            raise ValueError(f"unit is {self.unit!r}; expected one of {', '.join(UNITS)}")
        moment = self.db.execute(f"select {self.time} from {self.table} limit 0".encode())
        if (found := (moment.description or [])[0].type_display.partition("(")[0]) not in UNITS[self.unit][0].split():
            hint = 'unit="ms" for milliseconds; for another zone, time="ts at time zone \'UTC\'"'
            said = f"{self.time} of {self.table} is of type {found}; expected {self.unit}."
            raise Inconclusive(said, hint, final=True)
        if not (rows := self.db.execute(self.sql(which, window).encode()).fetchall()):
            raise CheckFailed(f"No keys are expected: {self.keys!r} gives no row; a check on nothing passes nothing.")
        return rows

    def sql(self, which: str, window: float = 0) -> str:
        """Return the query for the times of each expected key: its newest, or those of a window in seconds."""
        _, ago, seconds = UNITS[self.unit]
        names = [self.key] if isinstance(self.key, str) else self.key
        columns = [f"key_{number}" for number in range(len(names))]
        same_key = " and ".join(f"({name}) = {column}" for name, column in zip(names, columns, strict=True))
        name = " || '/' || ".join(f"coalesce({column}::text, 'NULL')" for column in columns)
        which = which.format(time=self.time, begin=ago.format(window), end=ago.format(0))
        own = {"table": self.table, "time": self.time, "keys": self.keys, "columns": ", ".join(columns)}
        return TIMES.format(**own, which=which, name=name, same_key=same_key, seconds=seconds)
