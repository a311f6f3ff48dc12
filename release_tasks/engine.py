"""What tasks.py is written with, and all that knows Invoke: sections, their options, and a plan of all their steps.

First every step is checked, and all refusals are gathered; if there are none, what is missing is changed. `--dry` and
`status` end after the checks, so what they show is what a release would do.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

from invoke import Call, Executor, Exit, Task, task
from invoke.exceptions import AmbiguousEnvVar, UncastableEnvVar

from release_tasks import failures, requirements
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.outcome import REFUSED, Outcome

sys.excepthook = failures.explain
HELP = {
    "version": "the version to release, such as 0.1.1; default: VERSION, where that names a release",
    "sign": "sign the tag, as git is configured (gpg or ssh)",
    "yes": "confirm production and manual steps without a question, for machines",
    "next": "the version to work on afterwards; default: the next patch, as 0.1.2-dev",
    "highlights": "the Highlights of the notes: a text, or @file",
    "allow_shift": "why the DDL pack may make something else than was locked",
    "until": "when the freeze ends, in words",
    "json": "print the outcome as JSON",
}

Steps = list[tuple[Callable[..., Any], dict[str, Any]]]


class Section(Task):  # type: ignore[type-arg]
    """A numbered section of the process: `steps(release, **options)` returns its steps."""

    steps: Callable[..., Steps]
    only_checks: bool


def section(*pre: Section, only_checks: bool = False) -> Callable[[Callable[..., Steps]], Section]:
    """Make a function that returns steps the task of a section; its docstring is the heading, `pre` what comes before.

    Its parameters after `release` are the task's options, beside `--version`. With `only_checks` nothing is changed.
    """

    def decorate(body: Callable[..., Steps]) -> Section:
        release, *options = inspect.signature(body).parameters.values()
        version = inspect.Parameter("version", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None)

        def run(*_: Any, **__: Any) -> None:
            raise Exit(failures.NO_EXECUTOR, 1)

        run.__name__, run.__doc__, run.__module__ = body.__name__, body.__doc__, body.__module__
        run.__signature__ = inspect.Signature([release, version, *options])  # type: ignore[attr-defined]
        texts = {each.name: HELP[each.name] for each in (version, *options) if each.name in HELP}
        made: Section = task(pre=pre, klass=Section, help=texts, auto_shortflags=False)(run)
        made.steps, made.only_checks = body, only_checks
        return made

    return decorate


def steps(*functions: Callable[..., Any], **options: Any) -> Steps:
    """Return the steps of a section; each gets those of `options` that it declares, as pytest hands out fixtures.

    `env` is the name of an environment; a step that declares it gets the `Environment`.
    """
    return [(function, options) for function in functions]


class ReleaseExecutor(Executor):
    """Makes the sections of a command line one plan, and walks it."""

    def execute(self, *tasks: Any) -> Any:
        calls = [each if isinstance(each, Call) else Call(each) for each in self.normalize(tasks)]
        own = [call for call in calls if not call.task.body.__module__.startswith("tasks_local")]
        if own and (unmet := requirements.problems()):
            raise Exit("\n".join(map(str, unmet)), 1)
        sections = dict.fromkeys(each for call in calls for each in _with_pre(call.task) if isinstance(each, Section))
        others = [call.called_as or call.task.name for call in calls if not isinstance(call.task, Section)]
        if not own:
            return super().execute(*tasks)
        with failures.as_sentences():
            self._read_variables()
            if sections and others:
                what = f"{', '.join(others)} cannot be run in one command with sections of the process."
                raise Refused(what, f"inv {others[0]}   # then the sections, in a command of their own")
            from release_tasks import files, release, temporary

            with temporary.run_directory():
                if sections:
                    return self._walk(list(sections), _options(calls))
                files.records_folder(release.project_root(self.config))  # a look at sections needs none
                return super().execute(*tasks)

    def _read_variables(self) -> None:
        """Let variables such as INVOKE_RELEASE_TITLE set what they name. Raises `Refused` where one cannot."""
        refuse(_key_problems(self.config.get("release", {}), "release"))
        names = [name for name in os.environ if name.startswith("INVOKE_RELEASE_")]
        try:
            if names:
                self.config.load_shell_env()
        except (ValueError, AmbiguousEnvVar, UncastableEnvVar) as error:
            what = f"A variable cannot stand for its key of invoke.yaml: {error}. Found {', '.join(names)}."
            raise Refused(what, f"unset {' '.join(names)}   # or give it a value of the key's type") from None

    def _walk(self, sections: list[Section], options: dict[str, Any]) -> dict[Any, Any]:
        from release_tasks import screen
        from release_tasks.plan import Plan, PlannedStep
        from release_tasks.release import Release

        is_status, silent = any(each.only_checks for each in sections), "json" in options
        only_check = is_status or self.config.run.dry
        screen.for_machines(silent)
        release = Release.open(self.config, options.get("version"), in_work=is_status)
        release.only_checks = only_check
        try:
            steps = [
                PlannedStep(_heading(each), function, own)
                for each in sections
                for function, own in _steps_of(each, release, options)
            ]
            needed = ["dev", *(step.options["env"] for step in steps if "env" in step.options)] if not is_status else []
            refuse(problem for name in dict.fromkeys(needed) for problem in release.settings.environments.unset(name))
            plan = Plan(release, steps, ask=sys.stdin.isatty() and not options.get("yes"))
            with nullcontext() if only_check else release.held():
                outcomes = plan.walk(change=False, show=screen.step if only_check and not silent else None)
                if not only_check:
                    screen.summary(outcomes)
                    outcomes = outcomes if _refused(outcomes) else plan.walk(change=True, show=screen.step)
            if silent:
                screen.as_json(outcomes)
            elif refused := _refused(outcomes):
                screen.refusals(refused)
            else:
                summary = _summary(sections[-1], release, done=not only_check or release.is_over)
                screen.finished(outcomes, f"{summary}; nothing was changed" if only_check else summary)
            if _refused(outcomes):
                raise SystemExit(1)
        finally:
            release.close()
        return {}


def _with_pre(each: Any) -> Iterator[Any]:
    """Yield a task after all that is its `pre`, in the order in which they run."""
    for before in each.pre:
        yield from _with_pre(before)
    yield each


def _options(calls: list[Call]) -> dict[str, Any]:
    """Return what a command line gives its sections: an option reaches each that declares it.

    Raises `Refused` where one has two values.
    """
    given: dict[str, Any] = {}
    for call in calls:
        for name, value in call.kwargs.items() if isinstance(call.task, Section) else ():
            default = inspect.signature(call.task.body).parameters[name].default
            if value != default and given.setdefault(name, value) != value:
                flag = f"--{name.replace('_', '-')}"
                raise Refused(f"{flag} is given twice: found {given[name]} and {value}.", f"Give {flag} once.")
    return given


def _refused(outcomes: list[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.state == REFUSED]


def _heading(each: Section) -> str:
    return (each.__doc__ or each.name).splitlines()[0]


def _steps_of(each: Section, release: Any, options: dict[str, Any]) -> Steps:
    declared = inspect.signature(each.steps).parameters
    return each.steps(release, **{name: value for name, value in options.items() if name in declared})


def _summary(last: Section, release: Any, done: bool) -> str:
    """Return how far a command line, whose last section is `last`, has come, or unless it is `done` would come."""
    if last.steps(release):
        return f"{'Took' if done else 'Ready to take'} {release.version} to {_heading(last)}"
    return f"{'Released' if done else 'Ready to release'} {release.version}"


def _key_problems(found: Any, path: str) -> Iterator[Problem]:
    """Yield the keys that YAML does not read as text: Invoke cannot, when it looks for variables of their names."""
    for key, inner in found.items() if hasattr(found, "items") else enumerate(found) if isinstance(found, list) else ():
        if not isinstance(found, list) and not isinstance(key, str):
            what = f"invoke.yaml, {path}: found the key {key}, which YAML does not read as text."
            yield Problem(what, f'Put it in quotes, as in "{key}": …')
        yield from _key_problems(inner, f"{path}.{key}")
