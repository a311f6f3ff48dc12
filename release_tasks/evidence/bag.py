"""The form of a pack: a BagIt 1.0 bag (RFC 8493) and a plain tar of it. The same content makes the same bytes."""

import hashlib
import tarfile
from pathlib import Path
from typing import BinaryIO

from release_tasks.files import checksum_lines, sha256

ALGORITHMS = ("sha256", "sha512")
MANIFESTS = {f"manifest-{algorithm}.txt": algorithm for algorithm in ALGORITHMS}
TAGMANIFESTS = {f"tag{name}": algorithm for name, algorithm in MANIFESTS.items()}
ROOT = "tagmanifest-sha512.txt"  # its SHA-512 is the pack root: it covers every file of the bag
SIGNATURE = f"{ROOT}.sig"
OTHERS = ("bagit.txt", "bag-info.txt", SIGNATURE)  # all that is in the folder beside data/ when the bag is closed
VERSION = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
ANCHORS, ADDENDA = "anchors", "addenda"  # folders that may grow after the bag is closed


def digests(path: Path) -> dict[str, str]:
    """Return algorithm → hash of the file `path`, which is read once, piece by piece."""
    hashes = {algorithm: hashlib.new(algorithm) for algorithm in ALGORITHMS}
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            for each in hashes.values():
                each.update(piece)
    return {algorithm: each.hexdigest() for algorithm, each in hashes.items()}


def close(folder: Path, info: dict[str, str]) -> None:
    """Make `folder`, with its payload in data/, a bag that `info` describes."""
    payload = sorted((path for path in (folder / "data").rglob("*") if path.is_file()), key=lambda it: it.as_posix())
    oxum = f"{sum(path.stat().st_size for path in payload)}.{len(payload)}"
    (folder / "bagit.txt").write_bytes(VERSION)
    described = "".join(f"{key}: {value}\n" for key, value in (info | {"Payload-Oxum": oxum}).items())
    (folder / "bag-info.txt").write_bytes(described.encode())
    _list(folder, payload, MANIFESTS)
    _list(folder, [folder / name for name in sorted(("bagit.txt", "bag-info.txt", *MANIFESTS))], TAGMANIFESTS)


def _list(folder: Path, files: list[Path], manifests: dict[str, str]) -> None:
    found = {path.relative_to(folder).as_posix(): digests(path) for path in files}
    for name, algorithm in manifests.items():
        (folder / name).write_bytes(checksum_lines({path: each[algorithm] for path, each in found.items()}))


def root_of(folder: Path) -> str:
    """Return the pack root: the one hash that stands for all of the pack."""
    return digests(folder / ROOT)["sha512"]


def info_of(folder: Path) -> dict[str, str]:
    """Return what bag-info.txt says."""
    lines = (folder / "bag-info.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split(": ", 1) for line in lines)


def state_of(folder: Path) -> str:
    """Return what changes with every file that is added after the bag is closed: signature, anchors, addenda."""
    after = [folder / SIGNATURE, *folder.glob(f"{ANCHORS}/*"), *folder.glob(f"{ADDENDA}/*")]
    found = {path.relative_to(folder).as_posix(): digests(path)["sha256"] for path in after if path.is_file()}
    return sha256(checksum_lines({ROOT: root_of(folder), **dict(sorted(found.items()))}))


def write_tar(folder: Path, name: str, to: BinaryIO) -> None:
    """Write the bag in `folder` as the folder `name` of a tar without owners and times."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid, info.gid, info.uname, info.gname, info.mtime = 0, 0, "", "", 0
        info.mode = 0o755 if info.isdir() else 0o644
        return info

    with tarfile.open(fileobj=to, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        tar.add(folder, name, filter=plain)  # sorted in each folder
