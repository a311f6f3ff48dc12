# /// script
# dependencies = ["nox >=2025.2", "invoke >=2.2,<4"]
# ///
"""Isolated environments for what a release needs: `nox -s smokes`, rehearse, tests, lint, bench.

On a machine without nox, `python3 noxfile.py -s rehearse` makes nox an environment of its own first.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
LAYER = ["-r", "release_tasks/requirements.txt"]


def start_again_with_nox() -> None:
    """Run this file's sessions by a nox that is installed in .nox/nox, and end as it ends."""
    home = HERE / ".nox" / "nox"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if (
        subprocess.run([python, "-c", "import nox, invoke"], capture_output=True).returncode
        if python.exists()
        else True
    ):
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "nox >=2025.2", "invoke >=2.2,<4"], check=True)
    raise SystemExit(subprocess.run([python, "-m", "nox", *sys.argv[1:]], cwd=HERE).returncode)


try:
    import nox
    from invoke.vendor import yaml
except ModuleNotFoundError:
    start_again_with_nox()

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "oldest", "tests"]


def smoke_names() -> list[str]:
    """Return the names of the smokes in invoke.yaml, in its order."""
    settings = yaml.safe_load((HERE / "invoke.yaml").read_text(encoding="utf-8")) or {}
    return list((settings.get("release") or {}).get("smokes") or {})


def install(session: nox.Session, *groups: str) -> None:
    """Install the layer's requirements and the dependency `groups` of pyproject.toml."""
    project = nox.project.load_toml("pyproject.toml") if groups else {}
    session.install(*LAYER, *(need for group in groups for need in nox.project.dependency_groups(project, group)))


@nox.session(default=False)
@nox.parametrize("smoke", [nox.param(name, id=name) for name in smoke_names()])
def smokes(session: nox.Session, smoke: str) -> None:
    """Run the smokes, each in an environment of its own; `-- --env staging` for another than dev."""
    install(session)
    session.run("python", "-m", "invoke", "smokes", "--only", smoke, *session.posargs)


@nox.session(default=False)
def rehearse(session: nox.Session) -> None:
    """Rehearse a release: throw-away clone, bare remote, embedded dev, staging and production; `-- --keep`."""
    install(session)
    session.run("python", "-m", "invoke", "rehearse", *session.posargs)


@nox.session(default=False)
def dev(session: nox.Session) -> None:
    """Make .venv with `inv` and `nox` for everyday use."""
    session.run("python", "-m", "venv", ".venv", silent=True)
    python = ".venv/Scripts/python" if os.name == "nt" else ".venv/bin/python"
    session.run(python, "-m", "pip", "install", "--quiet", *LAYER, external=True)
    session.log("Now: source .venv/bin/activate && inv --list")


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests, on real git, PostgreSQL and Node."""
    install(session, "test")
    session.run("python", "-m", "pytest", *(session.posargs or ["--numprocesses=2", "--dist=worksteal"]))


@nox.session
def oldest(session: nox.Session) -> None:
    """Run the engine's tests on the oldest Invoke that is supported."""
    install(session, "test")
    session.install("invoke ==2.2.*")
    session.run("python", "-m", "pytest", "tests/test_steps.py", "tests/test_tasks.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style with ruff and types with mypy."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure against named baselines; docs/PERFORMANCE.md quotes the results."""
    install(session)
    for script in sorted(Path("bench").glob("*.py")):
        session.run("python", str(script), *session.posargs)


if __name__ == "__main__":
    nox.main()
