"""The layer's own requirements, and whether this Python meets them. Of the standard library at the top."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from release_tasks.errors import Problem

FILE = Path(__file__).with_name("requirements.txt")
BIN = Path(".nox", "layer", "Scripts" if os.name == "nt" else "bin")  # of the environment that noxfile.py makes


def problems() -> list[Problem]:
    """Return one problem when packages of requirements.txt are missing or too old, with the command to type."""
    if not (unmet := _unmet()):
        return []
    noxfile, activate = (str(FILE.parents[1] / path) for path in ("noxfile.py", BIN / "activate"))
    join, dot = (subprocess.list2cmdline, []) if os.name == "nt" else (shlex.join, ["."])
    what = f"{sys.executable} is missing packages of the release layer: {', '.join(unmet)}."
    return [Problem(what, f"{join([sys.executable, noxfile, '--list'])} && {join([*dot, activate])}")]


def _unmet() -> list[str]:
    """Return the requirements for this machine that are not installed, or not in the version that is needed."""
    from importlib.metadata import distributions

    def installed(name: str) -> str | None:
        return next((found.version for found in distributions(name=name)), None)

    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:
        return [name for line in lines if not installed(name := line.partition(" ")[0].partition("[")[0])]
    found = []
    for need in map(Requirement, lines):
        if need.marker and not need.marker.evaluate():
            continue
        if not (version := installed(need.name)):
            found.append(need.name)
        elif not need.specifier.contains(version, prereleases=True):
            found.append(f"{need.name} {need.specifier} (found {version})")
    return found
