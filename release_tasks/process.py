"""Other programs: run within a time limit, ended with all they started, shown without their secrets."""

import marshal
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from threading import Thread
from typing import IO, Any

from release_tasks import supervisor
from release_tasks.errors import Refused
from release_tasks.masks import hide, mask, secrets_of, short
from release_tasks.supervisor import GRACE, SIGKILL, end_group

COLOUR = re.compile(r"\x1b\[[0-9;:]*m")  # ECMA-48
PORTS = range(20000, 32768)  # below those that connections get on Linux (32768), macOS and Windows (49152; RFC 6335)
# A group of its own is out of reach of the terminal's Ctrl-C. Only Windows has the flag, and it ignores the session.
OWN_GROUP: dict[str, Any] = {"start_new_session": True}
OWN_GROUP |= {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}


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

    def __init__(self, finished: Finished, failure: str) -> None:
        command, printed = mask(shlex.join(finished.argv)), finished.tail() or "(no output)"
        super().__init__(f"{short(command, 80)} {failure}:\n{printed}", f"{command}   # to see it again")
        self.finished = finished


listeners: list[Callable[[Finished], None]] = []  # called with each program that has ended


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
    check: bool = True,
    supervised: bool = False,
    show: bool = False,
    record: bool = True,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
) -> Finished:
    """Run a program, and end it with its group when it ends or `timeout` seconds are over.

    `env` is added to the environment, whose PATH then has the program. With `supervised` it also ends when we are
    killed, with all it started. With `show` it prints to where we print, and nothing is collected. Without `record` the
    listeners are not called. Raises `Refused` when it cannot be started, `CommandFailed` on a time-out and, with
    `check`, on an exit code.
    """
    for secret in secrets_of(env or {}):
        hide(secret)
    command = [str(word) for word in argv]
    name, folder = command[0], (cwd or Path()).absolute()
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", **(env or {})}
    if not folder.is_dir():
        raise Refused(f"There is no folder {folder} to run {name} in.", f"mkdir -p {shlex.quote(str(folder))}")
    program = shutil.which(name if Path(name).name == name else str(folder / name), path=env.get("PATH"))
    if not program:
        raise Refused(f"The program {name} was not found.", f"Install {name}, or put its folder on PATH.")
    unsupervised: Any = partial(subprocess.Popen, stdin=stdin, **OWN_GROUP)
    start = Supervised if supervised else unsupervised
    began = time.monotonic()
    with TemporaryFile() as out, TemporaryFile() as err:  # files: a pipe could stay open after its program
        stdout, stderr = (None, None) if show else (out, err)
        process = start([program, *command[1:]], cwd=folder, env=env, stdout=stdout, stderr=stderr)
        waiting = Thread(target=process.wait, daemon=True)  # `wait(timeout)` polls: a third of a short program's time
        try:
            waiting.start()
            waiting.join(timeout)
            failure = f"did not end within {timeout:g} s" if waiting.is_alive() else ""
        finally:
            end_group(process, signal.SIGTERM, 3 * GRACE if supervised else GRACE)  # it gives its program twice GRACE
        code, seconds = process.returncode, time.monotonic() - began
        if code is None:  # another user's, as with sudo
            code, failure = -SIGKILL, f"{failure}, nor by SIGKILL"
        for file in (out, err):
            file.seek(0)
        finished = Finished(command, code, plain(out.read()), plain(err.read()), seconds)
    for listener in listeners if record else ():
        listener(finished)
    if not failure and check and code:
        end = f"exit code {code}" if code > 0 else f"signal {-code} ({signal.strsignal(-code)})"
        failure = f"ended with {end}"
    if failure:
        raise CommandFailed(finished, failure)
    return finished


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now. Raises `Refused` where there is none."""
    for port in random.sample(PORTS, 200):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise Refused(f"No port of 127.0.0.1 between {PORTS[0]} and {PORTS[-1]} is free.", "ss --listening --tcp --numeric")


def plain(output: bytes) -> str:
    """Return an output as text without a terminal's colours, which would come between a word and what looks for it."""
    return COLOUR.sub("", output.decode("utf-8", errors="replace")).replace("\r\n", "\n")


class Supervised(subprocess.Popen[bytes]):
    """A supervisor, for what may not outlive us, however we end. Its exit code is that of the program it runs.

    The program's outputs go to `log` or to nobody. `stop` is the signal that ends it.
    """

    def __init__(
        self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], log: Path | None = None, **options: Any
    ) -> None:
        argv = [shutil.which(argv[0], path=env.get("PATH")) or argv[0], *argv[1:]]
        order: dict[str, Any] = {"program": {"args": argv, "cwd": str(cwd), "env": {**env}, **OWN_GROUP}}
        order["stop"] = int(options.pop("stop", signal.SIGTERM))
        # Isolated (-I), so that neither the folder nor the environment can change what it imports.
        command = [sys.executable, "-I", str(Path(supervisor.__file__).resolve())]
        with open(log or os.devnull, "ab", opener=partial(os.open, mode=0o600)) as file:
            super().__init__(command, stdin=subprocess.PIPE, **{"stdout": file, "stderr": file, **OWN_GROUP, **options})
        assert self.stdin
        with suppress(BrokenPipeError):  # it ended at once; its exit code says so
            self.stdin.write(marshal.dumps(order))
            self.stdin.flush()

    def stop(self) -> None:
        """Stop the program and return when it has ended; stopping again does nothing."""
        try:
            self.communicate(timeout=3 * GRACE)  # which closes the pipe
        except subprocess.TimeoutExpired:
            end_group(self, signal.SIGTERM, 3 * GRACE)
