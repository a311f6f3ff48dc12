"""Process groups: a program and all it started, to be ended together. Of the standard library only, for the keeper."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def own_group() -> dict[str, Any]:
    """Return the arguments of Popen that give a program its own group, out of reach of the terminal's Ctrl-C."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def identity(user: str | None) -> dict[str, Any]:
    """Return the arguments of Popen that make a program run as `user` (root may ask), without root's other groups."""
    if user is None or sys.platform == "win32":
        return {}
    import pwd

    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def end_groups(leaders: Sequence[subprocess.Popen[Any]], number: int, grace: float) -> None:
    """End all that is left of the groups of `leaders`: signal `number`, up to `grace` seconds, then SIGKILL."""
    for leader in leaders:
        send(leader, number)
    patience = time.monotonic() + grace
    while any(has_members(leader) for leader in leaders) and time.monotonic() < patience:
        time.sleep(0.02)
    for leader in leaders:
        kill(leader)
        leader.wait()


def adopt_orphans() -> None:
    """Become the parent of each descendant that loses its own, whatever its group is.

    Linux: prctl(2), PR_SET_CHILD_SUBREAPER. Elsewhere nobody can; there what left its group is not found.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def end_orphans() -> None:
    """End the children that this process has adopted, and those that come to it when these end."""
    while sys.platform == "linux" and (orphans := _children()):
        for orphan in orphans:
            with contextlib.suppress(OSError):
                os.kill(orphan, signal.SIGKILL)
                os.waitpid(orphan, 0)


def _children() -> list[int]:
    return [pid for pid, _, parent, _ in _processes() if parent == os.getpid()]


def _processes() -> Iterator[tuple[int, str, int, int]]:
    """Yield id, state, parent and group of each process, as proc(5) has them; nothing where there is no /proc."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):  # it may end while it is looked at
            state, parent, group = file.read_text(errors="replace").rpartition(")")[2].split()[:3]
            yield int(file.parent.name), state, int(parent), int(group)


if sys.platform == "win32":
    # Ctrl-Break is what a console program can be asked with; PostgreSQL takes it as SIGINT. What outlives the leader
    # cannot be found by the leader's id there.

    def send(leader: subprocess.Popen[Any], number: int) -> None:
        """Ask the group to end; Windows knows no other signal."""
        if leader.poll() is None:
            leader.send_signal(signal.CTRL_BREAK_EVENT)

    def has_members(leader: subprocess.Popen[Any]) -> bool:
        """Whether the leader still runs."""
        return leader.poll() is None

    def kill(leader: subprocess.Popen[Any]) -> None:
        """End the group without asking."""
        if leader.poll() is None:
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(leader.pid)], capture_output=True, check=False)

else:

    def send(leader: subprocess.Popen[Any], number: int) -> bool:
        """Send a signal to the group; return whether it had members."""
        try:
            os.killpg(leader.pid, number)
        except OSError:  # no such group; macOS says EPERM when only zombies are left
            return False
        return True

    def has_members(leader: subprocess.Popen[Any]) -> bool:
        """Whether any process of the group is left."""
        leader.poll()  # a leader that nobody waited for would count as a member
        return send(leader, 0) and not only_zombies(leader.pid)

    def only_zombies(group: int) -> bool:
        """Whether nothing of the group runs: orphans stay zombies where a container's first process is no init."""
        return {state for _, state, _, its_group in _processes() if its_group == group} == {"Z"}

    def kill(leader: subprocess.Popen[Any]) -> None:
        """End the group without asking."""
        send(leader, signal.SIGKILL)
