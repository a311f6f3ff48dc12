"""The lock of an environment, on a real server: one session has it, and it is gone with that session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo

from release_tasks.database.environment_lock import EnvironmentLock, pooler_problems
from release_tasks.database.server import Running
from release_tasks.errors import Refused
from release_tasks.machine import wait_until
from release_tasks.process import Supervised, free_port

END = "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and database is not null"


@pytest.fixture
def dsn(server: Running, tmp_path: Path) -> Iterator[str]:
    """Yield the DSN of a database of its own."""
    name = f"lock_{abs(hash(tmp_path))}"
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name}".encode())
        yield server.dsn(name)
        connection.execute(f"drop database {name} with (force)".encode())


@pytest.fixture
def lock(dsn: str, tmp_path: Path) -> Iterator[EnvironmentLock]:
    found = EnvironmentLock("staging", dsn, tmp_path)
    yield found
    found.give_up()


def _end_the_session(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        assert connection.execute(END).fetchall() == [(True,)]


def test_a_second_release_is_told_who_has_the_environment_and_how_to_end_that(
    lock: EnvironmentLock, dsn: str, tmp_path: Path
) -> None:
    """F2"""
    assert lock.hold("0.1.1") is False
    assert lock.hold("0.1.1") is True
    other = EnvironmentLock("staging", dsn, tmp_path)
    with pytest.raises(Refused, match=r"Staging is being changed: v0.1.1 by \w+ on .* since \d\d \w+ ") as no:
        other.hold("0.2.0")
    pid = no.value.problems[0].hint.rpartition("backend(")[2].split(")")[0]
    with psycopg.connect(dsn) as connection:
        query = "select application_name from pg_stat_activity where pid = %s"
        assert str(connection.execute(query, [pid]).fetchone()).startswith("('v0.1.1 by ")
    lock.give_up()
    assert other.hold("0.2.0") is False
    other.give_up()


def test_a_session_that_was_ended_is_noticed_and_the_lock_taken_anew(lock: EnvironmentLock, dsn: str) -> None:
    lock.hold("0.1.1")
    _end_the_session(dsn)
    assert lock.hold("0.1.1") is False, "others may have changed the environment meanwhile"
    assert lock.hold("0.1.1") is True


def test_the_folder_stays_held_by_one_whose_session_was_ended(lock: EnvironmentLock, dsn: str, tmp_path: Path) -> None:
    """A process that is stopped keeps its files, also where the line to the database is cut."""
    lock.hold("0.1.1")
    _end_the_session(dsn)
    with pytest.raises(Refused, match="Another release to staging is under way"):
        EnvironmentLock("staging", dsn, tmp_path).hold("0.2.0")


def test_a_database_that_is_away_is_a_sentence(tmp_path: Path) -> None:
    dsn = f"postgresql://postgres@127.0.0.1:{free_port()}/app"
    with pytest.raises(Refused, match="The database of staging cannot be used"):
        EnvironmentLock("staging", dsn, tmp_path).hold("0.1.1")


@contextmanager
def pgbouncer(dsn: str, mode: str, folder: Path) -> Iterator[str]:
    """Run a pgbouncer before `dsn` for the length of the block; yield the DSN that goes through it."""
    parts, port = conninfo.conninfo_to_dict(dsn), free_port()
    server = "host={host} port={port} user={user} password={password}".format(**parts)
    config = f"""[databases]
{parts["dbname"]} = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = any
pool_mode = {mode}
unix_socket_dir =
"""
    (folder / "pgbouncer.ini").write_text(config)
    argv = [str(shutil.which("pgbouncer")), *(["-u", "nobody"] if os.geteuid() == 0 else []), "pgbouncer.ini"]
    running = Supervised(argv, folder, dict(os.environ), folder / "log")
    through = conninfo.make_conninfo(dsn, port=port)

    def answers() -> bool:
        try:
            psycopg.connect(through, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        assert wait_until(answers, 20), (folder / "log").read_text()
        yield through
    finally:
        running.stop()


@pytest.mark.skipif(not shutil.which("pgbouncer"), reason="needs pgbouncer")
@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_pooler_is_refused_for_there_the_lock_would_be_another_s(dsn: str, tmp_path: Path, mode: str) -> None:
    with pgbouncer(dsn, mode, tmp_path) as through:
        with pytest.raises(Refused, match="A pooler is between us and the database of staging"):
            EnvironmentLock("staging", through, tmp_path / "none").hold("0.1.1")
        with psycopg.connect(dsn) as connection:
            assert not pooler_problems(connection, "staging")
            query = "select count(*) from pg_locks where locktype = 'advisory' and database is not null"
            assert connection.execute(query).fetchone() == (0,)
