"""What the notes say of the database: what the DDL pack makes differently than the last release's, and what to run."""

from __future__ import annotations

from collections.abc import Sequence

from release_tasks import ddl
from release_tasks.database import drift
from release_tasks.database.pack import DdlFile, changes, pack_at, recorded
from release_tasks.errors import Refused
from release_tasks.release import Release

UNDONE = ("drops", "empties", "changes rows of")  # what cannot be undone


def database_changes(release: Release, since: str | None) -> list[str]:
    """Return the objects and files in which the pack differs from that of the release `since`; the first is counted."""
    before, now = _packs(release, since)
    moved = changes(before, now)
    if not moved:
        made = []
    elif since:
        objects = objects_changed(before, now, release) or ["the same objects as before"]
        made = [*objects, f"files: {'; '.join(moved)}"]
    else:
        made = [f"first release of the pack: {len(now)} files, {_count(now, release)}"]
    return [*made, *recorded(release.git, release.commit, release.tag)]


def _packs(release: Release, since: str | None) -> tuple[list[DdlFile], list[DdlFile]]:
    """Return the pack of the release `since`, and this one's."""
    git, settings = release.git, release.settings
    before = pack_at(git, f"refs/tags/{since}", settings) if since else []
    return before, pack_at(git, release.commit, settings)


def _count(pack: Sequence[DdlFile], release: Release) -> str:
    try:
        return f"{len(drift.shifts([], pack, release.root, release.settings))} objects"
    except Refused as no:
        return f"what they make is not known: {no}"


def objects_changed(before: Sequence[DdlFile], now: Sequence[DdlFile], release: Release) -> list[str]:
    """Return which objects the pack `now` makes differently than `before`; one line where they cannot be compared."""
    try:
        return [str(shift) for shift in drift.shifts(before, now, release.root, release.settings)]
    except Refused as no:
        return [f"the objects of the two packs cannot be compared: {no}"]


def deployment(release: Release, since: str | None) -> list[str]:
    """Return what an operator has to know: what to run, what it locks, what cannot be undone."""
    before, now = _packs(release, since)
    if not changes(before, now):
        return []
    runner = " ".join(release.settings.ddl.command) or "inv deploy.staging"
    files = ddl.proof_of(now, before, release.root, release.settings).files if before else {}
    done = [(f"`{path}` {each}", each.startswith(UNDONE)) for path, does in files.items() for each in does]
    return [
        f"the DDL pack has changed: it is applied by `{runner}`, after a backup",
        *(f"lock: {line} (ACCESS EXCLUSIVE)" for line, _ in done if " locks " in line),
        *(f"takes long on a large table: {line}" for line, _ in done if " rewrites " in line),
        *(f"cannot be undone: {line}" for line, final in done if final),
    ]
