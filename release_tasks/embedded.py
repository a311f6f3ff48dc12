"""Open an environment: as its settings name it, or embedded, with PostgreSQL, web app and jobs that end with us."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from release_tasks import screen
from release_tasks.config import project_root, settings_of
from release_tasks.database import apply, server
from release_tasks.database.pack import pack_in
from release_tasks.environments import Environment
from release_tasks.errors import Refused
from release_tasks.files import RECORDS, locked, read_link, records_folder
from release_tasks.process import Supervised, free_port
from release_tasks.settings import Settings


def open_environment(name: str, root: Path, settings: Settings) -> Environment:
    """Return the environment `name`: as its settings say, or embedded, with its server running and nothing else.

    An embedded one serves one command at a time, as it ends with it; the next command waits.
    """
    own = settings.environments.named(name)
    if not own.embedded:
        folder = root / own.folder if own.folder else root
        log = root / own.log if own.log else None
        return Environment(name, settings, root, own.dsn, own.origin.rstrip("/"), folder, log, own.restart)
    records_folder(root)
    folder, user = folder_of(name, root), f"command that uses the embedded {name}"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / "in-use.lock", user))
        except Refused:
            with screen.busy(f"Waiting for another {user}"):
                stack.enter_context(locked(folder / "in-use.lock", user, timeout=-1))
        running = server.start(folder / "postgresql", [settings.app])
        stack.callback(running.stop)
        origin, to_close = f"http://127.0.0.1:{free_port()}", [stack.pop_all().close]
    return Environment(name, settings, root, running.dsn(settings.app), origin, folder, running.log, to_close=to_close)


def folder_of(name: str, root: Path) -> Path:
    """Return the folder of an embedded environment."""
    return root / RECORDS / "environments" / name


def serve(environment: Environment, again: bool = False) -> None:
    """Start web app and jobs of an embedded environment, unless they run, and wait until it answers.

    Dev runs the working tree, its DDL pack applied, the others what `current` names. `again`: that is another folder.
    """
    settings, root, to_close = environment.settings, environment.root, environment.to_close
    while again and len(to_close) > 1:  # the first is the server
        to_close.pop()()
    if not environment.is_embedded or len(to_close) > 1:
        return
    if environment.name == "dev":
        environment.install(root)
        pack = pack_in(root, root, settings)
        with environment.connect() as connection:
            missing = apply.unapplied(connection, pack, settings.ddl)
        if missing:
            apply.apply(environment, pack, root, "dev")
    code = root if environment.name == "dev" else read_link(environment.current)
    if code is None:
        return
    variables = {**os.environ, **environment.variables("")}
    for service, argv in settings.services.items():
        log = environment.folder / f"{service}.log"
        to_close.append(Supervised(argv, code / settings.folder, variables, log).stop)
    if "web" in settings.services:
        environment.wait_until_ready()


@contextmanager
def environment_of(config: Any, where: str, services: bool = False) -> Iterator[Environment]:
    """Open the environment `where` of the repo, outside a release, for the length of the block.

    With `services`, an embedded one has its web app and jobs running.
    """
    with closing(open_environment(where, project_root(config), settings_of(config))) as environment:
        if services:
            serve(environment)
        yield environment
