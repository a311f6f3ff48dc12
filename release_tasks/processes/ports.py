"""A port for a program of ours to listen on."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

from release_tasks.errors import Refused

# Below those that Linux (32768), macOS and Windows (49152; RFC 6335) give to connections: such a one would be in the
# way whenever the program starts again.
PORTS = range(20000, 32768)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now. Raises `Refused` where there is none."""
    for port in random.sample(PORTS, 200):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise Refused(f"No port of 127.0.0.1 between {PORTS[0]} and {PORTS[-1]} is free.", "ss --listening --tcp --numeric")
