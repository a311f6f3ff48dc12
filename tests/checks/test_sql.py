"""A query passes on what it has to give, fails on anything else, and is unknown when nothing was looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import ValidationError

from release_tasks.checks.place import Place
from release_tasks.checks.verdict import FAIL, PASS, UNKNOWN, Result
from release_tasks.database.server import Running
from release_tasks.kinds import Sql


@pytest.fixture
def ask(dsn: str, place: Callable[..., Place], look: Callable[..., Result]) -> Callable[..., Result]:
    """Return what asks a database with 25 coins, none of them at a loss, and an empty table."""
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "create table coins as select i as id, 'C' || i as name, i * 1.5 as mid from generate_series(1, 25) i"
        )
        connection.execute("create table empty (id int, mid numeric)")

    def ask(wait: float = 0.0, dsn: str = dsn, **told: Any) -> Result:
        return look(Sql.model_validate(told), place(dsn=dsn), wait)

    return ask


NONE = {"expect": "none", "over": "select 1 from coins"}
SOME = {"expect": "some"}


@pytest.mark.parametrize(
    ("told", "verdict", "words"),
    [
        ({"query": "select * from coins where mid < 0", **NONE}, PASS, "0 rows"),
        (
            {"query": "select id, name from coins where id = 7", **NONE},
            FAIL,
            "It gives 1 row; expected none. One of them: {'id': '7'",
        ),
        ({"query": "select 1 from coins where id <= 10", **NONE}, FAIL, "It gives 10 rows;"),
        ({"query": "select 1 from coins", **NONE}, FAIL, "It gives at least 11 rows;"),
        ({"query": "select * from coins;  -- all", **SOME}, PASS, "at least 11 rows"),
        ({"query": "select * from empty", **SOME}, FAIL, "It gives 0 rows; expected 1 at least."),
        ({"query": "select * from coins", "at_least": 25}, PASS, "at least 25 rows"),
        ({"query": "select * from coins", "at_least": 26}, FAIL, "It gives 25 rows; expected 26 at least."),
        ({"query": "select name from coins where name like 'C%'", "at_least": 3}, PASS, "at least 11 rows"),
        ({"query": "values (date '20000-01-01'), ('infinity')", "at_least": 2}, PASS, "2 rows"),
        ({"query": "select max(mid) from coins", "between": [37.5, 40]}, PASS, "37.5"),
        ({"query": "select max(mid) from coins", "between": [0, 37]}, FAIL, "It gives 37.5; expected 0 to 37."),
        ({"query": "select 'NaN'::float8", "between": [0, 1]}, FAIL, "It gives nan; expected 0 to 1."),
    ],
)
def test_an_answer_is_judged(ask: Callable[..., Result], told: dict[str, Any], verdict: str, words: str) -> None:
    result = ask(**told)
    assert (result.verdict, result.words[: len(words)]) == (verdict, words)
    assert result.seen["query"] == told["query"] and result.seen["threshold"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            {"query": "select 1 from empty", "expect": "none", "over": "select * from empty"},
            "over, 'select * from empty', gives no row.",
        ),
        ({"query": "select 1 from empty", "expect": "none", "over": "select count(*) from empty"}, "gives 0."),
        ({"query": "select 1 from empty", "expect": "none", "over": "select max(id) from empty"}, "gives None."),
        ({"query": "select 1 from empty", "expect": "none", "over": "select exists(select from empty)"}, "gives f."),
        ({"query": "select mid from empty", "between": [0, 1]}, "it gives no row; expected a value"),
        ({"query": "select max(mid) from empty", "between": [0, 1]}, "it gives NULL; expected a value"),
    ],
)
def test_nothing_looked_at_is_unknown_and_may_yet_come(
    ask: Callable[..., Result], told: dict[str, Any], words: str
) -> None:
    result = ask(wait=0.6, interval=0.02, **told)
    assert result.verdict == UNKNOWN and words in result.words and result.words.startswith("Nothing was looked at")
    assert result.attempts > 1


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"query": "hello"}, 'it is not one query that reads: syntax error at or near "hello"'),
        ({"query": "drop table coins"}, 'it is not one query that reads: syntax error at or near "drop"'),
        ({"query": "select 1; drop table coins"}, "it is not one query that reads: cannot insert multiple commands"),
        (
            {"query": "select 1; select 2", "changes": True},
            "it is not one query that reads: cannot insert multiple commands",
        ),
        ({"query": "select * from nowhere"}, 'relation "nowhere" does not exist'),
        ({"query": "select 1 / 0"}, "division by zero"),
        ({"query": "select set_config('transaction_read_only', 'off', false)"}, "read-write mode"),
        ({"query": "select nextval('counter')"}, "in a read-only transaction"),
        ({"query": "select id, name from coins", "expect": None, "between": [0, 1]}, "expected one number"),
        ({"query": "select 1, 1", "expect": None, "between": [0, 1]}, "It gives ['1', '1']; expected one number"),
        ({"query": "select name from coins limit 1", "expect": None, "between": [0, 1]}, "expected one number"),
        ({"query": "", "file": "smokes/none.sql"}, "smokes/none.sql cannot be read: No such file"),
        ({"query": "", "file": "."}, "cannot be read: Is a directory"),
        (
            {"query": "select 1 where false", "expect": "none", "over": "select 1 from gone"},
            '"gone" does not',
        ),
    ],
)
def test_every_error_is_one_sentence_with_its_mend_and_is_not_asked_again(
    ask: Callable[..., Result], dsn: str, told: dict[str, Any], words: str
) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("create sequence counter")
    result = ask(wait=5, **{**SOME, **told})
    assert result.verdict == UNKNOWN and words in result.words and result.mend
    assert (result.attempts, len(result.said)) == (1, 1) and "\n" not in result.words


@pytest.mark.parametrize(
    ("query", "mend"),
    [
        ("select * from vault.gold", "grant usage on schema vault to reader"),
        ("select * from coins c", "grant select on coins to reader"),
        ("select * from shop.coins", "grant select on shop.coins to reader"),
    ],
)
def test_a_role_that_may_not_read_is_told_what_to_grant(
    ask: Callable[..., Result], dsn: str, server: Running, query: str, mend: str
) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("create schema vault; create table vault.gold (id int)")
        connection.execute("create schema shop; create table shop.coins (id int)")
        connection.execute("drop role if exists reader; create role reader login password 'r'")
        connection.execute("grant usage on schema shop to reader; grant usage on schema public to reader")
    try:
        result = ask(dsn=psycopg.conninfo.make_conninfo(dsn, user="reader", password="r"), query=query, **SOME)
    finally:
        with psycopg.connect(dsn) as connection:
            connection.execute("drop owned by reader; drop role reader")
    assert (result.verdict, result.mend) == (UNKNOWN, mend)
    assert "permission denied" in result.words


def test_a_query_that_takes_too_long_is_unknown(ask: Callable[..., Result]) -> None:
    result = ask(query="select pg_sleep(200)", timeout=2, **SOME)
    assert result.verdict == UNKNOWN and "statement timeout (2 s)" in result.words and "timeout" in result.mend


def test_offending_rows_are_seen_up_to_ten_as_text(ask: Callable[..., Result]) -> None:
    result = ask(query="select id, null as mid, repeat('x', 999) as long from coins order by id", **NONE)
    assert len(result.seen["rows"]) == 10
    assert result.seen["rows"][1] == {"id": "2", "mid": None, "long": "x" * 200}


def test_no_more_rows_are_made_than_are_needed(ask: Callable[..., Result]) -> None:
    slow = "select pg_sleep(0.02) from generate_series(1, 1000000)"
    assert ask(query=slow, timeout=60, **NONE).verdict == FAIL
    assert ask(query=slow, timeout=60, at_least=15).verdict == PASS


def test_what_may_change_is_rolled_back(ask: Callable[..., Result], dsn: str) -> None:
    deleted = {"query": "delete from coins returning id", "changes": True, "at_least": 25}
    assert [ask(**deleted).verdict, ask(**deleted).verdict] == [PASS, PASS]
    assert ask(**{**deleted, "query": "update coins set id = 0"}).verdict == PASS
    with psycopg.connect(dsn) as connection:
        assert connection.execute("select count(*), min(id) from coins").fetchone() == (25, 1)


def test_what_was_looked_at_is_kept_also_where_it_is_a_row_without_a_column(ask: Callable[..., Result]) -> None:
    for over, told in (("select from coins", "rows"), ("select count(*) from coins", "25"), ("select", "a row")):
        result = ask(query="select 1 from empty", expect="none", over=over)
        assert (result.verdict, result.seen["over"]) == (PASS, f"{over} → {told}")


def test_a_file_is_read_from_the_deployed_code(ask: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "loss.sql").write_bytes("\ufeff-- Coins at a loss, é\r\nselect 1\r\nfrom coins;\r\n".encode())
    assert ask(file="loss.sql", at_least=25).verdict == PASS
    (tmp_path / "loss.sql").write_bytes(b"select '\xff'")
    assert ask(file="loss.sql", at_least=25).words == "The file loss.sql cannot be read: it is not UTF-8 text."


def test_a_database_that_is_away_is_asked_again(ask: Callable[..., Result]) -> None:
    result = ask(wait=0.6, interval=0.02, dsn="postgresql://127.0.0.1:9/app", query="select 1", **SOME)
    assert result.verdict == UNKNOWN and result.attempts > 1


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"query": "select 1"}, "expected one of expect, at_least and between"),
        ({"query": "select 1", "file": "a.sql", **SOME}, "expected one of query and file"),
        ({"query": "select 1", "expect": "none"}, "expect: none needs over"),
        ({"query": "select 1", "between": [10, 0]}, "the lesser end first"),
    ],
)
def test_a_check_that_can_prove_nothing_is_refused(told: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Sql.model_validate(told)
