"""Ports for what a test starts later: each worker has its own, which the layer never takes (`process.PORTS`)."""

import os
import random
import socket
from collections.abc import Iterator

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def _free() -> Iterator[int]:
    while True:
        for port in random.sample(range(12000, 12800), 800):  # again only when all were given
            with socket.socket() as probing:
                if probing.connect_ex(("127.0.0.1", port + 800 * WORKER)):
                    yield port + 800 * WORKER


own_port = _free().__next__
