"""What the notes say of the database: what the DDL pack makes differently than the last release's, and what to run."""

from __future__ import annotations

import re
from collections.abc import Sequence

from release_tasks import ddl, versions
from release_tasks.database import drift
from release_tasks.database.pack import DdlFile, changes, pack_at, recorded
from release_tasks.errors import Refused
from release_tasks.release import Release

NOTED = {  # of what a file was seen to do: kind → how that begins
    "lock (ACCESS EXCLUSIVE)": "` locks ",
    "takes long on a large table": "` rewrites ",
    "cannot be undone": "` (drops|empties|changes rows of) ",
}


def last_release(release: Release) -> str | None:
    """Return the tag of the release before: the remote's highest final version below this one, None before any.

    Raises `Refused` where that tag is not here. It need not be in our history: a release branch may be merged squashed.
    """
    found = [versions.version_named(ref.removeprefix("refs/tags/")) for ref in release.git.remote_refs]
    finals = [each for each in found if each and "-" not in each and versions.is_past(release.version, each)]
    last = versions.highest(finals)
    return f"v{last}" if last and release.tag_there(f"v{last}") else None


def packs(release: Release) -> tuple[str | None, list[DdlFile], list[DdlFile]]:
    """Return the tag of the release before, its pack, and this release's; no tag and no files before the first."""
    since, git, settings = last_release(release), release.git, release.settings
    last = pack_at(git, f"refs/tags/{since}", settings) if since else []
    return since, last, pack_at(git, release.commit, settings)


def database_changes(release: Release) -> list[str]:
    """Return the objects and files in which the pack differs from the last release's; the first is counted."""
    since, last, now = packs(release)
    fixes = list(recorded(release.git, release.commit, release.tag))
    if not since:
        return [*([f"first release of the pack: {len(now)} files"] if now else []), *fixes]
    if moved := changes(last, now):
        objects = objects_changed(last, now, release) or ["the same objects as before"]
        return [*objects, f"files: {'; '.join(moved)}", *fixes]
    return fixes


def objects_changed(before: Sequence[DdlFile], now: Sequence[DdlFile], release: Release) -> list[str]:
    """Return which objects the pack `now` makes differently than `before`; one line where they cannot be compared."""
    try:
        return [str(shift) for shift in drift.shifts(before, now, release.root, release.settings)]
    except Refused as no:
        return [f"the objects of the two packs cannot be compared: {no}"]


def deployment(release: Release) -> list[str]:
    """Return what an operator has to know: how the pack is applied, what it locks, what cannot be undone."""
    since, last, now = packs(release)
    if not changes(last, now):
        return []
    files = ddl.proof_of(now, last, release.root, release.settings).files if last else {}
    lines = [f"`{path}` {each}" for path, does in files.items() for each in does]
    runner = " ".join(release.settings.ddl.command) or "psql"
    return [
        f"the DDL pack {'has changed' if since else 'is new'}: `inv deploy.staging` applies it with `{runner}`, "
        "`inv deploy.production` too, after a backup",
        *(f"{kind}: {line}" for kind, pattern in NOTED.items() for line in lines if re.search(pattern, line)),
    ]
