"""The proof of a DDL pack: what each pass must find, on a real scratch server, and what it must let pass."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from release_tasks.database import postgres
from release_tasks.schema import proof, scratch
from release_tasks.schema.ddl import DdlFile
from release_tasks.schema.proving import FileProof, Proof, Proving
from release_tasks.settings import Ddl, Settings

Prove = Callable[..., Proof]

TABLE = "create table if not exists t (n int primary key, name text not null default '');"
VIEW = "create or replace view v as select n from t;"
PACK = {"00_t": TABLE, "01_v": VIEW}
RUNNER = """
import os, pathlib, psycopg
with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
    files = sorted(pathlib.Path("ddl").glob("*.sql"))
    for file in files:
        connection.execute(file.read_bytes())
print(len(files), "files applied")
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Running]:
    with scratch.server(tmp_path_factory.mktemp("proof")) as running:
        yield running


@pytest.fixture
def prove(running: postgres.Running, tmp_path: Path) -> Prove:
    """Return what proves a pack (name → text) over that of the last release, with the settings of `ddl`."""

    def prove(now: dict[str, str], last: dict[str, str] | None = None, **ddl: Any) -> Proof:
        pack, before = pack_of(now), pack_of(last or {})
        for file in pack:
            (tmp_path / "ddl").mkdir(exist_ok=True)
            (tmp_path / file.path).write_bytes(file.content)
        made = Proof([FileProof(file.path) for file in pack])
        settings = Settings(ddl=Ddl(**ddl))
        Proving(made, pack, before, tmp_path, settings, running, lambda _: None).prove()
        return made

    return prove


def pack_of(files: dict[str, str]) -> list[DdlFile]:
    return [DdlFile(f"ddl/{name}.sql", text.encode()) for name, text in files.items()]


def told(found: Proof) -> list[str]:
    return [problem.what for problem in found.problems]


def test_a_good_pack_is_proved_with_its_times_its_rows_and_no_problem(prove: Prove) -> None:
    found = prove(PACK, PACK)
    assert told(found) == [] and found.told == [] and found.locks == []
    assert found.runs == 1 and found.rows == {"public.t": 3}
    assert list(found.seconds) == ["from empty", "again", "applied again over rows", *over_last(found)]
    assert all(file.seconds > 0 for file in found.files)


def over_last(found: Proof) -> list[str]:
    return [name for name in found.seconds if name == "applied over the last release over rows"]


def test_notices_and_warnings_are_counted_a_file(prove: Prove) -> None:
    loud = "do $$ begin raise warning 'a'; raise notice 'b'; raise notice 'c'; end $$;"
    found = prove({**PACK, "02_loud": loud})
    assert [(file.notices, file.warnings) for file in found.files] == [(0, 0), (0, 0), (2, 1)]


def test_a_file_that_needs_a_later_one_is_told_which(prove: Prove) -> None:
    (problem,) = told(
        prove({**PACK, "02_x": "\n\ninsert into u values (1);", "03_w": "select 1;", "04_u": "create table u (n int);"})
    )
    assert problem.startswith('ddl/02_x.sql, line 3: relation "u" does not exist (SQLSTATE 42P01). In: insert into u')
    assert problem.endswith("What is missing is made by ddl/04_u.sql, which comes later.")


@pytest.mark.parametrize(
    ("text", "later"),
    [
        ("select later_function();", "create function later_function() returns int language sql as 'select 1';"),
        ("create table x (kind later_type);", "create type later_type as enum ('a');"),
        ("create table later_schema.x ();", "create schema later_schema;"),
        ("grant select on t to later_role;", "create role later_role;"),
        ("select later_column from t;", "alter table t add column later_column int;"),
    ],
)
def test_whatever_kind_of_object_is_missing_the_file_that_makes_it_is_found(
    prove: Prove, text: str, later: str
) -> None:
    (problem,) = told(prove({"00_t": TABLE, "01_x": text, "02_noise": "select 1/0;", "03_later": later}))
    assert "ddl/01_x.sql" in problem and "made by ddl/03_later.sql" in problem


def test_what_the_failing_file_made_before_is_there_for_the_later_ones(prove: Prove) -> None:
    early = "create schema if not exists s; create or replace view s.early as select n from s.late;"
    found = prove({"00_s": early, "01_w": "select 1;", "02_late": "create table if not exists s.late (n int);"})
    (problem,) = told(found)
    assert problem.endswith("What is missing is made by ddl/02_late.sql, which comes later.")
    assert [file.seconds for file in found.files] == [None, None, None]


def test_what_no_file_makes_is_told_too(prove: Prove) -> None:
    (problem,) = told(prove({**PACK, "02_x": "select * from nowhere;", "03_y": "select 1;"}))
    assert problem.endswith("No later file makes what is missing.")


def test_the_statement_is_found_where_postgresql_gives_no_position(prove: Prove) -> None:
    (problem,) = told(prove({**PACK, "02_x": "select 1;\n\ninsert into t values (1), (1);"}))
    assert problem.startswith("ddl/02_x.sql, line 3: duplicate key value violates unique constraint")
    assert problem.endswith("In: insert into t values (1), (1)")


# Applied again


def test_a_pack_that_changes_something_when_applied_again_is_refused_with_the_object(prove: Prove) -> None:
    late = "alter table t add column if not exists late int;"
    again = f"do $$ begin if to_regclass('marker') is not null then {late} end if; end $$;"
    again += "create table if not exists marker ();"
    (problem,) = told(prove({**PACK, "02_x": again}))
    assert problem == "Applied again, the pack makes column public.t.late; it settles after 2 runs."


def test_a_pack_that_never_settles_is_said_to(prove: Prove) -> None:
    growing = "do $$ begin execute format('create table g_%s ()', (select count(*) from pg_class)); end $$;"
    problems = told(prove({**PACK, "02_x": growing}))
    assert len(problems) == 1 and problems[0].endswith("it does not settle in 5 runs.")


def test_a_pack_that_fails_when_applied_again_is_refused_with_file_and_message(prove: Prove) -> None:
    (problem,) = told(prove({"00_t": "create table t (n int);"}))
    assert problem.startswith('Applied again: ddl/00_t.sql, line 1: relation "t" already exists (SQLSTATE 42P07).')


def test_rows_that_come_with_every_application_are_told(prove: Prove) -> None:
    found = prove({**PACK, "02_log": "create table if not exists l (n int); insert into l values (1);"})
    assert told(found) == [] and found.told == ["Applied again, the pack adds rows to public.l."]


# Over rows


@pytest.mark.parametrize("destroying", ["truncate t;", "delete from t where n > -1000000;"])
def test_a_pack_that_destroys_rows_is_refused(prove: Prove, destroying: str) -> None:
    problems = told(prove({**PACK, "02_x": destroying}))
    assert problems == ["The pack, applied again, destroys rows: table public.t lost 3 of 3 rows."]


def test_a_pack_that_makes_a_table_anew_is_refused_for_its_rows(prove: Prove) -> None:
    found = prove({"00_t": f"drop table if exists t cascade; {TABLE}", "01_v": VIEW}, PACK)
    assert "The pack, applied over the last release, destroys rows: table public.t lost 3 of 3 rows." in told(found)
    assert found.locks == ["ddl/00_t.sql takes ACCESS EXCLUSIVE on public.t"]


def test_a_table_that_no_row_fits_is_told_and_is_no_problem(prove: Prove) -> None:
    found = prove({**PACK, "02_x": "create table if not exists x (n int not null check (n > n));"})
    assert told(found) == []
    assert found.told == ["No row could be made up for public.x: that the pack keeps what is there is not proved."]


# Over the last release


def test_a_table_that_only_changed_where_it_is_created_is_found(prove: Prove) -> None:
    (problem,) = told(prove({"00_t": TABLE.replace("int", "bigint"), "01_v": VIEW}, PACK))
    assert problem.startswith(
        "Over the last release the pack does not make what it makes from empty: column public.t.n"
    )
    assert "expected bigint" in problem


def test_a_table_that_is_brought_there_is_none_and_its_lock_is_told(prove: Prove) -> None:
    now = {"00_t": TABLE, "01_more": "alter table t add column if not exists more int;", "02_v": VIEW}
    found = prove(now, PACK)
    assert told(found) == [] and found.locks == ["ddl/01_more.sql takes ACCESS EXCLUSIVE on public.t"]


def test_what_only_an_older_release_made_is_told_and_is_no_problem(prove: Prove) -> None:
    found = prove(PACK, {**PACK, "02_old": "create table if not exists old ();"})
    assert told(found) == [] and len(found.told) == 1
    assert "table public.old was made by no file" in found.told[0]


def test_a_pack_that_cannot_be_applied_over_the_last_release_is_refused_once(prove: Prove) -> None:
    guard = (
        "if not exists (select from t where n > 5) and to_regclass('v') is not null and to_regclass('u') is null then"
    )
    now = f"{TABLE} do $$ begin {guard} alter table t alter n type bigint; end if; end $$;"
    (problem,) = told(prove({"00_t": now, "01_v": VIEW, "02_u": "create table if not exists u ();"}, PACK))
    assert problem.startswith(
        "Over the last release: ddl/00_t.sql, line 1: cannot alter type of a column used by a view"
    )


def test_problems_of_different_passes_come_at_once(prove: Prove) -> None:
    found = told(prove({"00_t": TABLE.replace("int", "bigint"), "01_v": VIEW, "02_x": "truncate t;"}, PACK))
    assert [problem.split(":")[0] for problem in found] == [
        "The pack, applied again, destroys rows",
        "The pack, applied over the last release, destroys rows",
        "Over the last release the pack does not make what it makes from empty",
    ]


# Roles, exceptions, the application's runner


def test_roles_of_one_pass_are_gone_in_the_next(prove: Prove) -> None:
    role = "create role only_once; grant select on t to only_once;"
    (problem,) = told(prove({**PACK, "02_role": role}))
    assert problem.startswith('Applied again: ddl/02_role.sql, line 1: role "only_once" already exists')
    guarded = "do $$ begin create role only_once; exception when duplicate_object then null; end $$;"
    assert told(prove({**PACK, "02_role": guarded}, PACK)) == []


def test_an_exception_with_a_reason_lets_a_problem_pass_and_keeps_it(prove: Prove) -> None:
    found = prove({**PACK, "02_x": "truncate t;"}, exceptions={"destroys rows: table public.t": "a cache, filled anew"})
    assert told(found) == []
    assert list(found.excepted.values()) == ["a cache, filled anew"]


def test_a_pack_for_a_newer_server_is_refused(prove: Prove) -> None:
    (problem,) = told(prove(PACK, min_server=99))
    assert "the DDL pack needs 99 or newer" in problem


def test_the_applications_runner_is_what_is_proved(prove: Prove) -> None:
    command = {"command": [sys.executable, "-c", RUNNER], "must_print": "^{count} files applied"}
    found = prove(PACK, PACK, **command)
    assert told(found) == [] and any(name.startswith(sys.executable) for name in found.seconds)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (("sorted(", "sorted("), None),
        (("files:", "files[:1]:"), "table public.u is missing"),
        (("print(", "connection.execute if 0 else print("), None),
    ],
)
def test_a_runner_that_makes_something_else_than_the_files_do_is_found(
    prove: Prove, fault: tuple[str, str], expected: str | None
) -> None:
    command = [sys.executable, "-c", RUNNER.replace(*fault)]
    found = told(
        prove({"00_t": TABLE, "01_u": "create table if not exists u ();"}, command=command, must_print="applied")
    )
    assert any(expected in problem for problem in found) if expected else found == []


# Remembered, and shown


def test_a_proof_is_remembered_for_exactly_these_files_and_one_with_problems_is_not(tmp_path: Path) -> None:
    cache = tmp_path / ".release" / "cache"
    good, settings = pack_of(PACK), Settings()
    first = proof.proof_of(good, [], tmp_path, settings)
    assert len(list(cache.glob("proof-*"))) == 1
    assert proof.proof_of(good, [], tmp_path, settings) == first
    assert proof.proof_of(good, [], tmp_path, Settings(app="other")).files != []
    assert len(list(cache.glob("proof-*"))) == 2, "a pack knows the name of its database"
    assert proof.proof_of(pack_of({"00_t": "select 1/0"}), [], tmp_path, settings).problems
    assert len(list(cache.glob("proof-*"))) == 2


def test_the_task_shows_the_proof_and_prints_json_and_fails_with_a_problem(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    for name in ("tasks.py", "release_tasks"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "invoke.yaml").write_text(
        "tasks: {executor_class: release_tasks.executor.ReleaseExecutor}\nrelease: {}\n"
    )
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    subprocess.run(["git", "commit", "--quiet", "--allow-empty", "--message=Begin"], cwd=tmp_path, check=True)
    (tmp_path / "ddl").mkdir()
    (tmp_path / "ddl" / "00_t.sql").write_text(TABLE)

    def validate(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "invoke", "ddl.validate", *words]
        return subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)

    ran = validate()
    assert ran.returncode == 0 and "00_t.sql" in ran.stdout and ran.stdout.rstrip().endswith("Proved.")
    found = json.loads(validate("--json").stdout)
    assert found["problems"] == [] and found["files"][0]["path"] == "ddl/00_t.sql"
    (tmp_path / "ddl" / "01_x.sql").write_text("")
    ran = validate("--json")
    assert ran.returncode == 1 and "ddl/01_x.sql is empty" in json.loads(ran.stdout)["problems"][0]["what"]
    (tmp_path / "ddl" / "01_x.sql").write_text("\\echo hello\n")
    ran = validate()
    assert ran.returncode == 1 and "ddl/01_x.sql, line 1" in ran.stdout and "Traceback" not in ran.stdout + ran.stderr
