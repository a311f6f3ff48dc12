"""Section 9: the evidence pack, one folder that shows what was released, checked by its own manifest."""

import json
import shutil
import tarfile
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from release_tasks.database import backup
from release_tasks.errors import Manual, Problem, Refused, refuse, require
from release_tasks.files import atomic_write, checksum_lines, emptied, file_hashes, mismatches
from release_tasks.release import Release, Step
from release_tasks.sections.deployment import shown, unpack_commit

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
        return "no places are set in release.archive"
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
    return [release.root / place / _name(release) for place in release.settings.archive if place]


def _name(release: Release) -> str:
    return f"{release.settings.app}-{release.tag.removeprefix('v')}"


def _write_whole(folder: Path, release: Release, copied: Path | None) -> None:
    """Let `folder` be a verified copy of the pack `copied`, or a new pack; nothing is there before it is whole."""
    incomplete = emptied(folder.with_name(f".{folder.name}.incomplete"))
    if copied:
        shutil.copytree(copied, incomplete, dirs_exist_ok=True)
    else:
        _fill(incomplete, release)
    refuse(pack_problems(incomplete, release))
    incomplete.rename(folder)


def _fill(folder: Path, release: Release) -> None:
    """Write the pack of `release` into `folder`."""
    git, tag, commit, settings = release.git, release.tag, release.commit, release.settings
    name, bundle = _name(release), folder / "git" / f"{tag}.bundle"
    for part in ("git", "source", "checks"):
        (folder / part).mkdir()
    git.run("bundle", "create", "--quiet", str(bundle), release.tag_ref)
    git.run("bundle", "verify", "--quiet", str(bundle))
    with TemporaryDirectory() as temporary, tarfile.open(folder / "source" / f"{name}.tar", "w") as tar:
        unpack_commit(git, commit, Path(temporary, name))
        tar.add(Path(temporary, name), name)
    files = {name: name for name in ("VERSION", "SOURCE_TAG")}
    files |= {"HASHES.sha256.txt": settings.docs_pack.hashes, "ddl/ORDER.lock": settings.ddl.lock}
    for there, path in {**files, f"notes/{tag}.md": release.notes_path}.items():
        at = release.tip if path == release.notes_path else commit
        if not (content := git.bytes_at(at, path)):
            raise Refused(f"The evidence pack needs {path}; it is missing or empty in {at:.9}.", f"git show {at}")
        atomic_write(folder / there, content)
    ids = {"tag": git.object_named(release.tag_ref), "commit": commit, "tree": git.object_named(f"{commit}^{{tree}}")}
    atomic_write(folder / "ids.json", json.dumps({"version": release.version, **ids}, indent=2).encode())
    if (checks := release.folder / "checks").exists():
        shutil.copytree(checks, folder / "checks", dirs_exist_ok=True)
    if used := backup.made_for(release.environment("production"), commit):
        to = folder / "checks" / "backup" / used.name
        shutil.copytree(used.folder, to, ignore=shutil.ignore_patterns(backup.DUMP))
    if release.journal.path.exists():
        shutil.copy(release.journal.path, folder)
    atomic_write(folder / MANIFEST, checksum_lines(file_hashes(folder)))


def pack_problems(folder: Path, release: Release) -> list[Problem]:
    """Return what is wrong with the pack in `folder`: another release's, or not what its manifest lists."""
    hint, tag = f"Move {folder} away and keep it, then run again.", None
    if not (folder / MANIFEST).exists():
        return [Problem(f"{folder} has no {MANIFEST}.", hint)]
    if wrong := mismatches(folder, MANIFEST):
        return [Problem(f"{folder / path} is not what {MANIFEST} says.", hint) for path in wrong]
    with suppress(OSError, ValueError, TypeError, KeyError):
        tag = json.loads((folder / "ids.json").read_bytes())["tag"]
    if tag == release.git.object_named(release.tag_ref):
        return []
    return [Problem(f"{folder} is of the tag {tag}, not of {release.tag}.", hint)]
