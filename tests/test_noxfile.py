"""`python3 noxfile.py` makes the layer's environment, keeps it while it is whole, and runs nox there."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.process.outside import LAYER, PATIENCE, Ran, copy_the_layer
from tests.test_requirements import python_with

MAKING = "Making the Python environment of the release layer"

WITHOUT_ENSUREPIP = """
import runpy, subprocess, sys, venv
def create(*args, **how):
    raise subprocess.CalledProcessError(1, ["python", "-m", "ensurepip"], b"one\\nNo module named ensurepip\\n")
venv.create = create
runpy.run_path(sys.argv[1])
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A copy of the layer that requires nox, and a package that this Python has not."""
    repo = tmp_path / "a repo"
    repo.mkdir()
    copy_the_layer(repo)
    shutil.copy(LAYER / "invoke.yaml", repo)
    (repo / "release_tasks" / "requirements.txt").write_text("nox >=2025.2\ntiny-thing >=2\n")
    for version in ("1", "2"):
        wheel(tmp_path / "wheels", version)
    return repo


def wheel(folder: Path, version: str) -> None:
    """Write a wheel of the package tiny-thing, into what stands for the registry."""
    folder.mkdir(exist_ok=True)
    info = f"tiny_thing-{version}.dist-info"
    with zipfile.ZipFile(folder / f"tiny_thing-{version}-py3-none-any.whl", "w") as made:
        made.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-thing\nVersion: {version}\n")
        made.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr(f"{info}/RECORD", "")


def python(repo: Path, *words: str | Path, executable: str | Path = sys.executable, **env: str) -> Ran:
    """Run Python outside of `repo`. That of the layer sees our packages as well; pip gets nothing but the wheels."""
    local = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(repo.parent / "wheels")}
    env = {**os.environ, **local, "PYTHONPATH": sysconfig.get_path("purelib"), **env}
    argv = [executable, *words]
    ran = subprocess.run(argv, cwd=repo.parent, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert "Traceback" not in ran.stderr, ran.stderr
    return Ran(ran.returncode, ran.stdout + ran.stderr)


def lists(ran: Ran) -> bool:
    """Tell whether nox has listed the sessions of the copied noxfile."""
    assert ran.code == 0, ran.output
    return "- rehearse -> " in ran.output


def test_the_environment_is_made_once_and_anew_when_it_is_no_longer_whole(repo: Path) -> None:
    command = (repo / "noxfile.py", "--list")
    first = python(repo, *command)
    assert lists(first) and first.output.startswith(f"{MAKING} in {repo / '.nox' / 'layer'}")
    again = python(repo, *command)
    assert lists(again) and MAKING not in again.output
    own = repo / ".nox" / "layer" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    assert python(repo, "-m", "pip", "install", "-qq", "tiny-thing ==1", executable=own).code == 0
    assert lists(downgraded := python(repo, *command)) and downgraded.output.count(MAKING) == 1
    assert python(repo, "-m", "pip", "uninstall", "-qq", "--yes", "tiny-thing", executable=own).code == 0
    assert lists(halved := python(repo, *command, executable=own)) and halved.output.count(MAKING) == 1


def test_requirements_that_are_still_not_met_end_in_a_sentence(repo: Path) -> None:
    ran = python(repo, repo / "noxfile.py", "--list", PIP_DRY_RUN="1")
    assert ran.refuses("The requirements of the release layer were not installed")
    assert ran.output.count(MAKING) == 1


def test_an_environment_that_another_command_is_making_is_left_alone(repo: Path) -> None:
    (repo / ".nox" / "layer").mkdir(parents=True)
    (repo / ".nox" / "layer" / "half").touch()
    lock = sqlite3.connect(repo / ".nox" / "layer.lock")
    lock.execute("begin exclusive")
    assert python(repo, repo / "noxfile.py", "--list").refuses("If another command makes it, wait for that.")
    assert (repo / ".nox" / "layer" / "half").exists()
    lock.close()


def test_a_python_that_cannot_make_environments_says_why(repo: Path) -> None:
    ran = python(repo, "-c", WITHOUT_ENSUREPIP, repo / "noxfile.py")
    assert ran.refuses(
        "This Python cannot make environments: No module named ensurepip", "apt-get install python3-venv"
    )


def test_without_a_registry_noxfile_says_so_and_can_be_typed_again(tmp_path: Path, repo: Path) -> None:
    python = python_with(tmp_path / "bare")
    closed = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    for _ in range(2):
        argv = [python, "noxfile.py", "--list"]
        ran = subprocess.run(argv, cwd=repo, env={**os.environ, **closed}, capture_output=True, text=True)
        assert ran.returncode == 1
        assert ran.stdout.startswith(f"Making the Python environment of the release layer in {repo / '.nox' / 'layer'}")
        assert ran.stderr.endswith("The requirements of the release layer were not installed: pip says why above.\n")
        assert "Traceback" not in ran.stderr
    assert (repo / ".nox" / ".gitignore").read_text() == "*\n"
