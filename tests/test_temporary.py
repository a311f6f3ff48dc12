"""Temporary files go with the run that made them, also when it is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from release_tasks import temporary
from release_tasks.errors import Refused
from tests.test_process import until

ROOT = Path(__file__).parents[1]
RUN = """
import os, sys, tempfile
from pathlib import Path
from release_tasks import temporary
with temporary.run_directory():
    Path(os.environ["TMPDIR"], "left").touch()
    print(tempfile.gettempdir(), flush=True)
    sys.stdin.read()
"""


# Windows removes nothing that is read-only, as git's objects are; `shutil` is imported later, and sees this.
WINDOWS = """
import os
unlink = os.unlink
def unlink_writable(path):
    if not os.lstat(path).st_mode & 0o200:
        raise PermissionError(path)
    unlink(path)
os.unlink = unlink_writable
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
def begin(system: Path) -> Callable[[], tuple[subprocess.Popen[str], Path]]:
    """Return what begins a run, which ends with its input; and the run's folder."""

    def begin() -> tuple[subprocess.Popen[str], Path]:
        pipe = subprocess.PIPE
        argv = [sys.executable, "-c", RUN]
        process = subprocess.Popen(argv, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    return begin


def test_a_run_has_a_folder_of_its_own_and_leaves_nothing(system: Path) -> None:
    with temporary.run_directory():
        (folder,) = system.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {os.environ[name] for name in temporary.VARIABLES} == {tempfile.gettempdir()} == {str(folder)}
        (folder / "tsx-0").mkdir()
    assert not list(system.iterdir())
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(system)


def test_secrets_do_not_go_to_the_repository_where_no_temporary_folder_can_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python takes the current folder then, and `git add --all` was the hint for what lay there."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(temporary.ORIGINAL_TMPDIR, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(Refused, match="No temporary folder can be written to"), temporary.run_directory():
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".git"]


def test_a_command_may_be_typed_in_the_temporary_folder_itself(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`inv -r` names the repository: it was refused, as if there was no other folder."""
    monkeypatch.chdir(system)
    with temporary.run_directory():
        assert Path(tempfile.gettempdir()).parent == system


def test_a_run_that_fails_leaves_nothing_either(system: Path) -> None:
    with pytest.raises(KeyboardInterrupt), temporary.run_directory():
        Path(tempfile.gettempdir(), "file").touch()
        raise KeyboardInterrupt
    assert not list(system.iterdir())


def test_a_run_within_a_run_shares_its_folder(system: Path) -> None:
    with temporary.run_directory():
        with temporary.run_directory():
            assert Path(tempfile.gettempdir()).parent == system
        assert Path(tempfile.gettempdir()).is_dir()


def test_what_outlives_a_run_gets_the_system_s_folder(system: Path) -> None:
    assert temporary.original_variables() == {}
    with temporary.run_directory():
        assert set(temporary.original_variables().values()) == {str(system), ""}


def test_a_socket_fits_however_deep_the_repo_is() -> None:
    with temporary.run_directory():
        assert len(tempfile.gettempdir()) < 107 - len("/.org.chromium.Chromium.XXXXXX/SingletonSocket")


def test_the_folder_of_a_killed_run_goes_with_it_and_that_of_a_living_one_stays(
    system: Path, begin: Callable[[], tuple[subprocess.Popen[str], Path]]
) -> None:
    """F14."""
    (killed, its), (living, other) = begin(), begin()
    assert (its / "left").exists()
    killed.kill()
    killed.wait()
    assert until(lambda: not its.exists()) and (other / "left").exists()
    living.communicate("")
    assert living.returncode == 0
    assert not list(system.iterdir())


def test_what_is_read_only_is_removed_also_on_windows(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "object").touch(0o400)
    argv = [sys.executable, "-I", "-c", WINDOWS + temporary.REMOVER, str(tmp_path / "run")]
    subprocess.run(argv, stdin=subprocess.DEVNULL, check=True)
    assert not (tmp_path / "run").exists()
