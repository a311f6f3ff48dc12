"""The docs pack: version files and hashes as they are committed, in a folder or a submodule."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

from release_tasks.deploy import code
from release_tasks.outcome import CHANGED, DONE, PENDING, PLANNED, REFUSED, Outcome
from release_tasks.release import Release
from release_tasks.sections import docs_pack, freeze, notes, preconditions, tag
from release_tasks.sections.docs_pack import publish_the_docs_submodule, write_the_docs_pack
from tests.conftest import APP

if TYPE_CHECKING:
    from tests.conftest import Work

HASHES = "docs/HASHES.sha256.txt"


@pytest.fixture
def packed(work: Work, take: Callable[..., Outcome]) -> Release:
    """Return a release whose docs pack is built."""
    release = work.release(version_files=["package.json"], docs_pack={"include": ["CHANGELOG.md"]})
    for step in (freeze.cut_the_release_branch, freeze.lock_the_ddl_order, write_the_docs_pack):
        assert take(step, release).state == CHANGED
    return release


def test_the_pack_waits_for_the_lock_then_is_built_and_stays(work: Work, take: Callable[..., Outcome]) -> None:
    release = work.release()
    assert take(write_the_docs_pack, release).state != CHANGED
    look = take(write_the_docs_pack, release, change=False)
    assert (look.state, look.text) == (PENDING, "after the DDL order is locked")
    take(freeze.lock_the_ddl_order, release)
    look = take(write_the_docs_pack, release, change=False)
    assert look.state == PLANNED and all(name in look.text for name in ("VERSION", "SOURCE_TAG", HASHES))
    assert take(write_the_docs_pack, release).state == CHANGED
    look = take(write_the_docs_pack, release)
    assert (look.state, look.text) == (DONE, "5 hashes")


def test_a_stranger_verifies_the_committed_pack_with_sha256sum(packed: Release, work: Work) -> None:
    assert work.git("show", "HEAD:VERSION") == "0.1.1" and work.git("show", "HEAD:SOURCE_TAG") == "v0.1.1"
    listed = [line.split("  ")[1] for line in work.git("show", f"HEAD:{HASHES}").splitlines()]
    pack = ["ddl/00_schemas.sql", "ddl/01_tables.sql", "ddl/ORDER.lock"]
    assert listed == sorted(["VERSION", "SOURCE_TAG", "CHANGELOG.md", "package.json", *pack])
    check = ["sha256sum", "--check", "--strict", "--quiet", HASHES]
    assert subprocess.run(check, cwd=work.root, check=False).returncode == 0
    assert docs_pack.hash_mismatches(packed.git, "HEAD", HASHES) == []


def test_the_version_changes_and_the_rest_of_a_version_file_stays(packed: Release, work: Work) -> None:
    assert work.git("show", "HEAD:package.json") == '{\n  "name": "app",\n  "version": "0.1.1"\n}'


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("## [Unreleased]", "## [Unreleased]\n\n## [0.1.1] - DATE"),
        ("## Unreleased changes", "## Unreleased changes\n\n## 0.1.1 - DATE"),
        ("## [unreleased]\r", "## [unreleased]\r\n\r\n## [0.1.1] - DATE\r"),
    ],
)
def test_what_is_unreleased_gets_the_version_s_heading_once(
    work: Work, take: Callable[..., Outcome], heading: str, expected: str
) -> None:
    """R15"""
    rest = "\n\n- Größer\n\n## [0.1.0] - 2026-01-01\n"
    work.commit({"CHANGELOG.md": f"# Changes\n\n{heading}{rest}"})
    release = work.release(branch="")
    take(freeze.lock_the_ddl_order, release)
    assert "CHANGELOG.md" in take(write_the_docs_pack, release, change=False).text
    assert take(write_the_docs_pack, release).state == CHANGED
    assert take(write_the_docs_pack, release).state == DONE
    text = (release.git.bytes_at("HEAD", "CHANGELOG.md") or b"").decode()
    assert text == f"# Changes\n\n{expected.replace('DATE', f'{date.today():%Y-%m-%d}')}{rest}"
    assert "CHANGELOG" not in work.git("show", f"HEAD:{HASHES}"), "it is not on the include list"
    assert notes.find_highlights(release, None) == "- Größer"


@pytest.mark.parametrize(
    ("version", "changelog"),
    [
        ("0.1.1", "## [Unreleased]\n\n<!-- nothing yet -->\n\n## 0.1.0\n"),
        ("0.1.1", "## [Unreleased]\r\n\r\n## 0.1.0\r\n"),
        ("0.1.1", "## [Unreleased]\n\nlater\n\n## 0.1.1\n\nnow\n"),
        ("0.1.1-rc.1", "## [Unreleased]\n\nnot before the final release\n"),
        ("0.1.1", "### Unreleased\n\nx\n"),
    ],
)
def test_a_changelog_with_nothing_to_release_stays_as_it_is(work: Work, version: str, changelog: str) -> None:
    """R15"""
    work.commit({"CHANGELOG.md": changelog})
    release = work.release(version, docs_pack={"include": ["CHANGELOG.md"]})
    assert docs_pack.expected_pack(release, "HEAD").get("CHANGELOG.md", changelog.encode()) == changelog.encode()


def test_every_version_file_gets_the_version(work: Work) -> None:
    """R20"""
    lock = '{"version": "0.1.0", "packages": {"": {"version": "0.1.0"}}}'
    work.commit({"package-lock.json": lock, "app.py": "VERSION = '0.1.0'\n", "pyproject.toml": "project.version='0'\n"})
    python = {"path": "app.py", "pattern": "VERSION = '(.*)'"}
    release = work.release(version_files=["package-lock.json", "pyproject.toml", python])
    assert docs_pack.with_version_everywhere(release, "0.1.1", "HEAD") == {
        "VERSION": b"0.1.1\n",
        "SOURCE_TAG": b"v0.1.1\n",
        "package-lock.json": lock.replace("0.1.0", "0.1.1").encode(),
        "pyproject.toml": b"project.version='0.1.1'\n",
        "app.py": b"VERSION = '0.1.1'\n",
    }


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"version_files": ["app.json"]}, "app.json is not committed"),
        (
            {"docs_pack": {"include": ["NOTICE", "CHANGELOG.md", "IP.md"]}},
            "files that are not committed: NOTICE, IP.md",
        ),
        ({"docs_pack": {"include": ["docs"]}}, "files that are not committed: docs"),
    ],
)
def test_what_is_named_and_not_a_committed_file_is_refused(
    work: Work, take: Callable[..., Outcome], settings: dict[str, Any], told: str
) -> None:
    work.commit({"ddl/ORDER.lock": "# v0.1.1:\n"})
    work.write({"NOTICE": "not committed\n"})
    refused = take(write_the_docs_pack, work.release(**settings))
    assert refused.state == REFUSED and told in refused.problems[0].what


def test_the_working_tree_has_no_part_in_the_hashes(packed: Release, work: Work) -> None:
    expected = docs_pack.expected_pack(packed, "HEAD")
    work.write({"CHANGELOG.md": "dirty\n", "ddl/01_tables.sql": "dirty\n"})
    assert docs_pack.expected_pack(packed, "HEAD") == expected


def test_committed_files_that_do_not_fit_their_hashes_are_named(packed: Release, work: Work) -> None:
    commit = work.commit({"ddl/01_tables.sql": "select 'tampered';\n", "unlisted": "x"})
    assert docs_pack.hash_mismatches(packed.git, commit, HASHES) == [
        f"In {commit:.9}, ddl/01_tables.sql is not what {HASHES} says."
    ]
    work.git("rm", "--quiet", "CHANGELOG.md")
    assert len(docs_pack.hash_mismatches(packed.git, work.commit({}), HASHES)) == 2
    empty = hashlib.sha256(b"").hexdigest()
    emptied = work.commit({"empty": "", HASHES: f"{empty}  empty\n"})
    assert docs_pack.hash_mismatches(packed.git, emptied, HASHES) == []
    work.git("rm", "--quiet", "empty")
    assert len(docs_pack.hash_mismatches(packed.git, work.commit({}), HASHES)) == 1
    work.git("rm", "--quiet", HASHES)
    without = work.commit({})
    assert docs_pack.hash_mismatches(packed.git, without, HASHES) == [f"{HASHES} is not in {without:.9}."]


def test_a_tag_is_this_release_s_own_only_if_annotated_with_its_version_and_hashes(packed: Release, work: Work) -> None:
    work.release_before(packed.tag)
    packed.git.refresh()
    assert tag.tag_problems(packed) == []
    work.git("tag", "--force", packed.tag, "HEAD")
    work.git("push", "--quiet", "--force", "origin", packed.tag)
    packed.git.refresh()
    assert "lightweight" in tag.tag_problems(packed)[0].what
    work.git("tag", "--force", "--annotate", "--message", "x", packed.tag, "main")
    work.git("push", "--quiet", "--force", "origin", packed.tag)
    packed.git.refresh()
    (problem,) = tag.tag_problems(packed)
    assert "VERSION says '0.1.1-dev'" in problem.what
    assert problem.hint.splitlines()[0] == "git show v0.1.1" and "--delete" not in problem.hint, "it is published"


def test_docs_in_a_submodule_are_committed_tagged_and_pushed_there(work: Work, take: Callable[..., Outcome]) -> None:
    docs = work.add_submodule("manual", {"GUIDE.md": "how\n"})
    release = work.release(docs_pack={"folder": "manual", "include": ["manual/GUIDE.md"]})
    take(freeze.lock_the_ddl_order, release)
    assert take(publish_the_docs_submodule, release, change=False).state == PENDING
    assert take(write_the_docs_pack, release).state == CHANGED
    assert docs.git("show", "HEAD:VERSION") == "0.1.1"
    assert docs_pack.hash_mismatches(release.git, "HEAD", "manual/HASHES.sha256.txt") == []
    assert take(publish_the_docs_submodule, release).state == CHANGED
    assert take(publish_the_docs_submodule, release).state == DONE
    there = docs.git("ls-remote", "origin", "refs/heads/main", "refs/tags/v0.1.1^{}").split()
    assert there[0] == there[2] == docs.git("rev-parse", "HEAD")


def test_docs_that_others_pushed_to_after_the_tag_are_taken_in_by_the_command_shown(
    work: Work, take: Callable[..., Outcome]
) -> None:
    """Section 6 was rejected in every run, with `git status` as the hint."""
    docs = work.add_submodule("manual", {"RELEASE_NOTES_TEMPLATE.md": APP["docs/RELEASE_NOTES_TEMPLATE.md"]})
    release = work.release(docs_pack={"folder": "manual"}, branch="")
    release.options = {"highlights": "Now."}  # type: ignore[attr-defined]
    steps = [freeze.lock_the_ddl_order, write_the_docs_pack, publish_the_docs_submodule]
    for step in [*steps, tag.tag_the_release, tag.push_branch_and_tag, notes.write_the_notes]:
        assert take(step, release).state == CHANGED
    docs.git("push", "--quiet", "origin", f"{docs.git('commit-tree', '-p', 'HEAD', '-m', 'x', 'HEAD^{tree}')}:main")
    refused = take(notes.push_the_notes, release)
    assert refused.state == REFUSED and "manual" in refused.problems[0].what
    commands = refused.problems[0].hint.partition("   #")[0].replace("git commit", "git commit --message docs")
    subprocess.run(["sh", "-c", commands], cwd=work.root, check=True)
    assert take(notes.push_the_notes, release).state == CHANGED


def test_a_tag_of_other_docs_in_the_submodule_is_refused(work: Work, take: Callable[..., Outcome]) -> None:
    docs = work.add_submodule("manual", {"GUIDE.md": "how\n"})
    docs.git("tag", "v0.1.1")
    release = work.release(docs_pack={"folder": "manual"})
    take(freeze.lock_the_ddl_order, release)
    take(write_the_docs_pack, release)
    (problem,) = take(publish_the_docs_submodule, release).problems
    assert problem.what.startswith("In manual/, v0.1.1 names ")
    look, delete = problem.hint.splitlines()
    assert look == "git -C manual show v0.1.1" and delete.startswith("git -C manual tag --delete v0.1.1   # only if")


def test_docs_in_a_folder_have_nothing_to_publish(packed: Release, take: Callable[..., Outcome]) -> None:
    look = take(publish_the_docs_submodule, packed)
    assert (look.state, look.text) == (DONE, "they are no submodule")


def test_where_a_repo_has_several_products_every_name_follows_the_tag(work: Work, take: Callable[..., Outcome]) -> None:
    release = work.release(tag="web-v{version}", evidence={"places": ["vault"]}, branch="release/{tag}")
    for step in (freeze.cut_the_release_branch, freeze.lock_the_ddl_order, write_the_docs_pack):
        assert take(step, release).state == CHANGED
    assert (release.tag, release.branch) == ("web-v0.1.1", "release/web-v0.1.1")
    assert (release.folder.name, release.notes_path) == ("web-v0.1.1", "docs/releases/web-v0.1.1.md")
    assert work.git("show", "HEAD:SOURCE_TAG") == "web-v0.1.1" and work.git("show", "HEAD:VERSION") == "0.1.1"
    assert preconditions.check_version_files(release) == "0.1.1 now"


def test_docs_in_a_submodule_may_have_another_name_for_their_remote(work: Work, take: Callable[..., Outcome]) -> None:
    """`git submodule` calls it origin; with `remote: upstream` the release stopped after the docs pack's commit."""
    docs = work.add_submodule("manual", {"VERSION": "0.1.0\n", "SOURCE_TAG": "v0.1.0\n"})
    work.git("remote", "rename", "origin", "upstream")
    work.git("push", "--quiet", "upstream", "main")
    release = work.release(remote="upstream", docs_pack={"folder": "manual"})
    assert take(preconditions.check_branch_is_up_to_date, release).state == DONE
    for step in (freeze.cut_the_release_branch, freeze.lock_the_ddl_order, write_the_docs_pack):
        assert take(step, release).state == CHANGED
    assert take(publish_the_docs_submodule, release).state == CHANGED
    assert docs.git("ls-remote", "origin", "main").startswith(docs.git("rev-parse", "HEAD"))
    assert [repo.remote for _, repo, _ in code.trees(release.git, release.tip)] == ["upstream", "origin"]


def test_a_release_goes_on_in_another_clone_with_the_docs_that_it_records(
    work: Work, take: Callable[..., Outcome]
) -> None:
    """Its notes came on top of main's docs, without the docs pack, and the docs' remote rejected them."""
    text = (work.root / "docs" / "RELEASE_NOTES_TEMPLATE.md").read_text()
    docs = work.add_submodule("manual", {"VERSION": "\n", "SOURCE_TAG": "\n", "RELEASE_NOTES_TEMPLATE.md": text})
    work.git("push", "--quiet", "origin", "main")
    settings: dict[str, Any] = {"docs_pack": {"folder": "manual"}}
    release = work.release(**settings)
    for step in (freeze.cut_the_release_branch, freeze.lock_the_ddl_order, write_the_docs_pack):
        assert take(step, release).state == CHANGED
    recorded = docs.git("rev-parse", "HEAD")
    work.git("switch", "--quiet", "main")
    work.git("submodule", "--quiet", "update")
    assert docs.git("rev-parse", "HEAD") != recorded
    for step in (publish_the_docs_submodule, tag.tag_the_release, tag.push_branch_and_tag):
        assert take(step, release).state == CHANGED
    assert docs.git("rev-parse", "v0.1.1^{commit}") == docs.git("rev-parse", "origin/main") == recorded
    clone = type(work)(work.root.parent / "clone", work.remote, work.opened)
    work.git("clone", "--quiet", "--recurse-submodules", str(work.remote), str(clone.root))
    there = clone.release(**settings)
    release.lock.push(what="goes on elsewhere", last=True)
    for step in (
        freeze.hold_the_release_lock,
        freeze.cut_the_release_branch,
        notes.write_the_notes,
        notes.push_the_notes,
    ):
        assert take(step, there).state == CHANGED
    docs.git("fetch", "--quiet")
    assert docs.git("rev-parse", "origin/main^") == recorded
    assert clone.git("status", "--porcelain") == ""
