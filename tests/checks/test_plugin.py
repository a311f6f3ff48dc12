"""The gate: what pytest calls passed may be no pass, and what became of each test is known afterwards."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.processes.test_shell import alive, until

from release_tasks import asking
from release_tasks.checks.place import TOLD, Asked, Place
from release_tasks.checks.verdict import FAIL, PASS, UNKNOWN, Result
from release_tasks.kinds import Command
from tests.test_conftest import FAILS, LONG

TEAM = '''"""What the team wants to know."""
import subprocess, sys, time, pathlib
import pytest

calls = []

@pytest.fixture(autouse=True)
def looks(seen, request):
    seen["looked"] = request.node.name != "test_looks_at_nothing"
    if not seen["looked"]:
        seen.clear()

def test_passes(release):
    """The release is known."""
    assert (release.version, release.name) == ("0.1.1", "staging")

def test_looks_at_nothing(release):
    assert release.version

def test_fails(seen):
    seen["value"] = 3
    assert 3 == 4

def test_is_skipped():
    pytest.skip("not today")

def test_skips_with_a_word_more():
    pytest.importorskip("no_such_module")

@pytest.mark.xfail
def test_fails_as_expected():
    assert False

@pytest.mark.xfail
def test_passes_unexpectedly():
    pass

def test_asks_for_a_fixture_that_is_none(data_base):
    pass

def test_breaks():
    raise KeyError("BTC")

@pytest.fixture
def untidy():
    yield
    raise OSError("cannot tidy up")

def test_leaves_a_mess(untidy):
    pass

def test_fails_and_leaves_a_mess(untidy):
    assert False, "the first reason"

@pytest.mark.wait(60, interval=0.02)
def test_comes_about(seen):
    calls.append(1)
    seen["calls"] = len(calls)
    assert len(calls) == 4

@pytest.mark.wait(0.1, interval=0.02)
def test_never_comes_about():
    assert False, "still not"

@pytest.mark.timeout(0)
def test_says_it_has_no_limit(request):
    assert request.node.get_closest_marker("timeout").args[0] == 60

@pytest.mark.timeout(3)
def test_hangs():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pathlib.Path("child").write_text(str(child.pid))
    child.wait()

@pytest.mark.parametrize("coin", ["BTC", "ETH"])
def test_each(coin):
    assert coin == "BTC"
'''

BECAME = {
    "own/test_passes": (PASS, ""),
    "own/test_looks_at_nothing": (UNKNOWN, "It looked at nothing"),
    "own/test_says_it_has_no_limit": (PASS, ""),
    "own/test_fails": (FAIL, "assert 3 == 4 (test_own.py, line 22)"),
    "own/test_is_skipped": (UNKNOWN, "It was skipped: not today."),
    "own/test_skips_with_a_word_more": (UNKNOWN, "It was skipped: could not import 'no_such_module'"),
    "own/test_fails_as_expected": (UNKNOWN, "marked xfail"),
    "own/test_passes_unexpectedly": (UNKNOWN, "marked xfail"),
    "own/test_asks_for_a_fixture_that_is_none": (UNKNOWN, "fixture 'data_base' not found"),
    "own/test_breaks": (UNKNOWN, "KeyError: 'BTC'"),
    "own/test_leaves_a_mess": (UNKNOWN, "OSError: cannot tidy up"),
    "own/test_fails_and_leaves_a_mess": (FAIL, "the first reason"),
    "own/test_comes_about": (PASS, ""),
    "own/test_never_comes_about": (FAIL, "still not"),
    "own/test_hangs": (FAIL, "Timeout (>3.0s)"),
    "own/test_each[BTC]": (PASS, ""),
    "own/test_each[ETH]": (FAIL, "assert 'ETH' == 'BTC'"),
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, dict[str, Result]]:
    """A run of the team's tests and of two commands: its place, and name → result."""
    root = tmp_path_factory.mktemp("team")
    (root / "smokes").mkdir()
    file = root / "smokes" / "test_own.py"
    file.write_text(TEAM)
    here = str(root)
    checks = [
        Asked("good", "7.1", "Good", Command(command=[sys.executable, "-c", "print('PASS')"], must_print="PASS")),
        Asked("silent", "7.1", "Silent", Command(command=[sys.executable, "-c", ""], must_print="PASS")),
    ]
    place = Place("staging", "app", "0.1.1", "", "http://here", here, here, here, f"{here}/kept", asked=tuple(checks))
    return place, {result.name: result for result in asking.ask(place, [file], "7.1")}


@pytest.mark.parametrize("name", BECAME)
def test_a_verdict_is_never_kinder_than_what_happened(asked: tuple[Place, dict[str, Result]], name: str) -> None:
    verdict, said = BECAME[name]
    result = asked[1][name]
    assert result.verdict == verdict and said in " ".join(result.said), result


def test_every_test_and_every_check_has_one_result(asked: tuple[Place, dict[str, Result]]) -> None:
    assert set(asked[1]) == {*BECAME, "good", "silent"}
    assert asked[1]["good"].verdict == PASS and asked[1]["silent"].verdict == FAIL
    assert {result.section for result in asked[1].values()} == {"7.1"}


def test_a_result_carries_what_was_seen_and_what_it_is_about(asked: tuple[Place, dict[str, Result]]) -> None:
    results = asked[1]
    assert results["own/test_fails"].seen == {"looked": True, "value": 3}
    assert results["own/test_passes"].bullet == "The release is known"
    assert results["own/test_fails"].bullet == "What the team wants to know"
    assert results["own/test_comes_about"].attempts == 4
    assert results["good"].seen["code"] == 0 and results["good"].bullet == "Good"


def test_the_children_of_a_test_that_hangs_end_with_it(asked: tuple[Place, dict[str, Result]]) -> None:
    child = int((Path(asked[0].root) / "child").read_text())
    assert until(lambda: not alive(child))


def test_junit_tells_the_same(asked: tuple[Place, dict[str, Result]]) -> None:
    text = (Path(asked[0].kept) / "junit-own.xml").read_text()
    assert 'tests="' in text and '<property name="value" value="3"' in text and "assert 3 == 4" in text


LOOKS = "def test_a(seen): seen['looked'] = True"


@pytest.fixture
def files(tmp_path: Path, place: Callable[..., Place]) -> Callable[..., list[Result]]:
    """Return what asks one file with this text, and pytest's options."""

    def files(text: str, words: str = "", **facts: object) -> list[Result]:
        file = tmp_path / "smokes" / "test_own.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        return asking.ask(place(**facts), [file], "7.1", words)

    return files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "No test of test_own.py was run: pytest ended with exit code 1"),
        ("import pytest\npytest.skip('all of it', allow_module_level=True)\ndef test_a(): pass", "all of it"),
        ("def test_a(:\n", "SyntaxError"),
        ("import no_such_module\ndef test_a(): pass", "No module named 'no_such_module'"),
        ("import os\ndef test_a(): os._exit(0)", "No test of test_own.py was run: pytest ended with exit code 0"),
        ("import pytest\ndef test_a(): pytest.exit('enough', 0)", "It was not asked"),
        ("import pytest\n@pytest.mark.wait('x')\ndef test_a(): pass", "The marker wait needs seconds, as in"),
        ("import pytest\n@pytest.mark.wait\ndef test_a(): pass", "The marker wait needs seconds, as in"),
        ("def test_a(): pass", "It looked at nothing"),
        ("def test_a(seen):\n    seen['x'] = 1\n    assert (seen == {}, 'always so')", "assertion is always true"),
        ("class TestA:\n    def __init__(self): pass\n    def test_a(self): pass", "cannot collect test class"),
    ],
    ids=[
        "empty",
        "skips itself",
        "no Python",
        "misses a module",
        "leaves",
        "says enough",
        "waits for x",
        "waits",
        "looks nowhere",
        "asserts a tuple",
        "is not collected",
    ],
)
def test_a_file_that_tests_nothing_is_unknown(files: Callable[..., list[Result]], text: str, said: str) -> None:
    results = files(text)
    assert results and {each.verdict for each in results} == {UNKNOWN}
    assert said in " ".join(" ".join(each.said) for each in results), results


@pytest.mark.parametrize(
    "hook",
    [
        "def pytest_collection_modifyitems(config, items):\n"
        "    config.hook.pytest_deselected(items=items[1:])\n    del items[1:]",
        "def pytest_collection_modifyitems(items): del items[1:]",
    ],
    ids=["says so", "in silence"],
)
def test_a_test_that_a_conftest_takes_out_is_unknown(
    files: Callable[..., list[Result]], tmp_path: Path, hook: str
) -> None:
    (tmp_path / "smokes").mkdir()
    (tmp_path / "smokes" / "conftest.py").write_text(hook)
    found = {each.name: each for each in files(f"{LOOKS}\ndef test_b(): assert False")}
    assert (found["own/test_a"].verdict, found["own/test_b"].verdict) == (PASS, UNKNOWN)
    assert found["own/test_b"].said == ("It was not asked: a conftest.py or a plugin took it out.",)


def test_what_a_person_does_not_choose_is_not_asked_and_no_secret_is_printed(
    files: Callable[..., list[Result]], capfd: pytest.CaptureFixture[str]
) -> None:
    text = f"{LOOKS}\ndef test_b(seen): pass\ndef test_c(): raise OSError('hunter2-hunter2')"
    found = files(text, "-k 'test_a or test_c'", variables={"PGPASSWORD": "hunter2-hunter2"})
    assert [(each.name, each.verdict) for each in found] == [("own/test_a", PASS), ("own/test_c", UNKNOWN)]
    printed = capfd.readouterr().out
    assert "OSError: ***" in printed and "hunter2" not in printed


def test_what_was_decided_before_pytest_died_stays_so(files: Callable[..., list[Result]]) -> None:
    decided, rest = files(f"{LOOKS}\ndef test_b():\n    import os\n    os._exit(0)")
    assert (decided.name, decided.verdict) == ("own/test_a", PASS)
    assert (rest.name, rest.verdict) == ("own", UNKNOWN)
    assert rest.said[0].startswith("Not all tests of test_own.py were run: pytest ended with exit code 0")


def test_a_result_costs_a_line_however_many_there_are(files: Callable[..., list[Result]]) -> None:
    text = """
import pathlib, pytest
@pytest.mark.parametrize("before", range(5))
def test_a(request, seen, before):
    out = pathlib.Path(request.config.getoption("--results"))
    seen["lines"] = len(out.read_text().splitlines()) if before else 0
    assert seen["lines"] == before
"""
    assert [each.verdict for each in files(text)] == [PASS] * 5


def test_a_check_whose_pytest_dies_is_unknown(place: Callable[..., Place]) -> None:
    check = Command(command=[sys.executable, "-c", "print('PASS')"], must_print="PASS")
    here = place(asked=(Asked("good", "2", "Good", check),), origin="http://x")
    broken = here.__class__(**{**vars(here), "name": "dev", "code": here.root + "/none"})
    with pytest.raises(Exception, match="There is no folder"):
        asking.ask(broken)


def test_no_variable_of_the_shell_changes_what_is_asked(
    files: Callable[..., list[Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k nothing --collect-only")
    assert [each.verdict for each in files(LOOKS)] == [PASS]


def test_options_of_a_person_that_choose_no_test_are_unknown(files: Callable[..., list[Result]]) -> None:
    for words in ("-k nothing", "--no-such-option", "--version"):
        (result,) = files(LOOKS, words)
        assert result.verdict == UNKNOWN and f"No test of test_own.py was run: pytest {words} ended" in result.said[0]


def test_a_file_that_ends_its_process_takes_no_other_with_it(place: Callable[..., Place], tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(LOOKS)
    (tmp_path / "test_leaves.py").write_text("import os\nos._exit(0)")
    check = Command(command=[sys.executable, "-c", "print('PASS')"], must_print="PASS")
    here = place(asked=(Asked("good", "2", "Good", check),))
    found = asking.ask(here, [tmp_path / "test_leaves.py", tmp_path / "test_own.py"])
    assert {each.name: each.verdict for each in found} == {"good": PASS, "leaves": UNKNOWN, "own/test_a": PASS}


def test_a_file_of_the_team_may_be_called_as_ours_is(place: Callable[..., Place], tmp_path: Path) -> None:
    (tmp_path / "test_kinds.py").write_text(
        "import pytest\n@pytest.mark.parametrize('answer', [1])\ndef test_command(answer, seen): seen['x'] = answer"
    )
    check = Command(command=[sys.executable, "-c", "print('PASS')"], must_print="PASS")
    found = asking.ask(place(asked=(Asked("good", "2", "Good", check),)), [tmp_path / "test_kinds.py"])
    assert {each.name: each.verdict for each in found} == {"good": PASS, "kinds/test_command[1]": PASS}


def test_the_layer_in_the_deployed_tree_does_not_judge(files: Callable[..., list[Result]], tmp_path: Path) -> None:
    (tmp_path / "release_tasks").mkdir()
    (tmp_path / "release_tasks" / "__init__.py").write_text("raise SystemExit('an older layer')")
    (tmp_path / "pytest.py").write_text("raise SystemExit('no pytest')")
    assert [each.verdict for each in files(LOOKS)] == [PASS]


def test_secrets_are_in_no_result(files: Callable[..., list[Result]], tmp_path: Path) -> None:
    text = "def test_a(release, seen):\n    seen['dsn'] = release.dsn\n    assert release.dsn == 'x'"
    text += "\n\ndef test_b(release):\n    assert release is None\n\ndef test_c(release):\n    assert not release.dsn"
    results = files(
        text, dsn="postgresql://rita:hunter2-hunter2@nowhere/app", variables={"PGPASSWORD": "hunter2-hunter2"}
    )
    assert "hunter2" not in repr(results)
    assert "hunter2" not in "".join(path.read_text() for path in tmp_path.rglob("*.xml"))


def test_a_hang_of_a_look_is_ended_and_told(place: Callable[..., Place], tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    )
    code += "\nopen('child', 'w').write(str(child.pid))\nprint('PASS', flush=True)\ntime.sleep(600)"
    check = Command(command=[sys.executable, "-c", code], must_print="PASS", timeout=10)
    (result,) = asking.ask(place(asked=(Asked("hangs", "2", "Hangs", check),)))
    assert result.verdict == FAIL and "did not end within 10 s" in result.said[0]
    assert until(lambda: not alive(int((tmp_path / "child").read_text())))


def test_the_place_is_told_in_a_file_for_its_owner_alone(place: Callable[..., Place], tmp_path: Path) -> None:
    place(dsn="postgresql://rita:hunter2@nowhere/app").write(tmp_path / "place.json")
    assert (tmp_path / "place.json").stat().st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / "place.json").read_text())["name"] == "staging"


def test_the_place_is_told_once(place: Callable[..., Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(dsn="dbname=app").write(tmp_path / "place.json")
    monkeypatch.setenv(TOLD, str(tmp_path / "place.json"))
    assert Place.told().name == "staging"
    assert not (tmp_path / "place.json").exists()


def test_a_failure_is_named_whatever_is_parsed_meanwhile(place: Callable[..., Place], tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(FAILS + LONG)
    (result,) = asking.ask(place(), [tmp_path / "test_own.py"])
    assert (result.name, result.verdict) == ("own/test_fails", FAIL) and "assert 3 == 4" in result.words
