"""The ways in which a check is not simply done: a problem with its hint, something not there yet, something manual."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

Found = TypeVar("Found")
IN_A_RUN = "when the release runs"  # what a check waits for that starts something, or takes its time


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: a sentence with found and expected, and the command that fixes it."""

    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.what}\n    {self.hint}" if self.hint else self.what


class Refused(Exception):
    """The world contradicts the release; nothing is changed. Carries one problem or several."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.problems: tuple[Problem, ...] = (Problem(what, hint),)


class NotYet(Exception):
    """A check needs what an earlier step has not made yet; the message says what, as "after the tag"."""


def require(found: Found | None, when: str) -> Found:
    """Return `found`, which an earlier step makes. Raises `NotYet(when)` as long as it is missing."""
    if not found:
        raise NotYet(when)
    return found


class Manual(str):
    """The result of a manual step: the sentence that asks a person for it."""


def refuse(problems: Iterable[Problem]) -> None:
    """Raise `Refused` with all of `problems`, or do nothing when there are none."""
    if found := tuple(problems):
        refused = Refused(" ".join(problem.what for problem in found))
        refused.problems = found
        raise refused


def listed(names: Iterable[str], most: int = 10) -> str:
    """Return `names` as words of a sentence, the tail counted when there are more than `most`."""
    found = list(names)
    shown = ", ".join(found[:most])
    return shown if len(found) <= most else f"{shown} and {len(found) - most} more"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
