"""A catalogue of lies: worlds that look well and are not, each with the check that must catch it.

Every one is asked through the real gate, a process of pytest. Beside its verdict stands what a naive look says of the
same world (an exit code, a status, a row that is there): it is content, or the world would be no lie.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from tests.processes.test_shell import alive, until

from release_tasks import asking, smokes
from release_tasks.checks.place import Asked, Place
from release_tasks.checks.rotation import positions
from release_tasks.checks.verdict import FAIL, PASS, UNKNOWN, Result
from release_tasks.database.server import Running
from release_tasks.environments import Environment
from release_tasks.kinds import KINDS, SQL_TROUBLE, Check, Command, Fresh, Gaps, Http, Log, Page, Sql, Version
from release_tasks.settings import Settings
from tests.lies.worlds import WELL, Database, Healthy, Logged, Program, Served, Suite, web_app


def runs(*argv: str, **told: Any) -> Command:
    return Command(command=list(argv), **{"must_print": "(?m)^PASS", "timeout": 30, **told})


def python(text: str, **told: Any) -> Command:
    return runs(sys.executable, "-c", text, **told)


# What must catch lies in the rows, and what is content with them

NOW = "extract(epoch from now())"
OLD = "select symbol from str_aux.samples_5s group by symbol having max(ts) < now() - interval '1 minute'"
STEPS = "select ts - lag(ts) over (partition by symbol order by ts) as step from str_aux.samples_5s"
TYPED = """select type, base, 'USDT' from settings.coin_universe as coin (base, enabled),
unnest(array['benchmark', 'delta', 'pct24h']) as type where enabled"""
MATRIX: dict[str, Any] = {"key": ["matrix_type", "base", "quote"], "keys": TYPED, "time": "ts_ms", "unit": "ms"}
SAMPLES = Fresh(table="str_aux.samples_5s", within=60)
MATRICES = Fresh(table="matrices.dyn_values", within=60, **MATRIX)
NO_GAPS = Gaps(table="str_aux.samples_5s", every=5, window=900, late=60)
NONE_IS_OLD = Sql(query=OLD, expect="none", over="select count(*) from str_aux.samples_5s")
AT_LEAST_100 = Sql(query="select 1 from str_aux.samples_5s", at_least=100)
HEALTH_IS_OK = Http(path="/api/health", holds={"ok": True, "database.ok": True})

SMOKE = """
import os, psycopg
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    for (coin,) in connection.execute("select symbol from settings.coin_universe where enabled").fetchall():
        latest = "select mid from str_aux.samples_5s where symbol = %s order by ts desc limit 64"
        assert all(mid is not None for (mid,) in connection.execute(latest, [coin]).fetchall())
print("PASS sampling")
"""
A_SMOKE = python(SMOKE)
TABLE_IS_FRESH = Sql(query="select 1 from str_aux.samples_5s where ts > now() - interval '1 minute'", expect="some")
MATRIX_IS_FRESH = Sql(query=f"select 1 from matrices.dyn_values where ts_ms > 1000 * ({NOW} - 60)", expect="some")
LAG_SEES_NONE = Sql(query=f"select count(*) from ({STEPS}) as steps where step > interval '7.5 s'", between=(0, 0))
NO_GROUP_IS_OLD = Sql(query=f"select count(*) from ({OLD}) as old", between=(0, 0))

# Programs that lie

CATCHES = """
import os, psycopg
try:
    psycopg.connect(os.environ["DATABASE_URL"]).execute("select * from gone")
except psycopg.Error as error:
    print("SQL warn:", error)
print("PASS")
"""
STAYS = """
import os, psycopg, subprocess, sys, time
connection = psycopg.connect(os.environ["DATABASE_URL"], application_name="leak")
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("child", "w").write(str(child.pid))
print("PASS", flush=True)
time.sleep(600)
"""
DROPS = SMOKE.replace("    for", '    connection.execute("drop view debug.coverage")\n    for', 1)
OLD_NODE = "const main = () => console.log('PASS');\nif (import.meta.isMain) main();"
SKIPS = "import test from 'node:test';\ntest('coverage', { skip: true }, () => {});"
NODE_TEST = runs("node", "--test", "--test-reporter=tap", "all.test.mjs", must_print="(?m)^# pass [1-9]")
PSQL = runs("psql", "--no-psqlrc", "--file=views.sql")

IN_A_THREAD = """
import threading
def test_a():
    thread = threading.Thread(target=[].remove, args=["BTC"])
    thread.start()
    thread.join()
"""

# What becomes of a log

APP_LOG = Log(files=["app.log"])
WARNING = "2026-01-01 WARNING:  there is no transaction in progress\n"


def warn(log: Path) -> None:
    log.write_text(f"{log.read_text()}{WARNING}all is well\n")


def colour(log: Path) -> None:
    log.write_text(
        f"{log.read_text()}{WARNING.replace('WARNING', chr(27) + '[33mWARNING' + chr(27) + '[0m')}all is well\n"
    )


def rename(log: Path) -> None:
    warn(log)
    log.rename(f"{log}.1")
    log.write_text("all is well\n")


class Lie(NamedTuple):
    """How the world is broken; the check that must catch it, how, with which words; and who is content with it."""

    world: Any
    check: Any
    verdict: str
    said: str
    naive: Check | None = None


def sql(statement: str, *caught: Any, **facts: Any) -> Lie:
    return Lie(Database(statement, facts), *caught)


def page(path: str, body: str, said: str) -> Lie:
    return Lie(Served(body), Page(path=path, timeout=60), FAIL, said)


def http(path: str, body: str, holds: dict[str, Any], said: str) -> Lie:
    return Lie(Served(body), Http(path=path, holds=holds), FAIL, said)


# fmt: off
LIES = {
    # Programs that end with exit code 0, or say PASS
    "a smoke that does nothing and exits 0": Lie(Program(), python(""), FAIL, "did not print"),
    "a main that never runs under an older runtime":
        Lie(Program("main.mjs", OLD_NODE), runs("node", "main.mjs"), FAIL, "it said: nothing"),
    "a smoke that catches its SQL error": Lie(Program(), python(CATCHES), FAIL, 'SQL warn: relation "gone"'),
    "a smoke that never exits and leaves a child":
        Lie(Program(), python(STAYS, timeout=15), FAIL, "did not end within 15 s; it said: PASS"),
    "a smoke that drops a view": Lie(Program(), "unchanged", FAIL, "view debug.coverage"),
    "psql exiting 0 after 26 syntax errors": Lie(
        Program("views.sql", "create vieuw debug.x as select 1;\n" * 26 + "\\echo PASS\n"), PSQL, FAIL, "syntax error"
    ),
    "a suite of node --test that skips everything":
        Lie(Program("all.test.mjs", SKIPS), NODE_TEST, FAIL, "did not print"),
    # A team's own files
    "a test suite that skips everything":
        Lie(Suite("import pytest\ndef test_a(): pytest.skip('no database')"), "it", UNKNOWN, "skipped: no database"),
    "a suite that expects to fail":
        Lie(Suite("import pytest\n@pytest.mark.xfail\ndef test_a(): assert False"), "it", UNKNOWN, "marked xfail"),
    "a file without a test, beside others": Lie(Suite("def check_a(): assert False"), "it", UNKNOWN, "No test"),
    "a suite over an empty list of symbols":
        Lie(Suite("import pytest\n@pytest.mark.parametrize('a', [])\ndef test_a(a): pass"), "it", UNKNOWN, "empty"),
    "a suite that returns False": Lie(Suite("def test_a(): return 'BTC' == 'ETH'"), "it", UNKNOWN, "returned"),
    "a suite that fails in a thread": Lie(Suite(IN_A_THREAD), "it", UNKNOWN, "thread"),
    # Answers with status 200, or that lead to one
    "health that answers 200 with ok: false": http("/sick", '{"ok": false}', {"ok": True}, "says that ok is false"),
    "health that says ok with the database down": http(
        "/half", '{"ok": true, "database": {"ok": false}}', {"database.ok": True}, "says that database.ok is false"
    ),
    "health that says nothing of its database": http("/mute", '{"ok": true}', {"database.ok": True}, "no database.ok"),
    "health of yesterday's version": http("/old", '{"version": "0.1.0"}', {"version": "{version}"}, '"0.1.1"'),
    "an API behind a redirect to login":
        Lie(Served(status=302, location="/login?next=/prices"), Http(path="/prices"), FAIL, "a login page"),
    "an answer that comes too late":
        Lie(Served("{}", after=1.5), Http(path="/late", within=0.5), FAIL, "was not answered within 0.5 s"),
    # Views with status 200, or that lead to one
    "200 with an error box": page("/box", "<main>BTC <p>Something went wrong.</p></main>", "shows what it must not"),
    "a redirect to login":
        Lie(Served(status=302, location="/login?next=/wallet"), Page(path="/wallet"), FAIL, "a login page"),
    "a script that goes to the login page":
        page("/goes", "<main>BTC</main><script>location.href = '/login'</script>", "a login page"),
    "a page whose script throws": page("/throws", "<main>BTC</main><script>undefined.prices</script>", "throws"),
    "an error on the console":
        page("/logs", "<main>BTC</main><script>console.error('no ink')</script>", "logs an error: no ink"),
    "a missing image": page("/image", "<main>BTC <img src=/gone.png></main>", "/gone.png, and gets status 404"),
    "data that does not come": page("/data", "<main>BTC</main><script>fetch('/gone')</script>", "gets status 404"),
    "a picture that cannot be drawn": page("/blank", "<main>BTC <img src=/login></main>", "cannot be drawn"),
    "an error in the title alone":
        page("/titled", "<title>500: Internal Server Error</title><main>BTC</main>", "shows what it must not"),
    "an error in a frame": page("/framed", "<main>BTC <iframe src=/box></iframe></main>", "shows what it must not"),
    "an empty page with status 200": page("/empty", "<div id=root></div>", "does not show main"),
    # Rows with which a smoke, or a plain query, is content
    "a smoke that passes on an empty database":
        sql("truncate coin_universe, samples_5s", SAMPLES, FAIL, "No keys are expected", A_SMOKE),
    "an empty table, counted": sql("truncate samples_5s", AT_LEAST_100, FAIL, "gives 0 rows", A_SMOKE),
    "a grouped query over an empty table":
        sql("truncate samples_5s", NONE_IS_OLD, UNKNOWN, "Nothing was looked at", NO_GROUP_IS_OLD),
    "a smoke that passes on rows three days old":
        sql("update samples_5s set ts = ts - interval '3 days'", SAMPLES, FAIL, "row of BTC is 2592", A_SMOKE),
    "a 5-second hole in one symbol with a fresh tail":
        sql("delete from samples_5s where symbol = 'ETH' and mid = 160", NO_GAPS, FAIL, "ETH has a hole", SAMPLES),
    "one silent symbol":
        sql("delete from samples_5s where symbol = 'SOL' and mid < 160", SAMPLES, FAIL, "of SOL is 3", TABLE_IS_FRESH),
    "a silence that lag() does not see":
        sql("delete from samples_5s where symbol = 'SOL' and mid < 160", NO_GAPS, FAIL, "SOL has a", LAG_SEES_NONE),
    "a symbol that never had a row":
        sql("insert into coin_universe values ('NEW', true)", SAMPLES, FAIL, "no row for NEW", NO_GROUP_IS_OLD),
    "times without a zone":
        sql("alter table samples_5s alter ts type timestamp", SAMPLES, UNKNOWN, "type timestamp;", TABLE_IS_FRESH),
    "universe disabled":
        sql("update coin_universe set enabled = false", NO_GAPS, FAIL, "No keys are expected", A_SMOKE),
    "a clock an hour off":
        sql("update samples_5s set ts = ts + interval '1 hour'", SAMPLES, FAIL, "s in the future", TABLE_IS_FRESH),
    "a matrix type ten minutes old":
        sql("delete from dyn_values where matrix_type = 'delta' and value < 60",
            MATRICES, FAIL, "row of delta/BTC/USDT is 6", MATRIX_IS_FRESH),
    "health that says ok while the database lets nobody in":
        sql("update pg_database set datallowconn = false where datname = current_database()",
            Sql(query="select 1", expect="some"), UNKNOWN, "cannot be used", HEALTH_IS_OK),
    # Logs whose end looks well
    "a WARNING in the log between deployment and check": Lie(Logged(warn), APP_LOG, FAIL, "no transaction"),
    "a WARNING in colours": Lie(Logged(colour), APP_LOG, FAIL, "no transaction"),
    "log rotation in between": Lie(Logged(rename), APP_LOG, FAIL, "no transaction in progress"),
    "a log that nobody writes to": Lie(Logged(lambda log: None), APP_LOG, UNKNOWN, "has no line since"),
    "a log that somebody emptied":
        Lie(Logged(lambda log: log.write_text("all is well\n")), APP_LOG, UNKNOWN, "cannot be read any more"),
    "a WARNING in PostgreSQL's own log":
        sql("do $$ begin raise warning 'wal is lost'; end $$", Log(), FAIL, "wal is lost", SAMPLES),
    # Deployments of which health says that all is well
    "yesterday's deployment still running":
        sql("", Version(), FAIL, "answers as 0.1.0; expected", HEALTH_IS_OK, version_path="/yesterday/api/version"),
    "the stamp of another version":
        sql("update session_log set app_version = '0.1.2' where session_id = 'second'",
            Version(), FAIL, "newest stamp of app is of 0.1.2", HEALTH_IS_OK),
}
# fmt: on

ROWS_HOLD = [SAMPLES, MATRICES, NO_GAPS, NONE_IS_OLD, AT_LEAST_100, LAG_SEES_NONE]
VIEWS = Page(path=["/", "/sampling"], dark=True, viewports=[(1280, 800), (390, 844)])
BEHIND_LOGIN = Page(path="/private", cookies={"session": "s3cret-s3cret"})
COMPILES = Page(path="/compiles", wait=60)
MOVED = Http(path="/moved", redirects=True)
OTHERS = [Version(), A_SMOKE, NODE_TEST, PSQL, HEALTH_IS_OK, MOVED, VIEWS, BEHIND_LOGIN, COMPILES, APP_LOG, Log()]
HEALTHY = {f"{check.kind} {number}": check for number, check in enumerate(ROWS_HOLD + OTHERS)}

PROMISED = """
a smoke that does nothing and exits 0; a smoke that passes on an empty database;
a smoke that passes on rows three days old; a smoke that catches its SQL error;
a smoke that never exits and leaves a child; a smoke that drops a view; psql exiting 0 after 26 syntax errors;
a test suite that skips everything; health that says ok with the database down; 200 with an error box;
a redirect to login; a page whose script throws; a missing image;
a 5-second hole in one symbol with a fresh tail; one silent symbol; a symbol that never had a row;
universe disabled; a clock an hour off; a matrix type ten minutes old;
a WARNING in the log between deployment and check; log rotation in between; a log that nobody writes to;
yesterday's deployment still running; the stamp of another version
"""


def test_the_catalogue_holds_what_was_promised() -> None:
    assert set(re.split(r";\s", PROMISED.strip())) <= LIES.keys() and len(LIES) >= 30
    caught_by = {lie.check.kind for lie in LIES.values() if isinstance(lie.check, Check)}
    assert caught_by == {check.kind for check in HEALTHY.values()} == set(KINDS)


def of(*kinds: type) -> list[str]:
    return [name for name, lie in LIES.items() if isinstance(lie.world, kinds) and lie.check != "unchanged"]


def ask(place: Place, checks: dict[str, Any], files: list[Path] | None = None) -> dict[str, Result]:
    """Ask all `checks` of `place` and the team's `files`, in one process; return name → result."""
    asked = [Asked(name, "7.2", name, each, each.wait or 0.0, each.turns[-1]) for name, each in checks.items()]
    return {result.name: result for result in asking.ask(replace(place, asked=tuple(asked)), files or [])}


def assert_caught(lie: Lie, result: Result) -> None:
    assert result.verdict == lie.verdict and lie.said in result.words, result


@pytest.fixture(scope="module")
def healthy(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Healthy]:
    """The world before it is broken; its web app answers with all lies as well."""
    lies = {path_of(LIES[name]): LIES[name].world for name in of(Served)}
    with web_app({**WELL, **lies}) as origin:
        yield Healthy(tmp_path_factory.mktemp("healthy"), server, origin)


def path_of(lie: Lie) -> str:
    return str(lie.check.path if isinstance(lie.check, Http) else lie.check.path[-1])


@pytest.fixture
def world(healthy: Healthy) -> Iterator[Place]:
    with healthy.world() as place:
        yield place


def test_the_healthy_world_raises_no_alarm(world: Place) -> None:
    code = Path(world.code)
    (code / "all.test.mjs").write_text(SKIPS.replace("skip: true", "skip: false"))
    (code / "views.sql").write_text("create or replace view debug.x as select 1;\n\\echo PASS\n")
    (code / "test_own.py").write_text("def test_a(db, api, log):\n    assert db.execute('select 1').fetchone()")
    with (code / "app.log").open("a") as log:
        log.write("all is well\n")
    found = ask(world, {name: at(code, check) for name, check in HEALTHY.items()}, [code / "test_own.py"])
    assert {name: each.said for name, each in found.items() if each.verdict != PASS} == {}
    assert found.keys() == {*HEALTHY, "own/test_a"}
    assert [name for name, each in found.items() if each.attempts > 1] == ["page 14"]


def at(folder: Path, check: Any) -> Any:
    """Return `check` for the log in `folder`, if it is one of a log."""
    return check.model_copy(update={"files": [str(folder / "app.log")]}) if check is APP_LOG else check


@pytest.fixture(scope="module")
def told(healthy: Healthy) -> Iterator[tuple[Path, str, dict[str, Result]]]:
    """What became of the lies that need no world of their own: the folder, the DSN, and name → result."""
    with healthy.world() as place:
        code, logs = Path(place.code), {name: Path(place.code) / file_of(name) for name in of(Logged)}
        for name in of(Program, Suite):
            lie = LIES[name].world
            (code / (f"test_{file_of(name)}.py" if isinstance(lie, Suite) else lie.file or "none")).write_text(lie.text)
        for folder in logs.values():
            folder.mkdir()
            shutil.copy(code / "app.log", folder)
        place = replace(place, positions=positions([f"{each}/app.log" for each in logs.values()], place.root))
        for name, folder in logs.items():
            LIES[name].world.happens(folder / "app.log")
        checks = {name: at(logs.get(name, code), LIES[name].check) for name in of(Program, Served, Logged)}
        naive = {f"{name}, naively": Http(path=path_of(LIES[name]), redirects=True) for name in of(Served)}
        results = ask(place, {**checks, **naive}, [code / f"test_{file_of(name)}.py" for name in of(Suite)])
        yield code, place.dsn, results


def file_of(name: str) -> str:
    return re.sub(r"\W+", "_", name)


@pytest.mark.parametrize("name", of(Program, Served, Logged))
def test_what_a_program_an_answer_or_a_log_tells_is_caught(told: Any, name: str) -> None:
    (code, _, results), lie = told, LIES[name]
    assert_caught(lie, results[name])
    if isinstance(lie.world, Program):
        assert results[name].seen["code"] == 0 or results[name].seen["last_lines"] == "PASS"
    elif isinstance(lie.world, Served):
        assert results[f"{name}, naively"].verdict == PASS
    else:
        assert not re.search(SQL_TROUBLE, (code / file_of(name) / "app.log").read_text().splitlines()[-1])


@pytest.mark.parametrize("name", of(Suite))
def test_a_suite_that_tests_nothing_is_caught(told: Any, name: str) -> None:
    mine = [each for key, each in told[2].items() if file_of(name) in key]
    assert mine, f"{name} has no result, so nothing blocks: {sorted(told[2])}"
    assert_caught(LIES[name], mine[0])


def test_pytest_itself_is_content_with_such_suites(told: Any) -> None:
    files = [f"test_{file_of(name)}.py" for name in of(Suite)]
    ran = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *files], cwd=told[0])
    assert ran.returncode == 0


def test_what_never_exits_is_ended_with_all_it_started(told: Any) -> None:
    assert until(lambda: not alive(int((told[0] / "child").read_text())))
    with psycopg.connect(told[1], autocommit=True) as connection:
        leaked = "select 1 from pg_stat_activity where application_name = 'leak'"
        assert until(lambda: connection.execute(leaked).fetchone() is None)


@pytest.mark.parametrize("name", of(Database))
def test_what_rows_or_a_deployment_tell_is_caught(world: Place, name: str) -> None:
    lie = LIES[name]
    with psycopg.connect(world.dsn, autocommit=True) as connection:
        connection.execute("set search_path = settings, str_aux, matrices, ops")
        connection.execute(lie.world.statement)
    found = ask(replace(world, **lie.world.facts), {"naive": lie.naive, "caught": lie.check})
    assert found["naive"].verdict == PASS, found["naive"]
    assert_caught(lie, found["caught"])


def test_a_smoke_that_drops_a_view_is_caught(world: Place) -> None:
    settings = Settings.model_validate({"smokes": {"drops": python(DROPS).model_dump()}})
    code = Path(world.code)
    environment = Environment("dev", settings, code, world.dsn, world.origin, code, None)
    place = asking.place_of(environment, "0.1.1", code / "kept")
    found = {result.name: result for result in smokes.ask_all(environment, place, "2")}
    assert found["drops"].verdict == PASS, found["drops"]
    assert_caught(LIES["a smoke that drops a view"], found["unchanged"])
