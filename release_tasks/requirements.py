"""The layer's own requirements, and whether this Python meets them. Of the standard library at the top."""

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
    from importlib.metadata import distributions

    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:
        unmet = ["packaging, and perhaps others"]
    else:
        lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
        needs = [need for need in map(Requirement, lines) if not need.marker or need.marker.evaluate()]
        found = [(need, next((it.version for it in distributions(name=need.name)), None)) for need in needs]
        wrong = [(need, here) for need, here in found if not (here and need.specifier.contains(here, prereleases=True))]
        unmet = [f"{need.name} {need.specifier} (found {here or 'none'})" for need, here in wrong]
    if not unmet:
        return []
    make = as_typed([sys.executable, str(FILE.parents[1] / "noxfile.py"), "--list"])
    what = f"{sys.executable} is missing packages of the release layer: {', '.join(unmet)}."
    return [Problem(what, f"{make} && {activation()}")]


def activation() -> str:
    """Return the command by which a shell finds the `inv` of the environment that noxfile.py makes."""
    return as_typed([*([] if os.name == "nt" else ["."]), str(FILE.parents[1] / BIN / "activate")])


def as_typed(argv: list[str]) -> str:
    """Return a command line as this system's shell reads it."""
    return subprocess.list2cmdline(argv) if os.name == "nt" else shlex.join(argv)
