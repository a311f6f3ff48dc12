"""A backup is whole or not there; it counts once restored and compared; the last that counts is never removed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest

from release_tasks import process
from release_tasks.config import load
from release_tasks.database import apply, backup, programs, psql, restore, structure
from release_tasks.database.backup import FACTS, SUMS, VERIFIED, Backup
from release_tasks.database.server import Running
from release_tasks.deploy.code import folder_of
from release_tasks.deploy.host import Host
from release_tasks.deploy.hosts import Hosts
from release_tasks.environments import Environment
from release_tasks.errors import Refused
from release_tasks.evidence import pack
from release_tasks.files import file_sha256
from release_tasks.machine import point_link, wait_until
from release_tasks.outcome import CHANGED, DONE, PENDING, PLANNED, REFUSED, Outcome
from release_tasks.sections import production
from release_tasks.settings import Settings
from release_tasks.suites import pass_smokes_on_copy

if TYPE_CHECKING:
    from conftest import Web, Work

    from release_tasks.release import Release

DATABASE = """
create role backup_reader nologin;
create role "Backup Owner" login noinherit connection limit 7;
grant backup_reader to "Backup Owner" with admin option;
alter role "Backup Owner" set work_mem to '64MB';
create schema "Odd Schema" authorization "Backup Owner";
create table "Odd Schema"."Upper Case" (
  id bigint generated always as identity primary key, name text not null, size int check (size > 0),
  twice int generated always as (size * 2) stored, kind varchar(9) check (kind in ('a', 'b')));
insert into "Odd Schema"."Upper Case" (name, size, kind) select 'n' || g, g, 'a' from generate_series(1, 500) g;
alter table "Odd Schema"."Upper Case" owner to "Backup Owner";
grant select on "Odd Schema"."Upper Case" to backup_reader;
create index on "Odd Schema"."Upper Case" (lower(name));
create table parted (at date, n int) partition by range (at);
create table parted_1 partition of parted for values from ('2026-01-01') to ('2027-01-01');
insert into parted select '2026-02-01', g from generate_series(1, 30) g;
create table heir () inherits (parted_1_like);
create view big as select name, case when kind in ('a', 'b') then 1 end as known from "Odd Schema"."Upper Case";
create materialized view sums as select count(*) as n from "Odd Schema"."Upper Case";
create sequence counter start 7;
create function twice(n int) returns int language sql immutable as 'select n * 2';
alter database {database} set search_path to "Odd Schema", public;
alter database {database} set "app.title" to 'it''s {{a}} title';
grant connect on database {database} to backup_reader;
""".replace("create table heir () inherits (parted_1_like);\n", "")
EMPTY = Backup(folder=Path(), database="x", server=15, rows={}, by="", at=datetime.now(UTC), app="app")


@contextmanager
def database(server: Running, name: str = "backup_source") -> Iterator[str]:
    """Make a database with all that is easy to lose, and with roles of its own."""
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
        drop(admin)
        admin.execute(f"create database {name} template template0")
        with psycopg.connect(server.dsn(name), autocommit=True) as connection:
            connection.execute(DATABASE.format(database=name))
        try:
            yield server.dsn(name)
        finally:
            drop(admin)


def drop(admin: Any) -> None:
    """Drop the databases and roles of these tests."""
    kept = ("postgres", "app", "template0", "template1")
    for (name,) in admin.execute("select datname from pg_database where datname <> all(%s)", [list(kept)]).fetchall():
        admin.execute(f'drop database "{name}" with (force)')
    for (role,) in admin.execute("select quote_ident(rolname) from pg_roles where rolname ilike 'backup%'").fetchall():
        admin.execute(f"drop owned by {role}; drop role {role}")


@pytest.fixture
def source(server: Running) -> Iterator[str]:
    with database(server) as dsn:
        yield dsn


def environment_at(dsn: str, root: Path, **settings: Any) -> Environment:
    return Environment("production", Settings.model_validate(settings), root, dsn, "", root / "production", None)


@pytest.fixture
def environment(source: str, tmp_path: Path) -> Environment:
    return environment_at(source, tmp_path)


def execute(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def make(environment: Environment, day: int, verified: bool = True, damaged: bool = False, commit: str = "") -> Backup:
    """Write what looks like a backup of that day of 2026."""
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
    folder = backup.folder_of(environment) / f"app-{environment.name}-{moment:%Y%m%dT%H%M%SZ}"
    folder.mkdir(parents=True)
    (folder / "dump").write_text("dump")
    about = {"folder": folder, "at": moment, "environment": environment.name, "commit": commit}
    taken = EMPTY.model_copy(update=about)
    (folder / FACTS).write_text(taken.model_dump_json())
    resum(taken)
    if verified:
        mark_verified(taken)
    if damaged:
        (folder / "dump").write_text("damp")
    return taken


def mark_verified(taken: Backup) -> None:
    found = {SUMS: file_sha256(taken.folder / SUMS), "summary": "the same", "then": []}
    (taken.folder / VERIFIED).write_text(json.dumps(found))


@pytest.fixture
def keeping_two(tmp_path: Path) -> Environment:
    return environment_at("", tmp_path, backup={"keep": 2})


def newest_server() -> int:
    """Return the newest major version of PostgreSQL that is here."""
    return max(programs.major_of(programs.find_bin(major)) for major in range(10, 30))


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock" and path.name != ".gitignore")


@pytest.fixture
def commands() -> Iterator[list[process.Finished]]:
    """Collect the commands that are run meanwhile."""
    heard: list[process.Finished] = []
    process.listeners.append(heard.append)
    yield heard
    process.listeners.remove(heard.append)


# Taking


def test_a_backup_is_whole_private_and_checked_by_sha256sum(environment: Environment) -> None:
    taken = backup.take(environment, "0.1.1", "abc")
    assert left_in(backup.folder_of(environment)) == [taken.name] and taken.name.startswith("app-production-2")
    assert taken.folder.stat().st_mode & 0o777 == 0o700
    checked = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=taken.folder, capture_output=True)
    assert checked.returncode == 0
    assert backup.read(taken.folder) == taken and not taken.verified
    assert (taken.version, taken.commit) == ("0.1.1", "abc")
    assert taken.rows == {'"Odd Schema"."Upper Case"': 500, "public.parted_1": 30}
    assert left_in(taken.folder) == [SUMS, FACTS, "dump", "roles.sql"]
    assert (taken.folder / "dump" / "toc.dat").is_file()
    assert not re.search("(?i)password '|scram-sha", (taken.folder / "roles.sql").read_text())


def test_a_dump_with_jobs_verifies(source: str, tmp_path: Path) -> None:
    environment = environment_at(source, tmp_path, backup={"jobs": 2})
    taken = backup.take(environment, "")
    assert restore.verify(taken, environment) and backup.read(taken.folder) == taken


def test_what_it_counts_is_what_was_dumped_while_others_write(environment: Environment, source: str) -> None:
    ended = threading.Event()

    def write() -> None:
        with psycopg.connect(source, autocommit=True) as connection:
            while not ended.is_set():
                connection.execute("insert into parted_1 select '2026-03-01', 1 from generate_series(1, 100)")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        taken = backup.take(environment, "0.1.1")
    finally:
        ended.set()
        writer.join()
    assert restore.verify(taken, environment)
    assert taken.rows["public.parted_1"] < execute(source, "select count(*) from parted_1")[0][0]


def test_a_table_that_is_to_be_truncated_is_counted_as_it_was_dumped(
    environment: Environment, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TRUNCATE that waited for pg_dump came before the count, in whose snapshot no row was left."""
    real, tries = programs.run, list[str]()

    def run(tool: str, *args: Any, **how: Any) -> process.Finished:
        done = real(tool, *args, **how)
        if tool == "pg_dump":
            with psycopg.connect(source, autocommit=True, options="-c lock_timeout=100ms") as other:
                try:
                    other.execute('truncate "Odd Schema"."Upper Case"')
                except psycopg.errors.LockNotAvailable:
                    tries.append("waits")
        return done

    monkeypatch.setattr(programs, "run", run)
    taken = backup.take(environment, "0.1.1")
    assert taken.rows['"Odd Schema"."Upper Case"'] == 500 and tries == ["waits"]


def test_who_waits_for_our_lock_does_not_hold_up_the_dump(
    environment: Environment, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pg_dump waited for a TRUNCATE that waited for us; all who read that table in production waited with it.

    Then it read with the snapshot from before, which sees neither the rows that went nor those that came.
    """
    real, others = programs.run, list[threading.Thread]()
    table = '"Odd Schema"."Upper Case"'
    count = execute(source, f"select count(*) from {table}")[0][0]
    refill = f"insert into {table} (name) select 'm' || g from generate_series(1, {count + 1}) g"
    waits = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query ~ '^truncate'"

    def run(tool: str, *args: Any, **how: Any) -> process.Finished:
        if tool == "pg_dump" and not others:
            others.append(threading.Thread(target=execute, args=[source, f"truncate {table}; {refill}"]))
            others[0].start()
            assert wait_until(lambda: bool(execute(source, waits)), 60)
        return real(tool, *args, **how)

    monkeypatch.setattr(programs, "run", run)
    taken = backup.take(environment, "0.1.1")
    others[0].join(60)
    assert taken.rows[table] == count + 1
    monkeypatch.undo()
    assert restore.verify(taken, environment)


def test_a_backup_folder_in_the_repository_is_none_of_git_s_business(source: str, tmp_path: Path) -> None:
    """All of production's rows were to be added and committed, by the hint for an unclean tree."""
    process.run(["git", "init", "--quiet"], cwd=tmp_path)
    backup.take(environment_at(source, tmp_path, backup={"folder": "backups"}), "0.1.1")
    assert process.run(["git", "status", "--porcelain"], cwd=tmp_path).stdout == ""


def test_a_dump_that_fails_leaves_nothing_and_no_count_goes_on(environment: Environment, source: str) -> None:
    execute(source, "create role backup_poor login password 'poor'; grant select on parted, parted_1 to backup_poor")
    parts = psycopg.conninfo.conninfo_to_dict(source)
    environment.dsn = psycopg.conninfo.make_conninfo(**{**parts, "user": "backup_poor", "password": "poor"})
    with pytest.raises(Refused, match="permission denied for") as no:
        backup.take(environment, "")
    assert "grant pg_read_all_data to backup_poor" in no.value.problems[0].hint
    assert left_in(backup.folder_of(environment)) == []
    theirs = "select 1 from pg_stat_activity where usename = 'backup_poor'"
    assert wait_until(lambda: not execute(source, theirs), 120)


def test_a_dump_that_takes_too_long_is_ended_and_leaves_nothing(source: str, tmp_path: Path) -> None:
    environment = environment_at(source, tmp_path, backup={"timeout": 2})
    with psycopg.connect(source) as other:
        other.execute("lock table parted_1 in access exclusive mode")
        with pytest.raises(Refused, match=r"did not end within 2 s|canceling statement due to statement timeout"):
            backup.take(environment, "")
    assert left_in(backup.folder_of(environment)) == []


def test_a_table_that_somebody_holds_is_not_waited_for_an_hour(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "LOCK_WAIT", "1s")
    with psycopg.connect(source) as other:
        other.execute("lock table parted_1 in access exclusive mode")
        for read in (lambda: backup.take(environment_at(source, tmp_path), ""), lambda: structure.read(source)):
            with pytest.raises(Refused, match=r"LOCK TABLE .*public\.parted") as no:
                read()
            assert "pg_stat_activity" in no.value.problems[0].hint


def test_a_limit_on_transactions_is_not_for_the_one_that_waits_for_pg_dump(
    every_server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, dsn = programs.run, every_server.dsn("postgres")

    def slow(*words: Any, **how: Any) -> process.Finished:
        time.sleep(1.5)
        return run(*words, **how)

    limits = [name for (name,) in execute(dsn, "select name from pg_settings where name ~ 'transaction.*_timeout'")]
    for name in limits:
        execute(dsn, f"alter database postgres set {name} = '1s'")
    monkeypatch.setattr(programs, "run", slow)
    assert backup.take(environment_at(dsn, tmp_path), "").rows is not None
    for name in limits:
        execute(dsn, f"alter database postgres reset {name}")


def test_what_pg_dump_left_out_is_told(source: str, tmp_path: Path) -> None:
    execute(source, "create role backup_poor login password 'poor'; grant pg_read_all_data to backup_poor")
    execute(source, "create subscription far connection 'dbname=x' publication p with (connect = false)")
    poor = psycopg.conninfo.make_conninfo(source, user="backup_poor", password="poor")
    try:
        environment = environment_at(poor, tmp_path)
        summary = restore.verify(backup.take(environment, ""), environment)
    finally:
        execute(source, "alter subscription far set (slot_name = none)")
        execute(source, "drop subscription far")
    told = "pg_dump: warning: subscriptions not dumped because current user is not a superuser"
    assert f" rows are the same; {told}" in summary


@pytest.mark.parametrize("wrong", [{"port": "1"}, {"dbname": "nowhere"}, {"host": "nowhere.invalid", "hostaddr": ""}])
def test_a_database_that_cannot_be_reached_is_no_full_disk(source: str, tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(Refused, match=r"^The database of production cannot be used") as no:
        backup.take(environment_at(psycopg.conninfo.make_conninfo(source, **wrong), tmp_path), "")
    hint = "Check release.environments.production.dsn in invoke.yaml, and its variable."
    answers = "dbname" in wrong
    assert no.value.problems[0].hint == (hint if answers else f"Start the server, if it is down. {hint}")


def test_a_dump_of_a_newer_server_than_any_pg_dump_is_refused() -> None:
    with pytest.raises(Refused, match="pg_dump 99 or newer is needed"):
        programs.client("pg_dump", 99)


TAKEN = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.database.test_backup import backup, environment_at
print(backup.take(environment_at({dsn!r}, Path({folder!r})), "").name)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_dump_that_is_stopped_in_the_middle_leaves_no_backup_and_the_same_command_makes_one(
    environment: Environment, source: str, tmp_path: Path, sent: signal.Signals
) -> None:
    program = TAKEN.format(root=str(Path(__file__).parents[2]), dsn=source, folder=str(tmp_path))
    dumping = "select pid from pg_stat_activity where query ~ '^(LOCK|COPY)' and application_name ~ '^release by'"
    argv = [sys.executable, "-c", program]
    with psycopg.connect(source) as other:
        # Only pg_dump waits for it: we lock the tables that have rows.
        other.execute("lock table only parted in access exclusive mode")
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as stopped:
            seen = wait_until(lambda: bool(execute(source, dumping)), 120, every=0.05)
            stopped.send_signal(sent)
        assert seen
        assert backup.all_of(environment) == []
        assert wait_until(lambda: not execute(source, dumping), 120, every=0.05)
    name = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    assert left_in(backup.folder_of(environment)) == [name]


FULL = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.database.test_backup import backup, environment_at, left_in
from release_tasks.errors import Refused
environment = environment_at({dsn!r}, Path({folder!r}), backup={{"folder": "full"}})
try:
    backup.take(environment, "")
except Refused as no:
    print(no.problems[0].hint, no, left_in(backup.folder_of(environment)))
"""


def test_a_full_disk_is_a_sentence_and_leaves_nothing(environment: Environment, source: str, tmp_path: Path) -> None:
    execute(source, "insert into parted_1 select '2026-03-01', (random() * 1e9)::int from generate_series(1, 200000)")
    program = FULL.format(root=str(Path(__file__).parents[2]), dsn=source, folder=str(tmp_path))
    mount = f'mkdir -p {tmp_path}/full && mount -t tmpfs -o size=300k tmpfs {tmp_path}/full && exec "$@"'
    alone = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    argv = [*alone, "sh", "-c", mount, "sh", sys.executable, "-c", program]
    ran = subprocess.run(argv, capture_output=True, text=True)
    assert "No space left on device" in ran.stdout and ran.stdout.startswith("df -h ")
    assert ran.stdout.strip().endswith("[]"), ran.stdout + ran.stderr


def test_two_at_once_are_refused_in_a_sentence(environment: Environment) -> None:
    with backup.locked(environment), pytest.raises(Refused, match="Another backup of production is under way"):
        backup.take(environment, "")


def test_what_a_killed_run_left_is_tidied_by_the_next(environment: Environment) -> None:
    folder = backup.folder_of(environment)
    (folder / ".app-production-20260101T000000Z.incomplete" / "dump").mkdir(parents=True)
    (folder / ".app-staging-20260101T000000Z.incomplete").mkdir()
    taken = backup.take(environment, "")
    assert left_in(folder) == [".app-staging-20260101T000000Z.incomplete", taken.name]


# Damage


def damaged_files(taken: Backup) -> list[str]:
    """Return the files of `taken` that a refusal names, none where it is read."""
    try:
        backup.read(taken.folder)
    except Refused as no:
        return [each.what.partition(" is ")[0].removeprefix(f"{taken.folder}/") for each in no.problems]
    return []


def test_each_kind_of_damage_is_named(environment: Environment) -> None:
    taken = backup.take(environment, "")
    dump = taken.folder / "dump"
    toc, (data, *_) = dump / "toc.dat", sorted(dump.glob("*.dat.*"))
    content = data.read_bytes()

    def damage(act: Callable[[], object]) -> list[str]:
        before = {path: path.read_bytes() for path in taken.folder.rglob("*") if path.is_file()}
        act()
        found = damaged_files(taken)
        for path in [path for path in taken.folder.rglob("*") if path.is_file()]:
            path.unlink()
        for path, held in before.items():
            path.write_bytes(held)
        return found

    changed = bytes([content[0] ^ 1]) + content[1:]
    assert damage(lambda: data.write_bytes(changed)) == [f"dump/{data.name}"]
    assert damage(lambda: data.write_bytes(content[:-3])) == [f"dump/{data.name}"]
    assert damage(lambda: toc.unlink()) == ["dump/toc.dat"]
    assert damage(lambda: (dump / "more.dat").touch()) == ["dump/more.dat"]
    assert damage(lambda: (taken.folder / FACTS).write_text("{}")) == [FACTS]
    assert damage(lambda: (taken.folder / SUMS).write_bytes(b"\xff\xfe")) == [SUMS]
    assert damage(lambda: (taken.folder / SUMS).unlink()) == [SUMS]
    assert "dump/toc.dat" in damage(lambda: (taken.folder / SUMS).write_bytes(b""))
    assert damage(lambda: None) == []


def test_a_damaged_backup_is_not_restored_and_counts_no_more(environment: Environment) -> None:
    taken = make(environment, 1)
    (taken.folder / "dump").write_bytes(b"PGDMP")
    (taken.folder / VERIFIED).unlink()
    with pytest.raises(Refused, match=r"/dump is not what SHA256SUMS says"):
        restore.verify(taken, environment)


def test_a_truncated_dump_with_checksums_of_its_own_is_refused_in_a_sentence(environment: Environment) -> None:
    taken = backup.take(environment, "")
    largest = max((taken.folder / "dump").glob("*.dat.*"), key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-9])
    resum(taken)
    with pytest.raises(Refused, match=r"pg_restore: error"):
        restore.verify(taken, environment)
    assert not taken.verified


@pytest.mark.parametrize("garbage", ["{}", "[]", "5", "{", '{"rows": {"t": "x"}, "server": {"major": "?"}, "at": 1}'])
def test_a_backup_json_that_is_none_is_a_sentence(keeping_two: Environment, garbage: str) -> None:
    taken = make(keeping_two, 1)
    (taken.folder / FACTS).write_text(garbage)
    resum(taken)
    with pytest.raises(Refused, match=r"backup\.json is not of a backup of this version\.$"):
        restore.verify(taken, keeping_two)
    assert backup.all_of(keeping_two) == []


def test_the_word_that_it_was_verified_holds_for_this_backup_alone(environment: Environment) -> None:
    taken = backup.take(environment, "")
    (taken.folder / VERIFIED).write_text(json.dumps({SUMS: "0" * 64, "at": "2026-01-01T00:00:00+00:00"}))
    assert not taken.verified


# Verifying


def test_a_backup_is_verified_by_tools_of_its_version_and_without_a_password_on_a_command_line(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, commands: list[process.Finished]
) -> None:
    monkeypatch.setenv("PG_BIN", str(programs.find_bin(newest_server())))
    taken = backup.take(environment, "0.1.1")
    said = restore.verify(taken, environment)
    password, major = urlsplit(environment.dsn).password, taken.server
    used = [command.argv for command in commands if "--version" not in command.argv]
    tools = [Path(argv[0]) for argv in used if argv[0].endswith(("pg_dump", "pg_restore"))]
    assert {tool.name for tool in tools} == {"pg_dump", "pg_restore"}
    assert {programs.major_of(tool.parent) for tool in tools} == {major}
    assert password and not any(password in word for command in commands for word in command.argv)
    assert said.endswith(f"restored on PostgreSQL {major}: 2 tables and 530 rows are the same")
    assert taken.verified["summary"] == said


def tell(taken: Backup, **about: Any) -> Backup:
    """Let backup.json say something else."""
    changed = taken.model_copy(update=about)
    (taken.folder / FACTS).write_text(changed.model_dump_json())
    resum(taken)
    return changed


def test_a_backup_that_restores_with_other_rows_does_not_count_and_each_table_is_named(
    environment: Environment,
) -> None:
    taken = backup.take(environment, "")
    taken = tell(taken, rows=taken.rows | {"public.parted_1": 31, "public.gone": 1})
    with pytest.raises(Refused) as no:
        restore.verify(taken, environment)
    assert [each.what for each in no.value.problems] == [
        "public.parted_1, restored, has 30 rows, expected 31.",
        "public.gone, restored, has no rows, expected 1.",
    ]
    assert not taken.verified


def test_what_is_tried_on_the_copy_decides_whether_it_counts(environment: Environment, source: str) -> None:
    taken = backup.take(environment, "")

    def refuse(dsn: str) -> str:
        execute(dsn, "delete from parted")
        raise Refused("The pack deletes rows.")

    with pytest.raises(Refused, match="The pack deletes rows"):
        restore.verify(taken, environment, refuse)
    assert not taken.verified
    assert restore.verify(taken, environment, lambda dsn: str(execute(dsn, "select count(*) from parted"))).endswith(
        "the same; [(30,)]"
    )
    assert execute(source, "select count(*) from parted") == [(30,)]


def resum(taken: Backup) -> None:
    """Write the checksums of `taken` anew."""
    files = sorted(str(path.relative_to(taken.folder)) for path in taken.folder.rglob("*") if path.is_file())
    files = [name for name in files if name not in (SUMS, VERIFIED)]
    ran = subprocess.run(["sha256sum", *files], cwd=taken.folder, capture_output=True, check=True)
    (taken.folder / SUMS).write_bytes(ran.stdout)


READS = """
import pytest

@pytest.mark.on_backup
def test_it(run, target):
    code = "import os, psycopg; c = psycopg.connect(os.environ['DATABASE_URL']); c.execute({statement!r}); c.commit()"
    run({python!r}, "-c", f"{{code}}; print('PASS')", must_print="PASS")
    assert target.is_backup
"""


def test_the_smokes_so_marked_run_on_it_and_nothing_of_them_reaches_the_source(source: str, work: Work) -> None:
    writes = READS.format(statement="delete from parted", python=sys.executable)
    other = "def test_it(db): db.execute('select 1 / 0')"
    commit = work.commit({"smokes/test_writes.py": writes, "smokes/test_other.py": other})
    environment = environment_at(source, work.root)
    host = Host(work.root / "production", "")
    environment.hosts = Hosts("production", host)
    host.code_of("v0.1.0").mkdir(parents=True)
    host.code_of("v0.1.0.json").write_text(json.dumps({"commit": commit}))
    point_link(host.folder / "current", host.code_of("v0.1.0"))
    taken = backup.take(environment, "")
    on_copy = partial(pass_smokes_on_copy, environment, "0.1.1")
    assert "; smokes: writes: it " in restore.verify(taken, environment, on_copy)
    fails = READS.format(statement="select from nowhere", python=sys.executable)
    (folder_of(work.root, "v0.1.0") / "smokes" / "test_fails.py").write_text(fails)
    (taken.folder / VERIFIED).unlink()
    with pytest.raises(Refused, match=r"(?s)Smoke fails: it: failed on the restored backup.*nowhere"):
        restore.verify(taken, environment, on_copy)
    assert execute(source, "select count(*) from parted") == [(30,)]


@pytest.mark.parametrize("live", ["releases/20240101", "/srv/app/by-hand"])
def test_what_no_release_has_put_there_is_backed_up_without_smokes(source: str, work: Work, live: str) -> None:
    """The first release into a production of another tool's stopped for good in section 8, after its tag."""
    environment = environment_at(source, work.root)
    host = Host(work.root / "production", "")
    environment.hosts = Hosts("production", host)
    host.folder.mkdir()
    (host.folder / "current").symlink_to(live)
    summary = restore.verify(backup.take(environment, ""), environment, partial(pass_smokes_on_copy, environment, ""))
    assert "no smoke ran, for no release of ours is live there" in summary


def test_where_a_host_was_added_the_smokes_are_those_of_the_first(source: str, work: Work) -> None:
    """What is live was not on every host, so that nothing seemed to be deployed."""
    commit = work.commit({"smokes/test_other.py": "def test_it(db): db.execute('select 1 / 0')"})
    environment = environment_at(source, work.root)
    first = {"tag": "v0.1.0", "releases": {"v0.1.0": {"commit": commit}}}
    environment.hosts = Hosts("production", Host(work.root, ""), ["a", "b"])
    environment.hosts.call = lambda name, verb, **_: first if name == "a" else {}  # type: ignore[method-assign]
    assert pass_smokes_on_copy(environment, "0.1.1", source) == "no smoke is marked on_backup"


def test_a_locale_this_machine_lacks_is_no_reason_to_refuse(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = restore._database_statements

    def elsewhere(text: str, name: str) -> tuple[str, str]:
        assert "LOCALE = 'C'" in text
        return statements(text.replace("LOCALE = 'C'", "LOCALE = 'xx_XX.UTF-8'"), name)

    monkeypatch.setattr(restore, "_database_statements", elsewhere)
    assert restore.verify(backup.take(environment, ""), environment)


# The command that gets it


def test_once_it_counts_the_command_gets_its_folder_once(source: str, tmp_path: Path) -> None:
    copy = ["cp", "-r", "{folder}", str(tmp_path / "off-site")]
    environment = environment_at(source, tmp_path, backup={"then": copy})
    taken = backup.take(environment, "")
    restore.verify(taken, environment)
    assert left_in(tmp_path / "off-site") == left_in(taken.folder)
    assert restore.is_done(taken, environment.settings.backup) and taken.verified["then"] == copy
    restore.verify(taken, environment)  # a second copy would lie inside the first
    assert left_in(tmp_path / "off-site") == left_in(taken.folder)


def test_a_command_that_fails_is_refused_and_run_again_without_another_restore(source: str, tmp_path: Path) -> None:
    environment = environment_at(
        source, tmp_path, backup={"then": ["sh", "-c", "echo no bucket >&2; exit 3", "{folder}"]}
    )
    taken = backup.take(environment, "")
    with pytest.raises(Refused, match=r"(?s)ended with exit code 3:.*no bucket"):
        restore.verify(taken, environment)
    assert taken.verified and not restore.is_done(taken, environment.settings.backup)
    environment.settings = Settings.model_validate({"backup": {"then": ["test", "-d", "{folder}"]}})
    summary = taken.verified["summary"]
    assert restore.verify(taken, environment) == summary
    assert restore.is_done(taken, environment.settings.backup)


def test_a_command_that_does_not_end_is_ended(source: str, tmp_path: Path) -> None:
    environment = environment_at(
        source, tmp_path, backup={"then": ["sh", "-c", "sleep 600", "{folder}"], "timeout": 0.5}
    )
    taken = make(environment, 1)
    with pytest.raises(Refused, match=r"did not end within 0.5 s"):
        restore.verify(taken, environment)


def test_a_command_without_the_folder_is_refused_and_a_rehearsal_has_none() -> None:
    with pytest.raises(Refused, match=r"release\.backup: then needs \{folder\}"):
        load({"backup": {"then": ["restic", "backup"]}}, {})
    given = {"backup": {"then": ["restic", "backup", "{folder}"]}}
    assert load(given, {}).backup.then and load(given, {"RELEASE_REHEARSING": "{}"}).backup.then == []


# Retention


def kept_in(environment: Environment) -> set[int]:
    return {each.at.timetuple().tm_yday - 1 for each in backup.all_of(environment)}


def test_the_newest_verified_ones_are_kept_and_what_is_older_goes(keeping_two: Environment) -> None:
    for day in range(1, 6):
        make(keeping_two, day)
    backup.prune(keeping_two)
    assert kept_in(keeping_two) == {4, 5}
    assert left_in(backup.folder_of(keeping_two)) == sorted(each.name for each in backup.all_of(keeping_two))


def test_what_does_not_count_pushes_out_nothing(keeping_two: Environment) -> None:
    for day, verified in enumerate([True, True, False, True, False], 1):
        make(keeping_two, day, verified)
    backup.prune(keeping_two)
    assert kept_in(keeping_two) == {2, 3, 4, 5}
    make(keeping_two, 6)
    backup.prune(keeping_two)
    assert kept_in(keeping_two) == {3, 4, 5, 6}


def test_the_last_verified_one_is_never_removed(keeping_two: Environment) -> None:
    make(keeping_two, 1)
    for day in range(2, 9):
        make(keeping_two, day, verified=False)
    backup.prune(keeping_two)
    assert kept_in(keeping_two) == {1, 2, 3, 4, 5, 6, 7, 8}


def test_an_old_one_that_is_verified_late_may_go_at_once(keeping_two: Environment) -> None:
    old = make(keeping_two, 1)
    for day in range(2, 4):
        make(keeping_two, day)
    assert restore.verify(old, keeping_two) == "the same"
    assert kept_in(keeping_two) == {2, 3}


def test_backups_of_others_are_nobody_s_business(keeping_two: Environment) -> None:
    for day in range(1, 4):
        make(keeping_two, day)
    keeping_two.name = "staging"
    for day in range(1, 3):
        make(keeping_two, day)
    backup.prune(keeping_two)
    assert len(left_in(backup.folder_of(keeping_two))) == 5


# In a release


@pytest.fixture
def release(work: Work, web: Web, source: str) -> Iterator[Release]:
    """Return a release whose tag is published, and whose production has an older version and an older pack."""
    here = {"dsn": source, "origin": web.origin, "folder": "srv", "restart": ["true"], "log": "none"}
    release = work.release(environments={"production": here}, branch="")
    release.options = {"env": "production"}
    yield release


def publish(work: Work) -> None:
    work.git("tag", "--annotate", "--message", "x", "v0.1.1")
    work.git("push", "--quiet", "origin", "main", "v0.1.1")


BACKUP, VERIFY = production.back_up_the_database, production.verify_the_backup
Take = Callable[..., Outcome]


def test_a_release_backs_up_verifies_and_then_finds_both_done(release: Release, work: Work, take: Take) -> None:
    assert [take(step, release, change=False).state for step in (BACKUP, VERIFY)] == [PENDING, PENDING]
    publish(work)
    release.git.refresh(remote=True)
    assert [take(step, release, change=False).state for step in (BACKUP, VERIFY)] == [PLANNED, PENDING]
    assert take(BACKUP, release).state == CHANGED
    assert [take(step, release, change=False).state for step in (BACKUP, VERIFY)] == [DONE, PLANNED]
    assert take(VERIFY, release).state == CHANGED
    looked = [take(step, release, change=False) for step in (BACKUP, VERIFY)]
    assert [look.state for look in looked] == [DONE, DONE]
    nothing_ran = "no smoke ran, for no release of ours is live there"
    assert f"530 rows are the same; {nothing_ran}; the DDL pack keeps all rows there" in looked[1].text
    (kept,) = backup.all_of(release.environment("production"))
    assert (kept.version, kept.commit) == ("0.1.1", release.published)


def test_a_pack_that_would_destroy_rows_of_production_is_refused_before_it_is_applied(
    release: Release, work: Work, take: Take, source: str
) -> None:
    work.commit({"ddl/02_clean.sql": "delete from public.parted where n > 20;\n"})
    publish(work)
    take(BACKUP, release)
    seen = take(VERIFY, release)
    assert seen.state == REFUSED and "public.parted_1 had 30 rows and has 20 now" in seen.problems[0].what
    assert take(VERIFY, release, change=False).state == PLANNED
    assert execute(source, "select count(*) from parted") == [(30,)]


def test_a_backup_of_another_release_and_an_old_one_are_not_this_release_s(
    release: Release, work: Work, take: Take
) -> None:
    publish(work)
    backup.take(release.environment("production"), "0.1.1", "another")
    assert take(BACKUP, release, change=False).state == PLANNED
    old = make(release.environment("production"), 1)
    tell(old, commit=release.published)
    assert take(BACKUP, release, change=False).state == PLANNED
    env, ddl = release.environment("production"), release.settings.ddl
    with env.connect() as connection:  # the pack is applied: what was there before is past
        pack = apply.unapplied(env, release.pack)
        connection.execute((psql.ledger(pack, ddl) + psql.entries(pack, ddl, "0.1.1")).encode())
    assert take(BACKUP, release, change=False).text == old.name


@pytest.mark.parametrize("verified", [True, False])
def test_a_damaged_backup_holds_up_a_release_until_it_is_moved_away(
    release: Release, work: Work, take: Take, verified: bool
) -> None:
    publish(work)
    taken = make(release.environment("production"), 1)
    taken = tell(taken, commit=release.published, at=datetime.now(UTC))
    if verified:
        mark_verified(taken)
    (taken.folder / "dump").write_text("damp")
    assert take(BACKUP, release).text == taken.name
    seen = take(VERIFY, release)
    assert seen.state == REFUSED and seen.problems[0].what == f"{taken.folder}/dump is not what SHA256SUMS says."
    _, move = seen.problems[0].hint.splitlines()
    subprocess.run(["sh", "-c", move], check=True)
    assert [take(step, release).state for step in (BACKUP, VERIFY)] == [CHANGED, CHANGED]
    assert len(backup.all_of(release.environment("production"))) == 1


def test_the_evidence_has_what_is_known_of_the_backup_and_not_its_data(release: Release, work: Work) -> None:
    publish(work)
    used = make(release.environment("production"), 1)
    tell(used, commit=release.published)
    pack.records(release, work.root)
    assert left_in(work.root / "checks" / "backup" / used.name) == [SUMS, FACTS, VERIFIED]
