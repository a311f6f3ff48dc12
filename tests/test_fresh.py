"""What the proof on a bare Debian takes for left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import fresh


def test_whatever_is_made_outside_the_named_caches_is_found(tmp_path: Path) -> None:
    for folder in ("tmp", "var/lib", fresh.HOME / "project", fresh.HOME / ".cache", "proc"):
        (tmp_path / folder).mkdir(parents=True)
    before = fresh.files_of(tmp_path)
    (tmp_path / "tmp" / "file").touch()
    (tmp_path / "tmp" / "file").unlink()
    for allowed in (fresh.HOME / "project" / ".nox", fresh.HOME / ".cache" / "pip", "tmp/pnpm-1", "proc/1"):
        (tmp_path / allowed).mkdir()
    assert fresh.left_outside(before, fresh.files_of(tmp_path)) == []
    (tmp_path / "var" / "lib" / "empty").mkdir()
    (tmp_path / "tmp" / "link").symlink_to("/var")
    (tmp_path / "tmp" / "file").touch()
    assert fresh.left_outside(before, fresh.files_of(tmp_path)) == ["tmp/file", "tmp/link", "var/lib/empty"]


def test_an_environment_that_was_not_made_has_no_size(tmp_path: Path) -> None:
    assert fresh.size_of(tmp_path / ".nox") == 0


def test_a_broken_evidence_pack_is_a_failure(tmp_path: Path) -> None:
    pack = tmp_path / ".release" / "rehearsals" / "v0.1.1"
    pack.mkdir(parents=True)
    (pack / "manifest-sha256.txt").write_text(f"{'0' * 64}  gone\n")
    with pytest.raises(fresh.Failed, match="The evidence pack is not as its manifest says"):
        fresh.verify_the_evidence(tmp_path)
