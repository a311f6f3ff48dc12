"""The document is the program: sections, order and options; and a list of tasks costs nothing."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tasks
from release_tasks.engine import HELP, Section

ROOT = Path(__file__).parents[1]
HEADING = re.compile(r"^## (\d+\. .+?)\s*$", re.MULTILINE)
LISTED = """
import sys
before = set(sys.modules)
from invoke.main import program
program.run(["inv", "--list"], exit=False)
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print("loaded:", *sorted(loaded - sys.stdlib_module_names - {"tasks", "tasks_local", "release_tasks"}))
"""


def sections() -> list[Section]:
    """Return the numbered sections in the order in which `pre` runs them, the last one's chain."""
    chain: list[Any] = [tasks.release]
    while chain[-1].pre:
        (before,) = chain[-1].pre
        chain.append(before)
    return chain[:0:-1]


def inv_list(folder: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "invoke", "--list"]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)


def test_the_sections_are_the_document_s_headings_in_its_order() -> None:
    purpose, *headings = HEADING.findall((ROOT / "docs" / "RELEASE_PROCESS.md").read_text(encoding="utf-8"))
    assert purpose == "1. Purpose"
    assert [section.__doc__ for section in sections()] == headings


def test_the_sections_are_numbered_without_a_hole() -> None:
    numbers = [int(str(section.__doc__).partition(".")[0]) for section in sections()]
    assert numbers == list(range(2, 11))


def test_each_section_stands_in_tasks_py_where_it_stands_in_the_process() -> None:
    lines = [inspect.getsourcelines(section.steps)[1] for section in sections()]
    assert lines == sorted(lines)


def test_a_status_looks_at_the_same_sections_as_a_release() -> None:
    assert tasks.status.pre == tasks.release.pre


def test_release_takes_every_option_that_a_section_takes() -> None:
    def options(section: Any) -> set[str]:
        return set(list(inspect.signature(section.body).parameters)[1:])

    taken = {option for section in sections() for option in options(section)}
    assert taken == options(tasks.release)
    assert taken <= set(HELP)


def test_no_task_takes_an_argument_that_help_would_fill() -> None:
    for name in tasks.ns.task_names:
        task = tasks.ns[name]
        assert not [argument for argument in task.get_arguments() if argument.positional], name


def test_every_task_is_in_the_list_under_its_name() -> None:
    listed = re.findall(r"^  (\S+)", inv_list(ROOT).stdout, re.MULTILINE)
    assert {"release", "status", "rehearse", "smokes", "deploy.staging", "deploy.production"} <= set(listed)
    assert sorted(listed) == sorted(tasks.ns.task_names)


def test_a_list_loads_invoke_and_the_standard_library_only() -> None:
    argv = [sys.executable, "-c", LISTED]
    said = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "2. Preconditions" in said
    assert said.splitlines()[-1] == "loaded: invoke"


@pytest.mark.parametrize(
    ("local", "code", "told"),
    [
        (None, 0, "release"),
        ("from invoke import task\n\n@task\ndef greet(c):\n    '''Greet.'''\n", 0, "local.greet"),
        ("import nowhere_to_be_found\n", 1, "nowhere_to_be_found"),
    ],
    ids=["none", "its own", "broken"],
)
def test_a_repo_s_own_tasks_are_taken_in_and_never_lost_in_silence(
    tmp_path: Path, local: str | None, code: int, told: str
) -> None:
    for name in ("tasks.py", "invoke.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "release_tasks", tmp_path / "release_tasks", ignore=shutil.ignore_patterns("__pycache__"))
    if local:
        (tmp_path / "tasks_local.py").write_text(local)
    ran = inv_list(tmp_path)
    assert (ran.returncode, told in ran.stdout + ran.stderr) == (code, True)


def test_an_invoke_yaml_that_is_no_yaml_is_told_in_a_sentence(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tasks.py", tmp_path)
    shutil.copytree(ROOT / "release_tasks", tmp_path / "release_tasks", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "invoke.yaml").write_text("release:\n  app: [\n")
    ran = inv_list(tmp_path)
    assert (ran.returncode, ran.stderr.startswith("invoke.yaml, line 3: ")) == (1, True)
    assert "Traceback" not in ran.stderr
