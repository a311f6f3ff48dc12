"""Start a keeper, so that what it holds ends with us however we end."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from release_tasks.processes.groups import kill, own_group
from release_tasks.processes.keeper import Command, Spec

__all__ = ["Command", "Kept", "Spec", "hand_over", "keeper_argv"]


def keeper_argv() -> list[str]:
    """Return the command line of a keeper: an isolated Python in which nothing can shadow the standard library."""
    begin = (
        "import sys; sys.path.append(sys.argv[1])\nfrom release_tasks.processes.keeper import main\nsys.exit(main())"
    )
    return [sys.executable, "-I", "-S", "-c", begin, str(Path(__file__).resolve().parents[2])]


def hand_over(process: subprocess.Popen[Any], spec: Spec) -> None:
    """Tell a keeper that was just started what to hold; its standard input stays open, that is the leash."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died at once; its exit code says so
        process.stdin.write(spec.line())
        process.stdin.flush()


@dataclass(frozen=True)
class Kept:
    """Services that a keeper of ours holds."""

    process: subprocess.Popen[bytes]
    grace: float

    @classmethod
    def start(cls, spec: Spec) -> Kept:
        """Start a keeper that holds what `spec` says. The services' outputs go to their logs or nowhere."""
        process = subprocess.Popen(
            keeper_argv(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **own_group(),
        )
        hand_over(process, spec)
        return cls(process, spec.grace)

    @property
    def pid(self) -> int:
        """The keeper's process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the keeper runs, and with it what it holds."""
        return self.process.poll() is None

    def stop(self) -> None:
        """Stop the services and return when they have ended; stopping again does nothing."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        try:
            self.process.wait(self.grace + 5)
        except subprocess.TimeoutExpired:
            kill(self.process)
            self.process.wait()
