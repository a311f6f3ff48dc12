"""Checks: pytest tests of an environment. One passes, fails, or is inconclusive, which blocks as a failure does."""

from collections.abc import Callable

from release_tasks.errors import Refused

Record = Callable[[str, object], None]  # pytest's record_property: a name, and what was observed


class NoPass(Refused):
    """A check does not pass. `final`: no waiting will change that, so it is not tried again."""

    def __init__(self, message: str, hint: str = "", final: bool = False) -> None:
        super().__init__(" ".join(message.split()), hint)
        self.final = final


class CheckFailed(NoPass, AssertionError):
    """What was checked does not hold."""


class Inconclusive(NoPass):
    """It could not be checked, or there was nothing to check."""
