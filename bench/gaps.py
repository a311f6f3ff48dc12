"""How long holes take to find in a long series: our gap check against a plain self-join, over all of it and an hour.

Run by `nox -s bench`. Both ask the same server in turn, and have to find the same holes; prints medians, and ratios
against the self-join. As planned, PostgreSQL may answer the self-join by a hash on the symbol alone, which compares
each row with all of its symbol: the baseline is the self-join by its index, and the other is shown until it is ended.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from release_tasks import screen  # noqa: E402
from release_tasks.checks import CheckFailed  # noqa: E402
from release_tasks.checks.series import WINDOW, Series  # noqa: E402
from release_tasks.database.server import start  # noqa: E402

SYMBOLS, EVERY, LATE = 20, 5, 600  # LATE: seconds that a benchmark may take after its newest row
# Holes as symbol → (rows before the newest at which it begins, rows that are missing); the first are in the last hour.
HOLES = {"S0": (200, 1), "S7": (400, 30), "S19": (600, 2), "S3": (2_000, 4), "S11": (20_000, 1), "S5": (24_000, 500)}
HOUR = 3600
PATIENCE = 20  # seconds for the self-join as PostgreSQL plans it

SELF_JOIN = """
select symbol, extract(epoch from ts)::float8 from samples as one
where ts > now() - make_interval(secs => %(window)s) and ts < now() - make_interval(secs => %(edge)s)
and not exists (
  select from samples as next
  where next.symbol = one.symbol and next.ts > one.ts and next.ts <= one.ts + make_interval(secs => %(apart)s)
)"""


def main() -> None:
    """Fill a table, measure, and print the table and the plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--times", type=int, default=3)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        server = start(folder / "postgresql", ["app"], durable=False)
        try:
            compare(server.dsn("app"), max(told.rows // SYMBOLS, 30_000), told.times)
        finally:
            server.services.stop()


def compare(dsn: str, length: int, times: int) -> None:
    """Ask both ways for the holes in `length` rows of each symbol, `times` times each."""
    fill(dsn, length)
    table: list[tuple[str, ...]] = []
    scans: list[str] = []
    for name, window in (("all of it", (length - 1) * EVERY - HOUR / 60), ("the last hour", HOUR)):
        took: dict[str, list[float]] = {"a self-join by its index": [], "the gap check": []}
        for _ in range(times):
            joined, seconds = timed(self_join, dsn, window)
            took["a self-join by its index"].append(seconds)
            ours, seconds = timed(gap_check, dsn, window)
            took["the gap check"].append(seconds)
            planted = sum(1 for before, _ in HOLES.values() if before * EVERY < window - LATE)
            assert ours == joined and len(ours) >= planted > 0, f"They found {ours} and {joined}."
        base = statistics.median(took["a self-join by its index"])
        for way, all_ in took.items():
            median = statistics.median(all_)
            table.append((name, way, str(len(ours)), f"{median:.3f}", f"{median / base:.3f}"))
        lines = plan(dsn, window)
        scans += [f"{name}: {line.strip()}" for line in lines if " on samples" in line][:1]
        table.append((name, "a self-join, as planned", "", as_planned(dsn, window), ""))
    columns = ["window", "way", "holes", "seconds", "ratio to the self-join"]
    screen.table(f"\n{length * SYMBOLS:,} rows of {SYMBOLS} symbols, medians of {times}", columns, table)
    for scan in scans:
        screen.say(scan)
    screen.say("The plan of the last hour:")
    for line in lines:
        screen.say(f"  {line}")


def fill(dsn: str, length: int) -> None:
    """Make the table as jobs do, all symbols at each tick, with the holes left out."""
    missing = " or ".join(
        f"(symbol = '{symbol}' and tick between {before + 1} and {before + count})"
        for symbol, (before, count) in HOLES.items()
    )
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create table samples (symbol text not null, ts timestamptz not null, mid float8 not null)")
        connection.execute(
            f"insert into samples select symbol, now() - tick * interval '{EVERY} s', tick from"  # type: ignore[arg-type]
            f" generate_series({length - 1}, 0, -1) tick, (select 'S' || n from generate_series(0, {SYMBOLS - 1}) n)"
            f" as symbols(symbol) where not ({missing})"
        )
        connection.execute("alter table samples add primary key (symbol, ts)")
        connection.execute("vacuum analyze samples")


def gap_check(dsn: str, window: float) -> set[tuple[str, int]]:
    """Return the gaps that the check finds, as (symbol, start in s)."""
    with psycopg.connect(dsn) as connection:
        try:
            series(connection).has_no_gaps(every=EVERY, window=window, late=LATE)
        except CheckFailed as failed:
            found = re.findall(r"(\w+) has a gap of [\d.]+ s from (\S+?)[,.]?(?: |$)", str(failed))
            return {(symbol, int(datetime.fromisoformat(start).timestamp())) for symbol, start in found}
    return set()


def plan(dsn: str, window: float) -> list[str]:
    """Return PostgreSQL's plan for the gap check."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(f"explain {series(connection).sql(WINDOW, window)}".encode())
        return [line for (line,) in rows]


def series(connection: psycopg.Connection) -> Series:
    return Series(connection, lambda *_: None, "samples", "select distinct 'S' || n from generate_series(0, 19) n")


def self_join(dsn: str, window: float, by_index: bool = True) -> set[tuple[str, int]]:
    """Return the holes that a plain self-join finds: rows without a next one. It cannot see a key without rows."""
    values = {"window": window, "apart": EVERY * 1.5, "edge": EVERY * 1.5 + LATE}
    with psycopg.connect(dsn) as connection:
        if by_index:
            connection.execute("set enable_hashjoin = off; set enable_mergejoin = off")
        else:
            connection.execute(f"set statement_timeout = '{PATIENCE} s'".encode())
        rows = connection.execute(SELF_JOIN, values).fetchall()
    return {(symbol, int(start)) for symbol, start in rows}


def as_planned(dsn: str, window: float) -> str:
    """Return the seconds of the self-join as PostgreSQL plans it, or for how long it was waited for."""
    with suppress(psycopg.errors.QueryCanceled):
        return f"{timed(self_join, dsn, window, False)[1]:.3f}"
    return f"ended after {PATIENCE}"


def timed(ask: Any, *told: Any) -> tuple[Any, float]:
    began = time.perf_counter()
    answer = ask(*told)
    return answer, time.perf_counter() - began


if __name__ == "__main__":
    main()
