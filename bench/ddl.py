"""How long a DDL pack takes: our runner against psql, the application's runner and dbmate; the proof.

Run by `nox -s bench`. Each round goes through all of them in turn, each on a database of its own; prints medians, and
ratios against the baselines named in the tables. Commits are durable, as in production.
"""

from __future__ import annotations

import argparse
import shutil
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

from release_tasks import node, screen  # noqa: E402
from release_tasks.database import postgres  # noqa: E402
from release_tasks.environments import Environment  # noqa: E402
from release_tasks.schema import applying, ddl, ledger, proof  # noqa: E402
from release_tasks.settings import Settings  # noqa: E402

FILE = """create table if not exists pack.t_{n} (
  id bigint primary key, symbol text not null default '', at timestamptz not null default now()
);
create index if not exists t_{n}_at on pack.t_{n} (at);
create or replace view pack.v_{n} as select symbol, max(at) as at from pack.t_{n} group by symbol;
comment on table pack.t_{n} is 'One of many.';
"""
SETTINGS = Settings()
Way = tuple[str, Callable[[str], None]]


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        server = postgres.start(folder / "postgresql")
        try:
            for size, rounds in ((25, times), (1000, max(times // 2, 3))):
                compare_runners(size, rounds, server, folder / f"pack-{size}")
            compare_proof(times, server, folder / "pack-25")
        finally:
            server.stop()
            postgres.remove(folder / "postgresql")


def compare_runners(size: int, rounds: int, server: postgres.Running, folder: Path) -> None:
    """Apply a pack of `size` files from empty and again, by each runner in turn."""
    pack = make_pack(folder, size)
    ways = [*psql_ways(folder, server), tsx_way(folder), dbmate_way(folder), our_way(folder, pack)]
    fresh: dict[str, list[float]] = {name: [] for name, _ in ways}
    again: dict[str, list[float]] = {name: [] for name, _ in ways}
    looks: list[float] = []
    for _ in range(rounds):
        for name, apply in ways:
            dsn = new_database(server)
            fresh[name].append(seconds(lambda apply=apply, dsn=dsn: apply(dsn)))
            again[name].append(seconds(lambda apply=apply, dsn=dsn: apply(dsn)))
        looks.append(look(dsn, pack))
    first, repeated = ({name: statistics.median(all_) for name, all_ in kind.items()} for kind in (fresh, again))
    base = ways[0][0]
    screen.table(
        f"\n{size} files, medians of {rounds}",
        ["runner", "from empty, s", f"ratio to {base}", "again, s", f"ratio to {base}"],
        [
            (name, *(f"{each:.2f}" for part in (first, repeated) for each in (part[name], part[name] / part[base])))
            for name, _ in ways
        ],
    )
    screen.say(f"A look at an unchanged pack, beyond the connection: {statistics.median(looks) * 1000:.1f} ms")


def make_pack(folder: Path, size: int) -> list[ddl.DdlFile]:
    texts = {"0000_schema.sql": "create schema if not exists pack;\n"}
    texts |= {f"{n:04}_t.sql": FILE.format(n=n) for n in range(1, size)}
    for name, text in texts.items():
        for path, content in (
            (folder / "ddl" / name, text),
            (folder / "migrations" / name, f"-- migrate:up\n{text}-- migrate:down\n"),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    return [ddl.DdlFile(f"ddl/{name}", text.encode()) for name, text in sorted(texts.items())]


def psql_ways(folder: Path, server: postgres.Running) -> list[Way]:
    files = sorted(str(path) for path in (folder / "ddl").glob("*.sql"))
    psql = [str(postgres.client_tool("psql", postgres.major(server.bin / "postgres"))), "-qX", "-v", "ON_ERROR_STOP=1"]

    def in_one(dsn: str) -> None:
        run([*psql, *(word for file in files for word in ("-f", file)), dsn])

    def a_file(dsn: str) -> None:
        for file in files:
            run([*psql, "-f", file, dsn])

    return [("psql, one process", in_one), ("psql, one a file", a_file)]


def tsx_way(folder: Path) -> Way:
    """Return the sample's own runner, beside a pack of its own."""
    scripts = folder / "app" / "src"
    shutil.copytree(ROOT / "sample" / "src" / "db", scripts / "db")
    (scripts / "scripts" / "db").mkdir(parents=True)
    shutil.copy(ROOT / "sample" / "src" / "scripts" / "db" / "run-ddls.mts", scripts / "scripts" / "db")
    shutil.copytree(folder / "ddl", scripts / "scripts" / "db" / "ddl")
    for name in ("package.json", "pnpm-lock.yaml", "pnpm-workspace.yaml", "tsconfig.json"):
        shutil.copy(ROOT / "sample" / name, folder / "app")
    settings = Settings(folder=str(folder / "app"), install=["pnpm", "install", "--frozen-lockfile"])
    place = Environment("bench", settings, ROOT, "host=127.0.0.1", "", folder, None)
    place.install(Path("/"))
    runner = ["pnpm", "tsx", "src/scripts/db/run-ddls.mts"]

    def apply(dsn: str) -> None:
        there = Environment("bench", settings, ROOT, dsn, "", folder, None)
        variables = there.variables("")
        run([shutil.which(runner[0], path=variables["PATH"]) or runner[0], *runner[1:]], folder / "app", variables)

    return "pnpm tsx runner", apply


def dbmate_way(folder: Path) -> Way:
    home = folder.parent / "dbmate"
    if not home.exists():
        home.mkdir()
        env = node.runtime(ROOT / "sample", ROOT / ".release")
        npm = shutil.which("npm", path=env["PATH"]) or "npm"
        run([npm, "install", "--silent", "--no-audit", "--no-fund", "dbmate"], home, env)
    (program,) = home.glob("node_modules/@dbmate/*/bin/dbmate*")

    def apply(dsn: str) -> None:
        words = ["--url", f"{dsn}?sslmode=disable", "--migrations-dir", str(folder / "migrations"), "--no-dump-schema"]
        run([str(program), *words, "migrate"])

    return "dbmate", apply


def our_way(folder: Path, pack: list[ddl.DdlFile]) -> Way:
    def apply(dsn: str) -> None:
        applying.apply(Environment("bench", SETTINGS, folder, dsn, "", folder, None), pack, folder, "0.1.1")

    return "ours, every file", apply


def look(dsn: str, pack: list[ddl.DdlFile]) -> float:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return seconds(lambda: ledger.unapplied(connection, pack, SETTINGS.ddl))


def compare_proof(times: int, server: postgres.Running, folder: Path) -> None:
    """Prove the pack of 25 files, over itself as the last release, against applying it once."""
    pack = make_pack(folder, 25)
    applied, proved = [], []
    for _ in range(times):
        applied.append(seconds(lambda: our_way(folder, pack)[1](new_database(server))))
        proved.append(seconds(lambda: proof.prove(pack, pack, folder, SETTINGS)))
    show_pair("ours, every file, from empty", applied, "the proof: server, 5 times the pack, rows", proved)


def show_pair(baseline: str, bare: list[float], other: str, ours: list[float]) -> None:
    base, mine = statistics.median(bare), statistics.median(ours)
    rows = [(baseline, f"{base:.2f}", "1.00"), (other, f"{mine:.2f}", f"{mine / base:.2f}")]
    screen.table(f"\nMedians of {len(bare)}", ["what", "seconds", "ratio"], rows)


def new_database(server: postgres.Running) -> str:
    name = f"b{time.monotonic_ns()}"
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f'create database "{name}"')
    return server.dsn(name)


def seconds(action: Callable[[], None]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def run(argv: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Run a program; a failure ends the benchmark with what it said."""
    import os

    ran = subprocess.run(argv, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"{' '.join(argv[:4])} … failed:\n{ran.stdout}{ran.stderr}")


if __name__ == "__main__":
    main()
