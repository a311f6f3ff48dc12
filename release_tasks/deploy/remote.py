"""The part of one host: done here, or in a process of its own that reads it on standard input, where nobody sees it."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from release_tasks.deploy.host import Host
from release_tasks.errors import Refused
from release_tasks.files import readable_by_all
from release_tasks.machine import failing_in, locked

LOCK = 600.0  # seconds for another release on this host; whoever sent us waits longer


def perform(host: Host, verb: str, arguments: dict[str, Any], check: bool = False) -> dict[str, Any]:
    """Let `host` do something; return the `result`, and whether it has `changed` anything. With `check` nothing is."""
    with failing_in(host.folder), readable_by_all():
        changes = verb != "look" and not host.is_done(verb, **arguments)
        with locked(host.folder / ".lock", "release", LOCK) if changes and not check else nullcontext():
            return {"result": None if check else getattr(host, verb)(**arguments), "changed": changes}


def main(order: dict[str, Any]) -> None:
    """Do what `order` says: `host`, `verb`, `arguments`, of which a `tree` was copied here for us.

    The answer is JSON: as that of `perform`, or what `failed`, with a `hint`.
    """
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, lambda *_: None)  # the connection is lost; what we start gets its own handler
    host = Host(**{**order["host"], "folder": Path(order["host"]["folder"])})
    try:
        answer = perform(host, order["verb"], order["arguments"], order.get("check", False))
    except Refused as no:
        answer = {"failed": str(no), "hint": no.problems[0].hint}
    finally:
        if copied := order["arguments"].get("tree"):
            Path(copied).unlink(missing_ok=True)
    with suppress(OSError):
        print(json.dumps(answer), flush=True)
    os._exit("failed" in answer)  # quietly, also where nobody listens any more
