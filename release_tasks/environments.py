"""Dev, staging and production: a database, a web app and jobs, named by settings or embedded in .release/."""

import shlex
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from psycopg import Connection

from release_tasks import machine, node, process
from release_tasks.database import programs
from release_tasks.database.environment_lock import EnvironmentLock
from release_tasks.deploy import code
from release_tasks.deploy.drivers import hosts_of
from release_tasks.deploy.hosts import Hosts
from release_tasks.errors import Problem, Refused
from release_tasks.files import atomic_write, read_text, records_folder, sha256
from release_tasks.git import Git
from release_tasks.machine import wait_until
from release_tasks.masks import mask
from release_tasks.settings import Settings
from release_tasks.versions import is_later_release

INSTALL = 600.0  # seconds for the application's packages
ANSWER = 10  # seconds to say the version
READY = 90.0  # seconds for a fresh environment to answer


@dataclass
class Environment:
    """One environment: `folder` has its locks and logs on this machine, `log` is PostgreSQL's server log."""

    name: str
    settings: Settings
    root: Path
    dsn: str
    origin: str
    folder: Path
    log: Path | None
    to_close: ExitStack = field(default_factory=ExitStack, init=False)

    def __post_init__(self) -> None:
        self.lock = EnvironmentLock(self.name, self.dsn, self.folder)

    @cached_property
    def hosts(self) -> Hosts:
        """The hosts of its web app and jobs; an embedded one gets another on opening."""
        return hosts_of(self.name, self.root, self.settings, self.variables)

    @property
    def is_embedded(self) -> bool:
        """True where it was brought up here, and ends with the run that did."""
        return self.settings.environments.named(self.name).embedded

    @property
    def code(self) -> Path:
        """The code that runs here, unpacked on this machine: the working tree on dev, else what is live."""
        if self.name == "dev":
            return self.root
        tag, commit = next(iter(self.hosts.live().items()))
        if not commit:
            found = f" Live there is {tag}, which is none of its releases." if tag else ""
            raise Refused(f"Nothing has been deployed to {self.name} yet.{found}", f"inv deploy.{self.name}")
        with closing(Git.open(self.root, self.settings.remote)) as git:
            return code.make_ready(git, tag, commit, self.install)

    def variables(self, version: str, origin: str = "") -> dict[str, str]:
        """Return the variables that the application's commands read, all from the one DSN, and Node's PATH."""
        settings, origin = self.settings, origin or self.origin
        found = node.runtime(self.root / settings.folder, records_folder(self.root)) if settings.uses_node else {}
        found |= {**programs.variables(self.dsn), "DATABASE_URL": self.dsn, "APP_NAME": settings.app}
        found |= {"APP_VERSION": version} if version else {}
        return {**found, "ORIGIN": origin, "PORT": str(urlsplit(origin).port or "")}

    def connect(self) -> AbstractContextManager[Connection]:
        """Connect in autocommit for the block; raises `Refused` when the server cannot be reached or refuses us."""
        return programs.connect(self.dsn, self.name)

    def last_stamp(self) -> tuple[str, datetime] | None:
        """Return the version that the session was stamped for last, and when; None before any."""
        return next(iter(self.stamps(1)), None)

    def stamps(self, most: int) -> list[tuple[str, datetime]]:
        """Return the newest stamps of the session, at most so many: the version, and when."""
        log = self.settings.stamp.log
        with self.connect() as connection:
            if connection.execute("select to_regclass(%s)", [log]).fetchone() == (None,):
                return []
            query = f"""select app_version, opened_at::timestamptz from {log}
              where app_name = %s and opened_at is not null order by opened_at desc limit %s"""
            return connection.execute(query.encode(), [self.settings.app, most]).fetchall()

    def later_problems(self, version: str) -> list[Problem]:
        """Return a problem if a later release than `version` runs here, is live on a host, or was stamped last."""
        found = [("runs", self.probe()[0])]
        found += [("has the code of", self.settings.version_of(tag)) for tag in self.hosts.live()]
        found += [("was stamped for", stamped) for stamped, _ in self.stamps(1)]
        later = [f"{what} {each}" for what, each in found if each and is_later_release(each, version)]
        if not later:
            return []
        older = filter(None, map(self.settings.version_of, self.hosts.releases()))
        to = next((f" --to {each}" for each in older if is_later_release(version, each)), "")
        hint = f"inv deploy.rollback --env {self.name}{to}   # for a fix of that, or if the later one was withdrawn"
        hint += f'\ninv withdraw --version {version} --reason "…"   # or this, if it is tagged'
        return [Problem(f"{self.name.capitalize()} {later[0]}, later than {version}.", hint)]

    def runs(self, version: str) -> bool:
        """Tell whether every host has finished its switch to this version, which is what people get."""
        if not self.hosts.is_live(self.settings.tag_of(version), version):
            return False
        return not self.settings.acceptance.version or self.probe()[0] == version

    def stamp(self, version: str, tree: Path) -> None:
        """Stamp the session for `version`, by the command as it is in its `tree`."""
        own, folder = self.settings.stamp, tree / self.settings.folder
        process.run(own.command, cwd=folder, env=self.variables(version), timeout=own.timeout, supervised=True)

    def wait_until_ready(self) -> None:
        """Wait until the web app answers. Raises `Refused` with what it answers, and the last lines of its log."""
        if not wait_until(lambda: bool(self.probe()[0]), READY):
            logs = sorted(self.folder.glob("*-web.log"), key=lambda log: log.stat().st_mtime)  # current, or of a colour
            last = logs[-1].read_text(errors="replace").splitlines()[-5:] if logs else []
            expected = '; expected JSON with a "version".' if self.settings.acceptance.version else "."
            said = mask("\n".join([f"{self.probe()[1]}{expected}", *last]))
            url = f"{self.origin}{self.settings.acceptance.version}"
            hint = shlex.join(["cat", str(logs[-1])] if logs else ["curl", "-i", url])
            raise Refused(f"The web app of {self.name} is not ready: {said}", hint)

    def probe(self, origin: str = "") -> tuple[str, str]:
        """Return the version that the web app says it is ("" for none, "any" where no route tells), and the answer."""
        return machine.probe(origin or self.origin, self.settings.acceptance.version, ANSWER)

    def install(self, tree: Path) -> None:
        """Install what the application in `tree` needs, unless that is done for these package files."""
        folder = folder_in(tree, self.settings)
        if not self.settings.install:
            return
        wanted = sha256(b"".join((folder / name).read_bytes() for name in package_files(folder)))
        marker = folder / "node_modules" / ".installed-for"
        if read_text(marker) != wanted:
            env = {**self.variables(""), "CI": "1"}
            marker.unlink(missing_ok=True)
            process.run(self.settings.install, cwd=folder, env=env, timeout=INSTALL, supervised=True)
            if marker.parent.exists():
                atomic_write(marker, wanted.encode())

    def close(self) -> None:
        """Give up its lock, and stop what this process brought up; what others own stays."""
        with self.to_close:
            self.lock.give_up()


def folder_in(tree: Path, settings: Settings) -> Path:
    """Return release.folder in `tree`. Raises `Refused` where that is none."""
    if not (folder := tree / settings.folder).is_dir():
        what = f"release.folder in invoke.yaml is {settings.folder!r}, which is no folder of the repository."
        raise Refused(what, "Set it to where the application's commands run; by default the root.")
    return folder


def shared_problems(root: Path, settings: Settings) -> tuple[list[Problem], list[str]]:
    """Return what two environments have in common (database, folder, origin), and which could not be reached."""
    problems, unreached, owners = [], list[str](), dict[str, str]()
    for name, own in settings.environments:
        if not own.dsn or settings.environments.problems(name):
            continue
        things = _databases(own.dsn, name)
        unreached += [name] if len(things) < 2 else []
        urls = [urlsplit(host if "://" in host else f"ssh://{host}") for host in own.hosts]
        hosts = [f" on {url.hostname}:{url.port or 22}" for url in urls] or [""]
        hosts = [f" on the hosts {own.limit} of {own.inventory}"] if own.inventory else hosts
        things += [f"the folder {(root / own.folder).resolve()}{on}" for on in hosts if own.folder]
        for thing in [*things, f"the origin {own.origin.rstrip('/').lower().replace('//localhost', '//127.0.0.1')}"]:
            if (owner := owners.setdefault(thing, name)) != name:
                what = f"{owner.capitalize()} and {name} have {thing} in common; expected each to have its own."
                problems.append(Problem(what, f"Set release.environments.{name} in invoke.yaml to another one."))
    return problems, unreached


def _databases(dsn: str, where: str) -> list[str]:
    """Return what tells the database `dsn` from others: its address and, once reached, its server's identity."""
    parts = programs.variables(dsn, where)
    host, port = parts["PGHOSTADDR"] or parts["PGHOST"], parts["PGPORT"] or "5432"
    host = "127.0.0.1" if host in ("", "localhost", "::1") else host
    found = [f"the database {parts['PGDATABASE']} on {host}:{port}"]
    with suppress(Refused), programs.connect(dsn) as connection:
        query = """select current_database(), system_identifier, pg_postmaster_start_time() at time zone 'UTC'
          from pg_control_system()"""  # the second a physical copy has too
        for name, server, since in connection.execute(query.encode()):
            about = f"the system identifier {server}, started at {since} UTC"
            found.append(f"the database {name} of the server with {about}")
    return found


def package_files(folder: Path) -> list[str]:
    """Return the names of the files in `folder` that decide what an install brings."""
    names = ("package.json", "pnpm-lock.yaml", "package-lock.json", "yarn.lock")
    return [name for name in names if (folder / name).exists()]
