"""What the notes say of the database: what the DDL pack makes otherwise than the last release's, and what to run."""

from __future__ import annotations

from collections import Counter

from release_tasks.database import catalog
from release_tasks.errors import Refused
from release_tasks.release import Release
from release_tasks.schema import ddl, findings, order_lock, proof, scratch
from release_tasks.schema.order_lock import ADDED, CHANGED, DROPPED, NEW, RENAMED

NOUNS = {"matview": "materialized view", "foreign": "foreign table", "grants": "grant"}


def changes(release: Release, since: str | None) -> list[str]:
    """Return what the pack makes otherwise than that of the release `since`, by the catalogs; then which files changed.

    The first release (None) is counted. A pack that cannot be applied here is told by its files alone.
    """
    now, before = _packs(release, since)
    frozen = list(order_lock.recorded(release.git, release.commit, release.tag))
    if since is None:
        return [*_counts(now, release), *frozen] if now else []
    moved = order_lock.changes(before, now)
    if not moved:
        return frozen
    try:
        found = order_lock.shifts(before, now, release.root, release.settings)
        objects = [_line(shift) for how in (NEW, CHANGED, DROPPED) for shift in found if shift.how == how]
    except Refused as no:
        objects = [f"the objects of the two packs cannot be compared: {no}"]
    return [*(objects or ["the same objects as before"]), f"files: {'; '.join(map(str, moved))}", *frozen]


def _packs(release: Release, since: str | None) -> tuple[list[ddl.DdlFile], list[ddl.DdlFile]]:
    """Return this release's pack, and that of `since`."""
    git, settings = release.git, release.settings
    before = ddl.pack_at(git, f"refs/tags/{since}", settings) if since else []
    return ddl.pack_at(git, release.commit, settings), before


def _counts(pack: list[ddl.DdlFile], release: Release) -> list[str]:
    told = f"first release of the pack: {len(pack)} files, `{pack[0].name}` to `{pack[-1].name}`"
    try:
        made = scratch.made_by(pack, release.root, release.settings)
    except Refused as no:
        return [told, f"what it makes cannot be told: {no}"]
    kinds = Counter(catalog.kind_of(name) for name in made.files)
    return [told, ", ".join(_counted(kind, count) for kind, count in sorted(kinds.items()))]


def _counted(kind: str, count: int) -> str:
    noun = NOUNS.get(kind, kind)
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}{'es' if noun.endswith(('x', 's')) else 's'}"
    return f"{count} {noun if count == 1 else many}"


def _line(shift: order_lock.Shift) -> str:
    kind, name = catalog.kind_of(shift.name), catalog.object_of(shift.name)
    detail = f": {shift.detail}" if shift.detail else ""
    came_from = ", formerly made by" if shift.how == DROPPED else ", in"
    file = f"{came_from} `{shift.file}`" if shift.file else ""
    return f"{shift.how}: {kind} `{name}`{detail}{file}"


def deployment(release: Release, since: str | None) -> list[str]:
    """Return what an operator has to know: what to run, what it locks, what cannot be undone."""
    now, before = _packs(release, since)
    moved = order_lock.changes(before, now)
    if not moved:
        return []
    touched = [each.path for each in moved if each.kind in (ADDED, CHANGED, RENAMED)]
    runner = " ".join(release.settings.ddl.command) or "inv deploy.staging"
    which = f"; new or changed: {', '.join(f'`{path}`' for path in touched)}" if since and touched else ""
    final = [
        found for found in findings.findings_in(now) if found.rule == findings.IRREVERSIBLE and found.path in touched
    ]
    locks = proof.proof_of(now, before, release.root, release.settings).locks if before else []
    return [
        f"the DDL pack has changed: it is applied by `{runner}`, after a backup{which}",
        *(f"lock: {line}" for line in locks),
        *(f"cannot be undone: {found}" for found in final),
    ]
