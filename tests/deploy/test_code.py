"""The code of a release on the releasing machine: unpacked once, whole."""

from __future__ import annotations

import os
import shutil
import tarfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from release_tasks.deploy import code
from release_tasks.errors import Refused
from release_tasks.git import Git

if TYPE_CHECKING:
    from tests.conftest import Work


def fail(folder: Path) -> None:
    raise Refused("The registry is away.")


def test_a_tree_whose_install_failed_is_not_taken_for_that_of_the_commit_before(work: Work) -> None:
    """It was: DDL runner, stamp and tar used the other commit's files."""
    one, two = work.commit({"file": "one"}), work.commit({"file": "two"})
    with closing(Git.open(work.root, "origin")) as git:
        code.make_ready(git, "v0.1.1", one, lambda folder: None)
        with pytest.raises(Refused):
            code.make_ready(git, "v0.1.1", two, fail)
        assert not code.is_ready(work.root, "v0.1.1", one)
        folder = code.make_ready(git, "v0.1.1", one, lambda folder: None)
        assert (folder / "file").read_text() == "one"
        shutil.rmtree(folder)  # by a person who needs the space
        assert not code.is_ready(work.root, "v0.1.1", one)


def test_the_code_that_was_used_last_stays_and_other_code_is_made_again_when_it_is_wanted(work: Work) -> None:
    """It stayed for good, with all its packages."""
    commit, tags = work.commit({"file": "one"}), [f"v0.1.{number}" for number in range(5)]
    with closing(Git.open(work.root, "origin")) as git:
        for age, tag in zip(range(5, 0, -1), tags, strict=True):
            folder = code.make_ready(git, tag, commit, lambda folder: None)
            mark, then = folder.with_suffix(".ready"), time.time() - 60 * age
            os.utime(mark, (then, then))
            code.make_ready(git, tags[0], commit, lambda folder: None)  # it is what runs
        assert [tag for tag in tags if code.is_ready(work.root, tag, commit)] == [tags[0], *tags[3:]]
        assert [tag for tag in tags if code.folder_of(work.root, tag).exists()] == [tags[0], *tags[3:]]
        assert (code.make_ready(git, tags[1], commit, lambda folder: None) / "file").read_text() == "one"


def test_hosts_get_what_is_committed_also_from_windows(work: Work, tmp_path: Path) -> None:
    """With `* text=auto` they got CRLF in scripts, and symlinks as text files."""
    work.commit({".gitattributes": "* text=auto\n", "run.sh": "#!/bin/sh\n"})
    (work.root / "link").symlink_to("run.sh")
    commit = work.commit({})
    for key, value in (("core.eol", "crlf"), ("core.symlinks", "false")):
        work.git("config", key, value)
    with closing(Git.open(work.root, "origin")) as git:
        tree = code.make_ready(git, "v0.1.1", commit, lambda folder: None)
        assert not (tree / "link").is_symlink(), "as there"
        code.write_tar(git, commit, tree, tmp_path / "tree.tar")
    with tarfile.open(tmp_path / "tree.tar") as tar:
        assert tar.getmember("link").linkname == "run.sh" and tar.getmember("link").issym()
        script = tar.extractfile("run.sh")
        assert script and script.read() == b"#!/bin/sh\n"


def test_a_commit_that_is_not_here_comes_with_the_command_that_fetches_it(work: Work) -> None:
    with closing(Git.open(work.root, "origin")) as git, pytest.raises(Refused) as refused:
        code.make_ready(git, "v0.1.1", "0" * 40, lambda folder: None)
    assert refused.value.problems[0].hint == "git fetch origin tag v0.1.1"
