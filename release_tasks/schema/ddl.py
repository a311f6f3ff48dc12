"""The DDL pack: which files, in which order, and what a file says of itself."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from release_tasks import node
from release_tasks.database import sql
from release_tasks.errors import Problem, Refused
from release_tasks.files import read_checksums, records_folder, sha256
from release_tasks.git import Git
from release_tasks.processes import shell

if TYPE_CHECKING:
    from release_tasks.settings import Ddl, Settings

SORT = "const n = JSON.parse(process.argv[1]); console.log(JSON.stringify(n.sort((a, b) => a.localeCompare(b))))"

LOCKED_FOR = re.compile(r"# (\S+):")
NO_TRANSACTION = re.compile(r"^--\s*release:\s*no-transaction\b", re.MULTILINE | re.IGNORECASE)
TRANSACTION_CONTROL = re.compile(
    r"(begin|start transaction|commit|end|abort|prepare transaction|rollback(?! to| work to| transaction to))\b", re.I
)
# Seen without taking the text apart, which takes longer than applying it.
MAYBE_CONTROL = re.compile(r"\b(begin|start|commit|end|abort|prepare|rollback)\b", re.IGNORECASE)


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

    @cached_property
    def text(self) -> str:
        return self.content.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors="replace")

    @property
    def wants_no_transaction(self) -> bool:
        """Whether a comment `-- release: no-transaction` says that each statement is to stand by itself."""
        return bool(NO_TRANSACTION.search(self.text))

    @cached_property
    def statements(self) -> list[sql.Statement]:
        return list(sql.statements(self.text))

    @property
    def transaction_control(self) -> list[sql.Statement]:
        """Its own BEGIN, COMMIT and the like: inside a runner's transaction they would break it."""
        if not MAYBE_CONTROL.search(self.text):
            return []
        return [each for each in self.statements if TRANSACTION_CONTROL.match(each.bare)]

    @property
    def holds_transactions(self) -> bool:
        return bool(self.transaction_control)

    @property
    def stands_alone(self) -> bool:
        """Whether no transaction of ours is to be around it."""
        return self.wants_no_transaction or self.holds_transactions


def pack_at(git: Git, commit: str, settings: Settings) -> list[DdlFile]:
    """Return the pack as committed in `commit`, in the order in which it is applied; once released, in the locked."""
    paths = [path for path in git.files_in(commit, settings.ddl.folder) if path.endswith(".sql")]
    contents = {PurePosixPath(path).name: DdlFile(path, git.bytes_at(commit, path) or b"") for path in paths}
    names = _released_order(git, commit, settings)
    if sorted(names) != sorted(contents):
        names = in_order(list(contents), git.root, settings)
    return [contents[name] for name in names]


def _released_order(git: Git, commit: str, settings: Settings) -> list[str]:
    """Return the base names in the lock of `commit`, when it is part of the release that the lock was made for."""
    lock = git.text_at(commit, settings.ddl.lock) or ""
    tag = LOCKED_FOR.match(lock)
    if not (tag and git.contains(f"refs/tags/{tag[1]}", commit)):
        return []
    return [PurePosixPath(path).name for path in read_checksums(lock.encode())]


def pack_in(code: Path, root: Path, settings: Settings) -> list[DdlFile]:
    """Return the pack as it lies in the folder `code`, in the order in which it is applied."""
    files = {path.name: path for path in (code / settings.ddl.folder).glob("*.sql")}
    names = in_order(list(files), root, settings)
    return [DdlFile(f"{settings.ddl.folder}/{name}", files[name].read_bytes()) for name in names]


def pack_for(where: str, root: Path, settings: Settings) -> list[DdlFile]:
    """Return the pack that the environment `where` should have: on dev the files as they lie here, else HEAD's."""
    if where == "dev":
        return pack_in(root, root, settings)
    git = Git.open(root, settings.remote)
    try:
        return pack_at(git, "HEAD", settings)
    finally:
        git.close()


def in_order(names: list[str], root: Path, settings: Settings) -> list[str]:
    """Return base names in the order in which the set rule has them applied.

    `javascript` asks Node itself, for its order is a locale's; a command says it by naming them. Raises `Refused`.
    """
    return _ordered(names, settings.ddl.order, root, settings)


def _ordered(names: list[str], rule: str | list[str], root: Path, settings: Settings) -> list[str]:
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
    told = []
    for other in ("bytes", "javascript") if settings.uses_node else ("bytes",):
        theirs = _ordered(names, other, root, settings)
        if theirs != ours:
            first, instead = next(pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1])
            shown = rule if isinstance(rule, str) else " ".join(rule)
            told.append(f"in the order set ({shown}) {first} comes before {instead}, by {other} after it")
    return told


def pack_problems(pack: list[DdlFile], ddl: Ddl) -> list[Problem]:
    """Return what is wrong with a pack before anything is applied: empty, empty files, no leading number."""
    if not pack:
        return [
            Problem(f"No *.sql file is committed in {ddl.folder}; expected the DDL pack.", "Set release.ddl.folder.")
        ]
    problems = []
    for file in pack:
        if not file.content.strip():
            problems.append(Problem(f"{file.path} is empty; expected SQL.", f"git rm {file.path}"))
        if not re.match(r"\d", file.name):
            problems.append(
                Problem(
                    f"{file.path} has no number; expected one, for it is what orders the pack.", f"git mv {file.path} …"
                )
            )
    return [*problems, *encoding_problems(pack)]


def encoding_problems(pack: Iterable[DdlFile]) -> Iterator[Problem]:
    """Yield the files that are no UTF-8 text: PostgreSQL would refuse them, or read them only up to a NUL."""
    for file in pack:
        try:
            file.content.decode()
            at = file.content.find(0)
        except UnicodeDecodeError as wrong:
            at = wrong.start
        if at >= 0:
            line = file.content.count(b"\n", 0, at) + 1
            found = f"found the byte 0x{file.content[at]:02x} in line {line}"
            yield Problem(f"{file.path} is not UTF-8 text: {found}.", f"Save {file.path} as UTF-8.")
