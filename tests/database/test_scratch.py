"""A scratch server leaves nothing behind, and takes a copy of another database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from release_tasks.database import restore
from release_tasks.database.server import Running, scratch, scratch_database
from release_tasks.errors import Refused
from release_tasks.machine import wait_until
from release_tasks.settings import Backup
from tests.test_process import alive


def left_in(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ".release" / "scratch").glob("*"))


def test_a_server_leaves_nothing_whether_its_block_ends_well_or_not(tmp_path: Path) -> None:
    with scratch(tmp_path) as one, scratch(tmp_path / "another") as two:
        assert one.port != two.port
        data = [running.log.parent / "data" for running in (one, two)]
        pids = [int((each / "postmaster.pid").read_text().split()[0]) for each in data]
        with psycopg.connect(two.dsn("postgres"), autocommit=True) as connection:
            connection.execute("create role only_here")
            assert connection.execute("show autovacuum").fetchone() == ("off",)
        with psycopg.connect(one.dsn("postgres")) as connection:
            assert connection.execute("select 1 from pg_roles where rolname = 'only_here'").fetchone() is None
    with pytest.raises(ZeroDivisionError), scratch(tmp_path) as three:
        data.append(three.log.parent / "data")
        pids.append(int((data[-1] / "postmaster.pid").read_text().split()[0]))
        raise ZeroDivisionError
    assert left_in(tmp_path) == [] and not any(map(alive, pids))


def test_a_server_that_cannot_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PG_BIN", str(tmp_path))
    with pytest.raises(Refused, match="does not hold initdb"), scratch(tmp_path):
        pass
    assert left_in(tmp_path) == []


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import pathlib, time; from release_tasks.database.server import scratch\n"
        f"with scratch(pathlib.Path({str(tmp_path)!r})) as running:\n"
        "    print(running.log.parent, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout
        left = Path(killed.stdout.readline().strip())
        killed.kill()
    assert wait_until(lambda: not (left / "data" / "postmaster.pid").exists(), 30), "its server ends"
    assert left.exists()
    with scratch(tmp_path) as running:
        assert left_in(tmp_path) == [running.log.parent.name]
    assert left_in(tmp_path) == []


def test_there_is_one_at_a_time_and_the_next_command_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scratch(tmp_path) as running:
        monkeypatch.setattr("release_tasks.database.server.WAIT", 0.1)
        with pytest.raises(Refused, match="Another scratch server is under way"), scratch(tmp_path):
            pass
        assert left_in(tmp_path) == [running.log.parent.name]
        with psycopg.connect(running.dsn("postgres")):
            pass


def test_a_database_goes_with_its_roles_whatever_they_own_and_may(server: Running) -> None:
    for _ in range(2):
        with scratch_database(server, "Two words") as dsn, psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("""
                create role owner_; create role "Member" createrole; create role reader; create schema s;
                grant reader to owner_ with admin option; grant reader to "Member" with admin option;
                grant connect on database "Two words" to reader; grant connect on database postgres to reader;
                alter role reader in database "Two words" set search_path = s;
                grant usage on schema s to reader; alter schema s owner to owner_;
                alter default privileges for role owner_ in schema s grant select on tables to reader;
                set role "Member"; create role by_member; grant reader to by_member; reset role;
                set role owner_; create table s.t (); reset role;
                alter database "Two words" owner to owner_;
            """)
        with psycopg.connect(server.dsn("postgres")) as connection:
            query = "select rolname from pg_roles where oid >= 16384 union all select datname from pg_database"
            assert not {"owner_", "Member", "reader", "by_member", "Two words"} & {
                name for (name,) in connection.execute(query)
            }


def test_a_database_with_a_subscription_can_be_dropped(server: Running) -> None:
    subscribe = "create subscription s connection 'dbname=x' publication p with (connect = false, slot_name = none)"
    for _ in range(2):
        with scratch_database(server, "subscribed") as dsn, psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(subscribe)


def test_a_copy_has_the_rows_the_owners_and_the_roles(server: Running, tmp_path: Path) -> None:
    with scratch_database(server, "live") as live:
        with psycopg.connect(live, autocommit=True) as connection:
            connection.execute("""
                create role app login password 'secret'; create table t (id serial primary key, name text);
                insert into t (name) select 'x' from generate_series(1, 100); alter table t owner to app;
                create policy p on t to app using (true); create publication news for table t;
            """)
        with scratch(tmp_path) as running, scratch_database(running, "a copy") as target:
            restore.copy(live, target, Backup())
            with psycopg.connect(target) as connection:
                assert connection.execute("select count(*), max(id) from t").fetchone() == (100, 100)
                assert connection.execute("select tableowner from pg_tables where tablename = 't'").fetchone() == (
                    "app",
                )
            with psycopg.connect(running.dsn("postgres")) as connection:
                query = "select rolpassword from pg_authid where rolname = 'app'"
                assert connection.execute(query).fetchone() == (None,)
