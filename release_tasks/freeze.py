"""Section 3: the freeze, its branch, and the lock on the order of the DDL pack."""

from __future__ import annotations

from datetime import datetime, timedelta

from release_tasks import ddl
from release_tasks.errors import Asked, Problem, refuse
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
    pack = ddl.pack_at(git, tip, settings)
    lock, expected = git.bytes_at(tip, settings.ddl.lock), ddl.lock_of(pack, release.tag)
    if lock == expected:
        return f"{len(pack)} files"
    if lock and ddl.locked_for(lock, release.tag):
        mend = f"Undo it on {release.branch}; only if it is absolutely needed: git rm {settings.ddl.lock} && git commit"
        refuse(Problem(shift.what, mend) for shift in ddl.shifts(lock, pack))
    yield f"git commit {settings.ddl.lock} ({len(pack)} files)"
    git.commit_files({settings.ddl.lock: expected}, f"release: lock the DDL order for {release.tag}")
