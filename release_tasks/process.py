"""Other programs: run within a time limit, ended with all they started, shown without their secrets."""

from __future__ import annotations

import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from release_tasks import supervisor
from release_tasks.errors import Refused
from release_tasks.masks import hide, mask, secrets_of
from release_tasks.supervisor import Command, Spec

listeners: list[Callable[[Finished], None]] = []  # called with each program that has ended
COLOUR = re.compile(r"\x1b\[[0-9;:]*m")  # ECMA-48
GRACE = 2.0  # seconds between SIGTERM and SIGKILL
# Below those that Linux (32768), macOS and Windows (49152; RFC 6335) give to connections: such a one would be in the
# way whenever the program starts again.
PORTS = range(20000, 32768)
_running: list[subprocess.Popen[bytes]] = []


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
    check: bool = True,
    supervised: bool = False,
    daemons: bool = False,
    show: bool = False,
    record: bool = True,
) -> Finished:
    """Run a program that gets no input, and end it with its group when it ends or `timeout` seconds are over.

    `env` is added to the environment and the program is looked up in the resulting PATH. With `supervised` it also ends
    when we are killed, with all it started; with `daemons` but for what has made itself independent. With
    `show` it prints to where we print, and nothing is collected. Without `record` the listeners are not called.
    Raises `Refused` when it cannot be started, `CommandFailed` on a time-out and, with `check`, on an exit code.
    """
    for secret in secrets_of(env or {}):
        hide(secret)
    command = Command([str(word) for word in argv], str((cwd or Path()).absolute()), environment(env))
    began, in_time = time.monotonic(), True
    with TemporaryFile() as stdout, TemporaryFile() as stderr:  # files: a pipe could stay open after its program
        outputs: dict[str, Any] = {"stdout": None, "stderr": None} if show else {"stdout": stdout, "stderr": stderr}
        process = _start(command, supervised, daemons, outputs)
        _running.append(process)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            in_time = False
        finally:
            _running.remove(process)
            # A supervisor needs its own time to end the program.
            supervisor.end_groups([process], signal.SIGTERM, 2 * GRACE if supervised else GRACE)
        seconds = time.monotonic() - began
        finished = Finished(command.argv, process.returncode, _text_of(stdout), _text_of(stderr), seconds)
    for listener in listeners if record else ():
        listener(finished)
    if not in_time:
        raise CommandFailed(finished, f"did not end within {timeout:g} s")
    if check and finished.code != 0:
        code = finished.code
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        raise CommandFailed(finished, f"ended with {how}")
    return finished


def end_all() -> None:
    """End all that runs now, in whichever thread: each `run` then returns as if its program had ended by itself."""
    for process in list(_running):
        with suppress(OSError):
            process.terminate()


def wait_until(holds: Callable[[], bool], deadline: float, every: float = 0.5) -> bool:
    """Call `holds` until it is true or `deadline` (of `time.monotonic`) has passed; return its last answer."""
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every)
    return True


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now. Raises `Refused` where there is none."""
    for port in random.sample(PORTS, 200):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise Refused(f"No port of 127.0.0.1 between {PORTS[0]} and {PORTS[-1]} is free.", "ss --listening --tcp --numeric")


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
    """A program ended badly or not in time; `finished` holds what it printed."""

    def __init__(self, finished: Finished, how: str) -> None:
        shown = mask(shlex.join(finished.argv))
        short = shown if len(shown) <= 80 else f"{shown[:79]}…"
        super().__init__(f"{short} {how}:\n{finished.tail() or '(no output)'}", f"To see it again: {shown}")
        self.finished = finished


def environment(additions: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return our environment with `additions`; git prompts nobody in it."""
    return {**os.environ, "GIT_TERMINAL_PROMPT": "0", **(additions or {})}


def plain(text: str) -> str:
    """Return `text` without a terminal's colours, which would come between a word and what looks for it."""
    return COLOUR.sub("", text)


def _text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return plain(file.read().decode("utf-8", errors="replace")).replace("\r\n", "\n")


def _start(command: Command, supervised: bool, daemons: bool, outputs: dict[str, Any]) -> subprocess.Popen[bytes]:
    if not Path(command.cwd).is_dir():
        what = f"There is no folder {command.cwd} to run {command.argv[0]} in."
        raise Refused(what, f"mkdir -p {shlex.quote(command.cwd)}")
    name = command.argv[0]
    wanted = name if Path(name).name == name else str(Path(command.cwd) / name)
    if not (program := shutil.which(wanted, path=command.env.get("PATH"))):
        raise Refused(f"The program {name} was not found.", f"Install {name}, or put its folder on PATH.")
    command = Command([program, *command.argv[1:]], command.cwd, command.env)
    try:
        if supervised:
            return supervisor.start(Spec([command], grace=GRACE, once=True, daemons=daemons), **outputs)
        return supervisor.begin(command, **outputs)
    except OSError as error:
        raise Refused(f"{program} cannot be started: {error.strerror}.", f"ls -l {program}") from error
