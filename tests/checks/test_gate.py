"""The gate: what pytest calls passed may be no pass, and what became of each test is known afterwards."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg
import pytest

from release_tasks import temporary
from release_tasks.checks import VARIABLE, Target, runner
from release_tasks.database.server import Running
from release_tasks.outcome import FAILED, INCONCLUSIVE, PASSED, WAIVED, Result
from tests.conftest import Web, web_app
from tests.test_conftest import FAILS, LONG
from tests.test_process import alive, until

TEAM = '''"""A team's own checks."""
import pathlib, subprocess, sys, time
import pytest
from release_tasks.checks import CheckFailed, Inconclusive

calls = []

def test_passes(target, record_property):
    record_property("looked", "here")
    assert (target.version, target.name) == ("0.1.1", "staging")

def test_looks_at_nothing(target):
    assert target.version

def test_fails(record_property):
    assert 3 == 4

def test_is_skipped():
    pytest.skip("not today")

def test_skips_with_a_word_more():
    pytest.importorskip("no_such_module")

@pytest.mark.xfail
def test_fails_as_expected():
    assert False

@pytest.mark.xfail
def test_passes_unexpectedly(record_property):
    record_property("x", 1)

@pytest.mark.waived("the vendor's page; #12")
def test_is_waived():
    assert False

def test_asks_for_a_fixture_that_is_none(data_base):
    pass

def test_breaks():
    raise KeyError("BTC")

@pytest.fixture
def untidy():
    yield
    raise OSError("cannot tidy up")

def test_leaves_a_mess(untidy, record_property):
    record_property("x", 1)

@pytest.mark.wait(60)
def test_comes_about(record_property):
    calls.append(1)
    record_property("calls", len(calls))
    assert len(calls) == 3

@pytest.mark.wait(0.1)
def test_never_comes_about():
    assert False, "still not"

@pytest.mark.wait(60)
def test_fails_until_it_comes_about(record_property):
    calls.append(1)
    record_property("calls", len(calls))
    if len(calls) < 5:
        pytest.fail("not yet")
    with pytest.raises(KeyError):
        if len(calls) > 5:
            raise KeyError

@pytest.mark.timeout(2)
@pytest.mark.wait(60)
def test_hangs_and_waits():
    time.sleep(60)

@pytest.mark.wait(60)
def test_is_final():
    raise CheckFailed("It is as it is.", "inv again", final=True)

@pytest.mark.wait(60)
def test_is_final_and_inconclusive():
    raise Inconclusive("It cannot be known.", final=True)

tries = []

@pytest.mark.wait(60)
def test_is_mistaken(record_property):
    tries.append(1)
    record_property("tries", len(tries))
    no_such_name

@pytest.mark.timeout(3)
def test_hangs():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    pathlib.Path("child").write_text(str(child.pid))
    child.wait()

@pytest.mark.parametrize("coin", ["BTC", "ETH"])
def test_each(coin, record_property):
    record_property("coin", coin)
    assert coin == "BTC"

def test_reads(db):
    assert db.execute("select count(*) from app.coins where symbol = %s", ["BTC"]).fetchone() == (1,)

def test_writes(db):
    db.execute("delete from app.coins")

def test_catches_its_error(db):
    try:
        db.execute("select * from app.gone")
    except Exception as error:
        print("SQL warn:", error)

def test_runs(run):
    ran = run(sys.executable, "-c", "import os; print('OK', os.environ['APP_VERSION'])", must_print="^OK")
    assert "0.1.1" in ran.stdout

def test_runs_what_fails(run):
    run(sys.executable, "-c", "raise SystemExit('no')", must_print="^OK")

def test_runs_what_fails_in_sql(run):
    """As postgres.js does: the message first, many lines of details last."""
    code = "import sys; sys.exit('PostgresError: column x does not exist\\\\n    at a\\\\n  routine: error')"
    run(sys.executable, "-c", code, must_print="^OK")

def test_runs_what_hangs(run):
    run(sys.executable, "-c", "import time; time.sleep(600)", must_print="^OK", timeout=0.5)

def test_runs_what_is_not_there(run):
    run("no-such-program", must_print="^OK")

def test_runs_what_prints_an_error(run):
    run(sys.executable, "-c", "print('OK'); print('psql:x.sql:1: ERROR:  syntax error')", must_print="^OK")

def test_asks_for_silence(run):
    run(sys.executable, "-c", "", must_print=".*")

def test_asks_the_api(api):
    assert api.get("/api/health").json() == {"ok": True}

def test_asks_another_api(api):
    api.get("https://example.invalid/")

def test_reads_the_log(log):
    log.has_no_trouble(exceptions={".": "all of it"})

def test_is_of_this_release(deployed):
    deployed()
'''

BECAME = {
    "passes": (PASSED, ""),
    "looks_at_nothing": (INCONCLUSIVE, "It observed nothing"),
    "fails": (FAILED, "assert 3 == 4"),
    "is_skipped": (INCONCLUSIVE, "skipped: not today"),
    "skips_with_a_word_more": (INCONCLUSIVE, "could not import 'no_such_module'"),
    "fails_as_expected": (FAILED, "marked xfail"),
    "passes_unexpectedly": (INCONCLUSIVE, "XPASS"),
    "is_waived": (WAIVED, "the vendor's page; #12"),
    "asks_for_a_fixture_that_is_none": (INCONCLUSIVE, "fixture 'data_base' not found"),
    "breaks": (INCONCLUSIVE, "KeyError: 'BTC'"),
    "leaves_a_mess": (INCONCLUSIVE, "OSError: cannot tidy up"),
    "comes_about": (PASSED, ""),
    "fails_until_it_comes_about": (PASSED, ""),
    "hangs_and_waits": (FAILED, "Timeout (>2.0s)"),
    "never_comes_about": (FAILED, "still not"),
    "is_final": (FAILED, "It is as it is."),
    "is_final_and_inconclusive": (INCONCLUSIVE, "It cannot be known."),
    "is_mistaken": (INCONCLUSIVE, "NameError: name 'no_such_name' is not defined"),
    "hangs": (FAILED, "Timeout (>3.0s)"),
    "each[BTC]": (PASSED, ""),
    "each[ETH]": (FAILED, "assert 'ETH' == 'BTC'"),
    "reads": (PASSED, ""),
    "writes": (INCONCLUSIVE, "cannot execute DELETE in a read-only transaction"),
    "catches_its_error": (INCONCLUSIVE, 'relation "app.gone" does not exist'),
    "runs": (PASSED, ""),
    "runs_what_fails": (FAILED, "ended with exit code 1; it said: no"),
    "runs_what_fails_in_sql": (FAILED, "it said: PostgresError: column x does not exist"),  # C8
    "runs_what_hangs": (FAILED, "did not end within 0.5 s"),
    "runs_what_is_not_there": (INCONCLUSIVE, "The program no-such-program was not found."),
    "runs_what_prints_an_error": (FAILED, "printed trouble; it said: psql:x.sql:1: ERROR: syntax error"),
    "asks_for_silence": (INCONCLUSIVE, "matches silence"),
    "asks_the_api": (PASSED, ""),
    "asks_another_api": (INCONCLUSIVE, "ORIGIN"),
    "reads_the_log": (PASSED, ""),
    "is_of_this_release": (PASSED, ""),
}


@pytest.fixture(scope="module")
def checked(
    server: Running, tmp_path_factory: pytest.TempPathFactory, module_web: Web
) -> tuple[Path, dict[str, Result]]:
    """A run of the team's tests: its folder, and name → result."""
    root, dsn = tmp_path_factory.mktemp("team"), server.dsn("app")
    with psycopg.connect(dsn) as connection:
        connection.execute("drop schema if exists app cascade; create schema app; create table app.coins (symbol text)")
        connection.execute("insert into app.coins values ('BTC')")
    (root / "test_own.py").write_text(TEAM)
    here = str(root)
    target = Target(
        "staging", "app", "0.1.1", dsn, module_web.origin, here, here, here,
        env={"APP_VERSION": "0.1.1"}, log=str(server.log),
    )  # fmt: skip
    began = time.monotonic()
    results = runner.run(target, [root / "test_own.py"], root / "kept")
    assert time.monotonic() - began < 180  # what is final has not waited its 60 s, four times
    return root, {each.test.removeprefix("test_"): each for each in results}


@pytest.fixture(scope="module")
def module_web() -> Iterator[Web]:
    with web_app() as web:
        web.be("0.1.1")
        yield web


@pytest.mark.parametrize("name", BECAME)
def test_an_outcome_is_never_kinder_than_what_happened(checked: tuple[Path, dict[str, Result]], name: str) -> None:
    outcome, said = BECAME[name]
    result = checked[1][name]
    assert result.outcome == outcome and said in result.message and "Traceback" not in result.message, result


def test_every_test_has_one_result_with_what_it_observed(checked: tuple[Path, dict[str, Result]]) -> None:
    results = checked[1]
    assert set(results) == {*BECAME}
    assert results["passes"].observed == ("here",)
    assert results["comes_about"].observed == ("3",)
    assert results["reads"].observed == ("select count(*) from app.coins where symbol = %s → 1 rows",)
    assert results["asks_the_api"].observed[0].startswith("200 in ")
    assert results["runs"].observed == ("OK 0.1.1",)
    assert results["is_final"].hint == "inv again"
    assert results["is_mistaken"].observed == ("1",), "no waiting gives a name to what has none"


def test_the_children_of_a_test_that_hangs_end_with_it(checked: tuple[Path, dict[str, Result]]) -> None:
    child = int((checked[0] / "child").read_text())
    assert until(lambda: not alive(child))


LOOKS = "def test_a(record_property): record_property('looked', 1)\n"


@pytest.fixture
def files(tmp_path: Path, target: Callable[..., Target]) -> Callable[..., list[Result]]:
    """Return what runs one file with this text, and pytest's options."""

    def files(text: str, *options: str, **facts: object) -> list[Result]:
        file = tmp_path / "test_own.py"
        file.write_text(text)
        return runner.run(target(**facts), [file], tmp_path / "kept", *options)

    return files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "No test of test_own.py ran, or not all: pytest ended with exit code"),
        ("import pytest\npytest.skip('all of it', allow_module_level=True)\ndef test_a(): pass", "all of it"),
        ("def test_a(:\n", "SyntaxError"),
        ("import no_such_module\ndef test_a(): pass", "No module named 'no_such_module'"),
        ("import pytest\ndef test_a(): pytest.exit('enough')", "Exit: enough"),
        ("import pytest\ndef test_a(): pytest.exit('enough', returncode=0)", "Exit: enough"),
        ("import unittest\nclass T(unittest.TestCase):\n    def test_a(self): self.assertTrue(1)", "observed nothing"),
        ("def test_a(record_property): record_property('coins', '')", "observed nothing"),
        ("import pytest\n@pytest.mark.wait()\ndef test_a(): pass", "test_a waits for 'nothing'; expected seconds"),
        ("from release_tasks.checks.series import Series\ndef test_a(): Series(1, 2, 'a', 'b', unit='sec').is_fresh(1)",
         "expected one of timestamptz, ms"),
        ("import os\ndef test_a(): os._exit(0)", "No test of test_own.py ran, or not all: pytest ended"),
        ("import pytest\n@pytest.mark.wait('x')\ndef test_a(): pass", "test_a waits for 'x'; expected seconds"),
        ("import pytest\n@pytest.mark.wait(float('inf'))\ndef test_a(): pass", "test_a waits for inf"),
        ("def test_a(): assert 0\ndef test_a(record_property): record_property('x', 1)", "has test_a twice; only the"),
        ("class TestA:\n    def test_a(self): assert 0\n    def test_a(self): pass", "has test_a twice; only the"),
        ("pytest_plugins = ['json']\ndef test_a(record_property): record_property('x', 1)", "names pytest_plugins"),
        ("import pytest\n@pytest.mark.waived\ndef test_a(db): db.execute('select 1')", "waived without a reason"),
        ("import pytest\n@pytest.mark.wiat(5)\ndef test_a(): pass", "'wiat' not found in `markers`"),
        ("def test_a(record_property):\n    record_property('x', 1)\n    assert (1 == 2, 'so')", "assertion is always"),
        ("class TestA:\n    def __init__(self): pass\n    def test_a(self): pass", "cannot collect test class"),
    ],
    ids=["empty", "skips itself", "no Python", "misses a module", "exits", "exits well", "is of unittest",
         "says nothing", "waits for nothing", "names no unit", "leaves", "waits for x", "waits for good",
         "names two alike", "names two alike in a class", "names plugins", "waives for nothing",
         "mistypes a mark", "asserts a tuple", "is not collected"],
)  # fmt: skip
def test_a_file_that_tests_nothing_is_inconclusive(files: Callable[..., list[Result]], text: str, said: str) -> None:
    results = files(text)
    assert results and {each.outcome for each in results} == {INCONCLUSIVE}
    assert said in " ".join(each.message for each in results), results


def test_what_a_fixture_has_seen_counts(files: Callable[..., list[Result]], dsn: str) -> None:
    """It was thrown away before the test: rows of a fixture were no look, and its failed query was none either."""
    text = """
import psycopg, pytest
@pytest.fixture
def rows(db): return db.execute("select 1").fetchall()
@pytest.fixture
def caught(db):
    try:
        db.execute("select no_such_column")
    except psycopg.Error:
        pass
def test_rows(rows): assert rows
def test_caught(caught, db): assert db.execute("select 1").fetchall()
"""
    seen, caught = files(text, dsn=dsn)
    assert seen.outcome == PASSED and "select 1 → 1 rows" in " ".join(seen.observed), seen
    assert caught.outcome == INCONCLUSIVE and "no_such_column" in caught.message


def test_a_row_that_is_not_there_yet_is_waited_for(files: Callable[..., list[Result]], tmp_path: Path) -> None:
    """`fetchone()[0]` of no row was a mistake in the test, at the first try."""
    text = """
import pytest
tries = []
@pytest.mark.wait(20)
def test_row(record_property):
    tries.append(None)
    record_property("tries", len(tries))
    row = None if len(tries) == 1 else (1,)
    assert row[0] == 1
@pytest.mark.wait(20)
def test_rows(record_property):
    tries.append(None)
    record_property("tries", len(tries))
    (row,) = [] if len(tries) == 3 else [1]
"""
    assert [(each.outcome, each.observed) for each in files(text)] == [(PASSED, ("2",)), (PASSED, ("4",))]


def test_helpers_are_those_of_the_tree_that_is_checked(target: Callable[..., Target], tmp_path: Path) -> None:
    """A live release was judged by the smokes' helpers of the working tree."""
    for name in ("now", "deployed"):
        (tmp_path / name / "smokes").mkdir(parents=True)
        (tmp_path / name / "smokes" / "coins.py").write_text(f"TREE = {name!r}\n")
    file = tmp_path / "deployed" / "acceptance" / "test_own.py"
    file.parent.mkdir()
    anew = "import importlib\nimportlib.invalidate_caches()\n"  # a namespace looks anew for its folders then
    file.write_text(
        anew + "from smokes.coins import TREE\ndef test_tree(record_property): record_property('tree', TREE)\n"
    )
    here = target(root=str(tmp_path / "now"), code=str(tmp_path / "deployed"))
    assert [each.observed for each in runner.run(here, [file], tmp_path / "kept")] == [("deployed",)]


def test_helpers_may_be_in_the_package_itself_and_files_beside_them(
    target: Callable[..., Target], tmp_path: Path
) -> None:
    """__init__.py was not executed, and importlib.resources failed."""
    file = tmp_path / "acceptance" / "test_own.py"
    file.parent.mkdir()
    (file.parent / "__init__.py").write_text("SYMBOLS = ['BTC']\n")
    (file.parent / "coins.txt").write_text("ETH")
    imports = "from importlib.resources import files\nfrom acceptance import SYMBOLS\nfrom . import SYMBOLS as SAME\n"
    text = "[*SYMBOLS, *SAME, files('acceptance').joinpath('coins.txt').read_text()]"
    file.write_text(f"{imports}def test_it(record_property): record_property('all', {text})\n")
    here = target(root=str(tmp_path), code=str(tmp_path))
    (result,) = runner.run(here, [file], tmp_path / "kept")
    assert result.observed == ("['BTC', 'BTC', 'ETH']",), result


def test_the_repository_may_have_a_bracket_in_its_path(target: Callable[..., Target], tmp_path: Path) -> None:
    """pytest took it for a parameter, so that no check could run."""
    file = tmp_path / "app [1]" / "acceptance" / "test_own.py"
    file.parent.mkdir(parents=True)
    file.write_text(LOOKS)
    root = str(tmp_path / "app [1]")
    assert [each.outcome for each in runner.run(target(root=root, code=root), [file], tmp_path / "kept")] == [PASSED]


def test_of_marked_tests_all_have_to_run(target: Callable[..., Target], tmp_path: Path) -> None:
    """What had run before another one ended all passed for the whole."""
    mark = "@pytest.mark.on_backup\n"
    text = f"import pytest\n{mark}def test_a(record_property): record_property('x', 1)\n"
    text += f"{mark}def test_b(): pytest.exit('enough')\n{mark}def test_c(): assert False\n"
    (tmp_path / "test_own.py").write_text(text)
    results = runner.run(target(), [tmp_path / "test_own.py"], tmp_path / "kept", marked="on_backup")
    assert INCONCLUSIVE in {each.outcome for each in results}, results


def test_a_person_chooses_tests_and_sees_what_pytest_prints(
    files: Callable[..., list[Result]], capfd: pytest.CaptureFixture[str]
) -> None:
    text = f"{LOOKS}def test_b(): pass\ndef test_c(): raise OSError('hunter2-hunter2')"
    found = files(text, "-k", "not test_b", env={"PGPASSWORD": "hunter2-hunter2"})
    assert [(each.test, each.outcome) for each in found] == [("test_a", PASSED), ("test_c", INCONCLUSIVE)]
    printed = capfd.readouterr().out
    assert "OSError: ***" in printed and "hunter2" not in printed


def test_files_that_test_nothing_are_named_in_their_order(target: Callable[..., Target], tmp_path: Path) -> None:
    files = [tmp_path / f"test_{letter}.py" for letter in "hgfedcba"]
    for file in files:
        file.touch()
    assert [each.file for each in runner.run(target(), files, tmp_path / "kept")] == [file.stem for file in files]


@pytest.mark.parametrize("code", ["", ", returncode=0", ", returncode=1"])
def test_a_run_that_ends_before_its_last_test_is_no_pass(files: Callable[..., list[Result]], code: str) -> None:
    found = files(f"{LOOKS}def test_b():\n    import pytest\n    pytest.exit('enough'{code})\ndef test_c(): pass")
    assert [(each.test, each.outcome) for each in found] == [("test_a", PASSED), ("", INCONCLUSIVE)]
    assert "Exit: enough" in found[1].message


def test_a_run_whose_next_tests_were_taken_out_is_no_pass(files: Callable[..., list[Result]]) -> None:
    takes = "def test_a(request, record_property):\n    record_property('x', 1)\n    del request.session.items[1:]\n"
    found = files(f"{takes}def test_b(): assert False\n")
    assert [(each.test, each.outcome) for each in found] == [("test_a", PASSED), ("", INCONCLUSIVE)]


@pytest.mark.parametrize("option", ["--keyword=nothing", "--no-such-option", "--version", "--setup-plan"])
def test_options_that_choose_no_test_are_inconclusive(files: Callable[..., list[Result]], option: str) -> None:
    (result,) = files(LOOKS, option)
    assert (
        result.outcome == INCONCLUSIVE
        and f"No test of test_own.py ran, or not all: pytest {option} ended" in result.message
    )


def test_no_variable_of_the_shell_changes_what_runs(
    files: Callable[..., list[Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k nothing --collect-only")
    monkeypatch.setenv("PYTEST_PLUGINS", "no_such_plugin")
    assert [each.outcome for each in files(LOOKS)] == [PASSED]


@pytest.mark.parametrize("ends", ["", "    assert 0\n"])
def test_a_thread_that_a_test_leaves_does_not_keep_the_run(files: Callable[..., list[Result]], ends: str) -> None:
    """It did, for half an hour and in silence."""
    waits = "    threading.Thread(target=time.sleep, args=[600]).start()\n"
    (result,) = files(
        f"import threading, time\ndef test_a(record_property):\n    record_property('x', 1)\n{waits}{ends}"
    )
    assert result.outcome == (FAILED if ends else PASSED)


@pytest.mark.parametrize(
    "call", ["api.expect('/gone')", "view('/gone')", "api.expect('/api/version', {'version': '9'})"]
)
def test_a_check_that_fails_is_no_pass_also_where_the_test_catches_it(
    files: Callable[..., list[Result]], module_web: Web, call: str
) -> None:
    text = f"import contextlib\ndef test_a(api, {'view' if 'view' in call else 'target'}):\n"
    text += f"    with contextlib.suppress(AssertionError): {call}\n    api.get('/api/version')\n"
    (result,) = files(text, origin=module_web.origin)
    assert result.outcome == INCONCLUSIVE
    assert result.message.startswith("The test has caught a failure: /")


@pytest.mark.parametrize(
    ("text", "outcome", "observed"),
    [
        ("record_property('outcome', 'passed'); pytest.skip('not today')", INCONCLUSIVE, ("passed",)),
        ("record_property('outcome', '3 of 3')", PASSED, ("3 of 3",)),
        ("record_property('failed', 'none'); record_property('hint', 'x')", PASSED, ("none", "x")),
    ],
)
def test_what_a_test_records_is_never_taken_for_the_outcome(
    files: Callable[..., list[Result]], text: str, outcome: str, observed: tuple[str, ...]
) -> None:
    """A test that recorded `outcome` as passed, and was skipped then, passed in silence."""
    (result,) = files(f"import pytest\ndef test_a(record_property): {text}")
    assert (result.outcome, result.observed, result.hint) == (outcome, observed, "")


def test_the_layer_in_the_deployed_tree_does_not_judge(files: Callable[..., list[Result]], tmp_path: Path) -> None:
    (tmp_path / "release_tasks").mkdir()
    (tmp_path / "release_tasks" / "__init__.py").write_text("raise SystemExit('an older layer')")
    (tmp_path / "pytest.py").write_text("raise SystemExit('no pytest')")
    assert [each.outcome for each in files(LOOKS)] == [PASSED]


def test_no_conftest_takes_out_a_test_or_stops_the_run(files: Callable[..., list[Result]], tmp_path: Path) -> None:
    """Neither one beside the tests, nor one above them that belongs to the application."""
    (tmp_path / "conftest.py").write_text("import pytest\npytest.exit('not today', returncode=4)\n")
    assert [each.outcome for each in files(LOOKS)] == [PASSED]
    (tmp_path / "conftest.py").write_text("def pytest_collection_modifyitems(items): del items[1:]")
    outcomes = [each.outcome for each in files(f"{LOOKS}def test_b(record_property): assert False")]
    assert outcomes == [PASSED, FAILED]


@pytest.mark.parametrize(
    "text",
    [
        f"import pytest\npytestmark = pytest.mark.waived('all of it')\n{LOOKS}",
        "import pytest\none = pytest.param(1, marks=pytest.mark.waived('one'))\n"
        "@pytest.mark.parametrize('x', [one])\ndef test_a(x): pass",
        "import pytest\n@pytest.mark.waived('')\ndef test_a(db): pass",
        "import pytest\nnot_now = pytest.mark.waived('later')\n@not_now\ndef test_a(db): pass",
    ],
    ids=["a file", "a parameter", "no reason", "a name"],
)
def test_a_test_is_waived_by_a_mark_of_its_own_with_a_reason(files: Callable[..., list[Result]], text: str) -> None:
    """The notes show the waivers of tests, and would not show others. What is wrong comes first."""
    (result,) = files(text)
    assert result.outcome == INCONCLUSIVE
    reason = 'It is waived without a reason of its own; expected @pytest.mark.waived("why") above the test.'
    assert result.message == reason


def test_one_waiver_without_a_reason_leaves_the_other_tests_as_they_are(files: Callable[..., list[Result]]) -> None:
    other = "def test_b(record_property): record_property('looked', 1)\n"
    waived, passed = files(f"import pytest\n@pytest.mark.waived('')\ndef test_a(db): pass\n{other}")
    assert (waived.outcome, passed.outcome) == (INCONCLUSIVE, PASSED)


def test_a_file_that_cannot_be_collected_and_a_skip_are_said_once(files: Callable[..., list[Result]]) -> None:
    (broken,) = files("import no_such_module\n")
    assert (broken.name, broken.test) == ("own", "")
    (skipped,) = files("import pytest\ndef test_a(): pytest.skip('not today')")
    assert (skipped.name, skipped.message) == ("own: a", "skipped: not today")


def test_a_run_that_a_person_ends_says_so(
    target: Callable[..., Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By q in the debugger: it was "inconclusive", with pytest's exit code."""
    (tmp_path / "test_own.py").write_text(f"def test_fails(record_property): assert 3 == 4\n{LOOKS}")
    typed = tmp_path / "typed"
    typed.write_text("q\n")
    with typed.open() as stdin:
        monkeypatch.setattr(runner.subprocess, "run", partial(subprocess.run, stdin=stdin))
        found = runner.run(target(), [tmp_path / "test_own.py"], tmp_path / "kept", "--pdb")
    assert [(each.name, each.outcome) for each in found] == [("pytest", INCONCLUSIVE)]
    assert found[0].message == "The run was ended by hand, before its last test."


def test_secrets_are_in_no_result(files: Callable[..., list[Result]], tmp_path: Path) -> None:
    text = "def test_a(target, record_property):\n    record_property('dsn', target.dsn)\n    assert target.dsn == 'x'"
    text += "\n\ndef test_b(target):\n    assert target is None\n\ndef test_c(target):\n    assert not target.env"
    results = files(text, dsn="postgresql://rita:hunter2&hunter2@nowhere/app", env={"PGPASSWORD": "hunter2&hunter2"})
    assert len(results) == 3 and "hunter2" not in repr(results)
    assert "hunter2" not in "".join(path.read_text() for path in tmp_path.rglob("*.xml"))


def test_a_target_is_in_a_file_that_is_gone_once_it_is_read(files: Callable[..., list[Result]], tmp_path: Path) -> None:
    text = "import os, pathlib\ndef test_a(record_property):\n"
    text += f"    file = pathlib.Path(os.environ['{VARIABLE}'])\n"
    text += "    record_property('mode', oct(file.parent.stat().st_mode))\n    assert not file.exists()\n"
    text += "    record_property('parent', file.parents[1])"
    with temporary.run_directory():  # which goes with a run that is killed before the file is read
        (result,) = files(text)
        assert (result.outcome, result.observed) == (PASSED, ("0o40700", tempfile.gettempdir()))


def test_pytest_without_a_target_says_what_to_type(tmp_path: Path) -> None:
    env, argv = {**os.environ, **runner.VARIABLES}, [*runner.PYTEST, *runner.GATE]
    ran = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.returncode == 4 and "inv smokes --env dev" in ran.stderr and "Traceback" not in ran.stderr + ran.stdout


def test_a_deployment_gets_its_time_to_settle_and_no_longer(files: Callable[..., list[Result]]) -> None:
    text = "calls = []\ndef test_a(record_property):\n    calls.append(1)\n    record_property('x', 1)\n"
    text += "    assert calls[1:]"
    assert [each.outcome for each in files(text, settled_by=time.time() + 60)] == [PASSED]
    assert [each.outcome for each in files(text, settled_by=time.time() - 1)] == [FAILED]


def test_only_queries_are_run_where_nothing_else_can_be(files: Callable[..., list[Result]], dsn: str) -> None:
    text = "def test_a(db): db.execute('select 1')\ndef test_b(db, api): pass\ndef test_c(view): pass"
    found = files(text, "-m", "queries", dsn=dsn)
    assert [each.test for each in found] == ["test_a"]


def test_files_that_have_packages_of_their_own_run_beside_the_others_by_nox(
    target: Callable[..., Target], tmp_path: Path
) -> None:
    """The repo's noxfile makes the environment; where there is none, it is said of this file alone."""
    (tmp_path / "test_own.py").write_text(f"# /// script\n# dependencies = []\n# ///\n{LOOKS}")
    (tmp_path / "test_plain.py").write_text(LOOKS)
    found = runner.run(target(), [tmp_path / "test_own.py", tmp_path / "test_plain.py"], tmp_path / "kept")
    assert {each.file: each.outcome for each in found} == {"test_own": INCONCLUSIVE, "test_plain": PASSED}
    assert "noxfile" in next(each.message for each in found if each.file == "test_own")


def test_only_smokes_have_packages_of_their_own(target: Callable[..., Target], tmp_path: Path) -> None:
    """Nox was asked for a smoke of that name: there was none, or its packages were another test's."""
    (tmp_path / "acceptance").mkdir()
    file = tmp_path / "acceptance" / "test_own.py"
    file.write_text(f"# /// script\n# dependencies = []\n# ///\n{LOOKS}")
    (result,) = runner.run(target(), [file], tmp_path / "kept")
    assert result.outcome == INCONCLUSIVE
    assert result.message.startswith("test_own.py names packages (PEP 723), which only a smoke can have of its own.")


@pytest.mark.parametrize("left", ["", "<?xml version='1.0'?><testsuites><testsuite name='py"])
def test_a_report_that_was_cut_short_is_inconclusive(
    files: Callable[..., list[Result]], tmp_path: Path, left: str
) -> None:
    """On a full disk it was a traceback, and "a mistake in the release layer"."""
    report = tmp_path / "kept" / "test_own.xml"
    cut = f"import atexit, pathlib\natexit.register(pathlib.Path({str(report)!r}).write_text, {left!r})\n{LOOKS}"
    (result,) = files(cut)
    assert result.outcome == INCONCLUSIVE and "No test of test_own.py ran, or not all" in result.message


def test_the_time_of_all_tests_has_their_waits_in_it(
    files: Callable[..., list[Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an `acceptance.wait` of an hour, pytest was ended after thirty minutes."""
    limits, run = list[float](), runner.process.run
    monkeypatch.setattr(runner.process, "run", lambda *a, timeout, **b: (limits.append(timeout), run(*a, **b))[1])
    waits = "import pytest\n@pytest.mark.wait(100)\n"
    files(LOOKS)
    files(LOOKS, watch=60.0)
    files(LOOKS, settled_by=time.time() + 3600)
    files(waits + LOOKS)
    assert [round(each - runner.LIMIT, -1) for each in limits] == [0, 1200, 3600, 100]


def test_a_failure_is_named_with_its_line_whatever_is_parsed_meanwhile(files: Callable[..., list[Result]]) -> None:
    (result,) = files(FAILS + LONG)
    assert (result.test, result.outcome) == ("test_fails", FAILED) and "assert 3 == 4" in result.message
    assert re.search(r"\(test_own\.py:\d+\)$", result.message)


DROPS = "import psycopg\ndef test_a(target, record_property):\n    record_property('x', 1)\n"
DROPS += "    with psycopg.connect(target.dsn) as connection: connection.execute({statement!r})\n"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("drop view app.latest", "view app.latest is missing"),
        ("create view app.more as select 2 as two", "view app.more is new"),
        ("create or replace view app.latest as select 2 as one", "view app.latest is changed"),
        ("alter table app.things add more text", "table app.things is changed"),
        ("create or replace function app.f() returns int language sql as 'select 2'", "function app.f() is changed"),
        ("create or replace view app.latest as select 1 as one", ""),
    ],
)
def test_what_a_smoke_takes_away_from_the_next_is_said_of_that_smoke(
    target: Callable[..., Target], dsn: str, tmp_path: Path, statement: str, said: str
) -> None:
    """C7."""
    with psycopg.connect(dsn) as connection:
        connection.execute("create schema app; create view app.latest as select 1 as one; create table app.things ()")
        connection.execute("create function app.f() returns int language sql as 'select 1'")
    (tmp_path / "smokes").mkdir()
    (tmp_path / "smokes" / "test_a.py").write_text(DROPS.format(statement=statement))
    (tmp_path / "smokes" / "test_b.py").write_text(LOOKS)
    results = runner.run(target(dsn=dsn), sorted((tmp_path / "smokes").glob("*.py")), tmp_path / "kept")
    failed = [each for each in results if not each.is_pass]
    assert [each.file for each in failed] == ["test_a"] * bool(said)
    if said:
        assert f"While test_a.py ran, the database changed: {said}" in failed[0].message
        (tmp_path / "smokes" / "test_a.py").write_text("import pytest\npytestmark = pytest.mark.changes('a')\n" + LOOKS)
        results = runner.run(replace(target(dsn=dsn)), [tmp_path / "smokes" / "test_a.py"], tmp_path / "kept")
        assert [each.outcome for each in results] == [PASSED]


def test_what_a_smoke_may_change_is_not_said_of_the_next(
    target: Callable[..., Target], dsn: str, tmp_path: Path
) -> None:
    (tmp_path / "smokes").mkdir()
    changes = (
        f"import pytest\npytestmark = pytest.mark.changes('a')\n{DROPS.format(statement='create view two as select 2')}"
    )
    for name, text in {"a": LOOKS, "b": changes, "c": LOOKS}.items():
        (tmp_path / "smokes" / f"test_{name}.py").write_text(text)
    results = runner.run(target(dsn=dsn), sorted((tmp_path / "smokes").glob("*.py")), tmp_path / "kept")
    assert [each.outcome for each in results] == [PASSED] * 3, results


def test_a_file_that_needs_no_browser_and_no_web_app_loads_neither(files: Callable[..., list[Result]]) -> None:
    text = "import sys\ndef test_a(record_property):\n    record_property('x', 1)\n"
    text += "    assert not [name for name in sys.modules if 'wright' in name or name == 'requests']"
    (result,) = files(text)
    assert result.outcome == PASSED, result


def test_a_browser_is_there_for_a_fixture_of_a_helper(files: Callable[..., list[Result]], tmp_path: Path) -> None:
    helper = "import pytest\n\n@pytest.fixture\ndef title(page):\n    page.set_content('<title>well</title>')\n"
    (tmp_path / "helper.py").write_text(f"{helper}    return page.title()\n")
    text = "import pathlib, sys\nsys.path.append(str(pathlib.Path(__file__).parent))\nfrom helper import title\n"
    (result,) = files(f"{text}def test_a(title, record_property): record_property('title', title)\n")
    assert (result.outcome, result.observed) == (PASSED, ("well",)), result
