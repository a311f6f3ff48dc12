"""Sections, commands and the executor: what tasks.py is written with, and all that knows Invoke."""

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from functools import wraps
from pathlib import Path
from typing import Any

from invoke import Call, Executor, Exit, Task, task
from invoke.exceptions import AmbiguousEnvVar, UncastableEnvVar
from invoke.util import yaml

from release_tasks import command_line, failures, requirements
from release_tasks.command_line import texts_of
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.outcome import REFUSED, Outcome

sys.excepthook = failures.explain

Steps = list[tuple[Callable[..., Any], dict[str, Any]]]


class Section(Task):  # type: ignore[type-arg]
    """A task that is a list of steps: `steps(release, **options)`."""

    steps: Callable[..., Steps]
    only_checks: bool


def section(*pre: Section, only_checks: bool = False) -> Callable[[Callable[..., Steps]], Section]:
    """Make a function that returns steps the task of a section; its docstring is the heading, `pre` what comes before.

    Its options: `--version`, the function's after `release`, those of all `pre`. With `only_checks` nothing is changed.
    """

    def decorate(body: Callable[..., Steps]) -> Section:
        release, *own = inspect.signature(body).parameters.values()
        version = inspect.Parameter("version", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None)
        before = [option for each in pre for option in list(inspect.signature(each.body).parameters.values())[1:]]
        options = {option.name: option for option in (version, *before, *own)}

        def run(*_: Any, **__: Any) -> None:
            raise Exit(failures.NO_EXECUTOR, 1)

        run.__name__, run.__doc__, run.__module__ = body.__name__, body.__doc__, body.__module__
        run.__signature__ = inspect.Signature([release, *options.values()])  # type: ignore[attr-defined]
        texts = texts_of(options, **({"version": command_line.IN_WORK} if only_checks else {}))
        made: Section = task(pre=pre, klass=Section, help=texts, auto_shortflags=False)(run)
        made.steps, made.only_checks = body, only_checks
        return made

    return decorate


def steps(*functions: Callable[..., Any], **more: Any) -> Steps:
    """Return the steps of a section; each gets its options, and `more`, that it declares, as pytest hands out fixtures.

    `env` is the name of an environment; a step that declares it gets the `Environment`.
    """
    return [(function, more) for function in functions]


def command(name: str = "", *, dry: bool = True, **texts: str) -> Callable[[Callable[..., None]], Task[Any]]:
    """Make a function a task beside the process; `texts` replace the shared help texts of its options.

    Without `dry` it writes or runs something, and is refused in a dry run.
    """

    def decorate(body: Callable[..., None]) -> Task[Any]:
        @wraps(body)
        def run(c: Any, *args: Any, **options: Any) -> None:
            if not c.config.tasks.executor_class:
                raise Exit(failures.NO_EXECUTOR, 1)
            body(c, *args, **options)

        made: Task[Any] = task(name=name or None, help=texts_of(inspect.signature(body).parameters, **texts))(run)
        made.has_dry_run = dry  # type: ignore[attr-defined]
        return made

    return decorate


class ReleaseExecutor(Executor):
    """Runs all sections of a command line as one plan."""

    def execute(self, *tasks: Any) -> Any:
        calls = [each if isinstance(each, Call) else Call(each) for each in self.normalize(tasks)]
        ours = [call for call in calls if not call.task.body.__module__.startswith("tasks_local")]
        if ours and (unmet := requirements.problems()):
            raise Exit("\n".join(map(str, unmet)), 1)
        sections = dict.fromkeys(each for call in calls for each in _with_pre(call.task) if isinstance(each, Section))
        alone = [it for it in calls if not isinstance(it.task, Section) or (it.task.only_checks and len(calls) > 1)]
        if not ours and not sections:
            return super().execute(*tasks)
        command_line.typed[:] = [(_name(call), _given(call)) for call in calls]
        with failures.as_sentences():
            self._load_variables()
            if sections and alone:
                what = "cannot be run in one command with sections of the process, nor have one as its pre."
                hint = f"inv {_name(alone[0])}   # and the sections in a command of their own"
                raise Refused(f"{', '.join(map(_name, alone))} {what}", hint)
            if self.config.run.dry:
                names = [_name(call) for call in calls if not getattr(call.task, "has_dry_run", True)]
                refuse(Problem(f"inv {name} has no dry run.", f"inv --help {name}   # what it does") for name in names)
            from release_tasks import config, files, git_setup, screen, temporary
            from release_tasks.database import programs

            file = str(self.config._project_path)
            if file.endswith(("yaml", "yml")):
                nodes = yaml.compose_all(Path(file).read_bytes(), yaml.SafeLoader)  # type: ignore[no-untyped-call]
                refuse(problem for node in nodes for problem in config.twice_problems(node))
            screen.json_only(any("json" in given for _, given in command_line.typed))
            git_setup.stay_here()
            programs.ignore_the_shell()
            with temporary.run_directory():
                if sections:
                    return self._run_plan(list(sections), _options())
                files.records_folder(config.project_root(self.config))  # a look at sections needs none
                return super().execute(*tasks)

    def _load_variables(self) -> None:
        """Let variables such as INVOKE_RELEASE_TITLE set what they name. Raises `Refused` where one cannot."""
        names = [name for name in os.environ if name.startswith("INVOKE_RELEASE_")]
        try:
            if names:
                self.config.load_shell_env()
        except (TypeError, ValueError, AmbiguousEnvVar, UncastableEnvVar) as error:
            what = f"A variable cannot stand for its key of invoke.yaml: {error}. Found {', '.join(names)}."
            raise Refused(what, f"unset {' '.join(names)}   # or give it a value of the key's type") from None

    def _run_plan(self, sections: list[Section], options: dict[str, Any]) -> dict[Any, Any]:
        """Check every step; if none is refused, change what is missing, but for a status and a dry run."""
        from release_tasks import plan, screen
        from release_tasks.release import Release

        is_status, silent = any(each.only_checks for each in sections), "json" in options
        with closing(Release.open(self.config, options.get("version"), in_work=is_status)) as release:
            release.only_checks = is_status or self.config.run.dry
            release.steps = steps = _planned(sections, release, options)
            is_process = any(map(_is_numbered, sections))
            needed = ["dev"] if is_process else []  # section 2 tries everything there
            needed += [step.options["env"] for step in steps if "env" in step.options]
            if not is_status:
                refuse(it for name in dict.fromkeys(needed) for it in release.settings.environments.problems(name))
            planned = plan.Plan(release, steps, ask=sys.stdin.isatty() and not options.get("yes"))
            with nullcontext() if release.only_checks else release.locked():
                outcomes = planned.check()
                if not release.only_checks:
                    screen.summary(outcomes)
                    outcomes = outcomes if _refused(outcomes) else planned.change()
                elif not silent:
                    plan.show(outcomes)
            refused = _refused(outcomes)
            if silent:
                screen.as_json(outcomes)
            elif refused:
                screen.refusals(refused)
                is_real = is_process and not release.only_checks and command_line.REHEARSING not in os.environ
                with suppress(Refused):  # by a remote that does not answer
                    if is_real and release.may_be_withdrawn:
                        screen.say(f'\nIf it cannot be finished: inv withdraw --version {release.version} --reason "…"')
            else:
                screen.finished(outcomes, _summary(sections[-1], release, plan.first_open(steps, outcomes)))
            if refused:
                raise SystemExit(1)
        return {}


def _with_pre(each: Any) -> Iterator[Any]:
    """Yield a task after all that is its `pre`, in the order in which they run."""
    for before in each.pre:
        yield from _with_pre(before)
    yield each


def _name(call: Call) -> str:
    return call.called_as or call.task.name


def _given(call: Call) -> dict[str, Any]:
    """Return the options of `call` that are no defaults."""
    declared = inspect.signature(call.task.body).parameters
    return {name: value for name, value in call.kwargs.items() if value != declared[name].default}


def _options() -> dict[str, Any]:
    """Return all that was typed: an option reaches each section that declares it. Raises `Refused` for two values."""
    given: dict[str, Any] = {}
    for _, own in command_line.typed:
        for name, value in own.items():
            if given.setdefault(name, value) != value:
                flag = f"--{name.replace('_', '-')}"
                raise Refused(f"{flag} is given twice: found {given[name]} and {value}.", f"Give {flag} once.")
    return given


def _planned(sections: list[Section], release: Any, options: dict[str, Any]) -> list[Any]:
    """Return the steps of `sections` for `release`, each with those of `options` that its section declares itself."""
    from release_tasks.plan import PlannedStep

    planned = []
    for each in sections:
        _, *declared = inspect.signature(each.steps).parameters.values()
        own = {option.name: options.get(option.name, option.default) for option in declared}
        planned += [PlannedStep(_heading(each), step, {**own, **more}) for step, more in each.steps(release, **own)]
    return planned


def _heading(each: Section) -> str:
    return (each.__doc__ or each.name).splitlines()[0].rstrip(".")


def _is_numbered(each: Section) -> bool:
    """Tell whether the section is one of the process, not one beside it, as a withdrawal."""
    return _heading(each)[0].isdigit()


def _refused(outcomes: list[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.state == REFUSED]


def _summary(last: Section, release: Any, ahead: Outcome | None) -> str:
    """Return how far a command line, whose last section is `last`, has come, or that the step `ahead` is the next."""
    did, do, what = "Released", "release", release.version
    if _is_numbered(last):
        did, do, what = "Took", "take", f"{what} to {_heading(last)}"
    elif last.steps(release):  # a withdrawal has steps of its own
        did, do = "Withdrew", "withdraw"
    summary = f"{did} {what}"
    if ahead:
        is_next = release.is_under_way and do != "withdraw"
        summary = f"Next: {ahead.section}, to {do} {what}" if is_next else f"Ready to {do} {what}"
    return f"{summary}; nothing was changed" if release.only_checks else summary


def next_step(last: Section, config: Any, version: str | None) -> str:
    """Return the first open step of the release of `version`, or in work, up to `last`; "" where none is under way."""
    from release_tasks import plan
    from release_tasks.release import Release

    with closing(Release.open(config, version, in_work=True)) as release:
        release.only_checks = True
        if release.is_ended or not (version or release.is_under_way):
            return ""
        steps = _planned([each for each in _with_pre(last) if isinstance(each, Section)], release, {})
        ahead = plan.first_open(steps, plan.Plan(release, steps).check())
        return f"{release.version}: {ahead.section} · {ahead.step}" if ahead else ""
