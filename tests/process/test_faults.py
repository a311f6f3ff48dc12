"""Whatever goes wrong at a step, the same command finishes the release: kills, and what a release stands on taken away.

Each world is one release, at each of whose changes something else goes wrong; `nox -s faults` runs all worlds, so that
everything goes wrong at each step (docs/RELIABILITY.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

import psycopg
import pytest
from world import KILLED, World

from release_tasks.database.server import Running

CHANGES = [
    "validate_the_ddl_pack_on_dev",
    "hold_the_release_lock",
    "cut_the_release_branch",
    "lock_the_ddl_order",
    "write_the_docs_pack",
    "tag_the_release",
    "push_branch_and_tag",
    "write_the_notes",
    "push_the_notes",
    "put_the_code_in_place staging",
    "apply_the_ddl_pack staging",
    "run_the_release staging",
    "stamp_the_session staging",
    "back_up_the_database production",
    "verify_the_backup production",
    "put_the_code_in_place production",
    "apply_the_ddl_pack production",
    "stamp_the_session production",
    "run_the_release production",
    "build_the_evidence_pack",
    "write_the_archive_files",
    "copy_the_archive_files",
    "merge_the_release_branch_back",
    "open_the_next_cycle",
    "push_the_main_branch",
]
KINDS = ["before", "inside", "after", "remote", "database", "disk", "front"]
NEEDED = {  # elsewhere the release goes through without: the last flip needs no database, the others have a step before
    "database": [step for step in CHANGES if " " in step and step != "run_the_release production"],
    "front": ["run_the_release staging", "stamp_the_session staging", "run_the_release production"],
}


def _break_off(little: World, server: Running, kind: str, step: str) -> None:
    """Run the release with the fault, which must end it, or at least harm nothing; then put right what was broken."""
    place = little.places[step.partition(" ")[2] or "dev"]
    database, admin = place.dsn.rpartition("/")[2], server.dsn("postgres")
    about = {"FAULT_REMOTE": str(little.remote), "FAULT_SERVER": admin}
    about |= {"FAULT_DATABASE": database, "FAULT": f"{kind} {step}", "LITTLE_WAIT": "5"}
    ran = little.release(env=about)
    if kind in ("before", "inside", "after"):
        assert ran.code == KILLED, f"{kind} {step} did not come about:\n{ran.output}"
    else:
        assert ran.code == 1, ran.output
    little.let_go_wrong(place.name)
    away = little.remote.with_suffix(".away")
    if away.exists():
        away.rename(little.remote)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"alter database {database} with allow_connections true".encode())


@pytest.mark.slow
def test_what_goes_wrong_at_some_changes_is_finished_by_the_same_command(little: World, server: Running) -> None:
    _finish_after(little, server, CHANGES[2::3], turn=0)


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("turn", range(len(KINDS)))
def test_what_goes_wrong_at_each_change_is_finished_by_the_same_command(
    little: World, server: Running, turn: int
) -> None:
    _finish_after(little, server, CHANGES, turn)


def _finish_after(little: World, server: Running, changes: list[str], turn: int) -> None:
    """Let something go wrong at each of `changes`, then finish: the end is that of an undisturbed release."""
    file = next((little.repo / "acceptance").glob("test_*.py")).relative_to(little.repo)
    known = 'exceptions={"terminating connection|not currently accepting": "this test takes the database away"}'
    text = (little.repo / file).read_text().replace("has_no_trouble()", f"has_no_trouble({known})")
    little.settle("test: the database is taken away", {str(file): text})
    plain, little.program = little.program, [sys.executable, str(Path(__file__).with_name("faulty.py"))]
    for number, step in enumerate(changes):
        kinds = [kind for kind in KINDS if step in NEEDED.get(kind, [step])]
        _break_off(little, server, kinds[(number + turn) % len(kinds)], step)
    little.program = plain
    little.finish()
    assert little.is_released()
    assert little.git("rev-list", "--count", "main") == "7", "a commit was made twice"
