"""The release lock, on a real remote: one holds it, pushes move it, and whoever was overtaken gets nothing through."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from release_tasks import command_line
from release_tasks.errors import Refused
from release_tasks.git import Git
from release_tasks.process import CommandFailed
from release_tasks.release_lock import FREE, ReleaseLock
from tests.conftest import Work, add_hook

CloneOf = Callable[[str], Git]


@pytest.fixture
def clone(work: Work, tmp_path: Path) -> CloneOf:
    """Return how to make another clone of the remote."""

    def make(name: str) -> Git:
        work.git("clone", "--quiet", str(work.remote), str(tmp_path / name))
        git = Git.open(tmp_path / name, "origin")
        work.opened.append(git.close)
        return git

    return make


def test_a_lock_that_is_held_says_who_since_when_which_version_and_how_to_take_it_over(
    work: Work, clone: CloneOf
) -> None:
    """F2"""
    ReleaseLock(work.layer(), "0.1.1").push(what="is begun")
    other = ReleaseLock(clone("other"), "0.2.0")
    with pytest.raises(Refused, match=r"v0.1.1 is begun on \S+, Rita Releaser, since 20.*; last sign of life 20") as no:
        other.push("HEAD:refs/heads/other", what="goes on")
    shown = other.state().commit[:9]
    assert f"inv release --version 0.2.0 --take-over {shown}" in no.value.problems[0].hint
    assert "refs/heads/other" not in other.git.remote_refs


def test_the_same_version_in_the_same_clone_goes_on_but_a_copy_of_the_clone_does_not(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ReleaseLock(work.layer(), "0.1.1")
    first.push(what="is begun")
    again = ReleaseLock(work.layer(), "0.1.1")
    assert again.check().holder == first.holder
    with pytest.raises(Refused):
        ReleaseLock(work.layer(), "0.1.2").check()
    shutil.copytree(work.root, tmp_path / "copy")
    copy = Git.open(tmp_path / "copy", "origin")
    with pytest.raises(Refused):
        ReleaseLock(copy, "0.1.1").check()
    monkeypatch.setenv("RELEASE_HOLDER", "pipeline 4711")
    ReleaseLock(work.layer(), "0.1.1").push(take_over=first.at, what="goes on")
    copy.refresh()
    assert ReleaseLock(copy, "0.1.1").check().holder == "0.1.1 pipeline 4711"
    copy.close()


def test_a_holder_with_blanks_around_goes_on(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `set RELEASE_HOLDER=4711 && inv …` gives one on Windows: it was refused its own lock."""
    monkeypatch.setenv("RELEASE_HOLDER", "4711 ")
    lock = ReleaseLock(work.layer(), "0.1.1")
    lock.push(what="is begun")
    assert lock.state().holder == lock.holder == "0.1.1 4711"


def test_another_worktree_of_the_clone_does_not_go_on(work: Work, tmp_path: Path) -> None:
    """It has a checkout of its own, and so a lock file: both went on at once."""
    ReleaseLock(work.layer(), "0.1.1").push(what="is begun")
    work.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "tree"))
    git = Git.open(tmp_path / "tree", "origin")
    work.opened.append(git.close)
    with pytest.raises(Refused, match=r"under way: v0\.1\.1 is begun"):
        ReleaseLock(git, "0.1.1").check()


@pytest.mark.parametrize(("digits", "is_enough"), [(1, False), (6, False), (7, True), (40, True)])
def test_a_take_over_names_the_lock_s_commit_by_seven_digits(
    work: Work, clone: CloneOf, digits: int, is_enough: bool
) -> None:
    ReleaseLock(work.layer(), "0.1.1").push(what="goes on")
    other = ReleaseLock(clone("other"), "0.2.0")
    with nullcontext() if is_enough else pytest.raises(Refused, match="Another release is under way"):
        other.check(take_over=other.state().commit[:digits])


def test_since_stays_while_it_moves_and_the_last_push_gives_it_up(work: Work, clone: CloneOf) -> None:
    lock = ReleaseLock(work.layer(), "0.1.1")
    lock.push(what="is begun")
    since = lock.state().since
    lock.push("HEAD:refs/heads/release/v0.1.1", what="is tagged")
    assert (lock.state().since, lock.state().commit) == (since, lock.at)
    lock.push(what="is over", last=True)
    assert lock.state().holder == FREE
    other = ReleaseLock(clone("other"), "0.2.0")
    other.push(what="goes on")
    assert other.state().holder == other.holder
    said = work.git("--git-dir", str(work.remote), "log", "--format=%s", "release/lock")
    assert [line.split(" on ")[0] for line in said.splitlines()] == [
        "v0.2.0 goes", "v0.1.1 is over", "v0.1.1 is tagged", "v0.1.1 is begun",
    ]  # fmt: skip


def test_who_was_overtaken_gets_neither_branch_nor_lock_through_also_when_the_other_is_over(
    work: Work, clone: CloneOf
) -> None:
    """F1"""
    slow = ReleaseLock(work.layer(), "0.1.1")
    slow.push(what="goes on")
    other = ReleaseLock(clone("other"), "0.2.0")
    with pytest.raises(Refused):
        other.push(take_over="0" * 9, what="goes on")  # what was shown is no longer what is there
    other.push(take_over=other.state().commit[:9], what="goes on")
    for last in (False, True):
        other.push(last=last, what="goes on")
        slow.git.refresh()
        with pytest.raises(Refused, match=r"This release was overtaken: v0\.2\.0"):
            slow.push("HEAD:refs/heads/release/v0.1.1", what="goes on")
    assert "refs/heads/release/v0.1.1" not in slow.git.remote_refs


def test_a_push_that_another_s_came_before_is_refused_with_who_it_was(work: Work, clone: CloneOf) -> None:
    slow, other = ReleaseLock(work.layer(), "0.1.1"), ReleaseLock(clone("other"), "0.2.0")
    assert slow.check().holder == other.check().holder == FREE  # both have seen it free
    other.push(what="goes on")
    with pytest.raises(Refused, match=r"v0.2.0 goes on") as no:
        slow.push("HEAD:refs/heads/release/v0.1.1", what="goes on")
    assert not isinstance(no.value, CommandFailed)


def test_a_push_that_the_remote_refuses_for_another_reason_says_so_and_moves_nothing(work: Work) -> None:
    lock = ReleaseLock(work.layer(), "0.1.1")
    lock.push(what="goes on")
    add_hook(work.remote, "update", "test $1 != refs/heads/no || { echo not that one; exit 1; }")
    with pytest.raises(CommandFailed, match="not that one"):
        lock.push("HEAD:refs/heads/no", what="goes on")
    assert lock.state().commit == lock.at


def test_a_push_that_arrived_though_its_answer_was_lost_goes_on(work: Work) -> None:
    """It was told that it had been overtaken, by itself."""
    lock = ReleaseLock(work.layer(), "0.1.1")
    lock.push(what="is begun")
    hook = add_hook(work.remote, "post-receive", "kill -9 $PPID")
    lock.push("HEAD:refs/heads/release/v0.1.1", what="is tagged")
    hook.unlink()
    assert lock.state().summary.startswith("v0.1.1 is tagged") and lock.state().commit == lock.at
    lock.push(what="is over", last=True)


def test_a_lock_that_somebody_deleted_is_said_to_be_gone(work: Work) -> None:
    """It was "This release was overtaken: ." with the command --take-over ''."""
    lock = ReleaseLock(work.layer(), "0.1.1")
    lock.push(what="is begun")
    work.git("push", "--quiet", "--delete", "origin", "release/lock")
    lock.git.refresh()
    with pytest.raises(Refused, match=r"^refs/heads/release/lock is gone from origin: it was deleted") as no:
        lock.check()
    assert no.value.problems[0].hint.startswith("inv release --version 0.1.1   # takes it anew")


def test_of_many_at_once_one_gets_it(work: Work, clone: CloneOf) -> None:
    locks = [ReleaseLock(clone(f"clone{number}"), "0.1.1") for number in range(4)]
    got, start = list[ReleaseLock](), threading.Barrier(len(locks))

    def race(lock: ReleaseLock) -> None:
        start.wait()
        try:
            lock.push(what="goes on")
            got.append(lock)
        except Refused:
            pass

    threads = [threading.Thread(target=race, args=[lock]) for lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = got
    locks[0].git.refresh()
    assert ReleaseLock(locks[0].git, "0.9.0").state().holder == winner.holder


def test_a_remote_that_forbids_force_and_deletion_takes_it_and_signed_commits_are_signed(work: Work) -> None:
    for key in ("receive.denyNonFastForwards", "receive.denyDeletes"):
        work.git("--git-dir", str(work.remote), "config", key, "true")
    work.git("config", "commit.gpgsign", "true")
    work.git("config", "gpg.format", "ssh")
    work.git("config", "user.signingkey", "no such key")
    lock = ReleaseLock(work.layer(), "0.1.1")
    with pytest.raises(CommandFailed, match="no such key"):
        lock.push(what="goes on")
    work.git("config", "commit.gpgsign", "false")
    lock.git.refresh()
    lock.push(what="goes on")
    lock.push(last=True, what="goes on")
    assert lock.state().holder == FREE


def test_a_signed_lock_is_read_also_where_git_shows_signatures(work: Work, tmp_path: Path) -> None:
    """Git then prints "No signature", or who signed, before what the format names."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    settings = {"commit.gpgsign": "true", "gpg.format": "ssh", "user.signingkey": str(tmp_path / "key")}
    for key, value in {**settings, "log.showSignature": "true"}.items():
        work.git("config", key, value)
    lock = ReleaseLock(work.layer(), "0.1.1")
    lock.push(what="goes on")
    assert (lock.state().commit, lock.state().holder) == (lock.at, lock.holder)
    lock.push(last=True, what="goes on")
    assert lock.state().holder == FREE


def test_a_status_names_the_command_that_takes_the_lock_over(
    work: Work, clone: CloneOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    ReleaseLock(work.layer(), "0.1.1").push(what="goes on")
    other = ReleaseLock(clone("other"), "0.2.0")
    monkeypatch.setattr(command_line, "typed", [("status", {"version": "0.2.0", "json": True})])
    with pytest.raises(Refused) as no:
        other.check()
    over = f"\ninv release --version 0.2.0 --take-over {other.state().commit[:9]}   # the next"
    assert over in no.value.problems[0].hint and "inv status" not in no.value.problems[0].hint
