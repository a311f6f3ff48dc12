"""Files and folders that appear whole or not at all, and the hashes of files.

Sent to hosts together with deploy/host.py: what that uses is of Python 3.8 or newer.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tarfile import TarInfo

from release_tasks.errors import Refused

RECORDS = ".release"
INCOMPLETE = re.compile(r"(^|/)\.[^/]+\.\d+\.incomplete$")  # files of `atomic_write`


def emptied(folder: Path) -> Path:
    """Return `folder` with nothing in it: what a run before has left there would be taken for this one's."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


@contextmanager
def readable_by_all() -> Iterator[None]:
    """Let others, as the user of a web server, read what the block makes, whatever the umask."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name `path` in an error of the block that names no file, as one on a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def atomic_write(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, force it to disk, then rename: a reader sees the old or the new file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    incomplete = path.with_name(f".{path.name}.{os.getpid()}.incomplete")
    try:
        with naming(path), incomplete.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            incomplete.chmod(path.stat().st_mode)
        incomplete.replace(path)
    finally:
        incomplete.unlink(missing_ok=True)


def read_text(path: Path) -> str:
    """Return the text of a file that people write, "" where it is not there; raises `Refused` where it is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as no:
        raise Refused(f"{path} cannot be read as UTF-8 text: {no}.", f"Save {path} as UTF-8, then run again.") from None


def without_owner(info: TarInfo, is_program: bool, time: int = 0) -> TarInfo:
    """Return the tar's member `info` as any machine would write it: no owner, one of two modes, one time."""
    info.uid, info.gid, info.uname, info.gname, info.mtime = 0, 0, "", "", time
    info.mode = 0o755 if is_program else 0o644
    return info


def sha256(content: bytes) -> str:
    """Return the SHA-256 of `content`, 64 lower-case hex digits."""
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of the file `path`, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum_lines(hashes: dict[str, str]) -> bytes:
    """Return `hashes` (path → SHA-256) as sha256sum writes them: hex, two spaces, path; LF; in the given order."""
    return "".join(f"{digest}  {path}\n" for path, digest in hashes.items()).encode()


def read_checksums(content: bytes) -> dict[str, str]:
    """Return path → SHA-256 from lines as sha256sum reads them; comment lines are passed over."""
    lines = [line for line in content.decode(errors="replace").split("\n") if line and not line.startswith("#")]
    return {path: digest for digest, _, path in (line.partition("  ") for line in lines)}


def file_hashes(folder: Path) -> dict[str, str]:
    """Return path → SHA-256 of every file under `folder`, sorted by path with forward slashes."""
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    return {name: file_sha256(path) for name, path in files}


def mismatches(folder: Path, sums: str, ignored: Collection[str]) -> list[str]:
    """Return the files of `folder`, but `ignored` ones, that are not as its file `sums` says; or `sums` itself."""
    try:
        listed = read_checksums((folder / sums).read_text(encoding="utf-8").encode())
    except (OSError, ValueError):
        return [sums]
    found = {name: digest for name, digest in file_hashes(folder).items() if name not in (sums, *ignored)}
    return sorted(name for name in listed | found if listed.get(name) != found.get(name))


def records_folder(root: Path) -> Path:
    """Return the folder of everything that is ours and not git's, made so that git ignores it."""
    return ignored_by_git(root / RECORDS)


def ignored_by_git(folder: Path) -> Path:
    """Return `folder`, made so that git ignores all that is in it."""
    ignore = folder / ".gitignore"
    if not ignore.exists():
        folder.mkdir(parents=True, exist_ok=True)
        ignore.write_text("*\n", encoding="utf-8")
    return folder
