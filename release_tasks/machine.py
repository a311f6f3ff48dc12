"""Helpers that run on any machine: hold a lock, run a command, see what answers and who is connected.

Sent to hosts together with deploy/host.py: the standard library alone, of Python 3.8 or newer. Here others use it too.
"""

from __future__ import annotations

import getpass
import hashlib
import io
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from base64 import b64encode
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection, IncompleteRead
from pathlib import Path
from typing import Any, Callable, Iterator  # noqa: UP035 - of Python 3.8
from urllib.parse import unquote, urlsplit

from release_tasks.errors import Refused

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@contextmanager
def failing_in(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses in the block into `Refused`."""
    try:
        yield
    except (OSError, tarfile.TarError) as error:
        where, path = shlex.quote(str(folder)), getattr(error, "filename", None) or folder
        what = f"{path} cannot be used: {getattr(error, 'strerror', None) or error}."
        raise Refused(what, f"df -h {where}; ls -ld {where}") from None


@contextmanager
def locked(file: Path, what: str, timeout: float = 0) -> Iterator[None]:
    """Hold the lock `file` until we end. Raises `Refused` where another `what` has it for `timeout` seconds."""

    def is_ours() -> bool:
        with suppress(BlockingIOError, PermissionError):
            if sys.platform == "win32":
                msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lock:
        if not wait_until(is_ours, timeout):
            raise Refused(f"Another {what} is under way.", f"Wait for it to end; it holds {file}.")
        yield


def probe(origin: str, path: str, seconds: float = 3) -> tuple[str, str]:
    """Return the version that `path` of `origin` tells, and what it answers; "" for none, a redirect or a 5xx error.

    Where no path tells it, the version of whatever answers is "any". No proxy is used, and no redirect is followed.
    The origin may hold a user and a password.
    """
    url = "The origin"
    try:
        parts = urlsplit(origin)
        user, _, host = parts.netloc.rpartition("@")
        target = parts.path.rstrip("/") + (path or "/")
        url = f"{parts.scheme}://{host}{target}"
        headers = {"User-Agent": "release-tasks"}  # some front answers none without
        if user:
            user += "" if ":" in user else ":"
            headers["Authorization"] = f"Basic {b64encode(unquote(user).encode()).decode()}"
        connection = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        with closing(connection(host, timeout=seconds)) as http:
            http.request("GET", target, headers=headers)
            response = http.getresponse()
            content, end = b"", time.monotonic() + seconds
            while len(content) < 100_000 and (piece := response.read1(100_000)):
                content += piece
                if time.monotonic() > end:
                    raise TimeoutError(f"its answer did not end within {seconds:g} s")
            if response.length and len(content) < 100_000:
                raise IncompleteRead(content, response.length)
    except (OSError, ValueError, HTTPException) as error:
        return "", f"{url} could not be reached: {error}"
    text = content.decode(errors="replace")
    by = f" ({server})" if (server := response.headers.get("Server", "")).startswith("nginx") else ""
    answer = f"{url} answers {response.status}: {' '.join(text.split())[:200]}{by}"
    if response.status >= 500 or (path and 300 <= response.status < 400):
        return "", answer
    return str(parsed(text).get("version") or "") if path else "any", answer


def parsed(text: str) -> dict[str, Any]:
    """Return the object that is `text` in JSON, {} where it is none."""
    with suppress(ValueError, RecursionError):
        found = json.loads(text.lstrip("\ufeff"))
        return found if isinstance(found, dict) else {}
    return {}


def run(argv: list[str], cwd: Path, env: dict[str, str], timeout: float) -> str:
    """Run a command to its end, and return its output; what it leaves running lives on. Raises `Refused`."""
    options: Any = {"cwd": cwd, "env": {**os.environ, **env}, "start_new_session": True}
    if sys.platform == "win32":  # where it has an ending, as .cmd
        options["executable"] = shutil.which(argv[0])
    with tempfile.TemporaryFile() as file:  # what the command leaves running would keep a pipe open
        try:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, **options)
            ended = f"exit code {process.wait(timeout)}"
        except OSError as error:
            raise Refused(f"{argv[0]} cannot be started: {error}", f"command -v {argv[0]}; echo $PATH") from None
        except subprocess.TimeoutExpired:
            ended = f"no end within {timeout:g} s"
            with suppress(PermissionError, subprocess.TimeoutExpired):  # another user's, as with sudo
                if sys.platform != "win32":
                    os.killpg(process.pid, 9)
                else:
                    process.kill()
                process.wait(5)
        file.seek(0)
        output = file.read().decode(errors="replace")
    if ended != "exit code 0":
        raise Refused(f"{shlex.join(argv)}: {ended}:\n" + "\n".join(output.splitlines()[-8:]))
    return output


def unpack(content: bytes, sha256: str, folder: Path) -> None:
    """Unpack the tar `content`, which has to have that hash, into `folder`. Raises `Refused`."""
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise Refused(f"The tree arrived with the SHA-256 {found}; expected {sha256}.")
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extraction_filter = lambda member, path: member  # as before 3.14: we know what is in it
        tar.extractall(folder)


def user() -> str:
    """Return the name of the user who runs us, or the number where a container knows no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError):  # the last since Python 3.13
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())


def read_link(link: Path) -> Path | None:
    """Return the path that `link` names, a symlink or a text file holding a path, or None when there is none."""
    try:
        target = os.readlink(link) if link.is_symlink() else link.read_text("utf-8").strip()  # noqa: PTH115
    except (OSError, ValueError):
        return None
    return link.parent / target if target else None


def point_link(link: Path, target: Path) -> None:
    """Make `link` name `target` in one step; on Windows, where nothing replaces a folder's symlink, as a text file."""
    beside = link.with_name(f".{link.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    if sys.platform == "win32":
        beside.write_text(f"{target}\n", "utf-8")
    else:
        beside.symlink_to(target)
    beside.replace(link)


def wait_until(holds: Callable[[], bool], seconds: float, every: float = 0.2) -> bool:
    """Call `holds` until it is true or some seconds have passed; return its last answer."""
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(every)
    return held


def is_taken(port: int) -> bool:
    with socket.socket() as probing:
        return probing.connect_ex(("127.0.0.1", port)) == 0


def is_busy(port: int) -> bool:
    """Tell whether a connection to `port` is established; where that cannot be seen, as on macOS, it may be."""
    tables = [table for table in map(Path, ("/proc/net/tcp", "/proc/net/tcp6")) if table.exists()]
    rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    return not tables or any(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)
