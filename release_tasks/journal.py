"""The journal of a release: what ran, when, by whom, with what result; append-only and chained by SHA-256."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from release_tasks.masks import masked_json
from release_tasks.process import Finished, listeners

START = "0" * 64
ONE_BY_ONE = threading.Lock()  # checks run programs in threads
TORN = b"# torn: "  # begins a line that a crash cut short


class Journal:
    """Records in `path` (JSON lines); each carries the SHA-256 of the line before. Evidence, never a decision."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, event: str, **facts: Any) -> None:
        """Append one record of `event`, secrets masked, and force it to disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        entry = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **_who(), **facts}
        with ONE_BY_ONE, self.path.open("a+b") as file:
            entry["previous"] = _last_hash(file)
            file.write(masked_json(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Record every command that is run meanwhile: what was called, its exit code and its seconds."""

        def heard(ran: Finished) -> None:
            self.record("command", argv=ran.argv, code=ran.code, seconds=round(ran.seconds, 3))

        listeners.append(heard)
        try:
            yield
        finally:
            listeners.remove(heard)

    def records(self) -> list[dict[str, Any]]:
        """Return all whole records, oldest first; a last line torn by a crash is left out."""
        return [record for line in self._lines() if (record := _parsed(line))]

    def breaks(self) -> list[int]:
        """Return the line numbers, from 1, that do not carry the hash of the line before: empty when intact."""
        broken, previous = [], START
        for number, line in enumerate(self._lines(), 1):
            if not line.startswith(TORN) and _parsed(line).get("previous") != previous:
                broken.append(number)
            previous = hashlib.sha256(line).hexdigest()
        return broken

    def _lines(self) -> list[bytes]:
        return self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _last_hash(file: Any) -> str:
    """Return the hash of the last line; a line torn by a crash is set aside as a comment, so that it stays."""
    file.seek(0)
    content = file.read()
    if content and not content.endswith(b"\n"):
        whole, _, torn = content.rpartition(b"\n")
        file.truncate(len(whole) + (1 if whole else 0))
        file.write(TORN + torn + b"\n")
        file.seek(0)
        content = file.read()
    lines = content.split(b"\n")[:-1]
    return hashlib.sha256(lines[-1]).hexdigest() if lines else START


def _who() -> dict[str, str]:
    return {"who": getpass.getuser(), "where": platform.node()}
