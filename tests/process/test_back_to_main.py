"""Section 10 where main has a life of its own: conflicts, commits of others, the next version, no release branch."""

from __future__ import annotations

import shutil

import pytest
from outside import git, shell
from world import World


def _colleague_commits(little: World, files: dict[str, str], push: bool = True) -> str:
    colleague = little.colleague()
    for path, text in files.items():
        (colleague / path).write_text(text)
    git(colleague, "add", "--all")
    git(colleague, "commit", "--quiet", "--message", "feat: theirs")
    if push:
        git(colleague, "push", "--quiet", "origin", "main")
    return git(colleague, "rev-parse", "HEAD")


def _stop_after_the_tag(little: World) -> None:
    little.kill(LITTLE_KILL="before the restart on staging")
    assert little.on_the_remote("refs/tags/v0.1.1")


def _is_on_main(little: World, commit: str) -> None:
    git(little.remote, "merge-base", "--is-ancestor", commit, "refs/heads/main")


@pytest.mark.slow
def test_a_conflict_is_put_back_and_fixed_by_the_commands_shown_and_then_main_may_move_once_more(little: World) -> None:
    _stop_after_the_tag(little)
    package = (little.repo / "package.json").read_text().replace("0.1.1", "0.1.1-dev", 1)
    theirs = _colleague_commits(little, {"package.json": package.replace('"private": true', '"private": false')})
    ran = little.release()
    assert ran.refuses("does not merge into main", "package.json")
    assert not little.git("status", "--porcelain")
    before = little.look()
    again = little.release()
    assert again.refuses("does not merge into main", "package.json")
    assert little.look() == before
    merge = next(line for line in again.commands.splitlines() if "git merge" in line)
    assert shell(little.repo, merge, little.variables).code != 0
    little.git("checkout", "--theirs", "package.json")
    little.git("add", "--all")
    little.git("commit", "--quiet", "--no-edit")
    _moves_in_the_moment_of_our_push_and_is_merged_by_the_same_command(little)
    assert little.is_released()
    _is_on_main(little, theirs)


def _moves_in_the_moment_of_our_push_and_is_merged_by_the_same_command(little: World) -> None:
    shutil.rmtree(little.folder / "colleague")
    theirs = _colleague_commits(little, {"theirs": ""}, push=False)
    push = f"env -u GIT_DIR git -C {little.folder}/colleague push --quiet origin main"
    hook = little.hook("pre-push", f"grep --quiet refs/heads/main && {push}; exit 0")
    assert little.release().refuses("git push")
    hook.unlink()
    little.finish()
    _is_on_main(little, theirs)


def test_main_that_works_on_a_later_version_already_still_gets_the_release(little: World) -> None:
    """With a release branch, main may open its next cycle before the release is out."""
    _stop_after_the_tag(little)
    theirs = _colleague_commits(little, {"VERSION": "0.2.0-dev\n", "SOURCE_TAG": "v0.2.0-dev\n", "theirs": ""})
    ran = little.release()
    assert ran.refuses("does not merge into main", "VERSION")
    merge = next(line for line in ran.commands.splitlines() if "git merge" in line)
    shell(little.repo, merge, little.variables)
    little.git("checkout", "--ours", "VERSION", "SOURCE_TAG")
    little.git("add", "--all")
    little.git("commit", "--quiet", "--no-edit")
    little.finish()
    assert little.runs() == {"staging": "0.1.1", "production": "0.1.1"}
    assert little.text_at("main", "VERSION") == "0.2.0-dev"
    assert little.text_at("main", "docs/releases/v0.1.1.md")
    _is_on_main(little, theirs)
    _is_on_main(little, "refs/tags/v0.1.1^{commit}")


def test_a_next_version_that_does_not_come_next_is_refused_before_anything_changes(little: World) -> None:
    before = little.look()
    for upcoming in ("0.1.1", "0.1.0-dev", "next", "0.1.1-dev"):
        assert little.release("--next", upcoming).refuses(upcoming)
    assert little.look() == before


def test_a_release_from_main_goes_through_without_node_and_is_found_finished(little: World) -> None:
    """The app needs no Node, and its next version is named."""
    little.hide_node()
    little.set(("  title: Little", '  title: Little\n  branch: ""'))
    little.finish("--next", "0.2.0-dev")
    assert little.runs() == {"staging": "0.1.1", "production": "0.1.1"}
    for path, text in {"VERSION": "0.2.0-dev", "SOURCE_TAG": "v0.2.0-dev"}.items():
        assert little.text_at("main", path) == text
    assert '"version": "0.2.0-dev"' in little.text_at("main", "package.json")
    assert little.git("rev-parse", "main") == little.on_the_remote("refs/heads/main")
    assert not little.on_the_remote("refs/heads/release/v0.1.1")
    before = little.look()
    little.finish("--next", "0.2.0-dev")
    assert little.look() == before


@pytest.mark.slow
def test_a_release_candidate_then_the_release_and_then_a_hotfix_of_its_line_go_through(little: World) -> None:
    _a_release_candidate_goes_through_and_then_the_release(little)
    _a_hotfix_of_an_older_line_goes_through_and_main_gets_its_notes(little)


def _a_release_candidate_goes_through_and_then_the_release(little: World) -> None:
    ran = little.inv("release", "--version", "0.1.1-rc1", "--yes", "--highlights", "A first look.")
    assert ran.code == 0, ran.output
    assert little.text_at("main", "VERSION") == "0.1.1-dev"
    before = little.look()
    assert little.inv("release", "--version", "0.1.1-rc1", "--yes").code == 0
    assert little.look() == before
    little.finish()
    assert little.stamps() == {name: ["0.1.1-rc1", "0.1.1"] for name in ("staging", "production")}
    ran = little.inv("status", "--version", "0.1.1-rc1")
    assert ran.code == 0 and "Released 0.1.1-rc1; nothing was changed" in ran.output, (
        "it was lower than the last release"
    )
    assert little.text_at("main", "VERSION") == "0.1.2-dev"


def _a_hotfix_of_an_older_line_goes_through_and_main_gets_its_notes(little: World) -> None:
    """R23: 0.1.2 from support/0.1, while 0.2.0 is out and main is on its way to 0.3.0."""
    little.settle("feat: more", {"VERSION": "0.2.0\n", "docs/releases/v0.2.0.md": "# Little v0.2.0\n"})
    little.git("tag", "--annotate", "--message", "Little v0.2.0", "v0.2.0")
    main = little.settle("release: open the cycle", {"VERSION": "0.3.0-dev\n", "SOURCE_TAG": "v0.3.0-dev\n"})
    little.git("push", "--quiet", "origin", "v0.2.0")
    hotfix = ["release", "--version", "0.1.2", "--yes", "--highlights", "Fixed."]
    ran = little.inv(*hotfix)
    assert ran.refuses("0.1.2 comes before 0.2.0, which this branch has")
    assert shell(little.repo, ran.commands.splitlines()[1], little.variables).code == 0
    little.commit("fix: the app", {"docs/ARCHITECTURE.md": "Fixed.\n"})
    ran = little.inv(*hotfix)
    assert ran.code == 0, ran.output
    assert little.stamps()["production"] == ["0.1.1-rc1", "0.1.1", "0.1.2"] and little.runs()["production"] == "0.1.2"
    assert little.text_at("support/0.1", "VERSION") == "0.1.3-dev"
    assert little.text_at("support/0.1", "docs/ARCHITECTURE.md") == "Fixed."
    assert git(little.remote, "rev-parse", "main~1") == main
    assert git(little.remote, "diff", "--name-only", "main~1", "main") == "docs/releases/v0.1.2.md"
    notes = little.text_at("main", "docs/releases/v0.1.2.md")
    assert "the app (" in notes and "more" not in notes
    before = little.look()
    assert little.inv(*hotfix).code == little.inv("status", "--version", "0.1.2").code == 0
    assert little.look() == before


@pytest.mark.slow
def test_a_protected_main_waits_for_a_pull_request_and_a_squash_of_it_ends_the_release(little: World) -> None:
    """R16"""
    rule = '[ "$1" != refs/heads/main ] || { echo "GH006: Protected branch update failed" >&2; exit 1; }'
    hook = little.hook("update", rule, little.remote)
    ran = little.finish()
    assert "GH006: Protected branch update failed" in ran.output
    assert "main waits for the pull request of release/v0.1.1-back" in ran.output
    before = little.look()
    little.finish()
    assert "waits for the pull request" in little.inv("status", "--version", "0.1.1").output
    assert little.look() == before
    hook.unlink()
    host = little.colleague()
    git(host, "merge", "--quiet", "--squash", "origin/release/v0.1.1-back")
    git(host, "commit", "--quiet", "--message", "Release 0.1.1 (#8)")
    git(host, "push", "--quiet", "origin", "main", ":release/v0.1.1-back")
    ran = little.finish()
    assert (
        "waits for the pull request" not in ran.output
        and "git fetch" not in little.inv("status", "--version", "0.1.1").output
    )
    assert little.text_at("main", "VERSION") == "0.1.2-dev"
    little.git("switch", "--quiet", "main")
    little.git("pull", "--quiet", "--ff-only", "origin", "main")
    ran = little.inv("--dry", "release", "--version", "0.1.2", "--yes", "--highlights", "More.")
    assert ran.code == 0 and "the last is v0.1.1" in ran.output, ran.output
