"""This project's own sessions: tests, style, speed, and the proof that a machine needs no preparation.

They run in the layer's environment, which gets what pyproject.toml names beside the layer's requirements.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nox

nox.options.sessions = ["lint", "oldest", "tests"]
OLDEST_INVOKE = Path(".nox/oldest-invoke").resolve()


def python(session: nox.Session, *words: str, **how: Any) -> None:
    """Run Python, which on Ctrl-C has a minute to clean up."""
    session.run(sys.executable, *words, interrupt_timeout=60, terminate_timeout=20, **how)


def install(session: nox.Session, group: str) -> None:
    """Install a dependency group of pyproject.toml."""
    needs = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), group)
    python(session, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *needs)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run all tests, on real git, PostgreSQL and Node."""
    install(session, "test")
    python(session, "-m", "pytest", *(session.posargs or ["--numprocesses=4", "--dist=worksteal"]))


@nox.session(venv_backend="none")
def oldest(session: nox.Session) -> None:
    """Run the engine's tests on the oldest Invoke that is supported."""
    install(session, "test")
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
    python(session, *pip, "--target", str(OLDEST_INVOKE), "invoke ==2.2.*")
    engine = ["tests/test_engine.py", "tests/test_tasks.py"]
    python(session, "-m", "pytest", *engine, *session.posargs, env={"PYTHONPATH": str(OLDEST_INVOKE)})


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Check style with ruff and types with mypy."""
    install(session, "lint")
    for words in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
        python(session, "-m", *words)


@nox.session(default=False, venv_backend="none")
def faults(session: nox.Session) -> None:
    """Run the long tests: everything goes wrong at each step of a release; docs/RELIABILITY.md quotes the result."""
    install(session, "test")
    python(session, "-m", "pytest", "-m", "faults", *(session.posargs or ["--numprocesses=2", "-v"]))


@nox.session(default=False, venv_backend="none")
def bench(session: nox.Session) -> None:
    """Measure against named baselines; docs/PERFORMANCE.md quotes the results."""
    for script in sorted(Path("bench").glob("*.py")):
        python(session, str(script), *session.posargs)


@nox.session(default=False, venv_backend="none")
def load(session: nox.Session) -> None:
    """Flip traffic back and forth under load, and draw it; docs/DEPLOYING.md shows the picture."""
    install(session, "test")
    python(session, "tests/deploy/load.py", *session.posargs)


@nox.session(default=False, venv_backend="none")
def fresh(session: nox.Session) -> None:
    """Type the README's commands on a bare Debian (Linux, as root); `-- --suite trixie`, `-- --tests`."""
    python(session, "tests/fresh.py", *session.posargs)
