"""The table of a rehearsal explains all of its time."""

from __future__ import annotations

from typing import Any

from release_tasks.rehearsal import rows_of


def record(event: str, section: str, state: str, seconds: float) -> dict[str, Any]:
    return {"event": event, "section": section, "state": state, "seconds": seconds}


def test_both_passes_over_a_section_and_all_around_it_are_in_the_table() -> None:
    records = [
        record("checked", "2. Preconditions", "done", 40.0),
        record("checked", "3. Freeze Window", "planned", 0.2),
        record("checked", "3. Freeze Window", "pending", 0.3),
        record("step", "2. Preconditions", "done", 1.0),
        {"event": "command", "argv": ["git"], "code": 0, "seconds": 9.0},
        record("step", "3. Freeze Window", "changed", 2.0),
        record("step", "3. Freeze Window", "done", 0.5),
    ]
    assert rows_of(records, ready=30.0, seconds=80.0) == [
        ("Bringing up the environments", "done", "", "", "30.0 s"),
        ("2. Preconditions", "done", "1", "0", "41.0 s"),
        ("3. Freeze Window", "done", "2", "1", "3.0 s"),
        ("Beginning and ending", "", "", "", "6.0 s"),
    ]


def test_a_rehearsal_that_was_refused_shows_where() -> None:
    records = [
        record("checked", "2. Preconditions", "done", 40.0),
        record("checked", "2. Preconditions", "refused", 1.0),
        record("checked", "3. Freeze Window", "pending", 0.3),
    ]
    assert [row[:3] for row in rows_of(records, 30.0, 75.0)][1:3] == [
        ("2. Preconditions", "refused", "0"),
        ("3. Freeze Window", "checked", "0"),
    ]
