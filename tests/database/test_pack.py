"""The DDL pack: its files, its order, the lock on both, and what became of it since."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_tasks import ddl
from release_tasks.database import pack as packs
from release_tasks.database.pack import DdlFile
from release_tasks.errors import Refused
from release_tasks.files import checksum_lines
from release_tasks.settings import Ddl, Settings

if TYPE_CHECKING:
    from tests.conftest import Work

HASHES = st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from("012")), unique_by=lambda each: each[0]).map(
    dict
)
PATHS = st.lists(st.from_regex(r"ddl/[0-9]{2}[ _()a-zA-Z-]{0,8}\.sql", fullmatch=True), unique=True)
NAMES = ["02_a.sql", "02-a.sql", "10_z.sql", "02_B.sql", "9_y.sql"]


def pack_of(**files: str) -> list[DdlFile]:
    return [DdlFile(f"ddl/{name}.sql", text.encode()) for name, text in files.items()]


def listing(*lines: str) -> Settings:
    """Return settings with a command that prints `lines` as the order."""
    return Settings(ddl=Ddl(order=[sys.executable, "-c", f"print({chr(10).join(lines)!r})"]))


# Order


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("bytes", ["02-a.sql", "02_B.sql", "02_a.sql", "10_z.sql", "9_y.sql"]),
        ("javascript", ["02_a.sql", "02_B.sql", "02-a.sql", "10_z.sql", "9_y.sql"]),
    ],
)
def test_names_are_ordered_as_the_runner_orders_them(tmp_path: Path, order: Any, expected: list[str]) -> None:
    assert packs.in_order(NAMES, tmp_path, Settings(ddl=Ddl(order=order))) == expected
    assert packs.in_order(NAMES[::-1], tmp_path, Settings(ddl=Ddl(order=order))) == expected


def test_a_command_that_lists_the_files_says_their_order(tmp_path: Path) -> None:
    settings = listing(
        "to apply:", "1. ddl/9_y.sql (new)", "2. 02_B.sql", "3: 02_a.sql", "02-a.sql", "10_z.sql", "9_y.sql?"
    )
    assert packs.in_order(NAMES, tmp_path, settings) == ["9_y.sql", "02_B.sql", "02_a.sql", "02-a.sql", "10_z.sql"]


def test_a_command_runs_where_the_application_is_with_its_node(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "list.mts").write_text("const name: string = '1_b.sql'; console.log(name, '1_a.sql')")
    settings = Settings(folder="app", ddl=Ddl(order=["node", "list.mts"]))
    assert packs.in_order(["1_a.sql", "1_b.sql"], tmp_path, settings) == ["1_b.sql", "1_a.sql"]


def test_a_command_that_leaves_files_out_is_refused_with_all_of_them(tmp_path: Path) -> None:
    settings = listing("02_a.sql", "02_B.sql.disabled", "x9_y.sql", "2-02-a.sql")
    with pytest.raises(Refused, match=r"missing: 02-a\.sql, 02_B\.sql, 10_z\.sql, 9_y\.sql\.$"):
        packs.in_order(NAMES, tmp_path, settings)


@given(st.lists(st.from_regex(r"[0-9]{1,2}[ _().a-z-]{0,6}\.sql", fullmatch=True), min_size=1, unique=True))
def test_names_are_found_as_they_are_listed_also_where_one_ends_another(names: list[str]) -> None:
    listing = [sys.executable, "-c", "import sys; [print(f'applied {name}: 3 ms') for name in sys.argv[1:]]", *names]
    settings = Settings.model_validate({"ddl": {"order": listing}})
    assert packs.in_order(names, Path(), settings) == names


def test_the_pack_is_what_is_committed_in_its_folder(work: Work) -> None:
    work.commit(
        {"ddl/99_off.sql.disabled": "x", "ddl/README.md": "x", "ddl/old/01_x.sql": "x", "ddl/02 b (1).sql": "x"}
    )
    work.write({"ddl/01_tables.sql": "not committed", "ddl/03_new.sql": "not committed"})
    pack = packs.pack_at(work.layer(), "HEAD", Settings())
    assert [file.path for file in pack] == ["ddl/00_schemas.sql", "ddl/01_tables.sql", "ddl/02 b (1).sql"]
    assert pack[1].content == b"create table if not exists app.things (name text);\n"


def test_dev_gets_the_files_as_they_lie_here_the_others_what_is_committed(work: Work) -> None:
    work.write({"ddl/01_tables.sql": "select 1"})
    assert ddl.pack_for("dev", work.root, Settings())[1].content == b"select 1"
    assert ddl.pack_for("staging", work.root, Settings())[1].content.startswith(b"create table")


def test_what_an_editor_or_macos_leaves_is_no_file_of_the_pack(work: Work) -> None:
    """Emacs locks a file by a link that leads nowhere; another one begins with what macOS knows of it."""
    (work.root / "ddl" / ".#00_schemas.sql").symlink_to("someone@host.4711")
    (work.root / "ddl" / "a folder.sql").mkdir()
    work.commit({"ddl/._00_schemas.sql": "\0"})
    for found in (packs.pack_in(work.root, Settings()), packs.pack_at(work.layer(), "HEAD", Settings())):
        assert [file.name for file in found] == ["00_schemas.sql", "01_tables.sql"]


def test_a_link_of_the_pack_that_leads_nowhere_is_named(work: Work) -> None:
    """Dev went on without it, and staging got the text of the link as SQL."""
    (work.root / "ddl" / "02_more.sql").symlink_to("../shared/02_more.sql")
    with pytest.raises(FileNotFoundError, match=r"02_more\.sql"):
        packs.pack_in(work.root, Settings())


def test_line_ends_that_git_has_changed_here_are_no_change_of_the_pack(work: Work) -> None:
    """With core.autocrlf, as Git for Windows sets it, section 2 applied other bytes to dev than it then looked for."""
    work.git("config", "core.autocrlf", "true")
    (work.root / "ddl" / "01_tables.sql").unlink()
    work.git("checkout", "--", "ddl")
    assert b"\r\n" in (work.root / "ddl" / "01_tables.sql").read_bytes()
    committed = packs.pack_at(work.layer(), "HEAD", Settings())
    assert packs.pack_in(work.root, Settings()) == committed
    work.write({"ddl/01_tables.sql": "select 1;\r\n"})
    assert packs.pack_in(work.root, Settings())[1].content == b"select 1;\r\n", "it is another file"


def locked(work: Work, tag: str, *paths: str) -> None:
    lock = f"# {tag}: the DDL pack in the order in which it is applied\n"
    work.commit({"ddl/ORDER.lock": lock + checksum_lines(dict.fromkeys(paths, "0" * 64)).decode()})


def test_a_released_pack_has_the_order_it_was_locked_in_whatever_the_rule_is_now(work: Work) -> None:
    locked(work, "v0.1.0", "ddl/01_tables.sql", "ddl/00_schemas.sql")
    before = [file.name for file in packs.pack_at(work.layer(), "HEAD", Settings())]
    work.git("tag", "--annotate", "v0.1.0", "--message", "x")
    released = [file.name for file in packs.pack_at(work.layer(), "refs/tags/v0.1.0", listing("nothing"))]
    work.commit({}, "After it")
    after = [file.name for file in packs.pack_at(work.layer(), "HEAD", Settings())]
    assert (before, released) == (["00_schemas.sql", "01_tables.sql"], ["01_tables.sql", "00_schemas.sql"])
    assert after == before, "the next release is ordered as the settings say, not as the last one was"


def test_a_lock_that_is_not_of_these_files_orders_nothing(work: Work) -> None:
    locked(work, "v0.1.0", "ddl/01_tables.sql")
    work.git("tag", "v0.1.0")
    pack = packs.pack_at(work.layer(), "refs/tags/v0.1.0", Settings())
    assert [file.name for file in pack] == ["00_schemas.sql", "01_tables.sql"]


# What a file says of itself


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("select 1;", True),
        ("-- release: no-transaction\ncreate index concurrently i on t (n);", False),
        ("\ufeff-- Release:no-transaction, for it is big\r\nselect 1;", False),
        ("-- the marker release: no-transaction is not for this one\nselect 1;", True),
        ("select '-- release: no-transaction';", True),
        ("-- release: no-transactions-please\nselect 1;", True),
        ("begin;\nselect 1;\ncommit;", False),
        ("select 1;\n  START  TRANSACTION isolation level serializable;\n\nEND work;", False),
        ("do $$\nbegin\n  perform 1;\nend $$; create function f() returns int begin atomic select 1; end;", True),
        ("-- begin;\nselect 1;", True),
        ("begin work;\nselect 1;\ncommit;", False),
        ("\ufeffBEGIN;\nselect 1;\nCOMMIT;", False),
        ("begin isolation level serializable, read only;\nselect 1;\ncommit;", False),
        *(
            (f"do $$ declare {name} int;\nbegin\n  {name} := 1;\nend $$;", True)
            for name in ("work", "work_item", "reading")
        ),
        ("create procedure p() language plpgsql as $$ begin commit; end $$;", True),
    ],
)
def test_a_file_is_one_transaction_unless_it_says_otherwise_or_has_its_own(text: str, whole: bool) -> None:
    assert DdlFile("ddl/0.sql", text.encode()).in_transaction is whole


@pytest.mark.parametrize(
    ("pack", "expected"),
    [
        ([], ["No *.sql file is committed in ddl"]),
        (pack_of(**{"00_a": " \n", "V1__a": "select 1", "migration-1-0001": "select 1"}), []),
        (pack_of(**{"00_a": "select 1"}), []),
    ],
)
def test_names_need_no_number_and_an_empty_file_is_no_problem(pack: list[DdlFile], expected: list[str]) -> None:
    """D8"""
    problems = packs.pack_problems(pack, Ddl())
    assert len(problems) == len(expected)
    assert all(problem.what.startswith(start) for problem, start in zip(problems, expected, strict=True))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"select 1;\n-- Gr\xf6\xdfe\n", "is not UTF-8 text: found the byte 0xf6 in line 2."),
        ("select 1;".encode("utf-16"), "is not UTF-8 text: found the byte 0xff in line 1."),
        ("select 1;".encode("utf-16-le"), "is not UTF-8 text: found the byte 0x00 in line 1."),
        ("\ufeffselect 'Größe 😀';".encode(), ""),
    ],
)
def test_a_file_that_is_no_utf_8_is_known_before_it_is_applied(content: bytes, expected: str) -> None:
    problems = packs.pack_problems([DdlFile("ddl/00_a.sql", content)], Ddl())
    assert [problem.what for problem in problems] == ([f"ddl/00_a.sql {expected}"] if expected else [])


# The order lock


def changed(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Return the changes between two packs, given as path → content."""
    return packs.changes(*([DdlFile(path, text.encode()) for path, text in each.items()] for each in (old, new)))


@given(PATHS)
def test_a_lock_is_of_one_release_and_says_the_pack_s_order(paths: list[str]) -> None:
    lock = packs.lock_of([DdlFile(path, path.encode()) for path in paths], "v0.1.1")
    assert [line.partition("  ")[2] for line in lock.decode().splitlines()[1:]] == paths
    assert packs.tag_of(lock.decode()) == "v0.1.1" and packs.tag_of("") == ""


def test_sha256sum_verifies_the_lock_from_the_root(work: Work) -> None:
    work.commit({"ddl/02 b (1).sql": "select 1;\n"})
    settings = Settings()
    lock = packs.lock_of(packs.pack_at(work.layer(), "HEAD", settings), "v0.1.1")
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
        ({"a": "1", "B": "2", "c": "3"}, ["removed b", "added B"]),
        ({"a": "1", "b": "x", "c": "3"}, ["changed b"]),
        ({"b": "2", "c": "3", "a": "1"}, ["reordered"]),
        ({"a": "1", "c": "3", "b": "2", "d": "2"}, ["added d", "reordered"]),
        ({"a": "1", "c": "3", "z": "2"}, ["removed b", "added z"]),
        ({"c": "x", "a": "1", "d": "4"}, ["removed b", "added d", "changed c", "reordered"]),
        ({}, ["removed a", "removed b", "removed c"]),
    ],
)
def test_what_happened_to_each_file_is_told(new: dict[str, str], told: list[str]) -> None:
    assert changed({"a": "1", "b": "2", "c": "3"}, new) == told


@given(HASHES, HASHES)
def test_every_change_is_told(old: dict[str, str], new: dict[str, str]) -> None:
    found = changed(old, new)
    assert (found == []) == (list(old.items()) == list(new.items()))
    told = {tuple(change.split()) for change in found} - {("reordered",)}
    assert told == {
        *(("removed", path) for path in old.keys() - new.keys()),
        *(("added", path) for path in new.keys() - old.keys()),
        *(("changed", path) for path in old.keys() & new.keys() if old[path] != new[path]),
    }


# What we committed


def commit_of_ours(work: Work, body: str = "", **files: str) -> str:
    """Commit `files` of the pack, then a lock of them as section 3 does; return the commit."""
    work.commit({f"ddl/{name}.sql": text for name, text in files.items()})
    lock = packs.lock_of(packs.pack_at(work.layer(), "HEAD", Settings()), "v0.1.1")
    return work.commit({"ddl/ORDER.lock": lock.decode()}, f"Lock it\n\n{body}\n\nRelease-Step: v0.1.1 freeze")


def test_the_newest_lock_of_ours_is_found_in_the_history(work: Work) -> None:
    assert packs.last_locked(work.layer(), "HEAD", "v0.1.1", Settings()) is None
    commit_of_ours(work)
    newest = commit_of_ours(work, **{"02_b": "select 1;"})
    work.commit({"ddl/ORDER.lock": "# v0.1.1: by hand\n"}, "Mend the lock")
    work.commit({"ddl/02_b.sql": "select 2;"}, "Lock it\n\nRelease-Step: v0.1.10 freeze")
    work.commit({}, "Lock it\n\nRelease-Step: v0x1.1 freeze")
    work.commit({}, "Lock it\n\nRelease-Step: v0.1.1 notes")
    found = packs.last_locked(work.layer(), "HEAD", "v0.1.1", Settings())
    assert found and found[0] == newest
    assert [file.path for file in found[1]] == ["ddl/00_schemas.sql", "ddl/01_tables.sql", "ddl/02_b.sql"]
    assert found[1][-1].content == b"select 1;"


@pytest.mark.parametrize("lock", ["# v0.1.1: x\n", "# v0.1.1: \xff\n", "# v0.1.0: x\n", "", "# v0.1.1:\nno line\n"])
def test_a_lock_that_does_not_fit_its_pack_is_not_ours_whatever_the_message(work: Work, lock: str) -> None:
    ours = commit_of_ours(work)
    (work.root / "ddl" / "ORDER.lock").write_bytes(lock.encode("latin-1"))
    work.commit({}, "Lock it\n\nRelease-Step: v0.1.1 freeze")
    found = packs.last_locked(work.layer(), "HEAD", "v0.1.1", Settings())
    assert found and found[0] == ours


def test_fixes_and_shifts_are_read_back_from_the_messages_oldest_first(work: Work) -> None:
    commit_of_ours(work)
    commit_of_ours(work, "a fix:\nadded ddl/02_b.sql\nremoved ddl/0.sql", **{"02_b": "1"})
    commit_of_ours(work, "a shift:\ntable b is new\n", **{"02_b": "2"})
    work.commit({}, "Lock it\n\na fix:\nof another release\n\nRelease-Step: v0.1.10 freeze")
    work.commit({}, 'Revert "Lock it"\n\na fix:\nof nobody')
    assert list(packs.recorded(work.layer(), "HEAD", "v0.1.1")) == [
        "a fix: added ddl/02_b.sql; removed ddl/0.sql",
        "a shift: table b is new",
    ]


def test_what_lies_in_a_submodule_is_read_as_it_lies_there(work: Work) -> None:
    """Git tells of the submodule, not of its files: what was committed there was taken for what lay there."""
    settings = Settings.model_validate({"ddl": {"folder": "db/ddl"}})
    database = work.add_submodule("db", {"ddl/00_a.sql": "select 1;\r\n"})
    assert packs.pack_in(work.root, settings)[0].content == b"select 1;\r\n"
    database.write({"ddl/00_a.sql": "select 2;\r\n"})
    assert packs.pack_in(work.root, settings)[0].content == b"select 2;\r\n"


def test_a_pack_needs_no_git_to_be_read(tmp_path: Path) -> None:
    (tmp_path / "ddl").mkdir()
    (tmp_path / "ddl" / "00_a.sql").write_bytes(b"select 1;\n")
    assert packs.pack_in(tmp_path, Settings())[0].content == b"select 1;\n"
