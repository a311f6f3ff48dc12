"""What runs is this release: a real web app, PostgreSQL, git, and a deployed tree."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from release_tasks.checks import Target
from release_tasks.checks.deployed import check_release
from release_tasks.deploy.code import unpack
from release_tasks.outcome import FAILED, INCONCLUSIVE, PASSED
from tests.checks.conftest import Came, came_to

BEGAN = "2026-01-02T10:00:00+00:00"
PACK = {f"ddl/0{number}.sql": hashlib.sha256(bytes([number])).hexdigest() for number in range(3)}
STAMP = """
    create schema ops;
    create table ops.session_log (session_id uuid primary key default gen_random_uuid(),
        app_name text not null, app_version text not null, opened_at timestamptz not null default now());
    insert into ops.session_log values
        ('00000000-0000-0000-0000-000000000001', 'app', '0.1.0', '2026-01-01 10:00+0'),
        ('00000000-0000-0000-0000-000000000002', 'app', '0.1.1', '2026-01-02 10:05+0'),
        ('00000000-0000-0000-0000-000000000003', 'another', '7.0.0', '2026-01-02 11:00+0');
    create table ops.ddl_ledger (file text primary key, sha256 text not null, applied_at timestamptz);
"""
FILES = {"app.js": "run();\n", "win.bat": "echo\n", "docs/a (1).md": "# A\n", ".gitattributes": "*.bat eol=crlf\n"}


@pytest.fixture
def staging(web, dsn, work, target, tmp_path) -> Target:
    """A target where all four say 0.1.1."""
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
    unpack(work.layer(), commit, code)
    (code / "node_modules").mkdir()
    (code / "node_modules" / "extra.js").write_text("no business of ours\n")
    return target(
        dsn=dsn,
        origin=web.origin,
        root=str(work.root),
        code=str(code),
        placed=str(code),
        commit=commit,
        deployed_at=BEGAN,
        session_log="ops.session_log",
        ledger="ops.ddl_ledger",
        pack=PACK,
    )


@pytest.fixture
def checked() -> Callable[..., Came]:
    """Return what checks that the release runs: `checked(target, **facts)`."""

    def checked(target: Target, **facts: Any) -> Came:
        return came_to(lambda record: check_release(replace(target, **facts), record))

    return checked


def sql(target: Target, statement: str) -> None:
    with psycopg.connect(target.dsn, autocommit=True) as connection:
        connection.execute(statement)


def test_where_all_four_say_the_same_it_passes_in_a_few_words(staging, checked):
    result = checked(staging)
    assert result.outcome == PASSED, result
    assert result.recorded[0] == "0.1.1 by API" and result.recorded[1].startswith("stamp of ")
    assert result.recorded[2:] == ["3 DDL files", f"files of {staging.commit:.9}"]
    assert checked(staging, placed="").recorded[3] == f"files of {staging.commit:.9}, in our copy"


def test_what_a_target_does_not_have_is_not_asked_and_no_proxy_stands_between(web, target, checked, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    web.be("0.1.1")
    assert checked(target(origin=web.origin)) == Came(PASSED, recorded=["0.1.1 by API"])
    assert checked(target(origin=web.origin, version_path="")) == Came(PASSED)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, '{"version": "0.1.0"}'), "answers as 0.1.0"),
        ((200, '{"version": 11}'), "answers as 11"),
        ((200, "<main>"), "no version"),
        ((200, "[1]"), "no version"),
        ((200, '{"version": "0.1.0", "version": "0.1.1"}'), "no version"),  # of which each reader takes another
        ((503, '{"version": "0.1.1"}'), "with status 503"),
        ((302, '{"version": "0.1.1"}'), "with status 302"),
    ],
)
def test_another_version_that_still_runs_is_caught(staging, checked, web, answer, said):
    web.headers["Location"] = "/api/other"
    web.answers["/api/other"] = (200, '{"version": "0.1.1"}')
    web.answers["/api/version"] = answer
    result = checked(staging)
    assert result.outcome == FAILED and said in result.message


LIES = {
    "the stamp of another version": (
        "update ops.session_log set app_version = '0.1.2' where app_version = '0.1.1'",
        "is of 0.1.2",
    ),
    "a stamp from before the deployment": (
        "update ops.session_log set opened_at = '2026-01-02 09:59+0' where app_version = '0.1.1'",
        "expected 0.1.1, after 2026-01-02",
    ),
    "no stamp": ("update ops.session_log set app_name = 'other'", "is of no version"),
    "a ledger with another hash": (
        "update ops.ddl_ledger set sha256 = 'beef' where file = 'ddl/01.sql'",
        "lacks, or has another ddl/01.sql.",
    ),
    "a file that is not in the ledger": (
        "delete from ops.ddl_ledger where file = 'ddl/02.sql'",
        "The ledger ops.ddl_ledger lacks, or has another ddl/02",
    ),
    "a file that was begun": ("update ops.ddl_ledger set applied_at = null", "lacks, or has another ddl/00.sql, ddl"),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_the_database_says_is_caught(staging, checked, lie):
    statement, said = LIES[lie]
    sql(staging, statement)
    result = checked(staging)
    assert result.outcome == FAILED and said in result.message, result


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda code: (code / "app.js").write_text("hack;\n"), "these are not as in"),
        (lambda code: (code / "app.js").write_text("ran();\n"), "app.js"),
        (lambda code: (code / "app.js").rename(code / "x") and (code / "app.js").symlink_to("x"), "app.js"),
        (lambda code: (code / "app.js").unlink(), "app.js"),
        (lambda code: (code / "app.js").chmod(0o644), "app.js"),
        (lambda code: (code / "link.js").unlink() or (code / "link.js").symlink_to("win.bat"), "link.js"),
        (lambda code: shutil.copy(code / "app.js", code / "x") and (code / "x").replace(code / "link.js"), "link.js"),
    ],
)
def test_a_file_edited_by_hand_on_the_server_is_caught(staging, checked, change, said):
    change(Path(staging.code))
    result = checked(staging)
    assert result.outcome == FAILED and said in result.message, result
    restore = result.message.partition("To restore them: ")[2].splitlines()[0]
    subprocess.run(["sh", "-c", restore], check=True)
    assert checked(staging).outcome == PASSED


def test_a_file_that_a_build_rewrites_may_have_the_attribute_rewritten(staging, checked, work):
    commit = work.commit({".gitattributes": "*.bat eol=crlf\n# the build writes it\napp.js rewritten\n"})
    unpack(work.layer(), commit, Path(staging.code))
    Path(staging.code, "app.js").write_text("built();\n")
    assert checked(staging, commit=commit).outcome == PASSED
    Path(staging.code, "docs", "a (1).md").write_text("by hand\n")
    assert checked(staging, commit=commit).outcome == FAILED


def test_files_of_a_submodule_and_those_that_no_archive_has_are_compared_too(staging, checked, work):
    """Code is put in place as committed, whatever `export-…` says: a change by hand passed there."""
    work.add_submodule("docs2", {"a.md": "a\n"})
    commit = work.commit({".gitattributes": "*.bat eol=crlf\nVERSION export-ignore\n"})
    shutil.rmtree(staging.code)
    unpack(work.layer(), commit, Path(staging.code))
    assert checked(staging, commit=commit).outcome == PASSED
    for path in ("VERSION", "docs2/a.md"):
        Path(staging.code, path).write_text("by hand\n")
    result = checked(staging, commit=commit)
    assert result.outcome == FAILED and "VERSION, docs2/a.md" in result.message, result
    restore = result.message.partition("To restore them: ")[2].splitlines()[0]
    subprocess.run(["sh", "-c", restore], check=True)
    assert checked(staging, commit=commit).outcome == PASSED


def test_yesterdays_deployment_is_told_whole(staging, checked, web, work):
    web.be("0.1.0")
    sql(staging, "delete from ops.session_log where app_version = '0.1.1'")
    sql(staging, "update ops.ddl_ledger set sha256 = 'beef'")
    commit = work.commit({"app.js": "run(2);\n", "new.js": "\n"})
    result = checked(staging, commit=commit)
    assert result.outcome == FAILED, result
    said = ("answers as 0.1.0", "is of 0.1.0", "lacks, or has another", "app.js", "new.js")
    assert [words for words in said if words not in result.message] == []
    assert result.hint.splitlines() == [
        "inv deploy.staging --version 0.1.1   # or once all of it is done:",
        "inv deploy.rollback --env staging --to 0.1.1   # to start it again; and inv ddl.apply --env staging",
    ]


def test_what_cannot_be_asked_is_unknown(staging, checked, web):
    nowhere = checked(staging, origin="http://127.0.0.1:9")
    assert nowhere.outcome == INCONCLUSIVE and "could not be reached" in nowhere.message
    closed = checked(staging, dsn="postgresql://nobody@127.0.0.1:9/none")
    assert closed.outcome == INCONCLUSIVE and "cannot be used" in closed.message
    shallow = checked(staging, commit="0" * 40)
    assert shallow.outcome == INCONCLUSIVE and "git" in shallow.message
    other = checked(staging, ledger="ops.nothing")
    assert other.outcome == INCONCLUSIVE and "does not exist" in other.message


def test_what_cannot_be_read_does_not_hide_what_is_wrong(staging, checked):
    (Path(staging.code) / "app.js").write_text("hack;\n")
    result = checked(staging, origin="http://127.0.0.1:9")
    assert result.outcome == FAILED and "app.js" in result.message and "could not be reached" in result.message
