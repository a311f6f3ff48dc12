"""An embedded PostgreSQL: a real server in a folder of ours, on 127.0.0.1 with a random password, that ends with us.

PostgreSQL refuses to run as root; root's server runs as `nobody`, with its data in /var/tmp.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from release_tasks.database.programs import find_bin, major_of
from release_tasks.errors import Refused
from release_tasks.processes.leash import Command, Kept, Spec
from release_tasks.processes.links import rename_unless_there
from release_tasks.processes.ports import free_port
from release_tasks.processes.shell import hide, mask, run, wait_until

USER = "nobody" if sys.platform != "win32" and os.geteuid() == 0 else None
# All of our environment that the server gets: it runs as another user, and our tokens are not for it.
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "TZ", "TMPDIR", "TEMP", "SYSTEMROOT")
OPTIONS = ("unix_socket_directories=", "log_line_prefix=%m [%p] ", "log_min_messages=warning", "wal_level=logical")
THROW_AWAY = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "autovacuum=off", "max_wal_senders=0")
TIMEOUT = 30.0  # seconds for a server to accept connections, and for another start in the same folder


@dataclass(frozen=True)
class Running:
    """A server that accepts connections; `kept` is None when another process started it, and will stop it."""

    bin: Path
    log: Path
    port: int
    password: str = field(repr=False)
    kept: Kept | None

    def dsn(self, database: str) -> str:
        """Return the URL of `database`, for the superuser."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def refusal(self) -> str:
        """Return why it accepts no connection of ours now, "" when it does."""
        import psycopg

        try:
            psycopg.connect(self.dsn("postgres"), connect_timeout=3).close()
        except psycopg.OperationalError as error:
            return str(error)
        return ""

    def stop(self) -> None:
        """Shut the server down (open transactions are rolled back), if it was us who started it."""
        if self.kept:
            self.kept.stop()


def start(
    folder: Path, databases: Sequence[str] = ("app",), *, durable: bool = True, major: int | None = None
) -> Running:
    """Return a server for `folder` that has `databases`: the one that runs already, else one that ends with us.

    `durable=False` is for what is thrown away. A new one is of version `major`, where this machine has that. Raises
    `Refused`.
    """
    from filelock import FileLock, Timeout

    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "start.lock", timeout=TIMEOUT):
            programs = find_bin(major)
            running = _running(folder, programs) or _launch(folder, programs, durable)
            _create_missing(running, databases)
    except Timeout:
        raise Refused(f"Another process has been starting PostgreSQL in {folder} for {TIMEOUT:g} s.") from None
    return running


def remove(folder: Path) -> None:
    """Delete the server's data of `folder`, wherever it is, and the folder itself. Refused while the server runs."""
    data = data_directory(folder)
    if (port := _recorded_port(data)) and _listens(port):
        raise Refused(f"The PostgreSQL of {folder} still runs, on port {port}.", f"head -1 {data}/postmaster.pid")
    for path in (data.parent, folder):
        if path.exists():
            shutil.rmtree(path)


def data_directory(folder: Path) -> Path:
    """Return where the server of `folder` has its data; password and port lie beside it."""
    folder = folder.absolute()
    if not USER:
        return folder / "data"
    return _shared() / f"release-postgres-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}" / "data"


def _shared() -> Path:
    return Path(os.environ.get("RELEASE_SERVERS") or "/var/tmp")  # all users reach it, and it outlives a restart


def _running(folder: Path, programs: Path) -> Running | None:
    """Return the server that runs on this data already, or None; one that is just starting or stopping is awaited."""
    data = data_directory(folder)
    if not ((port := _recorded_port(data)) and _listens(port)):
        return None
    running = Running(programs, folder / "postgres.log", port, _password(data), kept=None)
    deadline = time.monotonic() + TIMEOUT
    while refusal := running.refusal():
        if "authentication failed" in refusal or not _listens(port):
            return None  # ours was killed, and another server has its port now; or it has just ended
        if time.monotonic() > deadline:
            raise Refused(f"PostgreSQL on port {port} neither serves nor ends: {mask(refusal)}", f"less {running.log}")
        time.sleep(0.1)
    return running


def _launch(folder: Path, programs: Path, durable: bool) -> Running:
    """Start a server on the data of `folder`, made now if need be, and wait until it accepts connections."""
    data, log = data_directory(folder), folder / "postgres.log"
    programs = _reachable_by_all(programs) if USER else programs
    _initialise(data, programs)
    # Nothing of ours listens there, so it is stale; PostgreSQL would not start if its process id is in use.
    (data / "postmaster.pid").unlink(missing_ok=True)
    port = _port(data)
    options = [word for each in (*OPTIONS, *(() if durable else THROW_AWAY)) for word in ("-c", each)]
    argv = [str(programs / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port), *options]
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    command = Command(argv, str(data.parent), environment, log=str(log), user=USER)
    running = Running(programs, log, port, _password(data), Kept.start(Spec([command], stop="INT")))
    try:
        if not wait_until(lambda: not running.refusal(), time.monotonic() + TIMEOUT, every=0.05):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
            what = f"PostgreSQL did not accept connections within {TIMEOUT:g} s; its log ends with:\n"
            raise Refused(what + mask("\n".join(lines[-10:])), f"less {log}")
    except BaseException:
        running.stop()
        raise
    return running


def _initialise(data: Path, programs: Path) -> None:
    """Make the data directory unless it is there; it appears whole, so a killed initdb leaves nothing half done."""
    data.parent.mkdir(mode=0o700, exist_ok=True)
    if USER and sys.platform != "win32":
        import pwd

        if data.parent.lstat().st_uid not in (0, pwd.getpwnam(USER).pw_uid):  # /var/tmp is open to all
            raise Refused(f"{data.parent} belongs to somebody else.", f"ls -ld {data.parent}")
        shutil.chown(data.parent, USER)
    if data.exists():
        found, wanted = (data / "PG_VERSION").read_text(encoding="utf-8").strip(), major_of(programs)
        if int(found) != wanted:
            what = f"{data} was made by PostgreSQL {found}, the programs in {programs} are {wanted}."
            raise Refused(what, f"export PG_BIN=…   # of a PostgreSQL {found}")
        return
    incomplete = data.with_name("data.new")
    shutil.rmtree(incomplete, ignore_errors=True)
    password = _write(data.with_name("password"), secrets.token_hex(16))
    argv: list[str | Path] = [programs / "initdb", "-D", incomplete, "-U", "postgres", "-A", "scram-sha-256"]
    run([*argv, "--pwfile", password, "-E", "UTF8", "--locale=C", "--no-sync"], cwd=data.parent, user=USER, leash=True)
    incomplete.rename(data)


def _write(file: Path, text: str) -> Path:
    """Write a small file that only the server's user can read."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
        opened.write(text)
    if USER:
        shutil.chown(file, USER)
    return file


def _password(data: Path) -> str:
    """Return the superuser's password, from now on hidden in all that is shown."""
    file = data.with_name("password")
    try:
        password = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}.", f"ls -l {file}") from None
    hide(password)
    return password


def _port(data: Path) -> int:
    """Return the port of the last time if it is free, else any free one, and remember it."""
    file = data.with_name("port")
    with contextlib.suppress(OSError, ValueError):
        port = int(file.read_text(encoding="utf-8"))
        with socket.create_server(("127.0.0.1", port)):
            return port
    port = free_port()
    _write(file, str(port))
    return port


def _recorded_port(data: Path) -> int | None:
    """Return the port of the server that runs on this data, or ran until it was killed."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int((data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[3])
    return None


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=3):
        return True
    return False


def _create_missing(running: Running, databases: Sequence[str]) -> None:
    import psycopg
    from psycopg import sql

    with psycopg.connect(running.dsn("postgres"), autocommit=True) as connection:
        there = {name for (name,) in connection.execute("select datname from pg_database")}
        for name in {*databases} - there:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))


def _reachable_by_all(programs: Path) -> Path:
    """Return `programs`, or where other users cannot reach them (/root/…) those of a copy, which is made once."""
    postgres, prefix = (programs / "postgres").resolve(), programs.resolve().parent
    if all(path.stat().st_mode & stat.S_IXOTH for path in {postgres, *postgres.parents, *programs.absolute().parents}):
        return programs
    key = hashlib.sha256(f"{postgres} {postgres.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    copy = _shared() / f"release-postgres-bin-{key}"
    if not copy.exists():
        incomplete = Path(tempfile.mkdtemp(dir=_shared(), prefix=f"{copy.name}-"))
        # Wheels keep their shared libraries beside the package, and the programs look for them there.
        for part in (prefix, prefix.parent / ".dylibs", prefix.parent.with_name(f"{prefix.parent.name}.libs")):
            if part.is_dir():
                shutil.copytree(part, incomplete / part.relative_to(prefix.parent.parent), symlinks=True)
        for path in (incomplete, *incomplete.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o055 if path.stat().st_mode & stat.S_IXUSR else 0o044))
        rename_unless_there(incomplete, copy)
    if copy.lstat().st_uid != os.geteuid():
        raise Refused(f"{copy} belongs to somebody else.", f"ls -ld {copy}")
    return copy / prefix.relative_to(prefix.parent.parent) / programs.name
