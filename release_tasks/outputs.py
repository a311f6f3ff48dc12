"""Read what a running program says, without waiting for ever on either of its outputs."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from io import TextIOWrapper
from queue import Empty, Queue
from typing import IO

PIPE_GRACE = 0.5  # seconds that an output may stay open after its program has ended


class Outputs:
    """The lines of a program's two outputs, read by a thread each so that neither can fill up and block."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.open = 2
        self.queue: Queue[tuple[str, str | None]] = Queue()
        for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
            threading.Thread(target=self._read, args=(name, pipe), daemon=True).start()

    def _read(self, name: str, pipe: IO[bytes]) -> None:
        for line in TextIOWrapper(pipe, encoding="utf-8", errors="replace"):
            self.queue.put((name, line))
        self.queue.put((name, None))

    def listen(self, deadline: float, take: Callable[[str, str], None]) -> bool:
        """Hand lines to `take` until the process and its outputs have ended; return whether it did before `deadline`.

        What outlives the process may hold its outputs open: `PIPE_GRACE` seconds of silence are enough then.
        """
        heard = time.monotonic()
        while self.open and time.monotonic() < deadline:
            try:
                name, line = self.queue.get(timeout=0.02)
            except Empty:
                if self.process.poll() is None:
                    heard = time.monotonic()
                elif time.monotonic() > heard + PIPE_GRACE:
                    break
                continue
            heard = time.monotonic()
            if line is None:
                self.open -= 1
            else:
                take(name, line)
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()) if not self.open else 0)
        except subprocess.TimeoutExpired:
            return False
        return True
