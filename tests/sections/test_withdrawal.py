"""A release that will not be finished: what its withdrawal says, and what comes after it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from release_tasks import lines
from release_tasks.database import apply
from release_tasks.errors import Refused
from release_tasks.outcome import CHANGED, DONE, MANUAL, REFUSED, Outcome
from release_tasks.sections import freeze, landing, preconditions, withdrawal

if TYPE_CHECKING:
    from release_tasks.release import Release
    from tests.conftest import Work

WITHDRAWN = "# App v0.1.1\n\n> Withdrawn on 2026-11-27 by Ada: its smoke hangs. v0.1.1 stays.\n"


def withdrawn(release: Release) -> str:
    return lines.withdrawn(release.git, release.settings, release.version)


def test_what_was_never_published_gives_up_its_lock_alone(work: Work, take: Callable[..., Outcome]) -> None:
    release = work.release()
    assert take(freeze.hold_the_release_lock, release).state == CHANGED
    planned = take(withdrawal.record_the_withdrawal, release, change=False)
    assert planned.text == "give up the lock; v0.1.1 was never published"


@pytest.mark.parametrize("under_way", [True, False])
def test_a_version_that_was_never_begun_is_refused(work: Work, take: Callable[..., Outcome], under_way: bool) -> None:
    """A mistyped version looked withdrawn, and the lock on the remote said so."""
    if under_way:
        assert take(freeze.hold_the_release_lock, work.release("0.2.0")).state == CHANGED
    refused = take(withdrawal.record_the_withdrawal, work.release("7.7.7"), change=False)
    (problem,) = refused.problems
    assert problem.what == "v7.7.7 was never published, and it does not hold the lock."
    assert problem.hint.startswith("inv deploy.running"), "nobody's release is offered to be withdrawn"


def test_what_was_withdrawn_before_its_tag_can_be_withdrawn_again(work: Work, take: Callable[..., Outcome]) -> None:
    release = work.release()
    for step in (freeze.hold_the_release_lock, withdrawal.record_the_withdrawal):
        assert take(step, release).state == CHANGED
    for change in (False, True):
        for step in (freeze.hold_the_release_lock, withdrawal.record_the_withdrawal):
            assert take(step, release, change=change).state != REFUSED
    assert release.lock.state().holder == "free"


def test_the_release_after_it_comes_after_the_one_before_it(work: Work) -> None:
    """Its notes lacked what was withdrawn, DDL included: production had never got that."""
    work.release_before("v0.1.0")
    work.commit({"feature": ""}, "feat: weight")
    work.release_before("v0.1.1")
    release = work.release("0.1.2")
    assert release.last() == release.last(for_notes=True) == "v0.1.1"
    work.commit({release.settings.notes_of("0.1.1"): WITHDRAWN}, "release: withdraw v0.1.1")
    work.git("push", "--quiet", "origin", "main")
    release = work.release("0.1.2")
    assert release.last() == release.last(for_notes=True) == "v0.1.0"
    assert release.line.last("0.1.2") == "0.1.1", "its number is taken"


def test_the_ddl_that_it_left_in_an_environment_is_proved_over(
    work: Work, dsn: str, take: Callable[..., Outcome]
) -> None:
    """Production had its table for good, the changed file skipped that, and only `inv ddl.drift` noticed."""
    here = {"dsn": dsn, "origin": "http://127.0.0.1:1", "folder": "srv", "restart": ["true"], "log": "none"}
    settings = {"environments": dict.fromkeys(("dev", "staging", "production"), here)}
    work.release_before("v0.1.0")
    work.commit({"ddl/02_weights.sql": "create table if not exists app.weights (kilo int);\n"})
    work.release_before("v0.1.1")
    left = work.release("0.1.1", **settings).pack
    changed = {"ddl/02_weights.sql": "create table if not exists app.weights (gram int);\n"}
    work.commit({work.release().settings.notes_of("0.1.1"): WITHDRAWN, **changed}, "release: withdraw v0.1.1")
    work.git("push", "--quiet", "origin", "main")
    release = work.release("0.1.2", **settings)
    production = release.environment("production")
    apply.apply(production, left[:2], work.root, "0.1.1")
    assert take(preconditions.prove_the_ddl_pack, release).state == DONE, "what never got there can change"
    apply.apply(production, left, work.root, "0.1.1")
    problems = take(preconditions.prove_the_ddl_pack, release).problems
    for problem, name in zip(problems, ("staging", "production"), strict=True):
        assert problem.what.startswith(f"{name} has the DDL of v0.1.1, which was withdrawn: Over the last release: ")
        assert "differs from a fresh database: table app.weights" in problem.what
    apply.apply(production, release.pack, work.root, "0.1.2")
    assert take(preconditions.prove_the_ddl_pack, release).state == DONE, "the next release was proved over it"
    settings["environments"]["production"] = {**here, "dsn": "${NOT_SET}"}
    (problem,) = take(preconditions.prove_the_ddl_pack, work.release("0.1.2", **settings)).problems
    assert "NOT_SET is not set" in problem.what


def test_it_is_refused_also_where_nobody_has_fetched_since(work: Work) -> None:
    """A release that a colleague had withdrawn went on to production, and through section 9."""
    work.release_before("v0.1.1")
    host = type(work)(work.root.parent / "host", work.remote)
    work.git("clone", "--quiet", str(work.remote), str(host.root))
    host.commit({work.release().settings.notes_of("0.1.1"): WITHDRAWN}, "release: withdraw v0.1.1")
    host.git("push", "--quiet", "origin", "main")
    with pytest.raises(Refused, match=r"v0\.1\.1: Withdrawn on "):
        preconditions.check_tag_is_free(work.release())


def test_after_a_candidate_that_was_withdrawn_the_next_candidate_is_proposed(work: Work) -> None:
    """It was the final release."""
    work.release_before("v0.1.1-rc.1")
    work.commit({work.release().settings.notes_of("0.1.1-rc.1"): WITHDRAWN}, "release: withdraw v0.1.1-rc.1")
    work.git("push", "--quiet", "origin", "main")
    with pytest.raises(Refused) as refused:
        preconditions.check_tag_is_free(work.release("0.1.1-rc.1"))
    assert refused.value.problems[0].hint == "inv release --version 0.1.1-rc.2"


def test_it_is_refused_also_while_its_notes_wait_for_a_pull_request(work: Work, take: Callable[..., Outcome]) -> None:
    work.release_before("v0.1.1")
    work.git("push", "--quiet", "origin", "HEAD:refs/heads/release/v0.1.1-withdrawn-back")
    with pytest.raises(Refused, match=r"v0\.1\.1: its withdrawal waits for the pull request of "):
        preconditions.check_tag_is_free(work.release())
    assert take(withdrawal.record_the_withdrawal, work.release()).state == MANUAL


def told_of(work: Work, take: Callable[..., Outcome], reason: str) -> str:
    """Withdraw v0.1.1, and return what is said of it then."""
    work.release_before("v0.1.1")
    release = work.release()
    release.options = {"reason": reason}  # type: ignore[attr-defined]
    for step in (freeze.hold_the_release_lock, withdrawal.record_the_withdrawal):
        assert take(step, release).state == CHANGED
    return withdrawn(release)


def test_a_reason_of_several_lines_is_one_line_of_the_notes(work: Work, take: Callable[..., Outcome]) -> None:
    """Its last line was a heading of the notes, and a status showed the first one alone."""
    told = told_of(work, take, 'Käse "double"\nsecond line\n# no heading\n')
    assert ': Käse "double" second line # no heading. v0.1.1 stays' in told


def test_what_was_fixed_in_the_freeze_alone_is_named(work: Work, take: Callable[..., Outcome]) -> None:
    """Its fixes went with it, in silence."""
    work.git("switch", "--quiet", "--create", "release/v0.1.1")
    work.commit({"fix": "1"}, "fix: what staging found")
    told = told_of(work, take, "its smoke hangs")
    assert "; not merged into main: fix: what staging found" in told


def test_who_is_known_by_a_variable_alone_is_named(
    work: Work, take: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In CI the notes said `Withdrawn on … by : its smoke hangs`."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "The pipeline")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "ci@example.invalid")
    assert " by The pipeline: its smoke hangs." in told_of(work, take, "its smoke hangs")
    assert take(freeze.announce_the_freeze, work.release("0.1.2")).text.startswith("The pipeline froze v0.1.2 until ")


def test_where_the_remote_has_no_main_it_says_so(work: Work) -> None:
    """It was a KeyError."""
    release = work.release()
    work.git("push", "--quiet", "origin", "main:other")
    work.git("-C", str(work.remote), "symbolic-ref", "HEAD", "refs/heads/other")
    work.git("push", "--quiet", "--delete", "origin", "main")
    with pytest.raises(Refused, match="origin has no branch main, which gets the notes"):
        landing.notes_on_main(release, "# App\n", "release: withdraw v0.1.1")


def test_nobody_is_told_to_merge_it(work: Work) -> None:
    """The hint ended in a conflict: a pull brings its notes, which is all there is to bring."""
    work.release_before("v0.1.0")
    work.git("switch", "--quiet", "--create", "release/v0.1.1")
    work.commit({"VERSION": "0.1.1\n"}, "docs: update version")
    work.release_before("v0.1.1")
    work.git("switch", "--quiet", "main")
    before = work.git("rev-parse", "HEAD")
    (problem,) = work.release("0.1.2").line.problems("0.1.2")
    assert "git merge --no-ff v0.1.1" in problem.hint
    work.commit({work.release().settings.notes_of("0.1.1"): WITHDRAWN}, "release: withdraw v0.1.1")
    work.git("push", "--quiet", "origin", "main")
    work.git("reset", "--quiet", "--hard", before)
    assert work.release("0.1.2").line.problems("0.1.2") == []
    work.git("push", "--quiet", "--force", "origin", "main", "main:release/v0.1.1-withdrawn-back")
    assert work.release("0.1.2").line.problems("0.1.2") == [], "its notes wait for a pull request"


def test_where_the_docs_are_a_submodule_it_is_recorded_there_and_main_takes_that_in(
    work: Work, take: Callable[..., Outcome]
) -> None:
    """It ended in an error of git, when the lock was taken: the folder of the notes is no folder of main's tree."""
    docs = work.add_submodule("manual", {"RELEASE_NOTES_TEMPLATE.md": "x\n"})
    work.git("push", "--quiet", "origin", "main")
    work.release_before("v0.1.1")
    clone = type(work)(work.root.parent / "clone", work.remote, work.opened)
    work.git("clone", "--quiet", "--recurse-submodules", str(work.remote), str(clone.root))
    theirs = docs.commit({"VERSION": "0.1.1\n"}, "docs: update version + hashes for v0.1.1")
    docs.git("push", "--quiet", "origin", "HEAD:main")
    before, options = work.git("rev-parse", "HEAD"), {"docs_pack": {"folder": "manual"}}
    release = work.release(**options)
    release.options = {"reason": "its smoke hangs"}
    for step in (freeze.hold_the_release_lock, withdrawal.record_the_withdrawal):
        assert take(step, release).state == CHANGED
    for there in (work, clone):  # where only main is fetched
        assert ": its smoke hangs. v0.1.1 stays; " in withdrawn(there.release(**options))
    assert work.git("diff", "--name-only", before, "origin/main") == "manual"
    docs.git("fetch", "--quiet")
    assert docs.git("rev-parse", "origin/main") == work.git("rev-parse", "origin/main:manual")
    assert docs.git("diff", "--name-only", theirs, "origin/main") == "releases/v0.1.1.md"
    assert docs.git("rev-parse", "HEAD") == theirs and work.git("rev-parse", "HEAD") == before
    assert release.lock.state().holder == "free"
