"""Sentences and an exit code for what ends a run early, also for files that Invoke reads before any task."""

import atexit
import errno
import os
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

from release_tasks.errors import Problem, Refused

INTERRUPTED = "\nInterrupted. What is done stays, hosts end what they began; the same command goes on from here.", 130
NO_READER = "Standard output was closed. What is done stays done; run it again.", 128 + 13  # SIGPIPE's
CLOSED = "Standard output is closed: nothing was begun, as nobody would see what became of it."
FORESEEN = (OSError, EOFError, UnicodeDecodeError)  # what a machine or a person may refuse at any step
NO_EXECUTOR = """These tasks need their executor. invoke.yaml beside tasks.py has to say:
    tasks: {executor_class: release_tasks.engine.ReleaseExecutor}"""


@atexit.register
def _write_the_rest() -> None:
    """Write what is buffered, as of `inv --list`; where nobody reads it, end as elsewhere, not in Python's words."""
    try:
        if sys.stdout and not sys.stdout.closed:
            sys.stdout.flush()
    except BrokenPipeError:
        print(NO_READER[0], file=sys.stderr, flush=True)
        os._exit(NO_READER[1])


@contextmanager
def as_sentences() -> Iterator[None]:
    """Turn what ends the block early into sentences and an exit code; end on SIGTERM as on Ctrl-C."""
    _prepare_streams()
    from release_tasks import masks, screen

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        try:
            yield
        except Refused as error:
            screen.problems(error.problems)
            raise SystemExit(1) from None
        except Exception as bug:
            if isinstance(bug, FORESEEN) or type(bug).__module__.startswith("invoke."):
                raise
            screen.bug(bug)
            raise SystemExit(1) from None
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        _end(*INTERRUPTED)
    except BrokenPipeError:
        _end(*NO_READER)
    except FORESEEN as error:
        _end(masks.mask(str(problem_of(error))), 1)
    finally:
        signal.signal(signal.SIGTERM, before)


def _prepare_streams() -> None:
    """Let output say `?` for a character that its encoding lacks; end where standard output is closed."""
    for name, mode in (("stdin", "r"), ("stderr", "w"), ("stdout", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
            if name == "stdout":
                _end(CLOSED, 1)
        elif mode == "w" and isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def _end(message: str, code: int) -> NoReturn:
    """Say `message` on the error stream and end: it may be standard output that cannot be written to."""
    print(message, file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # else the interpreter tries once more: docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(code)


def problem_of(error: OSError | EOFError | UnicodeDecodeError) -> Problem:
    """Return what the system refused, a person did not answer, or a file does not hold, as a problem."""
    if isinstance(error, EOFError):
        return Problem("The input ended before an answer was given.", "Run it again on a terminal, and answer.")
    if isinstance(error, UnicodeDecodeError):
        found = f"found {error.reason} at byte {error.start}; it begins {error.object[:20]!r}"
        return Problem(f"A file is no text in UTF-8: {found}.", "Save it as UTF-8, and run again.")
    path, reason = error.filename, error.strerror or str(error)
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        _, path, reason = error.args[0][0]
    full = error.errno in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in reason
    if not isinstance(path, str | os.PathLike):
        return Problem(f"Something cannot be read or written: {reason}.", "df -h" if full else "")
    there = next((each for each in (Path(path), *Path(path).parents) if os.path.lexists(each)), ".")
    return Problem(f"{path} cannot be used: {reason}.", f"{'df -h' if full else 'ls -ld'} {shlex.quote(str(there))}")


def explain(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Say in a sentence what is wrong with a file that Invoke reads before any task, as `sys.excepthook`."""
    if kind is BrokenPipeError:  # of Invoke itself: inv --list | head
        _end(*NO_READER)
    frames = {Path(frame.filename).name: frame for frame in traceback.extract_tb(trace)}
    mark, reason, where = getattr(error, "problem_mark", None), f"{kind.__name__}: {error}", ""
    if isinstance(error, SyntaxError):
        where, reason = f"{Path(error.filename or 'tasks_local.py').name}, line {error.lineno or 1}", error.msg
    elif "tasks_local.py" in frames:
        where = f"tasks_local.py, line {frames['tasks_local.py'].lineno}"
    elif mark:
        where, reason = f"{Path(mark.name).name}, line {mark.line + 1}", getattr(error, "problem", "it is no YAML")
    elif "config.py" in frames:
        where, reason = "invoke.yaml", f"{reason}. Expected are tasks: and release:, each with keys below it"
    elif "program.py" in frames and frames["program.py"].name == "execute":
        where, reason = "invoke.yaml, tasks.executor_class", f"{error}. {NO_EXECUTOR}"
    if not where or frames.keys() & {"executor.py", "engine.py"}:  # a task runs
        return sys.__excepthook__(kind, error, trace)
    end = "" if reason.endswith(NO_EXECUTOR) else "."  # which is YAML, to be copied
    print(f"{where}: {reason.rstrip('.')}{end}\n    Fix the file, then run again.", file=sys.stderr)
