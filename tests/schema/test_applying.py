"""A pack brought to an environment: one release at a time, to its end or not at all, and entered in the ledger."""

from __future__ import annotations

import os
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

from release_tasks.database import postgres
from release_tasks.environments import Environment
from release_tasks.errors import Refused
from release_tasks.schema import applying, ddl, ledger, runner
from release_tasks.schema.sending import Applied
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
def environment(work: Work, dsn: str, server: postgres.Running) -> Callable[..., Environment]:
    """Return what makes the environment staging, its database being empty, given the settings of `ddl`."""
    work.commit(FILES)

    def environment(dsn: str = dsn, **settings: Any) -> Environment:
        made = Settings(ddl=Ddl(**settings))
        return Environment("staging", made, work.root, dsn, "http://127.0.0.1:1", work.root, server.log)

    return environment


@pytest.fixture
def apply(work: Work) -> Callable[[Environment], list[Applied]]:
    """Return what applies the committed pack to an environment."""

    def apply(environment: Environment) -> list[Applied]:
        return applying.apply(environment, pack(work), work.root, "0.1.1")

    return apply


@pytest.fixture
def outside(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def pack(work: Work) -> list[ddl.DdlFile]:
    return ddl.pack_at(work.layer(), "HEAD", Settings())


def command(dsn: str = "", count: str = "len(files)", more: str = "") -> dict[str, Any]:
    """Return the settings for an application's runner that applies what lies in ddl/ to `dsn`, or as PG* say."""
    code = RUNNER.format(dsn=dsn, count=count, more=more)
    return {"command": [sys.executable, "-c", code], "must_print": "(?m)^{count} files applied$"}


def unapplied(work: Work, connection: psycopg.Connection) -> list[str]:
    return [file.name for file in ledger.unapplied(connection, pack(work), Ddl())]


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


# By psycopg


def test_a_pack_that_was_applied_is_in_the_ledger_file_by_file(
    work: Work, environment: Callable[..., Environment], apply: Callable[..., Any], outside: psycopg.Connection
) -> None:
    applied = apply(environment())
    query = "select file, sha256, version, by, runner, duration > '0', applied_at <= now() from ops.ddl_ledger"
    assert [each.file for each in applied] == pack(work)
    assert outside.execute(f"{query} order by 1").fetchall() == [
        (file.path, file.sha256, "0.1.1", "postgres", "psycopg", True, True) for file in pack(work)
    ]
    assert (unapplied(work, outside), locks(outside)) == ([], [])


def test_what_fails_in_the_middle_goes_on_with_the_same_call(
    work: Work, environment: Callable[..., Environment], apply: Callable[..., Any], outside: psycopg.Connection
) -> None:
    apply(environment())
    work.commit({"ddl/01_tables.sql": "create table app.half ();\nselect 1 / 0;\n"})
    with pytest.raises(Refused, match=r"^ddl/01_tables\.sql, line 2: division by zero"):
        apply(environment())
    assert unapplied(work, outside) == ["01_tables.sql", "02_more.sql"], (
        "also what was entered before is not at its end"
    )
    assert tables(outside) == ["more", "things"]
    work.commit(FILES)
    apply(environment())
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
    environment: Callable[..., Environment], apply: Callable[..., Any], dsn: str, change: tuple[str, str], told: str
) -> None:
    with pytest.raises(Refused, match=f"^The database of staging cannot be used: .*{told}"):
        apply(environment(dsn.replace(*change)))


def test_a_read_only_database_is_refused_before_anything_is_tried(
    environment: Callable[..., Environment], apply: Callable[..., Any], outside: psycopg.Connection
) -> None:
    outside.execute("alter database app set default_transaction_read_only = on")
    try:
        with pytest.raises(Refused, match=r"^The database of staging is read-only; expected one that can be"):
            apply(environment())
    finally:
        outside.execute("alter database app reset default_transaction_read_only")
    with pytest.raises(Refused, match="the DDL pack needs 99 or newer"):
        apply(environment(min_server=99))
    assert outside.execute("select to_regclass('ops.ddl_ledger')").fetchone() == (None,)


def test_a_role_that_may_not_make_the_ledger_is_told_so(
    environment: Callable[..., Environment], apply: Callable[..., Any], outside: psycopg.Connection, dsn: str
) -> None:
    outside.execute("drop role if exists weak; create role weak login password 'weak'")
    weak = f"postgresql://weak:weak@{dsn.partition('@')[2]}"
    told = r"^The DDL pack was not applied to staging: permission denied for database app\.$"
    with pytest.raises(Refused, match=told):
        apply(environment(weak))
    outside.execute("drop role weak")


# One release at a time


def test_the_second_of_two_waits_and_finds_that_the_first_has_done_it(
    work: Work,
    environment: Callable[..., Environment],
    apply: Callable[..., Any],
    outside: psycopg.Connection,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outside.execute("create table slow ()")
    found: dict[str, list[Applied]] = {}
    threads = [
        threading.Thread(
            target=lambda name=name, wait=wait: found.update({name: apply(environment(lock_wait=wait))}), daemon=True
        )
        for name, wait in (("first", 0), ("second", 30))
    ]
    threads[0].start()
    until(lambda: asleep(outside))
    threads[1].start()
    until(lambda: "waiting up to 30 s for another release on staging: release by " in capsys.readouterr().out)
    with pytest.raises(Refused, match=r"Another release applies DDL to staging: release by .*; waited 0 s\."):
        apply(environment(lock_wait=0))
    outside.execute("drop table slow")
    for thread in threads:
        thread.join()
    assert {name: [each.file.name for each in applied] for name, applied in found.items()} == {
        "first": ["00_schemas.sql", "01_tables.sql", "02_more.sql"],
        "second": [],
    }
    assert unapplied(work, outside) == []


# By the application's runner


def test_what_the_application_s_runner_applied_is_seen_and_entered(
    work: Work, environment: Callable[..., Environment], apply: Callable[..., Any], outside: psycopg.Connection
) -> None:
    here = environment(**command())
    applied = apply(here)
    assert [(each.file.name, each.seconds) for each in applied] == [(file.name, None) for file in pack(work)]
    query = "select file, sha256, version, duration, runner from ops.ddl_ledger order by 1"
    assert outside.execute(query).fetchall() == [
        (file.path, file.sha256, "0.1.1", None, sys.executable) for file in pack(work)
    ]
    assert (unapplied(work, outside), locks(outside)) == ([], [])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (command(count="2"), "expected it to apply 3 files"),
        (command(count="0"), "expected it to apply 3 files"),
        (command(more="raise SystemExit('no more')"), "ended with exit code 1:"),
    ],
    ids=["a wrong count", "nothing", "a failure"],
)
def test_a_runner_that_did_not_do_it_all_leaves_the_whole_pack_unapplied(
    work: Work,
    environment: Callable[..., Environment],
    apply: Callable[..., Any],
    outside: psycopg.Connection,
    settings: dict[str, Any],
    told: str,
) -> None:
    apply(environment())
    with pytest.raises(Refused, match=told):
        apply(environment(**settings))
    assert unapplied(work, outside) == ["00_schemas.sql", "01_tables.sql", "02_more.sql"]


def test_a_runner_that_reached_another_database_is_told_what_is_missing_here(
    work: Work,
    environment: Callable[..., Environment],
    apply: Callable[..., Any],
    outside: psycopg.Connection,
    server: postgres.Running,
) -> None:
    outside.execute("drop database if exists elsewhere")
    outside.execute("create database elsewhere")
    with pytest.raises(Refused) as refused:
        apply(environment(**command(server.dsn("elsewhere"))))
    (problem,) = refused.value.problems
    told = "schema app, table app.more, table app.things"
    assert problem.what.endswith(f" said that it applied 3 files, but of what they make staging lacks 3: {told}.")
    assert unapplied(work, outside) == ["00_schemas.sql", "01_tables.sql", "02_more.sql"]
    outside.execute("drop database elsewhere with (force)")


def test_a_connection_that_is_lost_beside_the_runner_is_told_in_a_sentence(
    work: Work, environment: Callable[..., Environment], apply: Callable[..., Any], outside: psycopg.Connection
) -> None:
    kill = "connection.execute(\"select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'\")"
    with pytest.raises(Refused, match=r"staging .*: terminating connection due to administrator command"):
        apply(environment(**command(more=kill)))
    assert unapplied(work, outside) == ["00_schemas.sql", "01_tables.sql", "02_more.sql"]


# From a shell


INVOKE = """
tasks: {{executor_class: release_tasks.executor.ReleaseExecutor}}
release:
  app: app
  ddl: {{lock_wait: 10}}
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
    assert "Applied 4 files to staging in " in first
    assert [line.split()[0] for line in first.splitlines() if " ms " in line] == [file.name for file in pack(work)]
    assert "  03_said.sql: WARNING: look here" in first.splitlines()
    assert "by the way" not in first
    entered = outside.execute("select * from ops.ddl_ledger").fetchall()
    assert said(inv("ddl.apply")) == "All 4 files are in the ledger of staging. To apply them again: --again\n"
    assert outside.execute("select * from ops.ddl_ledger").fetchall() == entered
    assert "Applied 4 files" in said(inv("ddl.apply", "--again"))
    assert outside.execute("select * from ops.ddl_ledger").fetchall() != entered


def test_a_file_that_commits_by_itself_is_told_on_the_screen(work: Work, inv: Callable[..., Any]) -> None:
    work.commit({"ddl/03_own.sql": "begin; create table if not exists own (); commit;\n"})
    assert "  03_own.sql: NOTICE: holds its own transactions" in said(inv("ddl.apply"))


def test_who_waited_for_another_release_reads_that_it_has_done_it(
    work: Work, inv: Callable[..., Any], outside: psycopg.Connection
) -> None:
    runner.keep_others_out(outside, "staging", 0)
    process = inv("ddl.apply")
    assert any("for another release on staging" in line for line in process.stdout)
    ledger.begin(outside, pack(work), Ddl())
    for file in pack(work):
        ledger.enter(outside, file, Ddl(), "0.1.1", 0.1, "psycopg")
    outside.execute("select pg_advisory_unlock_all()")
    assert said(process).endswith("The other release has applied all 3 files to staging.\n")


def test_a_dry_run_and_production_without_a_yes_change_nothing(
    inv: Callable[..., Any], outside: psycopg.Connection
) -> None:
    dry = said(inv("--dry", "ddl.apply"))
    assert dry == "Would apply 3 files to staging; 3 of them are new or changed.\n"
    refused = said(inv("ddl.apply", where="production"), code=1)
    assert "Production has 3 of 3 files to get, outside a release and without a backup." in refused
    assert outside.execute("select to_regnamespace('app'), to_regnamespace('ops')").fetchone() == (None, None)
    assert "Applied 3 files to production" in said(inv("ddl.apply", "--yes", where="production"))
    assert tables(outside) == ["more", "things"]


def test_only_dev_gets_what_is_not_committed(work: Work, inv: Callable[..., Any], outside: psycopg.Connection) -> None:
    work.write({"ddl/02_more.sql": "select 1;\n", "ddl/03_new.sql": "create table app.new ();\n", "other": "x"})
    refused = said(inv("ddl.apply"), code=1)
    assert "staging gets what is committed; here this is not: ddl/02_more.sql, ddl/03_new.sql." in refused
    said(inv("ddl.apply", where="dev"))
    assert tables(outside) == ["new", "things"]


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
