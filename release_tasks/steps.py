"""The engine: a step looks, yields what it would change, changes, and must then look finished."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from release_tasks.errors import Asked, NotYet, Problem, Refused

if TYPE_CHECKING:
    from release_tasks.release import Release

DONE, TO_DO, LATER, REFUSED, CHANGED, ASKED = "done", "to do", "later", "refused", "changed", "asked"


class Stopped(Exception):
    """A step was refused in the middle of the changes, and has been shown."""


@dataclass(frozen=True)
class Outcome:
    """How one step was found, or left: a state, and a few words about it."""

    section: str
    step: str
    state: str
    text: str = ""
    problems: tuple[Problem, ...] = ()


def outcome(step: Any, release: Release, told: Callable[..., Outcome], change: bool) -> Outcome:
    """Run `step` as far as its look, and past it if `change`; return how it stands, made by `told(state, …)`.

    A plain function is a gate: it raises or returns. A generator's `yield` parts its look from its change.
    """
    release.git.look_afresh(remote=False)
    try:
        acting = step(release)
        intent, said = _advance(acting)
        if intent is None:
            return told(ASKED if isinstance(said, Asked) else DONE, said or "")
        if not change:
            acting.close()
            return told(TO_DO, intent)
        if _advance(acting)[0] is not None:
            raise TypeError(f"{step.__name__} yields twice")
        release.look_afresh()
        left, _ = _advance(step(release))
        if left is not None:
            raise Refused(f"It was done, but it did not hold. Still to do: {left}.", "Find what undid it; run again.")
        return told(CHANGED, intent)
    except NotYet as wait:
        if not change:
            return told(LATER, str(wait))
        return told(REFUSED, problems=(Problem(f"It can only be done {wait}, and that did not come about."),))
    except Refused as no:
        return told(REFUSED, problems=no.problems)


def _advance(acting: Any) -> tuple[str | None, str | None]:
    """Go on to the next `yield`; return what it says, or None and what was returned. A gate has returned already."""
    if not isinstance(acting, Iterator):
        return None, acting
    try:
        return next(acting), None
    except StopIteration as end:
        return None, end.value


@dataclass
class Run:
    """One command line's way through its sections: what it has seen, and what it knows from a moment ago."""

    survey: bool
    status: bool = False
    silent: bool = False
    looking: bool = True
    release: Release | None = None
    section: str = ""
    outcomes: list[Outcome] = field(default_factory=list)
    passed: dict[tuple[str, Any], Outcome] = field(default_factory=dict)
    looked: dict[str, float] = field(default_factory=dict)  # section → seconds of the first pass

    def open(self, config: Any, version: str | None) -> Release:
        """Return the release that all sections of this run share; two versions in one run are refused."""
        from release_tasks.release import Release

        if self.release is None:
            self.release = Release.open(config, version)
            self.release.only_looks, self.release.will_ask = self.survey, not self.status
        elif version not in (None, self.release.version):
            raise Refused(f"One run releases one version: found {version} beside {self.release.version}.")
        return self.release

    def take(self, step: Any, release: Release) -> None:
        """Look at `step`, and change what is missing unless this run is still looking."""
        from release_tasks import screen

        began = time.monotonic()
        title = (inspect.getdoc(step) or step.__name__).splitlines()[0].rstrip(".")
        seen = None if self.looking else self.passed.get((self.section, step))
        if seen is None:
            with screen.busy(title):
                seen = outcome(step, release, partial(Outcome, self.section, title), change=not self.looking)
        seconds = round(time.monotonic() - began, 3)
        if self.looking:
            self.looked[self.section] = round(self.looked.get(self.section, 0.0) + seconds, 3)
        self.outcomes.append(seen)
        if seen.state == CHANGED:
            self.passed.clear()
        elif seen.state in (DONE, ASKED):
            self.passed[self.section, step] = seen
        if self.told_in_full:
            if len([each for each in self.outcomes if each.section == self.section]) == 1:
                screen.heading(self.section)
            screen.step(seen)
        if not self.looking:
            release.journal.record(
                "step",
                section=self.section,
                step=title,
                outcome=seen.state,
                text=seen.text or " ".join(problem.what for problem in seen.problems),
                seconds=seconds,
            )
            if seen.state == REFUSED:
                screen.refusals([seen])
                raise Stopped

    def end(self) -> None:
        from release_tasks import screen

        if not (self.told_in_full or self.silent):
            screen.summary(self.section, [seen for seen in self.outcomes if seen.section == self.section])

    @property
    def told_in_full(self) -> bool:
        """Whether each step gets its line: not while a run that will change things first looks at all."""
        return not self.silent and (self.survey or not self.looking)

    def refused(self) -> list[Outcome]:
        return [seen for seen in self.outcomes if seen.state == REFUSED]
