"""Hold processes for as long as the parent lives; a program of its own, of the standard library only.

The parent (see leash.py) writes a `Spec` as the first line of the keeper's standard input, as arguments could show the
environment's secrets to others, and keeps that pipe open. However the parent ends, kill -9 included, the pipe ends
with it; then all commands are stopped, and so they are on SIGTERM and SIGINT.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from release_tasks.processes.groups import adopt_orphans, end_groups, end_orphans, identity, own_group
from release_tasks.processes.links import read_link

POLL = 0.05  # seconds between two looks at the parent, the link and the services
FIRST_DELAY, LONGEST_DELAY = 0.5, 5.0  # seconds before a service that died is started again


@dataclass(frozen=True)
class Command:
    """One command: `env` is its whole environment, `log` gets both outputs, `user` is for root to give."""

    argv: list[str]
    cwd: str = "."
    env: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    log: str | None = None
    user: str | None = None


@dataclass(frozen=True)
class Spec:
    """What to hold: services, or with `once` one command whose exit code becomes the keeper's.

    `follow` is a link to the folder that relative `cwd`s start from; `stop` is a signal's name without SIG;
    `grace` are the seconds between it and SIGKILL. With `strays` also what has left the command's group ends with it.
    """

    commands: list[Command]
    follow: str | None = None
    stop: str = "TERM"
    grace: float = 10.0
    once: bool = False
    strays: bool = False

    def line(self) -> bytes:
        """Return the spec as one line, for `read`."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Spec:
        """Return the spec that `line` holds."""
        entries = json.loads(line)
        return cls(**{**entries, "commands": [Command(**entry) for entry in entries["commands"]]})


def main() -> int:
    """Hold what standard input asks for, until the parent ends or the one command does."""
    ending = Ending()
    line = first_line(0)
    if not line.endswith(b"\n"):
        return 1  # the parent ended before it said what to hold
    threading.Thread(target=ending.ask_at_end_of, args=(0,), daemon=True).start()
    spec = Spec.read(line)
    return hold_once(spec, ending) if spec.once else hold_services(spec, ending)


class Ending:
    """Whether it is time to stop. A plain flag, as the lock of an Event could deadlock in a signal handler."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self.ask)
        signal.signal(signal.SIGINT, self.ask)

    def ask(self, *_: object) -> None:
        self.asked = True

    def ask_at_end_of(self, pipe: int) -> None:
        while os.read(pipe, 4096):
            pass
        self.ask()


def first_line(pipe: int) -> bytes:
    """Return the first line of `pipe`, unbuffered: a buffer that a thread waits on breaks the interpreter's exit."""
    line = b""
    while not line.endswith(b"\n") and (piece := os.read(pipe, 65536)):
        line += piece
    return line


def hold_once(spec: Spec, ending: Ending) -> int:
    """Run the one command to its end or until `ending`; what is left of its group ends with it."""
    if spec.strays:
        adopt_orphans()
    try:
        process = begin(spec.commands[0], Path())
    except OSError:
        return 127
    while process.poll() is None and not ending.asked:
        try:
            process.wait(POLL)
        except subprocess.TimeoutExpired:
            continue
    end([process], spec)
    if spec.strays:
        end_orphans()
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def hold_services(spec: Spec, ending: Ending) -> int:
    """Keep the services running until `ending`, always from the folder that the link names now."""
    services: list[Service] = []
    home: Path | None = None
    while not ending.asked:
        named = read_link(Path(spec.follow)) if spec.follow else Path()
        if named and named != home:
            end([service.process for service in services if service.process], spec)
            services, home = [Service(command, named) for command in spec.commands], named
        for service in services:
            service.keep_running(spec)
        time.sleep(POLL)
    end([service.process for service in services if service.process], spec)
    return 0


class Service:
    """A command that is started again when it ends, after a delay that grows while it keeps failing."""

    def __init__(self, command: Command, home: Path) -> None:
        self.command, self.home = command, home
        self.process: subprocess.Popen[bytes] | None = None
        self.delay = FIRST_DELAY
        self.started = self.due = time.monotonic()

    def keep_running(self, spec: Spec) -> None:
        """Start the service when it is not running and its delay has passed."""
        now = time.monotonic()
        if self.process and self.process.poll() is not None:
            end([self.process], spec)  # what it leaves behind may hold its port
            self.process = None
            self._delay(now)
        if self.process is None and now >= self.due:
            self.started = now
            try:
                self.process = begin(self.command, self.home)
            except OSError:
                self._delay(now)

    def _delay(self, now: float) -> None:
        if now - self.started > 2 * LONGEST_DELAY:
            self.delay = FIRST_DELAY
        self.due = now + self.delay
        self.delay = min(2 * self.delay, LONGEST_DELAY)


def begin(command: Command, home: Path) -> subprocess.Popen[bytes]:
    """Start `command` below `home`, in a group of its own; the log tells why when it cannot be started."""
    log = os.open(command.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if command.log else os.dup(2)
    output = log if command.log else None
    try:
        return subprocess.Popen(
            [shutil.which(command.argv[0], path=command.env.get("PATH")) or command.argv[0], *command.argv[1:]],
            cwd=home / command.cwd,
            env=command.env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **own_group(),
            **identity(command.user),
        )
    except OSError as error:
        os.write(log, f"keeper: {command.argv[0]} cannot be started: {error}\n".encode())
        raise
    finally:
        os.close(log)


def end(processes: list[subprocess.Popen[bytes]], spec: Spec) -> None:
    end_groups(processes, signal.Signals[f"SIG{spec.stop}"], spec.grace)
