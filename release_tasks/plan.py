"""A plan: the steps of a command line, walked once to check them all, and once more to change what is missing."""

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from release_tasks import screen
from release_tasks.environments import Environment
from release_tasks.errors import IN_A_RUN, Manual, NotYet, Problem, Refused, refuse
from release_tasks.failures import FORESEEN, problem_of
from release_tasks.outcome import CHANGED, DONE, MANUAL, PENDING, PLANNED, REFUSED, Outcome
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

    @property
    def is_gate(self) -> bool:
        """Whether it only checks."""
        return not inspect.isgeneratorfunction(self.function)

    def begin(self, release: Release) -> Any:
        """Start the step with `release` and the options that it declares, or return why it is skipped."""
        if reason := getattr(self.function, "skipped", lambda _: "")(release):
            return reason
        declared = inspect.signature(self.function).parameters
        given = {name: value for name, value in self.options.items() if name in declared}
        if "env" in given:
            given["env"] = release.environment(given["env"])
        return self.function(release, **given)

    def run(self, release: Release, change: bool) -> Outcome:
        """Check and, with `change`, do what is missing and check again; return how it stands then."""

        def outcome(state: str, text: str = "", *problems: Problem) -> Outcome:
            return Outcome(self.section, self.title, state, text, problems)

        if change:
            release.git.refresh(remote=False)
        try:
            running = self.begin(release)
            planned, result = _advance(running)
            if planned is None:
                return outcome(MANUAL if isinstance(result, Manual) else DONE, result or "")
            if not change:
                running.close()
                return outcome(PLANNED, planned)
            if not _claim(release, release.environment(self.options["env"]) if "env" in self.options else None):
                running.close()
                return self.run(release, change)
            if _advance(running)[0] is not None:
                raise TypeError(f"{self.function.__name__} yields twice")
            release.refresh()
            still_planned, found = _advance(self.begin(release))
            if still_planned is not None:
                what = f"The change was made, but the check after it still plans: {still_planned}."
                raise Refused(what, "Find what undid it; run again.")
            return outcome(MANUAL, found) if isinstance(found, Manual) else outcome(CHANGED, planned)
        except NotYet as wait:
            if not change:
                return outcome(PENDING, str(wait))
            return outcome(REFUSED, "", Problem(f"It can only be done {wait}, and no earlier step has done that."))
        except Refused as error:
            return outcome(REFUSED, "", *error.problems)
        except FORESEEN as error:
            return outcome(REFUSED, "", problem_of(error))


def _claim(release: Release, env: Environment | None) -> bool:
    """Make sure, right before a change, of `env` if it is one there, that this release may still make it.

    Return False where the lock of `env` is taken only now: others may have changed it, so it is checked again. Raises
    `Refused` where another release has the lock or the environment, or a later one is there.
    """
    release.git.refresh()
    if release.lock.at:
        release.lock.check()
    for other in release.environments.values():
        if other is not env:
            other.lock.give_up()
    if env is None:
        return True
    was_ours = env.lock.hold(release.version)
    refuse(env.later_problems(release.version))
    return was_ours


def _advance(running: Any) -> tuple[str | None, str | None]:
    """Go on to the next `yield`; return what it says, or None and what was returned. A gate has returned already."""
    if not isinstance(running, Iterator):
        return None, running
    try:
        return next(running), None
    except StopIteration as end:
        return None, end.value


def first_open(steps: Sequence[PlannedStep], outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return the next outcome of a release: the first that is refused or planned, else a pending gate."""
    left = [pair for pair in zip(steps, outcomes, strict=True) if pair[1].state in (PLANNED, PENDING, REFUSED)]
    blocking = [outcome for step, outcome in left if outcome.state == REFUSED or not step.is_gate]
    return next(iter(blocking or [outcome for _, outcome in left]), None)


def show(outcomes: list[Outcome], before: str = "") -> None:
    """Show `outcomes`, those of each section below its heading; the section `before` has been shown."""
    for outcome in outcomes:
        screen.step(outcome, outcome.section != before)
        before = outcome.section


@dataclass
class Plan:
    """The steps of a command line, and the outcomes that hold until something changes.

    With `ask` a person at the terminal confirms what is manual, as long as the tag is not published.
    """

    release: Release
    steps: list[PlannedStep]
    ask: bool = False
    known: dict[PlannedStep, Outcome] = field(default_factory=dict)

    def check(self) -> list[Outcome]:
        """Check all steps and return their outcomes; those that start something only where no other is refused."""
        self.release.quick = True
        outcomes = [self._run(step, change=False) for step in self.steps]
        self.release.quick = False
        if self.release.only_checks or any(outcome.state == REFUSED for outcome in outcomes):
            return outcomes
        self.release.refresh()
        pairs = zip(self.steps, outcomes, strict=True)
        return [self._run(step, change=False) if outcome.text == IN_A_RUN else outcome for step, outcome in pairs]

    def change(self) -> list[Outcome]:
        """Change what is missing, up to a refusal, and show each step; return the outcomes."""
        outcomes: list[Outcome] = []
        for step in self.steps:
            outcome = self._run(step, change=True)
            show([outcome], outcomes[-1].section if outcomes else "")
            outcomes.append(outcome)
            if outcome.state == REFUSED:
                break
            if outcome.state == MANUAL and self.ask and not self.release.published:
                self._confirm(step)
        return outcomes

    def _confirm(self, step: PlannedStep) -> None:
        """Let the person at the terminal say that a manual step is done. Raises `Refused` where they do not."""
        confirmed = screen.confirm(step.title)
        self.release.journal.record("answer", section=step.section, step=step.title, confirmed=confirmed)
        if not confirmed:
            raise Refused(f"{step.title}: not confirmed. Do it, then go on:", self.release.again())

    def _run(self, step: PlannedStep, change: bool) -> Outcome:
        """Return and record the outcome of a step, the known one if nothing has changed since."""
        began = time.monotonic()
        outcome = self.known.get(step) if change else None
        if outcome is None:
            with screen.busy(step.title):
                outcome = step.run(self.release, change)
        if outcome.state == CHANGED or (change and outcome.state == MANUAL and step not in self.known):
            self.known.clear()
        if outcome.state in (DONE, MANUAL):
            self.known[step] = outcome
        if not self.release.only_checks:
            seconds = round(time.monotonic() - began, 3)
            self.release.journal.record("step" if change else "checked", **vars(outcome), seconds=seconds)
        return outcome
