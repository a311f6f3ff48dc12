"""How long a verified backup takes, against bare pg_dump and pg_restore into the same server.

Run by `nox -s bench`; prints medians of rounds in turns, and the ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from release_tasks import screen  # noqa: E402
from release_tasks.database import backup, programs, restore, server  # noqa: E402
from release_tasks.environments import Environment  # noqa: E402
from release_tasks.settings import Settings  # noqa: E402

TABLES, ROWS = 4, 500_000
SAMPLES = """create table samples_{n} as select i as id, 'S' || i % 100 as symbol, random() as mid,
    now() - i * interval '5 s' as ts from generate_series(1, {rows}) i;
  create index on samples_{n} (symbol, ts)"""


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    times, rows = parser.parse_args().times, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        running = server.start(folder / "postgresql", ["samples"])
        try:
            fill(running.dsn("samples"))
            for jobs in (1, 2):
                bare, ours = compare(running, folder, jobs, times)
                kind = f"{jobs} jobs"
                rows.append((f"pg_dump and pg_restore, {kind}", f"{bare:.1f}", "1.00"))
                rows.append((f"a verified backup, {kind}", f"{ours:.1f}", f"{ours / bare:.2f}"))
        finally:
            running.services.stop()
    screen.table(f"{TABLES * ROWS:,} rows, medians of {times}", ["what", "seconds", "ratio"], rows)


def fill(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for n in range(TABLES):
            connection.execute(SAMPLES.format(n=n, rows=ROWS).encode())


def compare(running: server.Running, folder: Path, jobs: int, times: int) -> tuple[float, float]:
    """Return the median seconds of the bare programs, and of a backup that was restored and compared."""
    settings = Settings.model_validate({"backup": {"jobs": jobs, "keep": 1}})
    environment = Environment("production", settings, folder, running.dsn("samples"), "", folder, None)
    bare: list[float] = []
    ours: list[float] = []
    for _ in range(times):
        bare.append(seconds(lambda: by_hand(running, folder, jobs)))
        ours.append(seconds(lambda: restore.verify(backup.take(environment, "0.1.1"), environment)))
    return statistics.median(bare), statistics.median(ours)


def by_hand(running: server.Running, folder: Path, jobs: int) -> None:
    major = programs.major_of(running.bin)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        dump = str(Path(name) / "dump")
        kind = ["-Fd", f"-j{jobs}"]
        run([str(programs.client("pg_dump", major)), *kind, "-f", dump], running.dsn("samples"))
        with psycopg.connect(running.dsn("postgres"), autocommit=True) as connection:
            connection.execute("drop database if exists restored")
            connection.execute("create database restored")
        load = ["--exit-on-error", f"-j{jobs}", "-d", "restored", dump]
        run([str(programs.client("pg_restore", major)), *load], running.dsn("restored"))


def run(argv: list[str], dsn: str) -> None:
    """Run a program; a failure ends the benchmark with its output."""
    ran = subprocess.run(argv, env={**os.environ, **programs.variables(dsn)}, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"{' '.join(argv[:4])} … failed:\n{ran.stdout}{ran.stderr}")


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
