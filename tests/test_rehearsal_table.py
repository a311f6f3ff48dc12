"""The table of a rehearsal explains all of its time."""

from __future__ import annotations

from typing import Any

from release_tasks.rehearsal import rows_of


def step(section: str, outcome: str, seconds: float) -> dict[str, Any]:
    return {"event": "step", "section": section, "outcome": outcome, "seconds": seconds}


def test_both_passes_over_a_section_and_all_around_it_are_in_the_table() -> None:
    records = [
        {"event": "checked", "refused": [], "seconds": {"2. Preconditions": 40.0, "3. Freeze Window": 0.5}},
        step("2. Preconditions", "done", 1.0),
        {"event": "command", "argv": ["git"], "code": 0, "seconds": 9.0},
        step("3. Freeze Window", "changed", 2.0),
        step("3. Freeze Window", "done", 0.5),
    ]
    assert rows_of(records, ready=30.0, seconds=80.0) == [
        ("Bringing up the environments", "done", "", "", "30.0 s"),
        ("2. Preconditions", "done", "1", "0", "41.0 s"),
        ("3. Freeze Window", "done", "2", "1", "3.0 s"),
        ("Beginning and ending", "", "", "", "6.0 s"),
    ]


def test_a_rehearsal_that_was_refused_shows_what_was_checked() -> None:
    checked = {"event": "checked", "refused": ["It is not so."], "seconds": {"2. Preconditions": 40.0}}
    assert [row[:3] for row in rows_of([checked], 30.0, 75.0)][1] == ("2. Preconditions", "checked", "0")
