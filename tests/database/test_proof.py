"""The proof of a DDL pack: what each pass must find, on a real scratch server, and what it must let pass."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from release_tasks import ddl
from release_tasks.database import programs, proof, restore
from release_tasks.database.pack import DdlFile
from release_tasks.database.proof import Proof
from release_tasks.database.server import Running, scratch_database
from release_tasks.errors import Refused
from release_tasks.settings import Backup, Ddl, Settings
from tests.test_bad_input import run_here

Prove = Callable[..., Proof]

TABLE = "create table if not exists t (n int primary key, name text not null default '');"
VIEW = "create or replace view v as select n from t;"
PACK = {"00_t": TABLE, "01_v": VIEW}


@pytest.fixture
def prove(server: Running) -> Prove:
    """Return what proves a pack (name → text) over that of the last release, with the settings of `ddl`."""

    def prove(now: dict[str, str], last: dict[str, str] | None = None, real: str = "", **settings: Any) -> Proof:
        return proof.prove(
            pack_of(now), pack_of(last or {}), Settings(app="proved", ddl=Ddl(**settings)), server, copier(real)
        )

    return prove


def copier(real: str) -> Callable[[str], None] | None:
    return partial(restore.copy, real, settings=Backup()) if real else None


def pack_of(files: dict[str, str]) -> list[DdlFile]:
    return [DdlFile(f"ddl/{name}.sql", text.encode()) for name, text in files.items()]


def test_every_pass_runs_on_every_server(every_server: Running, server: Running) -> None:
    """D1, D2, D6 on PostgreSQL 15 and 18."""
    now = {**PACK, "02_l": "create table if not exists l (v int); update l set v = 0;", "03_p": "create publication p;"}
    with scratch_database(server, "real") as real:
        with psycopg.connect(real, autocommit=True) as connection:
            connection.execute("create table l (v int); insert into l values (1), (1)")
        proved = proof.prove(pack_of(now), pack_of(PACK), Settings(app="proved"), every_server, copier(real))
    again, over_rows = problems(proved)
    assert again.startswith('Applied again: ddl/03_p.sql, line 1: publication "p" already exists (SQLSTATE 42710).')
    assert over_rows == "Over real rows: values in table public.l change (ddl/02_l.sql)."
    assert proved.server == programs.server_major(every_server.dsn("postgres"))


def problems(found: Proof) -> list[str]:
    return [problem.what for problem in found.problems]


def test_a_good_pack_is_proved_by_all_passes_and_has_no_problem(prove: Prove) -> None:
    """D9: nothing is told of what has just been proved."""
    found = prove(PACK, PACK)
    assert problems(found) == [] and found.notes == [] and list(found.files.values()) == [[], []]
    assert str(found) == f"2 files on PostgreSQL {found.server}: from empty, applied again, over the last release"


def test_warnings_are_told_with_their_file(prove: Prove) -> None:
    found = prove({**PACK, "02_loud": "do $$ begin raise warning 'a'; raise notice 'b'; end $$;"})
    assert problems(found) == [] and found.notes == ["ddl/02_loud.sql: WARNING: a"]


def test_of_a_file_that_fails_nothing_is_claimed_that_may_be_false(prove: Prove) -> None:
    """D18"""
    chain = {"02_x": "select * from u;", "03_u": "create table u as select * from w;", "04_w": "create table w ();"}
    (problem,) = problems(prove({**PACK, **chain}))
    assert (
        problem.startswith('From empty: ddl/02_x.sql, line 1: relation "u" does not exist') and "later" not in problem
    )


# Applied again


def test_a_pack_that_changes_something_when_applied_again_is_refused_with_object_and_file(prove: Prove) -> None:
    late = "alter table t add column if not exists late int;"
    again = f"do $$ begin if to_regclass('marker') is not null then {late} end if; end $$;"
    again += "create table if not exists marker ();"
    (problem,) = problems(prove({**PACK, "02_x": again}))
    assert problem == "Applied again: table public.t is changed: + late integer (ddl/02_x.sql)."


def test_a_pack_that_never_settles_is_refused(prove: Prove) -> None:
    growing = "do $$ begin execute format('create table g_%s ()', (select count(*) from pg_class)); end $$;"
    (problem,) = problems(prove({**PACK, "02_x": growing}))
    assert re.fullmatch(r"Applied again: table public\.g_\d+ is new \(ddl/02_x\.sql\)\.", problem)


def test_all_files_that_fail_when_applied_again_are_named(prove: Prove) -> None:
    """D10"""
    found = problems(prove({f"{number:02}_t": f"\ncreate table t{number} (n int);" for number in range(16)}))
    assert [problem.partition(":")[0] for problem in found] == ["Applied again"] * 16
    assert found[15].startswith('Applied again: ddl/15_t.sql, line 2: relation "t15" already exists (SQLSTATE 42P07).')


def test_a_column_that_is_dropped_and_added_again_is_lost_data(prove: Prove) -> None:
    """D1"""
    text = "create table if not exists t(id int primary key); alter table t drop column if exists v;"
    (problem,) = problems(prove({"00_t": f"{text} alter table t add column v int;"}))
    assert problem == "Applied again: ddl/00_t.sql drops table column public.t.v: what it holds is lost."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("truncate t;", "Applied again: ddl/02_x.sql empties public.t: what it holds is lost."),
        ("drop table if exists u; create table u ();", "Applied again: ddl/02_x.sql drops table public.u:"),
    ],
)
def test_a_pack_that_empties_or_drops_tables_is_refused(prove: Prove, text: str, expected: str) -> None:
    assert problems(prove({**PACK, "02_x": text}))[0].startswith(expected)


ROW_ONCE = """do $$ begin
  if to_regclass('once') is null then insert into t values (1); create table once (); end if; end $$;"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("delete from t;", "table public.t had 1 row and has 0 now (ddl/03_x.sql)."),
        ("truncate t;", "table public.t had 1 row and has 0 now (ddl/03_x.sql)."),
        ("alter table t drop m;", "public.t.m is dropped, with the values of 1 row (ddl/03_x.sql)."),
    ],
)
def test_a_loss_is_named_once_with_the_file_that_caused_it(prove: Prove, text: str, expected: str) -> None:
    """Not with the one that only adds a column to the same table."""
    column = "alter table t add column if not exists m int;"
    (problem,) = problems(prove({**PACK, "02_m": column, "03_x": text, "04_row": ROW_ONCE}))
    assert problem.startswith("Applied again: ") and problem.endswith(expected)


def test_an_empty_file_is_told_and_not_refused(prove: Prove) -> None:
    """D8"""
    found = prove({**PACK, "V1__a": "", "02_z": " \n"})
    assert problems(found) == [] and found.notes == ["ddl/V1__a.sql is empty.", "ddl/02_z.sql is empty."]


@pytest.mark.parametrize("setting", ["select set_config('search_path', '', false);", "create role r; set role r;"])
def test_what_a_file_sets_for_its_session_ends_with_it(prove: Prove, setting: str) -> None:
    """D3"""
    guarded = setting.replace(
        "create role r;", "do $$ begin create role r; exception when duplicate_object then null; end $$;"
    )
    assert problems(prove({"00_set": guarded, "01_t": "create table if not exists u (a int);"}, PACK)) == []


def test_a_publication_gives_no_warning(prove: Prove) -> None:
    """D6"""
    text = "do $$ begin create publication news for table t; exception when duplicate_object then null; end $$;"
    found = prove({**PACK, "02_p": text})
    assert problems(found) == [] and found.notes == []


@pytest.mark.parametrize(
    ("text", "expected", "hint"),
    [
        ("do $$ begin commit; end $$;", "invalid transaction termination (SQLSTATE 2D000)", "release: no-transaction"),
        ("select newer_function();", "does not exist (SQLSTATE 42883)", "PostgreSQL"),
        ("create extension postgis_not;", '"postgis_not" is not available', "Fix ddl/02_x.sql"),
        ("grant select on t to nobody_here;", 'role "nobody_here" does not exist', "Fix ddl/02_x.sql"),
        ("create table x () tablespace nowhere;", 'tablespace "nowhere" does not exist', "Fix ddl/02_x.sql"),
    ],
)
def test_what_a_server_lacks_is_named_with_line_and_a_hint(prove: Prove, text: str, expected: str, hint: str) -> None:
    """D11, D15"""
    (problem,) = prove({**PACK, "02_x": f"select 1;\n{text}"}).problems
    assert (
        problem.what.startswith("From empty: ddl/02_x.sql, line 2: ")
        and expected in problem.what
        and hint in problem.hint
    )


def test_a_materialized_view_may_be_refreshed(prove: Prove) -> None:
    text = "create materialized view if not exists m as select n from t; refresh materialized view m;"
    assert problems(prove({**PACK, "02_m": text}, {**PACK, "02_m": text})) == []


# Over the last release


def test_a_table_that_only_changed_where_it_is_created_is_found(prove: Prove) -> None:
    (problem,) = problems(prove({"00_t": TABLE.replace("int", "bigint"), "01_v": VIEW}, PACK))
    differs = "Over the last release: differs from a fresh database: table public.t is changed: "
    assert problem.startswith(f"{differs}- n bigint NOT NULL; + n integer")


def test_a_table_that_is_brought_there_is_none_and_its_lock_is_told(prove: Prove) -> None:
    now = {"00_t": TABLE, "01_more": "alter table t add column if not exists more int;", "02_v": VIEW}
    found = prove(now, PACK)
    assert problems(found) == [] and list(found.files.values()) == [[], ["locks public.t"], []]


def test_what_is_dropped_and_rewritten_of_the_last_release_is_told(prove: Prove) -> None:
    old = {"00_t": TABLE + "create table if not exists old (n int);"}
    now = {
        "00_t": "drop table if exists old;",
        "01_t": f"{TABLE.replace('int', 'bigint')} alter table t alter n type bigint;",
    }
    found = prove(now, old)
    assert problems(found) == []
    assert [set(does) for does in found.files.values()] == [
        {"drops table public.old", "locks public.old"},
        {"rewrites public.t", "locks public.t"},
    ]


def test_what_only_an_older_release_made_is_told_and_is_no_problem(prove: Prove) -> None:
    found = prove(PACK, {**PACK, "02_old": "create table if not exists old ();"})
    assert problems(found) == []
    assert found.notes == ["Exists after the upgrade, but not in a fresh database: table public.old."]


def test_a_released_pack_that_fails_is_said_to_be_one(prove: Prove) -> None:
    """D17"""
    (problem,) = prove(PACK, {"00_t": TABLE, "07_old": "\nselect of_an_older_server();"}).problems
    assert problem.what.startswith("Over the last release: the last release's ddl/07_old.sql, line 2: function")
    assert problem.hint == (
        "A released pack cannot change; a reason in release.ddl.exceptions lets the upgrade go unproved."
    )
    excepted = prove(PACK, {"00_t": TABLE, "07_old": "select of_an_older_server();"}, exceptions={"07_old": "gone"})
    assert problems(excepted) == [] and list(excepted.excepted.values()) == ["gone"]


def test_problems_of_different_passes_come_at_once(prove: Prove) -> None:
    found = problems(prove({"00_t": TABLE.replace("int", "bigint"), "01_v": VIEW, "02_x": "truncate t;"}, PACK))
    assert [problem.partition(": ")[0] for problem in found] == ["Applied again", "Over the last release"]


# Over real rows


@pytest.fixture
def real(server: Running) -> Any:
    with scratch_database(server, "real") as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                f"{TABLE} create type mood as enum ('a', 'b'); create table l (v int, w text, f float8, a timestamptz,"
                " m mood, c char(5), d numeric(9, 2)); insert into t select i from generate_series(1,9) i"
            )
            connection.execute(
                "insert into l select i / 2, 'w', i / 7.0, now(), 'a', 'c', i / 4.0 from generate_series(1, 1000) i"
            )
        yield dsn


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("update l set v = 0;", "values in table public.l change (ddl/02_x.sql)."),
        ("alter table l alter v type bigint; update l set v = 0;", "values in table public.l change (ddl/02_x.sql)."),
        ("delete from l where v > 400;", "table public.l had 1000 rows and has 801 now (ddl/02_x.sql)."),
        ("truncate l;", "table public.l had 1000 rows and has 0 now (ddl/02_x.sql)."),
        ("alter table l drop column w;", "column public.l.w is dropped, with the values of 1000 rows (ddl/02_x.sql)."),
        ("alter table l alter w type varchar using null;", "values in table public.l change (ddl/02_x.sql)."),
        ("alter table l alter f type int;", "values in table public.l change (ddl/02_x.sql)."),
        ("alter table l alter a type date using null;", "values in table public.l change (ddl/02_x.sql)."),
        ("alter table l alter a type timestamp;", "values in table public.l change"),
        ("alter table l alter c type text;", "values in table public.l change (ddl/02_x.sql)."),
        ("alter table l alter d type numeric(11, 4);", "values in table public.l change (ddl/02_x.sql)."),
        (
            "alter table l rename w to x; alter table l alter x type varchar using null;",
            "values in table public.l change",
        ),
        ("drop type mood cascade;", "public.l.m is dropped, with the values of 1000 rows (ddl/02_x.sql)."),
        ("create unique index if not exists one on l (v);", 'could not create unique index "one"'),
    ],
)
def test_what_becomes_of_real_rows_is_refused(prove: Prove, real: str, text: str, expected: str) -> None:
    """D2, and DELETE of rows"""
    guarded = f"do $$ begin if to_regclass('l') is not null then {text} end if; end $$;"
    found = problems(prove({**PACK, "02_x": guarded}, real=real))
    assert any(problem.startswith("Over real rows: ") and expected in problem for problem in found), found
    excepted = prove({**PACK, "02_x": guarded}, real=real, exceptions={"^Over real rows": "they may"})
    assert problems(excepted) == [] and excepted.rows == 1009
    assert excepted.exceptions.startswith("; excepted: Over real rows") and "(they may)" in excepted.exceptions


def test_a_column_that_is_added_filled_or_widened_leaves_real_rows_as_they_are(prove: Prove, real: str) -> None:
    text = "alter table t add column if not exists more int default 7; alter table t alter n type numeric(9);"
    text += "do $$ begin alter table l rename w to word; exception when others then null; end $$;"
    found = prove({"00_t": TABLE, "01_x": text + "insert into t values (100) on conflict do nothing;"}, real=real)
    assert problems(found) == [] and found.rows == 1009


@pytest.mark.parametrize(
    "text",
    [
        "v type bigint",
        "w type varchar(9)",
        "f type text",
        "a type text",
        "m type varchar",
        "d type numeric(11, 2)",
        "v type text using v::text",
    ],
)
def test_a_type_that_keeps_each_value_is_no_loss(prove: Prove, real: str, text: str) -> None:
    guarded = f"do $$ begin if to_regclass('l') is not null then alter table l alter {text}; end if; end $$;"
    assert problems(prove({**PACK, "02_x": guarded}, real=real)) == []


def test_a_large_object_that_is_gone_is_refused(prove: Prove, real: str) -> None:
    with psycopg.connect(real, autocommit=True) as connection:
        connection.execute("create table k (); select lo_create(777), lo_create(778)")
    unlink = "perform lo_unlink(oid) from pg_largeobject_metadata where oid = 777;"
    guarded = f"do $$ begin if to_regclass('k') is not null then {unlink} end if; end $$;"
    (problem,) = problems(prove({**PACK, "02_i": "select 1;", "03_x": guarded}, real=real))
    told = "table pg_catalog.pg_largeobject_metadata had 2 rows and has 1 now (ddl/03_x.sql)."
    assert problem == f"Over real rows: {told}"


@pytest.mark.parametrize("text", ["select setval('k', 100);", "drop sequence if exists k; create sequence k;"])
def test_a_sequence_may_go_on_and_one_that_is_dropped_is_told(prove: Prove, text: str) -> None:
    found = problems(prove({**PACK, "02_k": f"create sequence if not exists k; {text}"}))
    dropped = ["Applied again: ddl/02_k.sql drops sequence public.k: what it holds is lost."]
    assert found == (dropped if "drop" in text else [])


def test_real_rows_that_cannot_be_copied_are_a_problem_unless_there_is_a_reason(server: Running) -> None:
    def refuse(dsn: str) -> None:
        raise Refused("the extension postgis is not here.")

    found = proof.prove(pack_of(PACK), [], Settings(app="proved"), server, refuse)
    assert problems(found) == ["Over real rows: the extension postgis is not here."]
    excepting = Settings(app="proved", ddl=Ddl(exceptions={"rows: the extension": "no map here"}))
    assert problems(proof.prove(pack_of(PACK), [], excepting, server, refuse)) == []


# Roles and exceptions


def test_roles_of_one_pass_are_gone_in_the_next(prove: Prove) -> None:
    role = "create role only_once; grant select on t to only_once;"
    (problem,) = problems(prove({**PACK, "02_role": role}))
    assert problem.startswith('Applied again: ddl/02_role.sql, line 1: role "only_once" already exists')
    guarded = "do $$ begin create role only_once; exception when duplicate_object then null; end $$;"
    assert problems(prove({**PACK, "02_role": guarded}, PACK)) == []


def test_an_exception_with_a_reason_lets_a_problem_pass_and_keeps_it(prove: Prove) -> None:
    found = prove({**PACK, "02_x": "truncate t;"}, exceptions={r"^ddl/02_x\.sql empties": "a cache, filled anew"})
    assert problems(found) == []
    assert list(found.excepted.values()) == ["a cache, filled anew"]


# Remembered, and shown


def test_a_proof_is_remembered_for_exactly_these_files_and_one_with_problems_is_not(tmp_path: Path, real: str) -> None:
    cache = tmp_path / ".release" / "cache"
    good, settings = pack_of(PACK), Settings()
    first = ddl.proof_of(good, [], tmp_path, settings)
    assert len(list(cache.iterdir())) == 1
    assert ddl.proof_of(good, [], tmp_path, settings) == first
    assert ddl.proof_of(pack_of({"00_t": "select 1/0"}), [], tmp_path, settings).problems
    assert len(list(cache.iterdir())) == 1
    with_rows = ddl.proof_of(good, [], tmp_path, settings, real)
    assert with_rows.rows == 1009 and len(list(cache.iterdir())) == 2
    assert ddl.proof_of(good, [], tmp_path, settings) == with_rows, "one with more passes is as good"


def test_the_task_shows_the_proof_and_prints_json_and_fails_with_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).parents[2]
    for name in ("tasks.py", "release_tasks"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "invoke.yaml").write_text(
        "tasks: {executor_class: release_tasks.engine.ReleaseExecutor}\nrelease: {}\n"
    )
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    subprocess.run(["git", "commit", "--quiet", "--allow-empty", "--message=Begin"], cwd=tmp_path, check=True)
    remote = tmp_path.parent / f"{tmp_path.name}.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", tmp_path, remote], check=True)
    subprocess.run(["git", "remote", "add", "origin", remote], cwd=tmp_path, check=True)
    (tmp_path / "ddl").mkdir()
    (tmp_path / "ddl" / "00_t.sql").write_text(TABLE)

    def validate(*words: str) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        code = run_here(["ddl.validate", *words], tmp_path, {}, monkeypatch)
        return subprocess.CompletedProcess(words, code, *capfd.readouterr())

    ran = validate()
    assert ran.returncode == 0 and ran.stdout.startswith("1 file on PostgreSQL ")
    assert ran.stdout.rstrip().endswith("there is no release before, so no upgrade to prove.\nProved.")
    subprocess.run(["git", "tag", "v0.1.0"], cwd=remote, check=True)
    ran = validate()
    assert ran.returncode == 1 and "The tag v0.1.0 is on the remote, but not here." in ran.stdout, (
        "it was not looked for"
    )
    subprocess.run(["git", "fetch", "--quiet", "origin", "tag", "v0.1.0"], cwd=tmp_path, check=True)
    found = json.loads(validate("--json").stdout)
    assert found["over"] == "v0.1.0" and found["problems"] == [] and found["files"] == {"ddl/00_t.sql": []}
    (tmp_path / "ddl" / "01_x.sql").write_bytes("-- Größe".encode("cp1252"))
    ran = validate("--json")
    assert ran.returncode == 1 and "ddl/01_x.sql is not UTF-8" in json.loads(ran.stdout)["problems"][0]["what"]
    (tmp_path / "ddl" / "01_x.sql").write_text("\\nonsense\n")
    ran = validate()
    assert ran.returncode == 1 and "ddl/01_x.sql, line 1" in ran.stdout and "Traceback" not in ran.stdout + ran.stderr
