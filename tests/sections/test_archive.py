"""The evidence pack: a stranger can verify it, and whatever is not as it was is named."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from release_tasks.files import checksum_lines, file_hashes, point_link
from release_tasks.outcome import CHANGED, DONE, PENDING, REFUSED, Outcome
from release_tasks.sections import archive
from release_tasks.sections.archive import MANIFEST, build_the_evidence_pack, copy_the_pack_to_its_places, pack_problems

if TYPE_CHECKING:
    from release_tasks.release import Release
    from tests.conftest import Web, Work

FILES = [
    "HASHES.sha256.txt",
    "SOURCE_TAG",
    "VERIFY.md",
    "VERSION",
    "ddl/ORDER.lock",
    "ddl/applied-production.jsonl",
    "ddl/applied-staging.jsonl",
    "git/v0.1.1.bundle",
    "ids.json",
    "journal.jsonl",
    "notes/v0.1.1.md",
    "source/app-0.1.1.tar",
]


@pytest.fixture
def release(work: Work, web: Web, dsn: str) -> Release:
    """Return a release that is tagged, has its notes, and runs in production."""
    env = {"dsn": dsn, "origin": web.origin, "folder": "srv", "restart": ["true"], "log": "none"}
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create schema ops")
        connection.execute("create table ops.ddl_ledger (file text, sha256 text, version text, applied_at timestamptz)")
        connection.execute("insert into ops.ddl_ledger values ('ddl/00.sql', '00', '0.1.1', '2026-11-26 15:00+01')")
    release = work.release(
        environments={"staging": env, "production": env},
        evidence={"places": [".release/archive", "../vault"]},
        branch="",
    )
    files = {
        "VERSION": "0.1.1\n",
        "SOURCE_TAG": "v0.1.1\n",
        "docs/HASHES.sha256.txt": "# none\n",
        "ddl/ORDER.lock": "# x\n",
        ".gitattributes": "docs export-ignore\nSOURCE_TAG export-subst\n",
    }
    work.commit(files, "release")
    work.git("tag", "--annotate", "--message", "x", "v0.1.1")
    work.commit({release.notes_path: "# App v0.1.1\n"}, "notes")
    work.git("push", "--quiet", "origin", "main", "v0.1.1")
    release.journal.record("step", step="Tag")
    (work.root / "srv").mkdir()
    point_link(work.root / "srv" / "current", work.root / "srv" / "releases" / "v0.1.1")
    web.be("0.1.1")
    return release


@pytest.fixture
def pack(release: Release, take: Callable[..., Outcome]) -> Path:
    assert take(build_the_evidence_pack, release).state == CHANGED
    return archive.pack_folder(release)


def what(pack: Path, release: Release) -> list[str]:
    return [problem.what for problem in pack_problems(pack, release)]


def test_a_pack_is_only_built_of_what_runs_in_production(
    release: Release, web: Web, take: Callable[..., Outcome]
) -> None:
    web.be("0.1.0")
    look = take(build_the_evidence_pack, release, change=False)
    assert (look.state, look.text) == (PENDING, "after production runs it")
    assert take(copy_the_pack_to_its_places, release, change=False).state == PENDING


def test_a_pack_is_whole_and_stays_as_it_is(pack: Path, release: Release, take: Callable[..., Outcome]) -> None:
    assert pack_problems(pack, release) == []
    look = take(build_the_evidence_pack, release)
    assert (look.state, look.text) == (DONE, f"{len(FILES) + 6} files in .release/v0.1.1/evidence")
    assert not list(pack.parent.glob("*incomplete*"))


def test_a_stranger_verifies_it_with_sha256sum_git_and_tar(pack: Path, release: Release, tmp_path: Path) -> None:
    """R19: docs with the attribute `export-ignore` were not in the archive, though in the hashes."""

    def run(*argv: str, cwd: Path = pack) -> str:
        return subprocess.run(argv, cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()

    run("sha256sum", "--check", "--strict", "--quiet", MANIFEST)
    listed = [line.split("  ")[1] for line in (pack / MANIFEST).read_text().splitlines()]
    assert listed == [f"data/{name}" for name in FILES]
    data = pack / "data"
    ids = json.loads((data / "ids.json").read_text())
    run("git", "clone", "--quiet", "--bare", "data/git/v0.1.1.bundle", str(tmp_path / "clone"))
    for object_id, name in ((ids["tag"], ""), (ids["commit"], "^{commit}"), (ids["tree"], "^{tree}")):
        assert run("git", "rev-parse", f"refs/tags/v0.1.1{name}", cwd=tmp_path / "clone") == object_id
    run("tar", "--extract", "--file", "data/source/app-0.1.1.tar", "--directory", str(tmp_path))
    source = tmp_path / "app-0.1.1"
    run("git", "init", "--quiet", cwd=source)
    run("git", "add", "--all", "--force", cwd=source)
    assert run("git", "write-tree", cwd=source) == ids["tree"]
    assert (source / "VERSION").read_text() == "0.1.1\n" == (data / "VERSION").read_text()
    assert (data / "notes" / "v0.1.1.md").read_text() == "# App v0.1.1\n"


@pytest.mark.parametrize("path", ["data/VERSION", "data/git/v0.1.1.bundle", "data/journal.jsonl", "data/ids.json"])
def test_a_file_that_was_changed_is_named(pack: Path, release: Release, path: str) -> None:
    with (pack / path).open("ab") as file:
        file.write(b"x")
    assert f"{pack / path} is not what {MANIFEST} says." in what(pack, release)


def test_files_that_are_missing_or_too_many_are_named(pack: Path, release: Release) -> None:
    (pack / "data" / "notes" / "v0.1.1.md").unlink()
    (pack / "data" / "notes" / "extra (1).md").touch()
    assert what(pack, release) == [
        f"{pack / 'data' / 'notes' / name} is not what {MANIFEST} says." for name in ("extra (1).md", "v0.1.1.md")
    ]
    (pack / MANIFEST).unlink()
    assert what(pack, release) == [f"{pack} has no {MANIFEST}."]


def test_a_pack_of_another_tag_is_not_ours(pack: Path, release: Release, work: Work) -> None:
    theirs = json.loads((pack / "data" / "ids.json").read_text())["tag"]
    work.git("tag", "--force", "--annotate", "--message", "again", "v0.1.1", "v0.1.1^{}")
    release.refresh()
    assert what(pack, release) == [f"{pack} is of the tag {theirs}, not of v0.1.1."]


@pytest.mark.parametrize("ids", ["", "[]", '"tag"', "{}"])
def test_a_pack_whose_ids_are_none_is_of_no_tag(pack: Path, release: Release, ids: str) -> None:
    """F8"""
    (pack / "data" / "ids.json").write_text(ids)
    (pack / MANIFEST).write_bytes(
        checksum_lines({name: digest for name, digest in file_hashes(pack).items() if name.startswith("data/")})
    )
    assert what(pack, release) == [f"{pack} is of the tag None, not of v0.1.1."]


def test_a_damaged_pack_is_refused_and_left_as_it_is(
    pack: Path, release: Release, take: Callable[..., Outcome]
) -> None:
    (pack / "data" / "VERSION").write_text("0.1.2\n")
    assert take(build_the_evidence_pack, release).state == REFUSED
    assert (pack / "data" / "VERSION").read_text() == "0.1.2\n"


def test_copies_are_verified_in_their_places_and_bring_a_lost_pack_back(
    pack: Path, release: Release, work: Work, take: Callable[..., Outcome]
) -> None:
    assert take(copy_the_pack_to_its_places, release).state == CHANGED
    assert take(copy_the_pack_to_its_places, release).state == DONE
    places = [work.root / ".release" / "archive" / "app-0.1.1", work.root.parent / "vault" / "app-0.1.1"]
    assert [what(place, release) for place in places] == [[], []]
    manifest = (pack / MANIFEST).read_bytes()
    shutil.rmtree(pack)
    release.journal.record("step", step="Later")
    (places[0] / "data" / "VERSION").write_text("damaged")
    look = take(build_the_evidence_pack, release)
    assert look.state == CHANGED and look.text.startswith("fetch it back from ") and "vault" in look.text
    assert (pack / MANIFEST).read_bytes() == manifest
    look = take(copy_the_pack_to_its_places, release)
    assert look.state == REFUSED and str(places[0] / "data" / "VERSION") in look.problems[0].what
