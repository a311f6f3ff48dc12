"""Each expected key has a young row, and no gap: what SQL finds is what a plain model of gaps finds."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from release_tasks.checks import Target, series
from release_tasks.checks.series import Series
from release_tasks.outcome import FAILED, INCONCLUSIVE, PASSED
from tests.checks.conftest import Came, came_to

KEYS = "select symbol from coins where enabled"
WHERE: dict[str, dict[str, Any]] = {
    "timestamptz": {"table": "samples"},
    "ms": {"table": "samples_ms", "time": "ts_ms", "unit": "ms"},
}
FRESH = {"within": 20}
GAPS = {"every": 5, "window": 60, "late": 10}
NOW = "(extract(epoch from now()) * 1000)::bigint"
Ask = Callable[..., Came]


@pytest.fixture
def ask(dsn: str, target: Callable[..., Target]) -> Ask:
    """Return what checks a database with two enabled coins, and samples of none: `ask(method, options, **series)`."""
    with psycopg.connect(dsn) as connection:
        connection.execute("create table coins as select unnest(array['BTC', 'ETH', 'OLD']) as symbol")
        connection.execute("alter table coins add enabled bool; update coins set enabled = symbol <> 'OLD'")
        connection.execute("create table samples (symbol text, ts timestamptz, primary key (symbol, ts))")
        connection.execute("create table samples_ms (symbol text, ts_ms bigint, primary key (symbol, ts_ms))")

    def ask(method: str, options: dict[str, Any], keys: str = KEYS, dsn: str = dsn, **where: Any) -> Came:
        with target(dsn=dsn).connect() as connection:
            return came_to(lambda record: getattr(Series(connection, record, keys=keys, **where), method)(**options))

    return ask


def sample(dsn: str, symbol: str, *ages: float) -> None:
    """Insert a sample of `symbol` into both tables for each age in seconds."""
    with psycopg.connect(dsn) as connection:
        for table, time in (("samples", "now() - make_interval(secs => {0})"), ("samples_ms", NOW + " - {0} * 1000")):
            for age in ages:
                connection.execute(f"insert into {table} values (%s, {time.format(age)})".encode(), [symbol])


def test_a_column_may_name_how_exact_it_is(ask: Ask, dsn: str) -> None:
    """It was refused: timestamptz(3) is what many tools make."""
    with psycopg.connect(dsn) as connection:
        connection.execute("alter table samples alter ts type timestamptz(3)")
        connection.execute("alter table samples_ms alter ts_ms type numeric(20, 0)")
    sample(dsn, "BTC", 1)
    sample(dsn, "ETH", 1)
    for where in WHERE.values():
        assert ask("is_fresh", {"within": 600}, **where).outcome == PASSED


def test_what_is_no_number_is_not_fresh(ask: Ask, dsn: str) -> None:
    sample(dsn, "BTC", 1)
    with psycopg.connect(dsn) as connection:
        connection.execute("alter table samples_ms alter ts_ms type float8")
        connection.execute("insert into samples_ms values ('ETH', 'NaN')")
    assert "the newest row of ETH is nan s old" in ask("is_fresh", FRESH, **WHERE["ms"]).message
    with pytest.raises(ValueError, match="a dead key would pass"):
        ask("has_no_gaps", {**GAPS, "every": float("nan")}, **WHERE["timestamptz"])


# Fresh


@pytest.mark.parametrize("unit", WHERE)
@pytest.mark.parametrize(
    ("ages", "said"),
    [
        ([15, 300], None),
        ([-0.5], None),
        ([], "{}: has no row for ETH."),
        ([25, 99], "{}: the newest row of ETH is 25"),
        ([5, -60], "{}: the newest row of ETH is "),
        ([-3600], "{}: the newest row of ETH is "),
    ],
    ids=["fresh", "a skewed clock", "missing", "stale", "one in the future", "a clock an hour off"],
)
def test_each_expected_key_has_a_young_row(ask: Ask, dsn: str, unit: str, ages: list[float], said: str | None) -> None:
    sample(dsn, "BTC", 1)
    sample(dsn, "ETH", *ages)
    sample(dsn, "OLD", 9999)
    result = ask("is_fresh", FRESH, **WHERE[unit])
    assert result.outcome == (FAILED if said else PASSED)
    if said:
        assert result.message.startswith(said.format(WHERE[unit]["table"])) and "BTC" not in result.message
        assert ("in the future" in result.message) == any(age < -1 for age in ages)
    else:
        assert f"{WHERE[unit]['table']}: 2 keys, the oldest" in result.recorded[0]


def test_the_first_ten_keys_are_told_and_the_rest_counted(ask: Ask) -> None:
    result = ask("is_fresh", FRESH, keys="select 'C' || i from generate_series(1, 25) i", **WHERE["ms"])
    assert result.message.count("has no row") == 10 and result.message.endswith("and 15 more.")


# Keys

BOTH = pytest.mark.parametrize(("method", "options"), [("is_fresh", FRESH), ("has_no_gaps", GAPS)])


@BOTH
def test_a_check_on_no_keys_fails(ask: Ask, method: str, options: dict[str, Any]) -> None:
    result = ask(method, options, keys="select symbol from coins where false", **WHERE["ms"])
    assert result.outcome == FAILED and "passes nothing" in result.message
    assert result.message.startswith("No keys are expected")


@BOTH
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"keys": "select symbol from nowhere"}, 'relation "nowhere" does not exist'),
        ({"keys": "delete from coins returning symbol"}, "syntax error"),
        ({"keys": "select 'a'; select 'b'"}, "syntax error"),
        ({"key": ["symbol", "ts"]}, "has 1 columns available but 2 columns specified"),
        ({"table": "nowhere"}, 'relation "nowhere" does not exist'),
        ({"unit": "ms"}, "ts of samples is of type timestamptz; expected ms."),
        ({"time": "ts at time zone 'UTC'"}, "is of type timestamp; expected timestamptz."),
        ({"time": "ts::date"}, "is of type date; expected timestamptz."),
    ],
)
def test_what_cannot_be_queried_is_inconclusive_and_final(
    ask: Ask, dsn: str, method: str, options: dict[str, Any], where: dict[str, Any], said: str
) -> None:
    sample(dsn, "BTC", 1)
    result = ask(method, options, **{**WHERE["timestamptz"], **where})
    assert (result.outcome, result.final) == (INCONCLUSIVE, True) and said in result.message


@BOTH
def test_a_key_may_have_several_columns_or_be_an_expression(
    ask: Ask, dsn: str, method: str, options: dict[str, Any]
) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("create table pairs (base text, quote text, ts timestamptz)")
        connection.execute(
            "insert into pairs select 'A%', 'B', now() - i * interval '5 s' from generate_series(0, 12) i"
        )
    twice = "select 'A%', 'B' union all select 'A%', 'B' where 'x' like '%' -- twice"
    assert ask(method, options, twice, table="pairs", key=["base", "quote"]).outcome == PASSED
    result = ask(method, options, "values ('A%%B'), (null)", table="pairs", key="base || '%' || quote")
    assert result.message.count("pairs") == 1 and "NULL" in result.message
    assert "A%/C" in ask(method, options, "values ('A%', 'C')", table="pairs", key=["base", "quote"]).message


# Gaps

TOLD = re.compile(r"(\w+) has a gap of ([\d.]+) s from (\S+?)[,.]?( |$)")


@pytest.mark.parametrize("unit", WHERE)
@pytest.mark.parametrize(
    ("ages", "gap"),
    [
        (range(0, 61, 5), None),
        (range(0, 96, 5), None),
        ([age for age in range(0, 60, 5) if age not in (25, 30)], 15),
        ([age for age in range(0, 60, 5) if age != 30], 10),
        (range(12, 60, 5), None),
        (range(20, 60, 5), 10),
        (range(0, 30, 5), 35),
        ([], 50),
        ([70, 3600], 50),
        ([*range(0, 60, 5), 3600], None),
        ([*range(-3600, -3580, 5)], 50),
        ([*range(2, 50, 5), 66], 13),
    ],
    ids=["whole", "older rows", "two missing", "one missing", "late", "stopped", "began late", "never a row", "silent",
         "an old row", "only the future", "over the edge"],
)  # fmt: skip
def test_each_gap_is_told_with_key_start_and_length(
    ask: Ask, dsn: str, unit: str, ages: list[float], gap: int | None
) -> None:
    sample(dsn, "BTC", *range(0, 61, 5))
    sample(dsn, "ETH", *ages)
    result = ask("has_no_gaps", GAPS, **WHERE[unit])
    if gap is None:
        assert (result.outcome, result.recorded) == (PASSED, [f"{WHERE[unit]['table']}: no gap in 60 s"])
        return
    ((key, length, start, _),) = TOLD.findall(result.message)
    assert (key, round(float(length))) == ("ETH", gap)
    assert start.endswith("+00:00") and abs(datetime.fromisoformat(start).timestamp() - datetime.now().timestamp()) < 70


def test_all_gaps_are_counted_and_the_ten_longest_told(ask: Ask, dsn: str) -> None:
    sample(dsn, "BTC", *range(0, 600, 20), 580 - 1)
    result = ask("has_no_gaps", {**GAPS, "window": 600}, keys="select 'BTC'", **WHERE["ms"])
    lengths = [float(length) for _, length, _, _ in TOLD.findall(result.message)]
    assert len(lengths) == 10 and lengths == sorted(lengths, reverse=True)
    assert re.search(r"and [12]\d more\.$", result.message)


@pytest.mark.parametrize("unit", WHERE)
def test_the_index_answers(dsn: str, unit: str, ask: Ask, target: Callable[..., Target]) -> None:
    table = WHERE[unit]["table"]
    time = "now() - i * interval '5 s'" if unit == "timestamptz" else f"{NOW} - i * 5000"
    with psycopg.connect(dsn) as connection:
        connection.execute(
            f"insert into {table} select symbol, {time} from generate_series(0, 99999) i,"
            " unnest(array['BTC', 'ETH']) symbol".encode()
        )
        connection.execute(f"analyze {table}".encode())
        one = Series(connection, lambda *_: None, keys=KEYS, **WHERE[unit])
        rows = connection.execute(f"explain {one.sql(series.WINDOW, 3600)}".encode()).fetchall()
    plan = "\n".join(line for (line,) in rows)
    assert f"using {table}_pkey on {table}" in plan and f"Seq Scan on {table}" not in plan


def test_a_window_in_which_a_dead_key_would_pass_is_refused(ask: Ask) -> None:
    with pytest.raises(ValueError, match=r"a dead key would pass"):
        ask("has_no_gaps", {"every": 1800, "window": 600}, **WHERE["ms"])


def gaps_of(times: list[int], begin: int, end: int, every: float, late: float) -> list[tuple[int, int]]:
    """Return (start, length) of each gap, all in milliseconds: the plain model of what the query finds."""
    inside = [time for time in times if begin < time <= end]
    steps = pairwise([begin, *inside, end - late])
    return [(start, stop - start) for start, stop in steps if stop - start > every * 1.5]


drawn_series = st.lists(st.integers(-300, 2100), unique=True, max_size=40).map(sorted)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(drawn_series, min_size=1, max_size=4), st.integers(1, 60), st.integers(1, 40), st.sampled_from([*WHERE])
)
def test_sql_finds_the_gaps_of_the_plain_model(
    ask: Ask, dsn: str, drawn: list[list[int]], every: int, late: int, unit: str
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
    options = {"every": every, "late": late, "window": window}
    keys = f"select 'C' || i from generate_series(0, {len(drawn) - 1}) i"
    result = ask("has_no_gaps", options, keys, still, **WHERE[unit])
    begin = clock - window * 1000
    expected = []
    for number, times in enumerate(drawn):
        found = gaps_of([clock - 500_000 + time * 250 for time in times], begin, clock, every * 1000, late * 1000)
        expected += [(f"C{number}", start, length) for start, length in found]
    assert result.outcome == (FAILED if expected else PASSED)
    told = [
        (key, round(datetime.fromisoformat(start).timestamp() * 1000), f"{float(length):.1f}")
        for key, length, start, _ in TOLD.findall(result.message)
    ]
    first = sorted(expected, key=lambda gap: (-gap[2], gap[0], gap[1]))[:10]
    assert told == [(key, start, f"{length / 1000:.1f}") for key, start, length in first]
    assert (" more." in result.message) == (len(expected) > 10)
