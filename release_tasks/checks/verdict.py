"""What a check comes to: pass, fail, or unknown, which blocks as well; and what was seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PASS, FAIL, UNKNOWN = "pass", "fail", "unknown"
ENDED = '"ended"'  # the last line of the results of a run that came to its end
ROWS = 10  # that a result shows, of those that offend


def name_of(path: Path) -> str:
    """Return the name under which the tests of the file `path` are told: `smokes/test_coins.py` is coins."""
    return path.stem.removeprefix("test_")


# What a check has seen, as it goes: the resolved query or request, the value, the threshold, up to ten rows.
Seen = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """How one check ended: its verdict, a sentence for each thing that is wrong, and what it has seen."""

    name: str
    kind: str
    section: str
    bullet: str
    verdict: str
    said: tuple[str, ...] = ()
    mend: str = ""
    seen: Seen = field(default_factory=dict)
    attempts: int = 1
    seconds: float = 0.0

    @property
    def words(self) -> str:
        """What a table says of it: what is wrong, else what was seen in a few words."""
        return " ".join(self.said) or str(self.seen.get("in_words", ""))


class Wrong(AssertionError):
    """What was looked at is not so. `definite`: no waiting will change it, and it is not asked again."""

    def __init__(self, said: str | Iterable[str], mend: str = "", definite: bool = False) -> None:
        self.said = (said,) if isinstance(said, str) else tuple(said)
        self.mend, self.definite = mend, definite
        super().__init__(" ".join(self.said))


class Unknown(Exception):
    """It could not be looked at, or nothing was there to look at. `definite`: it is not asked again."""

    def __init__(self, said: str, mend: str = "", definite: bool = False) -> None:
        self.said, self.mend, self.definite = (said,), mend, definite
        super().__init__(said)
