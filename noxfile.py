"""Isolated environments for what a release needs: `nox -s smokes`, a session a smoke, and a rehearsal.

`.nox/layer` is the one environment for nox, every session and `inv`. `python3 noxfile.py` makes it when the running
Python lacks the requirements, and runs nox there. A repo's own sessions go into noxfile_local.py.
"""

import ast
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import venv
from pathlib import Path

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
    marker, expected = layer / "made-for.txt", f"{layer}\n{requirements.FILE.read_text(encoding='utf-8')}"
    argv = [python, "-m", "nox", *sys.argv[1:]]
    try:
        if not marker.exists() or marker.read_text(encoding="utf-8") != expected or not meets_requirements(python):
            print(f"Making the Python environment of the release layer in {layer}: 500 MB, about a minute.", flush=True)
            files.ignored_by_git(layer.parent)
            _lock = sqlite3.connect(layer.with_suffix(".lock"), timeout=0).execute("begin exclusive")  # ends with us
            if os.name != "nt" or Path(sys.prefix).resolve() != layer:  # there what runs cannot be deleted
                venv.create(layer, with_pip=True, clear=True, symlinks=os.name != "nt")
            quiet = [] if sys.stdout.isatty() else ["--quiet"]
            pip = [python, "-m", "pip", "--disable-pip-version-check", "install", *quiet, "-r", requirements.FILE]
            if subprocess.run(pip).returncode or not meets_requirements(python):
                raise SystemExit("The requirements of the release layer were not installed: pip says why above.")
            marker.write_text(expected, encoding="utf-8")
        if os.name != "nt":
            os.execv(python, argv)  # so that Ctrl-C reaches nox itself
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

from release_tasks.checks import document  # noqa: E402

nox.options.default_venv_backend = "uv" if shutil.which("uv") else "virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True
nox.options.envdir = os.environ.get("RELEASE_NOX", ".nox")
# uv is optional; this line of nox reads like an error.
nox.logger.logger.addFilter(lambda record: record.getMessage() != "uv binary not found.")
sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr] - a docstring may have what a terminal lacks


def inv(session: nox.Session, *words: str) -> None:
    """Run `inv` in the environment of the layer."""
    session.run(sys.executable, "-m", "invoke", *words, external=True, interrupt_timeout=60, terminate_timeout=20)


@nox.session(default=False, venv_backend="none")
def smokes(session: nox.Session) -> None:
    """Run all smokes, as `inv smokes` does, whose options follow: `-- --env staging`, `-- -- -k enabled`."""
    inv(session, "smokes", *session.posargs)


def add_smoke(name: str, file: Path) -> None:
    """Add the session of one smoke: it makes an environment if the file names packages (PEP 723), and runs it."""
    packages, problem = [], ""
    try:
        packages = nox.project.load_toml(file, missing_ok=True).get("dependencies", [])
    except ValueError as error:
        problem = f"The script metadata of {file.name} cannot be read (PEP 723): {error}."

    def run(session: nox.Session) -> None:
        if problem:
            session.error(problem)
        if packages:
            session.install(*packages)
            print(next(Path(session.virtualenv.location).absolute().glob("[Ll]ib/**/site-packages")))
        inv(session, "smokes", "--only", name, *session.posargs)

    docstring = ast.get_docstring(document.tree_of(file)) or f"The smoke {name}"
    run.__doc__ = docstring.partition("\n")[0].rstrip(".")
    nox.session(name=f"smokes({name})", default=False, venv_backend=None if packages else "none")(run)


for smoke, file in document.smokes_in(Path(os.environ.get("RELEASE_SMOKES", HERE))).items():
    add_smoke(smoke, file)


@nox.session(default=False, venv_backend="none")
def rehearse(session: nox.Session) -> None:
    """Rehearse a release: throw-away clone, bare remote, embedded dev, staging and production; `-- --keep`."""
    inv(session, "rehearse", *session.posargs)


if (HERE / "noxfile_local.py").exists():
    import noxfile_local  # noqa: F401 - a repo's own sessions
