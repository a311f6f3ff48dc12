"""The layer's own requirements, and whether this Python meets them. Of the standard library at the top."""

from __future__ import annotations

import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

from release_tasks.errors import Problem

FILE = Path(__file__).with_name("requirements.txt")
PROGRAMS = Path(".nox", "layer", "Scripts" if os.name == "nt" else "bin")  # of the environment that noxfile.py makes


def problems() -> list[Problem]:
    """Return one problem when packages of requirements.txt are missing here or too old, with what brings them."""
    unmet = _unmet()
    if not unmet:
        return []
    noxfile, activate = (shlex.quote(str(FILE.parents[1] / path)) for path in ("noxfile.py", PROGRAMS / "activate"))
    what = f"{sys.executable} lacks what the release layer needs: {', '.join(unmet)}."
    return [Problem(what, f"{shlex.quote(sys.executable)} {noxfile} --list && . {activate}")]


def _unmet() -> list[str]:
    """Return the requirements for this machine that are not installed, or not in the version that is needed."""
    from importlib.metadata import PackageNotFoundError, version

    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:
        return [line.partition(" ")[0] for line in lines if not find_spec(line.partition(" ")[0])]
    found = []
    for need in map(Requirement, lines):
        if need.marker and not need.marker.evaluate():
            continue
        try:
            installed = version(need.name)
        except PackageNotFoundError:
            found.append(need.name)
        else:
            if not need.specifier.contains(installed, prereleases=True):
                found.append(f"{need.name} {need.specifier} (found {installed})")
    return found
