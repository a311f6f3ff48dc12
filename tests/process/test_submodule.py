"""docs/ as a git submodule with a remote of its own: its tag and commit belong to the release."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
from outside import git, introduce, sha256sum_passes
from world import World

from release_tasks import rehearsal
from release_tasks.git import Git
from release_tasks.settings import Settings

TAG = "refs/tags/v0.1.1"


@pytest.fixture
def with_docs(little: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A little world whose docs/ is a submodule; git is allowed to fetch it from a folder."""
    allowed = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.file.allow", "GIT_CONFIG_VALUE_0": "always"}
    for name, value in allowed.items():
        monkeypatch.setenv(name, value)
    little.variables |= allowed
    alone = little.folder / "docs"
    shutil.move(little.repo / "docs", alone)
    for name in ("VERSION", "SOURCE_TAG"):
        shutil.copy(little.repo / name, alone)
    git(alone, "init", "--quiet", "--initial-branch=main")
    introduce(alone)
    git(alone, "add", "--all")
    git(alone, "commit", "--quiet", "--message", "docs: a page")
    git(little.folder, "clone", "--quiet", "--bare", str(alone), str(_docs_remote(little)))
    little.git("rm", "--quiet", "-r", "--cached", "docs")
    little.git("submodule", "--quiet", "add", str(_docs_remote(little)), "docs")
    introduce(little.repo / "docs")
    little.settle("docs: a submodule", {})
    return little


def _docs_remote(little: World) -> Path:
    return little.folder / "docs.git"


def test_docs_in_a_submodule_are_tagged_hashed_and_pushed_with_the_release(with_docs: World) -> None:
    with_docs.finish()
    docs = _docs_remote(with_docs)
    clone = with_docs.clone("recursive", "--recurse-submodules", "--branch", "v0.1.1")
    assert sha256sum_passes(clone, "docs/HASHES.sha256.txt")
    assert git(docs, "cat-file", "-t", TAG) == "tag"
    assert git(clone, "rev-parse", "HEAD:docs") == git(docs, "rev-parse", f"{TAG}^{{commit}}")
    assert (clone / "docs" / "VERSION").read_text() == "0.1.1\n"
    assert (clone / "docs" / "SOURCE_TAG").read_text() == "v0.1.1\n"
    assert "The little app" in git(docs, "show", "main:releases/v0.1.1.md")
    on_main = with_docs.clone("main", "--recurse-submodules")
    assert (on_main / "docs" / "releases" / "v0.1.1.md").exists()
    assert with_docs.runs() == {"staging": "0.1.1", "production": "0.1.1"}
    assert not with_docs.git("status", "--porcelain")
    before = {**with_docs.look(), "docs": git(docs, "for-each-ref")}
    with_docs.finish()
    assert {**with_docs.look(), "docs": git(docs, "for-each-ref")} == before


KILLS = [
    "add --force -- *VERSION*",
    "*commit *update version*",  # in docs/
    "add --force -- *docs*",
    "*commit *update version*",  # in the parent
    "tag --annotate*",
    "push *:refs/heads/main*",
    "add --force -- releases/v0.1.1.md",
    "*commit *notes for v0.1.1*",
    "add --force -- docs",
    "*commit *notes for v0.1.1*",
    "push *:refs/heads/main*",
]


@pytest.mark.faults
def test_a_release_killed_at_every_change_around_the_submodule_is_finished(with_docs: World) -> None:
    for point in KILLS:
        with_docs.kill(KILL_AFTER=point)
    with_docs.finish()
    clone = with_docs.clone("recursive", "--recurse-submodules", "--branch", "v0.1.1")
    assert sha256sum_passes(clone, "docs/HASHES.sha256.txt")
    tagged = git(_docs_remote(with_docs), "rev-parse", f"{TAG}^{{commit}}")
    assert git(clone, "rev-parse", "HEAD:docs") == tagged
    assert (with_docs.clone("main", "--recurse-submodules") / "docs" / "releases" / "v0.1.1.md").exists()
    assert with_docs.stamps() == {"staging": ["0.1.1"], "production": ["0.1.1"]}


def test_a_rehearsal_has_submodules_of_its_own(
    with_docs: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had none, so that it was refused in its clone, which went away."""
    monkeypatch.setattr(rehearsal, "open_environment", lambda *_: Mock())
    monkeypatch.setattr(rehearsal, "deploy_previous", lambda _: None)
    before = git(_docs_remote(with_docs), "for-each-ref")
    git_of_repo = Git.open(with_docs.repo, "origin")
    clone = rehearsal.make_clone(git_of_repo, tmp_path / "rehearsal", Settings())
    assert not git(clone, "status", "--porcelain")
    assert git(clone / "docs", "rev-parse", "HEAD") == git(clone, "rev-parse", "HEAD:docs")
    git(clone / "docs", "push", "--quiet", "origin", "HEAD:refs/heads/main", "HEAD:refs/tags/v0.1.1")
    assert git(_docs_remote(with_docs), "for-each-ref") == before


def test_a_submodule_that_is_not_checked_out_is_refused_with_the_command_that_fixes_it(with_docs: World) -> None:
    with_docs.git("submodule", "--quiet", "deinit", "docs")
    before = with_docs.remote_refs
    assert with_docs.release().refuses("git submodule update --init docs")
    assert with_docs.remote_refs == before
