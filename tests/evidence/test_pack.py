"""What is in a pack, and that the same tag and records make the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from release_tasks.evidence import bag, pack
from release_tasks.release import Release
from tests.conftest import Work
from tests.evidence.attacks import Good
from tests.evidence.conftest import Verify

GITCONFIG = """[include]
path = {}
[core]
compression = 1
[pack]
window = 2
depth = 3
threads = 2
"""
FILES = [
    "HASHES.sha256.txt",
    "SOURCE_TAG",
    "VERIFY.md",
    "VERSION",
    "attest/provenance.intoto.json",
    "attest/release.intoto.json",
    "checks/smokes.json",
    "ddl/ORDER.lock",
    "ddl/applied-production.jsonl",
    "ddl/applied-staging.jsonl",
    "git/v0.1.1.bundle",
    "ids.json",
    "journal.jsonl",
    "keys/allowed_signers",
    "notes/v0.1.1.md",
    "report.html",
    "source/app-0.1.1.tar",
]


def test_a_pack_holds_what_was_released_and_what_was_recorded(good: Good) -> None:
    data = good.folder / "data"
    assert [name.removeprefix("data/") for name in bag.files_in(good.folder) if name.startswith("data/")] == FILES
    (row,) = map(json.loads, (data / "ddl" / "applied-staging.jsonl").read_text().splitlines())
    assert (row["file"], row["applied_at"], row["applied_by"]) == (
        "ddl/00_schemas.sql",
        "2026-11-26 14:00:00+00:00",
        "rita",
    )
    ids = json.loads((data / "ids.json").read_text())
    assert bag.info_of(good.folder)["External-Identifier"] == ids["swhids"][0] == f"swh:1:rel:{ids['tag']}"
    assert good.allowed.read_bytes() == (data / "keys" / "allowed_signers").read_bytes()


def test_the_same_tag_and_records_make_the_same_bytes(good: Good, tagged: Release, tmp_path: Path) -> None:
    """Also where the repository is packed otherwise meanwhile, and whatever the user's git is set to."""
    subprocess.run(["git", "config", "core.autocrlf", "true"], cwd=tagged.root, check=True)
    subprocess.run(["git", "config", "tar.umask", "0077"], cwd=tagged.root, check=True)
    again = tmp_path / "again"
    again.mkdir()
    pack.build(tagged, again)
    wanted = {path.name: path.read_bytes() for path in good.folder.iterdir() if path.is_file()}
    assert {path.name: path.read_bytes() for path in again.iterdir() if path.is_file()} == wanted
    for folder in (good.folder, again):
        bag.write_tar(folder / "data", "x", tmp_path / f"{folder.name}.tar")
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "app-0.1.1.tar").read_bytes()


def test_another_clone_that_is_packed_otherwise_makes_the_same_bytes(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is packed as tightly as git can, the other not at all; a third has more in it, and its user another git."""
    for version in range(40):
        numbers = "".join(f"line {n} of {version if n % 7 == version % 7 else 0}\n" for n in range(400))
        work.commit({"long.txt": numbers, f"own/{version % 5}.txt": numbers[version:]})
    work.release_before("v0.1.1")
    made = list[dict[str, bytes]]()
    for clone in ("tight", "loose", "more"):
        root = shutil.copytree(work.root, tmp_path / clone / "work")
        subprocess.run(["git", "gc", "--quiet", "--aggressive", "--prune=now"], cwd=root, check=True)
        if clone == "loose":
            for packed in (root / ".git/objects/pack").glob("*.pack"):
                moved = packed.rename(tmp_path / packed.name)
                packed.with_suffix(".idx").unlink()
                with moved.open("rb") as file:
                    subprocess.run(["git", "unpack-objects", "-q"], cwd=root, stdin=file, check=True)
        if clone == "more":
            (theirs := tmp_path / "gitconfig").write_text(GITCONFIG.format(os.environ["GIT_CONFIG_GLOBAL"]))
            monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(theirs))
            subprocess.run(["git", "branch", "v0.1.1"], cwd=root, check=True)
            Work(root, work.remote).commit({"later.txt": numbers})
        (data := tmp_path / clone / "data").mkdir()
        pack.source(Work(root, work.remote).release(), data)
        made.append({path.name: path.read_bytes() for path in data.rglob("*.*") if path.is_file()})
    assert made[0] == made[1] == made[2]


def test_another_implementation_finds_the_same_swhids(good: Good, tmp_path: Path) -> None:
    """Software Heritage's own finds that of the tree in the source; those of commit and tag are hashes by its rule."""
    from swh.model.from_disk import Directory

    subprocess.run(["tar", "--extract", "--file", good.source, "--directory", tmp_path], check=True)
    tree = Directory.from_disk(path=bytes(tmp_path / good.source.stem), max_content_length=None).swhid()
    subprocess.run(["git", "clone", "--quiet", "--bare", good.bundle, tmp_path / "clone"], check=True)
    hashed = []
    for kind, ref in ((b"tag", "v0.1.1"), (b"commit", "v0.1.1^0")):
        argv = ["git", f"--git-dir={tmp_path / 'clone'}", "cat-file", kind, ref]
        content = subprocess.run(argv, check=True, capture_output=True).stdout
        hashed.append(hashlib.sha1(b"%b %d\0%b" % (kind, len(content), content)).hexdigest())
    ids = json.loads((good.folder / "data" / "ids.json").read_text())
    assert ids["swhids"] == [f"swh:1:rel:{hashed[0]}", f"swh:1:rev:{hashed[1]}", str(tree)]


def test_a_source_with_odd_names_modes_and_links_is_the_tagged_tree(good: Good, verified: Verify) -> None:
    found = verified(good)["source"]
    assert found.is_pass and found.observed == ("16 files",)
