"""What runs is this release: a real web app, PostgreSQL, git, and a deployed tree."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from release_tasks.checks.place import Place
from release_tasks.checks.verdict import FAIL, PASS, UNKNOWN, Result
from release_tasks.deployment import unpack_commit
from release_tasks.kinds import Version

BEGAN = "2026-01-02T10:00:00+00:00"
PACK = {f"ddl/0{number}.sql": hashlib.sha256(bytes([number])).hexdigest() for number in range(3)}
STAMP = """
    create schema ops;
    create table ops.session_log (session_id uuid primary key default gen_random_uuid(),
        app_name text not null, app_version text not null, opened_at timestamptz not null default now());
    create table ops.session_flags (schema_name text primary key, is_open boolean not null default false,
        opened_by uuid references ops.session_log);
    insert into ops.session_log values
        ('00000000-0000-0000-0000-000000000001', 'app', '0.1.0', '2026-01-01 10:00+0'),
        ('00000000-0000-0000-0000-000000000002', 'app', '0.1.1', '2026-01-02 10:05+0'),
        ('00000000-0000-0000-0000-000000000003', 'another', '7.0.0', '2026-01-02 11:00+0');
    insert into ops.session_flags
        select unnest(array['market', 'settings']), true, '00000000-0000-0000-0000-000000000002';
    create table ops.ddl_ledger (file text primary key, sha256 text not null, applied_at timestamptz);
"""
OLD = "00000000-0000-0000-0000-000000000001"
FILES = {"app.js": "run();\n", "win.bat": "echo\n", "docs/a (1).md": "# A\n", ".gitattributes": "*.bat eol=crlf\n"}


@pytest.fixture
def staging(web, dsn, work, place, tmp_path) -> Place:
    """A place where all four say 0.1.1."""
    web.be("0.1.1")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(STAMP)
        for file, sha256 in PACK.items():
            connection.execute("insert into ops.ddl_ledger values (%s, %s, now())", [file, sha256])
    work.write(FILES)
    (work.root / "link.js").symlink_to("app.js")
    (work.root / "app.js").chmod(0o755)
    commit = work.commit({})
    code = tmp_path / "releases" / "v0.1.1"
    unpack_commit(work.layer(), commit, code)
    (code / "node_modules").mkdir()
    (code / "node_modules" / "extra.js").write_text("no business of ours\n")
    return place(
        dsn=dsn,
        origin=web.origin,
        root=str(work.root),
        code=str(code),
        commit=commit,
        began=BEGAN,
        stamp_log="ops.session_log",
        stamp_flags="ops.session_flags",
        ledger="ops.ddl_ledger",
        pack=PACK,
    )


@pytest.fixture
def seen_on(look: Callable[..., Result]) -> Callable[..., Result]:
    """Return what asks for the version: `seen_on(place, **facts)`."""

    def seen_on(place: Place, **facts: Any) -> Result:
        return look(Version(timeout=60), Place(**{**vars(place), **facts}))

    return seen_on


def sql(place: Place, statement: str) -> None:
    with psycopg.connect(place.dsn, autocommit=True) as connection:
        connection.execute(statement)


def test_where_all_four_say_the_same_it_passes_in_a_few_words(staging, seen_on):
    result = seen_on(staging)
    assert (result.verdict, result.said) == (PASS, ())
    assert result.words.startswith("0.1.1 by API, stamp of ")
    assert f"3 DDL files, 12 files of {staging.commit:.9}" in result.words
    assert result.seen["flags"] == "2 compared, with the session they point to"


def test_what_a_place_does_not_have_is_not_asked_and_no_proxy_stands_between(web, place, seen_on, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    web.be("0.1.1")
    result = seen_on(place(origin=web.origin))
    assert (result.verdict, result.words) == (PASS, "0.1.1 by API")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, '{"version": "0.1.0"}'), "answers as 0.1.0; expected 0.1.1"),
        ((200, '{"version": 11}'), "answers as 11"),
        ((200, "<main>"), "no version"),
        ((200, "[1]"), "no version"),
        ((503, '{"version": "0.1.1"}'), "answers 503"),
        ((302, '{"version": "0.1.1"}'), "answers 302"),
    ],
)
def test_another_version_that_still_runs_is_caught(staging, seen_on, web, answer, said):
    web.headers["Location"] = "/api/other"
    web.answers["/api/other"] = (200, '{"version": "0.1.1"}')
    web.answers["/api/version"] = answer
    result = seen_on(staging)
    assert result.verdict == FAIL and said in result.said[0] and len(result.said) == 1


LIES = {
    "the stamp of another version": (
        "update ops.session_log set app_version = '0.1.2' where app_version = '0.1.1'",
        "is of 0.1.2",
    ),
    "a stamp from before the deployment": (
        "update ops.session_log set opened_at = '2026-01-02 09:59+0' where app_version = '0.1.1'",
        "is older than the deployment",
    ),
    "no stamp": ("update ops.session_log set app_name = 'other'", "has no stamp of app"),
    "no log": ("drop table ops.session_log cascade", "has no stamp of app"),
    "a flag of an older session": (
        f"update ops.session_flags set opened_by = '{OLD}' where schema_name = 'market'",
        "point to another session than 00000000-0000-0000-0000-000000000002: market",
    ),
    "a flag of no session": ("update ops.session_flags set opened_by = null", "market, settings"),
    "a closed flag": ("update ops.session_flags set is_open = false where schema_name = 'market'", "not open: market"),
    "no flags": ("delete from ops.session_flags", "has no row"),
    "a ledger with another hash": (
        "update ops.ddl_ledger set sha256 = 'beef' where file = 'ddl/01.sql'",
        "applied as another file: ddl/01.sql.",
    ),
    "a file that is not in the ledger": ("delete from ops.ddl_ledger where file = 'ddl/02.sql'", "not in it: ddl/02"),
    "a file that was begun": ("update ops.ddl_ledger set applied_at = null", "not applied to the end: ddl/00.sql, ddl"),
    "no ledger": ("drop table ops.ddl_ledger", "not in it: ddl/00.sql, ddl/01.sql, ddl/02.sql"),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_the_database_says_is_caught(staging, seen_on, lie):
    statement, said = LIES[lie]
    sql(staging, statement)
    result = seen_on(staging)
    assert result.verdict == FAIL and len(result.said) == 1 and said in result.said[0], result.said


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ("drop table ops.session_flags", "there are none"),
        ("alter table ops.session_log drop column session_id cascade", "2 compared, without the session they point to"),
    ],
)
def test_what_could_not_be_compared_is_told(staging, seen_on, change, seen):
    sql(staging, change)
    result = seen_on(staging)
    assert (result.verdict, result.seen["flags"]) == (PASS, seen)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda code: (code / "app.js").write_text("hack;\n"), "not as committed in"),
        (lambda code: (code / "app.js").write_text("ran();\n"), "app.js"),
        (lambda code: (code / "app.js").rename(code / "x") and (code / "app.js").symlink_to("x"), "app.js"),
        (lambda code: (code / "win.bat").write_bytes(b"echo\n"), "win.bat"),
        (lambda code: (code / "app.js").unlink(), "missing in"),
        (lambda code: (code / "app.js").chmod(0o644), "app.js"),
        (lambda code: (code / "link.js").unlink() or (code / "link.js").symlink_to("win.bat"), "link.js"),
        (lambda code: shutil.copy(code / "app.js", code / "x") and (code / "x").replace(code / "link.js"), "link.js"),
        (shutil.rmtree, "There is no folder"),
    ],
)
def test_a_file_edited_by_hand_on_the_server_is_caught(staging, seen_on, change, said):
    change(Path(staging.code))
    result = seen_on(staging)
    assert result.verdict == FAIL and len(result.said) == 1 and said in result.said[0], result.said
    assert "git -C" in result.mend


def test_a_file_that_a_build_rewrites_may_be_excepted_with_a_reason(staging, seen_on):
    code = Path(staging.code)
    code.joinpath("app.js").write_text("built();\n")
    why = {r"^app\.js$": "the build writes it"}
    result = seen_on(staging, rewritten=why)
    assert result.verdict == PASS and "1 excepted: the build writes it" in result.seen["in_words"]
    code.joinpath("app.js").unlink()
    assert "missing" in seen_on(staging, rewritten=why).words


def test_a_submodule_and_what_is_not_archived_are_no_business_of_ours(staging, seen_on, work):
    work.add_submodule("docs2", {"a.md": "a\n"})
    commit = work.commit({".gitattributes": "*.bat eol=crlf\nVERSION export-ignore\n"})
    shutil.rmtree(staging.code)
    unpack_commit(work.layer(), commit, Path(staging.code))
    assert seen_on(staging, commit=commit).verdict == PASS


def test_yesterdays_deployment_is_told_whole(staging, seen_on, web, work):
    web.be("0.1.0")
    sql(staging, "delete from ops.session_flags; delete from ops.session_log where app_version = '0.1.1'")
    sql(staging, "update ops.ddl_ledger set sha256 = 'beef'")
    commit = work.commit({"app.js": "run(2);\n", "new.js": "\n"})
    result = seen_on(staging, commit=commit)
    assert result.verdict == FAIL and len(result.said) == 6, result.said
    assert result.mend == "inv deploy.staging"


def test_what_cannot_be_asked_is_unknown(staging, seen_on, web):
    nowhere = seen_on(staging, origin="http://127.0.0.1:9")
    assert nowhere.verdict == UNKNOWN and "could not be reached" in nowhere.said[0]
    closed = seen_on(staging, dsn="postgresql://nobody@127.0.0.1:9/none")
    assert closed.verdict == UNKNOWN and "cannot be used" in closed.said[0]
    shallow = seen_on(staging, commit="0" * 40)
    assert shallow.verdict == UNKNOWN and "git archive" in shallow.said[0]
    other = seen_on(staging, ledger="ops.session_flags")
    assert other.verdict == UNKNOWN and "does not say its version" in other.said[0]


def test_what_cannot_be_asked_does_not_hide_what_is_wrong(staging, seen_on):
    (Path(staging.code) / "app.js").write_text("hack;\n")
    result = seen_on(staging, origin="http://127.0.0.1:9")
    assert result.verdict == FAIL and "app.js" in result.said[0] and "could not be reached" in result.said[1]


@pytest.mark.parametrize(
    "granted",
    [
        "",
        "grant usage on schema ops to reader",
        "grant usage on schema ops to reader; grant select on ops.session_log to reader",
    ],
)
def test_a_role_that_may_not_read_is_told_which_grant_mends_it(staging, seen_on, granted):
    sql(staging, f"create role reader login password 'secret-of-reader'; {granted}")
    parts = psycopg.conninfo.conninfo_to_dict(staging.dsn)
    dsn = psycopg.conninfo.make_conninfo(**{**parts, "user": "reader", "password": "secret-of-reader"})
    try:
        result = seen_on(staging, dsn=dsn)
    finally:
        sql(staging, "drop owned by reader; drop role reader")
    assert result.verdict == UNKNOWN and "reader of staging may not read ops." in result.said[0], result.said
    assert "grant usage on schema ops to reader; grant select on ops." in result.mend


def test_a_flag_that_may_not_be_read_does_not_hide_the_wrong_stamp(staging, seen_on):
    sql(staging, "update ops.session_log set app_version = '0.1.2' where app_version = '0.1.1'")
    sql(staging, "create role reader login password 'secret-of-reader'; grant usage on schema ops to reader")
    sql(staging, "grant select on ops.session_log, ops.ddl_ledger to reader")
    dsn = psycopg.conninfo.make_conninfo(staging.dsn, user="reader", password="secret-of-reader")
    try:
        result = seen_on(staging, dsn=dsn)
    finally:
        sql(staging, "drop owned by reader; drop role reader")
    assert result.verdict == FAIL and "is of 0.1.2" in result.said[0] and "may not read" in result.said[1], result.said
