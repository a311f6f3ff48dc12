"""The release branch merged back, the next version in work, the cycle open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_tasks import git_setup
from release_tasks.changelog import with_heading
from release_tasks.errors import Refused
from release_tasks.files import records_folder
from release_tasks.outcome import CHANGED, DONE, PENDING, PLANNED, REFUSED, Outcome
from release_tasks.release import Release
from release_tasks.sections import post_release
from release_tasks.sections.preconditions import check_tree_is_clean

if TYPE_CHECKING:
    from tests.conftest import Work

LINES = st.sampled_from(["# Changes", "", "## 0.1.1", "## [0.1.2]", "## 0.1.20", "text ## 0.1.2", "### 0.1.2", "- x"])


@given(st.lists(LINES).map("\n".join))
def test_a_heading_is_added_once_and_nothing_is_lost(changelog: str) -> None:
    once = with_heading(changelog, "0.1.2-dev")
    assert with_heading(once, "0.1.2-dev") == once
    added = Counter(once.splitlines()) - Counter(changelog.splitlines())
    assert set(added) <= {"## 0.1.2", ""} and added["## 0.1.2"] <= 1
    assert not Counter(changelog.splitlines()) - Counter(once.splitlines())


@pytest.mark.parametrize(
    ("changelog", "expected"),
    [
        ("# Changes\n\n## 0.1.1\n\nx\n", "# Changes\n\n## 0.1.2\n\n## 0.1.1\n\nx\n"),
        ("# Changes\n", "# Changes\n## 0.1.2\n\n"),
        ("", "## 0.1.2\n\n"),
        ("## 0.1.2 (soon)\n", "## 0.1.2 (soon)\n"),
        ("## [0.1.2]\n", "## [0.1.2]\n"),
        ("## v0.1.2\n", "## v0.1.2\n"),
        ("## [Unreleased]\n\n## [0.1.1]\n", "## [Unreleased]\n\n## [0.1.1]\n"),  # R15
        ("## 0.1.2-rc1\n", "## 0.1.2\n\n## 0.1.2-rc1\n"),
    ],
)
def test_the_new_section_stands_above_the_newest_unless_it_is_there(changelog: str, expected: str) -> None:
    assert with_heading(changelog, "0.1.2-dev") == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, "0.1.2-dev"), ("0.2.0-dev", "0.2.0-dev"), ("0.2.0", "0.2.0"), ("0.1.2-rc1", "0.1.2-rc1")],
)
def test_the_next_version_is_the_next_patch_in_work_or_the_one_given(
    work: Work, given: str | None, expected: str
) -> None:
    release = work.release()
    assert post_release.next_version(release, given) == expected


@pytest.mark.parametrize("given", ["0.1.1", "0.1.0", "0.1.0-dev", "0.1.1-dev", "soon", "v0.2.0", "--yes"])
def test_a_next_version_that_does_not_come_after_this_is_refused(work: Work, given: str) -> None:
    release = work.release()
    with pytest.raises(Refused):
        post_release.next_version(release, given)


@pytest.fixture
def archived(work: Work) -> Callable[[str], Release]:
    """Return what brings a version as far as section 9: released from its branch, its evidence pack archived."""

    def archived(version: str) -> Release:
        release = work.release(version)
        work.git("switch", "--quiet", "--create", release.branch)
        work.commit({"VERSION": f"{version}\n"}, "release")
        work.git("tag", "--annotate", "--message", "x", release.tag)
        work.commit({release.notes_path: "notes\n"}, "notes")
        work.git("push", "--quiet", "origin", release.branch, release.tag)
        (records_folder(work.root) / release.tag / "evidence").mkdir(parents=True)
        return release

    return archived


STEPS = [
    post_release.merge_the_release_branch_back,
    post_release.open_the_next_cycle,
    post_release.push_the_main_branch,
]


@pytest.mark.parametrize(("version", "following"), [("0.1.1", "0.1.2-dev"), ("0.1.1-rc1", None)])
def test_the_cycle_is_closed_and_then_all_is_history(
    archived: Callable[[str], Release], work: Work, take: Callable[..., Outcome], version: str, following: str | None
) -> None:
    release = archived(version)
    assert [take(step, release, change=False).state for step in STEPS[1:]] == [PENDING, PENDING]
    assert [take(step, release).state for step in STEPS] == [CHANGED] * 3
    assert release.is_over and [take(step, release).state for step in STEPS] == [DONE] * 3
    assert following in (None, work.git("show", "origin/main:VERSION"))
    assert work.git("status", "--porcelain") == ""


def test_what_others_pushed_to_main_meanwhile_is_kept(
    archived: Callable[[str], Release], work: Work, take: Callable[..., Outcome]
) -> None:
    release = archived("0.1.1")
    work.git("switch", "--quiet", "--detach", "main")
    theirs = work.commit({"their.txt": "x"}, "Theirs")
    work.git("push", "--quiet", "origin", "HEAD:main")
    work.git("switch", "--quiet", release.branch)
    assert [take(step, release).state for step in STEPS] == [CHANGED] * 3
    assert release.git.contains("refs/remotes/origin/main", theirs)


def test_a_main_branch_that_is_not_here_is_brought_here(
    archived: Callable[[str], Release], work: Work, take: Callable[..., Outcome]
) -> None:
    """A clone of CI may have the release branch alone: git knew no such branch, whatever was typed."""
    release = archived("0.1.1")
    work.git("branch", "--delete", "--force", "main")
    work.git("update-ref", "-d", "refs/remotes/origin/main")
    assert [take(step, release).state for step in STEPS] == [CHANGED] * 3
    assert release.is_over


def test_a_merge_that_conflicts_is_put_back_and_told(
    archived: Callable[[str], Release], work: Work, take: Callable[..., Outcome]
) -> None:
    release = archived("0.1.1")
    work.git("switch", "--quiet", "main")
    main = work.commit({"VERSION": "0.3.0-dev\n"}, "Meanwhile")
    look = take(post_release.merge_the_release_branch_back, release)
    assert look.state == REFUSED and "VERSION" in look.problems[0].what
    assert work.git("rev-parse", "main") == main and git_setup.under_way(release.git.repo.git_dir) is None
    assert release.git.dirty_paths() == []


@pytest.mark.parametrize("given", ["0.1.2-dev", "0.3.0-dev"])
def test_what_was_written_when_it_was_killed_before_the_commit_is_taken_back_and_written_again(
    archived: Callable[[str], Release], work: Work, take: Callable[..., Outcome], given: str
) -> None:
    """The same command was refused by the tree that it had left itself."""
    release = archived("0.1.1")
    work.git("switch", "--quiet", "main")
    work.commit({"CHANGELOG.md": "# Changes\n\n## 0.2.0\n\n## 0.1.1\n"}, "Meanwhile")
    assert take(STEPS[0], release).state == CHANGED
    hook = work.refuse_commits()
    release.options = {"next": given}
    assert take(STEPS[1], release).state == REFUSED
    hook.unlink()
    look = take(check_tree_is_clean, release, change=False)
    assert look.state == PLANNED and look.text.startswith("git restore CHANGELOG.md, SOURCE_TAG, VERSION")
    assert take(check_tree_is_clean, release).state == CHANGED
    assert work.git("status", "--porcelain") == ""
    assert [take(step, release).state for step in STEPS[1:]] == [CHANGED] * 2 and release.is_over


@pytest.mark.parametrize("path", ["VERSION", "CHANGELOG.md", "other.txt"])
def test_what_a_hand_wrote_on_main_is_never_taken_back(
    archived: Callable[[str], Release], work: Work, take: Callable[..., Outcome], path: str
) -> None:
    release = archived("0.1.1")
    assert take(STEPS[0], release).state == CHANGED
    hook = work.refuse_commits()
    assert take(STEPS[1], release).state == REFUSED
    hook.unlink()
    with (work.root / path).open("a") as file:
        file.write("by hand\n")
    (problem,) = take(check_tree_is_clean, release).problems
    assert path in problem.what and (work.root / path).read_text().endswith("by hand\n")
    work.git("stash", "--include-untracked")
    assert [take(step, release).state for step in STEPS[1:]] == [CHANGED] * 2
    work.write({"VERSION": "0.1.3-dev\n"})
    assert take(check_tree_is_clean, release).state == REFUSED, "the cycle is open: it is a person's"
