"""Git as the release reads and changes it, on real repositories."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from release_tasks import git_setup, process
from release_tasks.errors import Refused, listed
from release_tasks.git import Git
from tests.conftest import Work

TAG = "refs/tags/v0.1.1"


@pytest.fixture
def git(work: Work) -> Git:
    return work.layer()


def fails(work: Work, *args: str) -> None:
    """Run a git command that stops half-way, as on a conflict."""
    with pytest.raises(subprocess.CalledProcessError):
        work.git(*args)


def test_where_there_is_no_repository_or_no_commit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not a git repository"):
        Git.open(tmp_path, "origin")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    with pytest.raises(Refused, match="no commit yet"):
        Git.open(tmp_path, "origin")


def test_a_full_ref_is_the_tag_though_a_branch_and_a_file_have_its_name(work: Work, git: Git) -> None:
    tagged = work.commit({"VERSION": "0.1.1\n"})
    work.git("tag", "--annotate", "--message", "x", "v0.1.1")
    other = work.commit({"v0.1.1": "a file\n", "VERSION": "0.1.2-dev\n"})
    work.git("branch", "v0.1.1")
    assert git.commit_named(TAG) == tagged
    assert git.commit_named("refs/heads/v0.1.1") == other
    assert git.object_named(TAG) == work.git("rev-parse", TAG) != tagged
    assert git.text_at(TAG, "VERSION") == "0.1.1\n"
    git.push(f"{tagged}:refs/heads/release/v0.1.1", f"{TAG}:{TAG}")
    git.refresh()
    assert git.remote_refs["refs/heads/release/v0.1.1"] == tagged
    assert git.remote_refs[TAG] == git.object_named(TAG)


@pytest.mark.parametrize("name", ["refs/tags/none", "--help", "refs/heads/main:VERSION", "HEAD~99", ""])
def test_what_names_no_commit_is_none(git: Git, name: str) -> None:
    assert git.commit_named(name) is None


def test_the_branch_is_none_on_a_detached_head(work: Work, git: Git) -> None:
    assert git.branch == "main"
    work.git("switch", "--quiet", "--detach")
    git.refresh()
    assert git.branch is None


def test_a_tag_of_the_branch_s_name_does_not_rename_it(work: Work, git: Git) -> None:
    """`git symbolic-ref --short` says heads/main then."""
    work.git("tag", "main")
    assert git.branch == "main"


def test_dirty_paths_are_whole_whatever_is_in_them(work: Work, git: Git) -> None:
    work.commit({"old name.txt": "a long enough text to be found again\n", "gone.txt": "x", ".gitignore": "ignored/\n"})
    assert git.dirty_paths() == []
    work.git("mv", "old name.txt", "new (name) -> Grüße.txt")
    (work.root / "gone.txt").unlink()
    work.write({"VERSION": "0\n", "dir (1)/un tracked.txt": "", "ignored/file": "", 'quo"ted': ""})
    assert git.dirty_paths() == sorted(
        ["new (name) -> Grüße.txt", "old name.txt", "gone.txt", "VERSION", "dir (1)/un tracked.txt", 'quo"ted']
    )


def test_a_commit_contains_its_ancestors_only(work: Work, git: Git) -> None:
    first, second = work.git("rev-parse", "HEAD"), work.commit({})
    assert git.contains(second, first) and git.contains(first, first)
    assert not git.contains(first, second)
    assert not git.contains(second, "0" * 40)


@pytest.mark.parametrize(
    ("command", "found"),
    [("merge", "MERGE_HEAD"), ("rebase", "rebase-merge"), ("cherry-pick", "CHERRY_PICK_HEAD")],
)
def test_what_git_left_unfinished_is_named(work: Work, git: Git, command: str, found: str) -> None:
    assert git_setup.under_way(git.repo.git_dir) is None
    work.git("switch", "--quiet", "--create", "side")
    work.commit({"VERSION": "side\n"})
    work.git("switch", "--quiet", "main")
    work.commit({"VERSION": "main\n"})
    fails(work, command, "side")
    assert git_setup.under_way(git.repo.git_dir) == found
    work.git(command, "--abort")
    assert git_setup.under_way(git.repo.git_dir) is None


def test_a_lock_that_a_crash_left_is_named(work: Work, git: Git) -> None:
    (work.root / ".git" / "index.lock").touch()
    assert git_setup.under_way(git.repo.git_dir) == "index.lock"


def test_a_shallow_clone_is_known_as_one(work: Work, git: Git, tmp_path: Path) -> None:
    work.commit({})
    work.git("push", "--quiet", "origin", "main")
    work.git("clone", "--quiet", "--depth=1", f"file://{work.remote}", str(tmp_path / "shallow"))
    assert Git(tmp_path / "shallow", "origin").is_shallow
    assert not git.is_shallow


def test_committed_bytes_are_read_and_not_the_working_tree_s(work: Work, git: Git) -> None:
    before = work.git("rev-parse", "HEAD")
    work.commit({"a (1)/b c.bin": "\x00\r\n", "empty": ""})
    work.write({"VERSION": "dirty\n"})
    assert git.bytes_at("HEAD", "VERSION") == b"0.1.1-dev\n"
    assert git.bytes_at("HEAD", "a (1)/b c.bin") == b"\x00\r\n"
    assert git.bytes_at("HEAD", "empty") == b""
    for commit, path in ((before, "empty"), ("HEAD", "none"), ("HEAD", "docs"), ("HEAD", "VERSION/none")):
        assert git.bytes_at(commit, path) is None


def test_a_remote_that_does_not_answer_is_waited_for_once(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a status's steps reached for it: with a time-out of two minutes that was an hour."""
    work.git("remote", "set-url", "origin", str(work.root.parent / "gone"))
    git, reached = work.layer(), list[str]()
    monkeypatch.setattr(git, "reach", lambda *args, **_: (reached.append(args[0]), type(git).reach(git, *args))[1])
    for _ in range(3):
        with pytest.raises(Refused, match="'origin' does not answer"):
            git.remote_refs  # noqa: B018
        git.refresh(remote=False)
    assert reached == ["ls-remote"]
    git.refresh()
    work.git("remote", "set-url", "origin", str(work.remote))
    assert "refs/heads/main" in git.remote_refs


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text() | st.lists(st.sampled_from([*"./\\:*?\0 ~^@{}", "docs", "VERSION", "ddl", ".git"])).map("".join))
def test_any_text_is_a_path_of_a_file_or_of_none(git: Git, path: str) -> None:
    found = git.bytes_at("HEAD", path)
    assert (found is not None) == (
        path in git.look("ls-tree", "-r", "-z", "--name-only", "HEAD").stdout.split("\0")[:-1]
    )


def test_a_committed_file_that_is_no_utf_8_is_named(work: Work, git: Git) -> None:
    """F10: it was read with question marks in it, and a CHANGELOG was written back so."""
    (work.root / "CHANGELOG.md").write_bytes(b"# \xc4nderungen\n")
    work.commit({})
    assert git.bytes_at("HEAD", "CHANGELOG.md") == b"# \xc4nderungen\n"
    with pytest.raises(Refused, match=r"CHANGELOG\.md is committed, and is not UTF-8 text: .* at byte 2"):
        git.text_at("HEAD", "CHANGELOG.md")


def test_bytes_of_a_submodule_are_those_that_the_commit_records(work: Work) -> None:
    docs = work.add_submodule("manual", {"GUIDE.md": "first\n", "deep/er.md": "deep\n"})
    git, before = work.layer(), work.git("rev-parse", "HEAD")
    docs.commit({"GUIDE.md": "second\n"})
    assert git.text_at("HEAD", "manual/GUIDE.md") == "first\n"
    work.commit({}, "Take the manual's newest")
    assert git.text_at("HEAD", "manual/GUIDE.md") == "second\n"
    assert git.text_at(before, "manual/GUIDE.md") == "first\n"
    assert git.text_at("HEAD", "manual/deep/er.md") == "deep\n"
    assert git.bytes_at("HEAD", "manual/none.md") is None
    assert git.submodule("manual") and not git.submodule("ddl") and not git.submodule("none")


def test_a_submodule_that_is_not_checked_out_is_refused_with_the_command_that_does(work: Work, tmp_path: Path) -> None:
    work.add_submodule("manual", {"GUIDE.md": "first\n"})
    work.git("push", "--quiet", "origin", "main")
    work.git("clone", "--quiet", str(work.remote), str(tmp_path / "clone"))
    with pytest.raises(Refused) as refused:
        Git(tmp_path / "clone", "origin").bytes_at("HEAD", "manual/GUIDE.md")
    assert refused.value.problems[0].hint == "git submodule update --init manual"


def test_files_in_are_those_directly_in_the_folder(work: Work, git: Git) -> None:
    work.commit({"ddl/02-b.sql": "x", "ddl/02_B.sql": "x", "ddl/old/03.sql": "x"})
    assert git.files_in("HEAD", "ddl") == ["ddl/00_schemas.sql", "ddl/01_tables.sql", "ddl/02-b.sql", "ddl/02_B.sql"]
    assert "VERSION" in git.files_in("HEAD", ".") and "ddl/02-b.sql" not in git.files_in("HEAD", ".")
    assert git.files_in("HEAD", "none") == [] == git.files_in("HEAD", "VERSION")


def test_the_remote_is_asked_once_until_a_look_afresh(work: Work, git: Git) -> None:
    head = work.git("rev-parse", "HEAD")
    assert git.remote_refs == {"HEAD": head, "refs/heads/main": head}
    work.git("push", "--quiet", "origin", "main:refs/heads/more")
    assert "refs/heads/more" not in git.remote_refs
    git.refresh()
    assert git.remote_refs["refs/heads/more"] == head


@pytest.mark.parametrize(
    ("change", "told"),
    [(["remove", "origin"], "no remote 'origin'"), (["set-url", "origin", "/gone"], "does not answer")],
)
def test_a_remote_that_is_not_there_is_refused(work: Work, git: Git, change: list[str], told: str) -> None:
    work.git("remote", *change)
    with pytest.raises(Refused, match=told):
        _ = git.remote_refs


def test_a_push_takes_no_other_tag_along_though_git_is_set_up_so(work: Work, git: Git) -> None:
    """A tag that a person kept here became the last release of all."""
    work.git("config", "push.followTags", "true")
    work.git("tag", "--annotate", "--message", "x", "v0.0.9-private")
    git.push("HEAD:refs/heads/main")
    assert "refs/tags/v0.0.9-private" not in git.remote_refs


def test_a_dollar_in_the_path_of_the_repository_is_refused(tmp_path: Path) -> None:
    """Another path, with the variable's value in it, was said not to be there."""
    (folder := tmp_path / "$HOME").mkdir()
    with pytest.raises(Refused, match=r"\$HOME/work has a \$ in it that GitPython reads as a variable"):
        Work.make(folder, {"VERSION": "0.1.1\n"}).layer()


def test_a_push_is_taken_whole_or_not_at_all(work: Work, git: Git) -> None:
    ahead = work.commit({}, "Ahead")
    git.push("main:refs/heads/main")
    work.git("reset", "--quiet", "--hard", "HEAD~1")
    work.commit({}, "Diverged")
    with pytest.raises(Refused, match="rejected"):
        git.push("HEAD:refs/heads/main", "HEAD:refs/heads/new")
    assert git.remote_refs == {"HEAD": ahead, "refs/heads/main": ahead}


def test_files_are_committed_and_nothing_else(work: Work, git: Git) -> None:
    work.write({"staged.txt": "x", "CHANGELOG.md": "unstaged\n", "VERSION": "unstaged\n"})
    work.git("add", "staged.txt")
    git.commit_files({"VERSION": b"0.1.1\n", "new dir/a (1).txt": b"new\n"}, "release: two files")
    assert work.git("log", "-1", "--format=%s") == "release: two files"
    assert work.git("diff", "--name-only", "HEAD~1", "HEAD").splitlines() == ["VERSION", "new dir/a (1).txt"]
    assert git.text_at("HEAD", "VERSION") == "0.1.1\n"
    assert work.git("diff", "--cached", "--name-only") == "staged.txt"
    assert work.git("diff", "--name-only") == "CHANGELOG.md"


def test_files_of_ours_are_committed_where_a_pattern_ignores_them(work: Work, git: Git) -> None:
    """As .gitignore files for .NET have `releases/`: the release stopped after the tag."""
    work.commit({".gitignore": "releases/\n"})
    git.commit_files({"docs/releases/v0.1.1.md": b"notes\n"}, "release: notes")
    assert work.git("show", "HEAD:docs/releases/v0.1.1.md") == "notes"


def test_committing_what_is_committed_makes_no_commit(work: Work, git: Git) -> None:
    before = work.git("rev-parse", "HEAD")
    git.commit_files({"VERSION": b"0.1.1-dev\n"}, "nothing")
    assert work.git("rev-parse", "HEAD") == before


def test_what_a_stopped_commit_wrote_is_known_until_a_hand_changes_it(work: Work, git: Git) -> None:
    hook = work.refuse_commits()
    files = {"VERSION": b"0.1.1\n", "new (1).txt": b"new\n"}
    with pytest.raises(Refused):
        git.commit_files(files, "release: two files")
    assert git.half_committed() == list(files)
    work.write({"VERSION": "by hand\n"})
    assert git.half_committed() == ["new (1).txt"]
    hook.unlink()
    git.commit_files(files, "release: two files")
    assert git.half_committed() == [] == git.dirty_paths()


def test_what_a_stopped_commit_wrote_in_a_submodule_is_known_until_a_hand_changes_it(work: Work) -> None:
    """R28: whatever was changed in the docs' submodule on the release branch was taken for ours."""
    docs = work.add_submodule("manual", {"GUIDE.md": "first\n", "OTHER.md": "theirs\n"})
    git, files = work.layer(), {"VERSION": b"0.1.1\n", "manual/GUIDE.md": b"second\n"}
    for where in (docs, work):  # stopped in the submodule; then when it is committed there, but not recorded here
        hook = where.refuse_commits()
        with pytest.raises(Refused):
            git.commit_files(files, "release: both")
        docs.write({".GUIDE.md.4711.incomplete": "seco"})
        assert set(git.dirty_paths()) <= set(git.half_committed()) and "manual" in git.half_committed()
        for path, text in (("OTHER.md", "by hand\n"), ("GUIDE.md", "by hand\n"), ("new.md", "")):
            before = (docs.root / path).read_text() if (docs.root / path).exists() else None
            docs.write({path: text})
            assert "manual" not in git.half_committed()
            (docs.root / path).unlink()
            docs.write({path: before} if before else {})
        hook.unlink()
    docs.commit({"OTHER.md": "by hand\n"})
    assert "manual" not in git.half_committed()


def test_files_in_a_submodule_are_committed_there_and_recorded_here(work: Work) -> None:
    docs = work.add_submodule("manual", {"GUIDE.md": "first\n"})
    git = work.layer()
    git.commit_files({"VERSION": b"0.1.1\n", "manual/GUIDE.md": b"second\n"}, "release: both")
    assert docs.git("log", "-1", "--format=%s") == "release: both" == work.git("log", "-1", "--format=%s")
    assert git.text_at("HEAD", "manual/GUIDE.md") == "second\n"
    assert git.dirty_paths() == []


def test_a_message_is_utf_8_whatever_encoding_commits_have_here(work: Work, git: Git) -> None:
    """R11"""
    work.git("config", "i18n.commitEncoding", "ISO-8859-1")
    git.commit_files({"VERSION": b"0.1.1\n"}, "release: “why”")
    assert work.git("log", "-1", "--encoding=UTF-8", "--format=%s") == "release: “why”"


def test_hashes_are_of_committed_bytes_on_a_crlf_checkout_too(work: Work) -> None:
    work.commit({".gitattributes": "* text=auto eol=crlf\n"})
    work.git("rm", "--quiet", "--cached", "-r", ".")
    work.git("reset", "--quiet", "--hard")
    git = work.layer()
    assert (work.root / "VERSION").read_bytes() == b"0.1.1-dev\r\n"
    assert hashlib.sha256(git.bytes_at("HEAD", "VERSION") or b"").digest() == hashlib.sha256(b"0.1.1-dev\n").digest()
    git.commit_files({"VERSION": b"0.1.1\n"}, "release: LF in git")
    assert git.bytes_at("HEAD", "VERSION") == b"0.1.1\n"
    assert git.dirty_paths() == []


def test_files_of_ours_are_committed_where_git_refuses_lf(work: Work, git: Git) -> None:
    """R25: core.safecrlf was found by section 3, after the branch was cut."""
    work.git("config", "core.autocrlf", "true")
    work.git("config", "core.safecrlf", "true")
    git.commit_files({"new.txt": b"one\ntwo\n"}, "release: LF")
    assert git.bytes_at("HEAD", "new.txt") == b"one\ntwo\n"


@pytest.mark.parametrize("name", ["pre-commit", "pre-push"])
def test_a_hook_that_takes_too_long_or_fails_is_named(
    work: Work, git: Git, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """R25: after 120 s a push failed, and nothing said why."""
    hook = work.refuse_commits().rename(work.root / ".git" / "hooks" / name)

    def commit_or_push() -> str:
        with pytest.raises(Refused) as refused:
            if name == "pre-commit":
                git.commit_files({"VERSION": b"0.1.1\n"}, "release: x")
            git.push("main:refs/heads/new")
        return refused.value.problems[0].what

    assert commit_or_push().endswith(f"With it ran {hook}.")
    hook.write_text("#!/bin/sh\nexec sleep 600\n")
    assert git_setup.HOOK >= 600
    monkeypatch.setattr(git_setup, "HOOK", 0.5)
    found = commit_or_push()
    assert "did not end within 0.5 s" in found and found.endswith(f"With it ran {hook}.")


@pytest.mark.skipif(os.name == "nt", reason="the program that signs is a shell script")
def test_a_signature_may_wait_for_its_passphrase(work: Work, git: Git, tmp_path: Path) -> None:
    """A tag, a trial signature and the lock had 60 s for it; a commit has a quarter of an hour."""
    program = tmp_path / "gpg"
    program.write_text("#!/bin/sh\ncat > /dev/null\nsleep 1\necho '\n[GNUPG:] SIG_CREATED ' >&2\necho signed\n")
    program.chmod(0o755)
    work.git("config", "gpg.program", str(program))
    git.run("tag", "--sign", "--message", "x", "v0.1.1", timeout=0.5)
    git.run("commit-tree", "-S", "-m", "x", "HEAD^{tree}", timeout=0.5)


@pytest.mark.skipif(os.name == "nt", reason="the filter is a shell script")
def test_a_switch_may_wait_for_files_that_a_filter_fetches(work: Work, git: Git) -> None:
    """As those of git-lfs, which took more than a minute."""
    work.git("switch", "--quiet", "--create", "big")
    work.commit({".gitattributes": "film filter=slow\n", "film": "1"})
    work.git("switch", "--quiet", "main")
    work.git("config", "filter.slow.smudge", "sleep 1; cat")
    git.run("switch", "--quiet", "big", timeout=0.5)
    assert (work.root / "film").exists()


def test_a_remote_that_never_answers_a_push_is_given_up_soon_where_no_hook_runs(
    work: Work, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was waited for as long as for a hook that runs all tests: a quarter of an hour."""
    monkeypatch.setattr("release_tasks.git.NETWORK", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        work.git("remote", "set-url", "origin", f"git://127.0.0.1:{mute.getsockname()[1]}/x")
        with pytest.raises(Refused, match=r"did not end within 0\.5 s"):
            git.push("main:refs/heads/new")


def test_a_long_list_is_cut_and_counted() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed("abcde", most=3) == "a, b, c and 2 more"


# Another host, another owner, another repository around


def test_the_variables_of_a_hook_of_another_repository_are_dropped(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R7: it committed into that repository, then was a traceback."""
    other = Work.make(tmp_path / "other", {"VERSION": "9.9.9\n"})
    theirs, ours = other.git("rev-parse", "HEAD"), work.git("rev-parse", "HEAD")
    for name in work.git("rev-parse", "--local-env-vars").split():
        if not name.startswith(("GIT_CONFIG", "GIT_INTERNAL")):
            monkeypatch.setenv(name, "")
    monkeypatch.setenv("GIT_DIR", str(other.root / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.root))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other.root / ".git" / "index"))
    git_setup.stay_here()
    git = work.layer()
    assert git.commit_named("HEAD") == ours and git.text_at("HEAD", "VERSION") == "0.1.1-dev\n"
    git.commit_files({"VERSION": b"0.1.1\n"}, "release: here")
    assert work.git("log", "-1", "--format=%s %P") == f"release: here {ours}"
    assert other.git("rev-parse", "HEAD") == theirs and not other.git("status", "--porcelain")


def test_a_checkout_of_another_owner_is_refused_in_git_s_own_words(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """R4: it was "no commit yet", with a hint that commits everything; below it `git init`."""
    work.write({"below/tasks.py": ""})
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    for root in (work.root, work.root / "below"):
        with pytest.raises(Refused, match="detected dubious ownership in repository at") as refused:
            Git.open(root, "origin")
        assert f"git config --global --add safe.directory {work.root}" in str(refused.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a folder away")
def test_a_remote_folder_of_another_owner_is_refused_with_the_command_that_trusts_it(work: Work) -> None:
    """R4, the same of a remote that is a folder."""
    os.chown(work.remote, 4711, 4711)
    with pytest.raises(Refused, match="detected dubious ownership") as refused:
        _ = work.layer().remote_refs
    assert f"git config --global --add safe.directory {work.remote}" in str(refused.value)


@pytest.mark.parametrize("chosen_by", ["core.sshCommand", "GIT_SSH_COMMAND", "GIT_SSH", "PATH"])
def test_the_ssh_that_git_is_set_up_to_use_is_used(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen_by: str
) -> None:
    """R3: our own overrode core.sshCommand and GIT_SSH, and got options that only OpenSSH knows."""
    ssh, seen = tmp_path / "bin" / "ssh", tmp_path / "seen"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\necho "$@" >> {seen}\nwhile [ $# -gt 1 ]; do shift; done\nexec sh -c "$1"\n')
    ssh.chmod(0o755)
    if chosen_by == "core.sshCommand":
        work.git("config", chosen_by, str(ssh))
    elif chosen_by == "PATH":
        monkeypatch.setenv("PATH", str(ssh.parent), prepend=os.pathsep)
    else:
        monkeypatch.setenv(chosen_by, str(ssh))
    work.git("remote", "set-url", "origin", f"ssh://git@host.invalid{work.remote}")
    git = work.layer()
    assert git.remote_refs["refs/heads/main"] == git.commit_named("HEAD")
    git.push(f"{work.commit({})}:refs/heads/main")
    git.fetch("refs/heads/main")
    calls = seen.read_text().splitlines()
    assert len(calls) >= 3 and all("git@host.invalid" in call for call in calls)
    assert not any("BatchMode" in call for call in calls), "which only OpenSSH knows"


def test_ssh_asks_nobody(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a passphrase, say: a run would wait at a terminal where nobody sits, or for a dialog that nobody sees."""
    ssh = tmp_path / "ssh"
    script = """#!/bin/sh
        (: < /dev/tty) 2> /dev/null && echo "There is a terminal" >&2
        echo "askpass is required: $SSH_ASKPASS_REQUIRE" >&2
        exit 1"""
    ssh.write_text(script)
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH", str(ssh))
    work.git("remote", "set-url", "origin", f"ssh://git@host.invalid{work.remote}")
    with pytest.raises(Refused, match="askpass is required: never") as refused:
        _ = work.layer().remote_refs
    assert "There is a terminal" not in str(refused.value)


def test_plink_gets_none_of_openssh_s_options(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R3, with another ssh than OpenSSH."""
    plink, seen = tmp_path / "plink", tmp_path / "seen"
    plink.write_text(f'#!/bin/sh\necho "$@" > {seen}\nwhile [ $# -gt 1 ]; do shift; done\nexec sh -c "$1"\n')
    plink.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(plink))
    work.git("remote", "set-url", "origin", f"ssh://git@host.invalid:2222{work.remote}")
    assert work.layer().remote_refs
    assert seen.read_text().startswith("-P 2222 git@host.invalid ")


def test_of_an_object_that_is_named_by_its_id_git_is_asked_once(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    git, commit, missing, asked = work.layer(), work.git("rev-parse", "HEAD"), "f" * 40, list[str]()
    run = process.run
    monkeypatch.setattr(process, "run", lambda argv, **how: asked.append(argv[-1]) or run(argv, **how))
    for _ in range(2):
        git.refresh()
        assert git.commit_named(commit) == git.commit_named("HEAD") == commit and not git.commit_named(missing)
    assert asked == [f"{name}^{{commit}}" for name in (commit, "HEAD", missing, "HEAD", missing)]


def test_a_command_that_has_changed_something_is_not_shown_to_be_typed(work: Work) -> None:
    """It may have had an index of its own: typed, it emptied a person's."""
    git = work.layer()
    with pytest.raises(Refused) as refused:
        git.run("read-tree", "--reset", "-u", "no-such-tree", GIT_INDEX_FILE="other")
    assert refused.value.problems[0].hint == "git status   # then run the same command again"
    with pytest.raises(Refused) as refused:
        git.run("rev-parse", "--verify", "none", changes=False)
    assert refused.value.problems[0].hint.startswith("git rev-parse --verify none")
