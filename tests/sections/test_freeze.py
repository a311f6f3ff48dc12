"""The freeze: the lock on the DDL pack, what may still change under it, and what is kept of that in git."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from release_tasks.database import pack
from release_tasks.files import records_folder
from release_tasks.outcome import CHANGED, DONE, PLANNED, REFUSED, Outcome
from release_tasks.release import Release
from release_tasks.sections.freeze import (
    announce_the_freeze,
    cut_the_release_branch,
    hold_the_release_lock,
    lock_the_ddl_order,
)
from release_tasks.sections.withdrawal import record_the_withdrawal
from tests.conftest import APP, Work

if TYPE_CHECKING:
    from release_tasks.errors import Problem

LOCK, TABLES = "ddl/ORDER.lock", "ddl/01_tables.sql"
LATE = {"ddl/02_late.sql": "create table if not exists app.late (n int);\n"}
REFORMATTED = {TABLES: f"-- The things.\n{APP[TABLES].replace('(', ' ( ')}"}
OTHER_COLUMN = {TABLES: f"{APP[TABLES]}alter table app.things add if not exists born date;\n"}

Take = Callable[..., Outcome]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def remembering(work: Work, cache: Path) -> None:
    """Let all tests remember together what a pack makes: each scratch server takes a second."""
    (records_folder(work.root) / "cache").symlink_to(cache)


@pytest.fixture
def locked(work: Work, take: Take) -> Release:
    """Return a release whose DDL order is locked."""
    release = work.release()
    assert take(cut_the_release_branch, release).state == CHANGED
    assert take(lock_the_ddl_order, release).state == CHANGED
    return release


def what(problems: tuple[Problem, ...]) -> list[str]:
    return [problem.what for problem in problems]


def journal(release: Release) -> list[str]:
    return [record["event"] for record in release.journal.records()]


def test_the_end_of_the_freeze_is_what_the_team_was_told(
    work: Work, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It moved with each run."""
    release = work.release()
    assert take(hold_the_release_lock, release).state == CHANGED
    state = replace(release.lock.state(), since="2026-11-27T12:00:00Z")
    monkeypatch.setattr(release.lock, "state", lambda: state)
    end = datetime(2026, 11, 28, 12, tzinfo=UTC).astimezone()
    assert f"until {end:%Y-%m-%d %H:%M %Z}" in take(announce_the_freeze, release).text


@pytest.mark.parametrize("where", ["two remotes", "one branch"])
def test_the_release_branch_is_returned_to_in_any_clone(work: Work, take: Take, tmp_path: Path, where: str) -> None:
    """Git was left to guess which one is meant: two remotes have it, or none that is fetched as configured."""
    work.git("push", "--quiet", "origin", "HEAD:refs/heads/release/v0.1.1")
    here = Work(tmp_path / "clone", work.remote)
    work.git("clone", "--quiet", *["--single-branch"] * (where == "one branch"), str(work.remote), str(here.root))
    if where == "two remotes":
        here.git("remote", "add", "fork", str(work.remote))
        here.git("fetch", "--quiet", "--all")
    release = here.release()
    assert take(cut_the_release_branch, release).state == CHANGED and release.git.branch == "release/v0.1.1"
    release.close()


def test_the_order_is_locked_once_and_a_look_changes_nothing(work: Work, take: Take) -> None:
    release = work.release()
    before = work.git("rev-parse", "HEAD")
    look = take(lock_the_ddl_order, release, change=False)
    assert (look.state, look.text) == (PLANNED, f"git commit {LOCK} (2 files)")
    assert work.git("rev-parse", "HEAD") == before and not (work.root / LOCK).exists()
    assert take(lock_the_ddl_order, release).state == CHANGED
    look = take(lock_the_ddl_order, release)
    assert (look.state, look.text) == (DONE, "2 files")
    title, trailer = "release: lock the DDL order for v0.1.1", "Release-Step: v0.1.1 freeze"
    assert work.git("log", "-1", "--format=%B") == f"{title}\n\n{trailer}"
    assert journal(release) == []


def test_a_reformatted_comment_is_a_fix_and_no_shift(locked: Release, work: Work, take: Take) -> None:
    work.commit(REFORMATTED)
    look = take(lock_the_ddl_order, locked, change=False)
    assert (look.state, look.text) == (PLANNED, f"git commit {LOCK} (2 files, critical fix: changed {TABLES})")
    assert take(lock_the_ddl_order, locked).state == CHANGED
    assert take(lock_the_ddl_order, locked).state == DONE
    assert work.git("log", "-1", "--format=%b").splitlines() == [
        "critical fix in the freeze:",
        f"changed {TABLES}",
        "",
        "Release-Step: v0.1.1 freeze",
    ]
    assert journal(locked) == ["ddl-fix"]


def test_another_column_is_a_shift_that_a_reason_allows_for_good(
    locked: Release, work: Work, take: Take, tmp_path: Path
) -> None:
    base = work.git("rev-parse", "HEAD")
    work.commit(OTHER_COLUMN)
    refused = take(lock_the_ddl_order, locked)
    assert refused.state == REFUSED
    assert what(refused.problems) == [
        f"Since the DDL order was locked: changed {TABLES}.",
        "Structural shift since the DDL order was locked: table app.things is changed: + born date.",
    ]
    undo = f"git restore --source {base:.9} --staged --worktree -- ':(glob)ddl/*.sql'"
    assert refused.problems[0].hint == undo
    assert refused.problems[1].hint.startswith('inv release --version 0.1.1 --allow-shift "')
    locked.options = {"allow_shift": " … "}
    assert take(lock_the_ddl_order, locked).state == REFUSED
    locked.options = {"allow_shift": "a law came\nover night"}
    assert take(lock_the_ddl_order, locked).state == CHANGED
    assert work.git("log", "-1", "--format=%b").splitlines() == [
        "shift in the freeze, allowed because “a law came over night”:",
        f"changed {TABLES}",
        "table app.things is changed: + born date",
        "",
        "Release-Step: v0.1.1 freeze",
    ]
    (record,) = locked.journal.records()
    assert (record["event"], record["reason"]) == ("ddl-shift", "a law came\nover night")
    locked.options = {}
    assert take(lock_the_ddl_order, locked).state == DONE

    work.git("push", "--quiet", "origin", locked.branch)
    clone = Work(tmp_path / "clone", work.remote)
    work.git("clone", "--quiet", "--branch", locked.branch, str(work.remote), str(clone.root))
    release = clone.release()
    assert take(lock_the_ddl_order, release).state == DONE
    (told,) = pack.recorded(release.git, "HEAD", "v0.1.1")
    assert told.startswith("shift in the freeze, allowed because “a law came over night”: changed ddl/01_tables.sql; ")
    release.close()


def test_everything_that_shifted_is_told_at_once(locked: Release, work: Work, take: Take) -> None:
    work.git("rm", "--quiet", TABLES)
    work.commit(LATE)
    assert what(take(lock_the_ddl_order, locked).problems) == [
        f"Since the DDL order was locked: removed {TABLES}; added ddl/02_late.sql.",
        "Structural shift since the DDL order was locked: table app.late is new.",
        "Structural shift since the DDL order was locked: table app.things is dropped.",
    ]


def test_the_command_that_undoes_all_that_moved_works_as_typed(locked: Release, work: Work, take: Take) -> None:
    work.git("mv", "ddl/00_schemas.sql", "ddl/00 first.sql")
    work.commit({**LATE, **OTHER_COLUMN})
    undo = shlex.split(take(lock_the_ddl_order, locked).problems[0].hint)
    work.git(*undo[1:])
    work.commit({})
    assert take(lock_the_ddl_order, locked).state == DONE


def test_the_message_of_a_lock_stays_short_enough_for_an_argument(locked: Release, work: Work, take: Take) -> None:
    work.commit({f"ddl/02_{number}.sql": "select 1;\n" for number in range(150)})
    assert take(lock_the_ddl_order, locked).state == CHANGED
    body = work.git("log", "-1", "--format=%b").splitlines()
    assert len(body) == 103 and body[-3] == "and 51 more"


def test_another_name_and_another_order_that_make_the_same_are_no_shift(work: Work, take: Take) -> None:
    same = "create table if not exists app.late (n int);\n"
    work.commit({"ddl/02_B.sql": same, "ddl/02_a.sql": f"{same} -- again\n"})
    assert take(lock_the_ddl_order, work.release(branch="")).state == CHANGED
    work.git("mv", TABLES, "ddl/03_tables.sql")
    work.commit({})
    release = work.release(branch="", ddl={"order": "javascript"})
    assert take(lock_the_ddl_order, release).state == CHANGED
    assert take(lock_the_ddl_order, release).state == DONE
    (told,) = pack.recorded(release.git, "HEAD", "v0.1.1")
    assert told.startswith(f"critical fix in the freeze: removed {TABLES}; added ddl/03_tables.sql; reordered")


@pytest.mark.parametrize("lock", ["", "# v0.1.1: by hand\n", "# v0.0.9: another release's\n", None])
def test_a_lock_that_a_hand_changed_is_written_anew(locked: Release, work: Work, take: Take, lock: str | None) -> None:
    good = (work.root / LOCK).read_text()
    if lock is None:
        work.git("rm", "--quiet", LOCK)
    work.commit({LOCK: lock} if lock is not None else {})
    assert take(lock_the_ddl_order, locked).state == CHANGED
    assert take(lock_the_ddl_order, locked).state == DONE
    assert work.git("show", f"HEAD:{LOCK}") + "\n" == good
    assert list(pack.recorded(locked.git, "HEAD", "v0.1.1")) == [] and journal(locked) == []


@pytest.mark.parametrize("removed", [False, True])
def test_a_lock_that_a_hand_made_fit_hides_no_shift(locked: Release, work: Work, take: Take, removed: bool) -> None:
    work.commit(LATE)
    if removed:
        work.git("rm", "--quiet", LOCK)
    else:
        work.write({LOCK: pack.lock_of(pack.pack_at(locked.git, "HEAD", locked.settings), "v0.1.1").decode()})
    work.commit({}, "release: tidy up")
    refused = take(lock_the_ddl_order, locked)
    assert refused.state == REFUSED
    assert "Since the DDL order was locked: added ddl/02_late.sql." in what(refused.problems)
    locked.options = {"allow_shift": "it has to be"}
    assert take(lock_the_ddl_order, locked).state == CHANGED
    locked.options = {}
    assert take(lock_the_ddl_order, locked).state == DONE
    assert len(list(pack.recorded(locked.git, "HEAD", "v0.1.1"))) == 1


def test_a_lock_written_before_ours_is_made_ours(work: Work, take: Take) -> None:
    release = work.release()
    lock = pack.lock_of(pack.pack_at(release.git, "HEAD", release.settings), "v0.1.1")
    work.commit({LOCK: lock.decode()})
    assert take(lock_the_ddl_order, release).state == CHANGED
    assert take(lock_the_ddl_order, release).state == DONE


def test_a_pack_that_cannot_be_applied_is_refused_with_its_line(locked: Release, work: Work, take: Take) -> None:
    work.commit({"ddl/02_late.sql": "\nselect nothing from nowhere;\n"})
    refused = take(lock_the_ddl_order, locked)
    assert refused.state == REFUSED
    told = what(refused.problems)[1]
    assert "cannot be compared" in told and "ddl/02_late.sql, line 2" in told and "nowhere" in told


def test_once_the_tag_is_published_the_lock_is_history(locked: Release, work: Work, take: Take) -> None:
    work.git("tag", "--annotate", "--message", "v0.1.1", "v0.1.1")
    work.git("push", "--quiet", "origin", "v0.1.1")
    work.commit(LATE)
    locked.git.refresh()
    look = take(lock_the_ddl_order, locked)
    assert (look.state, look.text) == (DONE, "settled when the tag was published")


# The release branch, and a base that went on


@pytest.fixture
def left_behind(work: Work, take: Take) -> Release:
    """Return a release whose branch was cut before main got a fix, and which has the lock."""
    release = work.release()
    assert take(hold_the_release_lock, release).state == CHANGED
    assert take(cut_the_release_branch, release).state == CHANGED
    work.git("switch", "--quiet", "main")
    work.commit({"fix": "1"}, "fix: what the smokes found")
    return release


def test_what_the_release_branch_lacks_is_named_until_it_is_there(left_behind: Release, work: Work, take: Take) -> None:
    """The fix was missing in the tag, in silence: main's smokes had passed."""
    lacks = "release/v0.1.1, without 1 commit of main: fix: what the smokes found"
    look = take(cut_the_release_branch, left_behind, change=False)
    assert (look.state, look.text) == (PLANNED, f"git switch {lacks}")
    assert take(cut_the_release_branch, left_behind).state == CHANGED
    assert take(cut_the_release_branch, left_behind).text == lacks
    work.git("cherry-pick", "main")
    assert take(cut_the_release_branch, left_behind).text == "release/v0.1.1"


def test_what_colleagues_have_pushed_to_main_is_named_too(left_behind: Release, work: Work, take: Take) -> None:
    """On the release branch nobody heard of it: only main as it was here was compared."""
    work.git("push", "--quiet", "origin", "main")
    work.git("reset", "--quiet", "--hard", "main~1")
    work.git("switch", "--quiet", left_behind.branch)
    left_behind.git.refresh()
    lacks = "release/v0.1.1, without 1 commit of main: fix: what the smokes found"
    assert take(cut_the_release_branch, left_behind).text == lacks
    work.git("pull", "--quiet", "--ff-only", "origin", "main")
    assert take(cut_the_release_branch, left_behind).text == "release/v0.1.1"


@pytest.mark.parametrize("is_pushed", [False, True])
def test_what_was_withdrawn_before_its_tag_does_not_begin_again_from_a_stale_branch(
    left_behind: Release, work: Work, take: Take, is_pushed: bool
) -> None:
    assert take(record_the_withdrawal, left_behind).state == CHANGED
    work.git("push", "--quiet", "origin", left_behind.branch)
    if is_pushed:
        work.git("push", "--quiet", "origin", "main")
        work.git("reset", "--quiet", "--hard", "main~1")
    other = work.release("0.2.0")  # whoever has the lock later, it was withdrawn
    assert take(hold_the_release_lock, other).state == take(record_the_withdrawal, other).state == CHANGED
    left_behind.git.refresh()
    assert take(record_the_withdrawal, left_behind).state == DONE
    (problem,) = take(cut_the_release_branch, left_behind, change=False).problems
    lacks = "without 1 commit of main: fix: what the smokes found."
    assert problem.what == f"v0.1.1 was withdrawn, and its branch release/v0.1.1 is left, {lacks}"
    for command in problem.hint.partition("   #")[0].split(" && "):
        work.git(*shlex.split(command)[1:])
    left_behind.git.refresh()
    assert take(cut_the_release_branch, left_behind).state in (CHANGED, DONE)
    assert work.git("show", f"{left_behind.branch}:fix") == "1"
