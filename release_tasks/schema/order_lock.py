"""The order lock of section 3: the DDL pack as section 3 committed it, and what has become of it since.

What counts is the lock in the history of the release branch, in a commit of ours; the file at its tip may have been
edited or deleted by hand.
"""

from __future__ import annotations

import shlex
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release_tasks.database import catalog
from release_tasks.errors import Refused
from release_tasks.files import checksum_lines
from release_tasks.schema import ddl, scratch

if TYPE_CHECKING:
    from release_tasks.git import Git
    from release_tasks.schema.ddl import DdlFile
    from release_tasks.settings import Settings

ADDED, REMOVED, RENAMED, CHANGED, REORDERED = "added", "removed", "renamed", "changed", "reordered"
NEW, DROPPED = "new", "dropped"
HOW = {catalog.EXTRA: NEW, catalog.DIFFERS: CHANGED, catalog.MISSING: DROPPED}
FIX, SHIFT, REASON = "DDL-Fix", "DDL-Shift", "DDL-Shift-Reason"  # trailers of our commits
MOST_TRAILERS = 100  # a message is one argument of git's, and those have a limit


@dataclass(frozen=True)
class Change:
    """What happened to the file `path` of a pack; `was` is its path before it was renamed."""

    kind: str
    path: str
    was: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.was} to {self.path}" if self.was else f"{self.kind} {self.path}"

    @property
    def sentence(self) -> str:
        to = f" to {self.path}" if self.was else ""
        return f"{self.was or self.path} was {self.kind}{to} after the DDL order was locked."

    def undone(self, commit: str) -> str:
        """Return the command that brings back what `commit` has; "" where another change has to be undone for it."""
        path, was = shlex.quote(self.path), shlex.quote(self.was)
        commands = {ADDED: f"git rm {path}", RENAMED: f"git mv {path} {was}", REORDERED: ""}
        return commands.get(self.kind, f"git checkout {commit:.9} -- {path}")


@dataclass(frozen=True)
class Shift:
    """An object that two packs make otherwise: new, changed or dropped, the file it comes from, from what to what."""

    how: str
    name: str
    file: str
    detail: str = ""

    def __str__(self) -> str:
        detail = f", {self.detail}" if self.detail else ""
        return f"{self.name} is {self.how}{detail}{f' ({self.file})' if self.file else ''}"


@dataclass(frozen=True)
class Locked:
    """The pack that section 3 locked in `commit`, in its order."""

    commit: str
    pack: list[DdlFile]


def lock_of(pack: list[DdlFile], tag: str) -> bytes:
    """Return the order lock: `sha256sum --check` reads it, and its lines stand in application order."""
    title = f"# {tag}: the DDL pack in the order in which it is applied\n".encode()
    return title + checksum_lines({file.path: file.sha256 for file in pack})


def locked_for(lock: bytes | None, tag: str) -> bool:
    """Tell whether `lock` was made for the release `tag`, and not for one before."""
    return (lock or b"").startswith(f"# {tag}:".encode())


def last_locked(git: Git, tip: str, tag: str, settings: Settings) -> Locked | None:
    """Return the newest pack in the history of `tip` that section 3 locked for `tag`, None before it did."""
    for commit, _ in git.commits_titled(title_for(tag), tip):
        lock = git.bytes_at(commit, settings.ddl.lock) or b""
        there = git.files_in(commit, settings.ddl.folder)
        paths = [line.partition("  ")[2] for line in lock.decode(errors="replace").split("\n")]
        pack = [ddl.DdlFile(path, git.bytes_at(commit, path) or b"") for path in paths if path in there]
        if lock_of(pack, tag) == lock:
            return Locked(commit, pack)
    return None


def changes(old: list[DdlFile], new: list[DdlFile]) -> list[Change]:
    """Return what happened to the files between two packs, see `changes_between`."""
    return changes_between(*({file.path: file.sha256 for file in pack} for pack in (old, new)))


def changes_between(old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    """Return what makes the pack `new` of the pack `old` (path → SHA-256, in order); nothing when they are the same.

    A file of the same content under another name was renamed. Of the files that are in both, those that stand out of
    their order are the fewest whose moving explains it.
    """
    was = _renamed(old, new)
    names = {before: now for now, before in was.items()} | {path: path for path in old if path in new}
    kept = {names[path]: None for path in old if path in names}
    place = {path: number for number, path in enumerate(path for path in new if path in kept)}
    settled = _longest_rise([place[path] for path in kept])
    return [
        *(Change(RENAMED, path, before) for path, before in was.items()),
        *(Change(ADDED, path) for path in new if path not in place),
        *(Change(REMOVED, path) for path in old if path not in names),
        *(Change(CHANGED, path) for path in new if old.get(path, new[path]) != new[path]),
        *(Change(REORDERED, path) for path in place if place[path] not in settled),
    ]


def _renamed(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Return new path → old path of the files that only have another name; of equal ones, one after the other."""
    gone: dict[str, list[str]] = defaultdict(list)
    for path in old:
        if path not in new:
            gone[old[path]].append(path)
    return {path: gone[new[path]].pop(0) for path in new if path not in old and gone.get(new[path])}


def _longest_rise(numbers: list[int]) -> set[int]:
    """Return the members of a longest rising subsequence of `numbers`, all different."""
    tops: list[int] = []  # for each length, the lowest number that ends a rise of that length
    rises: list[tuple[int, Any]] = []
    for number in numbers:
        length = bisect_left(tops, number)
        tops[length : length + 1] = [number]
        rises[length : length + 1] = [(number, rises[length - 1] if length else None)]
    found, rise = set(), rises[-1] if rises else None
    while rise:
        found.add(rise[0])
        rise = rise[1]
    return found


def shifts(old: list[DdlFile], new: list[DdlFile], root: Path, settings: Settings) -> list[Shift]:
    """Return what the pack `new` makes otherwise than `old`, seen in the catalogs of a scratch server.

    Equal objects are no shift, whatever became of the text. Raises `Refused` where a pack cannot be applied.
    """
    before, now = (scratch.made_by(pack, root, settings) for pack in (old, new))
    found = []
    for each in catalog.differences(before.objects, now.objects):
        files = before.files if each.how == catalog.MISSING else now.files
        detail = " → ".join(text or "nothing" for text in each.apart) if each.how == catalog.DIFFERS else ""
        found.append(Shift(HOW[each.how], each.name, files.get(each.name, ""), detail))
    return found


def counted(words: Iterable[str]) -> str:
    """Return how often each of `words` comes, as "1 added, 2 changed"."""
    return ", ".join(f"{count} {word}" for word, count in Counter(words).items())


def since_release(git: Git, pack: list[DdlFile], tag: str, root: Path, settings: Settings) -> str:
    """Return in a few words what changed since the release `tag`; files that it had and that are gone are named."""
    last = ddl.pack_at(git, f"refs/tags/{tag}", settings)
    moved = changes(last, pack)
    if not moved:
        return f"nothing since {tag}"
    told = [f"since {tag}: {counted(change.kind for change in moved)}"]
    told += [str(change) for change in moved if change.kind in (RENAMED, REMOVED)]
    try:
        found = shifts(last, pack, root, settings)
        told.append(f"objects: {counted(shift.how for shift in found) or 'the same'}")
    except Refused as no:
        told.append(f"objects cannot be compared: {no}")
    return "; ".join(told)


def title_for(tag: str) -> str:
    """Return the first line of the message of our commits, by which they are known."""
    return f"release: lock the DDL order for {tag}"


def message(tag: str, moved: list[Change], shifted: list[str], reason: str) -> str:
    """Return the message of the commit that renews the lock: what was fixed, or shifted and why, as trailers."""
    lines = [*map(str, moved), *shifted]
    if len(lines) > MOST_TRAILERS:
        lines = [*lines[:MOST_TRAILERS], f"and {len(lines) - MOST_TRAILERS} more"]
    trailers = [(SHIFT if shifted else FIX, line) for line in lines] + ([(REASON, reason)] if shifted else [])
    body = "\n".join(f"{key}: {' '.join(value.split())}" for key, value in trailers)
    return f"{title_for(tag)}\n\n{body}" if body else title_for(tag)


def recorded(git: Git, tip: str, tag: str) -> Iterator[str]:
    """Yield what was fixed and shifted while `tag` was frozen, a line for each renewed lock, oldest first."""
    for _, text in reversed(git.commits_titled(title_for(tag), tip)):
        trailers = [(key, value) for key, _, value in (line.partition(": ") for line in text.splitlines())]
        fixed, shifted, reasons = ([v for key, v in trailers if key == wanted] for wanted in (FIX, SHIFT, REASON))
        if fixed:
            yield f"critical fix in the freeze: {'; '.join(fixed)}"
        if shifted:
            yield f"shift in the freeze, allowed because “{' '.join(reasons)}”: {'; '.join(shifted)}"
