"""The ledger: what was applied to a database, with what content, by whom and by what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from release_tasks.errors import Refused
from release_tasks.schema import ledger, runner
from release_tasks.schema.ddl import DdlFile
from release_tasks.settings import Ddl

A, B, C = (DdlFile(f"ddl/0{number}.sql", f"select {number};".encode()) for number in range(3))


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def entered(connection: psycopg.Connection, *files: DdlFile, version: str = "0.1.1") -> None:
    """Enter that `files` were applied in one run."""
    ledger.begin(connection, files, Ddl())
    for file in files:
        ledger.enter(connection, file, Ddl(), version, 1.5, "psycopg")


def unapplied(connection: psycopg.Connection, *files: DdlFile) -> list[DdlFile]:
    return ledger.unapplied(connection, files, Ddl())


def rows(connection: psycopg.Connection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query).fetchall()


def test_it_tells_what_is_not_applied_with_its_present_content(connection: psycopg.Connection) -> None:
    changed = DdlFile(B.path, b"changed")
    assert unapplied(connection, A, B) == [A, B]
    entered(connection, A, B)
    assert unapplied(connection, A, B) == []
    assert unapplied(connection, A, changed, C) == [changed, C]
    entered(connection, A, changed, C)
    assert unapplied(connection, A, changed, C) == []


def test_a_row_tells_file_content_version_time_duration_by_whom_and_by_what(connection: psycopg.Connection) -> None:
    entered(connection, A, version="0.1.0")
    entered(connection, A, version="0.1.1")
    found = "select file, sha256, version, duration::text, by, runner from ops.ddl_ledger"
    assert rows(connection, found) == [(A.path, A.sha256, "0.1.1", "00:00:01.5", "postgres", "psycopg")]
    assert rows(connection, "select now() - applied_at < interval '1 min' from ops.ddl_ledger") == [(True,)]


def test_from_the_begin_of_a_run_the_whole_pack_counts_as_unapplied(connection: psycopg.Connection) -> None:
    entered(connection, A, B)
    ledger.begin(connection, [A, B, C], Ddl())
    assert unapplied(connection, A, B, C) == [A, B, C]
    ledger.enter(connection, A, Ddl(), "0.1.1", 0.1, "psycopg")
    assert unapplied(connection, A, B, C) == [B, C]


def test_a_ledger_of_the_first_versions_is_read_and_brought_up_to_date(connection: psycopg.Connection) -> None:
    connection.execute(
        "create schema ops; create table ops.ddl_ledger (file text primary key, sha256 text not null,"
        " version text not null, applied_at timestamptz not null default now(), applied_by text not null default user)"
    )
    old = "insert into ops.ddl_ledger (file, sha256, version) values (%s, %s, '0.1.0')"
    connection.execute(old, [A.path, A.sha256])
    assert unapplied(connection, A, B) == [B]
    entered(connection, A, B)
    assert unapplied(connection, A, B) == []
    assert rows(connection, "select distinct version, runner from ops.ddl_ledger") == [("0.1.1", "psycopg")]


def test_another_table_of_that_name_is_told_and_left_as_it_is(connection: psycopg.Connection) -> None:
    connection.execute("create schema ops; create table ops.ddl_ledger (version text)")
    told = r"^ops\.ddl_ledger is another table, no ledger: it has no column applied_at, file, sha256\.$"
    with pytest.raises(Refused, match=told):
        unapplied(connection, A)
    with pytest.raises(Refused, match=told):
        ledger.begin(connection, [A], Ddl())
    assert rows(
        connection, "select attname from pg_attribute where attrelid = 'ops.ddl_ledger'::regclass and attnum > 0"
    ) == [("version",)]


def test_it_needs_no_more_rights_than_to_read_and_write_it_once_it_is_made(connection: psycopg.Connection) -> None:
    entered(connection, A)
    connection.execute("drop role if exists ledger_writer; create role ledger_writer")
    connection.execute("grant usage on schema ops to ledger_writer; set role ledger_writer")
    with pytest.raises(Refused, match=r"may not read the ledger ops\.ddl_ledger: permission denied for table"):
        unapplied(connection, A)
    connection.execute("reset role")
    connection.execute("grant select, insert, update on ops.ddl_ledger to ledger_writer; set role ledger_writer")
    assert connection.execute("select has_database_privilege('app', 'create')").fetchone() == (False,)
    ledger.begin(connection, [A], Ddl())
    assert unapplied(connection, A) == [A]
    connection.execute("reset role; drop owned by ledger_writer; drop role ledger_writer")


@pytest.mark.parametrize("setting", ["set local role app_owner", "set role app_owner"])
def test_a_file_that_takes_another_role_is_entered_too(connection: psycopg.Connection, setting: str) -> None:
    connection.execute("drop role if exists app_owner; create role app_owner; grant all on schema public to app_owner")
    pack = [DdlFile("ddl/00_a.sql", f"{setting}; create table t ();".encode()), DdlFile("ddl/01_b.sql", b"table t;")]
    ledger.begin(connection, pack, Ddl())

    def enter(file: DdlFile, seconds: float) -> None:
        ledger.enter(connection, file, Ddl(), "0.1.1", seconds, "psycopg")

    list(runner.run(connection, pack, Ddl(), enter))
    connection.execute("reset role")
    assert unapplied(connection, *pack) == []
    assert rows(connection, "select tableowner from pg_tables where tablename = 't'") == [("app_owner",)]
    assert connection.execute("select distinct by from ops.ddl_ledger").fetchall() == [("postgres",)]
    connection.execute("drop owned by app_owner; drop role app_owner")
