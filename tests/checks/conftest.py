"""A check called in this process, and what it came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from release_tasks.checks import CheckFailed, NoPass
from release_tasks.errors import Refused
from release_tasks.outcome import FAILED, INCONCLUSIVE, PASSED


@dataclass
class Came:
    """What a call came to: its outcome, its message and hint, whether it is final, and what was recorded."""

    outcome: str = PASSED
    message: str = ""
    hint: str = ""
    final: bool = False
    recorded: list[str] = field(default_factory=list)


def came_to(check: Callable[[Callable[[str, object], None]], Any]) -> Came:
    """Call `check` with what records, and return what it came to."""
    came = Came()
    try:
        check(lambda _, value: came.recorded.append(str(value)))
    except NoPass as error:
        came.outcome = FAILED if isinstance(error, CheckFailed) else INCONCLUSIVE
        came.message, came.hint = str(error), error.problems[0].hint
        came.final = error.final
    except Refused as no:
        came.outcome, came.message = INCONCLUSIVE, str(no)
    except psycopg.ProgrammingError as error:  # as the gate has it
        came.outcome, came.message, came.final = INCONCLUSIVE, str(error), True
    return came


@pytest.fixture
def came() -> Callable[..., Came]:
    return came_to
