"""Run programs that end when we end, however we end: a small program of its own runs them for us.

We write a `Spec` as the first line of its standard input, as arguments could show the environment's secrets to others,
and keep that pipe open. When the pipe ends (kill -9 included), or on SIGTERM, it ends all it started. On Linux it also
adopts what loses its parent (prctl(2), PR_SET_CHILD_SUBREAPER), so that daemons end as well.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from release_tasks.files import read_link

POLL = 0.05  # seconds between two looks at the pipe, the link and the services
RESTART = 1.0  # seconds after its last start before a service that ended is started again
PR_SET_CHILD_SUBREAPER = 36
PROGRAM = "import sys; sys.path.append(sys.argv[1]); from release_tasks.supervisor import main; sys.exit(main())"


@dataclass(frozen=True)
class Command:
    """One command: `env` is its whole environment, `log` gets both outputs."""

    argv: list[str]
    cwd: str = "."
    env: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    log: str | None = None


@dataclass(frozen=True)
class Spec:
    """What to run: services, which are restarted, or with `once` one command, whose exit code is then the supervisor's.

    `follow` is a link to the folder that relative `cwd`s start from; `stop` is a signal's name without SIG, `grace` are
    the seconds between it and SIGKILL. With `daemons` what has made itself independent of its parent lives on.
    """

    commands: list[Command]
    follow: str | None = None
    stop: str = "TERM"
    grace: float = 10.0
    once: bool = False
    daemons: bool = False


def start(spec: Spec, stdout: IO[bytes] | int | None, stderr: IO[bytes] | int | None) -> subprocess.Popen[bytes]:
    """Start a supervisor for `spec`; closing its standard input ends it."""
    # Isolated (-I), so that neither the folder nor the environment can change what it imports.
    argv = [sys.executable, "-I", "-c", PROGRAM, str(Path(__file__).resolve().parents[1])]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, **own_group())
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it ended at once; its exit code says so
        process.stdin.write(json.dumps(asdict(spec)).encode() + b"\n")
        process.stdin.flush()
    return process


@dataclass(frozen=True)
class Supervised:
    """Services of ours that run."""

    process: subprocess.Popen[bytes]
    grace: float

    @classmethod
    def start(cls, spec: Spec) -> Supervised:
        """Start the services of `spec`. Their outputs go to their logs or nowhere."""
        return cls(start(spec, subprocess.DEVNULL, subprocess.DEVNULL), spec.grace)

    @property
    def alive(self) -> bool:
        """Whether the supervisor runs, and with it the services."""
        return self.process.poll() is None

    def stop(self) -> None:
        """Stop the services and return when they have ended; stopping again does nothing."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(self.grace + 5)
        except subprocess.TimeoutExpired:
            end_groups([self.process], signal.SIGTERM, self.grace)


def own_group() -> dict[str, Any]:
    """Return the arguments of Popen that give a program its own group, out of reach of the terminal's Ctrl-C."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def begin(command: Command, home: Path = Path(), **outputs: Any) -> subprocess.Popen[bytes]:
    """Start `command` below `home` in a group of its own. Raises `OSError` where it cannot be started."""
    argv = [shutil.which(command.argv[0], path=command.env.get("PATH")) or command.argv[0], *command.argv[1:]]
    how: dict[str, Any] = {"cwd": home / command.cwd, "env": command.env, **own_group(), **outputs}
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, **how)


def end_groups(leaders: Sequence[subprocess.Popen[bytes]], number: int, grace: float) -> None:
    """End programs with all of their groups: signal `number`, then SIGKILL once they have ended or after `grace` s."""
    deadline = time.monotonic() + grace
    for leader in leaders:
        _send(leader, number)
    for leader in leaders:
        with suppress(subprocess.TimeoutExpired):
            leader.wait(max(0.0, deadline - time.monotonic()))
    for leader in leaders:
        _send(leader, None)
        leader.wait()


if sys.platform == "win32":

    def _send(leader: subprocess.Popen[bytes], number: int | None) -> None:
        """End the program with all its descendants; Windows knows no signals."""
        with suppress(psutil.Error):
            for each in (*psutil.Process(leader.pid).children(recursive=True), psutil.Process(leader.pid)):
                each.kill()

else:

    def _send(leader: subprocess.Popen[bytes], number: int | None) -> None:
        """Send a signal (None: SIGKILL) to the program's group."""
        with suppress(OSError):  # no such group; macOS says EPERM when only zombies are left
            os.killpg(leader.pid, number or signal.SIGKILL)


# The program itself


def main() -> int:
    """Run what the first line of standard input says, until the pipe or the one command ends."""
    ended: list[object] = []  # no Event: its lock could be held when a signal comes
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.append(True))
    line = b""  # read unbuffered: a buffer that a thread waits on breaks the interpreter's exit
    while not line.endswith(b"\n"):
        if not (piece := os.read(0, 65536)):
            return 1  # the parent ended before it said what to run
        line += piece
    threading.Thread(target=lambda: ended.append(os.read(0, 1)), daemon=True).start()
    found = json.loads(line)
    spec = Spec(**{**found, "commands": [Command(**each) for each in found["commands"]]})
    if sys.platform == "linux" and not spec.daemons:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return _run_once(spec, ended) if spec.once else _run_services(spec, ended)


def _run_once(spec: Spec, ended: list[object]) -> int:
    try:
        process = begin(spec.commands[0])
    except OSError:
        return 127
    while process.poll() is None and not ended:
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL)
    _end([process], spec)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _run_services(spec: Spec, ended: list[object]) -> int:
    """Keep the services running until `ended`, always from the folder that the link names now."""
    services = [Service(command) for command in spec.commands]
    home: Path | None = None
    while not ended:
        named = read_link(Path(spec.follow)) if spec.follow else Path()
        if named and named != home:
            _end([service.process for service in services if service.process], spec)
            services, home = [Service(command) for command in spec.commands], named
        for service in services if home else ():
            service.keep_running(home or Path(), spec)
        time.sleep(POLL)
    _end([service.process for service in services if service.process], spec)
    return 0


@dataclass
class Service:
    """A command that is started again when it ends."""

    command: Command
    process: subprocess.Popen[bytes] | None = None
    started: float = -RESTART

    def keep_running(self, home: Path, spec: Spec) -> None:
        """Start the service below `home` unless it runs; its log tells why where it cannot be started."""
        if self.process and self.process.poll() is not None:
            end_groups([self.process], signal.SIGTERM, spec.grace)  # what it leaves behind may hold its port
            self.process = None
        if self.process is None and time.monotonic() >= self.started + RESTART:
            self.started = time.monotonic()
            with open(self.command.log or os.devnull, "ab", opener=_for_us_alone) as log:
                try:
                    self.process = begin(self.command, home, stdout=log, stderr=log)
                except OSError as error:
                    log.write(f"{self.command.argv[0]} cannot be started: {error}\n".encode())


def _for_us_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _end(processes: list[subprocess.Popen[bytes]], spec: Spec) -> None:
    """End `processes` by the signal of `spec`, and whatever they have started."""
    end_groups(processes, getattr(signal, f"SIG{spec.stop}"), spec.grace)
    # After Popen has the exit codes, which psutil would take from it.
    while not spec.daemons and (left := psutil.Process().children(recursive=True)):
        for each in left:
            with suppress(psutil.Error):
                each.kill()
        psutil.wait_procs(left, 5)
