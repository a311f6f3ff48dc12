"""Invoke's part: sections as tasks, options handed on, and two passes over a command line, looks first.

A section of the process is a task whose body names its steps with `follow`. The executor goes through the sections of
a command line twice: first it only looks and gathers every refusal; then, if there is none and it is no dry run, it
goes through them again and changes what is missing. Nothing outside this module knows Invoke's machinery.
"""

from __future__ import annotations

import inspect
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from invoke import Call, Context, Executor, Exit, Task, task

from release_tasks import requirements
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.steps import Run, Stopped

INTERRUPTED = 130

_RUN: ContextVar[Run | None] = ContextVar("run", default=None)


def _tell_of_a_broken_file(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Say in a sentence that invoke.yaml cannot be read: Invoke reads it before any task, and after this import."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        sys.__excepthook__(kind, error, trace)
        return
    what = getattr(error, "problem", None) or "it is no YAML"
    print(f"{Path(mark.name).name}, line {mark.line + 1}: {what}.\n    Mend the file, then run again.", file=sys.stderr)


sys.excepthook = _tell_of_a_broken_file


class Section(Task):  # type: ignore[type-arg]
    """A numbered section of the process; its docstring is the section's heading."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        run = _RUN.get()
        if run is None:
            raise Exit(
                "These tasks need their executor. invoke.yaml beside tasks.py has to say:\n"
                "    tasks: {executor_class: release_tasks.executor.ReleaseExecutor}",
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
    "allow_shift": "why the DDL pack may make something else than was locked",
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

    Raises `Stopped` at the first step that is refused while changing; while looking, refusals are gathered.
    """
    run = _RUN.get()
    assert run is not None, "Section.__call__ has seen to it"
    release = run.open(c.config, version)
    release.options = options
    for step in steps:
        run.take(step, release)


class ReleaseExecutor(Executor):
    """Hands options on to the sections before, and goes through all sections twice: look, then change."""

    def execute(self, *tasks: Any) -> Any:
        calls = self.dedupe(self.expand_calls(self.normalize(tasks)))
        ours = any(call.task.body.__module__.partition(".")[0] != "tasks_local" for call in calls)
        if ours and (unmet := requirements.problems()):
            raise Exit("\n".join(map(str, unmet)), 1)
        with _failures_as_sentences(), self._temporary_files() if ours else nullcontext():
            refuse(_key_problems(self.config.get("release", {}), "release"))
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

    def _temporary_files(self) -> AbstractContextManager[None]:
        from release_tasks import release, temporary

        return temporary.run_directory(release.project_root(self.config))

    def _look_then_change(self, run: Run, sections: list[Any], tasks: Any) -> Any:
        from release_tasks import screen

        for call in sections:
            call.task(Context(self.config), *call.args, **call.kwargs)
        if run.silent:
            screen.as_json(run.outcomes)
        if run.release and not run.survey:
            found = [problem.what for seen in run.refused() for problem in seen.problems]
            run.release.journal.record("looked", refused=found, seconds=run.looked)
        if run.refused():
            if not run.silent:
                screen.refusals(run.refused())
            raise Exit(code=1)
        if run.survey:
            if not run.silent:
                screen.finished(run.outcomes, "Nothing is in the way, and nothing was changed")
            return {}
        assert run.release is not None
        run.looking, run.outcomes = False, []
        with run.release.held():
            results = super().execute(*tasks)
        screen.finished(run.outcomes, "All is so")
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


def _key_problems(told: Any, path: str) -> Iterator[Problem]:
    """Yield the keys that YAML does not read as text: Invoke cannot, when it looks for variables of their names."""
    for key, inner in told.items() if hasattr(told, "items") else enumerate(told) if isinstance(told, list) else ():
        if not isinstance(told, list) and not isinstance(key, str):
            what = f"invoke.yaml, {path}: found the key {key}, which YAML does not read as text."
            yield Problem(what, f'Put it in quotes, as in "{key}": …')
        yield from _key_problems(inner, f"{path}.{key}")


@contextmanager
def _failures_as_sentences() -> Iterator[None]:
    """Turn what ends a run early into sentences and an exit code; end on SIGTERM as on Ctrl-C."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupted)
    try:
        yield
    except Stopped:
        raise Exit(code=1) from None
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
