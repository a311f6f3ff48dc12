"""This very repo, rehearsed and released: the sample app, Node and embedded PostgreSQL, end to end.

`nox -s fresh` rehearses as well, on a bare machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
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
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
WHOLE = 1500.0  # seconds
INV = ("-m", "invoke")
NOX = ("noxfile.py", "-s")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of the commands; sockets of tsx are in it, and a test's own path is too long for them."""
    folder = tempfile.mkdtemp()
    monkeypatch.setenv("TMPDIR", folder)
    return Path(folder)


@pytest.fixture
def clone(tmp_path: Path, temporary: Path) -> Iterator[Path]:
    """A clone of this repo's HEAD; what a rehearsal leaves in its temporary folder is cleared away."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(LAYER), str(clone))
    introduce(clone)
    yield clone
    end_processes_of(tmp_path)
    end_processes_of(temporary)


@contextmanager
def running(clone: Path, *words: str, program: tuple[str, ...] = INV) -> Iterator[subprocess.Popen[str]]:
    """Run `inv words` beside the block; all it starts knows of the temporary folder by TMPDIR."""
    process = subprocess.Popen(
        [sys.executable, *program, *words],
        cwd=clone,
        env={
            **os.environ,
            "RELEASE_NOX": str(LAYER / ".nox"),
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.faults
def test_a_rehearsal_releases_and_leaves_nothing_but_evidence(clone: Path, temporary: Path) -> None:
    before = git(clone, "for-each-ref"), git(clone, "status", "--porcelain")
    with running(clone, "rehearse") as process:
        output = process.communicate(timeout=WHOLE)[0]
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert "Released 0.1.1: " in output
    table = output.partition("\nRehearsal of ")[2]
    for section in ("2. Preconditions", "7. Deploy to Staging", "8. Deploy to Production", "10. Post-Release"):
        assert section in table
    (pack,) = (clone / ".release" / "rehearsals").iterdir()
    assert manifests_pass(pack)
    assert (git(clone, "for-each-ref"), git(clone, "status", "--porcelain")) == before
    assert not processes_of(temporary)
    assert not list(temporary.iterdir())


@pytest.mark.faults
@pytest.mark.parametrize(
    ("program", "end"),
    [(INV, lambda process: process.terminate()), (NOX, lambda process: os.killpg(process.pid, signal.SIGINT))],
    ids=["inv by SIGTERM", "nox by Ctrl-C"],
)
def test_a_rehearsal_ended_midway_leaves_nothing(
    clone: Path, temporary: Path, program: tuple[str, ...], end: Callable[[subprocess.Popen[str]], None]
) -> None:
    with running(clone, "rehearse", program=program) as process:
        assert process.stdout is not None
        assert any("checked 2. Preconditions" in line for line in process.stdout)
        end(process)
        process.communicate(timeout=WHOLE)
        assert process.returncode == 130
    assert not processes_of(temporary)
    assert not list(temporary.iterdir())


@pytest.mark.faults
def test_a_rehearsal_killed_midway_leaves_no_process_and_no_file(clone: Path, temporary: Path) -> None:
    with running(clone, "rehearse") as process:
        assert process.stdout is not None
        assert any("checked 2. Preconditions" in line for line in process.stdout)
        assert len(processes_of(temporary)) > 5
        servers = list(temporary.glob("release-*/rehearsal-*/clone/.release/environments/*/postgresql"))
        assert len(servers) == 3
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert until(lambda: not processes_of(temporary)), processes_of(temporary)
    assert until(lambda: not list(temporary.iterdir()))


@pytest.mark.faults
def test_a_first_release_into_empty_environments_is_finished_after_a_kill(clone: Path, tmp_path: Path) -> None:
    """Nothing was ever deployed, so nothing feeds production; and a killed run takes embedded servers with it."""
    git(tmp_path, "clone", "--quiet", "--bare", str(clone), "origin.git")
    git(clone, "remote", "set-url", "origin", str(tmp_path / "origin.git"))
    git(clone, "switch", "--quiet", "--force-create", "main")
    git(clone, "push", "--quiet", "--force", "origin", "main")
    version = (clone / "VERSION").read_text(encoding="utf-8").strip().removesuffix("-dev")
    words = ("release", "--version", version, "--yes")
    with running(clone, *words) as process:
        assert process.stdout is not None
        assert any("changed  Back up the database" in line for line in process.stdout)
        process.send_signal(signal.SIGKILL)
    assert until(lambda: not processes_of(tmp_path)), processes_of(tmp_path)
    with running(clone, *words) as process:
        output = process.communicate(timeout=WHOLE)[0]
    assert process.returncode == 0, output
    on_main = git(tmp_path / "origin.git", "show", "main:VERSION")
    assert on_main.endswith("-dev") and not on_main.startswith(version)
