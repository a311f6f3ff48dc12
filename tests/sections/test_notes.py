"""The notes: drafted from git, the DDL pack and CHANGELOG; Highlights only ever by a person."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from release_tasks.errors import Refused
from release_tasks.outcome import CHANGED, DONE, PENDING, REFUSED, Outcome
from release_tasks.sections import docs_pack, freeze, notes, preconditions, tag
from tests.conftest import APP, add_hook

if TYPE_CHECKING:
    from tests.conftest import Work

TABLES = APP["ddl/01_tables.sql"]
SECTIONS = [
    "Breaking Changes",
    "Highlights",
    "Added",
    "Changed / Improved",
    "Fixed",
    "Database Changes",
    "Evidence Pack",
    "Deployment Notes",
    "Dev Notes",
]


def sections(text: str) -> dict[str, str]:
    """Return heading → body of each level-2 section, in order."""
    parts = (part.partition("\n") for part in text.split("\n## ")[1:])
    return {heading: body.strip() for heading, _, body in parts}


TEMPLATE = APP["docs/RELEASE_NOTES_TEMPLATE.md"]


def tagged(work: Work, tag: str) -> None:
    work.release_before(tag)


# Highlights


def test_highlights_come_from_the_option_then_changelog(work: Work) -> None:
    release = work.release()
    assert notes.find_highlights(release, None) == "It counts faster."
    assert notes.find_highlights(release, "Given now.") == "Given now."


def test_highlights_can_be_given_as_a_file(work: Work) -> None:
    work.write({"words.md": "<!-- what it brings -->\nFrom a file.\n"})
    release = work.release()
    assert notes.find_highlights(release, f"@{work.root / 'words.md'}") == "From a file."
    with pytest.raises(Refused, match=r"names the file gone\.md, which is not there"):
        notes.find_highlights(release, "@gone.md")


def test_highlights_in_a_file_that_is_no_utf_8_are_refused_by_its_name(work: Work) -> None:
    """F10"""
    file = work.root / "words.md"
    file.write_bytes(b"\xff")
    with pytest.raises(Refused, match=rf"{file.name} cannot be read as UTF-8 text: .*0xff"):
        notes.find_highlights(work.release(), f"@{file}")


@pytest.mark.parametrize(
    "begun", ["${highlights}\n", "<!-- write\nhere -->\n", "", "<!-- a --> ${highlights} <!-- b -->", "…"]
)
def test_a_template_that_nobody_filled_in_is_no_highlights(work: Work, begun: str) -> None:
    assert notes.find_highlights(work.release(), begun) == "It counts faster."


@pytest.mark.parametrize(
    "heading",
    ["## 0.1.1", "## [0.1.1] - 2026-11-22", "## v0.1.1 (2026-11-22)", "##  0.1.1: faster", "## 0.1.1 — faster"],
)
def test_the_changelog_s_section_is_found_by_its_version(work: Work, heading: str) -> None:
    work.commit(
        {"CHANGELOG.md": f"# Changes\n\n## 0.2.0\n\nlater\n\n{heading}\n\nThis one.\n\n### More\n\n## 0.1.0\n\nx\n"}
    )
    assert notes.find_highlights(work.release(), None) == "This one.\n\n### More"


@pytest.mark.parametrize(
    ("heading", "expected"),
    [("## [Unreleased]", "Soon."), ("## Unreleased", "Soon."), ("## 0.1.1\n\nNow.\n\n## [Unreleased]", "Now.")],
)
def test_what_is_unreleased_is_taken_where_the_version_has_no_heading(work: Work, heading: str, expected: str) -> None:
    """R15"""
    work.commit({"CHANGELOG.md": f"# Changes\n\n{heading}\n\nSoon.\n\n## [0.1.0] - 2026-01-01\n\nOld.\n"})
    assert notes.find_highlights(work.release(), None) == expected


@pytest.mark.parametrize(
    "changelog",
    [
        "",
        "## [Unreleased]\n\n## 0.1.0\n\nold\n",
        "## 0.1.1\n\n## [Unreleased]\n\nlater\n",
        "## 0.1.1\n\n<!-- to be written -->\n\n## 0.1.0\n\nold\n",
        *(f"{heading}\n\nx\n" for heading in ("## 0.1.10", "## 0x1.1", "## 0.1.1-rc1", "## 0.1.1.1", "### 0.1.1")),
    ],
)
def test_without_highlights_the_release_is_refused_before_the_tag(
    work: Work, take: Callable[..., Outcome], changelog: str
) -> None:
    work.commit({"CHANGELOG.md": changelog})
    look = take(notes.write_the_notes, work.release(), change=False)
    assert look.state == REFUSED
    heading = "[Unreleased]" if changelog.startswith("## [U") else "0.1.1"
    assert f"CHANGELOG.md has no text under a heading {heading}" in look.problems[0].what
    assert "--highlights" in look.problems[0].hint


def test_the_heading_that_is_empty_is_named(work: Work) -> None:
    """Section 10 writes it; there was text under Unreleased, which the sentence denied."""
    work.commit({"CHANGELOG.md": "# Changes\n\n## [0.1.1]\n\n## Unreleased\n\nFaster.\n"})
    with pytest.raises(Refused, match=r"has no text under a heading \[0\.1\.1\], as it is committed"):
        notes.find_highlights(work.release(), None)


def test_once_the_tag_is_published_no_commit_is_proposed(work: Work) -> None:
    """The hint said to commit CHANGELOG: then the branch had more than the tag, and the release could not go on."""
    work.commit({"CHANGELOG.md": ""})
    tagged(work, "v0.1.1")
    with pytest.raises(Refused, match="The notes need Highlights") as refused:
        notes.find_highlights(work.release(), None)
    assert refused.value.problems[0].hint == 'inv release --version 0.1.1 --highlights "…"'


# The draft


def test_every_section_is_there_and_says_none_where_nothing_is(work: Work) -> None:
    work.commit({".env.example": "PORT=1\n"})
    tagged(work, "v0.1.0")
    text = notes.draft(work.release(title="CryptoPill"), "It counts faster.")
    found = sections(text)
    assert text.startswith("# CryptoPill v0.1.1\n") and "Changes since v0.1.0." in text
    assert list(found) == SECTIONS
    assert found.pop("Highlights") == "It counts faster."
    assert "tag `v0.1.1`" in found.pop("Evidence Pack")
    assert set(found.values()) == {"- none"}
    assert "<!--" not in text and "${" not in text


def test_changes_since_the_last_release_are_told(work: Work) -> None:
    work.commit({".env.example": "PORT=1\n# GONE=1\n"}, "feat: before")
    tagged(work, "v0.1.0")
    files = {".env.example": "PORT=2\n# OTHER_ONE=\nNEW_ONE=\n", "ddl/01_tables.sql": f"-- \n{TABLES}"}
    work.commit(files, "feat(ui): $highlights and ${tag} <b>stay</b>")
    found = sections(notes.draft(work.release(), "Both ${version} and $$ stay."))
    assert found["Highlights"] == "Both ${version} and $$ stay."
    assert found["Added"].startswith("- **ui**: $highlights and ${tag} \\<b>stay\\</b> (")
    assert found["Database Changes"].splitlines() == [
        "- the same objects as before",
        "- files: changed ddl/01_tables.sql",
    ]
    assert found["Deployment Notes"].splitlines()[-2:] == [
        "- new environment variables: `NEW_ONE`, `OTHER_ONE`",
        "- environment variables that are gone: `GONE`",
    ]


def test_new_variables_are_told_of_an_app_in_a_folder(work: Work) -> None:
    work.commit({"sample/.env.example": "A_NEW=1\n"})
    found = sections(notes.draft(work.release(folder="sample"), "x"))
    assert "- new environment variables: `A_NEW`" in found["Deployment Notes"]


def test_breaking_changes_come_first(work: Work) -> None:
    """R9: one was under Added, its mark and footer gone."""
    work.release_before("v0.1.0")
    work.commit({}, "feat(api)!: count faster")
    work.commit({}, "Change the units\n\nBREAKING CHANGE: they are\nmilliseconds\nRefs: #1")
    found = sections(notes.draft(work.release(), "x"))
    assert next(iter(found)) == "Breaking Changes" and found["Added"] == found["Changed / Improved"] == "- none"
    units, faster = found["Breaking Changes"].splitlines()
    assert units.startswith("- Change the units (") and units.endswith("): they are milliseconds")
    assert faster.startswith("- **api**: count faster (")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            "# ${title}\n\n## Highlights\n\n${highlights}\n\n## Added\n\n${added}\n",
            ["Breaking Changes", "Highlights", "Added"],
        ),
        ("# ${title}\n\n${highlights}\n", ["Breaking Changes"]),
    ],
)
def test_a_template_that_lacks_breaking_changes_loses_none(work: Work, template: str, expected: list[str]) -> None:
    """R9: the template is the repo's own, and may be an older one."""
    work.commit({"docs/RELEASE_NOTES_TEMPLATE.md": template}, "docs: begin a template")
    assert "Breaking" not in notes.draft(work.release(), "x")
    work.commit({}, "fix!: a hole")
    text = notes.draft(work.release(), "x")
    assert list(sections(text)) == expected and sections(text)["Breaking Changes"].startswith("- a hole (")


def test_the_layer_s_own_commits_are_left_out_and_a_person_s_that_looks_like_one_is_not(
    work: Work, take: Callable[..., Outcome]
) -> None:
    """R8, R10: ours are known by their trailer, also where a hook has put a ticket before the subject."""
    work.release_before("v0.1.0")
    add_hook(work.root, "prepare-commit-msg", 'sed -i "1s/^/APP-7 /" "$1"')
    release = work.release(branch="")
    for step in (freeze.lock_the_ddl_order, docs_pack.write_the_docs_pack):
        assert take(step, release).state == CHANGED
        assert take(step, release).state == DONE, "a commit more each run"
    work.commit({}, "release: allow partial refunds")
    release.refresh()
    found = sections(notes.draft(release, "x"))
    assert found.pop("Changed / Improved").startswith("- APP-7 release: allow partial refunds (")
    assert all("APP-7" not in text for text in found.values())
    assert work.git("log", "-3", "--format=%s").splitlines()[1:] == [
        "APP-7 docs: update version + hashes for v0.1.1",
        "APP-7 release: lock the DDL order for v0.1.1",
    ]


# The database


def test_database_changes_are_the_objects_with_their_files_and_what_an_operator_must_do(
    work: Work, take: Callable[..., Outcome]
) -> None:
    old = "create or replace view app.old as select 1 as n;\ndelete from app.things;\n"
    work.commit({"ddl/02_old.sql": old})
    tagged(work, "v0.1.0")
    (work.root / "ddl" / "02_old.sql").unlink()
    work.commit(
        {
            "ddl/01_tables.sql": f"{TABLES}alter table app.things alter name set not null;\n"
            "alter table app.things add column if not exists born date;\n",
            "ddl/03_new.sql": "drop view if exists app.old;\nalter table app.things drop column if exists born;\n"
            "create table if not exists app.late (n int primary key);\n"
            "create or replace function app.one() returns int language sql as 'select 1';\n",
        }
    )
    release = work.release(branch="")
    assert take(freeze.lock_the_ddl_order, release).state == CHANGED
    work.commit({"ddl/00_schemas.sql": "create schema if not exists app; -- ours\n"})
    assert take(freeze.lock_the_ddl_order, release).state == CHANGED
    text = notes.draft(release, "Faster.")
    assert sections(text)["Database Changes"].splitlines() == [
        "- function app.one() is new",
        "- table app.late is new",
        "- table app.things is changed: - name text; + name text NOT NULL",
        "- view app.old is dropped",
        "- files: removed ddl/02_old.sql; added ddl/03_new.sql; changed ddl/00_schemas.sql; changed ddl/01_tables.sql",
        "- critical fix in the freeze: changed ddl/00_schemas.sql",
    ]
    *told, final = sections(text)["Deployment Notes"].splitlines()
    assert told == [
        "- the DDL pack has changed: `inv deploy.staging` applies it with `psql`, `inv deploy.production` too, "
        "after a backup",
        "- lock (ACCESS EXCLUSIVE): `ddl/01_tables.sql` locks app.things",
        "- lock (ACCESS EXCLUSIVE): `ddl/03_new.sql` locks app.things",
    ]
    assert final == "- cannot be undone: `ddl/03_new.sql` drops table column app.things.born"
    assert notes.draft(release, "Faster.") == text


def test_a_shift_that_was_allowed_in_the_freeze_is_told_with_its_reason(
    work: Work, take: Callable[..., Outcome]
) -> None:
    release = work.release(branch="")
    assert take(freeze.lock_the_ddl_order, release).state == CHANGED
    work.commit({"ddl/02_late.sql": "create type app.kind as enum ('a');\n"})
    release.options = {"allow_shift": "a law came"}
    assert take(freeze.lock_the_ddl_order, release).state == CHANGED
    text = notes.draft(release, "First.")
    assert sections(text)["Deployment Notes"].startswith("- the DDL pack is new: `inv deploy.staging` applies it with")
    assert sections(text)["Database Changes"].splitlines() == [
        "- first release of the pack: 3 files",
        "- shift in the freeze, allowed because “a law came”: added ddl/02_late.sql; type app.kind is new",
    ]


def test_packs_that_cannot_be_applied_here_are_told_by_their_files(work: Work) -> None:
    work.commit({"ddl/02_late.sql": "select nothing from nowhere;\n"})
    tagged(work, "v0.1.0")
    work.commit({"ddl/02_late.sql": "select 1;\n"})
    told, files = sections(notes.draft(work.release(), "x"))["Database Changes"].splitlines()
    assert told.startswith("- the objects of the two packs cannot be compared: ddl/02_late.sql, line 1: ")
    assert files == "- files: changed ddl/02_late.sql"


def test_without_a_template_the_notes_are_refused(work: Work) -> None:
    work.git("rm", "--quiet", "docs/RELEASE_NOTES_TEMPLATE.md")
    work.commit({})
    with pytest.raises(Refused, match=r"RELEASE_NOTES_TEMPLATE\.md is not committed"):
        notes.draft(work.release(), "x")


def test_a_last_release_whose_tag_is_not_here_is_refused_with_the_command_that_fetches_it(
    work: Work, take: Callable[..., Outcome]
) -> None:
    """R1: it read as the first release, so that the upgrade was not proved, and the notes told everything."""
    tagged(work, "v0.1.0")
    work.git("tag", "--delete", "v0.1.0")
    (problem,) = take(preconditions.prove_the_ddl_pack, work.release(), change=False).problems
    assert problem.what == "The tag v0.1.0 is on the remote, but not here."
    work.git(*problem.hint.split()[1:])
    assert work.release().last() == "v0.1.0"


# Committed notes


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("# App v0.1.1\n\n## Highlights\n\nFaster.\n", DONE),
        ("# App v0.1.1\n\n## Highlights\n\n${highlights}\n\n## Added\n\n- x\n", REFUSED),
        ("", REFUSED),
    ],
)
def test_committed_notes_without_highlights_are_refused(
    work: Work, take: Callable[..., Outcome], text: str, state: str
) -> None:
    work.commit({"docs/releases/v0.1.1.md": text})
    look = take(notes.write_the_notes, work.release())
    assert look.state == state and all("Highlights of docs/" in problem.what for problem in look.problems)


def test_the_notes_wait_for_the_tag_then_are_written_and_pushed_once(work: Work, take: Callable[..., Outcome]) -> None:
    release = work.release(branch="")
    look = take(notes.write_the_notes, release, change=False)
    assert (look.state, look.text) == (PENDING, "after the tag is pushed")
    tagged(work, "v0.1.1")
    release.git.refresh()
    assert take(notes.write_the_notes, release).state == CHANGED
    found = take(notes.write_the_notes, release)
    assert (found.state, found.text) == (DONE, release.notes_path)
    release.options = {"highlights": "Other ones."}
    unused = f"{release.notes_path}, as committed: --highlights changes nothing any more"
    assert take(notes.write_the_notes, release).text == unused
    assert take(notes.push_the_notes, release).state == CHANGED
    assert release.git.remote_refs["refs/heads/main"] == work.git("rev-parse", "HEAD")


def test_without_a_release_branch_others_may_push_to_main_after_the_tag(
    work: Work, take: Callable[..., Outcome]
) -> None:
    """The same command was refused for ever: for notes that were pushed, or with a push that was rejected."""
    release = work.release(branch="")
    release.options = {"highlights": "Now."}
    made = [freeze.lock_the_ddl_order, docs_pack.write_the_docs_pack, tag.tag_the_release, tag.push_branch_and_tag]
    assert [take(step, release).state for step in (*made, notes.write_the_notes)] == [CHANGED] * 5
    host = type(work)(work.root.parent / "host", work.remote)
    work.git("clone", "--quiet", str(work.remote), str(host.root))
    host.commit({"theirs": "1"})
    host.git("push", "--quiet", "origin", "main")
    release.git.refresh()
    (problem,) = take(notes.push_the_notes, release, change=False).problems
    assert problem.what.startswith("main lacks commits that origin has")
    subprocess.run(shlex.split(problem.hint), cwd=work.root, check=True, capture_output=True)
    assert take(notes.push_the_notes, release).state == CHANGED
    assert release.published and release.git.contains("refs/heads/main", release.published)
    host.git("pull", "--quiet")
    host.commit({"theirs": "2"})
    host.git("push", "--quiet", "origin", "main")
    release.git.refresh()
    assert take(notes.push_the_notes, release, change=False).state == DONE


@pytest.mark.parametrize(
    ("template", "highlights"),
    [
        (TEMPLATE.replace("## Highlights", "## Destaques"), "Now."),
        (TEMPLATE.replace("## Highlights", "### Highlights"), "Now."),
        (TEMPLATE.replace("${highlights}", "…"), "Now."),
        (TEMPLATE, "## New\n\nFast."),
    ],
    ids=["another language", "another level", "no place for them", "a heading of their own"],
)
def test_highlights_that_could_not_be_read_again_are_refused_before_the_tag(
    work: Work, take: Callable[..., Outcome], template: str, highlights: str
) -> None:
    """Once it was published, they were said to be empty."""
    work.commit({"docs/RELEASE_NOTES_TEMPLATE.md": template})
    release = work.release(branch="")
    release.options = {"highlights": highlights}  # type: ignore[attr-defined]
    outcome = take(notes.write_the_notes, release, change=False)
    assert outcome.state == REFUSED and "no text under a heading `## Highlights`" in outcome.problems[0].what
    assert "RELEASE_NOTES_TEMPLATE.md have that" in outcome.problems[0].hint


def test_headings_of_a_changelog_are_no_highlights(work: Work, take: Callable[..., Outcome]) -> None:
    empty = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n### Changed\n\n## [0.1.0]\n\n- x\n"
    work.commit({"CHANGELOG.md": empty})
    outcome = take(notes.write_the_notes, work.release(branch=""), change=False)
    assert outcome.state == REFUSED and "has no text under a heading [Unreleased]" in outcome.problems[0].what
    work.commit({"CHANGELOG.md": empty.replace("Changed\n", "Changed\n\n#12 is mended\n")})
    assert take(notes.write_the_notes, work.release(branch=""), change=False).state == PENDING


@pytest.mark.parametrize("is_here", [True, False])
def test_a_tag_that_the_remote_lost_before_main_has_the_notes_is_put_back(
    work: Work, take: Callable[..., Outcome], is_here: bool
) -> None:
    """R2: another commit was tagged in its place, or it was to be deleted here as well."""
    release = work.release()
    steps = [freeze.cut_the_release_branch, freeze.lock_the_ddl_order, docs_pack.write_the_docs_pack]
    steps += [tag.tag_the_release, tag.push_branch_and_tag, notes.write_the_notes, notes.push_the_notes]
    release.options = {"highlights": "Now."}  # type: ignore[attr-defined]
    assert [take(freeze.hold_the_release_lock, release).state, *(take(step, release).state for step in steps)] == (
        [CHANGED] * 8
    )
    work.git("push", "--quiet", "origin", ":refs/tags/v0.1.1")
    if not is_here:
        work.git("tag", "--delete", "v0.1.1")
    outcome = take(preconditions.check_tag_is_free, work.release())
    found = "v0.1.1 was released, for its branch has docs/releases/v0.1.1.md, but the remote has no such tag."
    assert (outcome.state, outcome.problems[0].what) == (REFUSED, found)
    elsewhere = "" if is_here else "   # in a clone that has the tag"
    assert outcome.problems[0].hint == f"git push origin refs/tags/v0.1.1{elsewhere}"
