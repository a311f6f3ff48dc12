"""Looking again: until it holds, can no longer hold, or its wait is over, with a last look then."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from release_tasks.checks.looking import again
from release_tasks.checks.verdict import Unknown, Wrong


@pytest.fixture
def looks() -> list[int]:
    return []


def look(looks: list[int], holds: Callable[[int], bool], error: Exception) -> Callable[[], None]:
    def look() -> None:
        looks.append(1)
        if not holds(len(looks)):
            raise error

    return look


def test_what_holds_is_looked_at_no_more(looks: list[int]) -> None:
    again(look(looks, lambda times: times == 3, Wrong("not yet")), 60, 0.001, (Wrong,))
    assert len(looks) == 3


def test_what_is_definite_or_no_verdict_is_not_waited_for(looks: list[int]) -> None:
    for error in (Unknown("never", definite=True), KeyError("a mistake")):
        with pytest.raises(type(error)):
            again(look(looks, lambda _: False, error), 60, 60, (Wrong, Unknown))
    assert len(looks) == 2


def test_the_last_look_is_when_the_wait_is_over(looks: list[int]) -> None:
    with pytest.raises(Wrong):
        again(look(looks, lambda _: False, Wrong("no")), 0.05, 60, (Wrong,))
    assert len(looks) == 2


def test_without_a_wait_there_is_one_look(looks: list[int]) -> None:
    with pytest.raises(Wrong):
        again(look(looks, lambda _: False, Wrong("no")), 0, 1, (Wrong,))
    assert len(looks) == 1
