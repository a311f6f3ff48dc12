"""The DDL pack: its files, the order in which they are applied, the lock on both, and what became of it since."""

from __future__ import annotations

import json
import re
import shlex
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from release_tasks import node
from release_tasks.errors import Problem, Refused
from release_tasks.files import checksum_lines, read_checksums, records_folder, sha256
from release_tasks.git import Git
from release_tasks.processes import shell
from release_tasks.settings import Ddl, Settings

SORT = "const n = JSON.parse(process.argv[1]); console.log(JSON.stringify(n.sort((a, b) => a.localeCompare(b))))"
LOCKED_FOR = re.compile(r"# (\S+):")
NO_TRANSACTION = re.compile(rb"^(?:\xef\xbb\xbf)?--\s*release:\s*no-transaction\b(?!-)", re.MULTILINE | re.IGNORECASE)
# PL/pgSQL has no BEGIN with a semicolon; in a comment or a string it does no harm.
OWN_TRANSACTION = re.compile(
    rb"^\s*(?:begin(?:\s+work|\s+transaction)?|start\s+transaction)(?:\s+(?:isolation|read|(?:not\s+)?deferrable)[^;]*)?\s*;",
    re.MULTILINE | re.IGNORECASE,
)
ADDED, REMOVED, RENAMED, CHANGED, REORDERED = "added", "removed", "renamed", "changed", "reordered"
FIX, SHIFT, REASON = "DDL-Fix", "DDL-Shift", "DDL-Shift-Reason"  # trailers of the commits that renew the lock
MOST_TRAILERS = 100  # a message is one argument of git's, and those have a limit


@dataclass(frozen=True)
class DdlFile:
    """One file of the pack: its path from the root with forward slashes, and its committed bytes."""

    path: str
    content: bytes

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def sha256(self) -> str:
        return sha256(self.content)

    @property
    def own_transactions(self) -> bool:
        """Whether it begins transactions itself."""
        return bool(OWN_TRANSACTION.search(self.content))

    @property
    def in_transaction(self) -> bool:
        """Whether it is applied in one transaction: not with its own, nor a comment `-- release: no-transaction`."""
        return not (NO_TRANSACTION.search(self.content) or self.own_transactions)


# The pack and its order


def pack_at(git: Git, commit: str, settings: Settings) -> list[DdlFile]:
    """Return the pack as committed in `commit`, in the order in which it is applied; once released, in the locked."""
    paths = [path for path in git.files_in(commit, settings.ddl.folder) if path.endswith(".sql")]
    files = {PurePosixPath(path).name: DdlFile(path, git.bytes_at(commit, path) or b"") for path in paths}
    names = _released_order(git, commit, settings)
    if sorted(names) != sorted(files):
        names = in_order(list(files), git.root, settings)
    return [files[name] for name in names]


def _released_order(git: Git, commit: str, settings: Settings) -> list[str]:
    """Return the base names in the lock of `commit`, when it is part of the release that the lock was made for."""
    lock = git.text_at(commit, settings.ddl.lock) or ""
    tag = LOCKED_FOR.match(lock)
    released = tag and git.contains(f"refs/tags/{tag[1]}", commit)
    return [PurePosixPath(path).name for path in read_checksums(lock.encode())] if released else []


def pack_in(code: Path, root: Path, settings: Settings) -> list[DdlFile]:
    """Return the pack as it lies in the folder `code`, in the order in which it is applied."""
    files = {path.name: path for path in (code / settings.ddl.folder).glob("*.sql")}
    names = in_order(list(files), root, settings)
    return [DdlFile(f"{settings.ddl.folder}/{name}", files[name].read_bytes()) for name in names]


def in_order(names: list[str], root: Path, settings: Settings, rule: str | list[str] = "") -> list[str]:
    """Return base names in the order of `rule`, the setting's if none: bytes, Node's localeCompare, or a command's."""
    rule = rule or settings.ddl.order
    names, folder = sorted(names), root / settings.folder
    if rule == "bytes" or not names:
        return names
    env = node.runtime(folder, records_folder(root)) if settings.uses_node else None
    if rule == "javascript":
        return list(json.loads(shell.run(["node", "--eval", SORT, json.dumps(names)], env=env).stdout))
    listed = list(dict.fromkeys(mention_of(names).findall(shell.run(rule, cwd=folder, env=env).stdout)))
    if len(listed) < len(names):
        missing = ", ".join(name for name in names if name not in listed)
        raise Refused(
            f"{' '.join(rule)} does not list every file of {settings.ddl.folder}; missing: {missing}.",
            "Let release.ddl.order be a command that lists them all, or a rule: bytes, javascript.",
        )
    return listed


def mention_of(names: Iterable[str]) -> re.Pattern[str]:
    """Return what finds the file names (at least one) wherever a text mentions them whole."""
    either = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.compile(rf"(?<![\w.-])(?:{either})(?![\w-]|\.\w)")


def order_disagreements(names: list[str], root: Path, settings: Settings) -> list[str]:
    """Return, for each other rule that would order this pack differently, in which files that shows first."""
    rule, ours = settings.ddl.order, in_order(names, root, settings)
    shown, found = rule if isinstance(rule, str) else " ".join(rule), []
    for other in ("bytes", "javascript") if settings.uses_node else ("bytes",):
        both = zip(ours, in_order(names, root, settings, other), strict=True)
        for first, instead in [pair for pair in both if pair[0] != pair[1]][:1]:
            found.append(f"in the order set ({shown}) {first} comes before {instead}, by {other} after it")
    return found


def pack_problems(pack: Sequence[DdlFile], ddl: Ddl) -> list[Problem]:
    """Return why a pack cannot be applied anywhere: it has no file, or one that is no UTF-8 text."""
    problems = []
    if not pack:
        what = f"No *.sql file is committed in {ddl.folder}; expected the DDL pack."
        problems.append(Problem(what, "Set release.ddl.folder."))
    for file in pack:
        try:
            file.content.decode()
            at = file.content.find(0)  # PostgreSQL would read up to it
        except UnicodeDecodeError as wrong:
            at = wrong.start
        if at >= 0:
            line = file.content.count(b"\n", 0, at) + 1
            found = f"found the byte 0x{file.content[at]:02x} in line {line}"
            problems.append(Problem(f"{file.path} is not UTF-8 text: {found}.", f"Save {file.path} as UTF-8."))
    return problems


# The order lock of section 3: what counts is the lock in the history of the release branch, in a commit of ours


def lock_of(pack: list[DdlFile], tag: str) -> bytes:
    """Return the order lock: `sha256sum --check` reads it, and its lines stand in application order."""
    lines = checksum_lines({file.path: file.sha256 for file in pack})
    return f"# {tag}: the DDL pack in the order in which it is applied\n".encode() + lines


def locked_for(lock: bytes | None, tag: str) -> bool:
    """Tell whether `lock` was made for the release `tag`."""
    return (lock or b"").startswith(f"# {tag}:".encode())


def last_locked(git: Git, tip: str, tag: str, settings: Settings) -> tuple[str, list[DdlFile]] | None:
    """Return commit and pack of the newest lock in the history of `tip` that section 3 made for `tag`, None before."""
    for commit, _ in git.commits_titled(title_for(tag), tip):
        lock = git.bytes_at(commit, settings.ddl.lock) or b""
        there = git.files_in(commit, settings.ddl.folder)
        paths = [line.partition("  ")[2] for line in lock.decode(errors="replace").split("\n")]
        pack = [DdlFile(path, git.bytes_at(commit, path) or b"") for path in paths if path in there]
        if lock_of(pack, tag) == lock:
            return commit, pack
    return None


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


# What became of the files between two packs


@dataclass(frozen=True)
class Change:
    """What happened to the file `path` of a pack; `was` is its path before it was renamed."""

    kind: str
    path: str
    was: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.was} to {self.path}" if self.was else f"{self.kind} {self.path}"

    def undone(self, commit: str) -> str:
        """Return the command that brings back what `commit` has; "" where another change has to be undone for it."""
        path = shlex.quote(self.path)
        commands = {ADDED: f"git rm {path}", RENAMED: f"git mv {path} {shlex.quote(self.was)}", REORDERED: ""}
        return commands.get(self.kind, f"git checkout {commit:.9} -- {path}")


def changes(before: Sequence[DdlFile], now: Sequence[DdlFile]) -> list[Change]:
    """Return what makes the pack `now` of the pack `before`: the same content under another name was renamed, and the
    files that count as reordered are the fewest whose moving explains the order."""
    old, new = ({file.path: file.sha256 for file in pack} for pack in (before, now))
    was = _renamed(old, new)
    names = {old_path: path for path, old_path in was.items()} | {path: path for path in old if path in new}
    kept = {names[path]: None for path in old if path in names}
    place = {path: number for number, path in enumerate(path for path in new if path in kept)}
    in_place = _longest_rise([place[path] for path in kept])
    return [
        *(Change(RENAMED, path, before) for path, before in was.items()),
        *(Change(ADDED, path) for path in new if path not in place),
        *(Change(REMOVED, path) for path in old if path not in names),
        *(Change(CHANGED, path) for path in new if old.get(path, new[path]) != new[path]),
        *(Change(REORDERED, path) for path in place if place[path] not in in_place),
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
    rises: list[tuple[int, ...]] = []  # for each length, the rise with the lowest end
    for number in numbers:
        length = bisect_left([rise[-1] for rise in rises], number)
        rises[length : length + 1] = [(*(rises[length - 1] if length else ()), number)]
    return set(rises[-1]) if rises else set()
