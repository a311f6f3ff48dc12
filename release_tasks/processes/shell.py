"""Other programs: run within a deadline, ended as a whole group, shown without their secrets."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from release_tasks.errors import Refused
from release_tasks.masks import hide, mask, secrets_of
from release_tasks.processes.groups import end_groups, identity, own_group, send
from release_tasks.processes.keeper import Command, Spec
from release_tasks.processes.leash import hand_over, keeper_argv

__all__ = ["CommandFailed", "Finished", "environment", "hide", "listeners", "mask", "run", "wait_until"]

listeners: list[Callable[[Finished], None]] = []  # told of each program that has ended
COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
GRACE = 2.0  # seconds between SIGTERM and SIGKILL
_running: list[subprocess.Popen[bytes]] = []


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
    check: bool = True,
    leash: bool = False,
    strays: bool = False,
    user: str | None = None,
    show: bool = False,
    told: bool = True,
) -> Finished:
    """Run a program that gets no input, and end it with all it started when it ends or `timeout` seconds are over.

    `env` is added to the environment and the program is looked up in the resulting PATH. With `leash` it also ends
    when we are killed; with `strays` so does what has left its group (on Linux). `user` (root only) is whom it runs as.
    With `show` it prints to where we print, and nothing is collected. What only looks need not be `told` to the
    listeners.
    Raises `Refused` when it cannot be started, `CommandFailed` on a deadline and, with `check`, on an exit code.
    """
    for secret in secrets_of(env or {}):
        hide(secret)
    command = Command([str(word) for word in argv], str((cwd or Path()).absolute()), environment(env), user=user)
    began, in_time, leash = time.monotonic(), True, leash or strays
    with TemporaryFile() as stdout, TemporaryFile() as stderr:  # files: a pipe could stay open after its program
        process = _start(command, leash, strays, None if show else (stdout, stderr))
        _running.append(process)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            in_time = False
        finally:
            _running.remove(process)
            end_groups([process], signal.SIGTERM, 2 * GRACE if leash else GRACE)  # a keeper needs the first one itself
        seconds = time.monotonic() - began
        finished = Finished(command.argv, process.returncode, _text_of(stdout), _text_of(stderr), seconds)
    for tell in listeners if told else ():
        tell(finished)
    if not in_time:
        raise CommandFailed(finished, f"did not end within {timeout:g} s")
    if check and finished.code != 0:
        raise CommandFailed(finished, f"ended with {_code_in_words(finished.code)}")
    return finished


def end_all() -> None:
    """End all that runs now, in whichever thread: each `run` then returns as if its program had ended by itself."""
    for process in list(_running):
        send(process, signal.SIGTERM)


def wait_until(holds: Callable[[], bool], deadline: float, every: float = 0.5) -> bool:
    """Ask `holds` again until it is true or `deadline` (of `time.monotonic`) has passed; return the last answer."""
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every)
    return True


@dataclass(frozen=True)
class Finished:
    """A program that ended: what was called, its exit code (negative: the signal), its outputs and its seconds."""

    argv: list[str]
    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def output(self) -> str:
        """Both outputs, what went to the error stream last."""
        return self.stdout + self.stderr

    def tail(self, n: int = 10) -> str:
        """Return the last `n` lines that are not empty, masked."""
        return "\n".join([line for line in mask(self.output).splitlines() if line.strip()][-n:])


class CommandFailed(Refused):
    """A program ended badly or not in time; `finished` holds what it said."""

    def __init__(self, finished: Finished, how: str) -> None:
        shown = mask(shlex.join(finished.argv))
        short = shown if len(shown) <= 80 else f"{shown[:79]}…"
        said = finished.tail() or "(it said nothing)"
        super().__init__(f"{short} {how}:\n{said}", mend=f"To see it again: {shown}")
        self.finished = finished


def environment(additions: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return our environment with `additions`; git asks nobody in it."""
    return {**os.environ, "GIT_TERMINAL_PROMPT": "0", **(additions or {})}


def _text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return plain(file.read().decode("utf-8", errors="replace")).replace("\r\n", "\n")


def plain(text: str) -> str:
    """Return `text` without a terminal's colours, which would come between a word and what looks for it (ECMA-48)."""
    return COLOUR.sub("", text) if "\x1b" in text else text


def _start(
    command: Command, leash: bool, strays: bool, outputs: tuple[IO[bytes], IO[bytes]] | None
) -> subprocess.Popen[bytes]:
    if not Path(command.cwd).is_dir():
        what = f"There is no folder {command.cwd} to run {command.argv[0]} in."
        raise Refused(what, mend=f"mkdir -p {shlex.quote(command.cwd)}")
    argv = [_program(command), *command.argv[1:]]
    stdout, stderr = outputs or (None, None)
    try:
        if leash:
            pipe = subprocess.PIPE
            process = subprocess.Popen(keeper_argv(), stdin=pipe, stdout=stdout, stderr=stderr, **own_group())
            hand_over(process, Spec([replace(command, argv=argv)], grace=GRACE, once=True, strays=strays))
            return process
        return subprocess.Popen(
            argv,
            cwd=command.cwd,
            env=command.env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            **own_group(),
            **identity(command.user),
        )
    except OSError as error:
        raise Refused(f"{argv[0]} cannot be started: {error.strerror}.", mend=f"ls -l {argv[0]}") from error


def _program(command: Command) -> str:
    """Return the path of the program; on Windows with its suffix, as `pnpm` is a `pnpm.cmd` there."""
    name = command.argv[0]
    wanted = name if Path(name).name == name else str(Path(command.cwd) / name)
    found = shutil.which(wanted, path=command.env.get("PATH"))
    if not found:
        raise Refused(f"The program {name} was not found.", mend=f"Install {name}, or put its folder on PATH.")
    return found


def _code_in_words(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
