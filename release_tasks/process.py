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

from release_tasks.errors import Refused
from release_tasks.masks import hide, mask, secrets_of, short
from release_tasks.supervisor import Command, Supervised, begin, end_group

listeners: list[Callable[[Finished], None]] = []  # called with each program that has ended
COLOUR = re.compile(r"\x1b\[[0-9;:]*m")  # ECMA-48
GRACE = 2.0  # seconds between SIGTERM and SIGKILL
PORTS = range(20000, 32768)  # below those that connections get on Linux (32768), macOS and Windows (49152; RFC 6335)
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

    `env` is added to the environment, whose PATH then has the program. With `supervised` it also ends when we are
    killed, with all it started; with `daemons` but for what has made itself independent. With `show` it prints to where
    we print, and nothing is collected. Without `record` the listeners are not called. Raises `Refused` when it cannot
    be started, `CommandFailed` on a time-out and, with `check`, on an exit code.
    """
    for secret in secrets_of(env or {}):
        hide(secret)
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", **(env or {})}
    command = _command([str(word) for word in argv], (cwd or Path()).absolute(), env, daemons)
    began, failure = time.monotonic(), ""
    with TemporaryFile() as out, TemporaryFile() as err:  # files: a pipe could stay open after its program
        outputs = {"stdout": None if show else out, "stderr": None if show else err}
        process = (Supervised if supervised else begin)(command, **outputs)
        _running.append(process)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            failure = f"did not end within {timeout:g} s"
        finally:
            _running.remove(process)
            end_group(process, signal.SIGTERM, 2 * GRACE)  # as a supervisor gives the program GRACE
        seconds = time.monotonic() - began
        for file in (out, err):
            file.seek(0)
        finished = Finished(
            [str(word) for word in argv], process.returncode, plain(out.read()), plain(err.read()), seconds
        )
    for listener in listeners if record else ():
        listener(finished)
    if not failure and check and (code := process.returncode):
        failure = f"ended with exit code {code}" if code > 0 else f"ended with signal {signal.Signals(-code).name}"
    if failure:
        raise CommandFailed(finished, failure)
    return finished


def end_all() -> None:
    """End all that runs now, in whichever thread: each `run` then returns as if its program had ended by itself."""
    for process in list(_running):
        with suppress(OSError):
            process.terminate()


def wait_until(holds: Callable[[], bool], deadline: float, every: float = 0.5) -> bool:
    """Call `holds` until it is true or `deadline` (of `time.monotonic`) has passed; return its last answer."""
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(every)
    return held


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
        super().__init__(f"{short(shown, 80)} {how}:\n{finished.tail() or '(no output)'}", f"To see it again: {shown}")
        self.finished = finished


def plain(output: bytes) -> str:
    """Return an output as text without a terminal's colours, which would come between a word and what looks for it."""
    return COLOUR.sub("", output.decode("utf-8", errors="replace")).replace("\r\n", "\n")


def _command(words: list[str], folder: Path, env: dict[str, str], daemons: bool) -> Command:
    """Return the command to run in `folder`. Raises `Refused` where there is no such folder or program."""
    name = words[0]
    if not folder.is_dir():
        raise Refused(f"There is no folder {folder} to run {name} in.", f"mkdir -p {shlex.quote(str(folder))}")
    program = shutil.which(name if Path(name).name == name else str(folder / name), path=env.get("PATH"))
    if not program:
        raise Refused(f"The program {name} was not found.", f"Install {name}, or put its folder on PATH.")
    return Command([program, *words[1:]], str(folder), env, grace=GRACE, daemons=daemons)
