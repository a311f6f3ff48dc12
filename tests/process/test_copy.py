"""The layer as it is copied into a sibling repo: plain files, nothing installed, nothing assumed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from outside import LAYER, PATIENCE, Ran, copy_the_layer, git, introduce, remove_embedded_servers


@pytest.fixture
def sibling(tmp_path: Path) -> Iterator[Path]:
    """An empty git repo into which the layer's files were copied."""
    repo = tmp_path / "sibling"
    repo.mkdir()
    copy_the_layer(repo)
    shutil.copy(LAYER / "invoke.yaml", repo)
    git(repo, "init", "--quiet", "--initial-branch=main")
    introduce(repo)
    yield repo
    remove_embedded_servers(repo)


def _inv(repo: Path, *words: str) -> Ran:
    ran = subprocess.run(
        [sys.executable, "-m", "invoke", *words],
        cwd=repo,
        env={**os.environ, "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    output = ran.stdout + ran.stderr
    assert "Traceback" not in output, output
    return Ran(ran.returncode, output)


def test_a_copy_lists_its_tasks(sibling: Path) -> None:
    ran = _inv(sibling, "--list")
    assert ran.code == 0
    for task in ("release", "status", "preconditions", "deploy.staging", "deploy.production", "rehearse"):
        assert f" {task} " in ran.output


def test_a_copy_answers_in_sentences_from_the_first_moment(sibling: Path) -> None:
    for words in ("status", "status --version 0.1.1", "release --version 0.1.1 --yes", "rehearse", "smokes"):
        ran = _inv(sibling, *words.split())
        assert ran.code == 1
        assert len(ran.flat) > 20
    git(sibling, "add", "--all")
    git(sibling, "commit", "--quiet", "--message", "build: the release layer")
    ran = _inv(sibling, "status", "--version", "0.1.1")
    assert ran.code == 1
    assert "git remote add origin" in ran.flat
