"""On the session's PostgreSQL server (tests/conftest.py), a little world for each test that asks for one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import World

from release_tasks.database.server import Running
from release_tasks.files import records_folder

collect_ignore = ["little"]  # its smokes and acceptance run in its own releases


@pytest.fixture(scope="session")
def proofs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was proved of DDL packs so far, for the next world: a proof of the same files would be the same."""
    return tmp_path_factory.mktemp("proofs")


@pytest.fixture
def little(tmp_path: Path, server: Running, proofs: Path) -> Iterator[World]:
    """A little repo that is ready to be released as 0.1.1."""
    with World.made(tmp_path, server) as world:
        cache = records_folder(world.repo) / "cache"
        shutil.copytree(proofs, cache)
        yield world
        if cache.exists():  # a test may have moved the repository
            shutil.copytree(cache, proofs, dirs_exist_ok=True)
