"""Outcomes of steps, and results of checks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from release_tasks.errors import Problem, refuse

DONE, PLANNED, PENDING, MANUAL, CHANGED, REFUSED = "done", "planned", "pending", "manual", "changed", "refused"
PASSED, FAILED, INCONCLUSIVE, WAIVED = "passed", "failed", "inconclusive", "waived"


@dataclass(frozen=True)
class Outcome:
    """The state in which one step was found or left, and a text about it."""

    section: str
    step: str
    state: str
    text: str = ""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Result:
    """The result of one check: its outcome, what was wrong, the command that fixes it, and what it observed."""

    name: str
    outcome: str
    message: str = ""
    hint: str = ""
    observed: tuple[str, ...] = ()
    seconds: float = 0.0
    file: str = ""  # of a test: its stem
    test: str = ""  # with its parameter

    @property
    def is_pass(self) -> bool:
        return self.outcome in (PASSED, WAIVED)

    def __str__(self) -> str:
        short = {PASSED: f"{self.seconds:.1f} s", WAIVED: f"waived: {self.message}"}
        return f"{self.name} {short.get(self.outcome, self.outcome)}"


def problems_of(results: Iterable[Result], noun: str, where: str, again: str) -> list[Problem]:
    """Return a problem for each result that is no pass, one for those that have the same message and hint.

    A hint that several problems share is shown with the last of them.
    """
    alike = dict[tuple[str, str, str], list[str]]()
    for each in results:
        if not each.is_pass:
            alike.setdefault((each.outcome, each.message, each.hint or again), []).append(each.name)
    last = {hint: message for _, message, hint in alike}
    return [
        Problem(f"{noun} {', '.join(names)}: {outcome} {where}. {message}", hint if last[hint] == message else "")
        for (outcome, message, hint), names in alike.items()
    ]


def all_pass(results: Sequence[Result], *how: str) -> str:
    """Return the results in a line. Raises `Refused` with the problems of those that are no pass."""
    refuse(problems_of(results, *how))
    return ", ".join(map(str, results))
