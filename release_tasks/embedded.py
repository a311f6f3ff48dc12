"""Open an environment: as its settings name it, or embedded, with PostgreSQL, web app and jobs that end with us."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from release_tasks import screen
from release_tasks.database import apply, server
from release_tasks.database.pack import pack_in
from release_tasks.environments import Environment
from release_tasks.files import atomic_write, point_link, read_link, records_folder
from release_tasks.process import free_port
from release_tasks.supervisor import Command, Spec, Supervised

if TYPE_CHECKING:
    from release_tasks.settings import Settings


@contextmanager
def in_turn(name: str, root: Path, settings: Settings) -> Iterator[None]:
    """Keep the embedded environment `name` for one command: it would end with the first of two, under the second."""
    if not settings.environments.named(name).embedded:
        yield
        return
    from filelock import FileLock

    folder = records_folder(root) / "environments" / name
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "in-use.lock")
    with screen.busy(f"Waiting for another command that uses the embedded {name}"):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def open_environment(name: str, root: Path, settings: Settings) -> Environment:
    """Return the environment `name`: as its settings say, or embedded and brought up now."""
    own = settings.environments.named(name)
    if own.embedded:
        return bring_up(name, root, settings)
    folder = root / own.folder if own.folder else root
    log = root / own.log if own.log else None
    return Environment(name, settings, root, own.dsn, own.origin.rstrip("/"), folder, log, own.restart)


@contextmanager
def database_of(name: str, root: Path, settings: Settings) -> Iterator[str]:
    """Yield the DSN of an environment's database, its web app not started; "" where an embedded one is not made yet."""
    dsn = settings.environments.named(name).dsn
    if dsn or not server.data_directory(server_folder(name, root)).exists():
        yield dsn
        return
    running = start_server(name, root, settings)
    try:
        yield running.dsn(settings.app)
    finally:
        running.stop()


def bring_up(name: str, root: Path, settings: Settings) -> Environment:
    """Return the embedded environment `name`, running: the one that somebody holds already, else held by us.

    Dev runs the working tree, its DDL pack applied; the others run what `current` names, once something is deployed.
    """
    folder = records_folder(root) / "environments" / name
    running = start_server(name, root, settings)
    origin = f"http://127.0.0.1:{_port(folder)}"
    environment = Environment(name, settings, root, running.dsn(settings.app), origin, folder, running.log)
    if running.services:
        environment.held.append(running.stop)
        try:
            _start_services(environment, settings)
        except BaseException:
            environment.close()
            raise
    return environment


def start_server(name: str, root: Path, settings: Settings) -> server.Running:
    """Return the server of the embedded environment `name`, with its database and without its services."""
    return server.start(server_folder(name, root), [settings.app])


def server_folder(name: str, root: Path) -> Path:
    """Return the folder of the embedded environment's server."""
    return records_folder(root) / "environments" / name / "postgresql"


def _start_services(environment: Environment, settings: Settings) -> None:
    if environment.name == "dev":
        environment.install(environment.root)
        _apply_the_working_tree_s_pack(environment)
        point_link(environment.current, environment.root)
    variables = {**os.environ, **environment.variables("")}
    commands = [
        Command(argv, settings.folder, variables, str(environment.folder / f"{service}.log"))
        for service, argv in settings.services.items()
    ]
    if commands:
        environment.held.append(Supervised.start(Spec(commands, follow=str(environment.current))).stop)
    if "web" in settings.services and read_link(environment.current):
        environment.wait_until_ready()


def _apply_the_working_tree_s_pack(environment: Environment) -> None:
    """Apply the DDL pack of the working tree, committed or not, where the ledger does not have it yet."""
    root, settings = environment.root, environment.settings
    pack = pack_in(root, root, settings)
    with environment.connect() as connection:
        missing = apply.unapplied(connection, pack, settings.ddl)
    if missing:
        apply.apply(environment, pack, root, "dev")


def _port(folder: Path) -> int:
    """Return this environment's port, chosen once and kept, so that its origin stays the same."""
    path = folder / "port.json"
    if path.exists():
        return int(json.loads(path.read_text(encoding="utf-8")))
    port = free_port()
    atomic_write(path, json.dumps(port).encode())
    return port
