"""Rows over time: each expected key has a young row (fresh), and no hole over a window that ends now (gaps).

Keys, table and time are SQL text from invoke.yaml, and stand in the query as they are; numbers are its parameters. The
raw columns are compared, so that an index on key and time answers: one probe a key, or one range.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from release_tasks.checks.sql import asking
from release_tasks.checks.verdict import ROWS, Seen, Unknown, Wrong

if TYPE_CHECKING:
    from psycopg import Connection

    from release_tasks.checks.place import Asked, Place
    from release_tasks.kinds import Fresh, Gaps, Keyed

AHEAD = 1.0  # seconds that a row may be ahead of the database's clock
SLACK = 1.5  # times `every`: rows further apart have a hole between them


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
from release_keys left join lateral (
  select {time} as at from {table} where {same_key} and {time} is not null order by {time} desc limit 1
) as newest on true"""

# A row that is not more than {apart} older than the window is the first mark, else the window's beginning is.
GAPS = """,
holes as materialized (
  select {names} as names, hole.* from release_keys cross join lateral (
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
  ) as hole
)
select names, {before_in_seconds}, {at_in_seconds}, last or before = {begin}, (select count(*) from holes)
from holes order by at - before desc, names, before limit %(most)s"""


def look_at_fresh(check: Fresh, place: Place, seen: Seen, asked: Asked) -> list[str]:
    """Return each expected key whose newest row is too old, in the future or missing, by the database's clock."""
    seen["threshold"] = f"{check.within:g} s"
    ages = {_name(names): age for names, age in _ask(check, place, seen, FRESH, {})}
    there = {name: age for name, age in ages.items() if age is not None}
    seen["value"] = round(max(there.values()), 1) if there else None
    seen["in_words"] = f"{len(ages)} keys, the oldest {seen['value']} s old"
    said = {name: f"{check.table} has no row for {name}." for name in ages if name not in there}
    for name, age in sorted(there.items(), key=lambda each: -each[1]):
        if age < -AHEAD:
            said[name] = f"{check.table}: the newest row of {name} is {_seconds(-age)} s in the future."
        elif age > check.within:
            expected = f"expected {check.within:g} s at most"
            said[name] = f"{check.table}: the newest row of {name} is {_seconds(age)} s old; {expected}."
    if said:
        seen["rows"] = [{"key": name, "age": ages[name]} for name in list(said)[:ROWS]]
    return _first(list(said.values()), len(said), "keys")


def look_at_gaps(check: Gaps, place: Place, seen: Seen, asked: Asked) -> list[str]:
    """Return each hole of each expected key, the longest first: its start, its length and how many rows are missing.

    The window's edges count: what is missing since its beginning, or until now, is a hole as well.
    """
    apart = check.every * SLACK
    seen["threshold"] = f"{apart:g} s apart, {apart + check.late:g} s until now, over {check.window:g} s"
    spans = {"window": check.window, "apart": apart, "apart_and_late": apart + check.late}
    found = _ask(check, place, seen, GAPS, {**spans, "most": ROWS})
    seen["value"] = total = found[0][-1] if found else 0
    seen["in_words"] = f"{seen['keys']} keys, no hole in {check.window:g} s"
    rows, said = [], []
    for names, before, at, at_an_edge, _ in found:
        name, length = _name(names), at - before
        start = datetime.fromtimestamp(before, UTC).isoformat(timespec="milliseconds")
        missing = max(int(length / check.every) if at_an_edge else round(length / check.every) - 1, 1)
        rows.append({"key": name, "start": start, "seconds": round(length, 3), "missing": missing})
        many = "1 row is" if missing == 1 else f"{missing} rows are"
        said.append(f"{check.table}: {name} has a hole of {_seconds(length)} s from {start}: {many} missing.")
    if rows:
        seen["rows"] = rows
    return _first(said, total, "holes")


def _ask(check: Keyed, place: Place, seen: Seen, question: str, spans: Mapping[str, float]) -> list[Any]:
    """Return the rows of `question` about the expected keys, with its plan among what is seen of gaps."""
    from psycopg import ClientCursor

    keys = (check.keys or place.keys).strip().rstrip(";")
    seen["keys"] = _count(check, place, keys)
    query = _with_parts(question, check, keys)
    with asking(check, place, query) as connection:
        _refuse_another_clock(connection, check)
        seen["query"] = ClientCursor(connection).mogrify(query, spans)
        if question is GAPS:
            seen["plan"] = [line for (line,) in connection.execute(f"explain {query}".encode(), spans)]
        return connection.execute(query.encode(), spans).fetchall()


def _count(check: Keyed, place: Place, keys: str) -> int:
    """Return how many keys are expected. Raises `Wrong` where there are none, `Unknown` where they are no keys."""
    with asking(check, place, keys, "query for the expected keys") as connection:
        asked = connection.execute(f"select count(*) over (), asked.* from (\n{keys}\n) as asked limit 1".encode())
        columns, row = len(asked.description or ()) - 1, asked.fetchone()
    if columns != len(check.key):
        found = f"The query for the expected keys gives {columns} columns; expected {len(check.key)}"
        raise Unknown(f"{found}: {', '.join(check.key)}.", "Mend keys in invoke.yaml.", definite=True)
    if row is None:
        none = f"No keys are expected on {place.name}, for {keys!r} gives no row; a check on nothing passes nothing."
        raise Wrong(none, "Enable what it asks for, or mend keys in invoke.yaml.")
    return int(row[0])


def _refuse_another_clock(connection: Connection, check: Keyed) -> None:
    """Raise `Unknown` where the time of a row says no moment: a `timestamp` is one only with a zone."""
    moment = f"select {check.time} from {check.table} limit 0".replace("%", "%%")
    column, *_ = connection.execute(moment.encode()).description or []
    if column.type_display not in CLOCKS[check.unit].types:
        said = f"{check.time} of {check.table} is of type {column.type_display}; expected {check.unit}"
        mend = (
            "Mend time or unit in invoke.yaml: ms for milliseconds; for another zone, time: \"ts at time zone 'UTC'\"."
        )
        raise Unknown(f"{said}.", mend, definite=True)


def _with_parts(question: str, check: Keyed, keys: str) -> str:
    """Return `question` about the table of `check`, for each of `keys`."""
    clock, numbers = CLOCKS[check.unit], range(len(check.key))
    columns = [f"release_key_{number}" for number in numbers]
    asked, table, time, *names = (text.replace("%", "%%") for text in (keys, check.table, check.time, *check.key))
    spans = {name: clock.span.format(f"%({name})s") for name in ("window", "apart", "apart_and_late")}
    at = {f"{name}_in_seconds": clock.seconds.format(name) for name in ("newest.at", "before", "at")}
    body = question.format(
        **{**spans, "begin": f"({clock.now} - {spans['window']})", "now": clock.now, "type": clock.type},
        **{name.replace("newest.at", "newest"): text for name, text in at.items()},
        table=table,
        time=time,
        same_key=" and ".join(f"({name}) = release_keys.{column}" for name, column in zip(names, columns, strict=True)),
        names=f"array[{', '.join(f'release_keys.{column}::text' for column in columns)}]",
    )
    return (
        f"with release_keys({', '.join(columns)}) as materialized (select distinct * from (\n{asked}\n) as asked){body}"
    )


def _name(names: list[str | None]) -> str:
    return "/".join("NULL" if name is None else name for name in names)


def _seconds(length: float) -> str:
    return f"{length:.1f}".removesuffix(".0")


def _first(said: list[str], total: int, what: str) -> list[str]:
    """Return the first sentences, and one for the rest."""
    more = [f"And {total - ROWS} more {what}."] if total > ROWS else []
    return [*said[:ROWS], *more]
