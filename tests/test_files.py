"""Files appear whole, and their checksums are what sha256sum reads."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from release_tasks.files import (
    atomic_write,
    checksum_lines,
    emptied,
    file_hashes,
    read_checksums,
    records_folder,
    sha256,
)
from release_tasks.machine import point_link, read_link

if TYPE_CHECKING:
    from tests.conftest import Work

# What sha256sum writes without an escape: https://www.gnu.org/software/coreutils/manual/html_node/md5sum-invocation.html
PATHS = st.text(st.characters(exclude_characters="\n\r\\\0", exclude_categories=["Cs"]), min_size=1)
HASHES = st.dictionaries(PATHS, st.binary().map(sha256))


def test_a_file_is_written_with_its_folders_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b c" / "file"
    for content in (b"first", b"\x00second\r\n", b""):
        atomic_write(path, content)
        assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
@pytest.mark.parametrize("mode", [0o755, 0o600, 0o444])
def test_a_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "script.sh"
    path.touch()
    path.chmod(mode)
    atomic_write(path, b"#!/bin/sh\n")
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        atomic_write(tmp_path / "taken", b"")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


@given(HASHES)
@example({"a  b (1).sql": sha256(b""), "# no comment": sha256(b""), " leading": sha256(b"")})
@example({"line\u2028separator": sha256(b"")})
def test_checksums_are_read_as_they_were_written(hashes: dict[str, str]) -> None:
    read = read_checksums(checksum_lines(hashes))
    assert read == hashes and list(read) == list(hashes)


def test_comments_and_empty_lines_of_a_checksum_file_are_passed_over() -> None:
    listing = b"# v0.1.1: the order\n\n" + checksum_lines({"a": sha256(b"a")})
    assert read_checksums(listing) == {"a": sha256(b"a")}


def test_sha256sum_verifies_what_we_write(tmp_path: Path) -> None:
    for name in ("plain.sql", "with space (1).sql", "Ünï.txt", "deep/er/file"):
        atomic_write(tmp_path / "pack" / name, name.encode())
    listing = tmp_path / "listing"
    listing.write_bytes(b"# a comment\n" + checksum_lines(file_hashes(tmp_path / "pack")))
    check = ["sha256sum", "--check", "--strict", "--quiet", str(listing)]
    assert subprocess.run(check, cwd=tmp_path / "pack", check=False).returncode == 0
    (tmp_path / "pack" / "with space (1).sql").write_bytes(b"changed")
    assert subprocess.run(check, cwd=tmp_path / "pack", check=False, capture_output=True).returncode == 1


def test_the_files_of_a_folder_are_sorted_by_path_with_forward_slashes(tmp_path: Path) -> None:
    for name in ("b", "a/z", "a/B", "a.txt"):
        atomic_write(tmp_path / name, b"")
    (tmp_path / "empty").mkdir()
    assert list(file_hashes(tmp_path)) == ["a.txt", "a/B", "a/z", "b"]


def test_what_is_ours_is_not_git_s(work: Work) -> None:
    atomic_write(records_folder(work.root) / "v0.1.1" / "journal.jsonl", b"{}\n")
    records_folder(work.root)
    assert work.git("status", "--porcelain", "--untracked-files=all") == ""


def test_a_link_is_read_back_also_as_a_text_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "current"
    assert read_link(link) is None
    point_link(link, tmp_path / "one")
    assert read_link(link) == (tmp_path / "one").resolve()
    point_link(link, Path("two"))
    assert read_link(link) == (tmp_path / "two").resolve()
    link.unlink()
    monkeypatch.setattr(sys, "platform", "win32")
    point_link(link, tmp_path / "three")
    assert not link.is_symlink()
    assert read_link(link) == (tmp_path / "three").resolve()
    assert [path.name for path in tmp_path.iterdir()] == ["current"]


def test_what_cannot_be_removed_is_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that an install had left as root went into the release."""
    (tmp_path / "part" / "stale").mkdir(parents=True)
    assert list(emptied(tmp_path / "part").iterdir()) == []
    (tmp_path / "part" / "stale").mkdir()
    monkeypatch.setattr(shutil, "rmtree", lambda folder, ignore_errors=False: None)
    with pytest.raises(FileExistsError):
        emptied(tmp_path / "part")
