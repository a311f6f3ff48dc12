"""Embedded environments: PostgreSQL, web app and jobs of one environment, all in .release/, ending with us."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from release_tasks import checks, ddl, postgres, shell
from release_tasks.environments import Environment, wait_until
from release_tasks.errors import Refused
from release_tasks.files import records_folder, sha256, write_aside
from release_tasks.leash import Command, Kept, Spec
from release_tasks.links import point_link, read_link

if TYPE_CHECKING:
    from release_tasks.settings import Settings

SETTLE = 90.0  # seconds for a fresh environment to answer
CATCH_UP = 15.0  # seconds for its jobs to bring the data up to date
INSTALL = 600.0  # seconds for the application's packages


def bring_up(name: str, root: Path, settings: Settings) -> Environment:
    """Return the embedded environment `name`, running: the one that somebody holds already, else held by us.

    Dev runs the working tree, its DDL pack applied; the others run what `current` names, once something is deployed.
    """
    folder = records_folder(root) / "environments" / name
    server = postgres.start(folder / "postgresql", [settings.app])
    origin = f"http://127.0.0.1:{_port(folder)}"
    environment = Environment(name, settings, root, server.dsn(settings.app), origin, folder, server.log)
    if server.kept:
        environment.held.append(server.stop)
        try:
            _start_services(environment, settings)
        except BaseException:
            environment.close()
            raise
    return environment


def _start_services(environment: Environment, settings: Settings) -> None:
    if environment.name == "dev":
        install(environment, environment.root)
        apply_pack_of(environment, environment.root, "dev")
        point_link(environment.current, environment.root)
    variables = {**os.environ, **environment.variables("")}
    commands = [
        Command(argv, settings.folder, variables, str(environment.folder / f"{service}.log"))
        for service, argv in settings.services.items()
    ]
    if commands:
        environment.held.append(Kept.start(Spec(commands, follow=str(environment.current))).stop)
    if "web" in settings.services and read_link(environment.current):
        settle(environment)


def settle(environment: Environment) -> None:
    """Wait until the web app of `environment` answers; then give its jobs time to catch up with the clock.

    Raises `Refused` with the web app's last words when it does not answer; stale data is for smokes to find.
    """
    deadline = time.monotonic() + SETTLE
    if not wait_until(lambda: bool(environment.running_version()), deadline):
        log = environment.folder / "web.log"
        said = shell.mask("\n".join(log.read_text(errors="replace").splitlines()[-5:])) if log.exists() else ""
        raise Refused(
            f"The web app of {environment.name} does not answer at {environment.origin}: {said}", f"cat {log}"
        )
    if environment.settings.acceptance.fresh:
        wait_until(lambda: _is_fresh(environment), time.monotonic() + CATCH_UP)


def _is_fresh(environment: Environment) -> bool:
    try:
        return not checks.freshness_problems(environment)
    except Refused:
        return False


def install(environment: Environment, code: Path) -> None:
    """Install what the application in `code` needs, unless that is done for these package files."""
    settings = environment.settings
    if not settings.install:
        return
    folder = code / settings.folder
    wanted = sha256(b"".join((folder / name).read_bytes() for name in _package_files(folder)))
    marker = folder / "node_modules" / ".installed-for"
    if not marker.exists() or marker.read_text(encoding="utf-8") != wanted:
        shell.run(
            settings.install, cwd=folder, env={**environment.variables(""), "CI": "1"}, timeout=INSTALL, leash=True
        )
        if marker.parent.exists():
            write_aside(marker, wanted.encode())


def _package_files(folder: Path) -> list[str]:
    return [name for name in ("package.json", "pnpm-lock.yaml", "package-lock.json") if (folder / name).exists()]


def apply_pack_of(environment: Environment, code: Path, version: str) -> None:
    """Apply the DDL pack in the folder `code` as it is, committed or not."""
    settings = environment.settings
    folder = code / settings.ddl.folder
    names = [path.name for path in folder.glob("*.sql")]
    ordered = ddl.in_order(names, environment.root, settings)
    pack = [ddl.DdlFile(f"{settings.ddl.folder}/{name}", (folder / name).read_bytes()) for name in ordered]
    ddl.apply(environment, pack, code, version)


def _port(folder: Path) -> int:
    """Return this environment's port, chosen once and kept, so that its origin stays the same."""
    path = folder / "port.json"
    if path.exists():
        return int(json.loads(path.read_text(encoding="utf-8")))
    port = free_port()
    write_aside(path, json.dumps(port).encode())
    return port


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
