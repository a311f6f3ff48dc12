"""A pack brought to a database: by psql or the application's runner, one release at a time, entered in the ledger."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from release_tasks.database import apply, programs, psql
from release_tasks.database.pack import DdlFile, pack_at
from release_tasks.database.server import Running
from release_tasks.environments import Environment
from release_tasks.errors import Refused
from release_tasks.settings import Ddl, Settings

if TYPE_CHECKING:
    from tests.conftest import Work

ROOT = Path(__file__).parents[2]
# In the middle of a file it waits for as long as the table `slow` is there.
FILES = {
    "ddl/00_schemas.sql": "create schema if not exists app;\n",
    "ddl/01_tables.sql": "create table if not exists app.things (name text);\n"
    "do $$ begin while exists (select from pg_class where relname = 'slow') loop"
    " perform pg_sleep(0.05); end loop; end $$;\n",
    "ddl/02_more.sql": "create table if not exists app.more (name text);\n",
}
RUNNER = """
import pathlib, psycopg
files = sorted(pathlib.Path("ddl").glob("*.sql"))
with psycopg.connect({dsn!r}, autocommit=True) as connection:
    for file in files:
        connection.execute(file.read_bytes())
        print("applied", file.name)
    {more}
print({count}, "files applied")
"""


@pytest.fixture
def environment(work: Work, dsn: str, server: Running) -> Callable[..., Environment]:
    """Return what makes the environment staging, its database being empty, given the settings of `ddl`."""
    work.commit(FILES)

    def environment(dsn: str = dsn, **settings: Any) -> Environment:
        made = Settings(ddl=Ddl(**settings))
        return Environment("staging", made, work.root, dsn, "http://127.0.0.1:1", work.root, server.log)

    return environment


@pytest.fixture
def bring(work: Work) -> Callable[[Environment], dict[str, list[str]]]:
    """Return what applies the committed pack to an environment."""

    def bring(environment: Environment) -> dict[str, list[str]]:
        return apply.apply(environment, pack(work), work.root, "0.1.1")

    return bring


@pytest.fixture
def outside(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def pack(work: Work) -> list[DdlFile]:
    return pack_at(work.layer(), "HEAD", Settings())


def command(dsn: str = "", count: str = "len(files)", more: str = "") -> dict[str, Any]:
    """Return the settings for an application's runner that applies what lies in ddl/ to `dsn`, or as PG* say."""
    code = RUNNER.format(dsn=dsn, count=count, more=more)
    return {"command": [sys.executable, "-c", code], "must_print": "(?m)^{count} files applied$"}


def unapplied(work: Work, connection: psycopg.Connection) -> list[str]:
    return [file.name for file in entered_not(connection, *pack(work))]


def tables(connection: psycopg.Connection) -> list[str]:
    query = "select tablename::text from pg_tables where schemaname = 'app' order by 1"
    return [name for (name,) in connection.execute(query)]


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.02)


def asleep(connection: psycopg.Connection) -> bool:
    query = "select exists (select from pg_stat_activity where wait_event = 'PgSleep')"
    return connection.execute(query).fetchone() == (True,)


def locks(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    return connection.execute("select pid from pg_locks where locktype = 'advisory'").fetchall()


# By psql


def test_a_pack_that_was_applied_is_in_the_ledger_file_by_file(
    work: Work, environment: Callable[..., Environment], bring: Callable[..., Any], outside: psycopg.Connection
) -> None:
    assert bring(environment()) == []
    query = "select file, sha256, version, applied_by, applied_at <= now() from ops.ddl_ledger"
    assert outside.execute(f"{query} order by 1").fetchall() == [
        (file.path, file.sha256, "0.1.1", "postgres", True) for file in pack(work)
    ]
    assert (unapplied(work, outside), locks(outside)) == ([], [])


def test_what_fails_in_the_middle_goes_on_with_the_same_call(
    work: Work, environment: Callable[..., Environment], bring: Callable[..., Any], outside: psycopg.Connection
) -> None:
    bring(environment())
    work.commit({"ddl/01_tables.sql": "create table app.half ();\nselect 1 / 0;\n"})
    with pytest.raises(Refused, match=r"^ddl/01_tables\.sql, line 2: division by zero"):
        bring(environment())
    assert unapplied(work, outside) == ["01_tables.sql", "02_more.sql"], (
        "also what was entered before is not at its end"
    )
    assert tables(outside) == ["more", "things"]
    work.commit(FILES)
    bring(environment())
    assert unapplied(work, outside) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("://postgres:", "://nobody:"), "password authentication failed for user"),
        (("/app", "/nowhere"), 'database "nowhere" does not exist'),
        (("127.0.0.1:", "127.0.0.1:1"), "(invalid port number|Connection refused|connection failed)"),
    ],
    ids=["wrong password", "no database", "no server"],
)
def test_a_database_that_cannot_be_reached_is_told_in_a_sentence(
    environment: Callable[..., Environment], bring: Callable[..., Any], dsn: str, change: tuple[str, str], told: str
) -> None:
    with pytest.raises(Refused, match=f"^The database of staging cannot be used: .*{told}"):
        bring(environment(dsn.replace(*change)))


def test_a_read_only_database_is_refused_before_anything_is_tried(
    environment: Callable[..., Environment], bring: Callable[..., Any], outside: psycopg.Connection
) -> None:
    outside.execute("alter database app set default_transaction_read_only = on")
    try:
        with pytest.raises(Refused, match=r"^The database of staging is read-only: a standby, or "):
            bring(environment())
    finally:
        outside.execute("alter database app reset default_transaction_read_only")
    assert outside.execute("select to_regclass('ops.ddl_ledger')").fetchone() == (None,)


def test_a_role_that_may_not_make_the_ledger_is_told_so(
    environment: Callable[..., Environment], bring: Callable[..., Any], outside: psycopg.Connection, dsn: str
) -> None:
    outside.execute("drop role if exists weak; create role weak login password 'weak'")
    weak = f"postgresql://weak:weak@{dsn.partition('@')[2]}"
    told = r"^The DDL pack was not applied to staging: permission denied for database app \(SQLSTATE 42501\)\.$"
    with pytest.raises(Refused, match=told):
        bring(environment(weak))
    outside.execute("drop role weak")


# One release at a time


@pytest.mark.parametrize("settings", [{}, command()], ids=["psql", "the application's runner"])
def test_the_second_of_two_is_refused_with_the_name_of_the_first(
    work: Work,
    environment: Callable[..., Environment],
    bring: Callable[..., Any],
    outside: psycopg.Connection,
    settings: dict[str, Any],
) -> None:
    outside.execute("create table slow ()")
    first = threading.Thread(target=lambda: bring(environment()), daemon=True)
    first.start()
    until(lambda: asleep(outside))
    with pytest.raises(Refused, match=r"another release applies DDL here: release by .*, role postgres, process"):
        bring(environment(**settings))
    outside.execute("drop table slow")
    first.join()
    assert unapplied(work, outside) == []


# By the application's runner


def test_what_the_application_s_runner_applied_is_seen_and_entered(
    work: Work, environment: Callable[..., Environment], bring: Callable[..., Any], outside: psycopg.Connection
) -> None:
    here = environment(**command())
    assert bring(here) == []
    query = "select file, sha256, version from ops.ddl_ledger order by 1"
    assert outside.execute(query).fetchall() == [(file.path, file.sha256, "0.1.1") for file in pack(work)]
    assert (unapplied(work, outside), locks(outside)) == ([], [])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (command(count="2"), "for 3 files, but: "),
        (command(count="0"), "for 3 files, but: "),
        (command(more="raise SystemExit('no more')"), "ended with exit code 1:"),
    ],
    ids=["a wrong count", "nothing", "a failure"],
)
def test_a_runner_that_did_not_do_it_all_leaves_the_whole_pack_unapplied(
    work: Work,
    environment: Callable[..., Environment],
    bring: Callable[..., Any],
    outside: psycopg.Connection,
    settings: dict[str, Any],
    told: str,
) -> None:
    bring(environment())
    with pytest.raises(Refused, match=told):
        bring(environment(**settings))
    assert unapplied(work, outside) == ["00_schemas.sql", "01_tables.sql", "02_more.sql"]


def test_a_runner_that_reached_another_database_is_told_what_is_missing_here(
    work: Work,
    environment: Callable[..., Environment],
    bring: Callable[..., Any],
    outside: psycopg.Connection,
    server: Running,
) -> None:
    outside.execute("drop database if exists elsewhere")
    outside.execute("create database elsewhere")
    with pytest.raises(Refused) as refused:
        bring(environment(**command(server.dsn("elsewhere"))))
    (problem,) = refused.value.problems
    told = "schema app, table app.more, table app.things"
    assert problem.what.endswith(f" ended as if it had applied 3 files, but of what they make staging lacks 3: {told}.")
    assert unapplied(work, outside) == ["00_schemas.sql", "01_tables.sql", "02_more.sql"]
    outside.execute("drop database elsewhere with (force)")


def test_a_connection_that_is_lost_beside_the_runner_is_told_in_a_sentence(
    work: Work, environment: Callable[..., Environment], bring: Callable[..., Any], outside: psycopg.Connection
) -> None:
    kill = "connection.execute(\"select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'\")"
    with pytest.raises(Refused, match=r"staging refuses: terminating connection due to administrator command"):
        bring(environment(**command(more=kill)))
    assert unapplied(work, outside) == ["00_schemas.sql", "01_tables.sql", "02_more.sql"]


# The ledger

A, B, C = (DdlFile(f"ddl/{name}.sql", name.encode()) for name in ("00_a", "01_b", "02_c"))


def entered_not(connection: psycopg.Connection, *files: DdlFile) -> list[DdlFile]:
    class Connected(Environment):
        def connect(self) -> AbstractContextManager[psycopg.Connection]:
            return nullcontext(connection)

    return apply.unapplied(Connected("staging", Settings(), Path(), "", "", Path(), None), files)


def rows(connection: psycopg.Connection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode()).fetchall()


def test_a_ledger_of_the_first_versions_is_read_and_written(outside: psycopg.Connection) -> None:
    outside.execute(
        "create schema ops; create table ops.ddl_ledger (file text primary key, sha256 text not null,"
        " version text not null, applied_at timestamptz not null default now(), applied_by text not null default user)"
    )
    old = "insert into ops.ddl_ledger (file, sha256, version) values (%s, %s, '0.1.0')"
    outside.execute(old, [A.path, A.sha256])
    assert entered_not(outside, A, B) == [B]
    outside.execute((psql.ledger([A, B], Ddl()) + psql.entries([A, B], Ddl(), "0.1.1")).encode())
    assert entered_not(outside, A, B) == []
    assert rows(outside, "select distinct version, applied_by from ops.ddl_ledger") == [("0.1.1", "postgres")]


@pytest.mark.parametrize("columns", ["version text", "file text, sha256 text"])
def test_another_table_of_that_name_is_refused_and_left_as_it_is(outside: psycopg.Connection, columns: str) -> None:
    """Also where it has only the columns that are looked up: else the first file would be blamed for the rest."""
    outside.execute(f"create schema ops; create table ops.ddl_ledger ({columns})")
    told = r'^The database of staging refuses: column "\w+" does not exist$'
    with pytest.raises(Refused, match=told), programs.as_refusals("staging"):
        entered_not(outside, A)
    query = "select attname || ' text' from pg_attribute where attrelid = 'ops.ddl_ledger'::regclass and attnum > 0"
    assert ", ".join(name for (name,) in rows(outside, query)) == columns


def test_it_needs_no_more_rights_than_to_read_and_write_it_once_it_is_made(outside: psycopg.Connection) -> None:
    outside.execute((psql.ledger([A], Ddl()) + psql.entries([A], Ddl(), "0.1.1")).encode())
    outside.execute("drop role if exists ledger_writer; create role ledger_writer")
    outside.execute("grant usage on schema ops to ledger_writer; set role ledger_writer")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for table ddl_ledger"):
        entered_not(outside, A)
    outside.execute("reset role")
    outside.execute("grant select, insert, delete on ops.ddl_ledger to ledger_writer; set role ledger_writer")
    assert outside.execute("select has_database_privilege('app', 'create')").fetchone() == (False,)
    outside.execute(psql.ledger([A], Ddl()).encode())
    assert entered_not(outside, A) == [A]
    outside.execute("reset role; drop owned by ledger_writer; drop role ledger_writer")


# What the application's runner prints


@pytest.fixture
def by_command(dsn: str, tmp_path: Path) -> Callable[..., list[str]]:
    """Return what lets a runner that does `code` apply two files, and returns its warnings."""

    def by_command(code: str, must_print: str = "(?m)^{count} files applied$") -> list[str]:
        made = Settings(
            ddl=Ddl(command=[sys.executable, "-c", code], must_print=must_print, lock_timeout=1.5, timeout=60)
        )
        place = Environment("staging", made, tmp_path, dsn, "http://127.0.0.1:1", tmp_path, None)
        variables = {**place.variables("0.1.1"), "PGOPTIONS": psql.options(made.ddl)}
        return [str(each) for each in apply.run_command([A, B], made.ddl, tmp_path, variables)]

    return by_command


def test_a_runner_gets_the_database_the_version_and_the_timeouts(by_command: Callable[..., list[str]]) -> None:
    code = """
import os, psycopg
with psycopg.connect("") as connection:
    shown = [connection.execute(f"show {name}").fetchone()[0] for name in ("lock_timeout", "statement_timeout")]
print("WARNING", os.environ["APP_VERSION"], os.environ["PGDATABASE"], *shown)
print("2 files applied")
"""
    assert by_command(code) == ["WARNING: 0.1.1 app 1500ms 1min"]


@pytest.mark.parametrize("said", ["", "0 files applied", "1 files applied", "12 files applied", "applied a.sql (2 ms)"])
@pytest.mark.parametrize("must_print", ["(?m)^{count} files applied$", "{count} files applied"])
def test_a_runner_that_does_not_say_so_is_refused(
    by_command: Callable[..., list[str]], said: str, must_print: str
) -> None:
    with pytest.raises(Refused, match="for 2 files, but: "):
        by_command(f"print({said!r})", must_print=must_print)


def test_a_runner_without_a_word_to_say_is_no_runner() -> None:
    with pytest.raises(ValueError, match="a command needs must_print"):
        Ddl(command=["node", "run-ddls.mts"])


def test_a_runner_that_fails_is_refused_with_its_words(by_command: Callable[..., list[str]]) -> None:
    with pytest.raises(Refused, match=r"(?s)exit code 1:.*failed 01_b\.sql"):
        by_command("raise SystemExit('failed 01_b.sql')")


# From a shell


INVOKE = """
tasks: {{executor_class: release_tasks.engine.ReleaseExecutor}}
release:
  app: app
  environments:
    {name}: {{dsn: "{dsn}", origin: "http://127.0.0.1:1", folder: place, restart: ["true"], log: log}}
"""


@pytest.fixture
def inv(work: Work, dsn: str) -> Callable[..., subprocess.Popen[str]]:
    """Return what runs `inv ddl.apply …` on a checkout whose `--env` has an empty database of its own."""
    work.commit({**FILES, ".gitignore": "/tasks.py\n/release_tasks\n/invoke.yaml\n.release\n"})
    (work.root / "tasks.py").symlink_to(ROOT / "tasks.py")
    (work.root / "release_tasks").symlink_to(ROOT / "release_tasks")

    def inv(*words: str, where: str = "staging") -> subprocess.Popen[str]:
        shown = dsn.replace(dsn.split(":")[2].partition("@")[0], "${DB_PASSWORD}")
        (work.root / "invoke.yaml").write_text(INVOKE.format(name=where, dsn=shown))
        secret = {"DB_PASSWORD": dsn.split(":")[2].partition("@")[0]}
        argv = [sys.executable, "-m", "invoke", *words, "--env", where]
        return subprocess.Popen(
            argv,
            cwd=work.root,
            env={**os.environ, **secret, "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return inv


def said(process: subprocess.Popen[str], code: int = 0) -> str:
    output, _ = process.communicate()
    assert process.returncode == code, output
    assert "Traceback" not in output
    return output


def test_applying_an_unchanged_pack_is_a_look_unless_asked_again(
    work: Work, inv: Callable[..., Any], outside: psycopg.Connection
) -> None:
    work.commit({"ddl/03_said.sql": "do $$ begin raise notice 'by the way'; raise warning 'look here'; end $$;\n"})
    first = said(inv("ddl.apply"))
    lines = first.splitlines()
    assert lines[-1] == "Applied 4 files to staging."
    assert [line for line in lines if line.endswith(".sql")] == [file.path for file in pack(work)]
    assert lines[-2] == "ddl/03_said.sql: WARNING: look here"
    assert "by the way" not in first
    entered = outside.execute("select * from ops.ddl_ledger").fetchall()
    assert said(inv("ddl.apply")) == "The ledger of staging has all: 4 files. To apply again: --again\n"
    assert outside.execute("select * from ops.ddl_ledger").fetchall() == entered
    work.commit({"VERSION": "0.1.2-dev\n"})  # what makes nothing new is still that of 0.1.1-dev
    assert "Applied 4 files" in said(inv("ddl.apply", "--again"))
    assert outside.execute("select * from ops.ddl_ledger").fetchall() != entered
    assert outside.execute("select distinct version from ops.ddl_ledger").fetchall() == [("0.1.1-dev",)]


def test_a_dry_run_and_production_without_a_yes_change_nothing(
    inv: Callable[..., Any], outside: psycopg.Connection
) -> None:
    dry = said(inv("--dry", "ddl.apply"))
    assert dry.endswith("-- Would apply 3 files to staging; 3 new or changed.\n")
    assert "\nbegin; savepoint release_file;\n\\ir 'ddl/01_tables.sql'\n" in dry, "a script for psql, from the root"
    refused = said(inv("ddl.apply", where="production"), code=1)
    assert "Production lacks 3 of 3 files; this would take no backup first." in refused
    assert outside.execute("select to_regnamespace('app'), to_regnamespace('ops')").fetchone() == (None, None)
    assert "Applied 3 files to production" in said(inv("ddl.apply", "--yes", where="production"))
    assert tables(outside) == ["more", "things"]


def test_only_dev_gets_what_is_not_committed(work: Work, inv: Callable[..., Any], outside: psycopg.Connection) -> None:
    work.write({"ddl/02_more.sql": "select 1;\n", "ddl/03_new.sql": "create table app.new ();\n", "other": "x"})
    refused = said(inv("ddl.apply"), code=1)
    assert "staging gets what is committed; here this is not: ddl/02_more.sql, ddl/03_new.sql." in refused
    said(inv("ddl.apply", where="dev"))
    assert tables(outside) == ["new", "things"]


def test_an_older_pack_never_goes_over_a_later_one(
    work: Work, inv: Callable[..., Any], outside: psycopg.Connection
) -> None:
    """A clone that lagged behind took functions and views back, with a yes even in production."""
    work.commit({"VERSION": "0.1.2-dev\n"})
    said(inv("ddl.apply"))
    outside.execute("update ops.ddl_ledger set version = '0.1.2'")
    work.commit({"VERSION": "0.1.1\n", "ddl/02_more.sql": "select 1;\n"})
    refused = said(inv("ddl.apply"), code=1)
    assert "Staging has the DDL pack of 0.1.2; the one here is that of 0.1.1, an older one." in refused
    assert "git switch --detach v0.1.2" in refused
    outside.execute("update ops.ddl_ledger set version = '0.1.3-rc1'")
    work.commit({"VERSION": "0.1.3-dev\n"})
    assert "Applied 3 files" in said(inv("ddl.apply")), "it is on the way to 0.1.3, which comes after its candidate"


def test_an_empty_pack_is_no_success(work: Work, inv: Callable[..., Any]) -> None:
    work.git("rm", "--quiet", "ddl/*.sql")
    work.commit({})
    assert "No *.sql file is committed in ddl" in said(inv("ddl.apply"), code=1)


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGTERM, 130)]
)
def test_whoever_is_stopped_in_the_middle_leaves_nothing_half_and_the_same_command_finishes(
    work: Work, inv: Callable[..., Any], outside: psycopg.Connection, sent: signal.Signals, code: int
) -> None:
    outside.execute("create table slow ()")
    process = inv("ddl.apply")
    until(lambda: asleep(outside))
    process.send_signal(sent)
    output = said(process, code)
    assert sent == signal.SIGKILL or "the same command goes on from here" in output
    until(lambda: not locks(outside))  # while the file would still be waiting
    outside.execute("drop table slow")
    assert (tables(outside), unapplied(work, outside)) == ([], ["01_tables.sql", "02_more.sql"])
    assert "Applied 3 files to staging" in said(inv("ddl.apply"))
    assert (tables(outside), unapplied(work, outside)) == (["more", "things"], [])
    assert locks(outside) == []


def test_a_table_that_was_dropped_by_hand_is_missed_though_the_ledger_has_its_file(
    work: Work, inv: Callable[..., Any], outside: psycopg.Connection
) -> None:
    """D16"""
    said(inv("ddl.apply"))
    outside.execute("drop table app.more")
    refused = said(inv("ddl.apply"), code=1)
    assert "All files are in the ledger of staging, but table app.more is missing." in refused
    assert "inv ddl.apply --env staging --again" in refused
    said(inv("ddl.apply", "--again"))
    assert "The ledger of staging has all: 3 files" in said(inv("ddl.apply"))


def test_a_runner_changes_nothing_where_nothing_could_be_compared_with_what_it_made(
    work: Work,
    environment: Callable[..., Environment],
    bring: Callable[..., Any],
    outside: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It had run, and the ledger lacked the pack, before the scratch server was refused."""

    def refused(*_: object) -> dict[str, list[str]]:
        raise Refused("Another scratch server is under way.")

    monkeypatch.setattr(apply.proof, "made_by", refused)
    with pytest.raises(Refused, match="Another scratch server"):
        bring(environment(**command()))
    assert tables(outside) == []
