"""What tests of deployments stand on: a host of their own, or three that are reached by sshd's of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.servers import SSHD, Network, Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "shop")
    yield server
    server.power_off()


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    if not SSHD and "CI" not in os.environ:
        pytest.skip("sshd is not installed: apt-get install openssh-server")
    with Network.of_three(tmp_path_factory.mktemp("network")) as network:
        yield network


@pytest.fixture
def network(three: Network) -> Network:
    """Return three hosts on which nothing was ever deployed."""
    three.reset()
    return three
