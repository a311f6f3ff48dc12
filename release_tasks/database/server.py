"""A PostgreSQL of ours, embedded or thrown away: in a folder, on 127.0.0.1 with a random password; it ends with us."""

import os
import secrets
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from psycopg import sql

from release_tasks.database.programs import AS_SERVER, connect, find_bin
from release_tasks.errors import Refused
from release_tasks.files import emptied, read_text, records_folder
from release_tasks.machine import locked, wait_until
from release_tasks.masks import hide, short
from release_tasks.process import Supervised, free_port, run

# All of our environment that the server gets: our tokens are not for it.
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "TZ", "TMPDIR", "TEMP", "SYSTEMROOT")
OPTIONS = ("unix_socket_directories=", "log_line_prefix=%m [%p] ", "log_min_messages=warning", "wal_level=logical")
THROW_AWAY = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "autovacuum=off", "max_wal_senders=0")
RECOVERY = 600.0  # seconds for a server to accept connections, after a crash too; one that fails ends by itself
TIMEOUT = 30.0  # seconds for one to end
WAIT = 60.0  # seconds until the scratch server of another command has to be gone


@dataclass(frozen=True)
class Running:
    """A server that accepts connections, until `services.stop()`, or the end of this process."""

    bin: Path
    log: Path
    port: int
    password: str = field(repr=False)
    services: Supervised

    def dsn(self, database: str) -> str:
        """Return the URL of `database`, for the superuser."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{quote(database, safe='')}"


def start(folder: Path, databases: Sequence[str], *, durable: bool = True, major: int | None = None) -> Running:
    """Start the server of `folder`, which nobody else may use meanwhile, and make those `databases` that it lacks.

    A new one is of version `major`, where that is here; `durable=False` is for what is thrown away. Raises `Refused`.
    """
    folder = folder.absolute()
    data, log = folder / "data", folder / "postgres.log"
    programs = find_bin(int(read_text(data / "PG_VERSION").strip() or 0) or major)
    folder.mkdir(parents=True, exist_ok=True)
    _initialise(data, programs)
    _end_orphan(data)
    port, password = free_port(), data.with_name("password").read_text(encoding="utf-8").strip()
    hide(password)
    options = [f"-c{option}" for option in (*OPTIONS, *(() if durable else THROW_AWAY))]
    argv = [*AS_SERVER, str(programs / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port), *options]
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    services = Supervised(argv, folder, environment, log, stop=signal.SIGINT)
    running = Running(programs, log, port, password, services)
    try:
        settled = wait_until(lambda: services.poll() is not None or _serves(running), RECOVERY, every=0.05)
        if not settled or services.poll() is not None:
            last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
            raise Refused(f"PostgreSQL did not start: {short(last)}", f"tail {log}")
        with connect(running.dsn("postgres")) as connection:
            there = {name for (name,) in connection.execute("select datname from pg_database")}
            for name in {*databases} - there:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    except BaseException:
        running.services.stop()
        raise
    return running


def _initialise(data: Path, programs: Path) -> None:
    """Make the data directory unless it is there; it appears whole, so a killed initdb leaves nothing half done."""
    if data.exists():  # of another version, PostgreSQL says so when it starts
        return
    incomplete, password = data.with_name("data.new"), data.with_name("password")
    shutil.rmtree(incomplete, ignore_errors=True)
    password.unlink(missing_ok=True)
    password.touch(mode=0o600)
    password.write_text(secrets.token_hex(16), encoding="utf-8")
    files: list[str | Path] = ["-D", incomplete, "--pwfile", password, "--no-sync"]
    how = ("-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C")
    run([*AS_SERVER, programs / "initdb", *files, *how], cwd=data.parent, supervised=True)
    incomplete.rename(data)


def _end_orphan(data: Path) -> None:
    """End the server that a killed run left on `data`; a process that only has its number now is left alone."""
    import psutil  # which takes its time

    with suppress(OSError, ValueError, IndexError, psutil.NoSuchProcess, psutil.AccessDenied):
        process = psutil.Process(int((data / "postmaster.pid").read_text(encoding="utf-8").split()[0]))
        if str(data) in process.cmdline():
            process.send_signal(signal.SIGINT if os.name != "nt" else signal.SIGTERM)  # a fast shutdown
            psutil.wait_procs([process], TIMEOUT)
    (data / "postmaster.pid").unlink(missing_ok=True)


def _serves(running: Running) -> bool:
    try:
        with connect(running.dsn("postgres")):
            return True
    except Refused as no:
        if "authentication failed" in str(no):  # which no waiting changes
            raise
        return False


@contextmanager
def scratch(root: Path, major: int | None = None) -> Iterator[Running]:
    """Run a server for the repo at `root` for the block, one at a time, of version `major` where that is here."""
    folder = records_folder(root) / "scratch"
    with ExitStack() as stack:
        stack.enter_context(locked(folder.with_suffix(".lock"), "scratch server", WAIT))
        home = emptied(folder) / secrets.token_hex(4)  # a name of its own: a killed run's server may be ending yet
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        running = start(home, [], durable=False, major=major)
        stack.callback(running.services.stop)
        yield running


@contextmanager
def scratch_database(running: Running, name: str) -> Iterator[str]:
    """Make an empty database on a scratch server and yield its URL; afterwards it and the roles made since are gone."""
    query, dsn = "select rolname from pg_roles", running.dsn(name)
    with connect(running.dsn("postgres")) as connection:
        connection.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        before = set(connection.execute(query))
        try:
            yield dsn
        finally:
            connection.execute("delete from pg_subscription")  # one would not let its database be dropped
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
            if roles := [sql.Identifier(role) for (role,) in set(connection.execute(query)) - before]:
                for statement in ("drop owned by {} cascade", "drop role {}"):
                    connection.execute(sql.SQL(statement).format(sql.SQL(", ").join(roles)))
