"""The form of a pack: a BagIt 1.0 bag (RFC 8493) and a plain tar of it, always written alike, read with distrust."""

import hashlib
import os
import re
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from unicodedata import category, normalize

from release_tasks.errors import Problem, Refused, refuse
from release_tasks.files import checksum_lines, without_owner

ALGORITHMS = ("sha256", "sha512")
TAGS = ("bag-info.txt", "bagit.txt", "manifest-sha256.txt", "manifest-sha512.txt")  # what the tag manifests list
ROOT = "tagmanifest-sha512.txt"  # its SHA-512 is the pack root: one hash for all of the bag
SIGNATURE = f"{ROOT}.sig"
# What no tag manifest lists: those themselves, and what is added after the bag is closed.
LATER = re.compile(
    r"tagmanifest-sha(256\.txt|512\.txt(\.sig)?)|anchors/[\w-]+\.(tsq|tsr|pem)|addenda/[\w-]+\.jsonl(\.sig)?"
)
VERSION = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
UNSAFE = re.compile(r"(^|/)(\.{0,2}|~[^/]*)(/|$)|[\\:]")  # nothing, a dot or two, a home, a backslash, a drive


def digest(path: Path, algorithm: str = "sha512") -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def close(folder: Path, info: dict[str, str]) -> None:
    """Make `folder`, with its payload in data/, a bag that `info` describes."""
    payload = [path.relative_to(folder).as_posix() for path in folder.glob("data/**/*") if path.is_file()]
    (folder / "bagit.txt").write_bytes(VERSION)
    (folder / "bag-info.txt").write_bytes("".join(f"{key}: {value}\n" for key, value in info.items()).encode())
    for name, hashes in manifests(folder, payload):
        (folder / name).write_bytes(checksum_lines(hashes))


def manifests(folder: Path, payload: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each manifest's name, and path → hash of what it has to list, once those before it are written."""
    for prefix, names in {"manifest": sorted(payload), "tagmanifest": TAGS}.items():
        for algorithm in ALGORITHMS:
            yield f"{prefix}-{algorithm}.txt", {name: digest(folder / name, algorithm) for name in names}


def info_of(folder: Path) -> dict[str, str]:
    lines = (folder / "bag-info.txt").read_text(encoding="utf-8").splitlines()
    return {key: value for key, _, value in (line.partition(": ") for line in lines)}


def write_tar(folder: Path, name: str, to: Path) -> None:
    """Write the bag in `folder` as the folder `name` of the tar `to`, without owners and times."""
    with tarfile.open(to, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(folder, name, filter=lambda info: without_owner(info, info.isdir()))  # sorted in each folder


# Reading what anybody may have made: `Refused` carries all that is wrong


def unpack(tar: Path, into: Path) -> Path:
    """Return the one folder that `tar` holds, unpacked in `into`; nothing is written if it has more than plain files.

    A plain tar unpacks to no more than its own size; a sparse file in it could be a bomb.
    """
    with tarfile.open(tar, "r:") as opened:
        members = [without_owner(each, each.isdir()) for each in opened]
        with tar.open("rb") as file:
            file.seek(opened.offset)
            end = file.read(1 << 20)
        if not end or end.strip(b"\0") or opened.offset + len(end) < tar.stat().st_size:
            raise Refused("what follows its last file is not the zeros that end a tar, and nothing else")
        odd = [each.name for each in members if not (each.isdir() or is_plain(each))]
        roots = {each.name.partition("/")[0] for each in members}
        refuse([*(Problem(f"{name} is no plain file") for name in odd), *name_problems(it.name for it in members)])
        if len(roots) != 1:
            raise Refused(f"expected one folder in it, found {sorted(roots)}")
        opened.extraction_filter = lambda member, path: member  # as before 3.14: all of them are safe
        opened.extractall(into, members)
    return into / roots.pop()


def is_plain(member: tarfile.TarInfo) -> bool:
    return member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()


def files_in(folder: Path) -> list[str]:
    """Return the names of all files, sorted. Raises `Refused` for links, devices and names that are not safe."""
    paths = [Path(at, name) for at, *both in os.walk(folder) for names in both for name in names]
    modes = {path.relative_to(folder).as_posix(): path.lstat().st_mode for path in sorted(paths)}
    odd = [name for name, mode in modes.items() if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))]
    refuse([*(Problem(f"{name} is no plain file") for name in odd), *name_problems(modes)])
    return [name for name, mode in modes.items() if stat.S_ISREG(mode)]


def name_problems(names: Iterable[str]) -> Iterator[Problem]:
    """Yield which `names` some system would take for others, or for places outside."""
    seen = dict[str, str]()
    for name in names:
        key = normalize("NFKC", name).casefold()
        if UNSAFE.search(name) or any(category(letter)[0] == "C" for letter in name):
            yield Problem(f"{name!r} is an unsafe name")
        elif normalize("NFC", name) != name:
            yield Problem(f"{name!r} is not in Unicode's form NFC")
        elif key in seen:
            yield Problem(f"{name!r} is there twice" if seen[key] == name else f"{name!r} looks like {seen[key]!r}")
        seen.setdefault(key, name)
