"""A whole release, looked at from outside; the same command again; and what a dry run says and does not do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from outside import ended, git, journal_records, manifests_pass, sha256sum_passes, until
from world import World

from release_tasks.database import programs

SECTIONS = {
    "preconditions": [],
    "freeze": [],
    "docs-pack": [],
    "tag": [],
    "notes": [],
    "deploy.staging": [],
    "deploy.production": ["--yes"],
    "archive": [],
    "post-release": [],
}


@pytest.mark.slow
def test_the_sections_one_after_the_other_are_the_release_and_the_whole_again_changes_nothing(little: World) -> None:
    """R6, R7: also from a hook of another repository, and where git enters no bare one by itself (section 9 did)."""
    other = little.clone("other")
    before = git(other, "for-each-ref"), git(other, "status", "--porcelain")
    little.variables |= {"GIT_DIR": str(other / ".git"), "GIT_INDEX_FILE": str(other / ".git" / "index")}
    little.variables |= {"GIT_CONFIG_KEY_0": "safe.bareRepository", "GIT_CONFIG_VALUE_0": "explicit"}
    little.variables["GIT_CONFIG_COUNT"] = "1"
    for section, options in SECTIONS.items():
        _goes_through_while_a_second_run_is_refused(little, section, "--version", "0.1.1", *options)
    assert before == (git(other, "for-each-ref"), git(other, "status", "--porcelain"))
    assert little.is_released()
    _has_a_tag_that_verifies(little)
    _has_notes(little)
    _has_a_backup(little)
    _has_evidence(little)
    _runs_with_a_temporary_folder_that_stays(little)
    before = little.look()
    again = little.finish()
    _has_a_status_of_nothing_left(little)
    assert little.look() == before
    steps = [line.split()[0] for line in again.output.splitlines() if line.startswith("  ")]
    assert set(steps) - {"checked", "…"} == {"done", "manual"}


def _goes_through_while_a_second_run_is_refused(little: World, *section: str) -> None:
    """It is told that another run is under way in section 7, where this one is made to wait."""
    with little.inv_begun(*section, env={"LITTLE_PAUSE": "after the stamp on staging"}) as first:
        if section[0] == "deploy.staging":
            assert until(little.pause_mark.exists)
            assert little.release().refuses("Another release run is under way")
            little.go_on()
        ran = ended(first)
        assert ran.code == 0, ran.output


def _has_a_status_of_nothing_left(little: World) -> None:
    """M15"""
    told = json.loads(little.inv("status", "--version", "0.1.1", "--json").output)
    assert {step["state"] for step in told} == {"done", "manual"}


def _has_a_tag_that_verifies(little: World) -> None:
    """The tag and its branch are on the remote, and a checkout of the tag is what its hashes say."""
    checkout = little.clone("checkout", "--branch", "v0.1.1")
    assert sha256sum_passes(checkout, "docs/HASHES.sha256.txt")
    assert sha256sum_passes(checkout, "ddl/ORDER.lock")
    listed = (checkout / "docs/HASHES.sha256.txt").read_text()
    for path in ("VERSION", "SOURCE_TAG", "package.json", "CHANGELOG.md", "docs/ARCHITECTURE.md", "ddl/01_app.sql"):
        assert f"  {path}\n" in listed
    assert (checkout / "VERSION").read_text() == "0.1.1\n"
    assert (checkout / "SOURCE_TAG").read_text() == "v0.1.1\n"
    assert json.loads((checkout / "package.json").read_text())["version"] == "0.1.1"
    git(little.remote, "merge-base", "--is-ancestor", "refs/tags/v0.1.1^{commit}", "refs/heads/release/v0.1.1")


def _runs_with_a_temporary_folder_that_stays(little: World) -> None:
    """What a restart has started outlives the run, and so must the folder that TMPDIR names."""
    pids = [file.read_text() for file in little.folder.glob("*/web.pid")]
    assert pids
    for pid in pids:
        variables = Path("/proc", pid, "environ").read_text().split("\0")
        assert f"TMPDIR={little.folder / 'tmp'}" in variables


def _has_notes(little: World) -> None:
    notes = little.text_at("release/v0.1.1", "docs/releases/v0.1.1.md")
    assert "The little app keeps its samples fresh" in notes
    assert "a little app" in notes
    assert "${" not in notes


def _has_a_backup(little: World) -> None:
    (facts,) = (little.repo / ".release/backups").glob("*-production-*/backup.json")
    assert sha256sum_passes(facts.parent, "SHA256SUMS")
    pg_restore = programs.client("pg_restore", programs.major_of(programs.find_bin()))
    assert subprocess.run([pg_restore, "--list", facts.parent / "dump"], capture_output=True).returncode == 0
    assert "0 tables and 0 rows are the same" in (facts.parent / "verified.json").read_text()  # a first release
    kept = sorted(path.name for path in (little.evidence / "data/checks/backup" / facts.parent.name).iterdir())
    assert kept == ["SHA256SUMS", "backup.json", "roles.sql", "verified.json"]


def _has_evidence(little: World) -> None:
    """The pack verifies with plain tools, its copy in the archive by the layer; its journal tells of every section."""
    assert manifests_pass(little.evidence)
    (tar,), (sums,) = ((little.folder / "archive").glob(f"*.{kind}") for kind in ("tar", "sha512"))
    assert subprocess.run(["sha512sum", "--check", "--strict", sums.name], cwd=sums.parent).returncode == 0
    verify = little.inv("evidence.verify", str(tar), "--unsigned")
    assert verify.code == 0 and "9 of 9 pass" in verify.output, verify.output
    sections = {record.get("section", "")[:2] for record in journal_records(little.journal)}
    assert {"2.", "3.", "4.", "5.", "6.", "7.", "8.", "9.", "10"} <= sections


def test_a_dry_run_and_a_status_change_nothing_and_the_dry_run_tells_in_order_what_would_happen(little: World) -> None:
    before = little.look()
    ran = little.inv("--dry", "release", "--version", "0.1.1", "--yes")
    assert ran.code == 0, ran.output
    assert little.inv("status", "--version", "0.1.1").code == 0
    assert little.look() == before
    told = [ran.output.find(words) for words in ("release/v0.1.1", "ddl/ORDER.lock", "Tag the release commit",
            "Push branch and tag", "Write the release notes", "7. Deploy to Staging", "8. Deploy to Production",
            "Build the evidence pack", "Bump VERSION")]  # fmt: skip
    assert -1 not in told and told == sorted(told)


def test_a_dry_run_refuses_what_the_real_run_refuses(little: World) -> None:
    little.git("tag", "--annotate", "--message", "too early", "v0.1.1")
    little.write({"package.json": '{"version": "0.0.9"}', "a new file": ""})
    before = little.look()
    dry = little.inv("--dry", "release", "--version", "0.1.1", "--yes")
    real = little.release()
    status = little.inv("status", "--version", "0.1.1")
    assert dry.refuses("v0.1.1 names", "a new file", "package.json")
    assert real.code == dry.code == status.code
    assert _refusals(dry.output) == _refusals(real.output) == _refusals(status.output)
    assert little.look() == before


def _refusals(output: str) -> str:
    return output.partition("\nRefused")[2]
