"""Logs since the deployment began: real files, really rotated, and PostgreSQL's own server log."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_tasks.checks import Target, logs
from release_tasks.checks.logs import Log, positions
from release_tasks.database.server import Running
from release_tasks.outcome import FAILED, INCONCLUSIVE, PASSED
from tests.checks.conftest import Came, came_to

TROUBLE = "2026-01-01 WARNING:  there is no transaction in progress\n"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A log in which trouble stood before the deployment began."""
    path = tmp_path / "app.log"
    path.write_text("ERROR:  of yesterday\nstarted\n")
    return path


@pytest.fixture
def deployed(target: Callable[..., Target], tmp_path: Path, app: Path) -> Callable[..., Target]:
    """Return what begins a deployment now: the logs' positions as its marker keeps them."""

    def deployed(*patterns: str, **facts: Any) -> Target:
        kept = json.loads(json.dumps(positions(patterns or ["app.log"], tmp_path)))
        return target(log_positions=kept, deployed_at="2026-01-01T00:00:00+00:00", **facts)

    return deployed


def check(target: Target, file: str = "app.log", **how: Any) -> Came:
    return came_to(lambda record: Log(target, record).has_no_trouble(file, **how))


def say(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_what_stood_in_the_log_before_the_deployment_is_no_trouble(deployed, app):
    here = deployed()
    say(app, "all is well\n")
    assert check(here) == Came(PASSED, recorded=["1 line, 0 excepted"])


def test_a_log_in_a_folder_with_a_bracket_is_found(tmp_path):
    (folder := tmp_path / "app [1]").mkdir()
    (folder / "app.log").touch()
    assert logs.matching("*.log", folder) == logs.matching(f"{folder}/app.log", folder) == [folder / "app.log"]


def test_a_warning_in_colours_is_one_as_well(deployed, app):
    here = deployed()
    say(app, "\x1b[33mWARNING\x1b[39m:  there is no transaction in progress\n")
    assert check(here).outcome == FAILED


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ("ERROR:root:boom", FAILED),
        ("[ERROR] boom", FAILED),
        ("2026-01-01 12:00:00,000 CRITICAL app: boom", FAILED),
        ("error: boom", FAILED),
        ('{"level":"error","msg":"boom"}', FAILED),
        ('{"level":50,"msg":"boom"}', FAILED),
        ("time=12:00 level=error msg=boom", FAILED),
        ("Traceback (most recent call last):\n  File …\nboom: x", FAILED),
        ("0 errors", PASSED),
        ('{"level":"info","error":null}', PASSED),
        ("no error: all is well", PASSED),
        ("level=50000", PASSED),
        ('{"level":"info","counts":{"ERROR":0}}', PASSED),
        ("INFO log levels: TRACE DEBUG INFO WARN ERROR FATAL", PASSED),
        ("LOG_LEVEL=ERROR", PASSED),
        ("battery level: 60", PASSED),
    ],
)
def test_trouble_is_seen_as_other_loggers_write_it_and_not_where_one_speaks_of_it(deployed, app, line, outcome):
    """Only PostgreSQL's spelling was."""
    here = deployed()
    say(app, f"fine\n{line}\n")
    assert check(here).outcome == outcome


def test_a_log_that_nobody_has_is_inconclusive(deployed):
    result = check(deployed("none.log"), "gone/*.log")
    assert result.outcome == INCONCLUSIVE and "Where the log gone/*.log stood" in result.message


def test_a_warning_between_deployment_and_check_is_final(deployed, app):
    here = deployed()
    say(app, f"fine\n{TROUBLE * 12}fine\n")
    result = check(here)
    assert (result.outcome, result.final) == (FAILED, True)
    assert "no transaction in progress" in result.message and "12 lines of trouble" in result.message


def renamed(path: Path) -> None:
    path.rename(f"{path}.1")
    path.write_text("a new file\n")


def renamed_twice(path: Path) -> None:
    renamed(path)
    Path(f"{path}.1").rename(f"{path}.2")
    renamed(path)


def renamed_with_a_date(path: Path) -> None:
    path.rename(f"{path}-20260101")
    path.write_text("a new file\n")


ROTATIONS = [renamed, renamed_twice, renamed_with_a_date]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("rotated", ROTATIONS)
def test_a_warning_is_found_on_either_side_of_a_rotation(deployed, app, rotated, when):
    here = deployed()
    say(app, TROUBLE if when == "before" else "fine\n")
    rotated(app)
    say(app, TROUBLE if when == "after" else "fine\n")
    result = check(here)
    assert result.outcome == FAILED and "no transaction" in result.message and "yesterday" not in result.message


@pytest.mark.parametrize("rotated", ROTATIONS)
def test_a_rotation_is_no_trouble_and_old_trouble_stays_old(deployed, app, rotated):
    here = deployed()
    say(app, "fine\n")
    rotated(app)
    say(app, "fine\n")
    assert check(here).outcome == PASSED


def copied(path: Path) -> None:
    Path(f"{path}.1").write_bytes(path.read_bytes())
    os.truncate(path, 0)


def copied_and_grown(path: Path) -> None:
    copied(path)
    say(path, "it is longer than before by now\n" * 20)


def made_anew(path: Path) -> None:
    path.unlink()
    (path.parent / "other").write_text("takes the inode\n")


@pytest.mark.parametrize("lose", [copied, copied_and_grown, made_anew, Path.unlink])
def test_what_may_have_been_lost_is_inconclusive_and_final(deployed, app, lose):
    here = deployed()
    say(app, "fine\n")
    lose(app)
    say(app, "fine\n")
    result = check(here)
    assert (result.outcome, result.final) == (INCONCLUSIVE, True) and "cannot be read any more" in result.message


def test_a_new_file_with_the_very_lines_of_the_old_one_is_read_whole(deployed, app):
    app.write_text("ERROR:  again\n" * 40)
    here = deployed()
    app.rename(f"{app}.1")
    app.write_text("ERROR:  again\n" * 41)
    assert "41 lines of trouble" in check(here).message


def test_a_log_that_was_empty_is_found_again_under_its_new_name(deployed, app):
    app.write_text("")
    here = deployed()
    say(app, TROUBLE)
    renamed(app)
    assert check(here).outcome == FAILED


def test_a_new_name_is_read_whole(deployed, tmp_path, app):
    (tmp_path / "pg-Mon.log").write_text(TROUBLE)
    here = deployed("pg-*.log")
    (tmp_path / "pg-Tue.log").write_text("fine\n")
    assert check(here, "pg-*.log").outcome == PASSED
    (tmp_path / "pg-Wed.log").write_text(TROUBLE)
    assert check(here, "pg-*.log").outcome == FAILED


@pytest.mark.parametrize("pattern", ["logs/**/*.log", "**/*.log", "logs/*/a*.log", "logs/**/x/**/*.log"])
def test_a_pattern_of_folders_within_folders_finds_what_was_noted_by_it(deployed, tmp_path, app, pattern):
    """Python's own match takes ** for one folder."""
    (tmp_path / "logs/x/y").mkdir(parents=True)
    noted = [tmp_path / "logs" / name for name in ("app.log", "x/app.log", "x/y/app.log")]
    for path in noted:
        path.write_text(TROUBLE)
    here = deployed(pattern)
    assert check(here, pattern).message == f"{pattern} has no line since {here.deployed_at}: that proves nothing."
    say(noted[1], TROUBLE)
    renamed(noted[1])
    assert "1 line of trouble" in check(here, pattern).message


def test_a_file_that_came_by_without_having_been_written_to_is_not_read(deployed, tmp_path, app):
    here = deployed("*.log")
    say(app, "fine\n")
    (tmp_path / "restored.log").write_text(TROUBLE)
    os.utime(tmp_path / "restored.log", (0, 0))
    assert check(here, "*.log").outcome == PASSED


def test_a_log_that_nobody_writes_to_is_inconclusive(deployed):
    here = deployed()
    result = check(here)
    assert result.outcome == INCONCLUSIVE and "proves nothing" in result.message


def test_a_log_whose_position_nobody_noted_is_inconclusive_and_says_which_setting_does(deployed, tmp_path):
    here = deployed()
    (tmp_path / "jobs.log").write_text("fine\n")
    result = check(here, "jobs.log")
    assert result.outcome == INCONCLUSIVE and "release.acceptance.logs: [jobs.log]" in result.hint


def test_a_log_that_came_after_the_deployment_is_read_from_its_beginning(deployed, tmp_path):
    here = deployed("jobs/*.log")
    (tmp_path / "jobs").mkdir()
    say(tmp_path / "jobs" / "first.log", TROUBLE)
    assert check(here, "jobs/*.log").outcome == FAILED


def test_exceptions_have_a_reason_and_used_ones_are_reported(deployed, app):
    here = deployed()
    say(app, TROUBLE * 2 + "WARNING:  another\n")
    known = {"no transaction": "#12: the pack commits twice", "never used": "#13"}
    result = check(here, exceptions=known)
    assert result.outcome == FAILED and "another" in result.message and "no transaction" not in result.message
    assert "3 excepted" in check(here, exceptions={**known, "another": "#14"}).recorded[0]


def test_lines_that_begin_with_a_tab_belong_to_the_entry_before(deployed, app):
    here = deployed()
    say(app, "ERROR:  bad statement\n\tof the importer\n")
    assert check(here, exceptions={"of the importer": "#15"}).outcome == PASSED


def test_a_log_in_a_folder_that_is_a_link_is_found_again(target, app, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    here = target(log_positions=positions(["link/app.log"], tmp_path), deployed_at="2026-01-01T00:00:00+00:00")
    say(app, TROUBLE)
    renamed(app)
    assert check(here, "link/app.log").outcome == FAILED


def test_where_nothing_was_deployed_it_reads_from_the_first_look_on(target, app):
    log = Log(target(), lambda *_: None)
    assert log.lines("app.log") == []
    say(app, "fine\n")
    assert log.lines("app.log") == ["fine"]


@given(before=st.binary(max_size=600), after=st.binary(max_size=600), rotated=st.booleans())
def test_whatever_stands_in_a_log_nothing_is_lost_or_read_twice(tmp_path_factory, before, after, rotated):
    path = tmp_path_factory.mktemp("log") / "app.log"
    path.write_bytes(before)
    here = Target("s", "a", "1", "", "", str(path.parent), "", "", log_positions=positions(["app.log"], path.parent))
    with path.open("ab") as file:
        file.write(after)
    if rotated:
        renamed(path)
    told = "\n".join(Log(here, lambda *_: None).lines("app.log"))
    expected = [line.decode(errors="replace").rstrip() for line in after.split(b"\n")]
    assert [line for line in told.split("\n") if line and line != "a new file"] == [line for line in expected if line]


# PostgreSQL's server log


@pytest.fixture
def staging(server: Running, dsn: str, target: Callable[..., Target]) -> Target:
    kept = positions([str(server.log)], Path("/"))
    return target(dsn=dsn, log=str(server.log), log_positions=kept, deployed_at="2026-01-01T00:00:00+00:00")


def execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


def test_the_server_log_passes_by_a_mark_of_our_own(staging):
    assert check(staging, "").outcome == PASSED


def test_a_server_that_logs_verbosely_is_known_by_its_mark_too(staging):
    """A SQLSTATE stands before each message: it was "another server's log"."""
    execute(staging.dsn, "alter system set log_error_verbosity = verbose")
    execute(staging.dsn, "select pg_reload_conf()")
    try:
        assert check(staging, "").outcome == PASSED
    finally:
        execute(staging.dsn, "alter system reset log_error_verbosity")
        execute(staging.dsn, "select pg_reload_conf()")


def test_a_warning_of_the_server_fails_and_a_statement_over_lines_is_one_entry(staging):
    execute(staging.dsn, "do $$ begin raise warning 'count is off'; end $$")
    with pytest.raises(psycopg.Error):
        execute(staging.dsn, "select 1/0,\n\t'ERROR: in a statement'")
    result = check(staging, "")
    assert result.outcome == FAILED and "count is off" in result.message and "division by zero" in result.message
    assert any("\n" in line for line in Log(staging, lambda *_: None).lines())


@pytest.mark.parametrize(
    "said",
    [
        "terminating connection due to administrator command",
        "the database system is starting up",
        "the database system is not yet accepting connections",
    ],
)
def test_a_server_that_was_stopped_and_started_is_no_trouble_of_the_application(staging, said):
    """The release could never go on: the line stays in the log, and only a new version was proposed."""
    execute(staging.dsn, f"do $$ begin raise log 'FATAL:  {said}'; end $$")
    assert ", 2 excepted" in check(staging, "").recorded[0]


def test_a_server_that_has_crashed_is_trouble(staging):
    said = "terminating connection because of crash of another server process"
    execute(staging.dsn, f"do $$ begin raise warning '{said}'; end $$")
    assert check(staging, "").outcome == FAILED


def test_the_log_of_another_server_is_inconclusive(staging, tmp_path, monkeypatch):
    other = tmp_path / "other.log"
    other.write_text("2026-01-01 LOG:  all is well here\n")
    monkeypatch.setattr(logs, "ARRIVES", 0.3)
    result = check(replace(staging, log=str(other), log_positions={}), "")
    assert result.outcome == INCONCLUSIVE and "another server's log" in result.message


@pytest.mark.parametrize("path", ["", "no-such.log"])
def test_a_server_log_that_is_not_there_is_inconclusive(staging, path):
    result = check(replace(staging, log=path), "")
    assert result.outcome == INCONCLUSIVE and "release.environments.staging.log" in result.hint


def test_a_server_that_logs_no_warnings_proves_nothing(staging, monkeypatch):
    monkeypatch.setattr(logs, "ARRIVES", 0.3)
    execute(staging.dsn, "alter database app set log_min_messages = error")
    try:
        result = check(staging, "")
    finally:
        execute(staging.dsn, "alter database app reset log_min_messages")
    assert result.outcome == INCONCLUSIVE and "log_min_messages = warning" in result.hint


def test_no_database_is_inconclusive(staging):
    result = check(replace(staging, dsn="postgresql://nobody@127.0.0.1:9/none"), "")
    assert result.outcome == INCONCLUSIVE and "cannot be used" in result.message


LINES = [
    "2026-01-01 10:00:00.000 UTC [7] rita@other ERROR:  of others",
    "2026-01-01 10:00:00.000 UTC [8] rita@app WARNING:  of ours",
    "2026-01-01 10:00:00.000 UTC [9] @ FATAL:  of nobody",
]


@pytest.mark.parametrize(("prefix", "kept"), [("%m [%p] %u@%d ", [1, 2]), ("%m [%p] ", [0, 1, 2])])
def test_lines_of_other_databases_do_not_count_where_the_log_says_which(prefix, kept):
    """C9: one ERROR line of another database, in the log of a shared server, blocked a version for ever."""
    assert list(logs.of_database(LINES, prefix, "app")) == [LINES[number] for number in kept]


@pytest.mark.parametrize("kind", ["csvlog", "jsonlog"])
def test_a_log_that_is_no_plain_text_is_inconclusive(staging, tmp_path, monkeypatch, kind):
    """What a line of it says cannot be told: our own warning does not arrive as a line of text does."""
    monkeypatch.setattr(logs, "ARRIVES", 0.3)
    monkeypatch.setattr(logs.secrets, "token_hex", lambda _: "cafe")
    lines = {"csvlog": f'2026-01-01,,,WARNING,01000,"{logs.MARK}: cafe"\n'}
    lines |= {"jsonlog": f'{{"error_severity": "WARNING", "message": "{logs.MARK}: cafe"}}\n'}
    log = tmp_path / "server.log"
    log.write_text(lines[kind])
    result = check(replace(staging, log=str(log), log_positions={}), "")
    assert result.outcome == INCONCLUSIVE and "or JSON" in result.message and "log_destination" in result.hint
