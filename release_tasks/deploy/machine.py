"""What a host does with its own means: run a command, write a file whole, see what answers and who is connected.

Sent to other hosts together with host.py: the standard library alone, of Python 3.8 or newer. Here others use it too.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import socket
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterator  # noqa: UP035 - of Python 3.8


class Failed(Exception):
    """What went wrong, for a person, and a command that helps."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


@contextmanager
def failing_in(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses in the block into `Failed`."""
    try:
        yield
    except (OSError, tarfile.TarError) as error:
        where = shlex.quote(str(folder))
        raise Failed(f"{type(error).__name__}: {error}", f"df -h {where}; ls -ld {where}") from None


def probe(origin: str, path: str) -> tuple[str, str]:
    """Return the version that `path` of `origin` tells, and what it answers; "" where it tells none, or a 5xx error.

    Where no path tells it, the version of whatever answers is "any". No proxy is used.
    """
    url = origin + (path or "/")
    try:
        try:
            answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=3)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            status, text = answer.status, answer.read(100_000).decode(errors="replace")
    except (OSError, ValueError, HTTPException) as error:
        return "", f"{url} could not be reached: {error}"
    version = str(parsed(text).get("version", "")) if path else "any"
    return version if status < 500 else "", f"{url} answers {status}: {' '.join(text.split())[:200]}"


def parsed(text: str) -> dict[str, Any]:
    """Return the object that is `text` in JSON, {} where it is none."""
    with suppress(ValueError):
        found = json.loads(text)
        return found if isinstance(found, dict) else {}
    return {}


def run(argv: list[str], cwd: Path, env: dict[str, str], timeout: float) -> str:
    """Run a command to its end, and return what it said. Raises `Failed`."""
    how: Any = {"cwd": cwd, "env": {**os.environ, **env}, "start_new_session": True}
    with tempfile.TemporaryFile() as output:  # what the command leaves running would keep a pipe open
        try:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **how)
            ended = f"exit code {process.wait(timeout)}"
        except OSError as error:
            raise Failed(f"{argv[0]} cannot be started: {error}") from None
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9) if os.name == "posix" else process.kill()
            process.wait()
            ended = f"no end within {timeout:g} s"
        output.seek(0)
        said = output.read().decode(errors="replace")
    if ended != "exit code 0":
        raise Failed(f"{shlex.join(argv)}: {ended}:\n" + "\n".join(said.splitlines()[-8:]))
    return said


def unpack(tree: BinaryIO, sha256: str, folder: Path) -> None:
    """Unpack the tar `tree`, which has to have that hash, into `folder`. Raises `Failed`."""
    content = tree.read()
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise Failed(f"The tree arrived with the SHA-256 {found}; expected {sha256}.")
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extraction_filter = lambda member, path: member  # as before 3.14: we know what is in it
        tar.extractall(folder)


def now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())


def write(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def read_link(link: Path) -> Path | None:
    """Return the path that `link` names, a symlink or a text file holding a path, or None when there is none."""
    try:
        target = os.readlink(link) if link.is_symlink() else link.read_text("utf-8").strip()  # noqa: PTH115
    except (OSError, ValueError):
        return None
    return link.parent / target if target else None


def point_link(link: Path, target: Path) -> None:
    """Make `link` name `target` in one step; a text file with the path where a symlink needs a privilege (Windows)."""
    beside = link.with_name(f".{link.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    try:
        beside.symlink_to(target, target_is_directory=True)
    except OSError:
        beside.write_text(f"{target}\n", "utf-8")
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
