"""What can be read from a pack's text: held against a real server where that knows better, and against disguises."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_tasks.schema.ddl import DdlFile
from release_tasks.schema.findings import ALONE, BLOCKING, IRREVERSIBLE, MENDS, findings_in

MARK = "-- release: no-transaction\n"

# What PostgreSQL 15 says cannot run in a transaction block; {} is a name that is not there.
ALONE_HERE = [
    "vacuum",
    "vacuum (full, analyze) pg_class",
    "vacuum analyze pg_class",
    "create database other",
    "drop database if exists other",
    "create tablespace other location '/nowhere'",
    "drop tablespace if exists other",
    "alter system set work_mem = '4MB'",
    "create index concurrently on things (name)",
    "create unique index concurrently if not exists i on only things (name)",
    "drop index concurrently if exists things_name",
    "alter table parts detach partition part concurrently",
    "reindex table concurrently things",
]
IN_TRANSACTIONS = [
    "analyze",
    "reindex table things",
    "reindex index things_name",
    'create index "concurrently" on things (name)',
    "create index on things (name)",
    "refresh materialized view concurrently seen",
    "alter type mood add value 'glad'",
    "alter table parts detach partition part",
    "alter database app set work_mem = '4MB'",
    "drop index if exists things_name",
]
THINGS = """
create table things (name text); create index things_name on things (name);
create table parts (id int) partition by list (id); create table part partition of parts default;
create materialized view seen as select 1 as x; create unique index on seen (x); create type mood as enum ('sad');
"""

EXAMPLES = {
    "metacommand": ["\\i other.sql", "\\set x 1"],
    "transaction": ["begin", "START TRANSACTION", "commit", "rollback", "end"],
    "no-transaction": ALONE_HERE,
    "password": [
        "create role r login password 'hunter2'",
        "ALTER USER r WITH ENCRYPTED PASSWORD E'hunter2'",
        "alter group g password U&'hunter2'",
        "create role r password $x$hunter2$x$ in role g",
    ],
    "drop": [
        "drop table a.t",
        "drop index concurrently i",
        "DROP MATERIALIZED VIEW v",
        "drop function f(int)",
        "drop policy p on t",
        "drop text search configuration c",
        "drop operator class o using btree",
        'drop schema "if exists x"',
        "alter table t drop column c",
        "alter table if exists t drop c cascade",
        "alter table t drop column if exists c, drop constraint d",
        "alter type y drop attribute a",
    ],
    "twice": [
        "create table t (a int)",
        "create unlogged table a.t ()",
        "create table t as select 1",
        "create unique index i on t (a)",
        "create index on t (a)",
        "create schema a",
        "create extension citext",
        "create sequence s",
        "create materialized view v as select 1",
        "create function f() returns int language sql return 1",
        "create view v as select 1",
        "create recursive view v (a) as select 1",
        "create procedure p() begin atomic select 1; end",
        "create aggregate a (int) (sfunc = int4pl, stype = int)",
        "create rule r as on insert to t do nothing",
        "create constraint trigger g after insert on t for each row execute function f()",
        "create type y as enum ('a')",
        "create domain d as int",
        "create role r",
        "create policy p on t",
        "alter table t add column a int",
        "alter table only t add a int",
        "alter type y add value 'b'",
    ],
    "irreversible": [
        "drop table if exists t",
        "drop schema if exists a cascade",
        "drop type if exists y",
        "drop sequence s",
        "drop owned by r",
        "truncate t",
        "delete from t",
        "delete from t using (select 1 where true) as x",
        "update only t set a = (select b from c where d)",
        "alter table t drop column if exists c",
        "alter table t drop if exists c",
        "alter table t add column a int, alter column c type bigint",
        "alter table t alter c set data type bigint using (c::bigint)",
        'alter table "T" alter "my column" type int',
        "alter type y alter attribute a type int",
    ],
}
HARMLESS = [
    "alter role r password null",
    "create table if not exists t (password text default 'x')",
    "drop table if exists t",
    "create or replace view v as select 1",
    "create or replace trigger g before insert on t for each row execute function f()",
    "create temp table t (a int)",
    "create index concurrently if not exists i on t (a)",
    "create table if not exists t (a int references b on delete cascade)",
    "alter table t add column if not exists a int, add constraint c check (a > 0), add primary key (a)",
    "alter table t alter column a drop default, alter b drop not null, alter c add generated always as identity",
    "alter table t drop constraint if exists c",
    "alter table t alter column type set default 1",
    "alter type y add value if not exists 'b'",
    "update t set a = 1 where b = 2",
    "insert into t values (1) on conflict (a) do update set b = 1",
    "select 1 from t for update",
    "savepoint a",
    "rollback to a",
]
ALL = [(rule, text) for rule, texts in EXAMPLES.items() for text in texts]
SINGLE = [text for _, text in ALL if not text.startswith("\\")]


def read(text: str) -> list[tuple[int, str]]:
    return [(found.line, found.rule) for found in findings_in([DdlFile("ddl/05_x.sql", text.encode())])]


# Rules


@pytest.mark.parametrize(("rule", "text"), ALL)
def test_what_a_rule_is_about_is_found(rule: str, text: str) -> None:
    assert rule in {found for _, found in read(f"{text};\n")}
    assert rule in {found for _, found in read(f"{text.upper()};\n")}


def test_every_rule_has_an_example() -> None:
    assert {*BLOCKING, *MENDS} <= set(EXAMPLES)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_does_no_harm_is_not_told(text: str) -> None:
    harm = (
        {"irreversible"} if text.startswith("drop table") else {"no-transaction"} if "concurrently" in text else set()
    )
    assert {rule for _, rule in read(text)} == harm


def test_a_finding_says_where_what_and_whether_it_blocks() -> None:
    (dropped, lost, meta) = findings_in(
        [DdlFile("ddl/05_x.sql", b"-- away\n\ndrop table /* the */ app.foo\n  cascade;\n\\set secret hunter2\n")]
    )
    assert str(dropped) == "ddl/05_x.sql, line 3: DROP without IF EXISTS: drop table app.foo cascade"
    assert str(lost) == "ddl/05_x.sql, line 3: it loses what is there: drop table app.foo cascade"
    assert str(meta) == "ddl/05_x.sql, line 5: only psql knows metacommands: \\set"
    assert [dropped.blocks, meta.blocks, lost.rule] == [False, True, IRREVERSIBLE]


def test_the_findings_stand_in_the_order_of_the_pack() -> None:
    pack = [DdlFile("ddl/1.sql", b"\xef\xbb\xbftruncate a;\ntruncate b;"), DdlFile("ddl/2.sql", b"truncate c;")]
    assert [(found.path, found.line) for found in findings_in(pack)] == [
        ("ddl/1.sql", 1),
        ("ddl/1.sql", 2),
        ("ddl/2.sql", 1),
    ]


# Passwords


@pytest.mark.parametrize("text", EXAMPLES["password"])
def test_a_password_is_not_shown(text: str) -> None:
    texts = [f"{text};", f"do language plpgsql $$ begin {text}; end $$;", f"{text} 'hunter2", f'{text} "hunter2"']
    for found in findings_in([DdlFile(f"{at}.sql", each.encode()) for at, each in enumerate(texts)]):
        assert "hunter2" not in repr(found)


def test_the_role_with_a_password_is_named_as_a_whole() -> None:
    text = b"create role \"app user\" login password 'hunter2'"
    (found,) = [each for each in findings_in([DdlFile("ddl/00_r.sql", text)]) if each.rule == "password"]
    assert str(found).endswith('create role "app user" has a password in it')


def test_a_password_is_found_where_packs_make_roles() -> None:
    text = "select 1;\ndo -- once\n$$\nbegin\n  if true then create role r login password 'x'; end if;\nend\n$$;"
    assert read(text) == [(5, "password")]


@pytest.mark.parametrize(
    ("run", "found"),
    [
        ("execute 'create role r login password ''hunter2''';", True),
        ("execute format('alter role %I password ''hunter2''', name);", True),
        ("create role a nologin; create user b password 'hunter2';", True),
        ("execute format('create role r password %L', secret);", False),
        ("execute 'create role r password ' || quote_literal(secret);", False),
        ("execute 'create role r password ''' || secret || '''';", False),
        ("create role r nologin password null; raise notice 'made';", False),
        ("alter role r set password_encryption = 'scram-sha-256';", False),
    ],
)
def test_a_password_in_a_do_is_one_only_where_it_is_written_out(run: str, found: bool) -> None:
    told = findings_in([DdlFile("x.sql", f"do $$ begin {run} end $$".encode())])
    assert [each.rule for each in told] == ["password"] * found
    assert "hunter2" not in repr(told)


# Twice


@pytest.mark.parametrize(
    ("before", "text"),
    [
        ("drop table if exists t", "create table t (a int)"),
        ("drop table if exists s, app.t cascade", "create table App.T (a int)"),
        ("drop table if exists t", "create index on t (a)"),
        ("drop schema if exists app cascade", "create index i on app.t (a)"),
        ('drop type if exists "My (type)"', "create type \"My (type)\" as enum ('a')"),
        ("drop function if exists f(int, text), g()", "create function g() returns int language sql return 1"),
        ("drop trigger if exists g on app.t", "create trigger g after update of a on app.t execute function f()"),
        ("drop policy if exists p on t", "create policy p on t"),
        ("drop trigger if exists g on t", "create constraint trigger g after insert on t execute function f()"),
        ("drop role if exists r", "create role r"),
    ],
)
def test_what_is_dropped_first_can_be_created_again(before: str, text: str) -> None:
    assert [rule for _, rule in read(f"{before};\n{text};") if rule == "twice"] == []
    assert read(f"{text};\n{before};")[0] == (1, "twice")


def test_a_trigger_of_the_same_name_elsewhere_is_another_one() -> None:
    dropped = "drop trigger if exists g on a;\n"
    assert read(dropped + "create trigger g after insert on b execute function f()") == [(2, "twice")]


# Disguises


@given(
    st.sampled_from(SINGLE),
    st.sampled_from(
        [
            "-- {}\n",
            "/* {} */",
            "/* /* */ {}; */",
            "select '{}';",
            "select E'\\'{}';",
            "select $${};$$;",
            "select $q$ {}; $q$;",
            "comment on table t is $$ {} $$;",
            "create or replace function f() returns void language plpgsql as $f$ begin {}; end $f$;",
            'select 1 as "{}";',
            'alter table "{}" rename to x;',
        ]
    ),
    st.sampled_from([str, str.upper]),
)
def test_words_in_comments_strings_bodies_and_names_are_no_statements(text: str, disguise: str, case: type) -> None:
    if "'" in disguise:
        text = text.replace("'", "''")
    assert read(disguise.replace("{}", case(text).replace("$x$", "''"))) == []


NOISE = st.lists(
    st.sampled_from(
        ["\n", "-- drop table a;\n", "/* a\nb */", "select '\n;\n';\n", "select $$\n;\n$$;", " ", "select 1;"]
    )
).map("".join)


@given(NOISE, st.lists(st.tuples(st.sampled_from(SINGLE), NOISE), min_size=1, max_size=4))
def test_every_finding_has_the_line_on_which_its_statement_begins(noise: str, parts: list[tuple[str, str]]) -> None:
    text, lines = f"{noise}\n", set()
    for statement, more in parts:
        lines.add(text.count("\n") + 1)
        text += f"{statement}\n;{more}\n"
    found = {line for line, _ in read(text)}
    assert found <= lines
    assert found == lines or "drop" in text  # a drop makes what follows it harmless


@given(
    st.lists(st.sampled_from([*"'\"$();\\-/*", "\n", " ", "do ", "$$", "create role r password ", "drop ", "x"])).map(
        "".join
    )
)
def test_no_text_is_too_broken_to_be_read(text: str) -> None:
    assert all(1 <= found.line <= text.count("\n") + 1 for found in findings_in([DdlFile("x.sql", text.encode())]))


# What a server knows


@pytest.fixture
def app(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(THINGS.encode())
        yield connection


def test_what_is_said_to_run_alone_is_refused_in_a_transaction(app: psycopg.Connection) -> None:
    for text in ALONE_HERE:
        assert (1, ALONE) in read(text), text
        assert (2, ALONE) not in read(MARK + text), text
        with pytest.raises(psycopg.errors.ActiveSqlTransaction), app.transaction():
            app.execute(text.encode())


def test_what_is_said_to_run_in_a_transaction_runs_there(app: psycopg.Connection) -> None:
    for text in IN_TRANSACTIONS:
        assert (1, ALONE) not in read(text), text
        with app.transaction(force_rollback=True):
            app.execute(text.encode())
