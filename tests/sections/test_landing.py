"""How main gets a release: pushed, by a pull request where the host declines a push, or of an older line the notes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from release_tasks.files import records_folder
from release_tasks.outcome import CHANGED, DONE, MANUAL, PENDING, REFUSED, Outcome
from release_tasks.release import Release
from release_tasks.sections import freeze, landing, post_release, preconditions, tag, withdrawal
from tests.conftest import add_hook

if TYPE_CHECKING:
    from tests.conftest import Work

Take = Callable[..., Outcome]
NOTES, BACK = "docs/releases/v0.1.1.md", "release/v0.1.1-back"
STEPS = [
    post_release.merge_the_release_branch_back,
    post_release.open_the_next_cycle,
    post_release.push_the_main_branch,
]
WORDS = {
    "update": "error: GH006: Protected branch update failed for refs/heads/main.",
    "pre-receive": "GitLab: You are not allowed to push code to protected branches on this project.",
}


def protect(work: Work, hook: str = "update", branch: str = "main") -> Path:
    """Let the remote decline each push of `branch`, as a host does."""
    is_fine = f'[ "$1" != refs/heads/{branch} ]' if hook == "update" else f"! grep -q refs/heads/{branch}$"
    return add_hook(work.remote, hook, f"{is_fine} || {{ echo '{WORDS[hook]}' >&2; exit 1; }}")


def archived(work: Work, version: str = "0.1.1") -> Release:
    """Return a release that has come as far as section 9."""
    release = work.release(version)
    work.git("switch", "--quiet", "--create", release.branch)
    work.commit({"VERSION": f"{version}\n", "ddl/ORDER.lock": f"# {release.tag}: the DDL pack\n"}, "release")
    work.git("tag", "--annotate", "--message", "x", release.tag)
    work.commit({release.notes_path: f"# {release.tag}\n"}, "notes")
    work.git("push", "--quiet", "origin", release.branch, release.tag)
    (records_folder(work.root) / release.tag / "evidence").mkdir(parents=True)
    return release


def states(take: Take, release: Release, change: bool = True) -> list[str]:
    return [take(step, release, change).state for step in STEPS]


@pytest.mark.parametrize("hook", WORDS)
def test_where_the_host_declines_main_a_pull_request_waits_and_main_is_left_alone(
    work: Work, take: Take, hook: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """R16: it stopped for ever in section 10."""
    work.git("config", "merge.ff", "only")  # R24
    protect(work, hook)
    release, before = archived(work), work.git("rev-parse", "main")
    assert states(take, release) == [CHANGED, CHANGED, MANUAL]
    shown = capsys.readouterr().out
    assert "origin declines a push of main: " in shown and f"remote: {WORDS[hook]}" in shown
    assert work.git("rev-parse", "main") == before == work.git("rev-parse", "origin/main")
    there = release.git.remote_refs
    for change in (False, True):
        assert states(take, release, change) == [DONE, DONE, MANUAL]
    assert take(STEPS[-1], release).text == f"main waits for the pull request of {BACK}"
    assert release.git.remote_refs == there and not release.is_over
    assert work.git("show", f"origin/{BACK}:VERSION") == "0.1.2-dev"


def merged_by_a_colleague(work: Work, branch: str, version: str) -> None:
    """Let the remote's main have `branch`, and work on `version`."""
    work.git("switch", "--quiet", "main")
    work.git("merge", "--quiet", "--no-ff", "--no-edit", branch)
    work.commit({"VERSION": f"{version}\n"}, "build: main goes on")
    work.git("push", "--quiet", "origin", "main")
    work.git("switch", "--quiet", branch)


def test_a_release_that_main_got_early_is_over_only_once_it_gives_up_its_lock(work: Work, take: Take) -> None:
    """It was taken for live in production, which had never heard of it: "Released 0.1.1"."""
    release = archived(work)
    assert take(freeze.hold_the_release_lock, release).state == CHANGED
    merged_by_a_colleague(work, release.branch, "0.2.0-dev")
    release.git.refresh()
    assert not release.is_over and not release.runs_in_production
    assert states(take, release) == [DONE, DONE, CHANGED] and release.is_over


def test_a_release_of_a_support_branch_goes_back_there_though_main_has_it(work: Work, take: Take) -> None:
    work.git("push", "--quiet", "origin", "main:refs/heads/support/0.1")
    work.git("branch", "support/0.1")
    release = archived(work)
    assert release.base == "support/0.1" and take(freeze.hold_the_release_lock, release).state == CHANGED
    merged_by_a_colleague(work, release.branch, "0.2.0-dev")
    release.git.refresh()
    assert release.base == "support/0.1" and not release.is_over
    assert states(take, release) == [CHANGED, CHANGED, CHANGED] and release.is_over


def test_a_release_goes_back_to_where_it_began_though_a_support_branch_is_cut_meanwhile(work: Work, take: Take) -> None:
    """Main got its notes alone, and its lock was held for ever."""
    release = archived(work)
    assert take(freeze.hold_the_release_lock, release).state == CHANGED
    work.git("push", "--quiet", "origin", f"{release.tag}^{{commit}}:refs/heads/support/0.1")
    release = work.release()
    assert release.base == "main" and states(take, release) == [CHANGED, CHANGED, CHANGED]
    assert work.git("show", "origin/main:VERSION") == "0.1.2-dev" and work.release("0.1.1").is_over
    assert release.lock.state().holder == "free"


def test_a_version_that_main_has_given_up_may_begin_on_its_support_branch(work: Work, take: Take) -> None:
    """The chain of main's lock said for ever that it had begun there, and the support branch was refused."""
    release = work.release("0.1.1")
    assert take(freeze.hold_the_release_lock, release).state == CHANGED
    assert release.base == "main"
    work.git("push", "--quiet", "origin", "main:refs/heads/support/0.1")
    assert work.release("0.1.1").base == "main"
    assert take(withdrawal.record_the_withdrawal, release).state == CHANGED
    assert work.release("0.1.1").base == "support/0.1"
    assert take(withdrawal.record_the_withdrawal, work.release("0.1.1")).state == DONE


def test_a_release_of_a_support_branch_that_both_branches_got_early_is_not_over(work: Work, take: Take) -> None:
    """It was taken for one of main, whose lock is free, and for live; its own lock was held for ever."""
    work.git("push", "--quiet", "origin", "main:refs/heads/support/0.1")
    work.git("branch", "support/0.1")
    release = archived(work)
    assert take(freeze.hold_the_release_lock, release).state == CHANGED
    work.git("push", "--quiet", "origin", f"{release.tag}^{{commit}}:refs/heads/support/0.1")
    merged_by_a_colleague(work, release.branch, "0.2.0-dev")
    release.git.refresh()
    assert release.base == "support/0.1" and not release.is_over and not release.runs_in_production
    assert states(take, release) == [CHANGED, CHANGED, CHANGED] and release.is_over
    assert work.git("show", "origin/support/0.1:VERSION") == "0.1.2-dev" and release.lock.state().holder == "free"


def test_a_release_that_has_given_up_its_lock_still_goes_back_to_where_it_began(work: Work, take: Take) -> None:
    """A support branch that was cut while main's pull request waited got a pull request as well."""
    release = archived(work)
    assert take(freeze.hold_the_release_lock, release).state == CHANGED
    protect(work)
    assert states(take, release) == [CHANGED, CHANGED, MANUAL] and release.lock.state().holder == "free"
    work.git("push", "--quiet", "origin", f"{release.tag}^{{commit}}:refs/heads/support/0.1")
    assert work.release().base == "main"


def test_a_later_release_of_an_older_line_does_not_hold_up_one_that_is_tagged(work: Work, take: Take) -> None:
    """It was to be merged into a commit that can never change, with production live."""
    work.git("push", "--quiet", "origin", "main:refs/heads/support/0.1")
    release = archived(work, "0.2.0")
    work.git("switch", "--quiet", "--create", "support/0.1", "main")
    work.commit({"VERSION": "0.1.2\n"}, "release")
    work.git("tag", "--annotate", "--message", "x", "v0.1.2")
    work.git("push", "--quiet", "origin", "v0.1.2")
    work.git("switch", "--quiet", release.branch)
    assert take(preconditions.check_version_order, release).state == DONE
    (beware,) = release.line.problems("0.2.0")
    assert beware.what == "v0.1.2 comes before 0.2.0, but this branch lacks it."
    assert "notes alone" not in beware.hint  # which main has not got yet


def test_the_notes_of_a_hotfix_are_taken_by_the_command_shown_also_from_main(work: Work, take: Take) -> None:
    """Main, which has them, was said to lack them, and the only command was a merge that conflicts."""
    work.git("push", "--quiet", "origin", "main:refs/heads/support/0.1")
    release = work.release("0.2.0")
    assert take(freeze.cut_the_release_branch, release).state == CHANGED
    work.git("switch", "--quiet", "--create", "support/0.1", "main")
    work.commit({"VERSION": "0.1.2\n"}, "release")
    work.git("tag", "--annotate", "--message", "x", "v0.1.2")
    work.git("switch", "--quiet", "main")
    work.commit({"docs/releases/v0.1.2.md": "# v0.1.2\n"}, "notes")
    work.git("push", "--quiet", "origin", "main", "v0.1.2")
    release.git.refresh()
    (problem,) = take(preconditions.check_version_order, release).problems
    assert problem.what == "v0.1.2 comes before 0.2.0, but the release branch lacks it."
    subprocess.run(problem.hint.splitlines()[1], shell=True, check=True, cwd=work.root)  # noqa: S602 - as it is shown
    assert take(preconditions.check_version_order, release).state == DONE


def test_a_branch_with_another_layer_is_told_from_a_tag_of_its_name(work: Work, take: Take) -> None:
    """The tag was compared, and the branch was switched to."""
    release = work.release("0.1.1", branch="{tag}")
    work.git("switch", "--quiet", "--create", "v0.1.1")
    work.git("tag", "--annotate", "--message", "x", "v0.1.1")
    work.commit({"tasks_local.py": "# later\n"})
    work.git("switch", "--quiet", "main")
    release.git.refresh()
    (problem,) = take(freeze.cut_the_release_branch, release).problems
    assert problem.what == "v0.1.1 has another release layer or other settings than main."


def test_a_branch_with_another_layer_or_other_settings_is_begun_again_on(work: Work, take: Take) -> None:
    """A job's fresh clone of main drove the old tag by main's settings, and by half of each layer."""
    release = archived(work)
    work.git("switch", "--quiet", "main")
    work.commit({"invoke.yaml": "# other settings\n"})
    what = "release/v0.1.1 has another release layer or other settings than main."
    for change in (False, True):  # a look says so too
        (problem,) = take(freeze.cut_the_release_branch, release, change).problems
        assert problem.what == what and work.git("branch", "--show-current") == "main"
    switch, run = problem.hint.rsplit(" && ", 1)
    subprocess.run(switch, shell=True, check=True, cwd=work.root)  # noqa: S602 - as it is shown
    release.git.refresh()
    assert take(freeze.cut_the_release_branch, release).state == DONE and run == "inv release --version 0.1.1"


@pytest.mark.parametrize("is_here", [True, False])
def test_submodules_follow_to_a_branch_with_another_layer(work: Work, take: Take, is_here: bool) -> None:
    """They stayed where main has them, and the next run refused what it took for a change by hand."""
    fonts = work.add_submodule("fonts", {"a": "1"})
    release = archived(work)
    work.git("switch", "--quiet", "main")
    fonts.commit({"a": "2"})
    work.commit({"invoke.yaml": "# other settings\n"})
    if not is_here:  # as in a job's fresh clone
        work.git("branch", "--delete", "--force", release.branch)
    (problem,) = take(freeze.cut_the_release_branch, release).problems
    switch = problem.hint.rpartition(" && ")[0]
    subprocess.run(switch, shell=True, check=True, cwd=work.root)  # noqa: S602 - as it is shown
    release.git.refresh()
    assert take(freeze.cut_the_release_branch, release).state == DONE
    assert take(preconditions.check_tree_is_clean, release).state == DONE


@pytest.mark.parametrize("fault", ["a branch is a folder now", "a tag was moved", "a branch is gone"])
def test_other_refs_of_the_remote_hold_up_neither_the_end_nor_a_withdrawal(work: Work, take: Take, fault: str) -> None:
    """All that is configured was fetched, which failed for good, with production live."""
    release = archived(work)
    work.git("push", "--quiet", "origin", "main:refs/heads/fix", "main:refs/tags/nightly")
    work.git("fetch", "--quiet", "--tags", "origin")
    on_remote = ("--git-dir", str(work.remote), "update-ref")
    if fault == "a branch is a folder now":
        work.git(*on_remote, "-d", "refs/heads/fix")
        work.git(*on_remote, "refs/heads/fix/a", "refs/heads/main")
    elif fault == "a tag was moved":
        work.git(*on_remote, "refs/tags/nightly", f"refs/heads/{release.branch}")
        work.git("config", "remote.origin.tagOpt", "--tags")
    else:
        work.git("config", "remote.origin.fetch", "+refs/heads/gone:refs/remotes/origin/gone")
    assert landing.notes_on_main(release, "# Notes", "release: withdraw it")
    assert states(take, release) == [CHANGED, CHANGED, CHANGED]


def test_what_main_has_that_was_never_pushed_is_named_before_it_is(work: Work, take: Take) -> None:
    release = archived(work)
    work.git("switch", "--quiet", "main")
    work.commit({"wip.txt": "half"}, "feat: half of it")
    work.git("switch", "--quiet", release.branch)
    assert take(STEPS[0], release, False).text.endswith(
        f"git merge --no-ff {release.branch}, pushed too: feat: half of it"
    )


@pytest.mark.parametrize("how", ["--no-ff", "--squash"])
def test_a_pull_request_that_was_merged_is_seen_without_a_fetch(work: Work, take: Take, how: str) -> None:
    """It was a traceback, in a status too, until somebody typed git fetch: the remote's commit was not here."""
    hook = protect(work)
    assert states(take, archived(work)) == [CHANGED, CHANGED, MANUAL]
    hook.unlink()
    host = type(work)(work.root.parent / "host", work.remote)
    work.git("clone", "--quiet", str(work.remote), str(host.root))
    host.git("merge", "--quiet", how, f"origin/{BACK}")
    host.git("commit", "--quiet", "--allow-empty", "--message", "Release 0.1.1 (#8)")
    host.git("push", "--quiet", "origin", "main")
    release, refs = work.release(), work.git("for-each-ref")
    release.only_checks = True
    assert release.is_over and states(take, release, change=False) == [DONE] * 3
    assert work.git("for-each-ref") == refs, "a look moves no ref"


def test_a_stop_before_the_branch_of_the_pull_request_is_pushed_loses_no_commit_of_main(work: Work, take: Take) -> None:
    """Main was reset before: what a person had committed there, and not pushed, was in no branch any more."""
    release, before = archived(work), work.git("rev-parse", "main")
    work.git("switch", "--quiet", "main")
    mine = work.commit({"mine.txt": "x"}, "feat: a day of work")
    work.git("switch", "--quiet", release.branch)
    protect(work).write_text("#!/bin/sh\nexit 1\n")
    assert [take(step, release).state for step in STEPS] == [CHANGED, CHANGED, REFUSED]
    assert release.git.contains("refs/heads/main", mine) and f"refs/heads/{BACK}" not in release.git.remote_refs
    protect(work)
    assert states(take, release) == [DONE, DONE, MANUAL]
    assert work.git("rev-parse", "main") == before
    assert release.git.contains(release.git.remote_refs[f"refs/heads/{BACK}"], mine)


def test_a_branch_that_a_colleague_moved_after_the_tag_is_named_before_anything_is_committed_on_it(
    work: Work, take: Take
) -> None:
    release = archived(work)
    assert take(tag.tag_the_release, release, change=False).state == DONE
    host = type(work)(work.root.parent / "host", work.remote)
    work.git("clone", "--quiet", "--branch", release.branch, str(work.remote), str(host.root))
    host.commit({"their.txt": "x"}, "Theirs")
    host.git("push", "--quiet", "origin", release.branch)
    (problem,) = take(tag.tag_the_release, work.release(), change=False).problems
    assert problem.what.startswith(f"{release.branch} lacks commits that origin has")


def test_a_race_is_no_rule_and_is_raised(work: Work, take: Take) -> None:
    release = archived(work)
    assert [take(step, release).state for step in STEPS[:2]] == [CHANGED] * 2
    work.git("switch", "--quiet", "--detach", "origin/main")
    theirs = work.commit({"their.txt": "x"}, "Theirs")
    work.git("push", "--quiet", "origin", "HEAD:main")
    (problem,) = take(STEPS[2], release).problems
    assert "(fetch first)" in problem.what or "(non-fast-forward)" in problem.what
    assert f"refs/heads/{BACK}" not in release.git.remote_refs
    assert states(take, release) == [CHANGED, DONE, CHANGED]
    assert release.git.contains("refs/remotes/origin/main", theirs)


@pytest.mark.parametrize(
    ("reason", "is_rule"),
    [
        ("protected branch hook declined", True),
        ("push declined due to repository rule violations", True),
        ("TF402455: Pushes to this branch are not permitted; you must use a pull request.", True),
        ("prohibited by Gerrit: not permitted: update", True),
        ("cannot lock ref 'refs/heads/main': is at a but expected b", False),
        ("failed to update ref", False),
        ("atomic push failure", False),
        ("shallow update not allowed", False),
    ],
)
def test_what_hosts_say_of_their_rules(reason: str, is_rule: bool) -> None:
    found = f"To x\n!\tHEAD:refs/heads/main\t[remote rejected] ({reason})\nDone"
    assert bool(landing.DECLINED.search(found)) == is_rule
    assert not landing.DECLINED.search(f"!\tHEAD:refs/heads/main\t[rejected] ({reason})\n")


# What became of the pull request. Each takes place on the host's main.


def merged(host: Work) -> None:
    host.git("merge", "--quiet", "--no-ff", "--no-edit", f"origin/{BACK}")


def squashed(host: Work) -> None:
    host.git("merge", "--quiet", "--squash", f"origin/{BACK}")
    host.commit({}, "Back (#8)")


def rebased(host: Work) -> None:
    commits = host.git("rev-list", "--reverse", "--no-merges", f"main..origin/{BACK}").split()
    host.git("cherry-pick", "--allow-empty", *commits)


def reviewed(host: Work) -> None:
    """More commits on the branch, then a squash of all."""
    host.git("merge", "--quiet", "--squash", f"origin/{BACK}")
    host.commit({"review.txt": "x\n"}, "Back (#8)")


def edited(host: Work) -> None:
    host.git("merge", "--quiet", "--squash", f"origin/{BACK}")
    host.commit({NOTES: "# v0.1.1, said better\n", "app.txt": "a suggestion\n"}, "Back (#8)")


def busy(host: Work) -> None:
    host.commit({"two.txt": "two\n", "CHANGELOG.md": "# Changes\n\n## 0.1.1\n\n- two\n"}, "Meanwhile")


def resolved(host: Work) -> None:
    host.git("merge", "--quiet", "--squash", "--strategy-option=theirs", f"origin/{BACK}")
    host.commit({}, "Back (#8)")


def later(host: Work) -> None:
    host.commit({"CHANGELOG.md": "## 0.3.0\n", "VERSION": "0.3.0-dev\n"}, "Later")


def reverted(host: Work) -> None:
    squashed(host)
    host.git("revert", "--no-edit", "HEAD")


def notes_alone(host: Work) -> None:
    host.git("checkout", f"origin/{BACK}", "--", NOTES)
    host.commit({}, "Notes")


@pytest.mark.parametrize(
    ("acts", "is_there"),
    [
        ([busy], False),
        ([merged], True),
        ([squashed], True),
        ([rebased], True),
        ([squashed, later], True),
        ([rebased, later], True),
        ([reviewed], True),
        ([busy, resolved], True),
        ([edited], True),
        ([edited, later], True),
        ([reverted], False),
        ([notes_alone], False),
    ],
    ids=lambda value: " ".join(act.__name__ for act in value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("deleted", [False, True], ids=["branch kept", "branch deleted"])
def test_what_came_to_main_by_the_pull_request_is_known(
    work: Work, take: Take, tmp_path: Path, acts: list[Callable[[Work], None]], is_there: bool, deleted: bool
) -> None:
    hook = protect(work)
    release = archived(work)
    assert states(take, release)[-1] == MANUAL
    hook.unlink()
    host = type(work)(tmp_path / "host", work.remote)
    work.git("clone", "--quiet", str(work.remote), str(host.root))
    for act in acts:
        act(host)
    host.git("push", "--quiet", "origin", "main")
    release.git.refresh()
    if not is_there:
        assert states(take, release) == [DONE, DONE, MANUAL]
        return
    if deleted:
        host.git("push", "--quiet", "origin", f":{BACK}")
        release.git.refresh()
    protect(work)
    assert states(take, release) == [DONE, DONE, DONE]
    assert release.is_over


# An older line


@pytest.fixture
def hotfix(work: Work) -> Release:
    """0.1.2 has come from support/0.1 as far as section 9, while main is on 0.3.0-dev."""
    work.release_before("v0.1.0")
    work.git("push", "--quiet", "origin", "main:support/0.1")
    work.git("branch", "--quiet", "support/0.1")
    work.commit({"VERSION": "0.3.0-dev\n", "CHANGELOG.md": "## 0.3.0\n", "app.txt": "main's\n"}, "Main goes on")
    work.git("push", "--quiet", "origin", "main")
    work.git("switch", "--quiet", "support/0.1")
    work.commit({"app.txt": "fixed\n"}, "fix: it")
    return archived(work, "0.1.2")


def test_main_gets_the_notes_alone_of_an_older_line_s_release(hotfix: Release, work: Work, take: Take) -> None:
    main = work.git("rev-parse", "main")
    assert (hotfix.base, take(STEPS[2], hotfix, change=False).state) == ("support/0.1", PENDING)
    assert states(take, hotfix) == [CHANGED, CHANGED, CHANGED]
    assert hotfix.is_over and states(take, hotfix) == [DONE] * 3
    for branch in ("main", "support/0.1"):
        work.git("switch", "--quiet", branch)
        assert take(preconditions.check_branch, hotfix).text == f"on {branch}"
    assert work.git("show", "origin/support/0.1:VERSION") == "0.1.3-dev"
    assert work.git("rev-parse", "origin/main~1", "main").split() == [main] * 2
    assert work.git("diff", "--name-only", "main", "origin/main") == hotfix.notes_path
    assert work.git("status", "--porcelain") == "" and work.git("branch", "--show-current") == "support/0.1"


def test_each_branch_of_an_older_line_waits_for_its_own_pull_request(hotfix: Release, work: Work, take: Take) -> None:
    protect(work, branch=r".*").write_text("#!/bin/sh\ncase $1 in refs/heads/release/*) ;; *) exit 1 ;; esac\n")
    assert states(take, hotfix) == [CHANGED, CHANGED, MANUAL]
    text = "support/0.1 waits for the pull request of release/v0.1.2-back; "
    assert take(STEPS[-1], hotfix).text == f"{text}main waits for the pull request of release/v0.1.2-notes-back"
    (work.remote / "hooks" / "update").unlink()
    work.git("push", "--quiet", "origin", "origin/release/v0.1.2-notes-back:refs/heads/main")
    hotfix.git.refresh()
    assert take(STEPS[-1], hotfix).text == text.rstrip("; ") and not hotfix.is_over
    work.git("push", "--quiet", "origin", "origin/release/v0.1.2-back:refs/heads/support/0.1")
    hotfix.git.refresh()
    assert states(take, hotfix)[1:] == [DONE] * 2 and hotfix.is_over


def test_a_finished_release_stays_over_when_its_support_branch_is_cut(work: Work, take: Take) -> None:
    release = archived(work)
    assert states(take, release) == [CHANGED, CHANGED, CHANGED]
    work.git("push", "--quiet", "origin", f"{release.published}:refs/heads/support/0.1")
    release.git.refresh()
    assert release.base == "main" and release.is_over and states(take, release) == [DONE] * 3


def test_so_it_does_where_it_came_by_a_squashed_pull_request_that_nobody_has_fetched(work: Work, take: Take) -> None:
    """It was released once more, to the support branch."""
    hook = protect(work)
    assert states(take, archived(work)) == [CHANGED, CHANGED, MANUAL]
    hook.unlink()
    host = type(work)(work.root.parent / "host", work.remote)
    work.git("clone", "--quiet", str(work.remote), str(host.root))
    squashed(host)
    host.git("push", "--quiet", "origin", "main", f":{BACK}", "v0.1.1^{}:refs/heads/support/0.1")
    release = work.release()
    assert release.base == "main" and release.is_over and states(take, release) == [DONE] * 3


def test_notes_that_others_outrun_are_pushed_by_the_same_command(hotfix: Release, work: Work, take: Take) -> None:
    push = f"git -C {work.root} push --quiet --no-verify origin main~0:refs/heads/main"
    work.git("switch", "--quiet", "--detach", "main")
    theirs = work.commit({"their.txt": "x"}, "Theirs")
    work.git("switch", "--quiet", hotfix.branch)
    hook = add_hook(work.root, "pre-push", f"grep --quiet refs/heads/main && {push.replace('main~0', theirs)}; exit 0")
    assert states(take, hotfix)[2] == REFUSED
    hook.unlink()
    assert states(take, hotfix) == [DONE, DONE, CHANGED] and hotfix.git.contains("origin/main", theirs)
