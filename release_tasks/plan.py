"""A plan: the steps of a command line, walked once to check them all, and once more to change what is missing."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from release_tasks.errors import Manual, NotYet, Problem, Refused
from release_tasks.failures import problem_of
from release_tasks.outcome import CHANGED, DONE, MANUAL, PENDING, PLANNED, REFUSED, Outcome

if TYPE_CHECKING:
    from release_tasks.release import Release


@dataclass(frozen=True)
class PlannedStep:
    """A function that checks and, where it is a generator, changes what its one `yield` announces.

    `section` is the heading it stands under, `options` are those of the section.
    """

    section: str
    function: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def title(self) -> str:
        return (inspect.getdoc(self.function) or self.function.__name__).splitlines()[0].rstrip(".")

    def begin(self, release: Release) -> Any:
        """Call the function with `release` and the options that it declares, unless it is settled; `env` is opened."""
        if words := getattr(self.function, "settled", lambda _: "")(release):
            return words
        declared = inspect.signature(self.function).parameters
        given = {name: value for name, value in self.options.items() if name in declared}
        if "env" in given:
            given["env"] = release.environment(given["env"])
        return self.function(release, **given)

    def run(self, release: Release, change: bool) -> Outcome:
        """Check and, with `change`, do what is missing and check again; return how it stands then.

        A plain function is a gate: it raises or returns. A generator's `yield` parts its check from its change.
        """

        def outcome(state: str, text: str = "", problems: tuple[Problem, ...] = ()) -> Outcome:
            return Outcome(self.section, self.title, state, text, problems)

        release.git.refresh(remote=False)
        try:
            running = self.begin(release)
            planned, result = _advance(running)
            if planned is None:
                return outcome(MANUAL if isinstance(result, Manual) else DONE, result or "")
            if not change:
                running.close()
                return outcome(PLANNED, planned)
            if _advance(running)[0] is not None:
                raise TypeError(f"{self.function.__name__} yields twice")
            release.refresh()
            left, _ = _advance(self.begin(release))
            if left is not None:
                what = f"It was done, but it did not hold. Still planned: {left}."
                raise Refused(what, "Find what undid it; run again.")
            return outcome(CHANGED, planned)
        except NotYet as wait:
            if not change:
                return outcome(PENDING, str(wait))
            return outcome(REFUSED, "", (Problem(f"It can only be done {wait}, and that did not come about."),))
        except Refused as error:
            return outcome(REFUSED, "", error.problems)
        except (OSError, EOFError) as error:
            return outcome(REFUSED, "", (problem_of(error),))


def _advance(running: Any) -> tuple[str | None, str | None]:
    """Go on to the next `yield`; return what it says, or None and what was returned. A gate has returned already."""
    if not isinstance(running, Iterator):
        return None, running
    try:
        return next(running), None
    except StopIteration as end:
        return None, end.value


@dataclass
class Plan:
    """The steps of a command line, and the outcomes that hold until something changes.

    With `ask` a person at the terminal confirms what is manual, as long as the tag is not published.
    """

    release: Release
    steps: list[PlannedStep]
    ask: bool = False
    known: dict[PlannedStep, Outcome] = field(default_factory=dict)

    def check(self, in_full: bool, silent: bool = False) -> list[Outcome]:
        """Check all steps and return their outcomes; print a line a step (`in_full`), or a section."""
        from release_tasks import screen

        outcomes: list[Outcome] = []
        for section, steps in groupby(self.steps, lambda step: step.section):
            before = len(outcomes)
            for step in steps:
                outcomes.append(self._run(step, change=False))
                if in_full and not silent:
                    screen.step(outcomes[-1], first=len(outcomes) == before + 1)
            if not (in_full or silent):
                screen.summary(section, outcomes[before:])
        return outcomes

    def change(self) -> list[Outcome]:
        """Change what is missing, step by step, and return the outcomes; a refusal is the last one."""
        from release_tasks import screen

        outcomes: list[Outcome] = []
        for step in self.steps:
            outcome = self._run(step, change=True)
            screen.step(outcome, first=not outcomes or outcomes[-1].section != step.section)
            outcomes.append(outcome)
            if outcome.state == REFUSED:
                break
            if outcome.state == MANUAL and self.ask and not self.release.published:
                self._ask_about(outcome)
        return outcomes

    def _ask_about(self, outcome: Outcome) -> None:
        """Let the person at the terminal confirm what is manual. Raises `Refused` where that is not so."""
        from release_tasks import screen

        confirmed = screen.confirm()
        self.release.journal.record("answer", section=outcome.section, step=outcome.step, confirmed=confirmed)
        if not confirmed:
            raise Refused(f"{outcome.step}: not confirmed.", "Do it, then run the same command again.")

    def _run(self, step: PlannedStep, change: bool) -> Outcome:
        """Return what a step comes to now, or came to if nothing has changed since it was checked; record it."""
        from release_tasks import screen

        began = time.monotonic()
        outcome = self.known.get(step) if change else None
        if outcome is None:
            with screen.busy(step.title):
                outcome = step.run(self.release, change)
        if outcome.state == CHANGED:
            self.known.clear()
        elif outcome.state in (DONE, MANUAL):
            self.known[step] = outcome
        if not self.release.only_checks:
            text = outcome.text or " ".join(problem.what for problem in outcome.problems)
            about = {"section": step.section, "step": step.title, "outcome": outcome.state, "text": text}
            seconds = round(time.monotonic() - began, 3)
            self.release.journal.record("step" if change else "checked", **about, seconds=seconds)
        return outcome
