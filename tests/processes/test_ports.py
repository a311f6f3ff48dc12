"""A free port: one that can be listened on, and that no connection of the system gets by chance."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from release_tasks.errors import Refused
from release_tasks.processes import ports


def test_a_free_port_can_be_listened_on_and_is_none_that_connections_get() -> None:
    port = ports.free_port()
    with socket.create_server(("127.0.0.1", port)):
        pass
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    assert port < int(given.read_text().split()[0]) if given.exists() else port in ports.PORTS


def test_a_port_that_somebody_listens_on_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        mine = taken.getsockname()[1]
        monkeypatch.setattr(ports, "PORTS", [mine])
        monkeypatch.setattr(ports.random, "sample", lambda places, _: places)
        with pytest.raises(Refused, match=f"No port of 127.0.0.1 between {mine} and {mine} is free"):
            ports.free_port()
