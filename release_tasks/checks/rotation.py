"""Log files that go on from where they stood, through rotations: renamed, copied, compressed."""

from __future__ import annotations

import gzip
import hashlib
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from release_tasks.checks.verdict import Unknown
from release_tasks.processes.shell import plain

TAIL = 256  # bytes before a position, by which it is known again
LONGEST = 1 << 20  # of a line or an entry, which are looked at in such pieces
CLOCK = 2.0  # seconds that the times of files may be off
ASLEEP = 86400.0  # seconds: what nobody wrote to for so long is an old file, which rotation may delete


@dataclass
class Reading:
    """What was read so far: in which files, how many lines, and of which files something is lost."""

    files: list[str] = field(default_factory=list)
    lines: int = 0
    lost: list[str] = field(default_factory=list)


@dataclass
class Position:
    """Where a file stood: `tail` is a hash of the bytes before, `live` files must be found again."""

    path: str
    inode: int
    size: int
    tail: str
    live: bool
    patterns: list[str]  # that led to it


def positions(patterns: Iterable[str], root: str | Path) -> dict[str, Any]:
    """Return, as JSON can hold it, where each file that matches `patterns` (globs, from `root`) stands now.

    Rotated files beside them are held as well, so that new ones can be told from them. What cannot be read is left out.
    """
    found: dict[Path, Position] = {}
    for pattern in patterns:
        matching = _matching(pattern, root)
        for path in {*matching, *_rotated(matching)}:
            with suppress(OSError):
                found.setdefault(path, _position(path, path in matching)).patterns.append(pattern)
    return {"at": time.time(), "files": [asdict(each) for each in found.values()]}


def is_any(began: Mapping[str, Any], patterns: Iterable[str], root: str | Path) -> bool:
    """Tell whether a file matches `patterns` now, or did when the positions `began` were taken."""
    patterns = set(patterns)
    return any(patterns & set(each["patterns"]) for each in began["files"]) or any(
        _matching(pattern, root) for pattern in patterns
    )


def written_since(began: Mapping[str, Any], patterns: list[str], root: str | Path, reading: Reading) -> Iterator[str]:
    """Return, one by one, the entries written since the positions `began`, oldest file first. Raises `Unknown`.

    A file goes on from a known one when its bytes before that position are the same, under whatever name: it was
    renamed, copied or compressed. Any other that was written to since is new, and read whole.
    """
    known = [Position(**each) for each in began["files"]]
    mine = [each for each in known if set(patterns) & set(each.patterns)]
    found, path = list[Position | None](), Path(root)
    try:
        files = _files_now(patterns, root, mine)
        same = {path: _same_file(path, known) for path in files}
        gone = [each for each in known if each not in same.values()]
        for path in sorted(files, key=lambda path: path.stat().st_mtime):
            position = same[path] or _original(path, gone, known)
            found.append(position)
            is_packed_already = path.suffix == ".gz" and same[path] is not None
            if is_packed_already or (position is None and path.stat().st_mtime <= began["at"] - CLOCK):
                continue
            before = reading.lines
            with _opened(path) as file:
                file.seek(position.size if position else 0)
                yield from entries_of(iter(partial(file.readline, LONGEST), b""), reading)
            if reading.lines > before:
                reading.files.append(str(path))
    except (OSError, EOFError, zlib.error) as error:
        which, why = getattr(error, "filename", None) or path, getattr(error, "strerror", None) or error
        raise Unknown(f"A log cannot be read: {why}: {which}.", f"ls -l {which}") from None
    reading.lost = sorted(each.path for each in mine if each.live and each not in found)


def _matching(pattern: str, root: str | Path) -> set[Path]:
    whole, anchor = Path(root, pattern), Path(pattern).anchor
    paths = [whole] if whole.exists() else Path(anchor or root).glob(pattern.removeprefix(anchor))
    return {path.resolve() for path in paths if path.is_file()}


def _rotated(paths: Iterable[Path]) -> Iterator[Path]:
    """Return the files beside `paths` that are named as rotated ones are: app.log.1, app-20240101.log.gz."""
    for path in paths:
        stem, suffix = re.escape(path.stem), re.escape(path.suffix)
        name = re.compile(rf"{stem}({suffix})?[-._]\d[\d._-]*({suffix})?(\.gz)?")
        with suppress(OSError):
            yield from (each for each in path.parent.iterdir() if name.fullmatch(each.name) and each.is_file())


def _position(path: Path, is_named: bool) -> Position:
    with path.open("rb") as file:
        size, stat = file.seek(0, 2), path.stat()
        is_live = is_named and path.suffix != ".gz" and time.time() - stat.st_mtime < ASLEEP
        return Position(str(path), stat.st_ino, size, _tail(file, size), is_live, [])


def _files_now(patterns: list[str], root: str | Path, mine: list[Position]) -> set[Path]:
    """Return the files that match, those rotated beside them, and those of `mine` under any other name."""
    matching = {path for pattern in patterns for path in _matching(pattern, root)}
    found = {*matching, *_rotated(matching)}
    inodes = {each.inode for each in mine if each.size}  # an empty one's may be another's by now
    for folder in {Path(each.path).parent for each in mine}:
        if folder.is_dir():
            found |= {path for path in folder.iterdir() if path.is_file() and path.stat().st_ino in inodes}
    return found


def _same_file(path: Path, known: list[Position]) -> Position | None:
    """Return the position of this very file, whatever it is called by now; None where it was emptied, or is another."""
    inode = path.stat().st_ino
    with path.open("rb") as file:
        return _fitting(file, [each for each in known if each.inode == inode])


def _original(path: Path, gone: list[Position], known: list[Position]) -> Position | None:
    """Return the position of what this is a copy of: of a file that is gone, for equal lines alone are no copy.

    What was just compressed may still be there beside its copy.
    """
    candidates = [*gone, *known] if path.suffix == ".gz" else gone
    alike = [each for each in candidates if path.name.startswith(Path(each.path).stem)]
    with _opened(path) as file:  # a file in the place of an empty one is no copy of it
        return _fitting(file, [each for each in alike if each.size or each.path != str(path)])


def _fitting(file: IO[bytes] | gzip.GzipFile, known: list[Position]) -> Position | None:
    """Return the longest of `known` that the file goes on from, for it holds the same bytes before."""
    fitting = [each for each in known if _tail(file, each.size) == each.tail]
    return max(fitting, key=lambda each: each.size, default=None)


def _tail(file: IO[bytes] | gzip.GzipFile, size: int) -> str:
    file.seek(max(0, size - TAIL))
    return hashlib.sha256(file.read(min(size, TAIL))).hexdigest()


def _opened(path: Path) -> IO[bytes] | gzip.GzipFile:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def entries_of(lines: Iterable[bytes], reading: Reading) -> Iterator[str]:
    """Return the entries of a log: a line, and those after it that begin with a tab."""
    entry = ""
    for raw in lines:
        line = plain(raw.decode("utf-8", errors="replace")).rstrip()
        reading.lines += bool(line)
        if line.startswith("\t") and len(entry) < LONGEST:
            entry += f"\n{line}"
            continue
        if entry:
            yield entry
        entry = line
    if entry:
        yield entry
