"""The DDL pack: its files, its order, and what a file says of itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_tasks.errors import Refused
from release_tasks.files import checksum_lines
from release_tasks.schema import ddl
from release_tasks.schema.ddl import DdlFile
from release_tasks.settings import Ddl, Settings

if TYPE_CHECKING:
    from tests.conftest import Work

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
    assert ddl.in_order(NAMES, tmp_path, Settings(ddl=Ddl(order=order))) == expected
    assert ddl.in_order(NAMES[::-1], tmp_path, Settings(ddl=Ddl(order=order))) == expected


def test_a_command_that_lists_the_files_says_their_order(tmp_path: Path) -> None:
    settings = listing(
        "to apply:", "1. ddl/9_y.sql (new)", "2. 02_B.sql", "3: 02_a.sql", "02-a.sql", "10_z.sql", "9_y.sql?"
    )
    assert ddl.in_order(NAMES, tmp_path, settings) == ["9_y.sql", "02_B.sql", "02_a.sql", "02-a.sql", "10_z.sql"]


def test_a_command_runs_where_the_application_is_with_its_node(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "list.mts").write_text("const name: string = '1_b.sql'; console.log(name, '1_a.sql')")
    settings = Settings(folder="app", ddl=Ddl(order=["node", "list.mts"]))
    assert ddl.in_order(["1_a.sql", "1_b.sql"], tmp_path, settings) == ["1_b.sql", "1_a.sql"]


def test_a_command_that_leaves_files_out_is_refused_with_all_of_them(tmp_path: Path) -> None:
    settings = listing("02_a.sql", "02_B.sql.disabled", "x9_y.sql", "2-02-a.sql")
    with pytest.raises(Refused, match=r"missing: 02-a\.sql, 02_B\.sql, 10_z\.sql, 9_y\.sql\.$"):
        ddl.in_order(NAMES, tmp_path, settings)


@given(st.lists(st.from_regex(r"[0-9]{1,2}[ _().a-z-]{0,6}\.sql", fullmatch=True), min_size=1, unique=True))
def test_names_are_found_as_they_are_listed_also_where_one_ends_another(names: list[str]) -> None:
    assert ddl.mention_of(sorted(names)).findall("\n".join(f"applied {name}: 3 ms" for name in names)) == names


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ("bytes", ["in the order set (bytes) 02-a.sql comes before 02_a.sql, by javascript after it"]),
        ("javascript", ["in the order set (javascript) 02_a.sql comes before 02-a.sql, by bytes after it"]),
    ],
)
def test_where_two_rules_would_differ_is_told_with_the_files(tmp_path: Path, order: Any, told: list[str]) -> None:
    settings = Settings(ddl=Ddl(order=order), install=["pnpm", "install"])
    assert ddl.order_disagreements(NAMES, tmp_path, settings) == told
    assert ddl.order_disagreements(["00_a.sql", "01_b.sql"], tmp_path, settings) == []


def test_without_node_only_bytes_and_a_command_can_differ(tmp_path: Path) -> None:
    assert ddl.order_disagreements(NAMES, tmp_path, Settings()) == []
    (told,) = ddl.order_disagreements(["1.sql", "2.sql", "3.sql"], tmp_path, listing("1.sql", "3.sql", "2.sql"))
    assert told.endswith("3.sql comes before 2.sql, by bytes after it")


def test_the_pack_is_what_is_committed_in_its_folder(work: Work) -> None:
    work.commit(
        {"ddl/99_off.sql.disabled": "x", "ddl/README.md": "x", "ddl/old/01_x.sql": "x", "ddl/02 b (1).sql": "x"}
    )
    work.write({"ddl/01_tables.sql": "not committed", "ddl/03_new.sql": "not committed"})
    pack = ddl.pack_at(work.layer(), "HEAD", Settings())
    assert [file.path for file in pack] == ["ddl/00_schemas.sql", "ddl/01_tables.sql", "ddl/02 b (1).sql"]
    assert pack[1].content == b"create table if not exists app.things (name text);\n"


def test_dev_gets_the_files_as_they_lie_here_the_others_what_is_committed(work: Work) -> None:
    work.write({"ddl/01_tables.sql": "select 1"})
    assert ddl.pack_for("dev", work.root, Settings())[1].content == b"select 1"
    assert ddl.pack_for("staging", work.root, Settings())[1].content.startswith(b"create table")


def locked(work: Work, tag: str, *paths: str) -> None:
    lock = f"# {tag}: the DDL pack in the order in which it is applied\n"
    work.commit({"ddl/ORDER.lock": lock + checksum_lines(dict.fromkeys(paths, "0" * 64)).decode()})


def test_a_released_pack_has_the_order_it_was_locked_in_whatever_the_rule_is_now(work: Work) -> None:
    locked(work, "v0.1.0", "ddl/01_tables.sql", "ddl/00_schemas.sql")
    before = [file.name for file in ddl.pack_at(work.layer(), "HEAD", Settings())]
    work.git("tag", "--annotate", "v0.1.0", "--message", "x")
    released = [file.name for file in ddl.pack_at(work.layer(), "refs/tags/v0.1.0", listing("nothing"))]
    work.commit({}, "After it")
    after = [file.name for file in ddl.pack_at(work.layer(), "HEAD", Settings())]
    assert (before, released) == (["00_schemas.sql", "01_tables.sql"], ["01_tables.sql", "00_schemas.sql"])
    assert after == before, "the next release is ordered as the settings say, not as the last one was"


def test_a_lock_that_is_not_of_these_files_orders_nothing(work: Work) -> None:
    locked(work, "v0.1.0", "ddl/01_tables.sql")
    work.git("tag", "v0.1.0")
    pack = ddl.pack_at(work.layer(), "refs/tags/v0.1.0", Settings())
    assert [file.name for file in pack] == ["00_schemas.sql", "01_tables.sql"]


# What a file says of itself


@pytest.mark.parametrize(
    ("text", "alone"),
    [
        ("-- release: no-transaction\ncreate index concurrently i on t (n);", True),
        ("\ufeff-- Release:no-transaction, for it is big\r\nselect 1;", True),
        ("-- the marker release: no-transaction is not for this one\nselect 1;", False),
        ("select '-- release: no-transaction';", False),
        ("-- release: no-transactions-please\nselect 1;", False),
    ],
)
def test_a_comment_on_a_line_of_its_own_says_that_a_file_wants_no_transaction(text: str, alone: bool) -> None:
    assert DdlFile("ddl/0.sql", text.encode()).wants_no_transaction is alone


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("begin;\nselect 1;\ncommit;", [1, 3]),
        ("START  TRANSACTION isolation level serializable;\n\nEND work;", [1, 3]),
        ("/* x */ Begin /* y */ ; abort; prepare transaction 'x'; rollback and chain;", [1, 1, 1, 1]),
        ("savepoint a; rollback to a; rollback work to savepoint a; rollback transaction to a; release a;", []),
        ("do $$ begin commit; end $$; create function f() returns int begin atomic select 1; end; -- commit;", []),
        ("comment on table t is 'begin; commit;'; insert into begin values (1);", []),
    ],
)
def test_a_file_s_own_transaction_control_is_found_by_its_lines(text: str, lines: list[int]) -> None:
    file = DdlFile("ddl/0.sql", text.encode())
    assert [statement.line for statement in file.transaction_control] == lines
    assert file.holds_transactions is bool(lines)


@pytest.mark.parametrize(
    ("pack", "told"),
    [
        ([], ["No *.sql file is committed in ddl"]),
        (pack_of(**{"00_a": " \n"}), ["ddl/00_a.sql is empty"]),
        (pack_of(tables="select 1"), ["ddl/tables.sql has no number"]),
        (pack_of(**{"00_a": "", "b": ""}), ["ddl/00_a.sql is empty", "ddl/b.sql is empty", "ddl/b.sql has no number"]),
        (pack_of(**{"00_a": "select 1"}), []),
    ],
)
def test_what_is_wrong_with_a_pack_is_known_before_it_is_applied(pack: list[DdlFile], told: list[str]) -> None:
    problems = ddl.pack_problems(pack, Ddl())
    assert len(problems) == len(told)
    assert all(problem.what.startswith(start) for problem, start in zip(problems, told, strict=True))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"select 1;\n-- Gr\xf6\xdfe\n", "is not UTF-8 text: found the byte 0xf6 in line 2."),
        ("select 1;".encode("utf-16"), "is not UTF-8 text: found the byte 0xff in line 1."),
        ("select 1;".encode("utf-16-le"), "is not UTF-8 text: found the byte 0x00 in line 1."),
        ("\ufeffselect 'Größe 😀';".encode(), ""),
    ],
)
def test_a_file_that_is_no_utf_8_is_known_before_it_is_applied(content: bytes, told: str) -> None:
    problems = ddl.pack_problems([DdlFile("ddl/00_a.sql", content)], Ddl())
    assert [problem.what for problem in problems] == ([f"ddl/00_a.sql {told}"] if told else [])
