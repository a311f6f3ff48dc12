"""How another host learns what to do: on its standard input, so that its process list shows nothing of it."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from release_tasks.deploy.host import Host
from release_tasks.deploy.machine import Failed, failing_in

LOCK = 600  # seconds for another release on this host; whoever sent us waits longer


def main(order: dict[str, Any]) -> None:
    """Do what `order` says: `host`, `verb`, `arguments`; a `tree` is a path, or "" for the rest of standard input.

    With `check` it changes nothing. The answer is JSON: a `result` and whether it has `changed` anything, or `failed`.
    """
    signal.signal(signal.SIGHUP, lambda *_: None)  # the connection is lost; what we start gets its own handler
    os.umask(0o022)
    host = Host(**{**order["host"], "folder": Path(order["host"]["folder"])})
    verb, arguments, check = order["verb"], order["arguments"], order.get("check")
    try:
        with failing_in(host.folder):
            changes = verb != "look" and not host.is_done(verb, **arguments)
            if changes and not check:
                wait_for_others(host.folder)
            if "tree" in arguments and not check:
                arguments["tree"] = taken(arguments["tree"]) if arguments["tree"] else sys.stdin.buffer
            answer = {"result": None if check else getattr(host, verb)(**arguments), "changed": changes}
    except Failed as failed:
        answer = {"failed": str(failed), "hint": failed.hint}
    with suppress(OSError):
        print(json.dumps(answer), flush=True)
    os._exit("failed" in answer)  # quietly, also where nobody listens any more


def taken(path: str) -> BinaryIO:
    """Open a file that was copied here for us; nobody else needs it."""
    file = Path(path).open("rb")  # noqa: SIM115 - until we end
    Path(path).unlink()
    return file


def wait_for_others(folder: Path) -> None:
    """Wait until no other release is under way here, and keep others out until we end. Raises `Failed`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR)

    def give_up(*_: object) -> None:
        who = shlex.join(["fuser", "--verbose", str(folder / ".lock")])
        raise Failed(f"Another release has been under way here for {LOCK} s.", who)

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LOCK)
    fcntl.flock(file, fcntl.LOCK_EX)
    signal.alarm(0)
