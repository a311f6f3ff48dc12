"""Commits on real git: ours and people's, what becomes of them in the notes, and hooks that change ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from release_tasks.commits import KINDS, Commit, commit_step, harmless, history, lines_of, without_reverts
from release_tasks.errors import Refused
from tests.conftest import add_hook

if TYPE_CHECKING:
    from tests.conftest import Work

ID = "0123456789abcdef"
STEP = "v0.1.1 notes"


def kinds(subject: str, body: str = "") -> dict[str, list[str]]:
    """Return kind → lines of one commit, without the kinds that have none."""
    return {kind: lines for kind, lines in lines_of([Commit(ID, subject, body)]).items() if lines}


def subjects(work: Work) -> list[str]:
    """Return the subjects that come out in notes since the beginning."""
    return [commit.subject for commit in without_reverts(history(work.layer(), None, "HEAD"))]


# Where a commit goes


@pytest.mark.parametrize(
    ("subject", "kind", "line"),
    [
        ("feat: count faster", "added", "count faster"),
        ("feat(api): count faster", "added", "**api**: count faster"),
        ("fix(db): a hole", "fixed", "**db**: a hole"),
        ("Fix: a hole", "fixed", "a hole"),
        ("hotfix: a hole", "fixed", "a hole"),
        ("docs: say how", "dev", "say how"),
        ("perf: faster", "changed", "faster"),
        ("sampling: fix the hole", "fixed", "sampling: fix the hole"),
        ("sampling: count faster", "changed", "sampling: count faster"),
        ("Add a view", "added", "Add a view"),
        ("Fixes the view", "fixed", "Fixes the view"),
        ("Address the view", "changed", "Address the view"),
        ("Build a view", "changed", "Build a view"),
        ("Note: 12:30 is no type", "changed", "Note: 12:30 is no type"),
        ("fixture", "changed", "fixture"),
        ("", "changed", ""),
        ("feat(api)!: count faster", "breaking", "**api**: count faster"),  # R9
        ("refactor!: move", "breaking", "move"),
        ("sampling!: move", "breaking", "sampling!: move"),
    ],
)
def test_a_subject_goes_where_its_type_or_its_verb_says(subject: str, kind: str, line: str) -> None:
    assert kinds(subject) == {kind: [f"{line} (012345678)"]}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("Why.\n\nBREAKING CHANGE: the old way\nis gone\n", "the old way is gone"),
        ("BREAKING-CHANGE: <gone>\nRefs: #1\n", "\\<gone>"),
        ("BREAKING CHANGE: a\nBREAKING CHANGE: b\n\nand more\n", "a: b"),
    ],
)
def test_a_footer_tells_a_breaking_change_and_comes_out(body: str, told: str) -> None:
    """R9"""
    assert kinds("Move it", body) == {"breaking": [f"Move it (012345678): {told}"]}
    assert list(kinds("Move it", "No BREAKING CHANGE: it is inside of a line.\nbreaking change: x")) == ["changed"]


@given(st.lists(st.text()))
def test_every_commit_comes_out_once_whatever_its_subject(subjects: list[str]) -> None:
    found = lines_of([Commit(f"{number:040}", f"x {subject}", "") for number, subject in enumerate(subjects)])
    assert list(found) == list(KINDS) and sum(map(len, found.values())) == len(subjects)


# Markdown and HTML


@given(st.text(alphabet="a1 `*_[](){}<>!-+#=~&;.:/\\|\"'$@x", min_size=1).map(str.strip).filter(bool))
def test_what_people_write_is_shown_as_it_is_but_for_code(text: str) -> None:
    """R12: by a parser of CommonMark: no tag, link, emphasis, list or heading comes of it."""
    tokens = MarkdownIt("commonmark").parse(f"- {harmless(text)} (012345678)")
    assert [token.type for token in tokens] == [
        *("bullet_list_open", "list_item_open", "paragraph_open", "inline"),
        *("paragraph_close", "list_item_close", "bullet_list_close"),
    ]
    children = tokens[3].children or []
    assert {child.type for child in children} <= {"text", "code_inline", "text_special"}
    if "`" not in text:
        assert "".join(child.content for child in children) == f"{text} (012345678)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Add <script> and <!-- x", "Add \\<script> and \\<!-- x"),
        ("Show `<b>` and `a*b`, <b>", "Show `<b>` and `a*b`, \\<b>"),
        ("Use release_tasks/git.py & more", "Use release_tasks/git.py & more"),
        ("a \\`<b>`", "a \\\\`<b>`"),
        ("one ` alone <b>", "one \\` alone \\<b>"),
    ],
)
def test_code_stays_and_html_is_escaped(text: str, expected: str) -> None:
    """R12: the rest of the page vanished."""
    assert harmless(text) == expected


# Reverts


def test_a_revert_and_what_it_reverts_are_both_left_out(work: Work) -> None:
    """R14"""
    work.commit({"a": "1"}, "feat: a")
    work.commit({"b": "1"}, "feat: b")
    work.git("revert", "--no-edit", "HEAD~1")
    assert subjects(work) == ["feat: b", "Begin"]
    work.git("revert", "--no-edit", "HEAD")
    assert subjects(work) == ["feat: b", "feat: a", "Begin"], "a revert of the revert"


def test_a_revert_without_an_id_is_known_by_the_subject_it_names(work: Work) -> None:
    """R14: as a squashed pull request leaves it."""
    work.commit({}, "feat: a (#1)")
    work.commit({}, 'Revert "feat: a (#1)" (#2)')
    assert subjects(work) == ["Begin"]
    work.commit({}, "feat: a (#1)")
    assert subjects(work) == ["feat: a (#1)", "Begin"], "it is in again"


def test_a_title_that_goes_on_after_the_quote_reverts_nothing_else(work: Work) -> None:
    work.commit({}, "feat: a")
    work.commit({}, 'Revert "feat: a" and "feat: b"')
    assert subjects(work) == ['Revert "feat: a" and "feat: b"', "feat: a", "Begin"]


def test_a_revert_of_what_is_not_in_the_range_is_listed(work: Work) -> None:
    """R14"""
    before = work.commit({"a": "1"}, "feat: a")
    work.git("revert", "--no-edit", "HEAD")
    work.commit({}, f"feat: b\n\nThis reverts commit {work.git('rev-parse', 'HEAD')}.")
    found = without_reverts(history(work.layer(), before, "HEAD"))
    assert [commit.subject for commit in found] == ["feat: b", 'Revert "feat: a"']


# As git prints them


def test_commits_are_newest_first_without_merges(work: Work) -> None:
    first, fix = work.git("rev-parse", "HEAD"), work.commit({}, "fix: a thing\n\nwith a body")
    git = work.layer()
    assert history(git, None, "HEAD") == [Commit(fix, "fix: a thing", "with a body\n"), Commit(first, "Begin", "")]
    assert history(git, "HEAD", "HEAD") == []
    work.git("switch", "--quiet", "--create", "side", first)
    work.commit({}, "On the side")
    work.git("merge", "--quiet", "--no-ff", "--message", "Merge main", "main")
    assert [commit.subject for commit in history(git, fix, "HEAD")] == ["On the side"]


def test_subjects_are_whole_and_in_utf_8(work: Work) -> None:
    """R11: a wrapped one was cut, one in another encoding had U+FFFD in it."""
    work.git(
        "commit", "--quiet", "--allow-empty", "--cleanup=verbatim", "--message", "feat: a wrapped\nsubject\n\nbody"
    )
    (work.root / "message").write_bytes("fix: Größe “x”".encode("cp1252"))
    encoded = ["-c", "i18n.commitEncoding=cp1252", "commit", "--quiet", "--allow-empty", "--file", "message"]
    work.git(*encoded)
    work.git("config", "i18n.logOutputEncoding", "cp1252")
    work.git("config", "log.showSignature", "true")
    work.git("config", "grep.patternType", "fixed")
    assert subjects(work) == ["fix: Größe “x”", "feat: a wrapped subject", "Begin"]


def test_our_commits_are_known_by_their_step_and_a_person_s_by_having_none(work: Work) -> None:
    """R10"""
    git = work.layer()
    for step in (STEP, "v0.1.10 notes", "v0x1.1 notes"):
        commit_step(git, {"VERSION": f"{step}\n".encode()}, "release: notes", step)
    work.commit({}, "release: allow partial refunds\n\nIt names Release-Step: v0.1.1 notes inside of a line.")
    assert len(history(git, None, "HEAD", STEP)) == 1
    assert subjects(work) == ["release: allow partial refunds", "Begin"]


def test_a_squash_that_brings_a_step_of_ours_is_a_person_s(work: Work) -> None:
    """A host puts the messages of all commits into the squash's: the feature was missing from the notes."""
    body = "* feat: weigh things\n\n* release: open the cycle of 0.1.2-dev\n\nRelease-Step: v0.1.1 post-release"
    work.commit({}, f"feat(scale)!: weigh things (#9)\n\n{body}")
    work.commit({}, f"Release 0.1.1 (#8)\n\n{body}")
    assert subjects(work) == ["feat(scale)!: weigh things (#9)", "Begin"]


# Hooks


@pytest.mark.parametrize(
    ("hook", "script", "changed"),
    [
        ("commit-msg", 'head -1 "$1" > m && mv m "$1"', "the message"),
        ("prepare-commit-msg", 'echo "APP-7 mine" > "$1"', "the message"),
        ("pre-commit", "echo '# formatted' >> VERSION && git add VERSION", "VERSION"),
        ("pre-commit", "echo '# formatted' >> VERSION", "VERSION"),
    ],
)
def test_a_hook_that_changes_what_we_commit_is_named_and_the_commit_taken_back(
    work: Work, hook: str, script: str, changed: str
) -> None:
    """R8: each run made a commit more, and nothing named the hook."""
    work.write({"staged.txt": "a person's\n", ".git/hooks/other.sample": ""})
    work.git("add", "staged.txt")
    before, file = work.git("rev-parse", "HEAD"), add_hook(work.root, hook, script)
    git = work.layer()
    for even_empty in (True, False):
        with pytest.raises(Refused, match=f"A git hook changed {changed}") as no:
            commit_step(git, {"VERSION": b"0.1.1\n", "new (1).txt": b"new\n"}, "release: x", STEP, even_empty)
        assert str(file) in no.value.problems[0].hint and "sample" not in no.value.problems[0].hint
        assert work.git("rev-parse", "HEAD") == before
        assert "staged.txt" in work.git("status", "--porcelain") and git.half_committed() == []
    file.unlink()
    commit_step(git, {"VERSION": b"0.1.1\n", "new (1).txt": b"new\n"}, "release: x", STEP)
    assert len(history(git, before, "HEAD", STEP)) == 1


def test_a_hook_that_adds_to_the_message_is_no_hindrance(work: Work) -> None:
    """R8"""
    add_hook(work.root, "prepare-commit-msg", 'sed -i "1s/^/APP-7 /" "$1"\nprintf "\\n\\nAPP-7\\n" >> "$1"')
    git = work.layer()
    commit_step(git, {"VERSION": b"0.1.1\n"}, "release: x", STEP)
    commit_step(git, {"VERSION": b"0.1.1\n"}, "release: x", STEP)
    (made,) = history(git, None, "HEAD", STEP)
    assert made.subject == "APP-7 release: x" and subjects(work) == ["Begin"]


def test_files_of_a_submodule_are_committed_as_ours_there_too(work: Work) -> None:
    docs = work.add_submodule("manual", {"GUIDE.md": "first\n"})
    commit_step(work.layer(), {"VERSION": b"0.1.1\n", "manual/GUIDE.md": b"second\n"}, "release: both", STEP)
    assert len(history(work.layer(), None, "HEAD", STEP)) == len(history(docs.layer(), None, "HEAD", STEP)) == 1
