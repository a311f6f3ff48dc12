"""The engine: a step looks, yields what it would change, changes, and must then look finished.

A section of the process is a task whose body names its steps with `follow`. The executor goes through the sections
of a command line twice: first it only looks and gathers every refusal; then, if there is none and it is no dry run,
it goes through them again and changes what is missing. Nothing outside this module knows Invoke's machinery.
"""

from __future__ import annotations

import inspect
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from invoke import Call, Context, Executor, Exit, Task, task

from release_tasks.errors import NotYet, Problem, Refused

if TYPE_CHECKING:
    from release_tasks.release import Release

DONE, TO_DO, LATER, REFUSED, CHANGED, ASKED = "done", "to do", "later", "refused", "changed", "asked"
INTERRUPTED = 130


class Asked(str):
    """What a step returns that asks something of a person: the sentence to show."""


@dataclass(frozen=True)
class Outcome:
    """How one step was found, or left: a state, and a few words about it."""

    section: str
    step: str
    state: str
    text: str = ""
    problems: tuple[Problem, ...] = ()


class Section(Task):  # type: ignore[type-arg]
    """A numbered section of the process; its docstring is the section's heading."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        run = _RUN.get()
        if run is None:
            raise Exit(
                "These tasks need their executor. invoke.yaml beside tasks.py has to say:\n"
                "    tasks: {executor_class: release_tasks.steps.ReleaseExecutor}",
                1,
            )
        run.section = (self.__doc__ or self.name).splitlines()[0]
        result = super().__call__(*args, **kwargs)
        run.end()
        return result


class Survey(Section):
    """A section that only looks, and never goes on to the changes."""


HELP = {
    "version": "the version to release, such as 0.1.1; default: VERSION, where that names a release",
    "sign": "sign the tag, as git is configured (gpg or ssh)",
    "yes": "confirm production without a question, for machines",
    "next": "the version to work on afterwards; default: the next patch, as 0.1.2-dev",
    "highlights": "the Highlights of the notes: a text, or @file",
    "until": "when the freeze ends, in words",
    "json": "print the outcome as JSON",
}


def section(*args: Any, klass: type[Section] = Section, **kwargs: Any) -> Any:
    """Make a function the task of a section: `@section(pre=[the section before])`."""
    if args and callable(args[0]) and not isinstance(args[0], Task):
        return section(klass=klass)(args[0])

    def decorate(body: Any) -> Any:
        parameters = inspect.signature(body).parameters
        return task(*args, klass=klass, help={k: HELP[k] for k in parameters if k in HELP}, **kwargs)(body)

    return decorate


def follow(c: Context, version: str | None, *steps: Any, **options: Any) -> None:
    """Take the steps of the calling section in their order; `options` is what this section was asked for.

    Raises `Exit` at the first step that is refused while changing; while looking, refusals are gathered.
    """
    run = _RUN.get()
    assert run is not None, "Section.__call__ has seen to it"
    release = run.open(c, version)
    release.options = options
    for step in steps:
        run.take(step, release)


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

    def open(self, c: Context, version: str | None) -> Release:
        """Return the release that all sections of this run share; two versions in one run are refused."""
        from release_tasks.release import Release

        if self.release is None:
            self.release = Release.open(c.config, version)
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
                seconds=round(time.monotonic() - began, 3),
            )
            if seen.state == REFUSED:
                screen.refusals([seen])
                raise Exit(code=1)

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


_RUN: ContextVar[Run | None] = ContextVar("run", default=None)


def outcome(step: Any, release: Release, told: Callable[..., Outcome], change: bool) -> Outcome:
    """Run `step` as far as its look, and past it if `change`; return how it stands, made by `told(state, …)`.

    A plain function is a gate: it raises or returns. A generator's `yield` parts its look from its change.
    """
    try:
        intent, said = _look(step, release)
        if intent is None:
            return told(ASKED if isinstance(said, Asked) else DONE, said or "")
        if not change:
            return told(TO_DO, intent)
        _change(step, release)
        return told(CHANGED, intent)
    except NotYet as wait:
        if not change:
            return told(LATER, str(wait))
        return told(REFUSED, problems=(Problem(f"It can only be done {wait}, and that did not come about."),))
    except Refused as no:
        return told(REFUSED, problems=no.problems)


def _look(step: Any, release: Release) -> tuple[str | None, str | None]:
    """Return what the step would change (None: nothing), and what it said if there was nothing."""
    looking = step(release)
    if not isinstance(looking, Iterator):
        return None, looking
    try:
        return next(looking), None
    except StopIteration as end:
        return None, end.value
    finally:
        looking.close()  # type: ignore[attr-defined]


def _change(step: Any, release: Release) -> None:
    """Run the step past its `yield`, then look again: what still sees something to do did not hold."""
    acting = step(release)
    for intents, intent in enumerate(acting):
        if intents:
            raise TypeError(f"{step.__name__} yields twice: {intent}")
    release.look_afresh()
    left, _ = _look(step, release)
    if left is not None:
        raise Refused(f"It was done, but it did not hold. Still to do: {left}.", "Find what undid it, then run again.")


class ReleaseExecutor(Executor):
    """Hands options on to the sections before, and goes through all sections twice: look, then change."""

    def execute(self, *tasks: Any) -> Any:
        with _failures_as_sentences():
            calls = self.dedupe(self.expand_calls(self.normalize(tasks)))
            sections = [call for call in calls if isinstance(call.task, Section)]
            if not sections:
                return super().execute(*tasks)
            status = any(isinstance(call.task, Survey) for call in sections)
            silent = any(call.kwargs.get("json") for call in sections)
            run = Run(survey=status or self.config.run.dry, status=status, silent=silent)
            token = _RUN.set(run)
            try:
                return self._look_then_change(run, sections, tasks)
            finally:
                if run.release:
                    run.release.close()
                _RUN.reset(token)

    def _look_then_change(self, run: Run, sections: list[Any], tasks: Any) -> Any:
        from release_tasks import screen

        for call in sections:
            call.task(Context(self.config), *call.args, **call.kwargs)
        if run.silent:
            screen.as_json(run.outcomes)
        if run.release and not run.survey:
            found = [problem.what for seen in run.refused() for problem in seen.problems]
            run.release.journal.record("looked", refused=found)
        if run.refused():
            if not run.silent:
                screen.refusals(run.refused())
            raise Exit(code=1)
        if run.survey:
            return {}
        assert run.release is not None
        run.looking, run.outcomes = False, []
        with run.release.held():
            results = super().execute(*tasks)
        screen.finished(run.outcomes)
        return results

    def expand_calls(self, calls: Any, given: dict[str, Any] | None = None) -> list[Any]:
        """Expand `calls` with their pre-tasks, to which every option is handed on that they declare as well."""
        expanded = []
        for raw in calls:
            call = raw.clone() if isinstance(raw, Call) else Call(raw)
            accepted = inspect.signature(call.task.body).parameters
            call.kwargs = {**{k: v for k, v in (given or {}).items() if k in accepted}, **call.kwargs}
            handed = {**(given or {}), **call.kwargs}
            expanded += [*self.expand_calls(call.pre, handed), call, *self.expand_calls(call.post, handed)]
        return expanded


@contextmanager
def _failures_as_sentences() -> Iterator[None]:
    """Turn what ends a run early into sentences and an exit code; end on SIGTERM as on Ctrl-C."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupted)
    try:
        yield
    except Refused as no:
        from release_tasks import screen

        screen.problems(no.problems)
        raise Exit(code=1) from None
    except KeyboardInterrupt:
        raise Exit("\nInterrupted. What is done stays done; the same command goes on from here.", INTERRUPTED) from None
    except Exception as bug:
        if isinstance(bug, Exit):
            raise
        from release_tasks import screen

        screen.bug(bug)
        raise Exit(code=1) from None
    finally:
        signal.signal(signal.SIGTERM, before)
