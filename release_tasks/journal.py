"""The journal of a release: what ran, when, by whom, with what result. JSON lines that are only appended to."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from release_tasks.files import naming
from release_tasks.machine import user
from release_tasks.masks import masked_json
from release_tasks.process import Finished, listeners


class Journal:
    """Records in `path`, a line each. Evidence, never a decision; the evidence pack's manifest hashes it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, event: str, **facts: Any) -> None:
        """Append one record of `event`, secrets masked, and force it to disk; a line that a crash tore stays."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = {"at": at, "event": event, "who": user(), "where": platform.node(), **facts}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with naming(self.path), self.path.open("a+b") as file:
            file.seek(max(file.tell() - 1, 0))
            torn = b"\n" if file.read(1) not in (b"", b"\n") else b""
            file.write(torn + masked_json(entry).encode(errors="backslashreplace") + b"\n")
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
        """Return all whole records, oldest first; a line torn by a crash is left out."""
        found: list[dict[str, Any]] = []
        for line in self.path.read_bytes().splitlines() if self.path.exists() else []:
            with suppress(ValueError):
                found.append(json.loads(line))
        return found
