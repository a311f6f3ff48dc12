"""Plain tools to look at the world from outside, as a stranger would: git, sha256sum, files, processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAYER = Path(__file__).resolve().parents[2]
PATIENCE = 180.0  # seconds for any one command; generous, as it is only waited for when something is wrong


@dataclass(frozen=True)
class Ran:
    """A command that ended: its exit code and all that it said."""

    code: int
    output: str

    @property
    def commands(self) -> str:
        """The lines that fix, as they are shown: what a person would paste into a shell."""
        return "\n".join(line.strip() for line in self.output.splitlines() if line.startswith("      "))

    def refuses(self, *words: str) -> bool:
        """Tell whether the run ended with code 1 and said all `words`, line breaks apart."""
        for word in words:
            assert word in self.flat, f"{word!r} is not in:\n{self.output}"
        assert self.code == 1, f"exit code {self.code}:\n{self.output}"
        return True

    @property
    def json(self) -> Any:
        """What was printed for machines, after the lines that show progress."""
        return json.loads(re.split(r"(?m)^(?=[\[{])", self.output, maxsplit=1)[-1])

    @property
    def flat(self) -> str:
        return " ".join(self.output.split())


def git(cwd: Path, *args: str) -> str:
    """Run git as a person would, and return what it said."""
    ran = subprocess.run(["git", *args], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE)
    assert ran.returncode == 0, f"git {' '.join(args)}: {ran.stderr}"
    return ran.stdout.strip()


def introduce(repo: Path) -> None:
    """Tell git who commits in `repo`."""
    for name, value in (("user.name", "Ada"), ("user.email", "ada@example.invalid"), ("commit.gpgsign", "false")):
        git(repo, "config", name, value)


def copy_the_layer(repo: Path) -> None:
    """Copy the layer's files as a sibling repo gets them, compiled already; its own invoke.yaml stays."""
    for name in ("tasks.py", "noxfile.py"):
        shutil.copy(LAYER / name, repo)
    shutil.copytree(LAYER / "release_tasks", repo / "release_tasks")


def ended(process: subprocess.Popen[str]) -> Ran:
    """Wait for `process`; a traceback is never an answer."""
    output = process.communicate(timeout=PATIENCE)[0]
    assert "Traceback" not in output, output
    return Ran(process.returncode, output)


def shell(cwd: Path, script: str, env: Mapping[str, str]) -> Ran:
    """Run what a message told a person to run."""
    ran = subprocess.run(["/bin/sh", "-ec", script], cwd=cwd, env=env, capture_output=True, text=True, timeout=PATIENCE)
    return Ran(ran.returncode, ran.stdout + ran.stderr)


def sha256sum_passes(folder: Path, listing: str) -> bool:
    """Tell whether `sha256sum --check` finds every file of `listing` in `folder` as it says."""
    ran = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", listing], cwd=folder, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return True


def manifests_pass(pack: Path) -> bool:
    """Tell whether every manifest in the evidence `pack` lists something, and it is so."""
    manifests = list(pack.glob("*manifest-sha256.txt"))
    assert manifests and all(manifest.read_text().strip() for manifest in manifests)
    return all(sha256sum_passes(pack, manifest.name) for manifest in manifests)


def journal_records(path: Path, torn: int = 0) -> list[dict[str, Any]]:
    """Return the records of a journal, of whose lines a kill tore at most `torn`."""
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            torn -= 1
    assert torn >= 0, "lines of the journal are torn"
    return records


def files_of(folder: Path) -> dict[str, str]:
    """Return path → SHA-256 (or where a link goes) of the files under `folder`; what programs log is left out."""
    found = {}
    for path in sorted(folder.rglob("*")) if folder.exists() else []:
        if path.is_symlink():
            found[str(path)] = str(path.readlink())
        elif path.is_file() and path.suffix not in (".log", ".pyc"):
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def processes_of(folder: Path) -> list[int]:
    """Return the ids of the processes that know of `folder`: by command line, environment or working directory."""
    needle, found = os.fsencode(folder), []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            known = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if needle in known + os.fsencode((process / "cwd").readlink()) and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found


def end_processes_of(folder: Path) -> None:
    """End what still runs in a test's own folder, and wait until it has."""
    for pid in processes_of(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert until(lambda: not processes_of(folder))


def until(holds: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Wait until `holds`, up to `seconds`; return whether it came to be."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
