"""Which releases come before a version: small worlds on real git, of a main branch, older lines and stray tags."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from release_tasks.errors import Problem, Refused
from release_tasks.git import Git
from release_tasks.lines import Line, has_merged, released
from release_tasks.process import Finished
from release_tasks.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import Work

LATER = "{} comes before {}, which this branch has."
LACKS = "{} comes before {}, but this branch lacks it."


class World:
    """Releases that were made in a repository, as sections 3 to 10 make them."""

    def __init__(self, work: Work) -> None:
        self.work, self.git = work, work.git
        work.commit({"VERSION": "0.1.0-dev\n"})

    def release(
        self, version: str, next: str, *, on: str = "main", how: str = "merge", notes: bool = True, prefix: str = "v"
    ) -> None:
        tag = f"{prefix}{version}"
        self.git("switch", "--quiet", "--create", f"release/{tag}", on)
        self.work.commit({"VERSION": f"{version}\n"})
        self.git("tag", "--annotate", "--message", tag, tag)
        if notes:
            self.work.commit({f"docs/releases/{tag}.md": f"# {tag}\n"})
        self.git("switch", "--quiet", on)
        if how == "squash":
            self.git("merge", "--quiet", "--squash", f"release/{tag}")
        elif how == "merge":
            self.git("merge", "--quiet", "--no-ff", "--no-edit", f"release/{tag}")
        self.work.commit({"VERSION": f"{next}\n"})

    def bring_notes(self, version: str) -> None:
        self.git("switch", "--quiet", "main")
        self.git("checkout", f"release/v{version}", "--", f"docs/releases/v{version}.md")
        self.work.commit({})

    def aside(self, tag: str, *create: str) -> None:
        """Tag a commit of a branch of its own."""
        self.git("switch", "--quiet", *(create or ["--create"]), f"of-{tag}")
        self.work.commit({tag: "x"})
        self.git("tag", tag)
        self.git("switch", "--quiet", "main")

    def line(self, base: str = "main", push: bool = True, **settings: str) -> Line:
        if push:
            self.git("push", "--quiet", "origin", "--all")
            self.git("push", "--quiet", "origin", "--tags")
        git = self.work.layer()
        return Line(git, Settings.model_validate(settings), git.commit_named(base) or "")

    def found(self, target: str, base: str = "main", **settings: str) -> tuple[str | None, list[str]]:
        """Return the last release before `target`, and what keeps it from coming next."""
        line = self.line(base, **settings)
        return line.last(target), [problem.what for problem in line.problems(target)]


@pytest.fixture
def world(work: Work) -> World:
    return World(work)


@pytest.fixture
def two_lines(world: World) -> World:
    """0.1.0, 0.1.1 and 0.2.0 are released, main is on 0.3.0-dev; support/0.1 was cut from v0.1.1 and has a fix."""
    world.release("0.1.0", "0.1.1-dev")
    world.release("0.1.1", "0.2.0-dev")
    world.release("0.2.0", "0.3.0-dev")
    world.git("switch", "--quiet", "--create", "support/0.1", "v0.1.1")
    world.work.commit({"app.txt": "fixed\n"})
    return world


def test_the_first_release_and_the_usual_next(world: World) -> None:
    assert world.found("0.1.0") == (None, [])
    world.release("0.1.0", "0.1.1-dev")
    world.release("0.1.1", "0.1.2-dev")
    assert world.found("0.1.2") == ("0.1.1", [])


def test_an_older_line_knows_nothing_of_what_came_later_on_main(two_lines: World) -> None:
    """R23"""
    assert two_lines.found("0.1.2", "support/0.1") == ("0.1.1", [])
    assert two_lines.found("0.1.2") == ("0.1.1", [LATER.format("0.1.2", "0.2.0")])
    (problem,) = two_lines.line().problems("0.1.2")
    fix = "git switch --create support/0.1 v0.1.1 && git push origin support/0.1"
    assert problem.hint.splitlines()[1].startswith(fix)


def test_a_version_of_the_next_line_is_not_released_from_an_older_one(two_lines: World) -> None:
    assert two_lines.found("0.2.1", "support/0.1") == ("0.1.1", [LACKS.format("v0.2.0", "0.2.1")])


def test_main_gets_the_notes_of_an_older_line_s_release_and_both_lines_go_on(two_lines: World) -> None:
    two_lines.release("0.1.2", "0.1.3-dev", on="support/0.1")
    two_lines.bring_notes("0.1.2")
    assert two_lines.found("0.3.0") == ("0.2.0", [])
    assert two_lines.found("0.1.3", "support/0.1") == ("0.1.2", [])


def test_a_release_that_was_made_beside_is_not_left_out_until_its_notes_are_here(world: World) -> None:
    world.release("0.1.1", "0.2.0-dev")
    world.git("switch", "--quiet", "--create", "support/0.1", "v0.1.1")
    world.release("0.1.2", "0.1.3-dev", on="support/0.1")
    assert world.found("0.2.0") == ("0.1.1", [LACKS.format("v0.1.2", "0.2.0")])
    (problem,) = world.line().problems("0.2.0")
    assert problem.hint == "If a pull request of it waits, merge that and pull; else:\ngit merge --no-ff v0.1.2"
    world.bring_notes("0.1.2")
    assert world.found("0.2.0") == ("0.1.2", [])


@pytest.mark.parametrize("notes", [True, False])
def test_a_squash_does_not_hide_a_release(world: World, notes: bool) -> None:
    world.release("0.1.0", "0.1.1-dev", how="squash", notes=notes)
    if not notes:  # squashed in a commit of its own, and what it was made from is gone
        world.git("reset", "--quiet", "--soft", "HEAD~1")
        world.git("stash", "--quiet")
        world.git("merge", "--quiet", "--squash", "v0.1.0")
        world.work.commit({})
        world.git("stash", "drop")
        world.work.commit({"VERSION": "0.1.1-dev\n"})
        world.git("branch", "--delete", "--force", "release/v0.1.0")
    world.work.commit({"app.txt": "more\n"})
    assert world.found("0.1.1") == ("0.1.0", [])


def test_what_was_never_merged_back_is_not_left_out(world: World) -> None:
    world.release("0.1.0", "0.1.1-dev", how="")
    assert world.found("0.1.1") == (None, [LACKS.format("v0.1.0", "0.1.1")])


def test_a_tag_that_may_be_of_the_line_and_is_not_here_is_to_be_fetched(world: World) -> None:
    """R1"""
    world.release("0.1.0", "0.1.1-dev")
    world.aside("v0.1.1")
    world.line()
    world.git("tag", "--delete", "v0.1.0", "v0.1.1")
    world.git("branch", "--delete", "--force", "of-v0.1.1")
    world.git("push", "--quiet", "origin", ":of-v0.1.1")
    world.git("reflog", "expire", "--expire=now", "--all")
    world.git("gc", "--quiet", "--prune=now")
    line = world.line(push=False)
    assert line.last("0.1.2") == "0.1.0"
    hint = "git fetch origin tag v0.1.1"
    assert line.problems("0.1.2") == [Problem("The tag v0.1.1 is on the remote, but not here.", hint)]


def test_foreign_tags_have_no_say(world: World) -> None:
    """R23: of another history, of an experiment beside main, of no form that is ours."""
    world.release("0.1.0", "0.1.1-dev")
    for tag in ("v5.0.0", "v0.1.1-beta"):
        world.aside(tag, "--orphan")
    world.aside("v6.0.0")
    world.aside("0.0.9")
    for tag in ("v1", "v1.2", "v01.0.0", "v1.0.0-dev", "v1.0.0+b", "nightly", "version1.0.0", "vv0.1.1"):
        world.git("tag", tag)
    assert world.found("0.1.1") == ("0.1.0", [])


def test_a_tag_that_was_never_pushed_has_no_say(world: World) -> None:
    world.release("0.1.0", "0.1.1-dev")
    world.line()
    world.git("tag", "v0.9.0")
    assert world.line(push=False).problems("0.1.1") == []


def test_a_lost_tag_of_a_finished_release_is_put_back(world: World) -> None:
    """R2: it was to be deleted here as well, and another commit to be tagged."""
    world.release("0.1.0", "0.1.1-dev")
    world.release("0.1.1", "0.1.2-dev")
    world.line()
    world.git("push", "--quiet", "origin", ":refs/tags/v0.1.1")
    for target in ("0.1.1", "0.1.2"):
        (problem,) = world.line(push=False).problems(target)
        found = "v0.1.1 was released, for main has docs/releases/v0.1.1.md, but the remote has no such tag."
        assert problem == Problem(found, "git push origin refs/tags/v0.1.1")
    world.git("tag", "--delete", "v0.1.1")
    (problem,) = world.line(push=False).problems("0.1.2")
    assert problem.hint == "git push origin refs/tags/v0.1.1   # in a clone that has the tag"
    bundle = ".release/v0.1.1/evidence/data/git/v0.1.1.bundle"
    (world.work.root / bundle).parent.mkdir(parents=True)
    (world.work.root / bundle).touch()
    (problem,) = world.line(push=False).problems("0.1.2")
    assert problem.hint == f"git fetch {bundle} tag v0.1.1 && git push origin refs/tags/v0.1.1"


def test_notes_begun_by_hand_are_no_release(two_lines: World) -> None:
    two_lines.work.commit({"docs/releases/v0.1.2.md": "# v0.1.2\n"})
    assert two_lines.found("0.1.2", "support/0.1") == ("0.1.1", [])
    two_lines.git("switch", "--quiet", "main")
    two_lines.work.commit({"docs/releases/v0.3.0.md": "# v0.3.0\n", "docs/releases/v0.4.0.md": "# v0.4.0\n"})
    assert two_lines.found("0.3.0") == ("0.2.0", [])


def test_a_final_release_goes_back_to_the_last_final_one_and_a_candidate_to_whatever_came_last(world: World) -> None:
    """R13; what production may run is the last of all."""
    world.release("0.1.0", "0.2.0-dev")
    world.release("0.2.0-rc.1", "0.2.0-dev")
    world.release("0.2.0-rc.2", "0.2.0-dev")
    assert world.found("0.2.0") == ("0.2.0-rc.2", [])
    assert world.line().last("0.2.0", finals=True) == "0.1.0"
    assert world.line().last("0.2.0-rc.3") == "0.2.0-rc.2"
    release = world.work.release("0.2.0")
    assert (release.last(), release.last(for_notes=True)) == ("v0.2.0-rc.2", "v0.1.0")
    assert world.work.release("0.2.0-rc.3").last(for_notes=True) == "v0.2.0-rc.2"


def test_a_candidate_of_what_is_released_comes_too_late(world: World) -> None:
    world.release("0.2.0", "0.2.1-dev")
    assert world.found("0.2.0-rc.2") == (None, [LATER.format("0.2.0-rc.2", "0.2.0")])


def test_products_of_one_repo_do_not_see_each_other_s_releases(world: World) -> None:
    world.release("1.2.3", "1.2.4-dev", prefix="web-v")
    world.release("7.0.0", "7.0.1-dev", prefix="api-v")
    assert world.found("1.2.4", tag="web-v{version}") == ("1.2.3", [])
    assert world.found("7.0.1", tag="api-v{version}") == ("7.0.0", [])
    assert world.found("0.1.0") == (None, [])
    (problem,) = world.line(tag="web-v{version}").problems("1.2.0")
    assert "1.2.0 comes before 1.2.3" in problem.what
    assert Settings(tag="web-v{version}").support_of("1.2.4-rc.1") == "support/web-v1.2"


def test_a_fix_that_was_merged_forward_leaves_main_on_its_line(two_lines: World) -> None:
    two_lines.release("0.1.2", "0.1.3-dev", on="support/0.1")
    two_lines.git("switch", "--quiet", "main")
    two_lines.git("merge", "--quiet", "--no-ff", "--no-commit", "--strategy=ours", "support/0.1")
    two_lines.work.commit({})
    assert two_lines.found("0.3.0") == ("0.2.0", [])


def test_notes_in_a_submodule_count_as_well(world: World) -> None:
    docs = world.work.add_submodule("notes", {"releases/v0.1.1.md": "# v0.1.1\n"})
    assert docs.root.is_dir()
    world.aside("v0.1.1")
    assert world.found("0.1.2", docs_pack={"folder": "notes"}) == ("0.1.1", [])  # type: ignore[arg-type]


def test_a_git_that_cannot_try_a_merge_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 2.38 it knows no --write-tree: nothing was merged, it seemed."""
    world.git("switch", "--quiet", "--create", "side")
    tip = world.work.commit({"side.txt": "1"})
    world.git("switch", "--quiet", "main")
    world.work.commit({"main.txt": "1"})
    world.git("merge", "--quiet", "--squash", "side")
    main = world.work.commit({})
    assert has_merged(world.work.layer(), main, tip)
    look = Git.look

    def old(git: Git, *args: str) -> Finished:
        words = ("merge-tree", "--no-such-option") if args[0] == "merge-tree" else args
        return look(git, *words)

    monkeypatch.setattr(Git, "look", old)
    with pytest.raises(Refused, match="Git cannot try a merge") as refused:
        has_merged(world.work.layer(), main, tip)
    assert refused.value.problems[0].hint == "git --version   # expected 2.38 or newer"


def _squashed(world: World) -> None:
    world.git("merge", "--quiet", "--squash", "side")
    world.work.commit({})


def _rebased(world: World) -> None:
    world.git("cherry-pick", "main..side")


def _reviewed(world: World) -> None:
    _squashed(world)
    world.work.commit({"one.txt": "1\n", "two.txt": "2, better\n"})
    world.git("reset", "--quiet", "--soft", "HEAD~2")
    world.work.commit({})


@pytest.mark.parametrize(
    ("come", "has"), [(_squashed, True), (_rebased, True), (_reviewed, False), (lambda _: None, False)]
)
@pytest.mark.parametrize("goes_on", [False, True])
def test_what_was_squashed_or_rebased_is_contained_also_once_main_goes_on(
    world: World, come: Callable[[World], None], has: bool, goes_on: bool
) -> None:
    """R24"""
    world.git("switch", "--quiet", "--create", "side")
    world.work.commit({"one.txt": "1\n"})
    world.work.commit({"two.txt": "2\n"})
    world.git("switch", "--quiet", "main")
    come(world)
    if goes_on:
        world.work.commit({"one.txt": "another\n", "more.txt": "more\n"})
    assert has_merged(world.work.layer(), "main", "side") == has
    assert not has_merged(world.work.layer(), "main", "0" * 40)


def _squashed_in_two(world: World) -> None:
    """Of 123 files 120 first, so that the second squash changes none of the first hundred."""
    world.git("checkout", "--quiet", "side~1", "--", ".")
    world.work.commit({})
    _squashed(world)


def _squashed_on_a_branch(world: World) -> None:
    """By a merge, of which git tells no files where the user has set it so."""
    world.git("switch", "--quiet", "--create", "review")
    _squashed(world)
    world.git("switch", "--quiet", "main")
    world.git("merge", "--quiet", "--no-ff", "--no-edit", "review")
    world.git("config", "log.diffMerges", "off")


@pytest.mark.parametrize("come", [_squashed_in_two, _squashed_on_a_branch])
def test_a_squash_is_seen_however_much_it_changes_and_however_it_came(
    world: World, come: Callable[[World], None]
) -> None:
    world.git("switch", "--quiet", "--create", "side")
    world.work.commit({f"{number:03}.txt": "1" for number in range(120)})
    world.work.commit({f"{number:03}.txt": "1" for number in range(120, 123)})
    world.git("switch", "--quiet", "main")
    world.work.commit({"more.txt": "1"})
    come(world)
    assert has_merged(world.work.layer(), "main", "side")


def test_a_tag_is_listed_with_the_commit_that_it_names() -> None:
    refs = {"refs/tags/v0.1.0": "tag", "refs/tags/v0.1.0^{}": "commit", "refs/heads/v0.2.0": "x", "refs/tags/v": "x"}
    assert released({"refs/tags/v0.10.0": "light", **refs}, Settings()) == {"0.1.0": "commit", "0.10.0": "light"}
