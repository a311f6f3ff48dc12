"""Where other release tools went wrong: tags that are taken, pushes that are rejected, hooks, secrets, signatures."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from outside import git, journal_records, shell
from world import World

TAG = "refs/tags/v0.1.1"
TOKEN = "s3cr3t-t0ken"


def _tag_here(little: World) -> None:
    little.git("tag", "--annotate", "--message", "too early", "v0.1.1")


def _tag_on_the_remote_only(little: World) -> None:
    _tag_there(little)
    little.git("tag", "--delete", "v0.1.1")


def _tag_there(little: World) -> None:
    _tag_here(little)
    little.git("push", "--quiet", "origin", TAG)


def _lightweight_tag(little: World) -> None:
    little.git("tag", "v0.1.1")


def _lightweight_tag_there(little: World) -> None:
    _lightweight_tag(little)
    little.git("push", "--quiet", "origin", TAG)


TAKEN: list[Callable[[World], None]] = [
    _tag_here, _tag_there, _tag_on_the_remote_only, _lightweight_tag, _lightweight_tag_there,
]  # fmt: skip


@pytest.mark.parametrize("take", TAKEN, ids=[take.__name__.strip("_") for take in TAKEN])
def test_a_tag_that_names_an_older_commit_is_refused_and_stays(little: World, take: Callable[[World], None]) -> None:
    take(little)
    little.settle("feat: newer", {"newer": ""})
    before = little.look()
    assert little.release().refuses("v0.1.1")
    assert little.look() == before


def test_a_local_tag_that_is_a_mistake_is_fixed_by_the_command_that_is_shown(little: World) -> None:
    _tag_here(little)
    little.settle("feat: newer", {"newer": ""})
    ran = little.release()
    assert ran.refuses("git tag --delete v0.1.1")
    assert ran.output.index("git show v0.1.1") < ran.output.index("git tag --delete"), "what harms nothing comes first"
    _follow_what_is_shown(little, "tag")
    assert little.on_the_remote(TAG)


def test_a_colleague_s_release_between_our_commit_and_our_push_is_never_touched(little: World) -> None:
    """F15: the remote takes branch and tag together or not at all, and the loser is shown what to do."""
    colleague = little.colleague()
    git(colleague, "tag", "--annotate", "--message", "theirs", "v0.1.1")
    hook = little.hook("pre-push", f"env -u GIT_DIR git -C {colleague} push --quiet origin {TAG}")
    assert little.release().refuses("git push")
    hook.unlink()
    theirs = git(colleague, "rev-parse", TAG)
    assert little.on_the_remote(TAG) == theirs
    assert not little.on_the_remote("refs/heads/release/v0.1.1")
    before = little.look()
    assert little.release().refuses("v0.1.1", "on the remote")
    assert little.look() == before
    assert little.on_the_remote(TAG) == theirs


def test_a_release_branch_that_moved_on_the_remote_is_taken_in_by_the_commands_shown(little: World) -> None:
    """A colleague pushes a fix to the release branch just before we push the release."""
    colleague = little.colleague()
    git(colleague, "switch", "--quiet", "--create", "release/v0.1.1")
    (colleague / "fix").write_text("")
    git(colleague, "add", "fix")
    git(colleague, "commit", "--quiet", "--message", "fix: theirs")
    push = f"env -u GIT_DIR git -C {colleague} push --quiet origin release/v0.1.1"
    hook = little.hook("pre-push", f"if grep --quiet refs/tags; then {push}; fi")
    assert little.release().refuses("git push")
    hook.unlink()
    fix = git(colleague, "rev-parse", "HEAD")
    assert not little.on_the_remote(TAG)
    assert little.on_the_remote("refs/heads/release/v0.1.1") == fix
    _follow_what_is_shown(little, "tag")
    git(little.remote, "merge-base", "--is-ancestor", fix, TAG)


def test_main_that_moved_while_we_released_from_it_is_taken_in_by_the_commands_shown(little: World) -> None:
    little.set(("  title: Little", '  title: Little\n  branch: ""'))
    colleague = little.colleague()
    (colleague / "fix").write_text("")
    git(colleague, "add", "fix")
    git(colleague, "commit", "--quiet", "--message", "fix: theirs")
    hook = little.hook("pre-push", f"env -u GIT_DIR git -C {colleague} push --quiet origin main")
    assert little.release().refuses("git push")
    hook.unlink()
    fix = git(colleague, "rev-parse", "HEAD")
    assert not little.on_the_remote(TAG)
    assert little.on_the_remote("refs/heads/main") == fix
    _follow_what_is_shown(little, "tag")
    git(little.remote, "merge-base", "--is-ancestor", fix, TAG)


def _follow_what_is_shown(little: World, task: str, *words: str, most: int = 4) -> None:
    """Run `inv task` until it goes through, and after each refusal the git commands it shows, to the letter."""
    for _ in range(most):
        ran = little.inv(task, "--version", "0.1.1", *words)
        if ran.code == 0:
            return
        shown = [line.partition(" #")[0].strip() for line in ran.commands.splitlines() if line.startswith("git ")]
        script = "\n".join(dict.fromkeys(shown))
        assert script, ran.output
        followed = shell(little.repo, script, little.variables)
        assert followed.code == 0, f"{ran.output}\n$ {script}\n{followed.output}"
    raise AssertionError(f"it still does not go through:\n{ran.output}")


def test_a_failing_pre_commit_hook_stops_with_its_words_and_is_not_bypassed(little: World) -> None:
    hook = little.hook("pre-commit", "echo the hook has its reasons >&2; exit 1")
    before = little.published
    assert little.release().refuses("the hook has its reasons")
    assert little.published == before
    assert little.git("rev-parse", "HEAD") == little.git("rev-parse", "main")
    hook.unlink()
    assert little.inv("tag", "--version", "0.1.1").code == 0
    assert little.on_the_remote(TAG)


def test_a_hook_that_rewrites_what_is_committed_is_found_out_before_anything_is_pushed(little: World) -> None:
    little.hook("pre-commit", "echo reformatted >> VERSION; git add VERSION")
    before = little.published
    for _ in range(2):
        assert little.release().refuses("VERSION")
        assert little.published == before
        assert not little.git("tag", "--list")


@pytest.mark.parametrize("push_only", [False, True], ids=["every access", "only the push"])
def test_a_token_in_the_remote_s_url_is_never_shown_nor_recorded(little: World, push_only: bool) -> None:
    url = f"http://ada:{TOKEN}@127.0.0.1:9/little.git"
    little.git("remote", "set-url", *(["--push"] if push_only else []), "origin", url)
    ran = little.release()
    assert ran.refuses("git push" if push_only else "does not answer")
    assert TOKEN not in ran.output
    assert TOKEN not in "".join(path.read_text() for path in (little.repo / ".release").rglob("*.json*"))


def _ssh_key(folder: Path, passphrase: str) -> Path:
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", key], check=True)
    return key


def _sign_with(little: World, key: Path) -> None:
    little.git("config", "gpg.format", "ssh")
    little.git("config", "user.signingkey", str(key))


def test_a_signed_tag_verifies(little: World) -> None:
    key = _ssh_key(little.folder, passphrase="")
    _sign_with(little, key)
    assert little.inv("tag", "--version", "0.1.1", "--sign").code == 0
    signers = little.folder / "signers"
    signers.write_text(f"ada@example.invalid {key.with_suffix('.pub').read_text()}")
    little.git("config", "gpg.ssh.allowedSignersFile", str(signers))
    little.git("tag", "--verify", "v0.1.1")
    assert little.on_the_remote(TAG) == little.git("rev-parse", TAG)


@pytest.mark.parametrize("usable", ["no such key", "a passphrase nobody can be asked for"])
def test_a_key_that_cannot_sign_ends_with_a_sentence_and_nothing_is_pushed(little: World, usable: str) -> None:
    there = usable.startswith("a passphrase")
    _sign_with(little, _ssh_key(little.folder, "open sesame") if there else little.folder / "no key")
    before = little.published
    assert little.release("--sign").refuses("sign")
    assert little.published == before
    assert little.stamps() == {"staging": [], "production": []}
    if there:  # the fix is the same
        return
    _sign_with(little, _ssh_key(little.folder / "faults", passphrase=""))
    _follow_what_is_shown(little, "tag", "--sign")
    assert "SSH SIGNATURE" in git(little.remote, "cat-file", "tag", "v0.1.1")


def test_a_dirty_tree_is_refused_and_its_files_are_named(little: World) -> None:
    little.write({"CHANGELOG.md": "# Changed\n", "new (1) file": "", "docs/ÄÖ ü.md": ""})
    before = little.look()
    assert little.release().refuses("CHANGELOG.md", "new (1) file", "docs/ÄÖ ü.md", "git stash")
    assert little.look() == before
    assert not (little.journal.parent / "checks").exists(), "the proof and the smokes ran first"


def test_the_journal_tells_commands_with_their_exit_codes(little: World) -> None:
    little.hook("pre-push", "exit 1")
    assert little.release().code == 1
    commands = [record for record in journal_records(little.journal) if record["event"] == "command"]
    assert [command["code"] for command in commands if command["argv"][:2] == ["git", "push"]] == [1]
