"""Checks: pytest tests of an environment. A check passes, fails, or is inconclusive, which blocks as a failure does."""

from __future__ import annotations

HINT = "\n    "  # stands between what is wrong and what fixes it


class CheckFailed(AssertionError):
    """What was checked does not hold. `final`: no waiting will change that, so it is not tried again."""

    def __init__(self, message: str, hint: str = "", final: bool = False) -> None:
        super().__init__(" ".join(message.split()) + (f"{HINT}{hint}" if hint else ""))
        self.final = final


class Inconclusive(Exception):
    """It could not be checked, or there was nothing to check. `final` as above."""

    def __init__(self, message: str, hint: str = "", final: bool = False) -> None:
        super().__init__(" ".join(message.split()) + (f"{HINT}{hint}" if hint else ""))
        self.final = final
