"""One check looked at in this process, as the gate does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from release_tasks.checks.looking import Answer, keep_looking
from release_tasks.checks.place import Asked, Place
from release_tasks.checks.verdict import FAIL, PASS, UNKNOWN, Result, Unknown, Wrong
from release_tasks.kinds import Check


@pytest.fixture
def look() -> Callable[..., Result]:
    """Return what looks at one check: `look(check, place, wait=0)` → its result."""

    def look(check: Check, place: Place, wait: float = 0.0, **asked: Any) -> Result:
        answer = Answer(Asked("a check", "7.2", "a bullet", check, wait, **asked))
        verdict, said, mend = PASS, (), ""
        try:
            keep_looking(place, answer)
        except (Wrong, Unknown) as error:
            verdict, said, mend = (FAIL if isinstance(error, Wrong) else UNKNOWN), error.said, error.mend
        return Result("a check", check.kind, "7.2", "a bullet", verdict, said, mend, answer.seen, answer.attempts)

    return look
