"""The states of a step."""

from dataclasses import dataclass

from release_tasks.errors import Problem

DONE, PLANNED, PENDING, MANUAL, CHANGED, REFUSED = "done", "planned", "pending", "manual", "changed", "refused"


@dataclass(frozen=True)
class Outcome:
    """How one step was found, or left: a state, and a few words about it."""

    section: str
    step: str
    state: str
    text: str = ""
    problems: tuple[Problem, ...] = ()
