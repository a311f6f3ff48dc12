"""What a team's own smokes are handed does what docs/SMOKES.md says, and keeps what it saw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from release_tasks import asking
from release_tasks.checks.place import Place
from release_tasks.checks.verdict import FAIL, PASS, UNKNOWN, Result
from release_tasks.database.server import Running
from tests.conftest import Web

TEAM = """
import sys
import pytest

def test_reads(db):
    assert db.execute("select count(*) from app.coins where symbol = %s", ["BTC"]).fetchone() == (1,)

def test_writes(db):
    db.execute("delete from app.coins")

def test_asks_for_nothing_that_is_there(db):
    db.execute("select * from app.nothing")

def test_runs(command):
    assert "0.1.1" in command(sys.executable, "-c", "import os; print(os.environ['APP_VERSION'])").stdout

def test_runs_what_fails_and_catches_it(command, db):
    try:
        command(sys.executable, "-c", "raise SystemExit(3)")
    except AssertionError:
        db.execute("select 1")

def test_runs_what_fails(command):
    command(sys.executable, "-c", "raise SystemExit('no')")

def test_runs_what_hangs(command):
    command(sys.executable, "-c", "import time; time.sleep(600)", timeout=0.5)

def test_runs_what_is_not_there(command):
    command("no-such-program")

def test_asks_the_api(api):
    assert api.get("/api/health").json() == {"ok": True}

def test_asks_another_api(api):
    api.get("https://example.invalid/")

def test_reads_the_log(log, db):
    assert log("no such words") == []

def test_catches_its_error(db):
    try:
        db.execute("select * from app.gone")
    except Exception as error:
        print("SQL warn:", error)

def test_runs_what_prints_an_error(command):
    command(sys.executable, "-c", "print('psql:x.sql:1: ERROR:  syntax error')")

def test_looks_at_nothing(db, api, log, command, release):
    assert release.version

def test_knows_the_release(release, seen):
    seen["version"] = release.version
    assert (release.version, release.name, release.commit) == ("0.1.1", "staging", "abc")
"""

BECAME = {
    "reads": (PASS, ""),
    "writes": (UNKNOWN, "cannot execute DELETE in a read-only transaction"),
    "asks_for_nothing_that_is_there": (UNKNOWN, 'relation "app.nothing" does not exist'),
    "runs": (PASS, ""),
    "runs_what_fails_and_catches_it": (FAIL, "ended with exit code 3"),
    "runs_what_fails": (FAIL, "ended with exit code 1: no"),
    "runs_what_hangs": (FAIL, "did not end within 0.5 s"),
    "runs_what_is_not_there": (UNKNOWN, "The program no-such-program was not found."),
    "asks_the_api": (PASS, ""),
    "asks_another_api": (UNKNOWN, "ORIGIN"),
    "reads_the_log": (PASS, ""),
    "catches_its_error": (FAIL, 'A query failed, whatever the test made of it: relation "app.gone" does not exist'),
    "runs_what_prints_an_error": (FAIL, "ended well, but printed: psql:x.sql:1: ERROR: syntax error"),
    "looks_at_nothing": (UNKNOWN, "It looked at nothing"),
    "knows_the_release": (PASS, ""),
}


@pytest.fixture
def results(place: Callable[..., Place], dsn: str, server: Running, web: Web, tmp_path: Path) -> dict[str, Result]:
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "create schema app; create table app.coins (symbol text); insert into app.coins values ('BTC')"
        )
    web.be("0.1.1")
    file = tmp_path / "smokes" / "test_own.py"
    file.parent.mkdir()
    file.write_text(TEAM)
    here = place(dsn=dsn, origin=web.origin, commit="abc", log=str(server.log), variables={"APP_VERSION": "0.1.1"})
    return {result.name.removeprefix("own/test_"): result for result in asking.ask(here, [file])}


def test_each_fixture_does_what_is_said_of_it(results: dict[str, Result]) -> None:
    assert {name: result.verdict for name, result in results.items()} == {n: v for n, (v, _) in BECAME.items()}, results
    assert {
        name for name, (_, said) in BECAME.items() if said not in " ".join(" ".join(results[name].said).split())
    } == set()
    assert all(
        "\n" not in said and "Traceback" not in said
        for name in ("writes", "asks_another_api")
        for said in results[name].said
    )
    assert results["reads"].seen["queries"] == ["select count(*) from app.coins where symbol = 'BTC' → 1 rows"]
    assert results["asks_the_api"].seen["requests"][0].endswith("/api/health → 200")
    assert results["runs"].seen["commands"][0].endswith("→ 0.1.1")
