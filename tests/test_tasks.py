"""The document is the program: sections, order and options; and a list of tasks costs nothing."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tasks
from release_tasks.command_line import HELP, IN_WORK
from release_tasks.engine import Section

ROOT = Path(__file__).parents[1]
HEADING = re.compile(r"^## (\d+\. .+?)\s*$", re.MULTILINE)
EXECUTOR = "release_tasks.engine.ReleaseExecutor"
GREET = "from invoke import task\n\n@task\ndef greet(c):\n    'Greet.'\n    {}\n"
LISTED = """
import sys
before = set(sys.modules)
from invoke.main import program
program.run(["inv", "--list"], exit=False)
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print("loaded:", *sorted(loaded - sys.stdlib_module_names - {"tasks", "tasks_local", "release_tasks"}))
"""
STEPS = """
import sys
import release_tasks.plan
import tasks
for section in (*tasks.TOP_LEVEL, tasks.staging, tasks.production):
    assert section.steps(None)
print(*sorted({"jinja2", "playwright", "psutil", "pytest", "requests", "tenacity"} & set(sys.modules)))
"""


def sections() -> list[Section]:
    """Return the numbered sections in the order in which `pre` runs them, the last one's chain."""
    chain: list[Any] = [tasks.release]
    while chain[-1].pre:
        (before,) = chain[-1].pre
        chain.append(before)
    return chain[:0:-1]


def inv(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "invoke", *args]
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
        given = ["pack"] if name == "evidence.verify" else []  # the one thing that it is about
        assert [argument.name for argument in task.get_arguments() if argument.positional] == given, name


@pytest.mark.parametrize(
    ("task", "help"), [("release", HELP["version"]), *((each, IN_WORK) for each in ("status", "filing"))]
)
def test_help_says_where_the_version_comes_from(task: str, help: str) -> None:
    """It said of each that VERSION must name a release, as only those need that make one."""
    assert help in re.sub(r"\s+", " ", inv(ROOT, "--help", task).stdout)


def test_every_task_is_in_the_list_under_its_name() -> None:
    listed = re.findall(r"^  (\S+)", inv(ROOT, "--list").stdout, re.MULTILINE)
    assert {"release", "status", "rehearse", "smokes", "deploy.staging", "deploy.production"} <= set(listed)
    assert sorted(listed) == sorted(tasks.ns.task_names)


def test_a_list_loads_invoke_and_the_standard_library_only() -> None:
    argv = [sys.executable, "-c", LISTED]
    said = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "2. Preconditions" in said
    loaded = said.splitlines()[-1].removeprefix("loaded: ").split()
    theirs = [each for each in loaded if not re.match("_?(yaml|cython)", each)]  # Invoke takes PyYAML where it is there
    assert theirs == ["invoke"]


def test_a_status_loads_no_library_that_only_a_change_needs() -> None:
    """requests took a sixth of the time of each command."""
    argv = [sys.executable, "-c", STEPS]
    assert subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "\n"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder with what a sibling repo gets of the layer, which is linked there."""
    for name in ("tasks.py", "invoke.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "release_tasks").symlink_to(ROOT / "release_tasks")
    return tmp_path


def test_a_command_ends_without_a_search_for_garbage_in_what_it_imported() -> None:
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 1000)); import release_tasks"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout == "True\n", ran.stderr


@pytest.mark.parametrize(
    ("local", "code", "told"),
    [
        (None, 0, "release"),
        (GREET.format("pass"), 0, "local.greet"),
        ("\nimport nowhere_to_be_found\n", 1, "tasks_local.py, line 2: ModuleNotFoundError: No module named 'nowhere_"),
        ("x = 1\nx = (\n", 1, "tasks_local.py, line 2: '(' was never closed"),
        ("from invoke import no_such_thing\n", 1, "tasks_local.py, line 1: ImportError: cannot import name"),
        ("x = y\n", 1, "tasks_local.py, line 1: NameError: name 'y' is not defined"),
    ],
    ids=["none", "its own", "a module that is missing", "syntax", "a name that is missing", "any other mistake"],
)
def test_a_repo_s_own_tasks_are_taken_in_and_never_lost_in_silence(
    copied: Path, local: str | None, code: int, told: str
) -> None:
    """F10."""
    if local:
        (copied / "tasks_local.py").write_text(local)
    ran = inv(copied, "--list")
    assert (ran.returncode, told in ran.stdout + ran.stderr) == (code, True)
    assert "Traceback" not in ran.stderr


def test_a_mistake_while_a_repo_s_own_task_runs_is_shown_as_ever(copied: Path) -> None:
    (copied / "tasks_local.py").write_text(GREET.format("c.config.nothing"))
    ran = inv(copied, "local.greet")
    assert ran.returncode == 1 and "Traceback" in ran.stderr and "mistake in the release layer" not in ran.stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"release:\n  app: [\n", "invoke.yaml, line 3: "),
        (b"- release\n- tasks\n", "invoke.yaml: AttributeError: 'list' object"),
        (b"text\n", "invoke.yaml: AttributeError: 'str' object"),
        (b"\x00\xff\xfe\x81 binary", "invoke.yaml: UnicodeDecodeError: "),
        (b"tasks: text\n", "invoke.yaml: AmbiguousMergeError: "),
        (None, "invoke.yaml: IsADirectoryError: "),
    ],
    ids=["no YAML", "a list", "a text", "binary", "text for keys", "a folder"],
)
def test_an_invoke_yaml_that_cannot_be_read_is_told_in_a_sentence(
    copied: Path, content: bytes | None, told: str
) -> None:
    """F10."""
    (copied / "invoke.yaml").unlink()
    if content is None:
        (copied / "invoke.yaml").mkdir()
    else:
        (copied / "invoke.yaml").write_bytes(content)
    ran = inv(copied, "--list")
    assert (ran.returncode, ran.stderr[: len(told)]) == (1, told)
    assert "Fix the file" in ran.stderr and "Traceback" not in ran.stderr
    assert "line 3" in told or "Expected are tasks: and release:" in ran.stderr


@pytest.mark.parametrize("name", ["release_tasks.engine.Wrong", "nowhere.Executor", "nodot", "release_tasks.nowhere.X"])
def test_an_executor_that_is_not_there_is_told_in_a_sentence(copied: Path, name: str) -> None:
    """F10."""
    (copied / "invoke.yaml").write_text(f"tasks: {{executor_class: {name}}}\n")
    ran = inv(copied, "status")
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert ran.stderr.startswith("invoke.yaml, tasks.executor_class: ")
    assert "executor_class: release_tasks.engine.ReleaseExecutor" in ran.stderr


def test_the_schema_of_the_settings_is_written_for_editors(copied: Path) -> None:
    printed = inv(copied, "settings.schema").stdout
    said = inv(copied, "settings.schema", "--file", "schema.json").stdout
    assert said == "The JSON Schema of invoke.yaml is in schema.json.\n"
    assert json.loads(printed) == json.loads((copied / "schema.json").read_text())
    (copied / "invoke.yaml").write_text(f"tasks: {{executor_class: {EXECUTOR}}}\nrelease: {{freeze_days: soon}}\n")
    assert inv(copied, "settings.schema").stdout == printed
    assert inv(copied, "settings.schema", "--file", "no/where.json").returncode == 1


def test_h_is_help_and_no_option() -> None:
    """R30: `-h` was short for --highlights, and wanted a text."""
    ran = inv(ROOT, "release", "-h")
    assert ran.returncode == 0 and ran.stdout.startswith("Usage: inv") and "--highlights" in ran.stdout
