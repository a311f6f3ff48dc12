"""The DDL pack: its files, the order in which they are applied, the lock on both, and what became of it since."""

import json
import re
import shlex
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from release_tasks import node, process
from release_tasks.commits import TRAILER, history
from release_tasks.errors import Problem, Refused
from release_tasks.files import checksum_lines, read_checksums, records_folder, sha256
from release_tasks.git import Git
from release_tasks.settings import Ddl, Settings

SORT = "const n = JSON.parse(process.argv[1]); console.log(JSON.stringify(n.sort((a, b) => a.localeCompare(b))))"
# A file of one transaction has neither our marker nor a BEGIN of its own, at the start of a line, in a comment or a
# string too. PL/pgSQL has no BEGIN with a semicolon.
NO_TRANSACTION = re.compile(
    rb"^(?:\xef\xbb\xbf)?(?:--\s*release:\s*no-transaction\b(?!-)"
    rb"|\s*(?:begin|start\s+transaction)(?:\s+"
    rb"(?:work|transaction|isolation\s+level|read\s+(?:only|write)|(?:not\s+)?deferrable)\b(?!\s*:?=)[^;]*)?\s*;)",
    re.MULTILINE | re.IGNORECASE,
)


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
    def in_transaction(self) -> bool:
        """True where it is applied in one transaction: not with its own, nor a comment `-- release: no-transaction`."""
        return not NO_TRANSACTION.search(self.content)


# The pack and its order


def pack_at(git: Git, commit: str, settings: Settings) -> list[DdlFile]:
    """Return the pack as committed in `commit`, in the order in which it is applied: once released, in its lock's."""
    paths = [path for path in git.files_in(commit, settings.ddl.folder) if PurePosixPath(path).match("[!.]*.sql")]
    lock = git.text_at(commit, settings.ddl.lock) or ""
    ordered = list(read_checksums(lock.encode()))
    if sorted(ordered) != paths or not git.contains(f"refs/tags/{tag_of(lock)}", commit):
        names = in_order([PurePosixPath(path).name for path in paths], git.root, settings)
        ordered = [f"{settings.ddl.folder}/{name}" for name in names]
    return [DdlFile(path, git.bytes_at(commit, path) or b"") for path in ordered]


def pack_in(root: Path, settings: Settings) -> list[DdlFile]:
    """Return the pack as it lies at `root`, in the order in which it is applied."""
    there = (root / settings.ddl.folder).glob("[!.]*.sql")  # without an editor's lock, and what macOS leaves
    names = in_order([path.name for path in there if not path.is_dir() and path.suffix == ".sql"], root, settings)
    paths = [f"{settings.ddl.folder}/{name}" for name in names]
    contents = {path: (root / path).read_bytes() for path in paths}
    if other_ends := [path for path in paths if b"\r\n" in contents[path]]:
        with closing(Git.open(root, settings.remote)) as git:
            changed = git.dirty_paths()  # core.autocrlf changed the line ends of the others, and nothing else
            same = [path for path in other_ends if {path, path.partition("/")[0]}.isdisjoint(changed)]
            contents |= {path: git.bytes_at("HEAD", path) or contents[path] for path in same}
    return [DdlFile(*each) for each in contents.items()]


def in_order(names: list[str], root: Path, settings: Settings) -> list[str]:
    """Return base names in the order of the settings: by bytes, by Node's localeCompare, or as a command says."""
    rule, names, folder = settings.ddl.order, sorted(names), root / settings.folder
    if rule == "bytes" or not names:
        return names
    if rule == "javascript":
        argv = ["node", "--eval", SORT, json.dumps(names)]
        return list(json.loads(process.run(argv, env=node.node_alone()).stdout))
    env = node.runtime(folder, records_folder(root)) if settings.uses_node else None
    either = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    printed = process.run(rule, cwd=folder, env=env).stdout
    listed = list(dict.fromkeys(re.findall(rf"(?<![\w.-])(?:{either})(?![\w-]|\.\w)", printed)))
    if missing := [name for name in names if name not in listed]:
        what = f"{' '.join(rule)} does not list every file of {settings.ddl.folder}; missing: {', '.join(missing)}."
        raise Refused(what, "Let release.ddl.order be a command that lists them all, or a rule: bytes, javascript.")
    return listed


def pack_problems(pack: Sequence[DdlFile], ddl: Ddl) -> list[Problem]:
    """Return why a pack cannot be applied anywhere: no file, one that is no UTF-8 text, twins in NFC and NFD."""
    empty = f"No *.sql file is committed in {ddl.folder}; expected the DDL pack."
    problems = [] if pack else [Problem(empty, "Set release.ddl.folder.")]
    names = [unicodedata.normalize("NFC", file.name) for file in pack]
    for name in sorted({name for name in names if names.count(name) > 1}):
        what = f"{ddl.folder} has {name} twice, in composed and in decomposed letters (Unicode NFC and NFD)."
        problems.append(Problem(what, f"git ls-files {shlex.quote(ddl.folder)}   # git rm the one that is not meant"))
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


def tag_of(lock: str) -> str:
    """Return the tag of the release that `lock` was made for, "" where there is no lock."""
    return lock.removeprefix("# ").partition(":")[0]


def last_locked(git: Git, tip: str, tag: str, settings: Settings) -> tuple[str, list[DdlFile]] | None:
    """Return commit and pack of the newest lock in the history of `tip` that section 3 made for `tag`, None before."""
    for commit, *_ in history(git, None, tip, f"{tag} freeze"):
        lock = git.bytes_at(commit, settings.ddl.lock) or b""
        there = git.files_in(commit, settings.ddl.folder)
        paths = [path for path in read_checksums(lock) if path in there]
        pack = [DdlFile(path, git.bytes_at(commit, path) or b"") for path in paths]
        if lock_of(pack, tag) == lock:
            return commit, pack
    return None


def recorded(git: Git, tip: str, tag: str) -> Iterator[str]:
    """Yield what was fixed and shifted while `tag` was frozen, a line for each renewed lock, oldest first."""
    for commit in reversed(history(git, None, tip, f"{tag} freeze")):
        kind, _, lines = commit.body.rpartition(TRAILER)[0].strip().partition("\n")
        if lines:
            yield f"{kind} {'; '.join(lines.splitlines())}"


def changes(before: Sequence[DdlFile], now: Sequence[DdlFile]) -> list[str]:
    """Return what makes the pack `now` of the pack `before`."""
    old, new = ({file.path: file.sha256 for file in pack} for pack in (before, now))
    both = [path for path in new if path in old]
    return [
        *(f"removed {path}" for path in old if path not in new),
        *(f"added {path}" for path in new if path not in old),
        *(f"changed {path}" for path in both if old[path] != new[path]),
        *(["reordered"] if both != [path for path in old if path in new] else []),
    ]
