"""Logs since the deployment began: real files, really rotated, and PostgreSQL's own server log."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_tasks import asking
from release_tasks.checks import log, rotation
from release_tasks.checks.place import Place
from release_tasks.checks.rotation import Reading, positions, written_since
from release_tasks.checks.verdict import FAIL, PASS, UNKNOWN
from release_tasks.database.server import Running
from release_tasks.kinds import Log

TROUBLE = "2026-01-01 WARNING:  there is no transaction in progress\n"
OWN = Log(files=["app.log"])


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A log in which trouble stood before the deployment began."""
    path = tmp_path / "app.log"
    path.write_text("ERROR:  of yesterday\nstarted\n")
    return path


@pytest.fixture
def deployed(place: Callable[..., Place], tmp_path: Path, app: Path) -> Callable[..., Place]:
    """Return what begins a deployment now: the logs' positions as its marker keeps them."""

    def deployed(*patterns: str, **facts: Any) -> Place:
        kept = json.loads(json.dumps(positions(patterns or ["app.log"], tmp_path)))
        return place(positions=kept, began="2026-01-01T00:00:00+00:00", **facts)

    return deployed


def say(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_what_stood_in_the_log_before_the_deployment_is_no_trouble(deployed, look, app):
    here = deployed()
    say(app, "all is well\n")
    result = look(OWN, here)
    assert (result.verdict, result.seen["lines"]) == (PASS, 1), result.said


def test_a_warning_in_colours_is_one_as_well(deployed, look, app):
    here = deployed()
    say(app, "\x1b[33mWARNING\x1b[39m:  there is no transaction in progress\n")
    assert look(OWN, here).verdict == FAIL


def test_a_log_that_nobody_has_is_unknown_also_where_silence_is_right(deployed, look):
    result = look(Log(files=["none.log", "gone/*.log"], silent="it logs errors alone"), deployed("none.log"))
    assert (result.verdict, result.words) == (UNKNOWN, "No file is called none.log or gone/*.log.")


def test_a_warning_between_deployment_and_check_fails_at_once(deployed, look, app):
    here = deployed()
    say(app, f"fine\n{TROUBLE * 12}fine\n")
    result = look(OWN, here, wait=30)
    assert (result.verdict, result.attempts) == (FAIL, 1)
    assert "no transaction in progress" in result.said[0] and "and 9 more" in result.said[0]
    assert len(result.seen["rows"]) == 10


def renamed(path: Path) -> None:
    path.rename(f"{path}.1")
    path.write_text("a new file\n")


def renamed_twice(path: Path) -> None:
    renamed(path)
    Path(f"{path}.1").rename(f"{path}.2")
    renamed(path)


def renamed_by_date(path: Path) -> None:
    path.rename(path.with_name("app-20260101.log"))
    path.write_text("a new file\n")


def renamed_by_hand(path: Path) -> None:
    path.rename(path.with_name("kept for later"))
    path.write_text("a new file\n")


def copied(path: Path) -> None:
    shutil.copy(path, f"{path}.1")
    os.truncate(path, 0)


def copied_by_date(path: Path) -> None:
    shutil.copy(path, path.with_name("app-20260101.log"))
    os.truncate(path, 0)


def copied_and_grown(path: Path) -> None:
    copied(path)
    say(path, "it is longer than before by now\n" * 20)


def being_compressed(path: Path) -> None:
    renamed(path)
    with gzip.open(f"{path}.1.gz", "wb") as file:
        file.write(Path(f"{path}.1").read_bytes())
    shutil.copystat(f"{path}.1", f"{path}.1.gz")


def compressed(path: Path) -> None:
    being_compressed(path)
    Path(f"{path}.1").unlink()


ROTATIONS = [
    renamed,
    renamed_twice,
    renamed_by_date,
    renamed_by_hand,
    copied,
    copied_by_date,
    copied_and_grown,
    being_compressed,
    compressed,
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("rotated", ROTATIONS)
def test_a_warning_is_found_on_either_side_of_a_rotation(deployed, look, app, rotated, when):
    here = deployed()
    say(app, TROUBLE if when == "before" else "fine\n")
    rotated(app)
    say(app, TROUBLE if when == "after" else "fine\n")
    result = look(OWN, here)
    assert result.verdict == FAIL and "no transaction" in result.said[0] and "yesterday" not in result.said[0]


@pytest.mark.parametrize("rotated", ROTATIONS)
def test_a_rotation_is_no_trouble_and_old_trouble_stays_old(deployed, look, app, rotated):
    shutil.copy(app, f"{app}.3")
    here = deployed()
    say(app, "fine\n")
    rotated(app)
    say(app, "fine\n")
    result = look(OWN, here)
    assert (result.verdict, result.said) == (PASS, ())


def test_older_files_that_are_renamed_once_more_stay_old(deployed, look, app):
    shutil.copy(app, f"{app}.1")
    Path(f"{app}.2.gz").write_bytes(gzip.compress(os.urandom(9000) + TROUBLE.encode() * 2000))
    here = deployed()
    Path(f"{app}.2.gz").rename(f"{app}.3.gz")
    Path(f"{app}.1").rename(f"{app}.2")
    renamed(app)
    result = look(OWN, here)
    assert (result.verdict, result.seen["files"]) == (PASS, [str(app)]), result.said


def test_a_new_file_with_the_very_lines_of_the_old_one_is_read_whole(deployed, look, app):
    app.write_text("ERROR:  again\n" * 40)
    here = deployed()
    app.rename(f"{app}.1")
    app.write_text("ERROR:  again\n" * 41)
    assert "and 38 more" in look(OWN, here).said[0]


def test_a_log_that_was_empty_is_found_again_under_its_new_name(deployed, look, app):
    app.write_text("")
    here = deployed()
    say(app, TROUBLE)
    renamed(app)
    assert look(OWN, here).verdict == FAIL


def test_an_empty_log_that_was_made_anew_may_have_lost_lines(deployed, look, app):
    app.write_text("")
    here = deployed()
    say(app, TROUBLE)
    app.unlink()
    (app.parent / "other").write_text("takes the inode\n")
    say(app, "fine\n")
    assert look(OWN, here).verdict == UNKNOWN


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: os.truncate(path, 0)], ids=["removed", "emptied"])
def test_what_cannot_be_read_any_more_is_unknown(deployed, look, app, lose):
    here = deployed()
    say(app, TROUBLE)
    lose(app)
    say(app, "fine\n")
    result = look(OWN, here)
    assert result.verdict == UNKNOWN and "cannot be read any more" in result.said[0]


def test_what_another_check_reads_and_lost_is_not_this_ones_affair(deployed, look, tmp_path, app):
    other = tmp_path / "other.txt"
    other.write_text("fine\n")
    here = deployed("app.log", "other.txt")
    say(other, TROUBLE)
    other.rename(tmp_path / "other.old")
    say(app, "fine\n")
    assert look(OWN, here).verdict == PASS
    (tmp_path / "other.old").unlink()
    assert look(OWN, here).verdict == PASS
    assert look(Log(files=["other.txt"]), here).verdict == UNKNOWN


def test_an_emptied_log_with_trouble_in_it_fails(deployed, look, app):
    here = deployed()
    os.truncate(app, 0)
    say(app, TROUBLE)
    assert look(OWN, here).verdict == FAIL


def test_an_old_file_may_go_and_a_new_name_is_read_whole(deployed, look, tmp_path, app):
    old = tmp_path / "pg-Mon.log"
    old.write_text(TROUBLE)
    os.utime(old, (0, 0))
    here = deployed("pg-*.log")
    old.unlink()
    (tmp_path / "pg-Tue.log").write_text("fine\n")
    check = Log(files=["pg-*.log"])
    assert look(check, here).verdict == PASS
    (tmp_path / "pg-Wed.log").write_text(TROUBLE)
    assert look(check, here).verdict == FAIL


def test_a_file_that_came_by_without_having_been_written_to_is_not_read(deployed, look, tmp_path, app):
    here = deployed("*.log")
    say(app, "fine\n")
    (tmp_path / "restored.log").write_text(TROUBLE)
    os.utime(tmp_path / "restored.log", (0, 0))
    assert look(Log(files=["*.log"]), here).verdict == PASS


def test_a_log_that_nobody_writes_to_is_unknown_unless_it_is_right(deployed, look):
    here = deployed()
    result = look(OWN, here)
    assert result.verdict == UNKNOWN and "proves nothing" in result.said[0]
    assert look(Log(files=["none.log"]), here).verdict == UNKNOWN
    quiet = look(Log(files=["app.log"], silent="it logs errors alone"), here)
    assert (quiet.verdict, quiet.words) == (PASS, "it logs errors alone")


def test_a_log_that_cannot_be_read_is_unknown(deployed, look, app):
    here = deployed()
    Path(f"{app}.1.gz").write_bytes(b"\x1f\x8b no gzip at all")
    result = look(OWN, here)
    assert result.verdict == UNKNOWN and "app.log.1.gz" in result.said[0]


def test_exceptions_have_a_reason_and_used_ones_are_reported(deployed, look, app):
    here = deployed()
    say(app, TROUBLE * 2 + "WARNING:  another\n")
    known = {"no transaction": "#12: the pack commits twice", "never used": "#13"}
    result = look(Log(files=["app.log"], exceptions=known), here)
    assert result.verdict == FAIL and "another" in result.said[0] and "no transaction" not in result.said[0]
    assert result.seen["excepted"] == {"#12: the pack commits twice": 2}
    passed = look(Log(files=["app.log"], exceptions={**known, "another": "#14"}), here)
    assert passed.verdict == PASS and "2 excepted: #12" in passed.words


def test_a_line_without_an_end_is_looked_at_in_pieces(deployed, look, app, monkeypatch):
    monkeypatch.setattr(rotation, "LONGEST", 100)
    here = deployed()
    say(app, "x" * 950 + " ERROR: deep in it " + "x" * 950)
    result = look(OWN, here)
    assert result.verdict == FAIL and len(result.seen["rows"][0]) <= 100


def test_lines_that_begin_with_a_tab_belong_to_the_entry_before(deployed, look, app):
    here = deployed()
    say(app, "ERROR:  bad statement\n\tof the importer\n")
    result = look(Log(files=["app.log"], exceptions={"of the importer": "#15"}), here)
    assert result.verdict == PASS and result.seen["lines"] == 2


def test_where_nothing_was_deployed_it_reads_from_the_first_look_on(place, look, app):
    here = place()
    assert look(OWN, here).verdict == UNKNOWN
    say(app, "fine\n")
    assert look(OWN, here).verdict == PASS
    say(app, TROUBLE)
    assert look(OWN, here).verdict == FAIL


@given(
    before=st.binary(max_size=600), after=st.binary(max_size=600), how=st.sampled_from([renamed, copied, compressed])
)
def test_whatever_stands_in_a_log_nothing_is_lost_or_read_twice(tmp_path_factory, before, after, how):
    path = tmp_path_factory.mktemp("log") / "app.log"
    path.write_bytes(before)
    began = positions(["app.log"], path.parent)
    with path.open("ab") as file:
        file.write(after)
    how(path)
    reading = Reading()
    told = "\n".join(written_since(began, ["app.log"], path.parent, reading))
    expected = [line.decode(errors="replace").rstrip() for line in after.split(b"\n")]
    assert reading.lost == []
    assert [line for line in told.split("\n") if line and line != "a new file"] == [line for line in expected if line]


# A command


def printing(text: str, code: int = 0) -> list[str]:
    return [sys.executable, "-c", f"import sys; print({text!r}, *sys.argv[1:]); sys.exit({code})"]


@pytest.mark.parametrize(
    ("command", "verdict"),
    [
        (printing("fine"), PASS),
        (printing(TROUBLE), FAIL),
        (printing("fine", code=1), UNKNOWN),
        ([sys.executable, "-c", "pass"], UNKNOWN),
        (printing("-- No entries --"), UNKNOWN),
        ([sys.executable, "-c", "import time; time.sleep(600)"], UNKNOWN),
        (["no-such-program"], UNKNOWN),
    ],
)
def test_a_command_prints_the_log(deployed, look, command, verdict):
    limit = 2 if "sleep" in command[-1] else 60
    assert look(Log(command=command, timeout=limit), deployed()).verdict == verdict


def test_a_command_is_told_since_when(deployed, look):
    here = deployed()
    check = Log(command=[*printing("ERROR: "), "{since}", "@{since_unix}"])
    unix = int(here.positions["at"])
    assert look(check, here).seen["rows"] == [f"ERROR:  2026-01-01T00:00:00+00:00 @{unix}"]


# PostgreSQL's server log


@pytest.fixture
def staging(server: Running, dsn: str, place: Callable[..., Place]) -> Place:
    kept = positions([str(server.log)], "/")
    return place(dsn=dsn, log=str(server.log), positions=kept, began="2026-01-01T00:00:00+00:00")


def execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


def test_the_server_log_passes_by_a_mark_of_our_own(staging, look):
    result = look(Log(), staging)
    assert result.verdict == PASS and result.seen["lines"] >= 1, result.said
    assert result.seen["files"] == [staging.log]


def test_a_warning_of_the_server_fails_and_a_statement_over_lines_is_one_entry(staging, look):
    execute(staging.dsn, "do $$ begin raise warning 'count is off'; end $$")
    with pytest.raises(psycopg.Error):
        execute(staging.dsn, "select 1/0,\n\t'ERROR: in a statement'")
    result = look(Log(), staging)
    assert result.verdict == FAIL and "count is off" in result.said[0] and "division by zero" in result.said[0]
    assert any("\n" in row for row in result.seen["rows"])


def test_the_end_of_an_embedded_server_is_its_own(staging, look, server):
    said = "FATAL:  terminating connection due to administrator command"
    execute(staging.dsn, f"do $$ begin raise log '{said}'; end $$")
    assert look(Log(), staging).verdict == FAIL
    embedded = Place(**{**vars(staging), "ends_with_us": True})
    assert look(Log(), embedded).seen["excepted"].keys() == {"the embedded server ended with an earlier run"}


def test_the_log_of_another_server_is_unknown(staging, look, tmp_path, monkeypatch):
    other = tmp_path / "other.log"
    other.write_text("2026-01-01 LOG:  all is well here\n")
    monkeypatch.setattr(log, "LOG_DELAY", 0.3)
    result = look(Log(), Place(**{**vars(staging), "log": str(other)}))
    assert result.verdict == UNKNOWN and "another server's log" in result.said[0]


@pytest.mark.parametrize("path", ["", "no-such.log"])
def test_a_server_log_that_is_not_there_is_unknown(staging, look, path):
    result = look(Log(), Place(**{**vars(staging), "log": path}))
    assert result.verdict == UNKNOWN and "release.environments.staging.log" in result.mend


def test_a_server_that_logs_no_warnings_proves_nothing(staging, look):
    execute(staging.dsn, "alter database app set log_min_messages = error")
    try:
        result = look(Log(), staging)
    finally:
        execute(staging.dsn, "alter database app reset log_min_messages")
    assert result.verdict == UNKNOWN and "logs from error on" in result.said[0]


def test_no_database_is_unknown(staging, look):
    result = look(Log(), Place(**{**vars(staging), "dsn": "postgresql://nobody@127.0.0.1:9/none"}))
    assert result.verdict == UNKNOWN and "cannot be used" in result.said[0]


def test_a_test_of_the_team_asks_the_server_log_by_a_fixture(staging, tmp_path):
    execute(staging.dsn, "do $$ begin raise warning 'count is off'; end $$")
    (tmp_path / "test_own.py").write_text(
        "def test_finds(log):\n    assert len(log('count is off')) == 1\n\n"
        "def test_finds_none(log):\n    assert not log('never said')\n\n"
        "def test_fails(log):\n    assert not log('WARNING: ')\n"
    )
    results = {each.name: each for each in asking.ask(staging, [tmp_path / "test_own.py"])}
    assert [each.verdict for each in results.values()] == [PASS, PASS, FAIL], results
    assert "'count is off': 1 entries of " in results["own/test_finds"].seen["log"][0]
