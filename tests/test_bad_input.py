"""What people type, write and break: each is answered with a sentence and an exit code, and changes nothing.

The catalogue is tests/bad_input.yaml: subject → name → entry. Its keys, all optional but `says`:

    inv       what is typed after `inv`; by default --dry preconditions --version 0.1.1
    sh        instead: a command line of a shell, in which `inv` is the program
    settings  keys of `release:` in invoke.yaml beside those of TEMPLATE
    files     path → text; {hex: …} for bytes, {} for a folder, null for none
    git       command lines of git, typed after the files are written
    commit    true: the files are committed, not pushed
    env       variables of the environment
    code      the exit code; by default 1
    says      a part of what is said, line breaks apart; or several parts
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from invoke.main import Program
from invoke.vendor import yaml

from release_tasks import failures, temporary
from tests.conftest import APP, Work

ROOT = Path(__file__).parents[1]
SETTINGS = {"version_files": ["package.json"], "docs_pack": {"include": ["CHANGELOG.md"]}, "must_be_merged": ["f/*"]}
TEMPLATE = {
    **APP,
    "tasks.py": (ROOT / "tasks.py").read_text(encoding="utf-8"),
    "smokes/test_schema.py": '"""The schema is there."""\n\n\ndef test_it():\n    pass\n',
    "acceptance/test_app.py": "def test_api_ok(api):\n    api.expect('/')\n",
}
CATALOGUE: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(
    Path(__file__).with_name("bad_input.yaml").read_text(encoding="utf-8")
)
ENTRIES = {f"{subject}: {name}": entry for subject, own in CATALOGUE.items() for name, entry in own.items()}
KEYS = {"inv", "sh", "settings", "files", "git", "commit", "env", "code", "says"}
CHECK = ["--dry", "preconditions", "--version", "0.1.1"]


def invoke_yaml(settings: dict[str, Any]) -> str:
    executor = {"executor_class": "release_tasks.engine.ReleaseExecutor"}
    return str(yaml.safe_dump({"tasks": executor, "release": {**SETTINGS, **settings}}))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a repository that can be released, and its remote, which it names by a relative path."""
    folder, empty = tmp_path_factory.mktemp("template"), tmp_path_factory.mktemp("empty")
    with patch.dict(os.environ, GIT_TEMPLATE_DIR=str(empty)):
        work = Work.make(folder, {**TEMPLATE, "invoke.yaml": invoke_yaml({})})
    work.git("remote", "set-url", "origin", "../remote.git")
    return folder


def prepare(work: Work, entry: dict[str, Any]) -> None:
    """Make the repository as `entry` says."""
    files = dict(entry.get("files", {}))
    if "settings" in entry:
        files["invoke.yaml"] = invoke_yaml(entry["settings"])
    for path, content in files.items():
        at = work.root / path
        shutil.rmtree(at) if at.is_dir() else at.unlink(missing_ok=True)
        if content is not None:
            (at if content == {} else at.parent).mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            at.write_bytes(content.encode())
        elif content:
            at.write_bytes(bytes.fromhex(content["hex"]))
    if entry.get("commit"):
        work.commit({})
    for line in entry.get("git", []):
        work.git(*shlex.split(line))


def state(folder: Path) -> dict[str, bytes]:
    """Return path → bytes of all that a command may not change: both repositories with their refs, and the tree."""
    passing = re.compile(r"work/(\.release|\.git/(index|objects|FETCH_HEAD|release-clone))(/|$)")
    found = ((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    return {name: path.read_bytes() for name, path in found if not passing.match(name)}


def run_here(argv: list[str], root: Path, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run `inv argv` in this process, in the folder `root`; return the exit code."""
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", ["inv", *argv])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    here = {temporary.ORIGINAL_TMPDIR: tempfile.gettempdir()}  # a run within a run, which starts no remover
    own = {name: sys.modules.pop(name, None) for name in ("tasks", "tasks_local")}
    try:
        with patch.dict(os.environ, {**here, **variables}):
            Program().run()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException as error:  # as the interpreter would
        failures.explain(type(error), error, error.__traceback__)
        return 1
    finally:
        sys.modules.update({name: module for name, module in own.items() if module})
    return 0


def answer(
    entry: dict[str, Any], work: Work, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Type what `entry` says in a repository that is prepared; return the exit code, and what is said in one line."""
    variables = {key: str(value) for key, value in entry.get("env", {}).items()}
    capfd.readouterr()
    if "sh" in entry:
        command = re.sub(r"\binv\b", lambda _: f"{shlex.quote(sys.executable)} -B -m invoke", entry["sh"])
        env = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
        code = subprocess.run(["/bin/sh", "-c", command], cwd=work.root, env=env, timeout=120, check=False).returncode
    else:
        code = run_here(entry.get("inv", CHECK), work.root, variables, monkeypatch)
    return code, " ".join("".join(capfd.readouterr()).split())


@pytest.mark.parametrize("name", ENTRIES)
def test_bad_input_is_answered_with_a_sentence(
    name: str, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """F5 to F15: no traceback, the exit code, the sentence, and nothing has changed."""
    entry, folder = ENTRIES[name], tmp_path / "it"
    shutil.copytree(template, folder, symlinks=True)
    work = Work(folder / "work", folder / "remote.git")
    prepare(work, entry)
    before = state(folder)
    code, said = answer(entry, work, monkeypatch, capfd)
    assert "Traceback" not in said and "mistake in the release layer" not in said, said
    assert code == entry.get("code", 1), said
    for part in [entry["says"]] if isinstance(entry["says"], str) else entry["says"]:
        assert " ".join(part.split()) in said
    assert state(folder) == before


def test_the_catalogue_has_a_hundred_entries_of_known_keys() -> None:
    assert len(ENTRIES) >= 100
    assert {key for entry in ENTRIES.values() for key in entry} <= KEYS


def test_without_a_fault_the_repository_can_be_released(
    template: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_here(["status", "--version", "0.1.1"], template / "work", {}, monkeypatch) == 0
    assert "Ready to release 0.1.1; nothing was changed" in capfd.readouterr().out
