"""Section 3: the freeze, its branch, and the lock on the order of the DDL pack."""

import shlex
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta

from release_tasks.commits import commit_step, releaser
from release_tasks.database import proof
from release_tasks.database.pack import changes, last_locked, lock_of
from release_tasks.errors import Manual, Problem, Refused, counted, listed, refuse
from release_tasks.release import Release, Step, until_published
from release_tasks.release_lock import BEGUN, TAKEN_OVER
from release_tasks.sections import landing

MOST_LINES = 100  # of a commit's message: it is one argument of git's, and those have a limit


def hold_the_release_lock(release: Release, take_over: str | None = None) -> Step:
    """Hold the release lock on the remote."""
    lock = release.lock
    with suppress(Refused):  # its tag may not be here, which another step says
        if (landing.lacking(release, waiting=True) and not landing.lacking(release)) or release.is_ended:
            return "given up with the last push"
    found = lock.check(take_over)
    if found.holder == lock.holder:
        lock.at = found.commit
        return f"since {found.since}"
    yield f"git push {release.settings.remote} {lock.ref}"
    lock.push(what=TAKEN_OVER if take_over else BEGUN, take_over=take_over)


@until_published
def announce_the_freeze(release: Release, until: str | None = None) -> str:
    """Announce the freeze: critical fixes only."""
    who = releaser(release.git)
    held = release.lock.state()
    began = datetime.fromisoformat(held.since) if held.holder == release.lock.holder else datetime.now()
    end = began.astimezone() + timedelta(days=release.settings.freeze_days)  # the same in each run
    until = until or f"{end:%Y-%m-%d %H:%M %Z}"
    return Manual(f"{who} froze {release.tag} until {until}: no new features, critical fixes only. Tell the team")


def cut_the_release_branch(release: Release) -> Step:
    """Cut the release branch, or return to it."""
    git, branch = release.git, release.branch
    lacks = "" if release.published else _lacks(release)
    if lacks and release.lock.withdrew():
        what = f"{release.tag} was withdrawn, and its branch {branch} is left{lacks}."
        pull = f"git pull --no-rebase --ff --no-edit {git.remote} {release.base}   # or delete the branch"
        raise Refused(what, f"git switch {branch} && git merge --no-edit {release.base} && {pull}")
    if git.branch == branch or release.is_over:
        return f"{branch}{lacks}"
    start = git.remote_commit(release.branch_ref) or (release.tag if release.published else "HEAD")
    args = [branch] if git.commit_named(release.branch_ref) else ["--create", branch, start]
    switch = f"git switch {' '.join(args)}"
    compared = release.branch_ref if args == [branch] else start  # by its name alone git could take a tag
    if git.look("diff", "--quiet", "HEAD", compared, "--", *landing.LAYER).code:  # this run has read what is here
        what = f"{branch} has another release layer or other settings than {git.branch or 'HEAD'}."
        raise Refused(what, f"{switch} && git submodule update --recursive && {release.again()}")
    yield f"{switch}{lacks}"
    git.run("switch", "--quiet", *args)
    git.reach("submodule", "--quiet", "update", "--recursive")  # a switch leaves them where they were


def _lacks(release: Release) -> str:
    """Return which commits of its base, here or on the remote, the branch lacks; "" for none."""
    git, here = release.git, release.base_ref
    there = git.remote_commit(here) or here
    which = ["--no-merges", "--cherry-pick", "--right-only", "--ignore-missing", f"{release.tip}...{there}", here]
    titles = git.look("log", "--format=%s", *which).stdout.splitlines()
    return f", without {counted(len(titles), 'commit')} of {release.base}: {listed(titles)}" if titles else ""


@until_published
def lock_the_ddl_order(release: Release, allow_shift: str | None = None) -> Step:
    """Lock the order of the DDL pack."""
    git, tip, path, pack = release.git, release.tip, release.settings.ddl.lock, release.pack
    lock, about = lock_of(pack, release.tag), counted(len(pack), "file")
    commit, locked = last_locked(git, tip, release.tag, release.settings) or ("", pack)
    moved = changes(locked, pack)
    reason = (allow_shift or "").strip(" …")
    if commit and not moved and git.bytes_at(tip, path) == lock:
        return about
    if moved:
        release.only_in_a_run()  # a scratch server says what has changed
    shifted = proof.objects_changed(locked, pack, release.root, release.settings) if moved else []
    if shifted and not reason:
        refuse(_shift_problems(commit, moved, shifted, release))
    kind = "shift" if shifted else "critical fix"
    yield f"git commit {path} ({about}{f', {kind}: {listed(moved)}' if moved else ''})"
    text = f"release: lock the DDL order for {release.tag}"
    if moved:
        release.journal.record("ddl-shift" if shifted else "ddl-fix", reason=reason, files=moved, objects=shifted)
        why = f", allowed because “{reason}”" if shifted else ""
        lines = [" ".join(line.split()) for line in (f"{kind} in the freeze{why}:", *moved, *shifted)]  # for the notes
        lines[MOST_LINES:] = [f"and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
        text = "\n".join([text, "", *lines])
    commit_step(git, {path: lock}, text, f"{release.tag} freeze", even_empty=True)  # a hand may have written it already


def _shift_problems(commit: str, moved: list[str], shifted: list[str], release: Release) -> Iterator[Problem]:
    files = f":(glob){release.settings.ddl.folder}/*.sql"
    undo = shlex.join(["git", "restore", "--source", f"{commit:.9}", "--staged", "--worktree", "--", files])
    yield Problem(f"Since the DDL order was locked: {'; '.join(moved)}.", undo)
    allow = release.again("Undo it, or give `inv freeze` a reason: --allow-shift.", allow_shift="…")
    for shift in shifted:
        yield Problem(f"Structural shift since the DDL order was locked: {shift.removesuffix('.')}.", allow)
