"""What the notes say of the database: what the DDL pack makes differently than the last release's, and what to run."""

import re
from collections.abc import Sequence

from release_tasks import ddl
from release_tasks.database import drift
from release_tasks.database.pack import DdlFile, changes, recorded
from release_tasks.errors import Refused
from release_tasks.release import Release

NOTED = {  # of what a file was seen to do: kind → how that begins
    "lock (ACCESS EXCLUSIVE)": "` locks ",
    "takes long on a large table": "` rewrites ",
    "cannot be undone": "` (drops|empties|changes rows of) ",
}


def database_changes(release: Release) -> list[str]:
    """Return the objects and files in which the pack differs from the last release's; the first is counted."""
    last, now = release.last_pack, release.pack
    moved, fixes = changes(last, now), recorded(release.git, release.commit, release.tag)
    if not last:
        return [f"first release of the pack: {len(now)} files", *fixes]
    objects = (objects_changed(last, now, release) or ["the same objects as before"]) if moved else []
    return [*objects, *([f"files: {'; '.join(moved)}"] if moved else []), *fixes]


def objects_changed(before: Sequence[DdlFile], now: Sequence[DdlFile], release: Release) -> list[str]:
    """Return which objects the pack `now` makes differently than `before`; one line where they cannot be compared."""
    try:
        return [str(shift) for shift in drift.shifts(before, now, release.root, release.settings)]
    except Refused as no:
        return [f"the objects of the two packs cannot be compared: {no}"]


def deployment(release: Release) -> list[str]:
    """Return what an operator has to know: how the pack is applied, what it locks, what cannot be undone."""
    last, now = release.last_pack, release.pack
    if not changes(last, now):
        return []
    files = ddl.proof_of(now, last, release.root, release.settings).files if last else {}
    lines = [f"`{path}` {each}" for path, does in files.items() for each in does]
    runner = " ".join(release.settings.ddl.command) or "psql"
    return [
        f"the DDL pack {'has changed' if last else 'is new'}: `inv deploy.staging` applies it with `{runner}`, "
        "`inv deploy.production` too, after a backup",
        *(f"{kind}: {line}" for kind, pattern in NOTED.items() for line in lines if re.search(pattern, line)),
    ]
