"""Section 9: the evidence pack, one folder that shows what was released, checked by its own manifest."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

from release_tasks.errors import Manual, Problem, refuse, require
from release_tasks.evidence import bag, pack
from release_tasks.files import emptied, file_hashes, mismatches
from release_tasks.release import Release, Step
from release_tasks.sections.deployment import shown

MANIFEST = "manifest-sha256.txt"


def build_the_evidence_pack(release: Release) -> Step:
    """Build the evidence pack."""
    folder = pack_folder(release)
    if folder.exists():
        refuse(pack_problems(folder, release))
        return f"{len(file_hashes(folder))} files in {shown(folder, release)}"
    require(release.runs_in_production, "after production runs it")
    kept = next((place for place in _places(release) if place.exists() and not pack_problems(place, release)), None)
    yield f"fetch it back from {kept}" if kept else f"write {shown(folder, release)}"
    _write_whole(folder, release, kept)


def copy_the_pack_to_its_places(release: Release) -> Step:
    """Copy the pack to each configured place, and verify it there."""
    folder, places = pack_folder(release), _places(release)
    if not places:
        return "no places are set in release.evidence.places"
    require(folder.exists(), "after the evidence pack is built")
    refuse(problem for place in places if place.exists() for problem in pack_problems(place, release))
    missing = [place for place in places if not place.exists()]
    if not missing:
        return ", ".join(map(str, places))
    yield f"copy to {', '.join(map(str, missing))}"
    for place in missing:
        _write_whole(place, release, folder)


def ask_for_what_people_keep(release: Release) -> str:
    """Keep the hashes offline and encrypted; prepare the INPI filing if needed."""
    keep = f"copy {MANIFEST} of the pack to the offline, encrypted storage"
    return Manual(f"{keep}; file with INPI if this release needs it")


def pack_folder(release: Release) -> Path:
    return release.folder / "evidence"


def _places(release: Release) -> list[Path]:
    folders = [place.folder for place in release.settings.evidence.places if place.folder]
    return [release.root / folder / pack.name_of(release) for folder in folders]


def _write_whole(folder: Path, release: Release, copied: Path | None) -> None:
    """Let `folder` be a verified copy of the pack `copied`, or a new pack; nothing is there before it is whole."""
    incomplete = emptied(folder.with_name(f".{folder.name}.incomplete"))
    if copied:
        shutil.copytree(copied, incomplete, dirs_exist_ok=True)
    else:
        pack.build(release, incomplete)
    refuse(pack_problems(incomplete, release))
    incomplete.rename(folder)


def pack_problems(folder: Path, release: Release) -> list[Problem]:
    """Return what is wrong with the pack in `folder`: another release's, or not what its manifest lists."""
    hint, tag = f"Move {folder} away and keep it, then run again.", None
    if not (folder / MANIFEST).exists():
        return [Problem(f"{folder} has no {MANIFEST}.", hint)]
    if wrong := mismatches(folder, MANIFEST, [*bag.MANIFESTS, *bag.TAGMANIFESTS, *bag.OTHERS]):
        return [Problem(f"{folder / path} is not what {MANIFEST} says.", hint) for path in wrong]
    with suppress(OSError, ValueError, TypeError, KeyError):
        tag = json.loads((folder / "data" / "ids.json").read_bytes())["tag"]
    if tag == release.git.object_named(release.tag_ref):
        return []
    return [Problem(f"{folder} is of the tag {tag}, not of {release.tag}.", hint)]
