"""Smokes: files in smokes/, run on an environment, all or one by its name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from release_tasks import command_line, outcome, screen, suites
from release_tasks.checks import runner
from release_tasks.environments import Environment
from release_tasks.errors import Refused
from release_tasks.outcome import FAILED, INCONCLUSIVE, PASSED, WAIVED, Result
from release_tasks.settings import Settings

PASSES = "def test_a(db):\n    assert db.execute('select 1').fetchone()\n"
FAILS = "def test_a(db):\n    assert db.execute('select 1').fetchone() == (2,)\n"


@pytest.fixture
def here(dsn: str, tmp_path: Path) -> Callable[..., Environment]:
    """Return what makes a dev whose repo has these smokes (name → text)."""

    def here(**named: str) -> Environment:
        (tmp_path / "smokes").mkdir(exist_ok=True)
        for name, text in named.items():
            (tmp_path / "smokes" / f"test_{name}.py").write_text(text)
        return Environment("dev", Settings(), tmp_path, dsn, "http://127.0.0.1:9", tmp_path, None)

    return here


def ran(environment: Environment, only: str | None = None) -> dict[str, str]:
    target = runner.target_of(environment, "0.1.1")
    results = runner.run(target, suites.smokes_of(environment.root, only), environment.root / "kept")
    return {each.file: each.outcome for each in results}


def test_all_smokes_run_or_the_one_that_is_named(here: Callable[..., Environment]) -> None:
    environment = here(a=PASSES, b=FAILS)
    assert ran(environment) == {"test_a": PASSED, "test_b": FAILED}
    assert ran(environment, "b") == {"test_b": FAILED}


def test_a_smoke_that_is_not_there_is_known_before_dev_is_touched(
    here: Callable[..., Environment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dev had been installed, and got its DDL pack, before the name was refused."""
    opened = list[str]()
    monkeypatch.setattr(suites, "project_root", lambda _: here(a=PASSES).root)
    monkeypatch.setattr(suites, "environment_of", lambda _, where, **__: opened.append(where))
    with pytest.raises(Refused, match="There is no smoke 'b'; expected one of a"):
        suites.report_smokes(None, "dev", "b", as_json=False)
    assert opened == []


def test_no_smoke_is_no_pass(here: Callable[..., Environment]) -> None:
    with pytest.raises(Refused, match="There is no test"):
        ran(here())
    with pytest.raises(Refused, match="There is no smoke 'c'; expected one of a"):
        ran(here(a=PASSES), "c")


def test_a_database_that_is_not_there_makes_smokes_inconclusive(here: Callable[..., Environment]) -> None:
    environment = here(a=PASSES)
    environment.dsn = "postgresql://127.0.0.1:1/x"
    assert ran(environment) == {"test_a": INCONCLUSIVE}


def test_each_result_that_is_no_pass_is_one_problem_with_the_command_that_repeats_it() -> None:
    passed = Result("idhr: a", PASSED)
    failed = Result("sampling: buckets", FAILED, "It ended with exit code 1.")
    unclear = Result("ui: views", INCONCLUSIVE, "There is no browser.", "apt-get install chromium")
    first, second = outcome.problems_of([passed, failed, unclear], "Smoke", "on dev", "inv smokes --env dev")
    assert first.what == "Smoke sampling: buckets: failed on dev. It ended with exit code 1."
    assert first.hint == "inv smokes --env dev"
    assert second.what == "Smoke ui: views: inconclusive on dev. There is no browser."
    assert second.hint == "apt-get install chromium"


def test_what_breaks_several_checks_alike_is_said_once() -> None:
    results = [Result(name, INCONCLUSIVE, "There is no browser.") for name in ("/", "/coins")]
    (problem,) = outcome.problems_of(results, "Condition", "on staging", "inv accept --env staging")
    assert problem.what == "Condition /, /coins: inconclusive on staging. There is no browser."
    assert problem.hint == "inv accept --env staging"


def test_a_hint_that_several_have_is_given_once_at_the_last_of_them() -> None:
    results = [Result(name, FAILED, f"It is red, as {name} is.") for name in ("a", "b")]
    results.insert(1, Result("ui", INCONCLUSIVE, "There is no browser.", "apt-get install chromium"))
    found = outcome.problems_of(results, "Smoke", "on dev", "inv smokes --env dev")
    assert [each.hint for each in found] == ["", "apt-get install chromium", "inv smokes --env dev"]


def test_the_title_counts_waivers_apart_and_the_hint_is_what_was_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/inv", "smokes", "--only", "a", "--", "-k", "x or y"])
    results = [Result("a", PASSED), Result("b", WAIVED, "the law"), Result("c", FAILED)]
    screen.report("Smokes on dev", results[:2], False, "Smoke", "on dev")
    assert "Smokes on dev: 1 of 2 pass, 1 waived" in capsys.readouterr().out
    with pytest.raises(Refused) as no:
        screen.report("Smokes on dev", [results[0], results[2]], False, "Smoke", "on dev")
    assert no.value.problems[0].hint == "inv smokes --only a -- -k 'x or y'"
    assert "Smokes on dev: 1 of 2 pass\n" in capsys.readouterr().out


def test_only_smokes_that_are_marked_run_on_a_restored_copy_and_know_it(
    here: Callable[..., Environment], dsn: str
) -> None:
    marked = "import pytest\n@pytest.mark.on_backup\ndef test_a(db, target):\n    assert target.is_backup\n"
    marked += "    db.execute('select 1')\n\ndef test_b(db):\n    assert False\n"
    environment = here(a=marked, b=FAILS)
    assert suites.pass_smokes_on_copy(environment, "0.1.0", dsn).startswith("smokes: a: a ")
    assert suites.pass_smokes_on_copy(here(a=PASSES), "0.1.0", dsn) == "no smoke is marked on_backup"


def test_what_stands_after_the_dashes_is_kept_word_by_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["inv", "smokes", "--only", "a", "--", "-k", "a or b", "--pdb"])
    assert command_line.words_after_dashes() == ["-k", "a or b", "--pdb"]
    monkeypatch.setattr(sys, "argv", ["inv", "smokes"])
    assert command_line.words_after_dashes() == []
