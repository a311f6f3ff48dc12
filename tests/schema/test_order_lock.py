"""The order lock: what it says, what happened to a pack since, and which of it is a shift."""

from __future__ import annotations

import subprocess
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_tasks.errors import Refused
from release_tasks.schema import ddl, order_lock
from release_tasks.schema.ddl import DdlFile
from release_tasks.schema.order_lock import CHANGED, REMOVED, RENAMED, REORDERED, Change
from release_tasks.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import Work

HASHES = st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from("012")), unique_by=lambda each: each[0]).map(
    dict
)
PATHS = st.lists(st.from_regex(r"ddl/[0-9]{2}[ _()a-zA-Z-]{0,8}\.sql", fullmatch=True), unique=True)


def pack_of(**files: str) -> list[DdlFile]:
    return [DdlFile(f"ddl/{name}.sql", text.encode()) for name, text in files.items()]


# The file


@given(PATHS)
def test_a_lock_is_of_one_release_and_says_the_pack_s_order(paths: list[str]) -> None:
    lock = order_lock.lock_of([DdlFile(path, path.encode()) for path in paths], "v0.1.1")
    assert [line.partition("  ")[2] for line in lock.decode().splitlines()[1:]] == paths
    assert order_lock.locked_for(lock, "v0.1.1")
    assert not order_lock.locked_for(lock, "v0.1.10") and not order_lock.locked_for(lock, "v0.1")
    assert not order_lock.locked_for(None, "v0.1.1")


def test_sha256sum_verifies_the_lock_from_the_root(work: Work) -> None:
    work.commit({"ddl/02 b (1).sql": "select 1;\n"})
    settings = Settings()
    lock = order_lock.lock_of(ddl.pack_at(work.layer(), "HEAD", settings), "v0.1.1")
    work.write({settings.ddl.lock: lock.decode()})
    check = ["sha256sum", "--check", "--strict", "--quiet", settings.ddl.lock]
    assert subprocess.run(check, cwd=work.root, check=False).returncode == 0
    work.write({"ddl/02 b (1).sql": "select 2;\n"})
    assert subprocess.run(check, cwd=work.root, check=False, capture_output=True).returncode == 1


# What happened to the files


@pytest.mark.parametrize(
    ("new", "told"),
    [
        ({"a": "1", "b": "2", "c": "3"}, []),
        ({"a": "1", "b": "2", "c": "3", "d": "4"}, ["added d"]),
        ({"a": "1", "c": "3"}, ["removed b"]),
        ({"a": "1", "B": "2", "c": "3"}, ["renamed b to B"]),
        ({"a": "1", "b": "x", "c": "3"}, ["changed b"]),
        ({"b": "2", "c": "3", "a": "1"}, ["reordered a"]),
        ({"a": "1", "c": "3", "z": "2"}, ["renamed b to z", "reordered z"]),
        ({"c": "x", "a": "1", "d": "4"}, ["added d", "removed b", "changed c", "reordered a"]),
        ({}, ["removed a", "removed b", "removed c"]),
    ],
)
def test_what_happened_to_each_file_is_told(new: dict[str, str], told: list[str]) -> None:
    found = order_lock.changes_between({"a": "1", "b": "2", "c": "3"}, new)
    assert [str(change) for change in found] == told


@given(HASHES, HASHES)
def test_changes_lead_from_one_pack_to_the_other(old: dict[str, str], new: dict[str, str]) -> None:
    found = order_lock.changes_between(old, new)
    assert (found == []) == (list(old.items()) == list(new.items()))
    files = dict(old)
    for change in found:
        if change.kind in (RENAMED, REMOVED):
            content = files.pop(change.was or change.path)
            assert change.kind == REMOVED or content == new[change.path]
        assert (change.path in files) == (change.kind in (CHANGED, REORDERED))
        if change.kind != REMOVED:
            files[change.path] = new[change.path]
    assert files == new


@given(st.permutations(list("abcdef")))
def test_the_fewest_files_are_told_to_stand_out_of_order(names: list[str]) -> None:
    old, new = dict.fromkeys("abcdef", "1"), dict.fromkeys(names, "1")
    moved = {change.path for change in order_lock.changes_between(old, new)}
    assert [name for name in old if name not in moved] == [name for name in new if name not in moved]
    for fewer in combinations("abcdef", max(len(moved) - 1, 0)):
        kept = [name for name in names if name not in fewer]
        assert not moved or kept != sorted(kept)


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        (Change("added", "ddl/02 b.sql"), "git rm 'ddl/02 b.sql'"),
        (Change("removed", "ddl/02.sql"), "git checkout 012345678 -- ddl/02.sql"),
        (Change("changed", "ddl/02.sql"), "git checkout 012345678 -- ddl/02.sql"),
        (Change("renamed", "ddl/03.sql", "ddl/02.sql"), "git mv ddl/03.sql ddl/02.sql"),
        (Change("reordered", "ddl/02.sql"), ""),
    ],
)
def test_each_change_comes_with_what_undoes_it(change: Change, mend: str) -> None:
    assert change.undone("0123456789abcdef") == mend


# What the objects make of it


def test_what_two_packs_make_otherwise_is_told_with_its_file(tmp_path: Path) -> None:
    old = pack_of(
        **{
            "00_a": "create table if not exists t (n int); create or replace view v as select n from t;",
            "01_b": "create table if not exists gone (n int);",
        }
    )
    new = pack_of(
        **{
            "00_a": "-- said better\ncreate table if not exists t (n  bigint);\n",
            "02_c": "create or replace view v as select n from t; create table if not exists late (n int primary key);",
        }
    )
    found = [str(shift) for shift in order_lock.shifts(old, new, tmp_path, Settings())]
    assert found == [
        "table public.gone is dropped (ddl/01_b.sql)",
        "table public.late is new (ddl/02_c.sql)",
        "column public.t.n is changed, integer → bigint (ddl/00_a.sql)",
    ]
    assert order_lock.shifts(new, new[::1], tmp_path, Settings()) == []


def test_a_pack_that_cannot_be_applied_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"ddl/00_a\.sql, line 2"):
        order_lock.shifts([], pack_of(**{"00_a": "\nselect nothing from nowhere;"}), tmp_path, Settings())


# What we committed


def commit_of_ours(work: Work, trailers: str = "", **files: str) -> str:
    """Commit `files` of the pack, then a lock of them as section 3 does; return the commit."""
    work.commit({f"ddl/{name}.sql": text for name, text in files.items()})
    lock = order_lock.lock_of(ddl.pack_at(work.layer(), "HEAD", Settings()), "v0.1.1")
    return work.commit({"ddl/ORDER.lock": lock.decode()}, f"release: lock the DDL order for v0.1.1\n\n{trailers}")


def test_the_newest_lock_of_ours_is_found_in_the_history(work: Work) -> None:
    assert order_lock.last_locked(work.layer(), "HEAD", "v0.1.1", Settings()) is None
    commit_of_ours(work)
    newest = commit_of_ours(work, **{"02_b": "select 1;"})
    work.commit({"ddl/ORDER.lock": "# v0.1.1: by hand\n"}, "Mend the lock")
    work.commit({"ddl/02_b.sql": "select 2;"}, "release: lock the DDL order for v0.1.10")
    found = order_lock.last_locked(work.layer(), "HEAD", "v0.1.1", Settings())
    assert found and found.commit == newest
    assert [file.path for file in found.pack] == ["ddl/00_schemas.sql", "ddl/01_tables.sql", "ddl/02_b.sql"]
    assert found.pack[-1].content == b"select 1;"


@pytest.mark.parametrize("lock", ["# v0.1.1: x\n", "# v0.1.1: \xff\n", "# v0.1.0: x\n", "", "# v0.1.1:\nno line\n"])
def test_a_lock_that_does_not_fit_its_pack_is_not_ours_whatever_the_message(work: Work, lock: str) -> None:
    ours = commit_of_ours(work)
    (work.root / "ddl" / "ORDER.lock").write_bytes(lock.encode("latin-1"))
    work.commit({}, "release: lock the DDL order for v0.1.1")
    found = order_lock.last_locked(work.layer(), "HEAD", "v0.1.1", Settings())
    assert found and found.commit == ours


def test_fixes_and_shifts_are_read_back_from_the_messages_oldest_first(work: Work) -> None:
    moved = [Change("added", "ddl/02_b.sql"), Change("renamed", "ddl/1.sql", "ddl/0.sql")]
    commit_of_ours(work)
    _, _, fix = order_lock.message("v0.1.1", moved, [], "not needed").partition("\n\n")
    commit_of_ours(work, fix, **{"02_b": "1"})
    _, _, shift = order_lock.message("v0.1.1", moved[:1], ["table b is new"], "a law:\n came\nDDL-Fix: x").partition(
        "\n\n"
    )
    commit_of_ours(work, shift, **{"02_b": "2"})
    work.commit({}, "release: lock the DDL order for v0.1.10\n\nDDL-Fix: of another release")
    work.commit({}, 'Revert "release: lock the DDL order for v0.1.1"\n\nDDL-Fix: of nobody')
    assert list(order_lock.recorded(work.layer(), "HEAD", "v0.1.1")) == [
        "critical fix in the freeze: added ddl/02_b.sql; renamed ddl/0.sql to ddl/1.sql",
        "shift in the freeze, allowed because “a law: came DDL-Fix: x”: added ddl/02_b.sql; table b is new",
    ]


def test_a_message_stays_short_enough_for_an_argument() -> None:
    moved = [Change("added", f"ddl/{number}.sql") for number in range(1000)]
    text = order_lock.message("v0.1.1", moved, [], "")
    assert len(text.splitlines()) == 2 + 101 and text.endswith("DDL-Fix: and 900 more")
