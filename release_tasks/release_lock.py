"""The release lock: the branch release/lock on the remote says who makes a release, and moves with each push of it.

It is a chain of empty commits that plain pushes move forward: the remote compares and swaps, without force, and keeps
the history. An atomic push with it gets nothing through for a release that another has taken the lock from.
"""

import os
import platform
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from release_tasks.command_line import again
from release_tasks.errors import Refused
from release_tasks.files import atomic_write, read_text, sha256
from release_tasks.git import Git
from release_tasks.process import CommandFailed, Finished

FREE = "free"
# What a push of the lock says of a release that begins, or is given up for good
BEGUN, TAKEN_OVER, WITHDRAWN = "is begun", "is taken over", "is withdrawn"
SKIP_CI = " [skip ci]"
DIGITS = 7  # of a commit, as git shortens it, are enough to mean it
FIELDS = ("%H", "%(trailers:key=Holder,valueonly)", "%(trailers:key=Since,valueonly)", "%s, %an", "%cI")


@dataclass(frozen=True)
class LockState:
    """The newest `commit` of the lock ("" for none yet), its holder (`FREE`, or version and clone), and since when."""

    commit: str = ""
    holder: str = FREE
    since: str = ""
    summary: str = ""

    def is_of(self, version: str) -> bool:
        return self.holder.startswith(f"{version} ")


class ReleaseLock:
    """The lock of the remote of `git`, for the release `version`; `at` is the commit by which we hold it."""

    def __init__(self, git: Git, version: str, tag: str = "", branch: str = "release/lock") -> None:
        self.git, self.version, self.tag, self.ref = git, version, tag or f"v{version}", f"refs/heads/{branch}"
        self.at = ""

    @cached_property
    def holder(self) -> str:
        """The version and an id of this worktree, which a move keeps, and a copy does not.

        CI makes a clone for each job: there RELEASE_HOLDER says what belongs together, such as a pipeline's number.
        """
        file = Path(self.git.repo.git_dir, "release-clone")
        if not file.exists():
            atomic_write(file, uuid.uuid4().hex.encode())
        own = sha256(f"{read_text(file)} {file.stat().st_ino}".encode())[:12]
        given = " ".join(os.environ.get("RELEASE_HOLDER", "").split())  # as a trailer is read again
        return f"{self.version} {given or own}"

    def state(self) -> LockState:
        """Return how the lock stands on the remote."""
        if not (commit := self.git.remote_commit(self.ref)):
            return LockState()
        fields = self.git.look("show", "--no-patch", f"--format={'%x00'.join(FIELDS)}", commit).stdout.split("\0")
        commit, holder, since, summary, sign_of_life = (field.strip() for field in fields)
        summary = summary.replace(SKIP_CI, "")
        return LockState(commit, holder, since, f"{summary}, since {since}; last sign of life {sign_of_life}")

    def history(self) -> list[tuple[int, str]]:
        """Return what the chain says of this release, whoever had it later: Unix time and words, newest first."""
        commit, begin = self.git.remote_commit(self.ref), f"{self.tag} "
        log = self.git.look("log", "--format=%ct %s", commit).stdout.splitlines() if commit else []
        said = [(int(at), title) for at, _, title in (line.partition(" ") for line in log)]
        return [(at, title.removeprefix(begin)) for at, title in said if title.startswith(begin)]

    def began(self) -> int:
        """Return the Unix time at which its release was begun last, 0 for never."""
        return next((at for at, words in self.history() if words.startswith((BEGUN, TAKEN_OVER))), 0)

    def withdrew(self) -> bool:
        """Tell whether its release was withdrawn, and not begun again."""
        _, newest = next(iter(self.history()), (0, ""))
        return newest.startswith(WITHDRAWN)

    def check(self, take_over: str | None = None) -> LockState:
        """Return how it stands where it is free or ours. Raises `Refused` where another release holds it.

        `take_over` is the commit of another's lock that a person was shown, and means to take it over from.
        """
        found = self.state()
        was_overtaken = self.at not in ("", found.commit)
        is_taken_over = take_over and len(take_over) >= DIGITS and found.commit.startswith(take_over)
        if not was_overtaken and (found.holder in (FREE, self.holder) or is_taken_over):
            return found
        if not found.commit:
            what = f"{self.ref} is gone from {self.git.remote}: it was deleted, or pushes go to another repository."
            hint = f"{again(version=self.version)}   # takes it anew; git remote -v shows where pushes go"
            raise Refused(what, hint)
        what = "This release was overtaken" if was_overtaken else "Another release is under way"
        version, shown = self.version, found.commit[:9]
        over = again(f"inv release --version {version} --take-over {shown}", version=version, take_over=shown)
        hint = f"Wait for it, or if nobody finishes it:\n{over}   # the next push of that run is then refused"
        if (theirs := found.holder.split(" ")[0]) not in (FREE, self.version):
            hint += f'\ninv withdraw --version {theirs} --reason "…"   # or this, where it is tagged: the notes say so'
        raise Refused(f"{what}: {found.summary}.", hint)

    def push(self, *refspecs: str, what: str, take_over: str | None = None, last: bool = False) -> Finished:
        """Push `refspecs` and move the lock on in one atomic push; the `last` one gives it up.

        Raises `Refused` where another release holds it, and then nothing is pushed; `CommandFailed` for other reasons.
        """
        found = self.check(take_over)
        since = found.since if found.holder == self.holder else f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        title = f"{self.tag} {what} on {platform.node()}{SKIP_CI}"
        trailers = f"Holder: {FREE if last else self.holder}\nSince: {since}"
        commit = self.git.commit_tree(self.git.run("mktree").stdout.strip(), found.commit, title, trailers)
        try:
            pushed = self.git.push(f"{commit}:{self.ref}", *refspecs)
        except CommandFailed as failed:
            self.git.refresh()
            if self.git.remote_refs.get(self.ref) != commit:  # else it arrived, and only the answer was lost
                self.at = found.commit
                self.check()
                raise
            pushed = failed.finished
        self.at = commit
        return pushed
