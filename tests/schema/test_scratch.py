"""A scratch server leaves nothing behind, and what a pack makes there is known by object and file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from release_tasks.database import catalog, postgres
from release_tasks.database.postgres_home import Home
from release_tasks.errors import Refused
from release_tasks.files import records_folder
from release_tasks.schema import scratch
from release_tasks.schema.ddl import DdlFile
from release_tasks.settings import Settings
from tests.processes.test_shell import alive

SAMPLE = Path(__file__).parents[2] / "sample" / "src" / "scripts" / "db" / "ddl"
SETTINGS = Settings()


def pack_of(**files: str) -> list[DdlFile]:
    return [DdlFile(f"ddl/{name}.sql", text.encode()) for name, text in files.items()]


def made_on(server: postgres.Running, pack: list[DdlFile]) -> scratch.Made:
    with scratch.database(server) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        return scratch.make(connection, pack, SETTINGS)


def left_in(root: Path) -> list[str]:
    return sorted(path.name for path in (records_folder(root) / "scratch").iterdir())


def test_a_server_leaves_nothing_whether_its_block_ends_well_or_not(tmp_path: Path) -> None:
    with scratch.server(tmp_path) as one, scratch.server(tmp_path) as two:
        assert one.port != two.port
        homes = [Home.of(running.log.parent) for running in (one, two)]
        pids = [int(home.pid_file.read_text().split()[0]) for home in homes]
        with psycopg.connect(two.dsn("postgres"), autocommit=True) as connection:
            connection.execute("create role only_here")
            assert connection.execute("show autovacuum").fetchone() == ("off",)
        with psycopg.connect(one.dsn("postgres")) as connection:
            assert connection.execute("select 1 from pg_roles where rolname = 'only_here'").fetchone() is None
    with pytest.raises(ZeroDivisionError), scratch.server(tmp_path) as three:
        homes.append(Home.of(three.log.parent))
        pids.append(int(homes[-1].pid_file.read_text().split()[0]))
        raise ZeroDivisionError
    assert left_in(tmp_path) == [] and not any(home.path.exists() for home in homes) and not any(map(alive, pids))


def test_a_server_that_cannot_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PG_BIN", str(tmp_path))
    with pytest.raises(Refused, match="does not hold initdb"), scratch.server(tmp_path):
        pass
    assert left_in(tmp_path) == []


def test_what_a_killed_run_left_is_removed_by_the_next_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; from release_tasks.schema import scratch\n"
        f"with scratch.server(pathlib.Path({str(tmp_path)!r})) as running:\n"
        "    print(running.log.parent, flush=True); time.sleep(600)"
    )
    killed, using = (subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in "ab")
    try:
        assert killed.stdout and using.stdout
        left, used = (Path(each.stdout.readline().strip()) for each in (killed, using))
        killed.kill()
        killed.wait()
        with scratch.server(tmp_path) as running:
            assert not left.exists() and not Home.of(left).path.exists()
            assert left_in(tmp_path) == sorted(
                name for folder in (used, running.log.parent) for name in (folder.name, f"{folder.name}.lock")
            )
    finally:
        using.send_signal(signal.SIGINT)
        killed.communicate()
        using.communicate()
    assert left_in(tmp_path) == []


def test_a_left_over_whose_port_another_server_has_is_no_obstacle(
    tmp_path: Path, server: postgres.Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "ENDING", 0.0)
    folder = records_folder(tmp_path) / "scratch" / "left"
    home = Home.of(folder)
    home.data.mkdir(parents=True)
    home.pid_file.write_text(f"{os.getpid()}\n\n\n{server.port}\n")
    folder.mkdir(parents=True, exist_ok=True)
    folder.with_suffix(".lock").touch()
    with scratch.server(tmp_path):
        pass
    assert left_in(tmp_path) == ["left", "left.lock"]
    home.pid_file.unlink()
    with scratch.server(tmp_path):
        pass
    assert left_in(tmp_path) == [] and not home.path.exists()


def test_a_database_goes_with_its_roles_whatever_they_own_and_may(server: postgres.Running) -> None:
    for _ in range(2):
        with scratch.database(server, "Two words") as dsn, psycopg.connect(dsn, autocommit=True) as connection:
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


def test_each_object_of_the_sample_has_the_file_that_made_it(server: postgres.Running) -> None:
    pack = [DdlFile(path.name, path.read_bytes()) for path in sorted(SAMPLE.glob("*.sql"))]
    made = made_on(server, pack)
    folders = {
        "settings": "02_settings.sql",
        "market": "03_market.sql",
        "ingest": "04_ingest.sql",
        "str_aux": "05_str_aux.sql",
        "cin_aux": "06_dynamics.sql",
        "mea_dynamics": "06_dynamics.sql",
        "matrices": "07_matrices.sql",
        "wallet": "08_wallet.sql",
        "docs": "09_docs.sql",
        "debug": "10_debug_views.sql",
    }
    for name, definition in made.objects.items():
        kind, within = catalog.kind_of(name), catalog.object_of(name).split(".")[0]
        if name == "schema public" or definition == catalog.OWNER:
            expected = None
        elif kind == "extension":
            expected = "01_extensions.sql"
        elif kind == "schema":
            expected = "00_schemas.sql"
        elif kind in ("role", "grants"):
            expected = "99_security.sql" if not catalog.object_of(name).startswith("on schema public") else None
        elif within == "ops":
            expected = "02_b_ops_open_all_sessions.sql" if kind == "function" else "02_a_ops_session_stamp.sql"
        else:
            expected = folders.get(within, made.files.get(name))
        assert made.files.get(name) == expected, name


def test_files_are_those_that_wrote_an_object_last_and_grants_take_none(server: postgres.Running) -> None:
    pack = pack_of(
        a="""
            create schema s; create role reader; create table s.t (id serial primary key);
            create view s.v as select 1 as a; create view s.w as select 1 as a;
            create function s.f() returns integer language sql as 'select 1'; create type s.mood as enum ('bad');
            create function s.g() returns integer language sql as 'select 1'; create sequence s.numbers;
            do $$ begin create table s.inner_ (id integer); exception when others then raise; end $$;
        """,
        b="alter table s.t add name text; create index on s.t (id); create or replace view s.v as select 2 as a;",
        c="begin; create or replace function s.f() returns integer language sql as 'select 2'; commit;create role late",
        d="-- release: no-transaction\ncreate index concurrently later on s.t (name);\ncreate schema late;",
        e="create table if not exists s.t (id integer); create policy p on s.t using (true); grant reader to late;",
        f="""
            grant select on s.t, s.v to reader; grant usage on schema s to reader;
            grant execute on function s.f() to reader; grant usage on type s.mood to reader;
            grant usage on sequence s.numbers, s.t_id_seq to reader;
            alter role reader login; revoke all on schema public from public;
        """,
        g="set role reader; set search_path = nowhere;",
    )
    files = {name: path.removesuffix(".sql").removeprefix("ddl/") for name, path in made_on(server, pack).files.items()}
    expected = {
        "a": "schema s, role reader, table s.t, column s.t.id, constraint s.t.t_pkey, sequence s.t_id_seq, "
        "type s.mood, function s.g(), sequence s.numbers, view s.w, table s.inner_, column s.inner_.id",
        "b": "column s.t.name, index s.t.t_id_idx, view s.v",
        "c": "function s.f(), role late",
        "d": "index s.t.later, schema late",
        "e": "policy s.t.p, membership reader to late",
        "f": "grants on table s.t to reader, grants on schema s to reader, grants on function s.f() to reader",
    }
    assert {name: files.get(name) for names in expected.values() for name in names.split(", ")} == {
        name: file for file, names in expected.items() for name in names.split(", ")
    }
    assert "g" not in files.values() and "schema public" not in files


def test_what_a_pack_makes_is_remembered_for_exactly_these_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = pack_of(a="create schema s;", b="\n\ncreate view s.v as select 1 as a;")
    made = scratch.made_by(pack, tmp_path, SETTINGS)
    assert made.files == {"schema s": "ddl/a.sql", "view s.v": "ddl/b.sql"}
    with monkeypatch.context() as patch:
        patch.setattr(scratch, "server", None)
        assert scratch.made_by(pack, tmp_path, SETTINGS) == made
    one_byte_more = [pack[0], DdlFile(pack[1].path, pack[1].content + b"\n")]
    assert scratch.made_by(one_byte_more, tmp_path, SETTINGS) == made
    remembered = sorted((records_folder(tmp_path) / "cache").iterdir())
    with pytest.raises(Refused, match=r'ddl/b\.sql, line 3: schema "s" does not exist'):
        scratch.made_by(pack[::-1], tmp_path, SETTINGS)
    assert len(remembered) == 2 and left_in(tmp_path) == []
    assert sorted((records_folder(tmp_path) / "cache").iterdir()) == remembered


def test_two_processes_may_remember_the_same_at_once(tmp_path: Path) -> None:
    code = (
        "import pathlib; from release_tasks.schema import scratch; from release_tasks.schema.ddl import DdlFile\n"
        "from release_tasks.settings import Settings\n"
        f"made = scratch.made_by([DdlFile('a.sql', b'create schema s')], pathlib.Path({str(tmp_path)!r}), Settings())\n"
        "print(sorted(made.files.items()))"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [each.communicate()[0] for each in both] == ["[('schema s', 'a.sql')]\n"] * 2
    assert len(list((records_folder(tmp_path) / "cache").iterdir())) == 1 and left_in(tmp_path) == []
