"""Drift is what a database holds otherwise than its pack makes it, and nothing else that is on its server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection

from release_tasks.database import postgres, postgres_programs
from release_tasks.environments import Environment
from release_tasks.errors import Refused
from release_tasks.schema import applying, drift, scratch
from release_tasks.schema.ddl import DdlFile
from release_tasks.settings import Settings
from tests.conftest import Work

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
def environment(server: postgres.Running, root: Path) -> Iterator[Environment]:
    """An environment to which PACK was applied, with the ledger."""
    with scratch.database(server, "live") as dsn:
        environment = Environment("production", IN_A_FILE, root, dsn, "", root, None)
        applying.apply(environment, PACK, root, "0.1.1")
        yield environment


@pytest.fixture
def live(environment: Environment) -> Iterator[Connection]:
    with environment.connect() as connection:
        yield connection


def told(live: Connection, environment: Environment) -> list[str]:
    return [f"{each.name} {each.how}" for each in drift.drift_of(live, PACK, environment)]


@pytest.mark.parametrize(
    ("by_hand", "expected"),
    [
        ("drop table s.t cascade", ["view s.names missing", "table s.t missing"]),
        ("alter table s.t add more text", ["column s.t.more nobody's"]),
        ("alter table s.t alter name set not null", ["column s.t.name differs"]),
        ("create index by_name on s.t (name)", ["index s.t.by_name nobody's"]),
        ("create table s.mine (id serial)", ["table s.mine nobody's"]),
        ("revoke select on s.t from reader", ["grants on table s.t to reader missing"]),
        ("grant insert on s.t to reader", ["grants on table s.t to reader differs"]),
        ("grant create on schema public to public", ["grants on schema public to public differs"]),
        ("alter role reader login", ["role reader differs"]),
        ("create role analyst; grant select on s.t to analyst", ["grants on table s.t to analyst nobody's"]),
        ("grant reader to app", ["membership reader to app nobody's"]),
        ("grant pg_read_all_data to reader", ["membership pg_read_all_data to reader nobody's"]),
        ("create role analyst; grant reader to analyst", []),
        ("revoke all on schema public from public", []),
        ("drop schema public", []),
        ("alter table s.t owner to app; alter schema s owner to app; comment on table s.t is 'x'", []),
    ],
)
def test_each_object_is_named_that_differs(
    live: Connection, environment: Environment, by_hand: str, expected: list[str]
) -> None:
    live.execute(by_hand)
    assert told(live, environment) == expected


def test_no_drift_where_the_pack_was_applied_by_a_role_that_it_grants_to(server: postgres.Running, root: Path) -> None:
    with scratch.database(server, "live") as dsn, psycopg.connect(dsn, autocommit=True) as live:
        live.execute("create role app createrole; alter database live owner to app; set role app")
        live.execute(PACK[0].content)
        environment = Environment("production", IN_A_FILE, root, dsn, "", root, None)
        assert told(live, environment) == ["role app differs"]


def test_a_role_that_can_only_log_in_may_look(live: Connection, environment: Environment) -> None:
    live.execute("create role looker login password 'looks'; create table s.mine ()")
    dsn = psycopg.conninfo.make_conninfo(environment.dsn, user="looker", password="looks")
    with psycopg.connect(dsn) as connection:
        assert told(connection, environment) == ["table s.mine nobody's"]


def test_a_look_that_the_server_ends_is_a_sentence(live: Connection, environment: Environment) -> None:
    live.execute("set statement_timeout = 1")
    with pytest.raises(Refused, match="The catalogs of production cannot be read: canceling statement"):
        drift.drift_of(live, PACK, environment)


def test_a_ledger_in_a_schema_of_the_pack_s_own_is_no_drift(live: Connection, environment: Environment) -> None:
    settings = Settings.model_validate({"ddl": {"ledger": "s.ledger"}})
    environment.settings = settings
    applying.apply(environment, PACK, environment.root, "0.1.1")
    live.execute("drop schema ops cascade")
    assert told(live, environment) == []
    live.execute("drop schema s cascade")
    assert "schema s missing" in told(live, environment)


@pytest.fixture
def inv(work: Work) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what runs `inv ddl.drift` in a repository whose database may be anywhere."""
    shutil.copy(ROOT / "tasks.py", work.root)

    def inv(*args: str, settings: str = "{}", **variables: str) -> subprocess.CompletedProcess[str]:
        (work.root / "invoke.yaml").write_text(
            f"tasks: {{executor_class: release_tasks.executor.ReleaseExecutor}}\nrelease: {settings}\n"
        )
        argv = [sys.executable, "-m", "invoke", "ddl.drift", *args]
        env = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
        return subprocess.run(argv, cwd=work.root, env=env, capture_output=True, text=True, check=False)

    return inv


def test_an_embedded_dev_has_no_drift(inv: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    ran = inv()
    assert (ran.returncode, ran.stdout) == (0, "No drift: dev is what its 2 files make.\n"), ran.stderr


def test_drift_is_shown_with_its_exceptions_and_ends_with_1(
    inv: Callable[..., subprocess.CompletedProcess[str]], server: postgres.Running, work: Work
) -> None:
    settings = (
        """{environments: {dev: {dsn: "${LIVE}", origin: "http://127.0.0.1:1"}}, ddl: {exceptions: {EXCEPT: why}}}"""
    )
    with scratch.database(server, "live") as dsn, psycopg.connect(dsn, autocommit=True) as live:
        for file in sorted((work.root / "ddl").glob("*.sql")):
            live.execute(file.read_bytes())
        live.execute("alter table app.things add more text, alter name set not null")
        both = inv(settings=settings.replace("EXCEPT", "nothing"), LIVE=dsn)
        assert both.returncode == 1 and "Traceback" not in both.stderr
        assert "dev: column app.things.more was made by no file." in both.stdout
        assert "dev: column app.things.name differs: expected text; found text not null." in both.stdout
        assert "psql …   # drop column app.things.more, or bring it into the pack, or say why in" in both.stdout
        assert "psql …   # mend it by hand (alter …), or say why in release.ddl.exceptions" in both.stdout
        assert "ddl.apply" not in both.stdout, "it cannot change a column"
        as_json = inv("--json", settings=settings.replace("EXCEPT", "more"), LIVE=dsn)
        found = json.loads(as_json.stdout)
        assert as_json.returncode == 1 and found["server"] == found["scratch"]
        assert found["drift"] == [
            {"name": "column app.things.more", "how": "nobody's", "expected": "", "found": "text", "excepted": "why"},
            {
                "name": "column app.things.name",
                "how": "differs",
                "expected": "text",
                "found": "text not null",
                "excepted": None,
            },
        ]
        live.execute("drop table app.things")
        assert "inv ddl.apply --env dev --again" in inv(settings=settings, LIVE=dsn).stdout
        live.execute("create table app.things (name text)")
        live.execute("alter table app.things add more text, alter name set not null")
        excepted = inv(settings=settings.replace("EXCEPT", "column app"), LIVE=dsn)
        assert excepted.returncode == 0 and excepted.stdout.count("why") == 2
        assert inv("--json", settings=settings.replace("EXCEPT", "column app"), LIVE=dsn).returncode == 0


def test_it_is_said_that_a_scratch_server_is_of_another_major_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], work: Work
) -> None:
    with scratch.server(tmp_path, like=18) as running, scratch.database(running, "live") as dsn:
        first = postgres.find_bin()
        monkeypatch.setattr(postgres_programs, "_folders", lambda *_, **__: iter([first]))
        config = Config(release={"environments": {"dev": {"dsn": "${LIVE}", "origin": "http://127.0.0.1:1"}}})
        config._project_prefix = str(work.root)
        monkeypatch.setenv("LIVE", dsn)
        with pytest.raises(Refused, match="schema app is missing"):
            drift.report(config, "dev", as_json=False)
    differ = postgres.major(first / "postgres") != 18
    assert ("dev is PostgreSQL 18, the scratch server" in capsys.readouterr().out) == differ


class Config(dict):
    """Invoke's, as far as a report reads it."""

    _project_prefix = ""
