"""Drift is what a database holds otherwise than its pack makes it, and nothing else that is on its server."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection

from release_tasks import ddl
from release_tasks.database import apply, programs, proof, psql
from release_tasks.database.pack import DdlFile
from release_tasks.database.server import Running, scratch, scratch_database
from release_tasks.environments import Environment
from release_tasks.errors import Refused
from release_tasks.settings import Ddl, Settings
from tests.conftest import Work, majors
from tests.test_bad_input import run_here

ROOT = Path(__file__).parents[2]
PACK = [
    DdlFile(
        "ddl/1.sql",
        b"""
        do $$ begin create role reader; exception when duplicate_object then null; end $$;
        do $$ begin create role app; exception when duplicate_object then null; end $$;
        create schema if not exists s;
        create table if not exists s.t (id serial primary key, name text);
        create or replace view s.names as select name from s.t;
        grant usage on schema s to reader;
        grant select on all tables in schema s to reader;
        grant all on all tables in schema s to app;
        grant usage on schema s to app;
        alter default privileges grant select on tables to reader;
        """,
    ),
]
IN_A_FILE = Settings.model_validate({"ddl": {"folder": "ddl"}})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that remembers what PACK makes for as long as these tests run."""
    return tmp_path_factory.mktemp("drift")


@pytest.fixture
def environment(server: Running, root: Path) -> Iterator[Environment]:
    """An environment to which PACK was applied, with the ledger."""
    with scratch_database(server, "live") as dsn:
        environment = Environment("production", IN_A_FILE, root, dsn, "", root, None)
        apply.apply(environment, PACK, root, "0.1.1")
        yield environment


@pytest.fixture
def live(environment: Environment) -> Iterator[Connection]:
    with environment.connect() as connection:
        yield connection


def names(environment: Environment, dsn: str = "") -> list[str]:
    return [f"{each.name} {each.how}" for each in apply.drift(replace(environment, dsn=dsn or environment.dsn), PACK)]


@pytest.mark.parametrize(
    ("by_hand", "expected"),
    [
        ("drop table s.t cascade", ["table s.t missing", "view s.names missing"]),
        ("alter table s.t add more text", ["table s.t changed"]),
        ("alter table s.t alter name set storage external", ["table s.t changed"]),
        ("create index by_name on s.t (name)", ["index s.by_name new"]),
        ("create table s.mine (id serial)", ["table s.mine new"]),
        ("create cast (s.t as text) with inout", ["cast (s.t AS text) new"]),
        ("create statistics s.pairs on id, name from s.t", ["statistics s.pairs new"]),
        ("revoke select on s.t from reader", ["acl table s.t changed"]),
        ("grant insert on s.t to reader", ["acl table s.t changed"]),
        ("alter role reader login", ["role reader changed"]),
        ("alter view s.names owner to reader", ["acl table s.names changed", "view s.names changed"]),
        ("create role analyst; grant select on s.t to analyst", ["acl table s.t changed"]),
        ("grant reader to app", ["membership reader to app new"]),
        ("grant pg_read_all_data to reader", ["membership pg_read_all_data to reader new"]),
        ("create role analyst; grant reader to analyst", []),
        ("drop schema public", []),
        ("alter index s.t_pkey set tablespace pg_default; comment on table s.t is 'x'", []),
    ],
)
def test_each_object_is_named_that_differs(
    live: Connection, environment: Environment, by_hand: str, expected: list[str]
) -> None:
    """D5"""
    live.execute(by_hand.encode())
    assert names(environment) == expected


def test_no_drift_where_the_pack_was_applied_by_a_role_that_it_grants_to(server: Running, root: Path) -> None:
    with scratch_database(server, "live") as dsn, psycopg.connect(dsn, autocommit=True) as live:
        live.execute("create role app login password 'x' createrole; alter database live owner to app; set role app")
        live.execute(PACK[0].content)
        environment = Environment("production", IN_A_FILE, root, dsn, "", root, None)
        by_app = psycopg.conninfo.make_conninfo(dsn, user="app", password="x")
        assert names(environment, by_app) == ["role app changed"]


def test_no_drift_where_the_role_that_applied_the_pack_has_to_be_quoted(server: Running, root: Path) -> None:
    to_it = b'grant select on s.t to "app-prod";'
    make = (
        b"do $$ begin create role \"app-prod\" login password 'x'; exception when duplicate_object then null; end $$;"
    )
    pack = [DdlFile("ddl/0.sql", make), *PACK, DdlFile("ddl/2.sql", to_it)]
    with scratch_database(server, "live") as dsn, psycopg.connect(dsn, autocommit=True) as live:
        live.execute(make + b'alter database live owner to "app-prod"; alter role "app-prod" createrole;')
        live.execute('set role "app-prod"')
        for file in pack[1:]:
            live.execute(file.content)
        by_it = psycopg.conninfo.make_conninfo(dsn, user="app-prod", password="x")
        found = apply.drift(Environment("production", IN_A_FILE, root, by_it, "", root, None), pack)
    assert [f"{each.name} {each.how}" for each in found] == ['role "app-prod" changed']


def test_a_role_that_may_not_read_a_table_is_told_in_a_sentence(live: Connection, environment: Environment) -> None:
    live.execute("create role looker login password 'looks'")
    looker = psycopg.conninfo.make_conninfo(environment.dsn, user="looker", password="looks")
    with pytest.raises(Refused, match="permission denied for schema"):
        names(environment, looker)


@pytest.mark.parametrize("encoding", ["latin1", "sql_ascii"])
def test_no_drift_in_a_database_of_another_encoding(server: Running, root: Path, encoding: str) -> None:
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
        admin.execute("drop database if exists western")
        admin.execute(f"create database western template template0 encoding {encoding} locale 'C'")
        admin.execute("alter database western set client_encoding = latin1")
        environment = Environment("production", IN_A_FILE, root, server.dsn("western"), "", root, None)
        pack = [
            DdlFile("ddl/00_s.sql", 'create schema if not exists s; create table if not exists s."naïve" ();'.encode())
        ]
        apply.apply(environment, pack, root, "0.1.1")
        assert apply.drift(environment, pack) == []
        admin.execute("drop database western with (force)")


def test_a_ledger_in_a_schema_of_the_pack_s_own_is_no_drift(live: Connection, environment: Environment) -> None:
    environment.settings = Settings.model_validate({"ddl": {"ledger": "s.ledger"}})
    apply.apply(environment, PACK, environment.root, "0.1.1")
    live.execute("drop schema ops cascade")
    assert names(environment) == []
    live.execute("drop schema s cascade")
    assert "schema s missing" in names(environment)


def test_shifts_are_named_with_the_lines_that_differ(tmp_path: Path) -> None:
    """D4"""
    view = "create or replace view v as select n from t;"
    old = {"00_a": f"create table if not exists t (n int); {view}", "01_b": "create table if not exists gone (n int);"}
    new = {
        "00_a": "-- said better\ncreate table if not exists t (n  bigint);\n",
        "02_c": f"{view} create table if not exists late (n int primary key);",
    }
    events = "create function f() returns event_trigger language plpgsql as 'begin end'; create event trigger e on {};"
    old["03_e"], new["03_e"] = (
        events.format(f"{event} execute function f()") + f"create publication p for {of};"
        for event, of in (("ddl_command_end", "table t"), ("sql_drop", "all tables"))
    )
    before, now = ([DdlFile(f"ddl/{name}.sql", text.encode()) for name, text in files.items()] for files in (old, new))
    assert [str(shift) for shift in proof.shifts(before, now, tmp_path, Settings())] == [
        "event-trigger e is changed: - CREATE EVENT TRIGGER e ON ddl_command_end; + CREATE EVENT TRIGGER e ON sql_drop",
        "publication p is changed: - CREATE PUBLICATION p WITH (publish = 'insert, update, delete, truncate'); "
        "+ CREATE PUBLICATION p FOR ALL TABLES WITH (publish = 'insert, update, delete, truncate')",
        "publication-table public.p t is dropped",
        "table public.gone is dropped",
        "table public.late is new",
        "table public.t is changed: - n integer; + n bigint",
    ]
    assert proof.shifts(now, now[::1], tmp_path, Settings()) == []
    with pytest.raises(Refused, match=r"ddl/00_a\.sql, line 2"):
        proof.shifts([], [DdlFile("ddl/00_a.sql", b"\nselect nothing from nowhere;")], tmp_path, Settings())


def test_what_a_pack_makes_is_remembered_for_exactly_these_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = [DdlFile("ddl/a.sql", b"create schema s;"), DdlFile("ddl/b.sql", b"\n\ncreate view s.v as select 1 as a;")]
    made = proof.made_by(pack, tmp_path, Settings())
    assert list(made) == ["schema s", "view s.v"]
    with monkeypatch.context() as patch:
        patch.setattr(proof, "scratch", None)
        assert proof.made_by(pack, tmp_path, Settings()) == made
    with pytest.raises(Refused, match=r'ddl/b\.sql, line 3: schema "s" does not exist'):
        proof.made_by(pack[::-1], tmp_path, Settings())
    assert len(list((tmp_path / ".release" / "cache").iterdir())) == 1


@pytest.fixture
def inv(
    work: Work, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what runs `inv ddl.drift` in a repository whose database may be anywhere."""
    shutil.copy(ROOT / "tasks.py", work.root)

    def inv(
        *args: str, task: str = "ddl.drift", settings: str = "{}", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        (work.root / "invoke.yaml").write_text(
            f"tasks: {{executor_class: release_tasks.engine.ReleaseExecutor}}\nrelease: {settings}\n"
        )
        capfd.readouterr()
        code = run_here([task, *args], work.root, variables, monkeypatch)
        return subprocess.CompletedProcess([task, *args], code, *capfd.readouterr())

    return inv


def test_an_embedded_dev_has_no_drift(inv: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    before = inv()
    assert before.returncode == 1 and "dev: table app.things is missing." in before.stdout
    assert "inv ddl.apply --env dev" in before.stdout
    assert inv(task="ddl.apply").returncode == 0
    ran = inv()
    assert (ran.returncode, ran.stdout) == (0, "No drift: dev is what the pack of the working tree makes.\n"), (
        ran.stderr
    )


def test_drift_is_shown_with_its_exceptions_and_ends_with_1(
    inv: Callable[..., subprocess.CompletedProcess[str]], server: Running, work: Work
) -> None:
    settings = (
        """{environments: {dev: {dsn: "${LIVE}", origin: "http://127.0.0.1:1"}}, ddl: {exceptions: {EXCEPT: why}}}"""
    )
    with scratch_database(server, "live") as dsn, psycopg.connect(dsn, autocommit=True) as live:
        for file in sorted((work.root / "ddl").glob("*.sql")):
            live.execute(file.read_bytes())
        live.execute("alter table app.things alter name set not null; create table app.more ()")
        live.execute("alter default privileges grant select on tables to pg_monitor")
        both = inv(settings=settings.replace("EXCEPT", "nothing"), LIVE=dsn)
        assert both.returncode == 1 and "Traceback" not in both.stderr
        assert "dev: table app.more is new." in both.stdout
        assert "dev: table app.things is changed: - name text; + name text NOT NULL." in both.stdout
        assert "default-acl DEFAULT PRIVILEGES FOR TABLES is new." in both.stdout
        hint = "Bring it into the pack, give a reason in release.ddl.exceptions, or undo it by hand."
        assert both.stdout.count(hint) == 3 and "Drop" not in both.stdout
        assert both.stdout.count("inv ddl.apply --env dev --again   # or this") == 1
        live.execute("alter default privileges revoke select on tables from pg_monitor")
        as_json = inv("--json", settings=settings.replace("EXCEPT", "more"), LIVE=dsn)
        found = json.loads(as_json.stdout)
        assert as_json.returncode == 1 and found["server"] == found["scratch"]
        assert [(each["name"], each["how"], each["excepted"]) for each in found["drift"]] == [
            ("table app.more", "new", "why"),
            ("table app.things", "changed", None),
        ]
        excepted = inv(settings=settings.replace("EXCEPT", "table app"), LIVE=dsn)
        assert excepted.returncode == 0 and excepted.stdout.count("why") == 2


def test_an_environment_is_compared_with_the_pack_that_its_ledger_names(
    inv: Callable[..., subprocess.CompletedProcess[str]], server: Running, work: Work
) -> None:
    """Whatever HEAD had more was drift, and the hint applied what was not released yet."""
    work.release_before("v0.1.1")
    staging = '{dsn: "${LIVE}", origin: "http://127.0.0.1:1", folder: .release/at, restart: [git], log: l}'
    with scratch_database(server, "live") as dsn, psycopg.connect(dsn, autocommit=True) as live:
        pack = [DdlFile(f"ddl/{file.name}", file.read_bytes()) for file in sorted((work.root / "ddl").glob("*.sql"))]
        assert psql.run(dsn, pack, Ddl(), "0.1.1", "staging").problems == ()
        work.commit({"ddl/03_more.sql": "create table app.more ()", "VERSION": "0.1.2-dev\n"})
        how = {"settings": f"{{environments: {{staging: {staging}}}}}", "LIVE": dsn}
        ran = inv("--env", "staging", **how)
        assert ran.stdout == "No drift: staging is what the pack of v0.1.1 makes.\n", ran.stderr
        live.execute("drop table app.things")
        hint = "git switch --detach v0.1.1 && inv ddl.apply --env staging --again\n"
        assert hint in inv("--env", "staging", **how).stdout
        assert json.loads(inv("--env", "staging", "--json", **how).stdout)["pack"] == "v0.1.1"
        assert inv("--env", "staging", task="ddl.apply", **how).returncode == 0
        ran = inv("--env", "staging", **how)
        assert ran.stdout == "No drift: staging is what the pack of HEAD makes.\n", "what was applied by hand was drift"
        live.execute("drop table app.things")
        assert "Compared with the pack of HEAD.\n" in inv("--env", "staging", **how).stdout


def test_it_is_said_that_a_scratch_server_is_of_another_major_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], work: Work
) -> None:
    oldest, newest = min(majors()), max(majors())
    with scratch(tmp_path, oldest) as running, scratch_database(running, "live") as dsn:
        folder = programs.find_bin(newest)
        monkeypatch.delenv("PG_BIN")
        monkeypatch.setattr(programs, "_folders", lambda: iter([folder]))
        config = Config(release={"environments": {"dev": {"dsn": "${LIVE}", "origin": "http://127.0.0.1:1"}}})
        config._project_prefix = str(work.root)
        monkeypatch.setenv("LIVE", dsn)
        with pytest.raises(Refused, match="schema app is missing"):
            ddl.report_drift(config, "dev", as_json=False)
    told = f"dev is PostgreSQL {oldest}, the scratch server {newest}: "
    assert (told in capsys.readouterr().out) == (oldest != newest)


class Config(dict):
    """Invoke's, as far as a report reads it."""

    _project_prefix = ""
