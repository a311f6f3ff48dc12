"""Each expected key has a young row, and no hole: what SQL finds is what a plain model of holes finds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from release_tasks.checks.place import Place
from release_tasks.checks.verdict import FAIL, PASS, UNKNOWN, Result
from release_tasks.kinds import Fresh, Gaps

KEYS = "select symbol from coins where enabled"
WHERE = {"timestamptz": {"table": "samples"}, "ms": {"table": "samples_ms", "time": "ts_ms", "unit": "ms"}}
FRESH = {"within": 20}
GAPS = {"every": 5, "window": 60, "late": 10}
NOW = "(extract(epoch from now()) * 1000)::bigint"


@pytest.fixture
def ask(dsn: str, place: Callable[..., Place], look: Callable[..., Result]) -> Callable[..., Result]:
    """Return what asks a database with two enabled coins, and samples of none."""
    with psycopg.connect(dsn) as connection:
        connection.execute("create table coins as select unnest(array['BTC', 'ETH', 'OLD']) as symbol")
        connection.execute("alter table coins add enabled bool; update coins set enabled = symbol <> 'OLD'")
        connection.execute("create table samples (symbol text, ts timestamptz, primary key (symbol, ts))")
        connection.execute("create table samples_ms (symbol text, ts_ms bigint, primary key (symbol, ts_ms))")

    def ask(kind: type[Fresh | Gaps], wait: float = 0.0, keys: str = KEYS, dsn: str = dsn, **told: Any) -> Result:
        return look(kind.model_validate(told), place(dsn=dsn, keys=keys), wait)

    return ask


def sample(dsn: str, symbol: str, *ages: float) -> None:
    """Insert a sample of `symbol` into both tables for each age in seconds."""
    with psycopg.connect(dsn) as connection:
        for table, time in (("samples", "now() - make_interval(secs => {0})"), ("samples_ms", NOW + " - {0} * 1000")):
            for age in ages:
                connection.execute(f"insert into {table} values (%s, {time.format(age)})".encode(), [symbol])


# Fresh


@pytest.mark.parametrize("unit", WHERE)
@pytest.mark.parametrize(
    ("ages", "said"),
    [
        ([15, 300], None),
        ([-0.5], None),
        ([], "{} has no row for ETH."),
        ([25, 99], "{}: the newest row of ETH is 25"),
        ([5, -60], "{}: the newest row of ETH is "),
        ([-3600], "{}: the newest row of ETH is "),
    ],
    ids=["fresh", "a skewed clock", "missing", "stale", "one in the future", "a clock an hour off"],
)
def test_each_expected_key_has_a_young_row(
    ask: Callable[..., Result], dsn: str, unit: str, ages: list[float], said: str | None
) -> None:
    sample(dsn, "BTC", 1)
    sample(dsn, "ETH", *ages)
    sample(dsn, "OLD", 9999)
    result = ask(Fresh, **FRESH, **WHERE[unit])
    assert result.verdict == (FAIL if said else PASS)
    assert [words.startswith(str(said).format(WHERE[unit]["table"])) for words in result.said] == [True] * bool(said)
    assert result.seen["keys"] == 2 and result.seen["threshold"] == "20 s" and "limit 1" in result.seen["query"]
    if said:
        assert [row["key"] for row in result.seen["rows"]] == ["ETH"]
        assert ("in the future" in result.words) == any(age < -1 for age in ages)


def test_the_first_ten_keys_are_told_and_the_rest_counted(ask: Callable[..., Result]) -> None:
    result = ask(Fresh, keys="select 'C' || i from generate_series(1, 25) i", **FRESH, **WHERE["ms"])
    assert (len(result.said), result.said[-1], len(result.seen["rows"])) == (11, "And 15 more keys.", 10)


# Keys


@pytest.mark.parametrize("kind", [Fresh, Gaps])
def test_a_check_on_no_keys_fails(ask: Callable[..., Result], kind: Any) -> None:
    told = {**(FRESH if kind is Fresh else GAPS), **WHERE["ms"]}
    result = ask(kind, keys="select symbol from coins where false", **told)
    assert result.verdict == FAIL and result.mend
    assert result.words.startswith("No keys are expected on staging") and "passes nothing" in result.words


@pytest.mark.parametrize("kind", [Fresh, Gaps])
@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"keys": "select symbol from nowhere"}, 'the query for the expected keys: relation "nowhere" does not exist.'),
        ({"keys": "delete from coins returning symbol"}, "the query for the expected keys: it is not one query"),
        ({"keys": "select 'a'; select 'b'"}, "the query for the expected keys: it is not one query"),
        ({"keys": "select symbol, enabled from coins"}, "gives 2 columns; expected 1: symbol."),
        ({"key": ["symbol", "ts"]}, "gives 1 columns; expected 2: symbol, ts."),
        ({"table": "nowhere"}, 'staging does not answer the query: relation "nowhere" does not exist.'),
        ({"unit": "ms"}, "ts of samples is of type timestamptz; expected ms."),
        ({"time": "ts at time zone 'UTC'"}, "is of type timestamp; expected timestamptz."),
        ({"time": "ts::date"}, "is of type date; expected timestamptz."),
    ],
)
def test_what_cannot_be_asked_is_unknown_and_is_not_asked_again(
    ask: Callable[..., Result], dsn: str, kind: Any, told: dict[str, Any], words: str
) -> None:
    sample(dsn, "BTC", 1)
    result = ask(kind, wait=5, **{**(FRESH if kind is Fresh else GAPS), **WHERE["timestamptz"], **told})
    assert (result.verdict, result.attempts, len(result.said)) == (UNKNOWN, 1, 1)
    assert words in result.words and result.mend


@pytest.mark.parametrize("kind", [Fresh, Gaps])
def test_a_key_may_have_several_columns_or_be_an_expression(ask: Callable[..., Result], dsn: str, kind: Any) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("create table pairs (base text, quote text, ts timestamptz)")
        connection.execute(
            "insert into pairs select 'A%', 'B', now() - i * interval '5 s' from generate_series(0, 12) i"
        )
    told = {**(FRESH if kind is Fresh else GAPS), "table": "pairs"}
    both = {"key": ["base", "quote"], "keys": "select 'A%', 'B' union all select 'A%', 'B' where 'x' like '%' -- twice"}
    assert ask(kind, **told, **both).verdict == PASS
    one = {"key": "base || '%' || quote", "keys": "values ('A%%B'), (null);"}
    result = ask(kind, **told, **one)
    assert len(result.said) == 1 and "NULL" in result.words
    gone = {"key": ["base", "quote"], "keys": "values ('A%', 'C')"}
    assert "A%/C" in ask(kind, **told, **gone).words


# Gaps


@pytest.mark.parametrize("unit", WHERE)
@pytest.mark.parametrize(
    ("ages", "hole", "missing"),
    [
        (range(0, 61, 5), None, 0),
        (range(0, 96, 5), None, 0),
        ([age for age in range(0, 60, 5) if age not in (25, 30)], 15, 2),
        ([age for age in range(0, 60, 5) if age != 30], 10, 1),
        (range(12, 60, 5), None, 0),
        (range(20, 60, 5), 20, 4),
        (range(0, 30, 5), 35, 6),
        ([], 60, 12),
        ([70, 3600], 60, 12),
        ([*range(0, 60, 5), 3600], None, 0),
        ([*range(-3600, -3580, 5)], 60, 12),
        ([*range(2, 58, 5), 66], 9, 1),
    ],
    ids=["whole", "older rows", "two missing", "one missing", "late", "stopped", "began late", "never a row", "silent",
         "an old row", "only the future", "over the edge"],
)  # fmt: skip
def test_each_hole_is_told_with_key_start_length_and_count(
    ask: Callable[..., Result], dsn: str, unit: str, ages: list[float], hole: int | None, missing: int
) -> None:
    sample(dsn, "BTC", *range(0, 61, 5))
    sample(dsn, "ETH", *ages)
    result = ask(Gaps, **GAPS, **WHERE[unit])
    if hole is None:
        assert (result.verdict, result.words) == (PASS, "2 keys, no hole in 60 s")
        return
    (row,) = result.seen["rows"]
    assert (row["key"], round(row["seconds"]), row["missing"]) == ("ETH", hole, missing)
    assert f"{WHERE[unit]['table']}: ETH has a hole of " in result.words and f" s from {row['start']}" in result.words
    assert (
        row["start"].endswith("+00:00")
        and abs(datetime.fromisoformat(row["start"]).timestamp() - datetime.now(UTC).timestamp()) < 70
    )


def test_all_holes_are_counted_and_the_ten_longest_told(ask: Callable[..., Result], dsn: str) -> None:
    sample(dsn, "BTC", *range(0, 600, 20), 580 - 1)
    result = ask(Gaps, keys="select 'BTC'", **{**GAPS, "window": 600}, **WHERE["ms"])
    assert result.seen["value"] > 25
    assert len(result.said) == 11 and result.said[-1] == f"And {result.seen['value'] - 10} more holes."
    lengths = [row["seconds"] for row in result.seen["rows"]]
    assert len(lengths) == 10 and lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("unit", WHERE)
def test_the_index_answers_and_the_plan_shows_it(ask: Callable[..., Result], dsn: str, unit: str) -> None:
    table = WHERE[unit]["table"]
    time = "now() - i * interval '5 s'" if unit == "timestamptz" else f"{NOW} - i * 5000"
    with psycopg.connect(dsn) as connection:
        connection.execute(
            f"insert into {table} select symbol, {time} from generate_series(0, 99999) i,"
            " unnest(array['BTC', 'ETH']) symbol".encode()
        )
        connection.execute(f"analyze {table}".encode())
    result = ask(Gaps, **{**GAPS, "window": 3600}, **WHERE[unit])
    plan = "\n".join(result.seen["plan"])
    assert result.verdict == PASS
    assert f"using {table}_pkey on {table}" in plan and f"Seq Scan on {table}" not in plan


def test_a_window_in_which_a_dead_key_would_pass_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"more than 2715 s"):
        Gaps.model_validate({"table": "klines", "every": 1800, "window": 600})


def holes(times: list[int], begin: int, end: int, every: float, late: float) -> list[tuple[int, int]]:
    """Return (start, length) of each hole, all in milliseconds: the plain model of what the query finds."""
    inside = [time for time in times if begin < time <= end]
    before = [time for time in times if begin - every * 1.5 <= time <= begin]
    marks = [before[-1] if before and inside else begin, *inside, end]
    allowed = [every * 1.5] * (len(marks) - 2) + [every * 1.5 + late]
    steps = zip(pairwise(marks), allowed, strict=True)
    return [(start, stop - start) for (start, stop), most in steps if stop - start > most]


series = st.lists(st.integers(-300, 2100), unique=True, max_size=40).map(sorted)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(series, min_size=1, max_size=4), st.integers(1, 60), st.integers(1, 40), st.sampled_from([*WHERE]))
def test_sql_finds_the_holes_of_the_plain_model(
    ask: Callable[..., Result], dsn: str, drawn: list[list[int]], every: int, late: int, unit: str
) -> None:
    """Times are drawn in quarters of a second; the database's clock stands still, 500 s after the first."""
    table, window = WHERE[unit]["table"], 400
    clock = 1_700_000_000_000
    fake = "create schema if not exists still; create or replace function still.now() returns timestamptz language sql"
    with psycopg.connect(dsn) as connection:
        connection.execute(f"truncate {table}".encode())
        connection.execute(f"{fake} stable as 'select to_timestamp({clock / 1000})'".encode())
        to_time = "to_timestamp(%s / 1000.0)" if unit == "timestamptz" else "%s"
        for number, times in enumerate(drawn):
            rows = [(f"C{number}", clock - 500_000 + time * 250) for time in times]
            connection.cursor().executemany(f"insert into {table} values (%s, {to_time})".encode(), rows)
    still = psycopg.conninfo.make_conninfo(dsn, options="-csearch_path=still,public,pg_catalog")
    asked = ask(
        Gaps, keys=f"select 'C' || i from generate_series(0, {len(drawn) - 1}) i", dsn=still,
        **WHERE[unit], every=every, late=late, window=window,
    )  # fmt: skip
    begin = clock - window * 1000
    expected = []
    for number, times in enumerate(drawn):
        found = holes([clock - 500_000 + time * 250 for time in times], begin, clock, every * 1000, late * 1000)
        expected += [(f"C{number}", start, length) for start, length in found]
    told = [
        (row["key"], round(datetime.fromisoformat(row["start"]).timestamp() * 1000), round(row["seconds"] * 1000))
        for row in asked.seen.get("rows", [])
    ]
    assert asked.verdict == (FAIL if expected else PASS) and asked.seen["value"] == len(expected)
    assert told == sorted(expected, key=lambda hole: (-hole[2], hole[0], hole[1]))[:10]
