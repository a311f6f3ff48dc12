"""Looking: all checks at once, each until it holds, can no longer hold, or its wait is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass, field
from importlib import import_module
from math import ceil
from pathlib import Path

from release_tasks.checks import browser
from release_tasks.checks.place import Asked, Place
from release_tasks.checks.verdict import Seen, Unknown, Wrong
from release_tasks.errors import Refused
from release_tasks.kinds import Check

KINDS_FILE = Path(__file__).with_name("test_kinds.py")
AT_ONCE = 16
GRACE = 15.0  # seconds beyond the limits of checks before nobody waits for them any longer
ROOMS = {"fresh": "series", "gaps": "series"}  # kind → module, where it is not called the same

# look(check, place, seen, asked) returns a sentence for each thing that is wrong, and raises Wrong or Unknown.
Look = Callable[..., Sequence[str]]


@dataclass
class Answer:
    """What comes of one check: its `future` ends when the check is decided; `seen` fills as it looks."""

    asked: Asked
    future: Future[None] = field(default_factory=Future)
    seen: Seen = field(default_factory=dict)
    attempts: int = 0
    seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)  # when all of the run began
    limit: float = 60.0  # seconds since then in which it has to be decided

    def tell(self) -> None:
        """Wait until it is decided; raise `Wrong` or `Unknown` unless it is a pass."""
        try:
            self.future.result(max(self.began + self.limit - time.monotonic(), 0.0))
        except NotInTime:
            raise Unknown(f"It was not decided within {self.limit:g} s.") from None


def begin(place: Place, asked: Sequence[Asked]) -> dict[str, Answer]:
    """Begin to look at all of `asked`, a turn after the other; return name → what will come of it."""
    limits = limits_of(asked)
    answers = {each.name: Answer(each, limit=limits[each.turn] + GRACE) for each in asked}
    threading.Thread(target=_take_turns, args=(place, list(answers.values())), daemon=True).start()
    return answers


def limits_of(asked: Sequence[Asked]) -> dict[int, float]:
    """Return turn → the seconds from the beginning in which all of `asked` up to that turn are decided.

    Checks take turns, and the views of pages take slots of the browser: each has its own time once it is its turn.
    """
    limits, total = {}, 0.0
    for turn in sorted({each.turn for each in asked}):
        now = [each for each in asked if each.turn == turn]
        views = sum(each.check.views for each in now)
        rounds = max(ceil(len(now) / AT_ONCE), ceil(views / browser.AT_ONCE))
        total += max(each.wait for each in now) + max(each.check.timeout for each in now) * rounds
        total += GRACE * (rounds - 1)  # to close what did not end in time
        limits[turn] = total
    return limits


def _take_turns(place: Place, answers: list[Answer]) -> None:
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="check") as pool:
        for turn in sorted({answer.asked.turn for answer in answers}):
            now = [answer for answer in answers if answer.asked.turn == turn]
            for done in [pool.submit(_decide, place, answer) for answer in now]:
                done.exception()


def _decide(place: Place, answer: Answer) -> None:
    began = time.monotonic()
    try:
        keep_looking(place, answer)
    except BaseException as error:
        answer.seconds = time.monotonic() - began
        answer.future.set_exception(error)
    else:
        answer.seconds = time.monotonic() - began
        answer.future.set_result(None)


def keep_looking(place: Place, answer: Answer) -> None:
    """Look until nothing is wrong; raise what the last look said once the wait is over, or at once if definite."""
    asked, look = answer.asked, look_of(answer.asked.check)

    def look_once() -> None:
        answer.attempts += 1
        answer.seen.clear()
        try:
            if wrong := look(asked.check, place, answer.seen, asked):
                raise Wrong(wrong)
        except Refused as no:
            raise Unknown(" ".join(each.what for each in no.problems), no.problems[0].mend, definite=True) from None

    again(look_once, asked.wait, asked.check.interval, (Wrong, Unknown))


def again(look: Callable[[], None], wait: float, interval: float, errors: tuple[type[Exception], ...]) -> None:
    """Call `look` until it raises none of `errors`, or a definite one, or `wait` seconds are over: then that is raised.

    The last look is when they are over; between two are `interval` seconds at most.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            return look()
        except errors as error:
            left = deadline - time.monotonic()
            if left <= 0 or getattr(error, "definite", False):
                raise
        time.sleep(min(interval, left))


def look_of(check: Check) -> Look:
    """Return the function that looks at a check of its kind: `look_<kind>` of the kind's module."""
    room = import_module(f"release_tasks.checks.{ROOMS.get(check.kind, check.kind)}")
    look: Look = getattr(room, f"look_at_{check.kind}")
    return look
