"""Section 9: the evidence pack, one folder that shows what was released, checked by its own manifest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from release_tasks.database import backup
from release_tasks.errors import Manual, NotYet, Problem, Refused, refuse
from release_tasks.files import atomic_write, checksum_lines, file_hashes, mismatches
from release_tasks.release import Release, Step

MANIFEST = "manifest-sha256.txt"


def build_the_evidence_pack(release: Release) -> Step:
    """Build the evidence pack."""
    folder = pack_folder(release)
    if folder.exists():
        refuse(pack_problems(folder, release))
        return f"{len(file_hashes(folder))} files in {folder.relative_to(release.root).as_posix()}"
    if not release.runs_in_production:
        raise NotYet("after production runs it")
    kept = next((place for place in _places(release) if place.exists() and not pack_problems(place, release)), None)
    yield f"fetch it back from {kept}" if kept else f"write {folder.relative_to(release.root).as_posix()}"
    incomplete = folder.with_name(f".{folder.name}.incomplete")
    shutil.rmtree(incomplete, ignore_errors=True)
    if kept:
        shutil.copytree(kept, incomplete)
    else:
        _fill(incomplete, release)
    incomplete.rename(folder)


def copy_the_pack_to_its_places(release: Release) -> Step:
    """Copy the pack to each configured place, and verify it there."""
    folder, places = pack_folder(release), _places(release)
    if not places:
        return "no places are set in release.archive"
    if not folder.exists():
        raise NotYet("after the evidence pack is built")
    missing = [place for place in places if not place.exists()]
    refuse(problem for place in places if place.exists() for problem in pack_problems(place, release))
    if not missing:
        return ", ".join(map(str, places))
    yield f"copy to {', '.join(map(str, missing))}"
    for place in missing:
        incomplete = place.with_name(f".{place.name}.incomplete")
        shutil.rmtree(incomplete, ignore_errors=True)
        shutil.copytree(folder, incomplete)
        refuse(pack_problems(incomplete, release))
        incomplete.rename(place)


def ask_for_what_people_keep(release: Release) -> str:
    """Keep the hashes offline and encrypted; prepare the INPI filing if needed."""
    return Manual(
        f"copy {MANIFEST} of the pack to the offline, encrypted storage; file with INPI if this release needs it"
    )


def pack_folder(release: Release) -> Path:
    return release.folder / "evidence"


def _places(release: Release) -> list[Path]:
    name = f"{release.settings.app}-{release.version}"
    return [release.root / place / name for place in release.settings.archive if place]


def _fill(folder: Path, release: Release) -> None:
    """Write the pack of `release` into `folder`; the bundle is cloned to see that it holds the tag."""
    git, tag, docs = release.git, release.tag, release.settings.docs_pack
    commit, name = release.commit, f"{release.settings.app}-{release.version}"
    for part in ("git", "source", "notes", "ddl", "checks"):
        (folder / part).mkdir(parents=True)
    bundle, source = folder / "git" / f"{tag}.bundle", folder / "source" / f"{name}.tar"
    git.run("bundle", "create", "--quiet", str(bundle), release.tag_ref)
    git.run("archive", "--format=tar", f"--prefix={name}/", f"--output={source}", commit)
    ids = {"tag": git.object_named(release.tag_ref), "commit": commit, "tree": git.object_named(f"{commit}^{{tree}}")}
    atomic_write(folder / "ids.json", json.dumps({"version": release.version, **ids}, indent=2).encode())
    committed = {
        "VERSION": "VERSION",
        "SOURCE_TAG": "SOURCE_TAG",
        "HASHES.sha256.txt": docs.hashes,
        "ddl/ORDER.lock": release.settings.ddl.lock,
    }
    for there, here in committed.items():
        atomic_write(folder / there, _committed(release, commit, here))
    atomic_write(folder / "notes" / f"{tag}.md", _committed(release, release.tip, release.notes_path))
    if (checks := release.folder / "checks").exists():
        shutil.copytree(checks, folder / "checks", dirs_exist_ok=True)
    if used := backup.made_for(release.environment("production"), commit):
        to = folder / "checks" / "backup" / used.name
        shutil.copytree(used.folder, to, ignore=shutil.ignore_patterns(backup.DUMP))
    if release.journal.path.exists():
        shutil.copy(release.journal.path, folder)
    _clone_and_compare(bundle, release, ids["tag"])
    atomic_write(folder / MANIFEST, checksum_lines(file_hashes(folder)))


def _committed(release: Release, commit: str, path: str) -> bytes:
    content = release.git.bytes_at(commit, path)
    if not content:
        raise Refused(f"The evidence pack needs {path}; it is missing or empty in {commit:.9}.", f"git show {commit}")
    return content


def _clone_and_compare(bundle: Path, release: Release, tag_object: str | None) -> None:
    with TemporaryDirectory() as clone:
        release.git.run("clone", "--quiet", "--bare", str(bundle), clone, timeout=300)
        found = release.git.run("-C", clone, "rev-parse", release.tag_ref).stdout.strip()
    if found != tag_object:
        raise Refused(f"The bundle holds {found}, not the tag {tag_object}.", "git fsck")


def pack_problems(folder: Path, release: Release) -> list[Problem]:
    """Return what is wrong with the pack in `folder`: another release's, or not what its manifest lists."""
    manifest = folder / MANIFEST
    hint = f"Move {folder} away and keep it, then run again."
    if not manifest.exists():
        return [Problem(f"{folder} has no {MANIFEST}.", hint)]
    if wrong := mismatches(folder, MANIFEST):
        return [Problem(f"{folder / path} is not what {MANIFEST} says.", hint) for path in wrong]
    tag = json.loads((folder / "ids.json").read_bytes())["tag"] if (folder / "ids.json").exists() else None
    if tag != release.git.object_named(release.tag_ref):
        return [Problem(f"{folder} is of the tag {tag}, not of {release.tag}.", hint)]
    return []
