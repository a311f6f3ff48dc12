"""The journal: whole lines whatever happens, and no secrets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from release_tasks import masks, process
from release_tasks.journal import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "v0.1.1" / "journal.jsonl")


def test_records_come_back_in_order_with_who_where_and_when(journal: Journal) -> None:
    assert journal.records() == []
    journal.record("step", step="Tag", outcome="done")
    journal.record("notice", text="Grüße")
    first, second = journal.records()
    assert (first["event"], first["step"], first["outcome"]) == ("step", "Tag", "done")
    assert first["who"] and first["where"] and first["at"].endswith("+00:00")
    assert second["text"] == "Grüße"


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
@example(["line one\nline two", '"quoted" \\ back', "# no comment"])
@example(["host=db password=secret dbname=app", "dbname=app password=secret"])
@example(["postgresql://app:secret@db/app"])
def test_whatever_is_said_stays_readable(said: list[str]) -> None:
    with TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl")
        for text in said:
            journal.record("notice", text=text, count=len(text))
        assert [record["count"] for record in journal.records()] == [len(text) for text in said]


@pytest.mark.parametrize("whole", [0, 2])
@pytest.mark.parametrize("torn", [b'{"at": "2026-01-01T00:00', b'{"text": "Gr\xc3'])
def test_a_line_torn_by_a_crash_stays_and_the_next_one_is_whole(journal: Journal, whole: int, torn: bytes) -> None:
    """F11."""
    journal.path.parent.mkdir(parents=True)
    for number in range(whole):
        journal.record("notice", number=number)
    with journal.path.open("ab") as file:
        file.write(torn)
    assert len(journal.records()) == whole
    for number in (whole, whole + 1):
        journal.record("notice", number=number)
    assert [record["number"] for record in journal.records()] == list(range(whole + 2))
    assert journal.path.read_bytes().splitlines()[whole] == torn


def test_a_path_that_is_no_text_is_recorded(journal: Journal) -> None:
    journal.record("command", argv=["ls", "caf\udce9"])
    assert journal.records()[0]["argv"] == ["ls", "caf\udce9"]


@pytest.mark.parametrize("secret", ["s3cret-w0rd", 'quo"ted', "back\\slash", "Grüße-an-alle"])
def test_secrets_are_masked(journal: Journal, secret: str) -> None:
    masks.hide(secret)
    journal.record("command", argv=["deploy", f"--token={secret}"])
    assert journal.records()[0]["argv"] == ["deploy", "--token=***"]


def test_a_password_is_masked_and_what_follows_it_is_kept(journal: Journal) -> None:
    journal.record("command", argv=["psql", "host=db password=hunter22 dbname=app"], code=0)
    assert b"hunter22" not in journal.path.read_bytes()
    assert json.loads(journal.path.read_bytes())["code"] == 0


def test_each_command_is_recorded_only_while_listening(journal: Journal) -> None:
    argv = [sys.executable, "-c", "raise SystemExit(3)"]
    with journal.listening():
        process.run(argv, check=False)
    process.run(argv, check=False)
    (record,) = journal.records()
    assert (record["event"], record["argv"], record["code"]) == ("command", argv, 3)
    assert 0 < record["seconds"] < 30
