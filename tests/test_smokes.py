"""Smokes asked outside of pytest's own process: what is chosen, what they may change, and what a person is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from release_tasks import asking, smokes
from release_tasks.asking import problems_in
from release_tasks.checks.looking import GRACE, limits_of
from release_tasks.checks.place import Asked
from release_tasks.checks.verdict import FAIL, PASS, UNKNOWN, Result
from release_tasks.environments import Environment
from release_tasks.errors import Refused
from release_tasks.kinds import Command, Page, Version
from release_tasks.settings import Settings

PASSES = "import psycopg, os\npsycopg.connect(os.environ['DATABASE_URL']).execute('select 1')\nprint('PASS')"
DROPS = """
import os, psycopg
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute("drop view if exists app.latest")
print("PASS")
"""


def python(code: str, **more: Any) -> dict[str, Any]:
    return {"command": [sys.executable, "-c", code], "must_print": "(?m)^PASS", **more}


@pytest.fixture
def here(dsn: str, tmp_path: Path) -> Callable[..., Environment]:
    """Return what makes an environment with these smokes, whose database has a view."""
    with psycopg.connect(dsn) as connection:
        connection.execute("create schema app; create view app.latest as select 1 as one")

    def here(**named: Any) -> Environment:
        settings = Settings.model_validate({"smokes": named})
        return Environment("dev", settings, tmp_path, dsn, "http://127.0.0.1:9", tmp_path, None)

    return here


def asked(environment: Environment, only: str | None = None) -> dict[str, Result]:
    place = asking.place_of(environment, "0.1.1", environment.root / "kept")
    return {result.name: result for result in smokes.ask_all(environment, place, "2", only)}


def test_all_smokes_are_asked_or_the_one_that_is_named(here: Callable[..., Environment]) -> None:
    environment = here(a=python(PASSES, why="All of a"), b=python("print('nothing')"))
    found = asked(environment)
    assert {name: result.verdict for name, result in found.items()} == {"a": PASS, "b": FAIL}
    assert (found["a"].bullet, found["b"].bullet, found["a"].section) == ("All of a", "b", "2")
    assert list(asked(environment, "b")) == ["b"]


def test_no_smoke_is_no_pass(here: Callable[..., Environment]) -> None:
    with pytest.raises(Refused, match="No smokes are set"):
        asked(here())
    with pytest.raises(Refused, match="There is no smoke 'c'; expected one of a"):
        asked(here(a=python(PASSES)), "c")


def test_one_name_is_one_smoke(here: Callable[..., Environment], tmp_path: Path) -> None:
    (tmp_path / "smokes").mkdir()
    (tmp_path / "smokes" / "test_a.py").touch()
    with pytest.raises(Refused, match=r"The smoke a stands in invoke.yaml and in test_a.py"):
        asked(here(a=python(PASSES)))


@pytest.mark.parametrize("path", ["coins_test.py", "prices/test_coins.py", "prices/usd/coins_test.py", "Test-Coins.py"])
def test_a_test_that_nobody_would_ask_is_no_silent_pass(
    here: Callable[..., Environment], tmp_path: Path, path: str
) -> None:
    stray = tmp_path / "smokes" / path
    stray.parent.mkdir(parents=True)
    stray.touch()
    with pytest.raises(Refused, match=f"Nobody would ask smokes/{path}") as refused:
        asked(here(a=python(PASSES)))
    assert refused.value.problems[0].mend == f"git mv smokes/{path} smokes/test_coins.py"


def test_a_log_is_read_after_the_smokes_that_may_have_written_to_it(here: Callable[..., Environment]) -> None:
    environment = here(a={"kind": "log"}, b=python(PASSES))
    place = asking.place_of(environment, "0.1.1", Path("kept"))
    turns = {each.name: each.turn for each in smokes.asked_of(environment.settings.smokes, place, "2")}
    assert turns["a"] > turns["b"]


def test_what_a_smoke_takes_away_from_the_next_is_seen(here: Callable[..., Environment]) -> None:
    found = asked(here(a=python(PASSES), b=python(DROPS)))
    assert found["b"].verdict == PASS and found["unchanged"].verdict == FAIL
    assert "view app.latest" in found["unchanged"].said[0]


def test_a_smoke_that_may_change_something_says_why_and_goes_first(here: Callable[..., Environment]) -> None:
    found = asked(here(a=python(PASSES), b=python(DROPS, changes="it builds its views anew")))
    assert {name: result.verdict for name, result in found.items()} == {"a": PASS, "b": PASS}


def test_a_database_that_is_not_there_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    settings = Settings.model_validate({"smokes": {"a": python(PASSES)}})
    gone = Environment("dev", settings, tmp_path, "postgresql://127.0.0.1:1/x", "http://x", tmp_path, None)
    with pytest.raises(Refused, match="database of dev cannot be used"):
        asked(gone)


def test_a_person_hands_options_to_pytest(
    here: Callable[..., Environment], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "smokes").mkdir()
    (tmp_path / "smokes" / "test_own.py").write_text("def test_a(seen): seen['x'] = 1\ndef test_b(): assert False\n")
    environment = here(a=python(PASSES))
    place = asking.place_of(environment, "0.1.1", tmp_path / "kept")
    found = smokes.ask_all(environment, place, "2", "own", "-k 'not test_b' -v")
    assert [(each.name, each.verdict) for each in found] == [("own/test_a", PASS)]
    assert "1 passed, 1 deselected" in capfd.readouterr().out


def test_each_result_that_is_no_pass_is_one_problem_with_the_command_that_repeats_it() -> None:
    passed = Result("idhr", "command", "2", "IDHR", PASS)
    failed = Result("sampling", "command", "2", "Sampling", FAIL, ("It ended with exit code 1.",), attempts=3)
    unknown = Result("views", "page", "2", "Views", UNKNOWN, ("There is no browser.",), "apt-get install chromium")
    first, second = problems_in([passed, failed, unknown], "dev", "smoke", "inv smokes --env dev --only {name}")
    assert first.what == "The smoke sampling fails on dev (asked 3 times): It ended with exit code 1."
    assert first.mend == "inv smokes --env dev --only sampling"
    assert second.what == "The smoke views is unknown on dev: There is no browser."
    assert second.mend == "apt-get install chromium"


def test_what_breaks_several_checks_alike_is_told_once() -> None:
    results = [Result(name, "page", "7.2", "UI", UNKNOWN, ("There is no browser.",)) for name in ("/", "/coins")]
    (told,) = problems_in(results, "staging", "check", "inv accept --env staging")
    assert told.what == "The checks /, /coins are unknown on staging: There is no browser."


def test_a_run_gets_the_time_that_its_turns_need() -> None:
    def of(turn: int, timeout: float, wait: float = 0.0) -> Asked:
        return Asked("x", "2", "x", Version(timeout=timeout), wait, turn)

    assert limits_of([of(0, 10), of(1, 20), of(1, 30, 60), of(2, 5)]) == {0: 10, 1: 10 + 90, 2: 10 + 90 + 5}
    assert limits_of([of(1, 20)] * 17) == {1: 2 * 20 + GRACE}
    pages = [Asked(str(number), "7.2", "UI", Page(path="/", timeout=20, dark=True), 30) for number in range(13)]
    assert limits_of(pages) == {1: 30 + 7 * 20 + 6 * GRACE}  # 26 views, four at once


def test_results_and_checks_survive_the_way_to_the_other_process(here: Callable[..., Environment]) -> None:
    page = Page(path=["/a"], viewports=[(1, 2)], cookies={"session": "hunter2-hunter2"})
    place = asking.place_of(here(), "0.1.1", Path("kept"), asked=(Asked("x", "7.2", "b", page, 3.0, 2),))
    path = Path(place.root) / "place.json"
    place.write(path)
    told = json.loads(path.read_text())["asked"][0]
    assert (told["check"]["kind"], told["wait"], told["turn"]) == ("page", 3.0, 2)
    assert Page.model_validate(told["check"]) == page


def test_a_command_gets_its_own_variables(here: Callable[..., Environment]) -> None:
    code = "import os; print('PASS', os.environ['APP_VERSION'], os.environ['LIMIT'])"
    found = asked(here(a=python(code, env={"LIMIT": "64"})))
    assert found["a"].seen["in_words"] == "PASS 0.1.1 64"
    smoke = Command(**python(code, env={"LIMIT": "64"}, on_backup={"LIMIT": "8"}))
    place = asking.place_of(here(), "0.1.1", Path("kept"))
    (each,) = smokes.asked_of({"a": smoke}, place, "8", on_backup=True)
    assert each.variables == {"LIMIT": "8"}
