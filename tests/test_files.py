"""Files appear whole, and their checksums are what sha256sum reads."""

from __future__ import annotations

import io
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from release_tasks.files import (
    atomic_write,
    checksum_lines,
    extract,
    file_hashes,
    read_checksums,
    records_folder,
    sha256,
)

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


def archive(*members: tuple[str, bytes, str]) -> tarfile.TarFile:
    """Return a tar of `members`: name, type, and the target of a link or the content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, text in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o777
            if kind == tarfile.REGTYPE:
                member.size = len(text)
            else:
                member.linkname = text
            tar.addfile(member, io.BytesIO(text.encode()))
    stream.seek(0)
    return tarfile.open(fileobj=stream)


@pytest.fixture(params=["this Python", "before 3.11.4"])
def python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian 12 has Python 3.11.2, whose `extractall` knows no filter."""
    if request.param == "this Python":
        return
    extractall = tarfile.TarFile.extractall

    def old(self: tarfile.TarFile, path: Path, members: Any = None) -> None:
        trusted = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
        extractall(self, path, members, **trusted)

    monkeypatch.setattr(tarfile.TarFile, "extractall", old)
    monkeypatch.delattr(tarfile, "data_filter", raising=False)


@pytest.mark.usefixtures("python")
def test_what_git_archives_is_extracted_as_it_was(work: Work, tmp_path: Path) -> None:
    work.write({"a/run (1).sh": "#!/bin/sh\n"})
    (work.root / "a" / "run (1).sh").chmod(0o775)
    (work.root / "link").symlink_to("a/run (1).sh")
    work.commit({})
    work.git("archive", f"--output={tmp_path / 'code.tar'}", "HEAD")
    with tarfile.open(tmp_path / "code.tar") as tar:
        extract(tar, tmp_path / "code")
    assert file_hashes(tmp_path / "code") == {
        path: digest for path, digest in file_hashes(work.root).items() if not path.startswith(".git/")
    }
    assert (tmp_path / "code" / "link").readlink() == Path("a/run (1).sh")
    assert stat.S_IMODE((tmp_path / "code" / "a" / "run (1).sh").stat().st_mode) == 0o755


@pytest.mark.usefixtures("python")
@pytest.mark.parametrize(
    "members",
    [
        [("../out", tarfile.REGTYPE, "x")],
        [("link", tarfile.SYMTYPE, "../out")],
        [("link", tarfile.LNKTYPE, "../out")],
        [("a", tarfile.SYMTYPE, "."), ("a/b", tarfile.SYMTYPE, ".."), ("a/b/out", tarfile.REGTYPE, "x")],
        [("pipe", tarfile.FIFOTYPE, ""), ("device", tarfile.CHRTYPE, "")],
    ],
    ids=["above", "symbolic link", "hard link", "through links", "device"],
)
def test_nothing_is_extracted_outside_of_the_folder(members: list[tuple[str, bytes, str]], tmp_path: Path) -> None:
    with archive(*members) as tar, pytest.raises(tarfile.TarError):
        extract(tar, tmp_path / "folder")
    assert not (tmp_path / "out").exists()
