"""Section 3: the freeze, its branch, and the lock on the order of the DDL pack."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from release_tasks import database_notes, notes
from release_tasks.database import drift
from release_tasks.database.pack import (
    Change,
    DdlFile,
    changes,
    last_locked,
    lock_of,
    message,
    order_disagreements,
    pack_at,
)
from release_tasks.errors import Asked, Problem, Refused, refuse
from release_tasks.git import listed
from release_tasks.release import Release, Step


def announce_the_freeze(release: Release) -> str:
    """Announce the freeze: critical fixes only."""
    if release.published:
        return "it ended with the tag"
    who = release.git.run("config", "user.name", check=False).stdout.strip() or "the releaser"
    end = datetime.now().astimezone() + timedelta(days=release.settings.freeze_days)
    until = release.options.get("until") or f"{end:%Y-%m-%d %H:%M %Z}"
    return Asked(f"{who} froze {release.tag} until {until}: no new features, critical fixes only. Tell the team")


def cut_the_release_branch(release: Release) -> Step:
    """Cut the release branch, or return to it."""
    git, branch = release.git, release.branch
    if git.branch == branch or release.is_over:
        return branch
    known = git.commit_named(release.branch_ref) or release.branch_ref in git.remote_refs
    start = "" if known else release.tag if release.published else "HEAD"
    yield f"git switch {branch}" if known else f"git switch --create {branch} {start}"
    if not known:
        git.run("switch", "--quiet", "--create", branch, start)
        return None
    if release.branch_ref in git.remote_refs:
        git.fetch()
    git.run("switch", "--quiet", branch)


def lock_the_ddl_order(release: Release) -> Step:
    """Lock the order of the DDL pack."""
    if release.published:
        return "locked in the tag"
    git, settings, tip = release.git, release.settings, release.tip
    pack, path = pack_at(git, tip, settings), settings.ddl.lock
    lock, base = lock_of(pack, release.tag), last_locked(git, tip, release.tag, settings)
    moved = changes(base[1], pack) if base else []
    if base and not moved and git.bytes_at(tip, path) == lock:
        return _about(pack, release)
    shifted = _shifts_since(base[1], pack, release) if base and moved else []
    reason = (release.options.get("allow_shift") or "").strip()
    if base and shifted and not reason:
        refuse(_shift_problems(base[0], moved, shifted, release))
    kind = "shift" if shifted else "critical fix"
    yield f"git commit {path} ({_about(pack, release)}{f', {kind}: {listed(map(str, moved))}' if moved else ''})"
    if shifted:
        release.journal.record("ddl-shift", reason=reason, files=[str(each) for each in moved], objects=shifted)
    elif moved:
        release.journal.record("ddl-fix", files=[str(each) for each in moved])
    text = message(release.tag, moved, shifted, reason)
    git.commit_files({path: lock}, text, even_empty=True)  # a hand may have written the very same lock


def _shifts_since(locked: list[DdlFile], pack: list[DdlFile], release: Release) -> list[str]:
    """Return what `pack` makes otherwise than the locked one; what cannot be compared counts as a shift."""
    try:
        return [str(each) for each in drift.shifts(locked, pack, release.root, release.settings)]
    except Refused as no:
        return [f"what the pack makes cannot be compared with what was locked: {no}"]


def _shift_problems(commit: str, moved: list[Change], shifted: list[str], release: Release) -> Iterator[Problem]:
    for change in moved:
        yield Problem(f"Since the DDL order was locked: {change}.", change.undone(commit))
    allow = f'inv freeze --version {release.version} --allow-shift "…"   # why it cannot wait; else undo it'
    for shift in shifted:
        yield Problem(f"Structural shift since the DDL order was locked: {shift.removesuffix('.')}.", allow)


def _about(pack: list[DdlFile], release: Release) -> str:
    """Return a few words about the pack: its size, what is new since the last release, where rules of order differ."""
    settings, since = release.settings, notes.last_release(release)
    words = [f"{len(pack)} files"]
    if since:
        words.append(database_notes.since_release(pack, since, release))
    return "; ".join([*words, *order_disagreements([file.name for file in pack], release.root, settings)])
