"""The sessions of smokes: one a file, in an environment with the packages that the file names."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from release_tasks.checks import Target, runner

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = "tasks: {executor_class: release_tasks.engine.ReleaseExecutor}\nrelease: {app: tiny}\n"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    for name in ("tasks.py", "noxfile.py"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "release_tasks", tmp_path / "release_tasks", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "invoke.yaml").write_text(SETTINGS)
    (tmp_path / "smokes").mkdir()
    (tmp_path / "smokes" / "test_coins.py").write_text('"""Each coin has a price."""\ndef test_a(db): pass\n')
    return tmp_path


def nox(repo: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nox", *words]
    return subprocess.run(argv, cwd=repo, capture_output=True, text=True, timeout=300)


def test_a_smoke_is_listed_with_its_purpose(repo: Path) -> None:
    listed = nox(repo, "-l")
    assert listed.returncode == 0 and "smokes(coins) -> Each coin has a price" in listed.stdout


def test_the_smokes_of_another_tree_have_sessions_too(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 8 runs those of what is live: one that this release removed was not found."""
    (repo / "live" / "smokes").mkdir(parents=True)
    (repo / "live" / "smokes" / "test_old.py").write_text('"""An old one."""\n')
    monkeypatch.setenv("RELEASE_SMOKES", str(repo / "live"))
    listed = nox(repo, "-l")
    assert "smokes(old) -> An old one" in listed.stdout and "smokes(coins)" not in listed.stdout


def test_what_a_terminal_lacks_is_replaced_in_the_list(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repo / "smokes" / "test_coins.py").write_text('"""A 16 × 16 grid."""\n', encoding="utf-8")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    listed = nox(repo, "-l")
    assert listed.returncode == 0 and "smokes(coins) -> A 16 ? 16 grid" in listed.stdout


def test_a_file_whose_packages_cannot_be_read_is_said_in_a_sentence(repo: Path) -> None:
    text = "# /// script\n# dependencies = [\n# ///\n"
    (repo / "smokes" / "test_broken.py").write_text(text)
    listed = nox(repo, "-l")
    assert listed.returncode == 0 and "smokes(coins)" in listed.stdout, "the others stay as they are"
    refused = nox(repo, "-s", "smokes(broken)")
    assert refused.returncode == 1 and "The script metadata of test_broken.py cannot be read" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_smoke_whose_list_of_packages_is_empty_runs_as_the_others_do(
    repo: Path, target: Callable[..., Target]
) -> None:
    file = repo / "smokes" / "test_coins.py"
    file.write_text(
        "# /// script\n# dependencies = []\n# ///\ndef test_a(target, record_property):\n    record_property('x', 1)\n"
    )
    (result,) = runner.run(target(dsn="", root=str(repo), code=str(repo)), [file], repo / "kept")
    assert (result.file, result.test) == ("test_coins", "test_a") and "No test" not in result.message


def test_a_session_hands_what_follows_to_inv(repo: Path) -> None:
    refused = nox(repo, "-s", "smokes(coins)", "--", "--env", "mars")
    assert refused.returncode == 1 and "invoke smokes --only coins --env mars" in refused.stderr
    assert "Traceback" not in refused.stderr + refused.stdout


def test_a_repo_without_smokes_has_its_other_sessions(repo: Path) -> None:
    shutil.rmtree(repo / "smokes")
    assert "- rehearse ->" in nox(repo, "-l").stdout
    refused = nox(repo, "-s", "smokes")
    assert refused.returncode == 1 and "There is no test" in refused.stderr + refused.stdout
