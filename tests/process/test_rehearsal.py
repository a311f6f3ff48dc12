"""A rehearsal of this very repo: the real release with the sample app, Node and embedded PostgreSQL, end to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from outside import (
    LAYER,
    end_processes_of,
    git,
    introduce,
    manifests_pass,
    processes_of,
    remove_embedded_servers,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WHOLE = 400.0  # seconds


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """A clone of this repo's HEAD; what a rehearsal leaves in its temporary folder is cleared away."""
    clone, temporary = tmp_path / "clone", tmp_path / "tmp"
    temporary.mkdir()
    git(tmp_path, "clone", "--quiet", str(LAYER), str(clone))
    introduce(clone)
    yield clone
    end_processes_of(tmp_path)
    for rehearsed in temporary.glob("rehearsal-*/clone"):
        remove_embedded_servers(rehearsed)


@contextmanager
def rehearsing(clone: Path) -> Iterator[subprocess.Popen[str]]:
    """Run `inv rehearse` beside the block; all it starts knows of the folder `tmp` by TMPDIR."""
    process = subprocess.Popen(
        [sys.executable, "-m", "invoke", "rehearse"],
        cwd=clone,
        env={**os.environ, "TMPDIR": str(clone.parent / "tmp"), "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_rehearsal_releases_and_leaves_nothing_but_evidence(clone: Path) -> None:
    before = git(clone, "for-each-ref"), git(clone, "status", "--porcelain")
    with rehearsing(clone) as process:
        output = process.communicate(timeout=WHOLE)[0]
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert "All is so" in output
    table = output.partition("\nRehearsal of ")[2]
    for section in ("2. Preconditions", "7. Deploy to Staging", "8. Deploy to Production", "10. Post-Release"):
        assert section in table
    (pack,) = (clone / ".release" / "rehearsals").iterdir()
    assert manifests_pass(pack)
    assert (git(clone, "for-each-ref"), git(clone, "status", "--porcelain")) == before
    assert not processes_of(clone.parent)
    assert not list((clone.parent / "tmp").glob("rehearsal-*"))


def test_a_rehearsal_killed_midway_leaves_no_process(clone: Path) -> None:
    with rehearsing(clone) as process:
        assert process.stdout is not None
        assert any("7. Deploy to Staging" in line and "looked at" not in line for line in process.stdout)
        assert len(processes_of(clone.parent)) > 5
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert until(lambda: not processes_of(clone.parent), 30), processes_of(clone.parent)
