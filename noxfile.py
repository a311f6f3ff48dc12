# /// script
# dependencies = ["nox >=2025.2", "invoke >=2.2,<4"]
# ///
"""Isolated environments for what a release needs: `nox -s smokes`, rehearse, tests, lint, bench.

The nox that reads this file has the layer's requirements: it runs `inv`, and the smokes' environments hold no more than
what each of them needs.

On a machine without nox, `python3 noxfile.py -s rehearse` makes nox an environment of its own first.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
LAYER = ["-r", "release_tasks/requirements.txt"]


def start_again_with_nox() -> None:
    """Run this file's sessions by a nox that is installed in .nox/nox, and end as it ends."""
    home = HERE / ".nox" / "nox"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    whole = [python, "-c", "import nox, psycopg, playwright"]
    if not python.exists() or subprocess.run(whole, capture_output=True).returncode:
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *LAYER], cwd=HERE, check=True)
    raise SystemExit(subprocess.run([python, "-m", "nox", *sys.argv[1:]], cwd=HERE).returncode)


try:
    import nox
    import psycopg  # noqa: F401 - stands for the layer's requirements
    from invoke.vendor import yaml

    from release_tasks import isolation, node
    from release_tasks.errors import Refused
except ModuleNotFoundError:
    start_again_with_nox()

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["lint", "oldest", "tests"]
nox.options.envdir = os.environ.get(isolation.FOLDER, ".nox")


def install(session: nox.Session, *groups: str) -> None:
    """Install the layer's requirements and the dependency `groups` of pyproject.toml."""
    project = nox.project.load_toml("pyproject.toml") if groups else {}
    session.install(*LAYER, *(need for group in groups for need in nox.project.dependency_groups(project, group)))


@nox.session(default=False, venv_backend="none")
def smokes(session: nox.Session) -> None:
    """Run all smokes at once, each in an environment of its own; `-- --env staging` for another than dev."""
    session.run(sys.executable, "-m", "invoke", "smokes", *session.posargs, external=True)


def add_smoke(name: str, why: str, needs: isolation.Needs) -> None:
    """Add the session of one smoke: an environment with what it needs, and then a run of it alone."""

    def run(session: nox.Session) -> None:
        home = Path(session.virtualenv.location).resolve()
        isolation.remember_home(name, HERE, home)
        if not isolation.is_made(home, needs):
            session.virtualenv.reuse_existing = False
            session.virtualenv.create()  # anew: what it had for other needs is none of its own
            if needs.for_pip:
                session.install(*needs.for_pip)
            if needs.npm:
                npm = ["npm", "install", "--silent", "--prefix", str(home / "npm"), *needs.npm]
                path = node.runtime(HERE, HERE / ".release")["PATH"]
                session.run_install(*npm, env={"PATH": path}, external=True)
            (home / isolation.INSTALLED).write_text(isolation.told(needs), encoding="utf-8")
        session.run(sys.executable, "-m", "invoke", "smokes", "--only", name, *session.posargs, external=True)

    run.__doc__ = why or f"The smoke {name}."
    nox.session(name=f"smokes({name})", python=needs.python or None, default=False)(run)


def settings_here() -> dict[str, Any]:
    """Return `release:` of invoke.yaml; what is no setting at all is for `inv` to refuse, with its key path."""
    try:
        told = yaml.safe_load((HERE / "invoke.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SystemExit(f"invoke.yaml cannot be read: {' '.join(str(error).split())}") from None
    found = told.get("release") if isinstance(told, dict) else None
    return found if isinstance(found, dict) else {}


named = settings_here().get("smokes")
for smoke, told in named.items() if isinstance(named, dict) else ():
    told = told if isinstance(told, dict) else {}
    add_smoke(smoke, told.get("why", ""), isolation.needs_of(told))
for smoke, file in isolation.files_in(HERE).items():
    try:
        add_smoke(smoke, isolation.why_of_file(file), isolation.needs_of_file(file))
    except Refused as no:
        raise SystemExit("\n".join(map(str, no.problems))) from None


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
    session.run("python", "-m", "pytest", *(session.posargs or ["--numprocesses=3", "--dist=worksteal"]))


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
