"""Temporary files go with the run that made them, and those of a killed run with the start of the next."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from release_tasks import rehearsal, temporary

ROOT = Path(__file__).parents[1]
RUN = """
import os, subprocess, sys, tempfile
from pathlib import Path
from release_tasks import temporary
with temporary.run_directory(Path(sys.argv[1])):
    Path(os.environ["TMPDIR"], "left").touch()
    print(tempfile.gettempdir(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, for this test."""
    system = tmp_path / "tmp"
    system.mkdir()
    for name in temporary.VARIABLES:
        monkeypatch.setenv(name, str(system))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return system


@pytest.fixture
def begin(tmp_path: Path, system: Path) -> Callable[[], tuple[subprocess.Popen[str], Path]]:
    """Return what begins a run in the repo `tmp_path`, which ends with its input; and the run's folder."""

    def begin() -> tuple[subprocess.Popen[str], Path]:
        pipe = subprocess.PIPE
        argv = [sys.executable, "-c", RUN, str(tmp_path)]
        process = subprocess.Popen(argv, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    return begin


def locks(root: Path) -> list[str]:
    return [path.name for path in (root / ".release" / "tmp").iterdir()]


def test_a_run_has_a_folder_of_its_own_and_leaves_nothing(tmp_path: Path, system: Path) -> None:
    with temporary.run_directory(tmp_path):
        (folder,) = system.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {os.environ[name] for name in temporary.VARIABLES} == {tempfile.gettempdir()} == {str(folder)}
        (folder / "tsx-0").mkdir()
    assert not list(system.iterdir()) and not locks(tmp_path)
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(system)


def test_a_run_that_fails_leaves_nothing_either(tmp_path: Path, system: Path) -> None:
    with pytest.raises(KeyboardInterrupt), temporary.run_directory(tmp_path):
        Path(tempfile.gettempdir(), "file").touch()
        raise KeyboardInterrupt
    assert not list(system.iterdir()) and not locks(tmp_path)


def test_a_run_within_a_run_shares_its_folder(tmp_path: Path, system: Path) -> None:
    with temporary.run_directory(tmp_path):
        with temporary.run_directory(tmp_path / "rehearsed"):
            assert Path(tempfile.gettempdir()).parent == system
        assert Path(tempfile.gettempdir()).is_dir()


def test_what_outlives_a_run_gets_the_system_s_folder(tmp_path: Path, system: Path) -> None:
    assert temporary.original_variables() == {}
    with temporary.run_directory(tmp_path):
        assert set(temporary.original_variables().values()) == {str(system), ""}


@pytest.mark.parametrize("keep", [False, True])
def test_a_rehearsal_that_is_to_be_kept_outlives_the_run(tmp_path: Path, system: Path, keep: bool) -> None:
    with temporary.run_directory(tmp_path):
        folder = rehearsal._new_folder(keep)
        assert folder.is_dir() and folder.is_relative_to(system)
    assert folder.is_dir() == keep


@pytest.mark.parametrize("depth", [0, 30])
def test_a_socket_fits_however_deep_the_repo_is(tmp_path: Path, depth: int) -> None:
    repo = tmp_path.joinpath(*["folder"] * depth)
    repo.mkdir(parents=True, exist_ok=True)
    with temporary.run_directory(repo):
        assert len(tempfile.gettempdir()) < 107 - len("/.org.chromium.Chromium.XXXXXX/SingletonSocket")


def test_the_folder_of_a_killed_run_is_removed_by_the_next_and_that_of_a_living_one_stays(
    tmp_path: Path, system: Path, begin: Callable[[], tuple[subprocess.Popen[str], Path]]
) -> None:
    (killed, its), (living, other) = begin(), begin()
    killed.kill()
    killed.wait()
    assert (its / "left").exists()
    with temporary.run_directory(tmp_path):
        assert not its.exists() and (other / "left").exists()
    living.communicate("")
    assert living.returncode == 0
    assert not list(system.iterdir()) and not locks(tmp_path)


def test_the_folder_of_a_killed_run_is_removed_by_one_with_another_temporary_folder(
    tmp_path: Path,
    system: Path,
    begin: Callable[[], tuple[subprocess.Popen[str], Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed, its = begin()
    killed.kill()
    killed.wait()
    (tmp_path / "another").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "another"))
    with temporary.run_directory(tmp_path):
        assert not its.exists()
    assert not list(system.iterdir()) and not locks(tmp_path)
