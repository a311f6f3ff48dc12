"""Isolated environments for what a release needs: `nox -s smokes`, a session a smoke, and a rehearsal.

The Python that reads this file has the layer's requirements. Where it lacks them, `.nox/layer` is made first, and nox
goes on there: so `python3 noxfile.py -s rehearse` is all that a new machine needs, and one environment serves every
session and `inv`. A smoke's own environment holds no more than the smoke needs. A repo's own sessions go into
noxfile_local.py.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

if sys.version_info < (3, 11):  # noqa: UP036 - whoever types the first command may have an older one
    again = " ".join(["python3.11", *sys.argv])
    raise SystemExit(f"Python {sys.version.split()[0]} is too old; expected 3.11 or newer.\n    {again}")

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from release_tasks import requirements  # noqa: E402


def restart_in_the_layers_environment() -> None:
    """Make `.nox/layer` with the requirements, unless it is there and works, and end as nox ends in it."""
    programs = HERE / requirements.PROGRAMS
    layer, python = programs.parent, programs / ("python.exe" if os.name == "nt" else "python")
    made_for, wanted = layer / "made-for.txt", f"{layer}\n{requirements.FILE.read_text(encoding='utf-8')}"
    try:
        if not made_for.exists() or made_for.read_text(encoding="utf-8") != wanted or not works(python):
            print(f"Making the Python environment of the release layer in {layer}: 500 MB, about a minute.", flush=True)
            layer.parent.mkdir(exist_ok=True)
            (layer.parent / ".gitignore").write_text("*\n", encoding="utf-8")
            venv.create(layer, with_pip=True, clear=True, symlinks=os.name != "nt")
            quiet = [] if sys.stdout.isatty() else ["--quiet"]
            pip = [python, "-m", "pip", "--disable-pip-version-check", "install", *quiet, "-r", requirements.FILE]
            if subprocess.run(pip).returncode:
                raise SystemExit("The requirements of the release layer were not installed: pip says why above.")
            made_for.write_text(wanted, encoding="utf-8")
        raise SystemExit(subprocess.run([python, "-m", "nox", *sys.argv[1:]], cwd=HERE).returncode)
    except subprocess.CalledProcessError:
        raise SystemExit("This Python cannot make environments.\n    apt-get install python3-venv") from None
    except OSError as error:
        raise SystemExit(f"{layer} could not be made: {error}. If another command makes it, wait for that.") from None
    except KeyboardInterrupt:
        raise SystemExit("\nInterrupted. The same command goes on from here.") from None


def works(python: Path) -> bool:
    """Tell whether the Python of an environment runs, with nox: its own Python may have been replaced since."""
    return python.exists() and subprocess.run([python, "-c", "import nox"], capture_output=True).returncode == 0


if requirements.problems():
    restart_in_the_layers_environment()

import nox  # noqa: E402

if __name__ == "__main__":
    nox.main()  # which reads this file again, as a module

from invoke.vendor import yaml  # noqa: E402

from release_tasks import isolation, node  # noqa: E402
from release_tasks.errors import Refused  # noqa: E402

nox.options.default_venv_backend = "uv" if shutil.which("uv") else "virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True
nox.options.envdir = os.environ.get(isolation.FOLDER, ".nox")
# uv is optional; this line of nox reads like an error.
nox.logger.logger.addFilter(lambda record: record.getMessage() != "uv binary not found.")


def inv(session: nox.Session, *words: str) -> None:
    """Run `inv` in the environment of the layer."""
    session.run(sys.executable, "-m", "invoke", *words, external=True)


@nox.session(default=False, venv_backend="none")
def smokes(session: nox.Session) -> None:
    """Run all smokes at once, each in an environment of its own; `-- --env staging` for another than dev."""
    inv(session, "smokes", *session.posargs)


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
                path = node.runtime(HERE, HERE / ".release")["PATH"]
                npm = shutil.which("npm", path=path) or "npm"  # nox does not look for programs in `env`
                install = [npm, "install", "--silent", "--prefix", str(home / "npm"), *needs.npm]
                session.run_install(*install, env={"PATH": path, "NODE_DISABLE_COMPILE_CACHE": "1"}, external=True)
            (home / isolation.INSTALLED).write_text(isolation.told(needs), encoding="utf-8")
        inv(session, "smokes", "--only", name, *session.posargs)

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


@nox.session(default=False, venv_backend="none")
def rehearse(session: nox.Session) -> None:
    """Rehearse a release: throw-away clone, bare remote, embedded dev, staging and production; `-- --keep`."""
    inv(session, "rehearse", *session.posargs)


try:
    import noxfile_local  # noqa: F401 - a repo's own sessions, where it has any
except ModuleNotFoundError as missing:
    if missing.name != "noxfile_local":
        raise
