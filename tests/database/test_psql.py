"""Files brought into a real PostgreSQL by one psql: what it prints, and what becomes of a file that fails."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import conninfo

from release_tasks.database import apply, programs, psql
from release_tasks.database.pack import DdlFile
from release_tasks.database.server import Running
from release_tasks.environments import Environment
from release_tasks.errors import Problem, Refused
from release_tasks.settings import Ddl, Settings

if TYPE_CHECKING:
    pass

ROOT = Path(__file__).parents[2]
CONCURRENTLY = "-- release: no-transaction\ncreate index concurrently if not exists {name} on t (n);\n"
KILLED_APPLYING = """
import sys
from pathlib import Path
from release_tasks.database import apply
from release_tasks.database.pack import DdlFile
from release_tasks.environments import Environment
from release_tasks.settings import Settings
here = Environment("staging", Settings(), Path(), sys.argv[1], "", Path(), None)
apply.apply(here, [DdlFile("ddl/00_a.sql", sys.argv[2].encode())], Path(), "0.1.1")
"""


def pack_of(*texts: str) -> list[DdlFile]:
    return [DdlFile(f"ddl/{number:02}_{'abc'[number]}.sql", text.encode()) for number, text in enumerate(texts)]


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True, application_name="the release of a test") as connection:
        yield connection


@pytest.fixture
def other(connection: psycopg.Connection, server: Running) -> Iterator[psycopg.Connection]:
    """A second session, that of the application or of somebody with psql."""
    with psycopg.connect(server.dsn("app"), autocommit=True) as other:
        yield other


def staging(dsn: str, **settings: Any) -> Environment:
    return Environment("staging", Settings(ddl=Ddl(**settings)), Path(), dsn, "", Path(), None)


def applied(connection: psycopg.Connection, *texts: str, **settings: Any) -> list[str]:
    """Apply files of these texts, the settings of `ddl` being `settings`."""
    return apply.apply(staging(dsn_of(connection), **settings), pack_of(*texts), Path(), "0.1.1")


def dsn_of(connection: psycopg.Connection) -> str:
    return f"{connection.info.dsn} password={connection.info.password}"


def refusal(connection: psycopg.Connection, *texts: str, **settings: Any) -> Problem:
    """Apply files of these texts, which must be refused with one problem."""
    with pytest.raises(Refused) as refused:
        applied(connection, *texts, **settings)
    (problem,) = refused.value.problems
    return problem


def tables(connection: psycopg.Connection) -> list[str]:
    query = "select tablename::text from pg_tables where schemaname = 'public' order by 1"
    return [name for (name,) in connection.execute(query)]


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)


def waits_for(other: psycopg.Connection, table: str) -> bool:
    query = "select exists (select from pg_locks where not granted and relation = to_regclass(%s))"
    return other.execute(query, [table]).fetchone() == (True,)


def asleep(other: psycopg.Connection) -> int | None:
    """Return the process id of the session that sleeps in a file."""
    row = other.execute("select pid from pg_stat_activity where wait_event = 'PgSleep'").fetchone()
    return row[0] if row else None


# Files and what they say


def test_files_are_applied_in_order_and_their_warnings_kept(connection: psycopg.Connection) -> None:
    found = applied(
        connection,
        "create table t (n int); do $$ begin raise notice 'made 100%%'; end $$;",
        "do $$ begin raise warning 'a second'; end $$; insert into t select 1 where 'a%sb' like 'a\\%s_';",
        "drop table if exists none;",
    )
    assert found == ["ddl/01_b.sql: WARNING: a second"]
    assert connection.execute("select n from t").fetchall() == [(1,)]


def test_a_failing_file_is_named_with_its_line_and_leaves_nothing(connection: psycopg.Connection) -> None:
    text = "-- Größe: 数 😀\ncreate table half ();\n\nselect *\n  from nowhere; -- why\nselect 1;\n"
    problem = refusal(connection, "create table whole ();", text, "create table later ();")
    told = 'ddl/01_b.sql, line 5: relation "nowhere" does not exist (SQLSTATE 42P01).'
    assert (problem.what, problem.hint.split(";")[0]) == (told, "Fix ddl/01_b.sql")
    assert tables(connection) == ["whole"]


@pytest.mark.parametrize("before", ["", "\ufeff", "\ufeff\r\n", "-- 😀 äöü\r\n/* 😀\r\n*/ "])
@pytest.mark.parametrize(
    ("statement", "line", "told"),
    [
        ("create table t (\r\n);", 2, 'relation "t" already exists (SQLSTATE 42P07)'),
        ("insert into u\r\nvalues ('é'), ('é');", 2, "duplicate key value violates unique constraint"),
        ("do $$ begin\r\nraise exception 'nöt\n today' using errcode = 'P0042'; end $$", 3, "nöt today (SQLSTATE"),
        ("select 'é',\r\n  nothing;", 2, 'column "nothing" does not exist (SQLSTATE 42703)'),
        ("create table é (\r\n a int,,);", 2, 'syntax error at or near "," (SQLSTATE 42601)'),
    ],
    ids=["no position", "no position but a detail", "raised", "position", "syntax"],
)
def test_every_error_names_its_line(
    connection: psycopg.Connection, before: str, statement: str, line: int, told: str
) -> None:
    begin = f"{before}create table t (n int);\r\ncreate table u (é text unique);\r\n"
    problem = refusal(connection, begin + statement)
    assert problem.what.startswith(f"ddl/00_a.sql, line {begin.count(chr(10)) + line}: {told}")
    assert tables(connection) == []


def test_the_detail_that_postgresql_gives_is_told(connection: psycopg.Connection) -> None:
    text = "create table t (n int); create view v as select n from t; drop table t;"
    told = "cannot drop table t because other objects depend on it: view v depends on table t (SQLSTATE 2BP01)."
    assert told in refusal(connection, text).what


def test_a_password_in_a_statement_is_not_shown(connection: psycopg.Connection) -> None:
    text = "create role postgres login\npassword 'hunter2' superuser;"
    assert refusal(connection, text).what == 'ddl/00_a.sql, line 2: role "postgres" already exists (SQLSTATE 42710).'


def test_a_constraint_that_fails_at_the_end_is_the_file_s_failure(connection: psycopg.Connection) -> None:
    text = "create table t (n int unique deferrable initially deferred); insert into t values (1), (1);"
    assert refusal(connection, text).what.startswith("ddl/00_a.sql: duplicate key value violates unique constraint")
    assert tables(connection) == []


def test_text_comes_in_as_utf_8_whatever_the_database_holds(connection: psycopg.Connection) -> None:
    connection.execute("drop database if exists western")
    connection.execute("create database western template template0 encoding 'latin1' locale 'C'")
    dsn = f"{connection.info.dsn} password={connection.info.password} dbname=western"
    with psycopg.connect(dsn, autocommit=True) as western:
        applied(western, "create table t as select 'é' as e;")
        assert western.execute("select length(e), e = chr(233) from t").fetchall() == [(1, True)]


@pytest.mark.parametrize(
    "content", [b"select '\xe9';", b"create table t (); \0 select 1;", "select 1".encode("utf-16")]
)
def test_nothing_is_applied_of_a_pack_with_a_file_that_is_no_utf_8(
    connection: psycopg.Connection, content: bytes
) -> None:
    pack = [*pack_of("create table whole ();"), DdlFile("ddl/01_b.sql", content)]
    dsn = f"{connection.info.dsn} password={connection.info.password}"
    with pytest.raises(Refused, match=r"ddl/01_b\.sql is not UTF-8 text"):
        apply.apply(staging(dsn), pack, Path(), "0.1.1")
    assert tables(connection) == []


def test_what_psql_understands_may_be_in_a_file(connection: psycopg.Connection) -> None:
    applied(
        connection, "create table t (n int);\ncopy t from stdin;\n1\n2\n\\.\n\\set x 3\ninsert into t values (:x);\n"
    )
    assert connection.execute("select n from t").fetchall() == [(1,), (2,), (3,)]
    problem = refusal(connection, "create table half ();\n\\nonsense\n")
    assert problem.what == "ddl/00_a.sql, line 2: invalid command \\nonsense."
    assert tables(connection) == ["t"]


def test_an_error_in_a_file_that_another_one_includes_is_a_sentence(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    (tmp_path / "other.sql").write_text("do $$ begin raise notice 'here'; end $$;\nselect 1 / 0;\n")
    problem = refusal(connection, f"create table half ();\n\\i '{tmp_path}/other.sql'\n")
    assert problem.what == "ddl/00_a.sql: division by zero (SQLSTATE 22012)."
    assert tables(connection) == []


def test_comments_may_be_nested(connection: psycopg.Connection) -> None:
    applied(connection, "/* one /* two; */ select 1 / 0; */ create table t ();\n/* /* */ ; -- /*\n*/ */\n")
    assert tables(connection) == ["t"]
    problem = refusal(connection, "/* /* */\n*/ create table half ();\n/* /* */ select 1;")
    assert problem.what.startswith("ddl/00_a.sql") and "unterminated /* comment" in problem.what
    assert tables(connection) == ["t"]


def test_a_pack_of_1_500_files_is_applied_and_its_last_file_named_when_it_fails(connection: psycopg.Connection) -> None:
    pack = [DdlFile(f"ddl/{n:04}_t.sql", f"create table if not exists t_{n} (n int);\n".encode()) for n in range(1500)]
    here = staging(f"{connection.info.dsn} password={connection.info.password}")
    assert apply.apply(here, pack, Path(), "0.1.1") == []
    assert len(tables(connection)) == 1500
    assert connection.execute("select count(*) from ops.ddl_ledger").fetchone() == (1500,)
    with pytest.raises(Refused, match=r"^ddl/1499_t\.sql, line 2: division by zero"):
        apply.apply(here, [*pack[:-1], DdlFile("ddl/1499_t.sql", b"\nselect 1 / 0;")], Path(), "0.1.1")


def test_a_file_that_ends_our_transaction_is_refused_and_leaves_no_entry(connection: psycopg.Connection) -> None:
    problem = refusal(connection, "create table a ();", "create table b ();\ncommit;\ncreate table c ();")
    assert problem.what.startswith("ddl/01_b.sql: ") and "release: no-transaction into ddl/01_b.sql" in problem.hint
    assert connection.execute("select file from ops.ddl_ledger").fetchall() == [("ddl/00_a.sql",)]


def test_a_file_that_leaves_its_transaction_open_is_refused(connection: psycopg.Connection) -> None:
    problem = refusal(connection, "create table a ();", "begin;\ncreate table b ();\n")
    assert problem.what.startswith("ddl/01_b.sql leaves a transaction open")
    assert tables(connection) == ["a"]
    _, (proved,) = psql.run_each(dsn_of(connection), pack_of("begin; create table if not exists x ();"), Ddl())
    assert proved.what.startswith("ddl/00_a.sql leaves a transaction open")


def test_options_of_the_dsn_reach_psql(connection: psycopg.Connection) -> None:
    connection.execute("drop role if exists applier; create role applier; grant all on schema public to applier")
    connection.execute("grant create on database app to applier")
    try:
        dsn = f"{dsn_of(connection)} options='-c role=applier'"
        apply.apply(staging(dsn), pack_of("create table mine ();"), Path(), "0.1.1")
        owner = "select tableowner from pg_tables where tablename = 'mine'"
        assert connection.execute(owner).fetchone() == ("applier",)
    finally:
        connection.execute("drop owned by applier cascade; drop role applier")


def test_an_invalid_index_that_is_none_of_the_file_s_stays(connection: psycopg.Connection) -> None:
    connection.execute("create table t (n int); insert into t values (1), (1)")
    for name in ("theirs", "ours", "uniq", "our"):
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(f"create unique index concurrently {name} on t (n)")
    text = (
        '-- release: no-transaction\ncreate index concurrently if not exists Ours on t (n); select 1 as "T v Uniq";\n'
    )
    applied(connection, text)
    found = connection.execute(
        "select indexrelid::regclass::text, indisvalid from pg_index where indrelid = 't'::regclass"
    )
    assert sorted(found.fetchall()) == [("our", False), ("ours", True), ("theirs", False), ("uniq", False)]


def test_a_file_that_changes_how_psql_takes_errors_is_refused_all_the_same(connection: psycopg.Connection) -> None:
    problem = refusal(
        connection, "\\set ON_ERROR_STOP off\ncreate table half ();\nselect 1 / 0;\n", "create table b ();"
    )
    assert problem.what.startswith("ddl/00_a.sql, line 3: division by zero")
    assert tables(connection) == []


def test_a_file_that_lets_psql_say_less_hides_nothing_of_the_next(connection: psycopg.Connection) -> None:
    """Their warnings were lost, and a notice was taken for what made one fail."""
    warns = "do $$ begin raise warning 'look'; end $$;"
    assert applied(connection, "\\set VERBOSITY terse\nselect 1;", warns) == ["ddl/01_b.sql: WARNING: look"]


def test_each_file_begins_with_the_settings_of_the_session(connection: psycopg.Connection) -> None:
    """D3"""
    connection.execute("create table seen (at serial, lock text, statement text, role text, path text, temporary text)")
    look = """insert into public.seen (lock, statement, role, path, temporary) values (
      current_setting('lock_timeout'),
      current_setting('statement_timeout'), current_user, current_setting('search_path'), to_regclass('temporary'));"""
    spoil = """set lock_timeout = 0; set statement_timeout = 0; set role pg_monitor;
      create temporary table temporary ();
      select set_config('search_path', '', false);"""
    grants = "grant all on seen, seen_at_seq to pg_monitor; grant all on schema public to pg_monitor;"
    applied(
        connection, f"{grants} {look} {spoil}", f"set session authorization pg_monitor; {look}", look, lock_timeout=1.5
    )
    first, second, third = connection.execute("select lock, statement, role, path, temporary from seen order by at")
    assert first == third == ("1500ms", "10min", "postgres", '"$user", public', None)
    assert second == ("1500ms", "10min", "pg_monitor", '"$user", public', None)


def test_40_000_statements_are_applied_as_psql_applies_them(connection: psycopg.Connection) -> None:
    """D7"""
    insert = "insert into t values ({}, 'some text that makes the file as long as such files are');\n"
    text = "create table t (n int, text text);\n" + "".join(map(insert.format, range(40_000)))
    applied(connection, text)
    assert connection.execute("select count(*) from t").fetchone() == (40_000,)


# Files that are no single transaction


def test_a_file_with_its_own_transactions_is_applied_as_it_is_and_reported(connection: psycopg.Connection) -> None:
    text = "begin;\ncreate table a ();\ncommit;\nbegin;\ncreate table b ();\nselect 1 / 0;\ncommit;\ncreate table c ();"
    problem = refusal(connection, text)
    assert problem.what == "ddl/00_a.sql, line 6: division by zero (SQLSTATE 22012)."
    assert tables(connection) == ["a"]
    found = applied(connection, "begin; create table b (); commit; create table c ();")
    assert found == [], " it makes no WARNING in the server's log"
    assert tables(connection) == ["a", "b", "c"]


def test_a_transaction_that_a_file_leaves_open_is_taken_back(connection: psycopg.Connection) -> None:
    problem = refusal(connection, "begin; create table a (); commit; begin; create table b ();")
    assert problem.what.startswith("ddl/00_a.sql leaves a transaction open, or the database by \\connect")
    assert tables(connection) == ["a"]


def test_what_cannot_run_in_a_transaction_is_refused_with_the_marker_that_lets_it(
    connection: psycopg.Connection,
) -> None:
    connection.execute("create table t (n int)")
    problem = refusal(connection, "create index concurrently i on t (n);")
    assert "CREATE INDEX CONCURRENTLY cannot run inside a transaction block (SQLSTATE 25001)" in problem.what
    assert "-- release: no-transaction" in problem.hint
    applied(connection, CONCURRENTLY.format(name="i"))
    assert indexes(connection) == [("i", True)]


def indexes(connection: psycopg.Connection) -> list[tuple[str, bool]]:
    query = "select c.relname::text, indisvalid from pg_index join pg_class c on c.oid = indexrelid"
    return connection.execute(f"{query} where relnamespace = 'public'::regnamespace order by 1").fetchall()


@pytest.mark.parametrize("name", ["i", "Upper_Case", '"Quoted ""I"""'])
def test_a_concurrent_index_that_failed_is_made_anew(connection: psycopg.Connection, name: str) -> None:
    connection.execute("create table t (n int); insert into t values (1), (1)")
    text = CONCURRENTLY.format(name=name).replace("index", "unique index")
    problem = refusal(connection, text)
    assert "line 2: could not create unique index" in problem.what
    assert "Key (n)=(1) is duplicated (SQLSTATE 23505)" in problem.what
    assert [valid for _, valid in indexes(connection)] == [False]
    connection.execute("truncate t")
    applied(connection, text)
    assert [valid for _, valid in indexes(connection)] == [True]


@pytest.mark.parametrize("name", ["Upper_Case", '"Quoted ""I"""'])
def test_a_concurrent_index_whose_run_was_killed_is_made_anew(
    connection: psycopg.Connection, other: psycopg.Connection, dsn: str, name: str
) -> None:
    connection.execute("create table t (n int); create schema elsewhere; create table elsewhere.t (n int)")
    text = CONCURRENTLY.format(name=name)
    with other.transaction():
        other.execute("insert into t values (1)")  # the build waits for this transaction to end
        process = subprocess.Popen([sys.executable, "-c", KILLED_APPLYING, dsn, text], cwd=ROOT)
        until(lambda: indexes(connection))
        process.send_signal(signal.SIGKILL)
        process.wait()
        until(lambda: not builds(connection))
    assert [valid for _, valid in indexes(connection)] == [False]
    applied(connection, text)
    assert [valid for _, valid in indexes(connection)] == [True]


def builds(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    return connection.execute("select pid from pg_stat_progress_create_index").fetchall()


# Others who use the database


def test_a_file_waits_for_a_lock_and_is_tried_again(connection: psycopg.Connection, other: psycopg.Connection) -> None:
    connection.execute("create table t (n int)")
    other.execute("begin; lock table t")
    seen: list[bool] = []

    def end_once_it_was_refused() -> None:
        until(lambda: waits_for(other, "t"))
        until(lambda: not waits_for(other, "t"))
        seen.append(True)
        other.execute("commit")

    thread = threading.Thread(target=end_once_it_was_refused)
    thread.start()
    applied(connection, "create table s (); alter table t add column m int;", lock_timeout=1)
    thread.join()
    assert (seen, tables(connection)) == ([True], ["s", "t"])


def test_a_lock_that_is_never_given_is_told_after_the_last_try(
    connection: psycopg.Connection, other: psycopg.Connection, dsn: str
) -> None:
    connection.execute("create table t (n int)")
    with other.transaction():
        other.execute("lock table t")
        text = "create table s ();\nalter table t add column m int;"
        with pytest.raises(Refused) as refused:
            apply.apply(staging(dsn, lock_timeout=0.05), pack_of(text), Path(), "0.1.1")
        (problem,) = refused.value.problems
        holders = other.execute(shlex.split(problem.hint.partition("\n")[0])[-1]).fetchall()
    assert problem.what == "ddl/00_a.sql, line 2: canceling statement due to lock timeout (SQLSTATE 55P03)."
    assert other.info.backend_pid in {row[2] for row in holders}, "the hint shows who has it"
    assert tables(connection) == ["t"]


def test_a_file_without_a_transaction_is_not_tried_again_for_it_leaves_something_each_time(
    connection: psycopg.Connection, other: psycopg.Connection, dsn: str
) -> None:
    connection.execute("create table t (n int); create index i on t (n)")
    text = "-- release: no-transaction\nreindex index concurrently i;\n"
    with other.transaction():
        other.execute("set transaction isolation level repeatable read; insert into t values (1)")
        with pytest.raises(Refused, match="SQLSTATE 55P03"):
            apply.apply(staging(dsn, lock_timeout=0.2), pack_of(text), Path(), "0.1.1")
    assert [name for name, _ in indexes(connection)] == ["i", "i_ccnew"]


def test_a_limit_on_transactions_is_named_where_it_ends_the_session(every_server: Running) -> None:
    dsn = every_server.dsn("postgres")
    if programs.server_major(dsn) < 17:
        pytest.skip("transaction_timeout is of PostgreSQL 17")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("alter database postgres set transaction_timeout = '1s'")
        try:
            assert "transaction_timeout" in refusal(connection, "select pg_sleep(0.5); select pg_sleep(5);").hint
        finally:
            connection.execute("alter database postgres reset transaction_timeout")


def test_the_victim_of_a_deadlock_is_tried_again(connection: psycopg.Connection, other: psycopg.Connection) -> None:
    connection.execute("create table a (); create table b ()")
    other.execute("set deadlock_timeout = '100s'; begin; lock table b")

    def ask_for_the_other_one() -> None:
        until(lambda: waits_for(other, "b"))
        other.execute("lock table a")
        other.execute("commit")

    thread = threading.Thread(target=ask_for_the_other_one)
    thread.start()
    applied(connection, "lock table a; lock table b; create table c ();")
    thread.join()
    assert tables(connection) == ["a", "b", "c"]


def test_a_statement_that_takes_too_long_is_told_with_the_setting(connection: psycopg.Connection) -> None:
    problem = refusal(connection, "create table s ();\n\nselect pg_sleep(60);", timeout=2)
    assert problem.what == "ddl/00_a.sql, line 3: canceling statement due to statement timeout (SQLSTATE 57014)."
    assert problem.hint == "Run again; where it needs more than 2 s, set release.ddl.timeout."
    assert tables(connection) == []


@pytest.mark.parametrize("marker", ["", "-- release: no-transaction\n"])
def test_a_connection_that_is_killed_is_told_and_nothing_of_the_file_stays(
    connection: psycopg.Connection, other: psycopg.Connection, marker: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def kill() -> None:
        until(lambda: asleep(other))
        other.execute("select pg_terminate_backend(%s)", [asleep(other)])

    thread = threading.Thread(target=kill)
    thread.start()
    problem = refusal(connection, "create table whole ();", f"{marker}create table half (); select pg_sleep(60);")
    thread.join()
    told = "terminating connection due to administrator command (SQLSTATE 57P01)."
    assert problem.what == f"ddl/01_b.sql, line {2 if marker else 1}: {told}"
    assert problem.hint == "Run the same command again."
    assert tables(other) == (["half", "whole"] if marker else ["whole"])
    assert capfd.readouterr() == ("", "")


# What a server must be


def test_a_database_that_is_read_only_is_refused(connection: psycopg.Connection) -> None:
    assert apply.server_problems(connection, "staging") == []
    connection.execute("set default_transaction_read_only = on")
    (problem,) = apply.server_problems(connection, "staging")
    assert problem.what == "The database of staging is read-only: a standby, or default_transaction_read_only is on."


def test_paths_of_a_pack_and_of_a_dsn_begin_at_the_root(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """psql ran in a temporary folder, and found neither."""
    monkeypatch.chdir(tmp_path)
    about = conninfo.conninfo_to_dict(dsn)
    Path("pgpass").write_text(f"*:*:*:*:{about.pop('password')}\n")
    Path("pgpass").chmod(0o600)
    Path("rows.csv").write_text("1\n2\n")
    pack = pack_of("create table if not exists seeded (n int);\n\\copy seeded from 'rows.csv' csv\n")
    apply.apply(staging(conninfo.make_conninfo("", **about, passfile="pgpass")), pack, Path(), "0.1.1")
    with psycopg.connect(dsn) as connection:
        assert connection.execute("select count(*) from seeded").fetchone() == (2,)
