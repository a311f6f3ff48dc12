"""The DDL pack: its order, its lock, its way into a real PostgreSQL, and the ledger that says so."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_tasks import ddl
from release_tasks.ddl import DdlFile
from release_tasks.environments import Environment
from release_tasks.errors import Refused
from release_tasks.settings import Ddl, Settings

if TYPE_CHECKING:
    from tests.conftest import Work

NAMES = ["02_a.sql", "02-a.sql", "10_z.sql", "02_B.sql", "9_y.sql"]
PACKS = st.lists(st.from_regex(r"ddl/[0-9]{2}[ _()a-zA-Z-]{0,8}\.sql", fullmatch=True), unique=True).map(
    lambda paths: [DdlFile(path, path.encode()) for path in paths]
)


def pack_of(**files: str) -> list[DdlFile]:
    return [DdlFile(f"ddl/{name}.sql", text.encode()) for name, text in files.items()]


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> Callable[..., Environment]:
    """Return what makes an environment with an empty database, given the settings of `ddl`."""

    def environment(**settings: Any) -> Environment:
        made = Settings(ddl=Ddl(**settings))
        return Environment("staging", made, tmp_path, dsn, "http://127.0.0.1:1", tmp_path, None)

    return environment


def ask(environment: Environment, query: str) -> list[tuple[Any, ...]]:
    with environment.connect() as connection:
        return connection.execute(query).fetchall()


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


def test_the_pack_is_what_is_committed_in_its_folder(work: Work) -> None:
    work.commit(
        {"ddl/99_off.sql.disabled": "x", "ddl/README.md": "x", "ddl/old/01_x.sql": "x", "ddl/02 b (1).sql": "x"}
    )
    work.write({"ddl/01_tables.sql": "not committed", "ddl/03_new.sql": "not committed"})
    pack = ddl.pack_at(work.layer(), "HEAD", Settings())
    assert [file.path for file in pack] == ["ddl/00_schemas.sql", "ddl/01_tables.sql", "ddl/02 b (1).sql"]
    assert pack[1].content == b"create table if not exists app.things (name text);\n"


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


# Lock


def test_sha256sum_verifies_the_lock_from_the_root(work: Work) -> None:
    work.commit({"ddl/02 b (1).sql": "select 1;\n"})
    settings = Settings()
    lock = ddl.lock_of(ddl.pack_at(work.layer(), "HEAD", settings), "v0.1.1")
    work.write({settings.ddl.lock: lock.decode()})
    check = ["sha256sum", "--check", "--strict", "--quiet", settings.ddl.lock]
    assert subprocess.run(check, cwd=work.root, check=False).returncode == 0
    work.write({"ddl/02 b (1).sql": "select 2;\n"})
    assert subprocess.run(check, cwd=work.root, check=False, capture_output=True).returncode == 1


@given(PACKS)
def test_a_lock_fits_the_pack_it_was_made_of(pack: list[DdlFile]) -> None:
    lock = ddl.lock_of(pack, "v0.1.1")
    assert ddl.shifts(lock, pack) == []
    assert ddl.locked_for(lock, "v0.1.1")
    assert not ddl.locked_for(lock, "v0.1.10") and not ddl.locked_for(lock, "v0.1")


A, B, C = pack_of(**{"00_a": "a", "01_b": "b", "02_c": "c"})


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([A, B, C], ["ddl/02_c.sql was added after the DDL order was locked."]),
        ([A], ["ddl/01_b.sql was removed after the DDL order was locked."]),
        (
            [A, C],
            [
                "ddl/02_c.sql was added after the DDL order was locked.",
                "ddl/01_b.sql was removed after the DDL order was locked.",
            ],
        ),
        ([B, A], ["The order of the DDL pack is not the locked one any more."]),
        ([A, DdlFile(B.path, b"a critical fix")], []),
    ],
    ids=["added", "removed", "renamed", "reordered", "changed"],
)
def test_structural_shifts_are_told_and_a_fix_in_a_file_is_none(found: list[DdlFile], told: list[str]) -> None:
    assert [shift.what for shift in ddl.shifts(ddl.lock_of([A, B], "v0.1.1"), found)] == told


# Into the database by psycopg


def test_a_pack_is_applied_in_order_and_its_notices_kept_with_their_files(
    environment: Callable[..., Environment], tmp_path: Path
) -> None:
    pack = pack_of(
        **{
            "00_a": "create table t (n int); do $$ begin raise notice 'made 100%%'; end $$;",
            "01_b": "do $$ begin raise warning 'a second'; end $$; insert into t select 1 where 'a%sb' like 'a\\%s_';",
            "02_c": "drop table if exists none;",
        }
    )
    notices = ddl.apply(environment(), pack, tmp_path, "0.1.1")
    assert notices == [
        "00_a.sql: NOTICE: made 100%",
        "01_b.sql: WARNING: a second",
        '02_c.sql: NOTICE: table "none" does not exist, skipping',
    ]
    assert ask(environment(), "select n from t") == [(1,)]


def test_a_failing_file_is_named_with_its_line_and_leaves_nothing_of_itself(
    environment: Callable[..., Environment], tmp_path: Path
) -> None:
    text = "-- Größe: 数 😀\ncreate table half ();\n\nselect *\n  from nowhere;\nselect 1;\n"
    pack = pack_of(**{"00_a": "create table whole ();", "01_b": text, "02_c": "create table later ();"})
    with pytest.raises(Refused) as refused:
        ddl.apply(environment(), pack, tmp_path, "0.1.1")
    (problem,) = refused.value.problems
    assert problem.what == 'ddl/01_b.sql, line 5: relation "nowhere" does not exist (SQLSTATE 42P01).'
    assert "ddl/01_b.sql" in problem.mend
    tables = ask(environment(), "select tablename from pg_tables where schemaname = 'public'")
    assert tables == [("whole",)]


def test_an_error_without_a_position_still_names_file_and_sqlstate(
    environment: Callable[..., Environment], tmp_path: Path
) -> None:
    pack = pack_of(**{"00_a": "do $$ begin raise exception 'not today' using errcode = 'P0042'; end $$"})
    with pytest.raises(Refused, match=r"^ddl/00_a\.sql: not today \(SQLSTATE P0042\)\.$"):
        ddl.apply(environment(), pack, tmp_path, "0.1.1")


@pytest.mark.parametrize("prefix", ["\ufeff", "\r\n"], ids=["byte order mark", "CRLF"])
def test_what_editors_put_before_the_first_statement_is_no_error(
    environment: Callable[..., Environment], tmp_path: Path, prefix: str
) -> None:
    ddl.apply(environment(), pack_of(**{"00_a": f"{prefix}create table t (n int);\r\n"}), tmp_path, "0.1.1")
    assert ask(environment(), "select count(*) from t") == [(0,)]


# Into the database by the application's own runner


@pytest.fixture
def runner(environment: Callable[..., Environment], tmp_path: Path) -> Callable[..., list[str]]:
    """Return what applies a pack of two files by a runner that does `code`, with the settings of `ddl`."""

    def runner(code: str, **settings: Any) -> list[str]:
        here = environment(command=[sys.executable, "-c", code], **settings)
        return ddl.apply(here, [A, B], tmp_path, "0.1.1")

    return runner


def test_a_runner_gets_the_database_and_has_to_say_how_many_files_it_applied(runner: Callable[..., list[str]]) -> None:
    code = "import os; print('NOTICE a.sql:', os.environ['APP_VERSION'], os.environ['PGDATABASE']); print('2 files')"
    assert runner(code, must_print="(?m)^{count} files$") == ["NOTICE a.sql: 0.1.1 app"]


@pytest.mark.parametrize("said", ["", "1 files applied", "12 files applied", "applied a.sql (2 ms)"])
def test_a_runner_that_does_not_say_so_is_refused(runner: Callable[..., list[str]], said: str) -> None:
    with pytest.raises(Refused, match="expected it to apply 2 files"):
        runner(f"print({said!r})", must_print=r"(?m)^{count} files applied$")


def test_a_runner_without_a_word_to_say_is_no_runner() -> None:
    with pytest.raises(ValueError, match="a command needs must_print"):
        Ddl(command=["node", "run-ddls.mts"])


def test_a_runner_that_fails_is_refused_with_its_words(runner: Callable[..., list[str]]) -> None:
    with pytest.raises(Refused, match=r"(?s)exit code 1:.*failed 01_b\.sql"):
        runner("raise SystemExit('failed 01_b.sql')", must_print="{count} files")


def test_a_runner_that_applied_the_files_in_another_order_is_refused(runner: Callable[..., list[str]]) -> None:
    def said(*names: str) -> str:
        return "; ".join(f"print('applied {name}')" for name in names) + "; print('2 files')"

    assert runner(said("00_a.sql", "01_b.sql"), must_print="2 files") == []
    with pytest.raises(Refused, match="another order than the locked one"):
        runner(said("01_b.sql", "00_a.sql"), must_print="2 files")


# Ledger


def test_a_second_release_is_kept_out_and_told_of_the_first(environment: Callable[..., Environment]) -> None:
    staging = environment()
    with staging.connect() as first, staging.connect() as second:
        ddl.keep_others_out(first, "staging")
        with pytest.raises(Refused, match=rf"applying DDL to staging: process {first.info.backend_pid}, since "):
            ddl.keep_others_out(second, "staging")
        first.close()
        assert until_free(second)


def until_free(connection: psycopg.Connection) -> bool:
    """Tell whether the lock can be had within five seconds: a closed connection's end takes a moment to arrive."""
    for _ in range(50):
        with contextlib.suppress(Refused):
            ddl.keep_others_out(connection, "staging")
            return True
        time.sleep(0.1)
    return False


def test_the_ledger_tells_what_is_not_applied_with_its_present_content(environment: Callable[..., Environment]) -> None:
    changed, settings = DdlFile(B.path, b"changed"), Ddl()
    with environment().connect() as connection:
        assert ddl.unapplied(connection, [A, B], settings) == [A, B]
        ddl.enter(connection, [A, B], settings, "0.1.0")
        assert ddl.unapplied(connection, [A, B], settings) == []
        assert ddl.unapplied(connection, [A, changed, C], settings) == [changed, C]
        ddl.enter(connection, [A, changed, C], settings, "0.1.1")
        assert ddl.unapplied(connection, [A, changed, C], settings) == []
    entered = "select file, version, applied_by from ops.ddl_ledger order by file"
    assert ask(environment(), entered) == [(file.path, "0.1.1", "postgres") for file in (A, B, C)]
