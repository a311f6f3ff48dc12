"""What the notes say of the database: what the DDL pack makes differently than the last release's, and what to run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from release_tasks import ddl
from release_tasks.database import drift
from release_tasks.database.pack import ADDED, CHANGED, REMOVED, RENAMED, DdlFile, changes, pack_at, recorded
from release_tasks.errors import Refused
from release_tasks.release import Release

UNDONE = ("drops", "empties", "changes rows of")  # what cannot be undone


def database_changes(release: Release, since: str | None) -> list[str]:
    """Return what the pack makes differently than that of the release `since`; then which files changed.

    The first release (None) is counted. A pack that cannot be applied here is told by its files alone.
    """
    now, before = _packs(release, since)
    frozen = list(recorded(release.git, release.commit, release.tag))
    if since is None:
        return [*_counts(now, release), *frozen] if now else []
    moved = changes(before, now)
    if not moved:
        return frozen
    try:
        found = drift.shifts(before, now, release.root, release.settings)
        objects = [str(shift) for how in ("new", "changed", "dropped") for shift in found if shift.how == how]
    except Refused as no:
        objects = [f"the objects of the two packs cannot be compared: {no}"]
    return [*(objects or ["the same objects as before"]), f"files: {'; '.join(map(str, moved))}", *frozen]


def _packs(release: Release, since: str | None) -> tuple[list[DdlFile], list[DdlFile]]:
    """Return this release's pack, and that of `since`."""
    git, settings = release.git, release.settings
    before = pack_at(git, f"refs/tags/{since}", settings) if since else []
    return pack_at(git, release.commit, settings), before


def _counts(pack: list[DdlFile], release: Release) -> list[str]:
    first = f"first release of the pack: {len(pack)} files, `{pack[0].name}` to `{pack[-1].name}`"
    try:
        made = drift.made_by(pack, release.root, release.settings)
    except Refused as no:
        return [first, f"what it makes is not known: {no}"]
    kinds = Counter(name.partition(" ")[0] for name in made if not name.startswith("acl "))
    return [first, ", ".join(_plural(kind, count) for kind, count in sorted(kinds.items()))]


def _plural(kind: str, count: int) -> str:
    many = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}{'es' if kind.endswith(('x', 's')) else 's'}"
    return f"{count} {(kind if count == 1 else many).replace('-', ' ')}"


def since_release(pack: list[DdlFile], since: str, release: Release) -> str:
    """Return in a few words what changed since the release `since`; files that it had and that are gone are named."""
    last = pack_at(release.git, f"refs/tags/{since}", release.settings)
    moved = changes(last, pack)
    if not moved:
        return f"nothing since {since}"
    words = [f"since {since}: {_counted(change.kind for change in moved)}"]
    words += [str(change) for change in moved if change.kind in (RENAMED, REMOVED)]
    try:
        found = drift.shifts(last, pack, release.root, release.settings)
        words.append(f"objects: {_counted(shift.how for shift in found) or 'the same'}")
    except Refused as no:
        words.append(f"objects cannot be compared: {no}")
    return "; ".join(words)


def _counted(words: Iterable[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in Counter(words).items())


def deployment(release: Release, since: str | None) -> list[str]:
    """Return what an operator has to know: what to run, what it locks, what cannot be undone."""
    now, before = _packs(release, since)
    moved = changes(before, now)
    if not moved:
        return []
    touched = [each.path for each in moved if each.kind in (ADDED, CHANGED, RENAMED)]
    runner = " ".join(release.settings.ddl.command) or "inv deploy.staging"
    which = f"; new or changed: {', '.join(f'`{path}`' for path in touched)}" if since and touched else ""
    files = ddl.proof_of(now, before, release.root, release.settings).files if before else {}
    done = [(f"`{path}` {each}", each.startswith(UNDONE)) for path, does in files.items() for each in does]
    return [
        f"the DDL pack has changed: it is applied by `{runner}`, after a backup{which}",
        *(f"lock: {line} (ACCESS EXCLUSIVE)" for line, _ in done if " locks " in line),
        *(f"takes long on a large table: {line}" for line, _ in done if " rewrites " in line),
        *(f"cannot be undone: {line}" for line, final in done if final),
    ]
