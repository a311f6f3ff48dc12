"""A backup comes back whole, with roles and grants, where nothing is, or where named twice; else nothing changes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo
from pyrage import x25519
from release_tasks.schema import scratch

from release_tasks.backups import backup, restore, shelf
from release_tasks.backups.shelf import Backup
from release_tasks.database import catalog, contents, postgres
from release_tasks.environments import Environment
from release_tasks.errors import Refused
from release_tasks.processes import shell
from release_tasks.settings import Settings
from tests.backups.test_backup import (
    KEY,
    RECIPIENTS,
    database,
    drop,
    environment_at,
    execute,
    left_in,
    make,
    newest_server,
    resum,
)

NAME = "backup_source"
ROLES = "select rolname from pg_roles where rolname ilike 'backup%' order by 1"


@pytest.fixture(scope="module")
def taken(server: postgres.Running, tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """Return a backup of a database that is gone, as its roles are."""
    with database(server, NAME) as dsn:
        return backup.take(environment_at(dsn, tmp_path_factory.mktemp("backups")), "0.1.1")


@pytest.fixture
def admin(server: postgres.Running) -> Iterator[str]:
    """Return the URL of a server with no database and no role of these tests."""
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        drop(connection)
        yield server.dsn("postgres")
        drop(connection)


@pytest.fixture
def target(admin: str, server: postgres.Running) -> str:
    """Return the URL of a database that is not there."""
    return server.dsn("target")


def databases(admin: str) -> list[str]:
    query = "select datname from pg_database where datname !~ '^(postgres|app|template.)$' order by 1"
    return [name for (name,) in execute(admin, query)]


def restored(taken: Backup, dsn: str, root: Path, over: str | None = None, **more: Any) -> restore.Restored:
    return restore.restore(taken, dsn, root, Settings(), over, **more)


def test_all_of_it_comes_back_with_roles_and_grants(taken: Backup, target: str, admin: str, tmp_path: Path) -> None:
    done = restored(taken, target, tmp_path)
    assert (done.name, done.before, sorted(done.made)) == ("target", "", ['"Backup Owner"', "backup_reader"])
    assert databases(admin) == ["target"] and execute(admin, ROLES) == [("Backup Owner",), ("backup_reader",)]
    with psycopg.connect(target, autocommit=True) as connection:
        assert contents.differences(taken.facts, connection, []) == []
        assert contents.statements(connection) == taken.facts["statements"]
    assert execute(target, "show app.title") == [("it's {a} title",)]
    assert execute(target, "show search_path") == [('"Odd Schema", public',)]
    assert execute(target, "select tableowner from pg_tables where tablename = 'Upper Case'") == [("Backup Owner",)]
    assert execute(target, """select has_table_privilege('backup_reader', '"Odd Schema"."Upper Case"', 'select')""")[0][
        0
    ]
    assert execute(admin, "select rolconfig from pg_roles where rolname = 'Backup Owner'") == [(["work_mem=64MB"],)]
    assert execute(target, "select n from sums") == [(500,)]
    assert execute(target, "insert into \"Upper Case\" (name) values ('x') returning id") == [(501,)]
    assert execute(target, "select reltuples from pg_class where relname = 'Upper Case'") == [(500,)]  # analyzed


def test_a_database_without_tables_is_replaced(taken: Backup, target: str, admin: str, tmp_path: Path) -> None:
    execute(admin, "create database target")
    execute(target, "create schema empty")
    assert restored(taken, target, tmp_path).before == ""
    assert databases(admin) == ["target"] and execute(target, "select count(*) from parted") == [(30,)]


@pytest.mark.parametrize(
    "kept",
    [
        "create table t ()",
        "create function f() returns int language sql as 'select 1'",
        "do $$ begin perform lo_create(7); end $$",
    ],
)
def test_a_database_that_holds_something_is_kept_and_only_when_named_twice(
    taken: Backup, target: str, admin: str, tmp_path: Path, kept: str
) -> None:
    execute(admin, "create database target")
    execute(target, kept)
    before = catalog_of(target)
    with pytest.raises(Refused, match="The database target holds 1 objects, such as") as no:
        restored(taken, target, tmp_path)
    again = f"inv backup.restore --from {taken.name} --into 'postgresql://***@"
    assert no.value.problems[0].mend.startswith(again) and "/target' --over target " in no.value.problems[0].mend
    with pytest.raises(Refused, match="--over says taget, but the database is target"):
        restored(taken, target, tmp_path, over="taget")
    assert catalog_of(target) == before and databases(admin) == ["target"] and execute(admin, ROLES) == []
    done = restored(taken, target, tmp_path, over="target")
    assert re.fullmatch(r"target_before_\d{8}T\d{6}Z", done.before)
    assert databases(admin) == ["target", done.before]
    assert catalog_of(conninfo.make_conninfo(admin, dbname=done.before)) == before


def catalog_of(dsn: str) -> dict[str, str]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return {name: text for name, text in catalog.read(connection).items() if "ackup" not in name}


def test_a_database_that_is_filled_meanwhile_is_not_dropped(
    taken: Backup, target: str, admin: str, tmp_path: Path
) -> None:
    execute(admin, "create database target")
    heard: list[str] = []

    def fill(ran: shell.Finished) -> None:
        if not heard and ran.argv[0].endswith("pg_restore") and len(ran.argv) > 2:
            heard.append("loaded")
            execute(target, "create table new ()")
            time.sleep(0.5)  # until that session has ended

    shell.listeners.append(fill)
    try:
        before = restored(taken, target, tmp_path).before
    finally:
        shell.listeners.remove(fill)
    assert heard and databases(admin) == ["target", before]
    assert execute(conninfo.make_conninfo(admin, dbname=before), "select to_regclass('new')::text") == [("new",)]


def test_whoever_is_connected_is_named(taken: Backup, target: str, admin: str, tmp_path: Path) -> None:
    execute(admin, "create database target")
    with (
        psycopg.connect(target, application_name="the web app"),
        pytest.raises(Refused, match=r"connected to target: the web app as postgres from 127\.0\.0\.1, process"),
    ):
        restored(taken, target, tmp_path)
    execute(admin, "create role backup_poor login createdb createrole password 'poor'")
    poor = conninfo.make_conninfo(target, user="backup_poor", password="poor")
    with psycopg.connect(target), pytest.raises(Refused, match="connected to target: a program as postgres from "):
        restored(taken, poor, tmp_path)
    assert databases(admin) == ["target"]


def test_a_role_that_is_there_stays_as_it_is(taken: Backup, target: str, admin: str, tmp_path: Path) -> None:
    execute(admin, 'create role backup_reader login; create role "Backup Owner" createdb')
    done = restored(taken, target, tmp_path)
    assert done.made == []
    told = "\n".join(done.notes)
    assert "role backup_reader; in the backup it is nologin" in told and 'role "Backup Owner"' in told
    assert 'membership backup_reader to "Backup Owner"' in told
    query = "select rolcanlogin, rolcreatedb from pg_roles where rolname ilike 'backup%' order by rolname"
    assert execute(admin, query) == [(False, True), (True, False)]
    assert execute(admin, "select 1 from pg_auth_members where roleid = 'backup_reader'::regrole") == []


def test_too_few_rights_are_told_at_once(taken: Backup, target: str, admin: str, tmp_path: Path) -> None:
    execute(admin, "create role backup_poor login password 'poor'")
    poor = conninfo.make_conninfo(target, user="backup_poor", password="poor")
    with pytest.raises(Refused) as no:
        restored(taken, poor, tmp_path)
    assert [each.what for each in no.value.problems] == [
        "The role backup_poor may not make databases on this server.",
        'The role backup_poor may not make roles, and "Backup Owner", backup_reader of the backup are missing '
        "on this server.",
        'The role backup_poor is no superuser, and no member of "Backup Owner", postgres, to whom objects in it '
        "belong.",
    ]
    execute(admin, 'create role "Backup Owner"; grant "Backup Owner" to backup_poor')
    execute(admin, "alter role backup_poor createdb createrole")
    with pytest.raises(Refused, match="is no superuser, and no member of postgres, to whom"):
        restored(taken, poor, tmp_path)
    assert databases(admin) == []


def test_a_member_of_all_owners_restores_it(target: str, admin: str, tmp_path: Path) -> None:
    execute(admin, "create role backup_owner; create role backup_poor login createdb createrole password 'poor'")
    execute(admin, "grant backup_owner to backup_poor")
    execute(admin, "create database target owner backup_poor")
    execute(target, "create schema s authorization backup_owner; create table s.t (); create type e as enum ('a')")
    execute(target, "alter table s.t owner to backup_owner; alter type e owner to backup_poor")
    taken = backup.take(environment_at(target, tmp_path), "")
    assert taken.facts["owners"] == ["backup_owner", "backup_poor"]
    poor = conninfo.make_conninfo(target, user="backup_poor", password="poor")
    assert restored(taken, poor, tmp_path, "target").made == []
    assert execute(target, "select tableowner from pg_tables where tablename = 't'") == [("backup_owner",)]


def test_a_wrong_password_and_an_unreachable_server_are_sentences(taken: Backup, target: str, tmp_path: Path) -> None:
    for part, told in (("password", "password authentication failed"), ("port", "refused")):
        dsn = conninfo.make_conninfo(target, **{part: "1"})
        with pytest.raises(Refused, match=f"cannot be restored into target: .*{told}"):
            restored(taken, dsn, tmp_path)


def test_two_at_once_are_refused_and_a_foreign_database_is_not_dropped(
    taken: Backup, target: str, admin: str, tmp_path: Path
) -> None:
    with psycopg.connect(admin, autocommit=True) as other:
        other.execute("select pg_advisory_lock(%s, hashtext('target'))", [restore.LOCK])
        with pytest.raises(Refused, match="Another process is restoring into target"):
            restored(taken, target, tmp_path)
    execute(admin, "create database target_restoring")
    with pytest.raises(Refused, match="There is a database target_restoring, and no restore has made it"):
        restored(taken, target, tmp_path)
    assert databases(admin) == ["target_restoring"]


def test_a_server_older_than_the_backup_is_refused(taken: Backup, target: str, tmp_path: Path) -> None:
    newer = Backup(taken.folder, {**taken.facts, "server": {"major": 99, "version": "99.1"}})
    with pytest.raises(
        Refused, match=r"The server is PostgreSQL \d+; the backup is of PostgreSQL 99, and needs that"
    ) as no:
        restored(newer, target, tmp_path)
    assert no.value.problems[0].mend == "--into a database of a server of PostgreSQL 99, or newer"


def test_a_long_name_is_cut_as_postgresql_would(taken: Backup, admin: str, tmp_path: Path) -> None:
    name = "ä" * 31
    execute(admin, f"create database {name}")
    dsn = conninfo.make_conninfo(admin, dbname=name)
    execute(dsn, "create table t ()")
    done = restored(taken, dsn, tmp_path, over=name)
    assert databases(admin) == sorted([name, done.before]) and len(done.before.encode()) <= 63
    assert execute(dsn, "select count(*) from parted") == [(30,)]


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}]
from release_tasks.backups import restore, shelf
from release_tasks.settings import Settings
folder = Path({folder!r})
taken = shelf.Backup(folder, shelf.read_json(folder / "backup.json"))
print(restore.restore(taken, {dsn!r}, Path({tmp!r}), Settings(), "target").before)
"""


def test_a_restore_that_is_killed_leaves_the_target_and_the_same_command_finishes(
    server: postgres.Running, target: str, admin: str, tmp_path: Path
) -> None:
    with database(server, NAME) as dsn:
        execute(dsn, "create table slow as select g as n from generate_series(1, 1000000) g; create index on slow (n)")
        taken = backup.take(environment_at(dsn, tmp_path), "")
    execute(admin, "create database target")
    execute(target, "create table old ()")
    root = str(Path(__file__).parents[2])
    program = KILLED.format(root=root, folder=str(taken.folder), dsn=target, tmp=str(tmp_path))
    loading = "select 1 from pg_stat_activity where datname = 'target_restoring' and query ~ '^(COPY|CREATE INDEX)'"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as killed:
        while not execute(admin, loading) and killed.poll() is None:
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
    assert databases(admin) == ["target", "target_restoring"]
    assert execute(target, "select to_regclass('old')::text") == [("old",)]
    again = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert databases(admin) == ["target", again.stdout.strip()]
    assert execute(target, "select count(*) from slow") == [(1000000,)]


def test_names_may_be_as_odd_as_postgresql_allows(admin: str, tmp_path: Path) -> None:
    odd, other = """we"ird {database} = 'n\\'""", "Other % Name"
    dsn = conninfo.make_conninfo(admin, dbname=odd)
    execute(admin, 'create database "we""ird {database} = \'n\\\'"')
    execute(
        dsn,
        """create role "backup a to b"; create role "backup ""q%s'"; grant "backup a to b" to "backup ""q%s'";
        create table "T ""%s" as select 1; alter table "T ""%s" owner to "backup ""q%s'";
        alter database "we""ird {database} = 'n\\'" set app.title to '%s {database} \\';
        alter role "backup a to b" in database "we""ird {database} = 'n\\'" set work_mem to '1MB';
        alter role "backup a to b" set app.title to '%s'""",
    )
    taken = backup.take(environment_at(dsn, tmp_path), "")
    execute(admin, 'drop database "we""ird {database} = \'n\\\'"')
    for role in taken.facts["roles"]:
        execute(admin, f"drop role {role}")
    done = restored(taken, conninfo.make_conninfo(admin, dbname=other), tmp_path)
    assert sorted(done.made) == ['"backup ""q%s\'"', '"backup a to b"']
    assert execute(conninfo.make_conninfo(admin, dbname=other), "show app.title") == [("%s {database} \\",)]


def test_a_backup_goes_into_a_newer_server(taken: Backup, tmp_path: Path) -> None:
    with scratch.server(tmp_path, like=newest_server()) as newer:
        assert restored(taken, newer.dsn("target"), tmp_path).name == "target"
        assert execute(newer.dsn("target"), "select count(*) from parted") == [(30,)]


# Choosing


def test_without_a_name_what_there_is_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = environment_at("", tmp_path)
    folder = shelf.folder_of(environment)
    with pytest.raises(Refused, match="Which backup") as no:
        shelf.choose(folder, None)
    assert no.value.problems[0].mend == "inv backup.take"
    older, newer, _ = make(environment, 1, verified=False), make(environment, 2), make(environment, 3, verified=False)
    with pytest.raises(Refused, match="Which backup") as no:
        shelf.choose(folder, None)
    assert newer.name in no.value.problems[0].mend
    shown = capsys.readouterr().out
    assert shown.index(newer.name) < shown.index(older.name)
    with pytest.raises(Refused, match="There is no backup 'nothing'"):
        shelf.choose(folder, "nothing")
    for wanted in (older.name, str(older.folder), str(older.folder / "SHA256SUMS")):
        assert shelf.choose(folder, wanted).folder == older.folder


# As a command


@pytest.fixture
def little(tmp_path: Path, taken: Backup, target: str) -> Path:
    """Return the folder of a repo whose production is the target, and whose backups are at hand."""
    root = Path(__file__).parents[2]
    for name in ("release_tasks", "tasks.py"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "invoke.yaml").write_text(
        "tasks: {executor_class: release_tasks.executor.ReleaseExecutor}\nrelease:\n"
        f"  backup: {{folder: {taken.folder.parent}, recipients: [{RECIPIENTS[0]}]}}\n"
        "  environments:\n"
        "    production: {dsn: '${TARGET}', origin: 'http://127.0.0.1:9', folder: p, log: l, restart: [x]}"
    )
    return tmp_path


def inv(little: Path, target: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TARGET": target}
    argv = [sys.executable, "-m", "invoke", *words]
    ran = subprocess.run(argv, cwd=little, env=environment, capture_output=True, text=True)
    assert "Traceback" not in ran.stdout + ran.stderr
    return ran


def test_the_commands_take_encrypt_list_and_restore(little: Path, target: str, taken: Backup, admin: str) -> None:
    ran = inv(little, target, "backup.restore", "--from", taken.name, "--into", "production")
    assert ran.returncode == 0 and "2 tables, 530 rows" in ran.stdout, ran.stdout
    assert "The role backup_reader was made; a backup holds no passwords" in ran.stdout
    assert psycopg.conninfo.conninfo_to_dict(target)["password"] not in ran.stdout + ran.stderr
    ran = inv(little, target, "backup.take")
    assert ran.returncode == 0 and "encrypted" in ran.stdout and "530 rows are the same" in ran.stdout, ran.stdout
    (sealed,) = (each for each in shelf.backups_in(taken.folder.parent) if each.is_sealed)
    assert sealed.counts
    words = ("backup.restore", "--from", sealed.name, "--into", target)
    assert "--over target" in inv(little, target, *words).stdout
    told = inv(little, target, *words, "--over", "target").stdout
    assert "is encrypted" in told and "--identity FILE --over target " in told
    for key, code in ((x25519.Identity.generate(), 1), (KEY, 0)):
        (little / "key").write_text(str(key))
        ran = inv(little, target, *words, "--over", "target", "--identity", "key")
        assert ran.returncode == code, ran.stdout
    assert "What was there before is the database target_before_" in ran.stdout
    assert left_in(little / ".release") == [".gitignore", "scratch"]


def test_a_dry_restore_refuses_what_the_real_one_does_and_changes_nothing(
    little: Path, target: str, taken: Backup, admin: str
) -> None:
    words = ("--dry", "backup.restore", "--from", taken.name, "--into", target)
    ran = inv(little, target, *words)
    assert ran.returncode == 0 and "into the database target." in ran.stdout, ran.stdout
    assert 'roles that would be made: "Backup Owner", backup_reader.' in ran.stdout
    execute(admin, "create database target")
    execute(target, "create table t ()")
    ran = inv(little, target, *words)
    assert ran.returncode == 1 and "The database target holds 1 objects" in ran.stdout
    ran = inv(little, target, *words, "--over", "target")
    assert ran.returncode == 0 and "would be the database target_before_<UTC time> then" in ran.stdout
    gone = conninfo.make_conninfo(target, port="1")
    ran = inv(little, target, *words[:-1], gone)
    assert ran.returncode == 1 and "cannot be restored into target" in ran.stdout
    assert databases(admin) == ["target"] and execute(admin, ROLES) == []


def test_a_command_that_names_too_little_or_a_damaged_backup_is_refused(
    little: Path, target: str, taken: Backup, admin: str
) -> None:
    assert taken.name in inv(little, target, "backup.restore").stdout
    assert "Into which database?" in inv(little, target, "backup.restore", "--from", taken.name).stdout
    assert (
        "no environment 'nowhere'"
        in inv(little, target, "backup.restore", "--from", taken.name, "--into", "nowhere").stdout
    )
    environment = Environment("staging", Settings.model_validate({"backup": {"folder": str(taken.folder.parent)}}),
                              little, "", "", little, None)  # fmt: skip
    damaged = make(environment, 1, damaged=True)
    ran = inv(little, target, "backup.restore", "--from", damaged.name, "--into", "production")
    assert ran.returncode == 1 and "dump/toc.dat is not what SHA256SUMS says" in ran.stdout
    (damaged.dump / "toc.dat").unlink()
    resum(damaged)
    (damaged.folder / shelf.FACTS).unlink()
    assert (
        "backup.json is not what"
        in inv(little, target, "backup.restore", "--from", damaged.name, "--into", target).stdout
    )
    assert databases(admin) == []


def test_an_embedded_environment_gets_it_without_its_services(
    taken: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.model_validate({"services": {"web": ["no such program"]}})
    with restore.target("staging", tmp_path, settings) as dsn:
        assert restored(taken, dsn, tmp_path).name == "app"
        assert execute(dsn, "select count(*) from parted") == [(30,)]
