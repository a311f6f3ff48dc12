"""Isolated environments for what a release needs: `nox -s smokes`, a session a smoke, and a rehearsal.

`.nox/layer` is the one environment for nox, every session and `inv`. `python3 noxfile.py` makes it when the running
Python lacks the requirements, and runs nox there. A repo's own sessions go into noxfile_local.py.
"""

import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

if sys.version_info < (3, 11):  # noqa: UP036 - whoever types the first command may have an older one
    hint = shlex.join(["python3.11", __file__, *sys.argv[1:]])
    raise SystemExit(f"Python {sys.version.split()[0]} is too old; expected 3.11 or newer.\n    {hint}")

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.chdir(HERE)  # nox reads the noxfile of the current folder

from release_tasks import files, requirements  # noqa: E402


def run_nox_in_layer() -> None:
    """Run nox in `.nox/layer` and end as it ends; make that anew first, unless it meets the requirements."""
    programs = HERE / requirements.BIN
    layer, python = programs.parent, str(programs / ("python.exe" if os.name == "nt" else "python"))
    stamp, expected = layer / "made-for.txt", f"{layer}\n{requirements.FILE.read_text(encoding='utf-8')}"
    argv = [python, "-m", "nox", *sys.argv[1:]]
    try:
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != expected or not meets_requirements(python):
            print(f"Making the Python environment of the release layer in {layer}: 500 MB, about a minute.", flush=True)
            files.ignored_by_git(layer.parent)
            _lock = sqlite3.connect(layer.with_suffix(".lock"), timeout=0).execute("begin exclusive")  # ends with us
            venv.create(layer, with_pip=True, clear=True, symlinks=os.name != "nt")
            quiet = [] if sys.stdout.isatty() else ["--quiet"]
            pip = [python, "-m", "pip", "--disable-pip-version-check", "install", *quiet, "-r", requirements.FILE]
            if subprocess.run(pip).returncode or not meets_requirements(python):
                raise SystemExit("The requirements of the release layer were not installed: pip says why above.")
            stamp.write_text(expected, encoding="utf-8")
        if os.name != "nt":
            os.execv(python, argv)  # so that Ctrl-C and SIGTERM reach nox itself
        raise SystemExit(subprocess.run(argv).returncode)
    except subprocess.CalledProcessError as error:
        why = error.output.decode(errors="replace").strip().rpartition("\n")[2]
        raise SystemExit(f"This Python cannot make environments: {why}\n    apt-get install python3-venv") from None
    except (OSError, sqlite3.Error) as error:
        raise SystemExit(f"{layer} could not be made: {error}. If another command makes it, wait for that.") from None
    except KeyboardInterrupt:
        raise SystemExit("\nInterrupted. The same command goes on from here.") from None


def meets_requirements(python: str) -> bool:
    """Tell whether the Python of an environment runs, and has what is required: either may have changed since."""
    check = "from release_tasks import requirements; raise SystemExit(bool(requirements.problems()))"
    return Path(python).exists() and not subprocess.run([python, "-c", check], capture_output=True).returncode


if requirements.problems():
    run_nox_in_layer()

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
nox.logger.logger.addFilter(lambda record: record.getMessage() != "uv binary not found.")  # uv is optional


def inv(session: nox.Session, *words: str) -> None:
    """Run `inv` in the environment of the layer."""
    session.run(sys.executable, "-m", "invoke", *words, external=True, interrupt_timeout=60, terminate_timeout=20)


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


if (HERE / "noxfile_local.py").exists():
    import noxfile_local  # noqa: F401 - a repo's own sessions
