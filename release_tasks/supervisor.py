"""Run a program that ends when we end, however we end: a supervisor, a small program of its own, runs it for us.

We write a `Command` as the first line of its standard input, as arguments could show the environment's secrets to
others, and keep that pipe open. When the pipe ends (kill -9 included), or on SIGTERM, it ends all it started. On Linux
it also adopts what loses its parent (prctl(2), PR_SET_CHILD_SUBREAPER), so that daemons end as well.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

POLL = 0.05  # seconds between two looks at the pipe and the program
PR_SET_CHILD_SUBREAPER = 36
PROGRAM = "import sys; sys.path.append(sys.argv[1]); from release_tasks.supervisor import main; sys.exit(main())"
# A group of its own is out of reach of the terminal's Ctrl-C. Only Windows has the flag, and it ignores the session.
OWN_GROUP: dict[str, Any] = {
    "start_new_session": True,
    "creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
}


@dataclass(frozen=True)
class Command:
    """A program to run; `env` is its whole environment, `log` gets both outputs.

    `grace` are the seconds between the signal `stop` and SIGKILL. With `daemons` what has made itself independent of
    its parent lives on.
    """

    argv: list[str]
    cwd: str
    env: dict[str, str]
    log: str | None = None
    stop: int = signal.SIGTERM
    grace: float = 10.0
    daemons: bool = False


class Supervised(subprocess.Popen[bytes]):
    """The supervisor of a command. Its exit code is that of the command, whose outputs go to its log or to nobody."""

    def __init__(self, command: Command, **outputs: Any) -> None:
        # Isolated (-I), so that neither the folder nor the environment can change what it imports.
        argv = [sys.executable, "-I", "-c", PROGRAM, str(Path(__file__).resolve().parents[1])]
        with open(command.log or os.devnull, "ab", opener=partial(os.open, mode=0o600)) as log:
            how = {"stdout": log, "stderr": log, **outputs, **OWN_GROUP}
            super().__init__(argv, stdin=subprocess.PIPE, **how)
        self.grace = command.grace
        assert self.stdin
        with suppress(BrokenPipeError):  # it ended at once; its exit code says so
            self.stdin.write(json.dumps(asdict(command)).encode() + b"\n")
            self.stdin.flush()

    def stop(self) -> None:
        """Stop the command and return when it has ended; stopping again does nothing."""
        assert self.stdin
        with suppress(OSError):
            self.stdin.close()
        try:
            self.wait(self.grace + 5)
        except subprocess.TimeoutExpired:
            end_group(self, signal.SIGTERM, self.grace)


def begin(command: Command, **outputs: Any) -> subprocess.Popen[bytes]:
    """Start `command` in a group of its own. Raises `OSError` where it cannot be started."""
    argv = [shutil.which(command.argv[0], path=command.env.get("PATH")) or command.argv[0], *command.argv[1:]]
    how: dict[str, Any] = {"cwd": command.cwd, "env": command.env, **OWN_GROUP, **outputs}
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, **how)


def end_group(leader: subprocess.Popen[bytes], number: int, grace: float) -> None:
    """End a program with its group: signal `number`, then SIGKILL once it has ended or after `grace` seconds."""
    _signal_group(leader.pid, number)
    with suppress(subprocess.TimeoutExpired):
        leader.wait(grace)
    _signal_group(leader.pid)
    leader.wait()


def _signal_group(leader: int, number: int | None = None) -> None:
    """Send a signal (None: SIGKILL) to a group. Windows has none: there the leader and its descendants are killed."""
    with suppress(OSError, psutil.Error):  # no such group; macOS says EPERM when only zombies are left
        if sys.platform != "win32":
            return os.killpg(leader, number or signal.SIGKILL)
        for each in (*psutil.Process(leader).children(recursive=True), psutil.Process(leader)):
            each.kill()


def main() -> int:
    """Run the command in the first line of standard input until it or the pipe ends; end all that it started."""
    ended: list[object] = []  # no Event: its lock could be held when a signal comes
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.append(True))
    with open(0, "rb", buffering=0, closefd=False) as pipe:  # a buffer that a thread waits on breaks our exit
        line = pipe.readline()
    if not line.endswith(b"\n"):
        return 1  # the parent ended before it said what to run
    threading.Thread(target=lambda: ended.append(os.read(0, 1)), daemon=True).start()
    command = Command(**json.loads(line))
    if sys.platform == "linux" and not command.daemons:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        process = begin(command)
    except OSError as error:
        print(f"{command.argv[0]} cannot be started: {error}", file=sys.stderr, flush=True)
        return 127
    while process.poll() is None and not ended:
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL)
    end_group(process, command.stop, command.grace)
    # After Popen has the exit code, which psutil would take from it.
    while not command.daemons and (left := psutil.Process().children(recursive=True)):
        for each in left:
            with suppress(psutil.Error):
                each.kill()
        psutil.wait_procs(left, 5)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode
