"""Smokes: files in smokes/, run on an environment, all or one by its name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from release_tasks import smokes
from release_tasks.checks import runner
from release_tasks.checks.runner import FAILED, INCONCLUSIVE, PASSED, Result
from release_tasks.checks.target import VARIABLE
from release_tasks.environments import Environment
from release_tasks.errors import Refused
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
    results = runner.run(target, smokes.files_of(environment.root, only), environment.root / "kept")
    return {each.file: each.outcome for each in results}


def test_all_smokes_run_or_the_one_that_is_named(here: Callable[..., Environment]) -> None:
    environment = here(a=PASSES, b=FAILS)
    assert ran(environment) == {"test_a": PASSED, "test_b": FAILED}
    assert ran(environment, "b") == {"test_b": FAILED}


def test_no_smoke_is_no_pass(here: Callable[..., Environment]) -> None:
    with pytest.raises(Refused, match="There are no smokes"):
        ran(here())
    with pytest.raises(Refused, match="There is no smoke 'c'; expected one of a"):
        ran(here(a=PASSES), "c")


def test_a_database_that_is_not_there_makes_smokes_inconclusive(here: Callable[..., Environment]) -> None:
    environment = here(a=PASSES)
    environment.dsn = "postgresql://127.0.0.1:1/x"
    assert ran(environment) == {"test_a": INCONCLUSIVE}


def test_each_result_that_is_no_pass_is_one_problem_with_the_command_that_repeats_it() -> None:
    passed = Result("test_a", PASSED, file="test_idhr")
    failed = Result("test_buckets", FAILED, "It ended with exit code 1.", file="test_sampling")
    unclear = Result("test_views", INCONCLUSIVE, "There is no browser.", "apt-get install chromium", file="test_ui")
    first, second = smokes.problems_of([passed, failed, unclear], "dev")
    assert first.what == "The smoke sampling: buckets fails on dev: It ended with exit code 1."
    assert first.mend == "inv smokes --env dev"
    assert second.what == "The smoke ui: views is inconclusive on dev: There is no browser."
    assert second.mend == "apt-get install chromium"


def test_what_breaks_several_checks_alike_is_told_once() -> None:
    results = [Result(name, INCONCLUSIVE, "There is no browser.") for name in ("/", "/coins")]
    (told,) = runner.problems_of(results, "staging", "condition", "inv accept --env staging")
    assert told.what == "The conditions /, /coins are inconclusive on staging: There is no browser."


def test_only_smokes_that_are_marked_run_on_a_restored_copy_and_know_it(
    here: Callable[..., Environment], dsn: str
) -> None:
    marked = "import pytest\n@pytest.mark.on_backup\ndef test_a(db, target):\n    assert target.is_backup\n"
    marked += "    db.execute('select 1')\n\ndef test_b(db):\n    assert False\n"
    environment = here(a=marked, b=FAILS)
    assert smokes.pass_on_copy(environment, "0.1.0", dsn) == "smokes: a"
    assert smokes.pass_on_copy(here(a=PASSES), "0.1.0", dsn) == "no smoke is marked on_backup"


def test_the_environment_is_named_in_the_options_and_the_rest_is_pytests() -> None:
    assert smokes.words(["--env", "staging", "-k", "BTC"]) == ("staging", ["-k", "BTC"])
    assert smokes.words(["--pdb"]) == ("dev", ["--pdb"])


def test_what_stands_after_the_dashes_is_kept_word_by_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["inv", "smokes", "--only", "a", "--", "-k", "a or b", "--pdb"])
    assert smokes.words_after_dashes() == ["-k", "a or b", "--pdb"]
    monkeypatch.setattr(sys, "argv", ["inv", "smokes"])
    assert smokes.words_after_dashes() == []


def test_a_session_that_was_given_a_target_hands_its_arguments_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(os.environ, VARIABLE, str(tmp_path / "target.json"))
    with smokes.command_of({}, tmp_path / "test_a.py", ["-m", "pytest", "x"]) as given:
        assert given == (["-m", "pytest", "x"], {})
