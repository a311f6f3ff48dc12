"""On the session's PostgreSQL server (tests/conftest.py), a little world for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from world import World

from release_tasks import postgres


@pytest.fixture
def little(tmp_path: Path, server: postgres.Running) -> Iterator[World]:
    """A little repo that is ready to be released as 0.1.1."""
    with World.made(tmp_path, server) as world:
        yield world
