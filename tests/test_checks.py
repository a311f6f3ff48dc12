"""The checks of a running environment: each names what it misses, and none passes on nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_tasks import checks, postgres
from release_tasks.environments import Environment
from release_tasks.errors import Problem, Refused
from release_tasks.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import Web

KEYS = "select symbol from coins"
SAMPLES = {"table": "samples", "every": 5, "window": 60, "late": 10}
FRESH = {"table": "samples", "within": 20}


@pytest.fixture
def here(dsn: str, server: postgres.Running, web: Web, tmp_path: Path) -> Callable[..., Environment]:
    """Return what makes an environment with two coins and no samples, given the settings of `acceptance`."""
    with psycopg.connect(dsn) as connection:
        connection.execute("create table coins as select unnest(array['BTC', 'ETH']) as symbol")
        connection.execute("create table samples (symbol text, ts timestamptz)")

    def here(**acceptance: Any) -> Environment:
        settings = Settings.model_validate({"acceptance": acceptance})
        return Environment("staging", settings, tmp_path, dsn, web.origin, tmp_path, server.log)

    return here


def sample(here: Environment, symbol: str, *ages: float) -> None:
    """Insert a sample of `symbol` for each age in seconds."""
    with here.connect() as connection:
        for age in ages:
            connection.execute("insert into samples values (%s, now() - make_interval(secs => %s))", [symbol, age])


def what(problems: list[Problem]) -> list[str]:
    assert all(problem.mend for problem in problems)
    return [problem.what for problem in problems]


# Holes


@st.composite
def regular(draw: st.DrawFn) -> tuple[list[float], float, float, float, float]:
    """Draw (times, begin, end, every, late): a series without holes, in whole seconds."""
    every, count, late = draw(st.integers(1, 60)), draw(st.integers(1, 40)), draw(st.integers(0, 90))
    begin, offset = draw(st.integers(0, 2**31)), draw(st.integers(0, every))
    times = [float(begin + offset + every * number) for number in range(count)]
    end = times[-1] + draw(st.integers(0, every + late))
    return times, float(begin), end, float(every), float(late)


@given(regular())
def test_a_regular_series_has_no_holes(series: tuple[list[float], float, float, float, float]) -> None:
    assert checks.holes(*series) == []


@given(regular(), st.data())
def test_rows_that_are_missing_are_exactly_one_hole(
    series: tuple[list[float], float, float, float, float], data: st.DataObject
) -> None:
    times, begin, end, every, late = series
    first = data.draw(st.integers(0, len(times) - 1), label="first missing")
    last = data.draw(st.integers(first, len(times) - 1), label="last missing")
    start = times[first - 1] if first else begin
    stop, at_end = (times[last + 1], 0.0) if last + 1 < len(times) else (end, late)
    hole = [(start, stop - start)] if stop - start > every * 1.5 + at_end else []
    assert checks.holes(times[:first] + times[last + 1 :], begin, end, every, late) == hole


@pytest.mark.parametrize(
    ("times", "holes"),
    [
        ([], [(0.0, 60.0)]),
        ([0, 15, 30, 45, 60], []),
        ([0, 15, 45, 60], [(15, 30)]),
        ([0, 22.5, 45], []),
        ([0, 22.6, 45], [(0, 22.6)]),
        ([30, 45, 60], [(0, 30)]),
        ([0, 15, 30], []),
        ([0, 15], [(15, 45)]),
    ],
)
def test_both_edges_count_and_a_row_may_be_half_its_time_late(times: list[float], holes: list[Any]) -> None:
    assert checks.holes(times, 0.0, 60.0, every=15, late=10) == holes


@pytest.mark.parametrize(
    ("ages", "told"),
    [
        (range(0, 60, 5), []),
        ([age for age in range(0, 60, 5) if age not in (25, 30)], ["samples: ETH has a hole of 15 s from "]),
        ([], ["samples: ETH has a hole of 60 s from "]),
        (range(30, 60, 5), ["samples: ETH has a hole of 30 s from "]),
        ([*range(0, 60, 5), 3600], []),
    ],
)
def test_a_hole_is_told_with_its_key(here: Callable[..., Environment], ages: list[float], told: list[str]) -> None:
    staging = here(keys=KEYS, gaps=[SAMPLES])
    sample(staging, "BTC", *range(0, 60, 5))
    sample(staging, "ETH", *ages)
    found = what(checks.gap_problems(staging))
    assert len(found) == len(told)
    assert all(words.startswith(start) for words, start in zip(found, told, strict=True))


# Freshness and keys


@pytest.mark.parametrize(
    ("ages", "told"),
    [
        ([15, 300], []),
        ([], ["samples has no row for ETH."]),
        ([25], ["samples: the newest row of ETH is 25 s old; expected 20 s at most."]),
        ([5, -60], ["samples: the newest row of ETH is -60 s old; expected 20 s at most."]),
    ],
    ids=["fresh", "missing", "stale", "in the future"],
)
def test_each_key_has_a_fresh_row(here: Callable[..., Environment], ages: list[float], told: list[str]) -> None:
    staging = here(keys=KEYS, fresh=[FRESH])
    sample(staging, "BTC", 1)
    sample(staging, "ETH", *ages)
    sample(staging, "GONE", 9999)
    assert what(checks.freshness_problems(staging)) == told


def test_a_check_on_no_keys_passes_nothing(here: Callable[..., Environment]) -> None:
    staging = here(keys="select symbol from coins where false", fresh=[FRESH], gaps=[SAMPLES])
    for check in (checks.freshness_problems, checks.gap_problems):
        with pytest.raises(Refused, match="a check on nothing passes nothing"):
            check(staging)


def test_a_query_that_fails_is_refused_and_a_query_may_only_look(here: Callable[..., Environment]) -> None:
    with pytest.raises(Refused, match='relation "nowhere" does not exist'):
        checks.expected_keys(here(keys="select symbol from nowhere"))
    with pytest.raises(Refused, match="read-only transaction"):
        checks.expected_keys(here(keys="delete from coins returning symbol"))
    assert checks.expected_keys(here(keys=KEYS)) == ["BTC", "ETH"]


# API and views


@pytest.mark.parametrize(
    ("status", "body"), [(500, '{"ok": true}'), (200, '{"ok": false}'), (200, '{"ok": "true"}'), (200, "ok"), (200, "")]
)
def test_the_api_is_ok_only_with_200_and_ok_true(
    here: Callable[..., Environment], web: Web, status: int, body: str
) -> None:
    web.answers["/api/health"] = (200, '{"ok": true}')
    assert checks.api_problems(here()) == []
    web.answers["/api/health"] = (status, body)
    (words,) = what(checks.api_problems(here()))
    assert f"answers {status}, {body!r}; expected 200 and ok: true" in words


def test_views_that_answer_with_no_page_are_named(here: Callable[..., Environment], web: Web) -> None:
    page = "<html><main class='x'></main></html>"
    web.answers |= {"/": (200, page), "/login": (302, page), "/empty": (200, ""), "/broken": (500, page)}
    assert checks.view_problems(here(views=["/"])) == []
    found = what(checks.view_problems(here(views=["/", "/login", "/empty", "/broken", "/none"])))
    assert [words.split()[2] for words in found] == ["/login", "/empty", "/broken", "/none"]


# The server log


def log(here: Environment, statement: str) -> None:
    with here.connect() as connection:
        connection.execute(statement)


def test_sql_trouble_since_the_deployment_is_told_and_older_is_not(here: Callable[..., Environment]) -> None:
    staging = here()
    assert staging.log
    log(staging, "do $$ begin raise warning 'before'; end $$")
    assert checks.log_problems(staging, 0) != []
    offset = staging.log.stat().st_size
    log(staging, "do $$ begin raise notice 'only a notice'; raise log 'WARNING as a word'; end $$")
    assert checks.log_problems(staging, offset) == []
    log(staging, "do $$ begin raise warning 'a wide table'; end $$")
    with pytest.raises(psycopg.Error):
        log(staging, "select 1 / 0")
    found = what(checks.log_problems(staging, offset))
    assert [words.partition("]")[2].strip() for words in found] == [
        "WARNING:  a wide table",
        "ERROR:  division by zero",
    ]


def test_a_rotated_log_is_read_from_its_beginning(here: Callable[..., Environment]) -> None:
    staging = here()
    assert staging.log
    offset = staging.log.stat().st_size + 10_000
    os.truncate(staging.log, 0)
    log(staging, "do $$ begin raise warning 'after the rotation'; end $$")
    assert any("after the rotation" in words for words in what(checks.log_problems(staging, offset)))


def test_a_log_that_is_missing_or_another_server_s_proves_nothing(
    here: Callable[..., Environment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "LOG_DELAY", 0.2)
    staging = here()
    staging.log = tmp_path / "postgres.log"
    assert what(checks.log_problems(staging, 0)) == [f"The server log of staging cannot be read: {staging.log}."]
    staging.log.write_text("all quiet\n")
    (words,) = what(checks.log_problems(staging, 0))
    assert words.endswith("it is another server's log.")


def test_a_query_that_cannot_work_is_not_asked_again_while_jobs_catch_up(here: Callable[..., Environment]) -> None:
    staging = here(keys="select symbol from never_made", fresh=[FRESH])
    assert staging.log
    offset = staging.log.stat().st_size
    checks.catch_up(staging)
    assert staging.log.read_bytes()[offset:].count(b'relation "never_made" does not exist') == 1
