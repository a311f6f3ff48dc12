"""How long a DDL pack takes against one bare psql; a file of 40,000 INSERTs; the proof; the structure of 2,000 tables.

Run by `nox -s bench`. Each round goes through all of them in turn, each on a database of its own; prints medians, and
ratios against the baselines named in the tables. Commits are durable, as in production.
"""

from __future__ import annotations

import argparse
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

from release_tasks import ddl, screen  # noqa: E402
from release_tasks.database import apply, programs, structure  # noqa: E402
from release_tasks.database.pack import DdlFile  # noqa: E402
from release_tasks.database.server import Running, start  # noqa: E402
from release_tasks.environments import Environment  # noqa: E402
from release_tasks.settings import Settings  # noqa: E402

FILE = """create table if not exists pack.t_{n} (
  id bigint primary key, symbol text not null default '', at timestamptz not null default now()
);
create index if not exists t_{n}_at on pack.t_{n} (at);
create or replace view pack.v_{n} as select symbol, max(at) as at from pack.t_{n} group by symbol;
comment on table pack.t_{n} is 'One of many.';
"""
INSERT = "insert into t values ({n}, 'some text that makes the file as long as such files are, or near it');\n"
Pair = tuple[str, list[float], str, list[float]]


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        server = start(folder / "postgresql", ["app"])
        try:
            for size in (25, 1000):
                for pair in compare_applying(make_pack(size), times, server, folder / f"{size}"):
                    show(*pair)
            inserts = "create table if not exists t (n int, text text);\n" + "".join(
                INSERT.format(n=n) for n in range(40_000)
            )
            fresh, _ = compare_applying([DdlFile("ddl/00.sql", inserts.encode())], times, server, folder / "inserts")
            show(*fresh)
            compare_proof(times, server, folder)
            compare_structure(times, server)
        finally:
            server.services.stop()


def environment(dsn: str) -> Environment:
    return Environment("bench", Settings(), Path(), dsn, "", Path(), None)


def make_pack(size: int) -> list[DdlFile]:
    texts = ["create schema if not exists pack;\n", *(FILE.format(n=n) for n in range(1, size))]
    return [DdlFile(f"ddl/{n:04}_t.sql", text.encode()) for n, text in enumerate(texts)]


def compare_applying(pack: list[DdlFile], rounds: int, server: Running, folder: Path) -> tuple[Pair, Pair]:
    """Apply `pack` from empty and again, by one bare psql and by us."""
    for file in pack:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.path).write_bytes(file.content)
    psql = [str(programs.client("psql", programs.major_of(server.bin))), "-qX", "-v", "ON_ERROR_STOP=1"]
    files = [word for file in pack for word in ("-f", str(folder / file.path))]
    files += ["--single-transaction"] if len(pack) == 1 else []
    ways: dict[str, Callable[[str], object]] = {
        "psql, one process": lambda dsn: subprocess.run([*psql, *files, dsn], check=True, capture_output=True),
        "ours": lambda dsn: apply.apply(environment(dsn), pack, folder, "0.1.1"),
    }
    fresh: dict[str, list[float]] = {name: [] for name in ways}
    again: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            dsn = new_database(server)
            fresh[name].append(seconds(lambda way=way, dsn=dsn: way(dsn)))
            again[name].append(seconds(lambda way=way, dsn=dsn: way(dsn)))
    what = f"{len(pack)} files" if len(pack) > 1 else "40,000 INSERTs"
    (base, bare), (ours, mine) = fresh.items()
    return (
        (f"{what} from empty: {base}", bare, ours, mine),
        (f"{what} again: {base}", again[base], ours, again[ours]),
    )


def compare_proof(times: int, server: Running, folder: Path) -> None:
    """Prove the pack of 25 files, over itself as the last release, against applying it once."""
    pack, plain, proved = make_pack(25), list[float](), list[float]()
    for _ in range(times):
        target = environment(new_database(server))
        plain.append(seconds(lambda target=target: apply.apply(target, pack, folder, "0.1.1")))
        proved.append(seconds(lambda: ddl.proof_of(pack, pack, folder, Settings(), remembered=False)))
    show("25 files applied once", plain, "the proof: a server, 4 times the pack, 3 structures", proved)


def compare_structure(times: int, server: Running) -> None:
    """Read the structure of 2,000 tables and 2,000 views, against the bare pg_dump."""
    dsn = new_database(server)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for n in range(2000):
            connection.execute(
                f"create table t{n} (id int primary key, v text); create view v{n} as select v from t{n}"
            )
    dump = [str(programs.client("pg_dump", programs.major_of(server.bin))), "--schema-only", dsn]
    bare = [seconds(lambda: subprocess.run(dump, check=True, capture_output=True)) for _ in range(times)]
    ours = [seconds(lambda: structure.read(dsn)) for _ in range(times)]
    show("pg_dump of 2,000 tables and 2,000 views", bare, "their structure, roles besides", ours)


def show(baseline: str, bare: list[float], other: str, ours: list[float]) -> None:
    base, mine = statistics.median(bare), statistics.median(ours)
    rows = [(baseline, f"{base:.2f}", "1.00"), (other, f"{mine:.2f}", f"{mine / base:.2f}")]
    screen.table(f"\nMedians of {len(bare)}", ["what", "seconds", "ratio"], rows)


def new_database(server: Running) -> str:
    name = f"b{time.monotonic_ns()}"
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f'create database "{name}"')
    return server.dsn(name)


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
