"""A Python without the layer's requirements is told, in a sentence, before anything else happens."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest

from release_tasks import requirements
from tests.process.outside import LAYER, Ran, copy_the_layer

TASKS = ("release", "status", "preconditions", "smokes", "accept", "rehearse", "ddl.validate", "backup.take")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    repo = tmp_path / "a repo"
    repo.mkdir()
    copy_the_layer(repo)
    (repo / "invoke.yaml").write_bytes((LAYER / "invoke.yaml").read_bytes())
    (repo / "tasks_local.py").write_text("from invoke import task\n\n@task\ndef greet(c):\n    print('Hello')\n")
    return repo


def python_with(folder: Path, *packages: str) -> Path:
    """Return a Python of its own that has these packages of ours and no others."""
    venv.create(folder, with_pip=False)
    (site,) = (folder / "Lib" / "site-packages",) if os.name == "nt" else folder.glob("lib/python*/site-packages")
    for name in packages:
        for file in distribution(name).files or ():
            if file.parts[0] != ".." and file.suffix != ".pyc":
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                (site / file).write_bytes(Path(str(file.locate())).read_bytes())
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def inv(python: Path, repo: Path, *words: str) -> Ran:
    ran = subprocess.run([python, "-m", "invoke", *words], cwd=repo, capture_output=True, text=True)
    return Ran(ran.returncode, ran.stdout + ran.stderr)


def test_each_task_tells_a_python_with_invoke_alone_what_to_type(tmp_path: Path, repo: Path) -> None:
    python = python_with(tmp_path / "bare", "invoke")
    for task in TASKS:
        ran = inv(python, repo, task)
        assert ran.refuses(f"{python} is missing packages of the release layer: packaging, and perhaps others.")
        assert len(ran.output.splitlines()) == 2
        command = f"{python} '{repo}/noxfile.py' --list && . '{repo}/.nox/layer/bin/activate'"
        assert ran.output.splitlines()[1].strip() == command
    assert not (repo / ".release").exists()
    assert inv(python, repo, "--list").code == 0
    assert inv(python, repo, "local.greet") == Ran(0, "Hello\n")


def test_all_that_is_required_is_here() -> None:
    assert requirements.problems() == []


def test_what_is_missing_or_too_old_is_named_and_what_is_not_for_this_machine_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("# All\nrich >=999\nno-such-thing >=1\ninvoke >=2\nof-others >=1 ; platform_machine == 'pdp11'\n")
    monkeypatch.setattr(requirements, "FILE", file)
    (problem,) = requirements.problems()
    found = distribution("rich").version
    assert problem.what == (
        f"{sys.executable} is missing packages of the release layer: rich >=999 (found {found}), "
        "no-such-thing >=1 (found none)."
    )
