"""A catalogue of lies: worlds that look well and are not, each with the check that must catch it.

Every one goes through the real gate, a process of pytest. Beside it stands what a naive look says of the same world (an
exit code, a status, a row that is there): it is content, or the world would be no lie.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from release_tasks.checks import Target, runner
from release_tasks.checks.logs import SQL_TROUBLE, positions
from release_tasks.database.server import Running
from release_tasks.outcome import FAILED, PASSED, Result
from release_tasks.outcome import INCONCLUSIVE as UNCLEAR
from tests.lies.worlds import WELL, Database, Healthy, Logged, Program, Served, Suite, web_app
from tests.test_process import alive, until

FIXTURES = ("run", "api", "view", "series", "db", "log", "deployed", "target", "context")


def runs(*argv: str, **options: Any) -> str:
    """Return the text of a check that runs a program."""
    told = {"must_print": "^PASS", "timeout": 30, **options}
    return f"run({', '.join(map(repr, argv))}, {', '.join(f'{key}={value!r}' for key, value in told.items())})"


def python(text: str, **options: Any) -> str:
    return runs(sys.executable, "-c", text, **options)


# What must catch lies in the rows, and what is content with them

NOW = "extract(epoch from now())"
KEYS = "select symbol from settings.coin_universe where enabled"
OLD = "select symbol from str_aux.samples_5s group by symbol having max(ts) < now() - interval '1 minute'"
STEPS = "select ts - lag(ts) over (partition by symbol order by ts) as step from str_aux.samples_5s"
TYPED = """select type, base, 'USDT' from settings.coin_universe as coin (base, enabled),
unnest(array['benchmark', 'delta', 'pct24h']) as type where enabled"""
SERIES = f"series('str_aux.samples_5s', {KEYS!r})"
MATRIX = f"series('matrices.dyn_values', {TYPED!r}, ['matrix_type', 'base', 'quote'], 'ts_ms', 'ms')"
SAMPLES = f"{SERIES}.is_fresh(within=60)"
MATRICES = f"{MATRIX}.is_fresh(within=60)"
NO_GAPS = f"{SERIES}.has_no_gaps(every=5, window=900, late=60)"
NONE_IS_OLD = f"""assert db.execute('select from str_aux.samples_5s').fetchone() is not None
    assert not db.execute({OLD!r}).fetchall()"""
AT_LEAST_100 = "assert len(db.execute('select from str_aux.samples_5s').fetchall()) >= 100"
HEALTH_IS_OK = "api.expect('/api/health', {'ok': True, 'database': {'ok': True}})"
VERSION = "deployed()"
SERVER_LOG = "log.has_no_trouble()"
APP_LOG = "log.has_no_trouble('{folder}/app.log')"

SMOKE = """
import os, psycopg
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    for (coin,) in connection.execute("select symbol from settings.coin_universe where enabled").fetchall():
        latest = "select mid from str_aux.samples_5s where symbol = %s order by ts desc limit 64"
        assert all(mid is not None for (mid,) in connection.execute(latest, [coin]).fetchall())
print("PASS sampling")
"""
A_SMOKE = python(SMOKE)
TABLE_IS_FRESH = "assert db.execute(\"select from str_aux.samples_5s where ts > now() - interval '1 minute'\").rowcount"
MATRIX_IS_FRESH = f"assert db.execute('select from matrices.dyn_values where ts_ms > 1000 * ({NOW} - 60)').rowcount"
LAG_SEES_NONE = f"assert not db.execute(\"select from ({STEPS}) as steps where step > interval '7.5 s'\").fetchall()"
NO_GROUP_IS_OLD = f"assert not db.execute({OLD!r}).fetchall()"

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
NODE_TEST = runs("node", "--test", "--test-reporter=tap", "all.test.mjs", must_print="^# pass [1-9]")
PSQL = runs("psql", "--no-psqlrc", "--file=views.sql")

IN_A_THREAD = """
import threading
def test_a():
    thread = threading.Thread(target=[].remove, args=["BTC"])
    thread.start()
    thread.join()
"""

# What becomes of a log

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
    check: str
    outcome: str
    said: str
    naive: str = ""


def sql(statement: str, *caught: Any, **facts: Any) -> Lie:
    return Lie(Database(statement, facts), *caught)


def page(path: str, body: str, said: str) -> Lie:
    return Lie(Served(body), f"view({path!r}, timeout=60)", FAILED, said)


def http(path: str, body: str, holds: Mapping[str, Any], said: str) -> Lie:
    return Lie(Served(body), f"api.expect({path!r}, {holds!r})", FAILED, said)


# fmt: off
LIES = {
    # Programs that end with exit code 0, or say PASS
    "a smoke that does nothing and exits 0": Lie(Program(), python(""), FAILED, "did not print"),
    "a main that never runs under an older runtime":
        Lie(Program("main.mjs", OLD_NODE), runs("node", "main.mjs"), FAILED, "it said: nothing"),
    "a smoke that catches its SQL error": Lie(Program(), python(CATCHES), FAILED, 'SQL warn: relation "gone"'),
    "a smoke that never exits and leaves a child":
        Lie(Program(), python(STAYS, timeout=8), FAILED, "did not end within 8 s; it said: PASS"),
    "a smoke that drops a view": Lie(Program(), python(DROPS), FAILED, "view debug.coverage"),
    "psql exiting 0 after 26 syntax errors": Lie(
        Program("views.sql", "create vieuw debug.x as select 1;\n" * 26 + "\\echo PASS\n"), PSQL, FAILED, "syntax error"
    ),
    "a suite of node --test that skips everything":
        Lie(Program("all.test.mjs", SKIPS), NODE_TEST, FAILED, "did not print"),
    # A team's own files
    "a test suite that skips everything":
        Lie(Suite("import pytest\ndef test_a(): pytest.skip('no database')"), "it", UNCLEAR, "skipped: no database"),
    "a suite that expects to fail":
        Lie(Suite("import pytest\n@pytest.mark.xfail\ndef test_a(): assert False"), "it", FAILED, "marked xfail"),
    "a file without a test, beside others": Lie(Suite("def check_a(): assert False"), "it", UNCLEAR, "No test"),
    "a suite over an empty list of symbols":
        Lie(Suite("import pytest\n@pytest.mark.parametrize('a', [])\ndef test_a(a): pass"), "it", UNCLEAR, "Empty"),
    "a suite that returns False": Lie(Suite("def test_a(): return 'BTC' == 'ETH'"), "it", UNCLEAR, "returned"),
    "a suite that fails in a thread": Lie(Suite(IN_A_THREAD), "it", UNCLEAR, "thread"),
    # Answers with status 200, or that lead to one
    "health that answers 200 with ok: false": http("/sick", '{"ok": false}', {"ok": True}, 'says {"ok": false}'),
    "health that says ok with the database down": http(
        "/half", '{"ok": true, "database": {"ok": false}}', {"database": {"ok": True}}, '{"ok": false}}'
    ),
    "health that says nothing of its database":
        http("/mute", '{"ok": true}', {"database": {"ok": True}}, "says {}"),
    "health of yesterday's version": http("/old", '{"version": "0.1.0"}', {"version": "0.1.1"}, '"0.1.1"}'),
    "an API behind a redirect to login":
        Lie(Served(status=302, location="/login?next=/prices"), "api.expect('/prices')", FAILED, "leads to /login"),
    "an answer that comes too late":
        Lie(Served("{}", after=1.5), "api.expect('/late', within=0.5)", FAILED, "was not answered within 0.5 s"),
    # Views with status 200, or that lead to one
    "200 with an error box": page("/box", "<main>BTC <p>Something went wrong.</p></main>", "shows what it must not"),
    "a redirect to login":
        Lie(Served(status=302, location="/login?next=/wallet"), "view('/wallet')", FAILED, "leads to /login"),
    "a script that goes to the login page":
        page("/goes", "<main>BTC</main><script>location.href = '/login'</script>", "/login; expected that it stays"),
    "a page whose script throws": page("/throws", "<main>BTC</main><script>undefined.prices</script>", "throws"),
    "an error on the console":
        page("/logs", "<main>BTC</main><script>console.error('no ink')</script>", "logs an error: no ink"),
    "a missing image": page("/image", "<main>BTC <img src=/gone.png></main>", "/gone.png, and gets status 404"),
    "data that does not come": page("/data", "<main>BTC</main><script>fetch('/gone')</script>", "gets status 404"),
    "a picture that cannot be drawn": page("/blank", "<main>BTC <img src=/login></main>", "cannot be drawn"),
    "an error in the title alone":
        page("/titled", "<title>500: Internal Server Error</title><main>BTC</main>", "shows what it must not"),
    "an error in a frame": page("/framed", "<main>BTC <iframe src=/box></iframe></main>", "shows what it must not"),
    "an empty page with status 200":
        Lie(Served("<div id=root></div>"), "view('/empty', timeout=10)", FAILED, "does not show main"),
    # Rows with which a smoke, or a plain query, is content
    "a smoke that passes on an empty database":
        sql("truncate coin_universe, samples_5s", SAMPLES, FAILED, "No keys are expected", A_SMOKE),
    "an empty table, counted": sql("truncate samples_5s", AT_LEAST_100, FAILED, "assert 0 >= 100", A_SMOKE),
    "a grouped query over an empty table":
        sql("truncate samples_5s", NONE_IS_OLD, FAILED, "is not None", NO_GROUP_IS_OLD),
    "a smoke that passes on rows three days old":
        sql("update samples_5s set ts = ts - interval '3 days'", SAMPLES, FAILED, "row of BTC is 2592", A_SMOKE),
    "a 5-second hole in one symbol with a fresh tail":
        sql("delete from samples_5s where symbol = 'ETH' and mid = 160", NO_GAPS, FAILED, "ETH has a gap", SAMPLES),
    "one silent symbol":
        sql("delete from samples_5s where symbol = 'SOL' and mid < 160",
            SAMPLES, FAILED, "of SOL is 3", TABLE_IS_FRESH),
    "a silence that lag() does not see":
        sql("delete from samples_5s where symbol = 'SOL' and mid < 160", NO_GAPS, FAILED, "SOL has a", LAG_SEES_NONE),
    "a symbol that never had a row":
        sql("insert into coin_universe values ('NEW', true)", SAMPLES, FAILED, "no row for NEW", NO_GROUP_IS_OLD),
    "times without a zone":
        sql("alter table samples_5s alter ts type timestamp", SAMPLES, UNCLEAR, "type timestamp;", TABLE_IS_FRESH),
    "universe disabled":
        sql("update coin_universe set enabled = false", NO_GAPS, FAILED, "No keys are expected", A_SMOKE),
    "a clock an hour off":
        sql("update samples_5s set ts = ts + interval '1 hour'", SAMPLES, FAILED, "s in the future", TABLE_IS_FRESH),
    "a matrix type ten minutes old":
        sql("delete from dyn_values where matrix_type = 'delta' and value < 60",
            MATRICES, FAILED, "row of delta/BTC/USDT is 6", MATRIX_IS_FRESH),
    "health that says ok while the database lets nobody in":
        sql("update pg_database set datallowconn = false where datname = current_database()",
            "db.execute('select 1')", UNCLEAR, "cannot be used", HEALTH_IS_OK),
    # Logs whose end looks well
    "a WARNING in the log between deployment and check": Lie(Logged(warn), APP_LOG, FAILED, "no transaction"),
    "a WARNING in colours": Lie(Logged(colour), APP_LOG, FAILED, "no transaction"),
    "log rotation in between": Lie(Logged(rename), APP_LOG, FAILED, "no transaction in progress"),
    "a log that nobody writes to": Lie(Logged(lambda log: None), APP_LOG, UNCLEAR, "has no line since"),
    "a log that somebody emptied":
        Lie(Logged(lambda log: log.write_text("all is well\n")), APP_LOG, UNCLEAR, "cannot be read any more"),
    "a WARNING in PostgreSQL's own log":
        sql("do $$ begin raise warning 'wal is lost'; end $$", SERVER_LOG, FAILED, "wal is lost", SAMPLES),
    # Deployments of which health says that all is well
    "yesterday's deployment still running":
        sql("", VERSION, FAILED, "answers as 0.1.0", HEALTH_IS_OK, version_path="/yesterday/api/version"),
    "the stamp of another version":
        sql("update session_log set app_version = '0.1.2' where session_id = 'second'",
            VERSION, FAILED, "newest stamp of app is of 0.1.2", HEALTH_IS_OK),
}
# fmt: on

ROWS_HOLD = [SAMPLES, MATRICES, NO_GAPS, NONE_IS_OLD, AT_LEAST_100, LAG_SEES_NONE]
VIEWS = ["view('/')", "view('/sampling')"]
SESSION = "{'name': 'session', 'value': 's3cret-s3cret', 'url': target.origin}"
BEHIND_LOGIN = f"context.add_cookies([{SESSION}])\n    view('/private')"
COMPILES = "view('/compiles')"
MOVED = "api.expect('/moved', status=301)"
OTHERS = [VERSION, A_SMOKE, NODE_TEST, PSQL, HEALTH_IS_OK, MOVED, *VIEWS, BEHIND_LOGIN, COMPILES, APP_LOG, SERVER_LOG]

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
    assert set(re.split(r";\s", PROMISED.strip())) <= LIES.keys() and len(LIES) >= 51
    caught_by = {fixture for lie in LIES.values() for fixture in fixtures_of(lie.check)}
    assert caught_by == {*FIXTURES} - {"target", "context"}
    assert {*FIXTURES} == {each for check in ROWS_HOLD + OTHERS for each in fixtures_of(check)}


def of(*kinds: type) -> list[str]:
    return [name for name, lie in LIES.items() if isinstance(lie.world, kinds) and name != "a smoke that drops a view"]


def fixtures_of(check: str) -> list[str]:
    return [name for name in FIXTURES if re.search(rf"(?<![\w.'\"]){name}[.(]", check)]


def text_of(check: str, folder: Path, name: str = "test_it", wait: float = 0) -> str:
    """Return `check` as a test."""
    fixtures = ", ".join(fixtures_of(check))
    body = check.replace("{folder}", str(folder))
    return f"import pytest\n\n\n@pytest.mark.wait({wait})\ndef {name}({fixtures}, record_property):\n    {body}\n\n\n"


def ask(target: Target, files: Mapping[str, str]) -> dict[str, Result]:
    """Run `files` (name → text) on `target`, all at once; return file/test → result."""
    folder = Path(target.code) / "checks"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    results = runner.run(target, sorted(folder.glob("test_*.py")), Path(target.code) / "kept")
    return {f"{each.file.removeprefix('test_')}/{each.test}": each for each in results}


def assert_caught(lie: Lie, result: Result) -> None:
    assert result.outcome == lie.outcome and lie.said in result.message, result


@pytest.fixture(scope="module")
def healthy(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Healthy]:
    """The world before it is broken; its web app answers with all lies as well."""
    lies = {path_of(LIES[name]): LIES[name].world for name in of(Served)}
    with web_app({**WELL, **lies}) as origin:
        yield Healthy(tmp_path_factory.mktemp("healthy"), server, origin)


def path_of(lie: Lie) -> str:
    found = re.search(r"\('(/[^']*)'", lie.check)
    assert found, lie.check
    return found[1]


@pytest.fixture
def world(healthy: Healthy) -> Iterator[Target]:
    with healthy.world() as target:
        yield target


def test_the_healthy_world_raises_no_alarm(world: Target) -> None:
    code = Path(world.code)
    (code / "all.test.mjs").write_text(SKIPS.replace("skip: true", "skip: false"))
    (code / "views.sql").write_text("create or replace view debug.x as select 1;\n\\echo PASS\n")
    with (code / "app.log").open("a") as log:
        log.write("all is well\n")
    checks = [
        *ROWS_HOLD,
        *OTHERS,
        "log.has_no_trouble()\n    api.get('/')\n    assert db.execute('select 1').fetchone()",
    ]
    texts = [text_of(each, code, f"test_{n}", 60 if each is COMPILES else 0) for n, each in enumerate(checks)]
    found = ask(world, {"well": "".join(texts)})
    assert {name: each.message for name, each in found.items() if each.outcome != PASSED} == {}
    assert len(found) == len(checks)


@pytest.fixture(scope="module")
def told(healthy: Healthy) -> Iterator[tuple[Path, str, dict[str, Result]]]:
    """What became of the lies that need no world of their own: the folder, the DSN, and file/test → result."""
    with healthy.world() as target:
        code, logs = Path(target.code), {name: Path(target.code) / file_of(name) for name in of(Logged)}
        files = {}
        for name in of(Program, Served, Logged, Suite):
            lie = LIES[name]
            if isinstance(lie.world, Program) and lie.world.file:
                (code / lie.world.file).write_text(lie.world.text)
            if isinstance(lie.world, Suite):
                files[file_of(name)] = lie.world.text
                continue
            files[file_of(name)] = text_of(lie.check, logs.get(name, code))
            if isinstance(lie.world, Served):
                naive = f"import requests\n    assert requests.get(target.origin + {path_of(lie)!r}).ok\n    "
                naive += "record_property('naive', 'status 200')"
                files[file_of(name)] += text_of(naive, code, "test_naive")
        for folder in logs.values():
            folder.mkdir()
            shutil.copy(code / "app.log", folder)
        noted = positions([f"{each}/app.log" for each in logs.values()], Path(target.root))
        for name, folder in logs.items():
            LIES[name].world.happens(folder / "app.log")
        yield code, target.dsn, ask(replace(target, log_positions=noted), files)


def file_of(name: str) -> str:
    return re.sub(r"\W+", "_", name)


@pytest.mark.parametrize("name", of(Program, Served, Logged))
def test_what_a_program_an_answer_or_a_log_tells_is_caught(told: Any, name: str) -> None:
    (code, _, results), lie = told, LIES[name]
    assert_caught(lie, results[f"{file_of(name)}/test_it"])
    if isinstance(lie.world, Served):
        assert results[f"{file_of(name)}/test_naive"].outcome == PASSED
    elif isinstance(lie.world, Logged):
        assert not re.search(SQL_TROUBLE, (code / file_of(name) / "app.log").read_text().splitlines()[-1])


@pytest.mark.parametrize("name", of(Suite))
def test_a_suite_that_tests_nothing_is_caught(told: Any, name: str) -> None:
    mine = [each for key, each in told[2].items() if key.startswith(file_of(name))]
    assert mine, f"{name} has no result, so nothing blocks: {sorted(told[2])}"
    assert_caught(LIES[name], mine[0])


def test_pytest_itself_is_content_with_such_suites(told: Any) -> None:
    files = [f"checks/test_{file_of(name)}.py" for name in of(Suite)]
    ran = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *files], cwd=told[0])
    assert ran.returncode == 0


def test_what_never_exits_is_ended_with_all_it_started(told: Any) -> None:
    assert until(lambda: not alive(int((told[0] / "child").read_text())))
    with psycopg.connect(told[1], autocommit=True) as connection:
        leaked = "select 1 from pg_stat_activity where application_name = 'leak'"
        assert until(lambda: connection.execute(leaked).fetchone() is None)


@pytest.mark.parametrize("name", of(Database))
def test_what_rows_or_a_deployment_tell_is_caught(world: Target, name: str) -> None:
    lie, code = LIES[name], Path(world.code)
    with psycopg.connect(world.dsn, autocommit=True) as connection:
        connection.execute("set search_path = settings, str_aux, matrices, ops")
        connection.execute(lie.world.statement)
    texts = text_of(lie.naive, code, "test_naive") + text_of(lie.check, code)
    found = ask(replace(world, **lie.world.facts), {"rows": texts})
    assert found["rows/test_naive"].outcome == PASSED, found["rows/test_naive"]
    assert_caught(lie, found["rows/test_it"])


def test_a_smoke_that_drops_a_view_is_caught(world: Target) -> None:
    """C7: it says which smoke took what away."""
    smokes, lie = Path(world.code) / "smokes", LIES["a smoke that drops a view"]
    smokes.mkdir()
    for name, check in (("drops", lie.check), ("keeps", A_SMOKE)):
        (smokes / f"test_{name}.py").write_text(text_of(check, smokes))
    results = runner.run(world, sorted(smokes.glob("*.py")), Path(world.code) / "kept")
    assert [(each.file, each.outcome) for each in results if each.is_pass] == [("test_keeps", PASSED)]
    (caught,) = [each for each in results if not each.is_pass]
    assert caught.file == "test_drops" and "While test_drops.py ran" in caught.message
    assert_caught(lie, caught)
