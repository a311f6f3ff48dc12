"""Section 2: each gate lets a repository in order pass, and names what is not."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_tasks.errors import NotYet, Problem, Refused
from release_tasks.git import Git
from release_tasks.outcome import CHANGED, DONE, PENDING, REFUSED, Outcome
from release_tasks.sections import freeze, preconditions, tag
from release_tasks.sections.docs_pack import publish_the_docs_submodule, write_the_docs_pack
from release_tasks.version_files import file_version_problems

if TYPE_CHECKING:
    from release_tasks.release import Release
    from tests.conftest import Work

GATES = [
    preconditions.check_branch,
    preconditions.check_branch_is_up_to_date,
    preconditions.check_everything_is_merged,
    preconditions.check_tag_is_free,
    preconditions.check_version_order,
    preconditions.check_version_files,
    preconditions.check_ddl_pack,
]


def told(gate: Callable[[Release], str], release: Release) -> list[str]:
    """Return what `gate` refuses, each with its hint."""
    release.refresh()
    with pytest.raises(Refused) as refused:
        gate(release)
    assert all(problem.hint for problem in refused.value.problems)
    return [problem.what for problem in refused.value.problems]


# Pure checks


@given(st.text())
def test_whatever_a_version_file_says_is_judged(found: str) -> None:
    for problem in file_version_problems("VERSION", found, "0.1.1"):
        assert problem.what.startswith("VERSION " + ("says " if found else "is not committed")) and problem.hint


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("0.1.1", None),
        ("0.1.1-dev", None),
        ("0.1.0", None),
        ("", "VERSION is not committed, or it is empty; expected a version that is not past 0.1.1."),
        ("v0.1.1", "VERSION says 'v0.1.1'; expected a version that is not past 0.1.1"),
        ("0.1.2-dev", "VERSION says '0.1.2-dev'; expected a version that is not past 0.1.1"),
    ],
)
def test_a_version_file_is_well_formed_and_not_past_the_target(found: str, words: str | None) -> None:
    problems = file_version_problems("VERSION", found, "0.1.1")
    assert [problem.what.startswith(words) for problem in problems if words] == ([True] if words else [])
    assert bool(problems) == bool(words)


# Gates on real git


def test_a_repository_in_order_passes(work: Work) -> None:
    release = work.release(version_files=["package.json"], must_be_merged=["feature/v{version}/*"])
    answers = {gate.__name__: gate(release) for gate in GATES}
    assert answers == {
        "check_branch": "on main",
        "check_branch_is_up_to_date": "",
        "check_everything_is_merged": "feature/v0.1.1/*",
        "check_tag_is_free": "v0.1.1 is free",
        "check_version_order": "the first",
        "check_version_files": "0.1.1-dev now",
        "check_ddl_pack": "2 files, 00_schemas.sql to 01_tables.sql",
    }


def test_another_branch_and_a_detached_head_are_refused(work: Work) -> None:
    work.git("switch", "--quiet", "--create", "feature/x")
    assert told(preconditions.check_branch, work.release()) == [
        "Found the branch feature/x; expected main or release/v0.1.1."
    ]
    work.git("switch", "--quiet", "--detach")
    assert told(preconditions.check_branch, work.release()) == [
        "Found a detached HEAD; expected main or release/v0.1.1."
    ]


def test_a_worktree_of_the_release_branch_is_refused_while_main_is_checked_out_elsewhere(
    work: Work, tmp_path: Path
) -> None:
    """Section 10 stopped, with production live: git has a branch in one worktree alone."""
    work.git("worktree", "add", "--quiet", "-b", "release/v0.1.1", str(tmp_path / "beside"))
    beside = type(work)(tmp_path / "beside", work.remote, work.opened)
    (problem,) = take_problems(beside)
    assert problem.what == f"main, which section 10 switches to, is checked out in {work.root}."
    subprocess.run(shlex.split(problem.hint, comments=True), check=True)
    assert preconditions.check_branch(beside.release()) == "on release/v0.1.1"


def test_a_support_branch_counts_once_the_remote_has_it(work: Work) -> None:
    work.git("switch", "--quiet", "--create", "support/0.1")
    (problem,) = take_problems(work)
    assert problem.what == "Found the branch support/0.1; expected main or release/v0.1.1."
    switch, push = problem.hint.split("   # or to fix an older version: ")
    assert switch == "git switch main"
    work.git(*push.split()[1:])
    assert preconditions.check_branch(work.release()) == "on support/0.1"
    work.git("switch", "--quiet", "main")
    assert take_problems(work)[0].hint.startswith("git switch support/0.1   #")


def take_problems(work: Work) -> tuple[Problem, ...]:
    with pytest.raises(Refused) as refused:
        preconditions.check_branch(work.release())
    return refused.value.problems


def test_all_that_is_wrong_with_the_checkout_is_told_at_once(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    work.git("config", "user.useConfigOnly", "true")
    (work.root / ".git" / "index.lock").touch()
    (work.root / ".git" / "shallow").write_text(work.git("rev-parse", "HEAD") + "\n")
    found = told(preconditions.check_branch, work.release())
    assert [words.split(";")[0].split(":")[0] for words in found] == [
        "This clone is shallow",
        "Git has something unfinished here",
        "Git does not know who commits",
    ]


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("git sparse-checkout set docs", "This checkout is sparse"),
        ("git config remote.origin.promisor true", "This clone is partial"),  # section 9 stopped for a blob
        ("git config author.name ' '", "Git does not know who commits"),
    ],
)
def test_a_checkout_that_cannot_commit_is_refused(work: Work, command: str, what: str) -> None:
    """R25: sparse files could not be added in section 4; an author without a name stopped the first commit."""
    work.git(*shlex.split(command)[1:])
    (found,) = told(preconditions.check_branch, work.release())
    assert found.startswith(what)


@pytest.mark.parametrize("name", ["release", "release/v0.1.1/fix"])
@pytest.mark.parametrize("where", ["here", "there"])
def test_a_branch_whose_name_leaves_no_room_for_the_release_branch_is_refused(
    work: Work, name: str, where: str
) -> None:
    """R17: it was found by the push, after commits and tag."""
    work.git("branch", name) if where == "here" else work.git("push", "--quiet", "origin", f"main:refs/heads/{name}")
    found = told(preconditions.check_branch_is_up_to_date, work.release())
    assert any(each.startswith(f"Git cannot have refs/heads/{name} beside refs/heads/release/v0.1.1") for each in found)
    elsewhere = work.release(branch="release-v{version}")
    if name == "release":  # where the release lock would be
        (found,) = told(preconditions.check_branch_is_up_to_date, elsewhere)
        assert found.startswith("Git cannot have refs/heads/release beside refs/heads/release/lock")
    else:
        assert preconditions.check_branch_is_up_to_date(elsewhere) == ""


def test_a_remote_without_atomic_pushes_is_refused(work: Work) -> None:
    """R17: it was found by the push, after commits and tag."""
    before = work.git("ls-remote", "origin")
    subprocess.run(["git", "-C", str(work.remote), "config", "receive.advertiseAtomic", "false"], check=True)
    (found,) = told(preconditions.check_branch_is_up_to_date, work.release())
    assert found.startswith("origin would not take an atomic push of the branch: ")
    assert "the receiving end does not support --atomic push" in found
    assert work.git("ls-remote", "origin") == before


@pytest.mark.parametrize("signed", ["commit.gpgSign", "tag.gpgSign", "--sign"])
@pytest.mark.parametrize("kind", ["openpgp", "ssh"])
def test_a_key_that_does_not_sign_is_found_before_anything_changes(work: Work, signed: str, kind: str) -> None:
    """R25: it was found by the first commit, or by the tag."""
    release, option = work.release(), {"sign": True} if signed == "--sign" else {}
    assert tag.try_signing(release) == "nothing is signed"
    work.git("config", "gpg.format", kind)
    work.git("config", "user.signingKey", str(work.root / "no-key"))
    if not option:
        work.git("config", signed, "true")
    before = work.git("for-each-ref"), work.git("status", "--porcelain")
    release.quick = True
    with pytest.raises(NotYet):
        release.refresh()
        tag.try_signing(release, **option)
    release.quick = False
    (found,) = told(lambda release: tag.try_signing(release, **option), release)
    assert found.startswith("Git cannot sign: ")
    assert before == (work.git("for-each-ref"), work.git("status", "--porcelain"))


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs OpenSSH")
def test_a_key_that_signs_is_no_hindrance(work: Work, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    work.git("config", "gpg.format", "ssh")
    work.git("config", "user.signingKey", str(tmp_path / "key.pub"))
    work.git("config", "commit.gpgSign", "true")
    assert tag.try_signing(work.release(), sign=True) == "commit.gpgSign, --sign"


def test_a_submodule_without_its_commit_is_refused(work: Work) -> None:
    """R5: it was deployed as an empty folder, in silence."""
    work.add_submodule("vendor (1)", {"lib.js": "x\n"})
    assert preconditions.check_commands_exist(work.release()) == ""
    work.git("submodule", "--quiet", "deinit", "--all", "--force")
    with pytest.raises(Refused, match=r"The submodule vendor \(1\) does not have its commit ") as refused:
        preconditions.check_commands_exist(work.release())
    assert refused.value.problems[0].hint == "git submodule update --init --recursive -- 'vendor (1)'"


def test_a_submodule_s_commit_that_nobody_else_has_is_refused(work: Work) -> None:
    """It was released, and could be built by nobody else."""
    lib = work.add_submodule("lib", {"lib.js": "x\n"})
    work.git("push", "--quiet", "origin", "main")
    preconditions.check_branch_is_up_to_date(work.release())
    lib.commit({"lib.js": "y\n"}, "Mine")
    work.commit({}, "feat: new lib")
    with pytest.raises(
        Refused, match=r"^The submodule lib has the commit \w{9}, which its remote has not\.$"
    ) as refused:
        preconditions.check_branch_is_up_to_date(work.release())
    assert refused.value.problems[0].hint.startswith("git -C lib push origin HEAD:BRANCH")
    lib.git("push", "--quiet", "origin", "HEAD:main")
    preconditions.check_branch_is_up_to_date(work.release())


def test_docs_that_lack_what_their_remote_has_are_refused(work: Work, take: Callable[..., Outcome]) -> None:
    """It was found by the push in section 4, when the docs pack was committed."""
    docs = work.add_submodule("manual", {"VERSION": "0.1.0\n", "SOURCE_TAG": "v0.1.0\n"})
    work.git("push", "--quiet", "origin", "main")
    host = type(work)(work.root.parent / "host", docs.remote)
    work.git("clone", "--quiet", str(docs.remote), str(host.root))
    ahead = host.commit({"page.md": "theirs\n"}, "Theirs")
    host.git("push", "--quiet", "origin", "main")
    docs.git("checkout", "--quiet", "--detach")  # as `git submodule update` leaves it
    release = work.release(docs_pack={"folder": "manual"})
    (problem,) = take(preconditions.check_branch_is_up_to_date, release).problems
    assert problem.what == f"manual/ lacks commits that its remote's main has ({ahead:.9})."
    fix = problem.hint.replace("git commit", "git commit --quiet --message docs")
    subprocess.run(["sh", "-c", fix], cwd=work.root, check=True)
    for step in (freeze.cut_the_release_branch, freeze.lock_the_ddl_order, write_the_docs_pack):
        assert take(preconditions.check_branch_is_up_to_date, release).state == DONE
        assert take(step, release).state == CHANGED
    assert take(publish_the_docs_submodule, release).state == CHANGED
    work.git("switch", "--quiet", "--recurse-submodules", "main")
    release.git.refresh()
    assert take(preconditions.check_branch_is_up_to_date, release).state == DONE, "ahead is what the release pushed"


def test_ddl_files_that_look_alike_are_refused_or_shown(work: Work) -> None:
    """R26: two names of the same letters; two files of one number, whose order is another's choice."""
    work.commit({"ddl/02_a.sql": "select 1;\n", "ddl/02_b.sql": "select 1;\n"})
    text = "4 files, 00_schemas.sql to 02_b.sql"
    assert preconditions.check_ddl_pack(work.release()) == text
    runner = work.release(ddl={"order": ["ls", "ddl"]})
    alike = "; same number, ordered by release.ddl.order: 02_a.sql, 02_b.sql"
    assert preconditions.check_ddl_pack(runner) == text + alike
    work.commit({f"ddl/03_{name}.sql": "select 1;\n" for name in ("Gr\u00fc\u00dfe", "Gru\u0308\u00dfe")})
    (found,) = told(preconditions.check_ddl_pack, work.release())
    assert found == "ddl has 03_Gr\u00fc\u00dfe.sql twice, in composed and in decomposed letters (Unicode NFC and NFD)."


def test_uncommitted_changes_are_named(work: Work, take: Callable[..., Outcome]) -> None:
    assert take(preconditions.check_tree_is_clean, work.release()).state == DONE
    work.write({"new (1).txt": "", "VERSION": "0.1.1\n"})
    (problem,) = take(preconditions.check_tree_is_clean, work.release()).problems
    assert problem.what == "The working tree has 2 uncommitted changes: VERSION, new (1).txt."
    (work.root / "new (1).txt").unlink()
    (problem,) = take(preconditions.check_tree_is_clean, work.release()).problems
    assert problem.what == "The working tree has 1 uncommitted change: VERSION."


def test_only_our_own_incomplete_files_are_passed_over_and_changes_in_any_submodule_are_not(
    work: Work, take: Callable[..., Outcome]
) -> None:
    """A changed notes.incomplete was passed over, and the submodule that .gitmodules tells git to ignore."""
    lib = work.add_submodule("lib", {"lib.js": "x\n"})
    work.git("config", "--file", ".gitmodules", "submodule.lib.ignore", "all")
    work.commit({"notes.incomplete": "begun\n"}, "More")
    work.write({".VERSION.4711.incomplete": "0.1.", "docs/.GUIDE.md.4711.incomplete": "x"})
    lib.write({"built.js": "left untracked\n"})
    assert take(preconditions.check_tree_is_clean, work.release()).state == DONE
    work.write({"notes.incomplete": "changed\n"})
    lib.write({"lib.js": "changed\n"})
    (problem,) = take(preconditions.check_tree_is_clean, work.release()).problems
    assert problem.what == "The working tree has 2 uncommitted changes: lib, notes.incomplete."


def test_on_the_release_branch_what_a_killed_run_left_half_way_is_no_hindrance(
    work: Work, take: Callable[..., Outcome]
) -> None:
    release = work.release(version_files=["package.json"])
    for step in (freeze.cut_the_release_branch, freeze.lock_the_ddl_order):
        assert take(step, release).state == CHANGED
    work.refuse_commits()
    assert take(write_the_docs_pack, release).state == REFUSED
    work.write({".VERSION.4711.incomplete": "0.1."})
    assert "VERSION" in release.git.dirty_paths()
    assert take(preconditions.check_tree_is_clean, release).state == DONE


def test_a_new_file_that_a_killed_run_left_is_no_hindrance_on_main_either(
    work: Work, take: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first lock, killed before `git add`: on main git knew no such file, in each run."""
    release, run = work.release(), Git.run
    assert take(freeze.cut_the_release_branch, release).state == CHANGED

    def stopped(git: Git, *args: str, **how: Any) -> Any:
        if args[0] == "add":
            raise KeyboardInterrupt
        return run(git, *args, **how)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Git, "run", stopped)
        take(freeze.lock_the_ddl_order, release)
    work.git("switch", "--quiet", "main")
    assert (work.root / "ddl" / "ORDER.lock").exists()
    assert take(preconditions.check_tree_is_clean, release).state == CHANGED
    assert work.git("status", "--porcelain") == ""


def test_what_a_hand_changed_on_the_release_branch_is_refused(work: Work, take: Callable[..., Outcome]) -> None:
    """R28: package.json, the notes and all in the docs' submodule were taken for ours, and overwritten."""
    work.git("rm", "--quiet", "-r", "docs")
    docs = work.add_submodule("docs", {"RELEASE_NOTES_TEMPLATE.md": "x\n"})
    release = work.release(version_files=["package.json"])
    assert take(freeze.cut_the_release_branch, release).state == CHANGED
    work.write({"CHANGELOG.md": "by hand\n", "package.json": '{"version": "0.1.1", "by": "hand"}'})
    docs.write({f"releases/{release.tag}.md": "## Highlights\n\nBegun by hand.\n"})
    (problem,) = take(preconditions.check_tree_is_clean, release).problems
    assert problem.what == "The working tree has 3 uncommitted changes: CHANGELOG.md, docs, package.json."
    assert problem.hint.startswith("git stash --include-untracked\n")
    work.git("switch", "--quiet", "main")
    work.git("stash", "--include-untracked")
    docs.git("stash", "--include-untracked")
    docs.commit({"GUIDE.md": "by hand\n"})
    (problem,) = take(preconditions.check_tree_is_clean, release).problems
    assert problem.what == "The working tree has 1 uncommitted change: docs."


def test_a_branch_that_lacks_what_the_remote_has_is_refused(work: Work) -> None:
    ahead = work.commit({}, "Theirs")
    work.git("push", "--quiet", "origin", "main")
    assert preconditions.check_branch_is_up_to_date(work.release()) == ""
    work.git("reset", "--quiet", "--hard", "HEAD~1")
    assert told(preconditions.check_branch_is_up_to_date, work.release()) == [
        f"main lacks commits that origin has ({ahead:.9})."
    ]


def test_a_release_branch_that_is_behind_the_remote_s_is_found_before_the_tag(
    work: Work, take: Callable[..., Outcome]
) -> None:
    """It was found by the push, when the tag was made."""
    release = work.release()
    for step in (freeze.cut_the_release_branch, freeze.lock_the_ddl_order, write_the_docs_pack):
        assert take(step, release).state == CHANGED
    work.git("switch", "--quiet", "--create", "theirs")
    theirs = work.commit({}, "Theirs")
    work.git("push", "--quiet", "origin", f"theirs:{release.branch_ref}")
    release.git.refresh()
    for branch in (release.branch, "main"):
        work.git("switch", "--quiet", branch)
        for step in (preconditions.check_branch_is_up_to_date, tag.tag_the_release):
            (problem,) = take(step, release, change=False).problems
            assert problem.what == f"{release.branch} lacks commits that origin has ({theirs:.9})."
    assert problem.hint == f"git switch {release.branch} && git pull --rebase origin {release.branch}"
    work.git("tag", "--annotate", "--message", "x", release.tag, release.branch)
    (problem,) = take(preconditions.check_branch_is_up_to_date, release, change=False).problems
    look, retag = problem.hint.splitlines()
    assert look == "git show v0.1.1"
    assert retag.startswith("git tag --delete v0.1.1 && git switch release/v0.1.1 && git pull --rebase ")


def test_branches_meant_for_this_version_have_to_be_merged(work: Work) -> None:
    release = work.release(must_be_merged=["feature/v{version}/*"])
    work.git("push", "--quiet", "origin", "main:refs/heads/feature/v0.1.1/merged")
    work.git("switch", "--quiet", "--create", "side")
    commit = work.commit({}, "Not merged")
    for name in ("feature/v0.1.1/a", "feature/v0.1.1/b/c", "feature/v0.1.2/later", "other/v0.1.1/x"):
        work.git("push", "--quiet", "origin", f"side:refs/heads/{name}")
    work.git("switch", "--quiet", "main")
    assert told(preconditions.check_everything_is_merged, release) == [
        f"The branch feature/v0.1.1/{name} ({commit:.9}) is not merged." for name in ("a", "b/c")
    ]


def test_what_was_squashed_is_merged_and_the_layer_s_own_branches_need_not_be(work: Work) -> None:
    """R24"""
    work.git("switch", "--quiet", "--create", "side")
    work.commit({"side.txt": "x\n"}, "Squashed")
    work.git("push", "--quiet", "origin", "side:refs/heads/feature/squashed")
    work.git("commit", "--quiet", "--allow-empty", "--message", "Not merged")
    for name in ("lock", "lock-0.1", "v0.1.0-back"):
        work.git("push", "--quiet", "origin", f"side:refs/heads/release/{name}")
    work.git("switch", "--quiet", "main")
    work.git("merge", "--quiet", "--squash", "side")
    work.commit({"side.txt": "x\n"}, "Squash")
    work.commit({"side.txt": "another\n"}, "Go on")
    release = work.release(must_be_merged=["feature/*", "release/*"])
    assert preconditions.check_everything_is_merged(release) == "feature/*, release/*"


@pytest.mark.parametrize("merged", [True, False])
def test_a_branch_that_is_not_fetched_here_is_looked_at_too(work: Work, tmp_path: Path, merged: bool) -> None:
    """In a clone of one branch what was squashed counted as not merged, and so did it after the command shown."""
    work.git("switch", "--quiet", "--create", "side")
    work.commit({"side.txt": "x\n"}, "Squashed")
    work.git("push", "--quiet", "origin", "side:refs/heads/feature/squashed")
    work.git("switch", "--quiet", "main")
    if merged:
        work.git("merge", "--quiet", "--squash", "side")
        work.commit({}, "Squash")
        work.git("push", "--quiet", "origin", "main")
    clone = type(work)(tmp_path / "clone", work.remote, work.opened)
    work.git("clone", "--quiet", "--single-branch", work.remote.as_uri(), str(clone.root))
    release = clone.release(must_be_merged=["feature/*"])
    if not merged:
        clone.git("switch", "--quiet", "--create", release.branch)
        clone.git("switch", "--quiet", "main")
        clone.commit({}, "main goes on")
        with pytest.raises(Refused) as refused:
            preconditions.check_everything_is_merged(release)
        subprocess.run(["sh", "-c", refused.value.problems[0].hint], cwd=clone.root, check=True)
        release.refresh()
    assert preconditions.check_everything_is_merged(release) == "feature/*"


def test_a_version_that_comes_before_one_that_this_branch_has_is_refused(work: Work) -> None:
    for name in ("v0.1.0", "v0.1.10", "v9-nightly", "v1.0.0-dev"):
        work.git("tag", name)
    assert preconditions.check_version_order(work.release()) == "the first", "the remote's tags decide"
    work.git("push", "--quiet", "--tags", "origin")
    assert told(preconditions.check_version_order, work.release()) == [
        "0.1.1 comes before 0.1.10, which this branch has."
    ]
    assert preconditions.check_version_order(work.release("0.1.11")) == "the last is v0.1.10"


def test_a_lost_tag_of_a_finished_release_is_neither_deleted_here_nor_made_anew(
    work: Work, take: Callable[..., Outcome]
) -> None:
    """R2"""
    release = work.release()
    work.git("tag", "--annotate", "--message", "x", release.tag)
    work.commit({release.notes_path: "notes\n", "VERSION": "0.1.2-dev\n"})
    work.git("push", "--quiet", "origin", "main")
    for step in (preconditions.check_tag_is_free, tag.tag_the_release, preconditions.check_version_order):
        (problem,) = take(step, release, change=False).problems
        assert problem.what.startswith("v0.1.1 was released, for main has docs/releases/v0.1.1.md")
        assert problem.hint == "git push origin refs/tags/v0.1.1"


def test_a_tag_that_is_another_one_on_the_remote_is_shown_before_it_is_replaced(work: Work) -> None:
    release = work.release()
    work.release_before(release.tag)
    work.git("tag", "--force", "--annotate", "--message", "another", release.tag)
    with pytest.raises(Refused, match="on the remote, but") as refused:
        preconditions.check_tag_is_free(release)
    look, retag = refused.value.problems[0].hint.splitlines()
    assert look == "git show v0.1.1"
    assert retag.startswith("git tag --delete v0.1.1 && git fetch origin tag v0.1.1   # only if")


def test_a_foreign_tag_of_this_version_is_refused(work: Work) -> None:
    work.git("tag", "--annotate", "--message", "x", "v0.1.1")
    (what,) = told(preconditions.check_tag_is_free, work.release())
    assert what.endswith("where VERSION says '0.1.1-dev': it is not this release.")
    commit = work.git("rev-parse", "HEAD")
    work.commit({}, "Go on")
    (what,) = told(preconditions.check_tag_is_free, work.release())
    assert what.startswith(f"v0.1.1 names {commit:.9}, not the release commit ")


def test_our_own_tag_is_no_hindrance(work: Work, take: Callable[..., Outcome]) -> None:
    release = work.release()
    steps: list[Any] = [freeze.cut_the_release_branch, freeze.lock_the_ddl_order, write_the_docs_pack]
    for step in [*steps, tag.tag_the_release]:
        assert take(step, release).state == CHANGED
    assert preconditions.check_tag_is_free(release) == "v0.1.1 is free"
    assert take(tag.push_branch_and_tag, release).state == CHANGED
    assert preconditions.check_tag_is_free(release).startswith("v0.1.1 is ours, ")
    texts = [take(gate, release, change=False).text for gate in GATES[1:3]]
    assert texts == ["settled when the tag was published"] * 2


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"VERSION": "0.2.0\n"},
            ["VERSION says '0.2.0'; expected a version that is not past", "package.json says version '0.1.1-dev'"],
        ),
        ({"SOURCE_TAG": "none\n"}, ["SOURCE_TAG says 'none'"]),
        ({"package.json": '{"version": "0.1.0"}'}, ["package.json says version '0.1.0'; expected '0.1.1-dev'"]),
        ({"package.json": "no json"}, ["package.json is no JSON: Expecting value"]),  # R21
        ({"package.json": "[]"}, ["package.json has no version of its own"]),
        ({"package.json": '\ufeff{"version": "0.1.1"}'}, []),  # R21
    ],
)
def test_versions_out_of_line_are_all_named(work: Work, files: dict[str, str], words: list[str]) -> None:
    work.commit(files)
    release = work.release(version_files=["package.json"])
    found = told(preconditions.check_version_files, release) if words else []
    assert words or preconditions.check_version_files(release) == "0.1.1-dev now"
    assert len(found) == len(words)
    assert all(what.startswith(start) for what, start in zip(found, words, strict=True))


def test_a_pack_that_is_not_there_is_refused(work: Work) -> None:
    release = work.release(ddl={"folder": "sql"})
    assert told(preconditions.check_ddl_pack, release) == ["No *.sql file is committed in sql; expected the DDL pack."]


# Environments


def environments(dev: str, staging: str, production: str, **changed: str) -> dict[str, dict[str, object]]:
    """Return the settings of three environments of these DSNs, else apart; `changed` is e.g. staging_origin=…."""
    found: dict[str, dict[str, object]] = {}
    for number, (name, dsn) in enumerate({"dev": dev, "staging": staging, "production": production}.items()):
        own = {"dsn": dsn, "origin": f"http://127.0.0.1:{number + 1}", "folder": f"at/{name}"}
        found[name] = own if name == "dev" else {**own, "restart": ["true"], "log": "log"}
    for key, value in changed.items():
        found[key.partition("_")[0]][key.partition("_")[2]] = value
    return found


NOWHERE = "postgresql://127.0.0.1:1/"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"dev_dsn": f"{NOWHERE}production"}, "Dev and production have the database production on 127.0.0.1:1 in"),
        ({"staging_dsn": "host=localhost port=1 dbname=production"}, "Staging and production have the database"),
        ({"staging_dsn": "host=::1 port=1 dbname=production"}, "Staging and production have the database"),
        ({"staging_origin": "http://127.0.0.1:3/"}, "Staging and production have the origin http://127.0.0.1:3 in"),
        ({"staging_folder": "at/./production"}, "Staging and production have the folder "),
    ],
)
def test_environments_that_share_something_are_refused(work: Work, changed: dict[str, str], expected: str) -> None:
    """D14"""
    plain = environments(f"{NOWHERE}dev", f"{NOWHERE}staging", f"{NOWHERE}production")
    assert "production could not be reached" in preconditions.check_environments_differ(
        work.release(environments=plain)
    )
    three = environments(f"{NOWHERE}dev", f"{NOWHERE}staging", f"{NOWHERE}production", **changed)
    (problem,) = told(preconditions.check_environments_differ, work.release(environments=three))
    assert problem.startswith(expected)


def test_one_database_by_two_addresses_is_one(work: Work, dsn: str) -> None:
    """D14: the system identifier tells that two addresses are one server."""
    three = environments(dsn, f"{NOWHERE}staging", dsn.replace("@127.0.0.1", "@127.1"))
    problems = told(preconditions.check_environments_differ, work.release(environments=three))
    assert any("Dev and production have the database app of the server with the system id" in each for each in problems)


def test_smokes_are_judged_once_dev_has_the_pack(work: Work, dsn: str, take: Callable[..., Outcome]) -> None:
    """D13"""
    dev = {"dev": {"dsn": dsn, "origin": "http://127.0.0.1:1"}}
    (work.root / "smokes").mkdir()
    (work.root / "smokes" / "test_things.py").write_text("def test_things(db):\n    db.execute('select from things')\n")
    release = work.release(environments=dev)
    look = take(preconditions.run_smokes_on_dev, release, change=False)
    assert (look.state, look.text) == (PENDING, "after the DDL pack is applied there")
    assert take(preconditions.validate_the_ddl_pack_on_dev, release).state == CHANGED
    assert take(preconditions.run_smokes_on_dev, release, change=False).state == REFUSED


def test_the_embedded_dev_is_installed_before_the_runner_of_its_pack(work: Work, take: Callable[..., Outcome]) -> None:
    install = ["python3", "-c", "import pathlib; pathlib.Path('installed').touch()"]
    runner = ["python3", "-c", "import pathlib; assert pathlib.Path('installed').exists()"]
    work.commit({"package.json": "{}\n"})
    release = work.release(install=install, ddl={"command": runner, "must_print": "{count} files applied"})
    (problem,) = take(preconditions.validate_the_ddl_pack_on_dev, release).problems
    assert "did not print" in problem.what and "AssertionError" not in problem.what


def test_what_is_excepted_of_the_proof_is_said_with_its_reason(work: Work, take: Callable[..., Outcome]) -> None:
    """It was in the records alone, so that a release went on without a word."""
    work.commit({"ddl/00_schemas.sql": "create schema app;\n"})
    release = work.release(ddl={"exceptions": {"^Applied again": "once is enough"}})
    proved = take(preconditions.prove_the_ddl_pack, release)
    assert proved.state == DONE and "excepted: Applied again: " in proved.text and "(once is enough)" in proved.text


def test_what_the_install_builds_need_not_be_committed_but_has_to_be_there(
    work: Work, take: Callable[..., Outcome]
) -> None:
    """A compiled app was refused, with the hint to commit what was compiled."""
    work.commit({".gitignore": "dist/\n"})
    build = "import pathlib; pathlib.Path('dist').mkdir(); pathlib.Path('dist', {!r}).touch()"
    for made, state in (("server.js", DONE), ("other.js", REFUSED)):
        install = ["python3", "-c", build.format(made)]
        with closing(work.release(install=install, stamp={"command": ["sh", "dist/server.js"]})) as release:
            assert take(preconditions.check_commands_exist, release).state == DONE
            installed = take(preconditions.try_install, release)
        assert installed.state == state
        work.commit({"again": made})
    what = "release.stamp.command needs dist/server.js, which is not there after release.install."
    assert installed.problems[0].what == what
    bare = take(preconditions.check_commands_exist, work.release(stamp={"command": ["sh", "dist/server.js"]}))
    assert "dist/server.js is not committed" in bare.problems[0].what


@pytest.mark.parametrize("program", ["bin/web", "./stamp", "../tools/stamp", "/no/such/program"])
def test_a_program_that_is_a_path_has_to_be_there(work: Work, take: Callable[..., Outcome], program: str) -> None:
    """One without an extension was looked for in staging, after the tag, or in production, after its DDL."""
    work.commit({"app/package.json": "{}\n"})
    (problem,) = take(
        preconditions.check_commands_exist, work.release(folder="app", stamp={"command": [program]})
    ).problems
    assert problem.what.startswith(
        f"release.stamp.command {'runs' if program.startswith('/') else 'needs'} {program}, "
    )
    work.commit({"app/bin/web": "", "app/stamp": "", "tools/stamp": ""})
    program = program.replace("/no/such/program", shutil.which("sh") or "")
    release = work.release(folder="app", stamp={"command": [program]})
    assert take(preconditions.check_commands_exist, release).state == DONE


def test_what_the_install_rewrites_is_named_before_the_tag(work: Work, take: Callable[..., Outcome]) -> None:
    """Section 7.2 found it, when the tag was published and staging switched; the attribute has to be in the tag."""
    rewrite = "import pathlib; pathlib.Path('package.json').write_text('{\"_resolved\": 1}')"
    for attribute, state in (("", REFUSED), ("package.json rewritten\n", DONE)):
        work.commit({".gitattributes": attribute})
        with closing(work.release(install=["python3", "-c", rewrite])) as release:
            installed = take(preconditions.try_install, release)
        assert installed.state == state
        if state == REFUSED:
            assert installed.problems[0].what == "release.install rewrites what is committed: package.json."
            assert ".gitattributes have a line for each, as: package.json rewritten   #" in installed.problems[0].hint


def test_a_file_that_is_not_committed_is_committed_where_the_release_is(
    work: Work, take: Callable[..., Outcome]
) -> None:
    """The command shown committed it to main, and was shown again."""
    release = work.release(stamp={"command": ["sh", "stamp.sh"]})
    assert take(freeze.cut_the_release_branch, release).state == CHANGED
    work.git("switch", "--quiet", "main")
    work.commit({"more": "x"}, "main goes on")
    work.write({"stamp.sh": ""})
    (problem,) = take(preconditions.check_commands_exist, release).problems
    fix = problem.hint.partition("   #")[0].replace("git commit", "git commit --quiet --message stamp")
    subprocess.run(["sh", "-c", fix], cwd=work.root, check=True)
    assert take(preconditions.check_commands_exist, release).state == DONE


def test_a_lockfile_that_git_ignores_is_found_before_staging_installs_without_it(
    work: Work, take: Callable[..., Outcome]
) -> None:
    """C2."""
    work.commit({".gitignore": "package-lock.json\n", "package.json": "{}\n"})
    (work.root / "package-lock.json").write_text("{}\n")
    refused = take(preconditions.check_commands_exist, work.release(install=["python3", "-V"]))
    assert (
        "release.install needs package-lock.json, and package-lock.json is not committed." in refused.problems[0].what
    )
    assert len(refused.problems) == 1
