"""An embedded PostgreSQL: a real server in a folder of ours, that ends with us.

It listens on 127.0.0.1 with scram and a random password; where its data is and as whom it runs, postgres_home.py says.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from release_tasks.database.postgres_home import Home
from release_tasks.database.postgres_programs import client_tool, find_bin, major, reachable_by_all
from release_tasks.errors import Refused
from release_tasks.processes.leash import Command, Kept, Spec
from release_tasks.processes.ports import free_port
from release_tasks.processes.shell import mask, run

if TYPE_CHECKING:
    import psycopg

__all__ = ["Running", "client_tool", "find_bin", "major", "remove", "start"]

# All of the environment that the server gets; it runs as another user and has no business with our tokens.
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "TZ", "TMPDIR", "TEMP", "SYSTEMROOT")
# What only a crash or a replica would need, and what nobody is there for.
THROWN_AWAY = ("autovacuum=off", "wal_level=minimal", "max_wal_senders=0", "full_page_writes=off")
PATIENCE = 30.0  # seconds for a server to accept connections, and for another start in the same folder


@dataclass(frozen=True)
class Running:
    """A server that accepts connections. `kept` is None when it was running already: others own and stop it."""

    bin: Path
    log: Path
    port: int
    password: str = field(repr=False)
    kept: Kept | None

    def dsn(self, database: str) -> str:
        """Return the URL of `database`, for the superuser."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def stop(self) -> None:
        """Shut the server down (fast: open transactions are rolled back), if it was us who started it."""
        if self.kept:
            self.kept.stop()


def start(
    folder: Path, databases: Sequence[str] = ("app",), *, durable: bool = True, like: int | None = None
) -> Running:
    """Return a server for `folder` that has `databases`: the one that runs already, else one that ends with us.

    `durable=False` is for what is thrown away: faster, and what was written may be lost with the machine. A new one is
    of the major version `like`, where this machine has that. Raises `Refused`.
    """
    from filelock import FileLock, Timeout

    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "start.lock", timeout=PATIENCE):
            home = Home.of(folder)
            found = find_bin(like=like)
            running = _already_running(home, found) or _launch(home, durable, found)
            _create_missing(running, databases)
    except Timeout:
        raise Refused(f"Another process has been starting PostgreSQL in {folder} for {PATIENCE:g} s.") from None
    return running


def remove(folder: Path) -> None:
    """Delete the server's data of `folder`, wherever it is, and the folder itself. Refused while the server runs."""
    home = Home.of(folder.absolute())
    port = home.recorded_port()
    if port and _listens(port):
        pid = home.pid_file.read_text(encoding="utf-8").split()[0]
        raise Refused(f"The PostgreSQL of {folder} still runs, on port {port}.", mend=f"kill -INT {pid}")
    for path in (home.path, home.folder):
        if path.exists():
            shutil.rmtree(path)


def _already_running(home: Home, found: Path) -> Running | None:
    """Return the server that runs on this data already, or None; one that starts or stops is waited for."""
    import psycopg

    deadline = time.monotonic() + PATIENCE
    while (port := home.recorded_port()) and _listens(port):
        running = Running(found, home.log, port, home.password(), kept=None)
        try:
            _connect(running).close()
            return running
        except psycopg.OperationalError as error:
            if "authentication failed" in str(error):
                return None  # ours was killed, and another server has its port now
            if time.monotonic() > deadline:
                raise Refused(f"PostgreSQL on port {port} neither serves nor ends: {error}") from None
        time.sleep(0.1)
    return None


def _launch(home: Home, durable: bool, found: Path) -> Running:
    """Start a server on the data of `home`, made now if need be, and wait until it accepts connections."""
    home.make()
    programs = reachable_by_all(found) if home.user else found
    _initialise(home, programs, durable)
    # Nothing listens on its port, so a left-over file is stale; but PostgreSQL would not start if its process id
    # has been given to another program since.
    home.pid_file.unlink(missing_ok=True)
    port = _free_port(home)
    options = {"unix_socket_directories": "", "log_line_prefix": "%m [%p] ", "log_min_messages": "warning"}
    argv = [str(programs / "postgres"), "-D", str(home.data), "-h", "127.0.0.1", "-p", str(port)]
    argv += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    argv += [] if durable else ["-F", *(word for option in THROWN_AWAY for word in ("-c", option))]
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    command = Command(argv, str(home.path), environment, log=str(home.log), user=home.user)
    kept = Kept.start(Spec([command], stop="INT"))
    running = Running(programs, home.log, port, home.password(), kept)
    try:
        _wait_for(running)
    except BaseException:
        kept.stop()
        raise
    return running


def _initialise(home: Home, programs: Path, durable: bool) -> None:
    """Make the data directory unless it is there; it appears whole, so a killed initdb leaves nothing half done."""
    wanted = major(programs / "postgres")
    if home.data.exists():
        found = (home.data / "PG_VERSION").read_text(encoding="utf-8").strip()
        if int(found) != wanted:
            raise Refused(
                f"{home.data} was made by PostgreSQL {found}, the programs in {programs} are {wanted}.",
                mend=f"PG_BIN=… of a PostgreSQL {found}, or to lose the data: rm -r {home.data}",
            )
        return
    aside = home.path / "data.new"
    shutil.rmtree(aside, ignore_errors=True)
    password = home.write("password", secrets.token_hex(16))
    argv: list[str | Path] = [programs / "initdb", "-D", aside, "-U", "postgres", "-A", "scram-sha-256"]
    argv += ["--pwfile", password, "-E", "UTF8", "--locale=C", *([] if durable else ["--no-sync"])]
    run(argv, cwd=home.path, user=home.user, leash=True)
    aside.rename(home.data)


def _free_port(home: Home) -> int:
    """Return the port of the last time if it is free, else any free one, and remember it."""
    with contextlib.suppress(OSError, ValueError):
        port = int((home.path / "port").read_text(encoding="utf-8"))
        with socket.create_server(("127.0.0.1", port)):
            return port
    port = free_port()
    home.write("port", str(port))
    return port


def _wait_for(running: Running) -> None:
    import psycopg

    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _connect(running).close()
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                lines = running.log.read_text(encoding="utf-8", errors="replace") if running.log.exists() else ""
                ending = mask("\n".join(lines.splitlines()[-10:])) or str(error)
                what = f"PostgreSQL did not accept connections within {PATIENCE:g} s; its log ends with:\n{ending}"
                raise Refused(what, mend=f"less {running.log}") from None
        time.sleep(0.05)


def _create_missing(running: Running, databases: Sequence[str]) -> None:
    from psycopg import sql

    with _connect(running) as connection:
        there = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        for name in dict.fromkeys(databases):
            if name not in there:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def _connect(running: Running) -> psycopg.Connection[tuple[str]]:
    import psycopg

    return psycopg.connect(running.dsn("postgres"), autocommit=True, connect_timeout=3)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=3):
        return True
    return False
