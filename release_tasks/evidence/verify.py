"""Verify a pack alone, or an index of packs, whoever made it: nothing in it is trusted. Each check is a row."""

import errno
import hashlib
import json
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from release_tasks.errors import Problem, Refused, counted, listed, refuse
from release_tasks.evidence import bag, clone, seal
from release_tasks.files import checksum_lines, read_checksums
from release_tasks.masks import short
from release_tasks.outcome import FAILED, PASSED, Result

AGAIN = "Trust it only once this is explained; compare it with another copy."
OURS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EIO, errno.ESTALE)  # of this machine, and no fault of a pack
SKEW = timedelta(minutes=5)  # between the clocks of who committed, who stamped, and who verifies


@dataclass
class Pack:
    """A pack to verify with the `allowed` signers and the roots `ca` of authorities, as of `at`; `work` is ours."""

    path: Path
    work: Path
    allowed: Path | None = None
    ca: Path | None = None
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    unsigned: bool = False  # it need be neither signed nor stamped

    @cached_property
    def folder(self) -> Path:
        if self.path.is_dir() and not (self.path / "bagit.txt").exists():
            raise Refused("it is no evidence pack: it has no bagit.txt")
        try:
            return self.path if self.path.is_dir() else bag.unpack(self.path, self.work / "pack")
        except tarfile.ReadError as no:
            raise Refused(f"it cannot be read as a plain tar: {no}; decrypt a .age first, or unpack a .gz") from None

    @cached_property
    def ids(self) -> dict[str, Any]:
        """The ids of the release by the bundle; what a text of the pack says could be an option of git."""
        return clone.ids_of(self.work / "clone", self.text("data/VERSION"), self.text("data/SOURCE_TAG"))

    @cached_property
    def tagged(self) -> Counter[tuple[Any, ...]]:
        """The members of the tar that the bundle makes of the tagged tree."""
        (theirs,) = self.folder.glob("data/source/*.tar")
        sizes = (line.split()[3] for line in self.git("ls-tree", "-r", "-l", self.ids["commit"]).splitlines())
        if sum(int(size) for size in sizes if size.isdigit()) > theirs.stat().st_size:  # ours could be a bomb
            raise Refused(f"{theirs.name} is smaller than what is tagged")
        clone.archive(self.work / "clone", self.ids["commit"], ours := self.work / theirs.name)
        return Counter(_members(ours))

    @cached_property
    def times(self) -> dict[Path, datetime]:
        """Token → when an authority says that it was made."""
        return {token: seal.token_time(token) for token in sorted(self.folder.glob("anchors/*.tsr"))}

    @property
    def addenda(self) -> list[Path]:
        return sorted(self.folder.glob("addenda/*.jsonl"))

    def text(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8").strip()

    def git(self, *args: str | Path) -> str:
        return clone.git(self.work / "clone", *args)

    def allow_missing(self, what: str) -> str:
        """Return the sentence that `what` is lacking, where it may be. Raises `Refused` where it may not."""
        if not self.unsigned:
            raise Refused(what, "--unsigned   # accepts that, where it was made without a key or an authority")
        return f"{what}; --unsigned"

    def signer(self, file: Path, at: datetime) -> str:
        if not seal.signature_of(file).exists():
            return self.allow_missing(f"{file.name} is not signed")
        if not (self.allowed and self.allowed.exists()):
            raise Refused("no trusted signers are given: --allowed-signers FILE, from outside the pack")
        return seal.signer_of(file, self.allowed, at)


def plain_files(pack: Pack) -> str:
    """Only plain files, with names that are safe everywhere."""
    return counted(len(bag.files_in(pack.folder)), "file")


def signature(pack: Pack) -> str:
    """Signed by who may sign, its addenda too."""
    first = pack.signer(pack.folder / bag.ROOT, min([pack.at, *pack.times.values()]))
    return listed([first, *(pack.signer(file, pack.at) for file in pack.addenda)])


def hashes(pack: Pack) -> str:
    """The manifests are strict: exactly the files that are there, each with both its hashes."""
    names, needed = bag.files_in(pack.folder), {*bag.TAGS, "tagmanifest-sha256.txt", bag.ROOT}
    refuse(Problem(f"{name} is missing") for name in sorted(needed.difference(names)))
    payload = [name for name in names if name.startswith("data/")]
    wrong = {name: "not listed" for name in set(names).difference(payload, needed) if not bag.LATER.fullmatch(name)}
    if (pack.folder / "bagit.txt").read_bytes() != bag.VERSION:
        wrong["bagit.txt"] = "not of BagIt 1.0"
    for manifest, wanted in bag.manifests(pack.folder, payload):
        content = (pack.folder / manifest).read_bytes()
        found = read_checksums(content)
        for name in (each for each in found | wanted if found.get(each) != wanted.get(each)):
            wrong[name] = "not listed" if name not in found else "not as listed" if name in names else "missing"
        if found == wanted and content != checksum_lines(wanted):
            wrong[manifest] = "no strict manifest"
    refuse(Problem(f"{short(name, 300) or 'a name'} is {how}") for name, how in sorted(wrong.items()))
    return f"root {bag.digest(pack.folder / bag.ROOT)}"


def history(pack: Pack) -> str:
    """The bundle holds the tag and a whole history, in which git finds no fault."""
    tag = pack.text("data/SOURCE_TAG")
    bundle = f"data/git/{tag}.bundle"
    if bundle not in bag.files_in(pack.folder):
        raise Refused(f"{bundle} is not in it")
    pack.git("bundle", "list-heads", pack.folder / bundle)  # git would clone what a file with a gitdir: leads to, too
    pack.git("clone", "--quiet", "--bare", "--template=", pack.folder / bundle, pack.work / "clone")
    pack.git("fsck", "--full")
    if (refs := pack.git("for-each-ref", "--format=%(refname)")) != f"refs/tags/{tag}":
        raise Refused(f"expected refs/tags/{tag} in it, found {refs}")
    return tag


def names(pack: Pack) -> str:
    """Ids, SWHIDs, version, tag, name and copies of tagged files are those of the bundle."""
    info, ids, version = bag.info_of(pack.folder), pack.ids, pack.ids["version"]
    name = info["Internal-Sender-Identifier"]
    compared = {
        "ids.json": (json.loads(pack.text("data/ids.json")), ids),
        "VERSION": (version, pack.git("show", f"{ids['commit']}:VERSION").strip()),
        "External-Identifier": (info["External-Identifier"], ids["swhids"][0]),
        "Internal-Sender-Identifier": (name, f"{name.removesuffix(version)}{version}"),
    }
    if pack.path.is_file() or pack.folder.name.startswith(name.removesuffix(version)):
        compared["the folder"] = (pack.folder.name, name)
    for copy in ("HASHES.sha256.txt", "ddl/ORDER.lock"):
        found = bag.digest(pack.folder / "data" / copy, "sha256")
        wanted = [digest for path, *_, digest in pack.tagged if Path(path).name == Path(copy).name]
        compared[copy] = (found, found if found in wanted or not wanted else wanted[0])  # a submodule's are not in it
    wrong = {what: pair for what, pair in compared.items() if pair[0] != pair[1]}
    refuse(Problem(f"{what} is {found}, expected {wanted}") for what, (found, wanted) in wrong.items())
    return ", ".join(ids["swhids"])


def source(pack: Pack) -> str:
    """The source tar holds the tagged tree, byte for byte."""
    (tar,) = pack.folder.glob("data/source/*.tar")
    found = Counter(_members(tar))
    if wrong := sorted({path for path, *_ in (found - pack.tagged) + (pack.tagged - found)}):
        raise Refused(f"not as tagged: {listed(wrong)}")
    return counted(found.total(), "file")


def _members(path: Path) -> Iterator[tuple[Any, ...]]:
    """Yield of each member of a tar but folders: its name, type, right to be run, target, and the hash of a file."""
    with tarfile.open(path, "r:", encoding="utf-8") as tar:
        for each in tar:
            content: Any = tar.extractfile(each) if bag.is_plain(each) else None
            digest = hashlib.file_digest(content, "sha256").hexdigest() if content else ""
            if not each.isdir():
                yield each.name, each.type, each.mode & 0o100, each.linkname, digest


def timestamps(pack: Pack) -> str:
    """Stamped by a timestamp authority."""
    if not pack.times:
        return pack.allow_missing("no authority has stamped it")
    if not ((ca := pack.ca) and ca.exists()):
        raise Refused("no trusted authorities are given: --tsa-ca FILE, from outside the pack")
    refuse(each for token in pack.times for each in seal.token_problems(token, pack.folder / bag.ROOT, ca, pack.at))
    return ", ".join(f"{token.stem} at {at:%Y-%m-%d %H:%M:%S} UTC" for token, at in pack.times.items())


def order_in_time(pack: Pack) -> str:
    """Committed, then stamped, and all of it is past."""
    commit = datetime.fromtimestamp(int(pack.git("show", "--no-patch", "--format=%ct", pack.ids["commit"])), UTC)
    times = [("the commit", commit), *((token.stem, at) for token, at in pack.times.items())]
    refuse(Problem(f"{what} is of {at}, after {pack.at}") for what, at in times if at > pack.at + SKEW)
    refuse(Problem(f"{what} is of {at}, before the commit, {commit}") for what, at in times if at < commit - SKEW)
    return f"committed {commit:%Y-%m-%d %H:%M:%S} UTC"


def addenda(pack: Pack) -> str:
    """Addenda are chained to the pack."""
    root = bag.digest(pack.folder / bag.ROOT)
    return listed(f"{file.name}: {counted(len(seal.check_chain(file, root)), 'line')}" for file in pack.addenda)


def index(pack: Pack) -> str:
    """An index: each line follows the one before, and it is signed."""
    return f"{counted(len(seal.check_chain(pack.path, '')), 'line')}, {pack.signer(pack.path, pack.at)}"


CHECKS = (plain_files, signature, hashes, history, names, source, timestamps, order_in_time, addenda)


def results(pack: Pack, checks: tuple[Any, ...] = CHECKS) -> Iterator[Result]:
    """Yield the result of each check, of the first one alone where that does not pass: the rest is not safe to read."""
    for check in checks:
        name, began = str(check.__doc__).rstrip("."), time.monotonic()
        outcome, observed, problem, hint = FAILED, "", "", AGAIN
        try:
            observed, outcome, hint = check(pack), PASSED, ""
        except Refused as no:
            problem, hint = listed((each.what for each in no.problems), 20), no.problems[0].hint or AGAIN
        except Exception as error:  # a hostile file may be wrong in any way
            if getattr(error, "errno", None) in OURS:
                raise
            problem = f"it cannot be read: {short(repr(error))}"
        yield Result(name, outcome, _shown(problem), hint, (_shown(observed),), time.monotonic() - began)
        if outcome == FAILED and check is plain_files:
            return


def damage(pack: Pack, swhid: str = "", hashed: bool = True) -> list[Problem]:
    """Return what is wrong with `pack` by itself, or that it is not of `swhid`; files are read only to be `hashed`."""
    found = results(pack, (plain_files, hashes, addenda) if hashed else (plain_files, addenda))
    wrong = [each.message for each in found if not each.is_pass]
    if swhid and not wrong and (other := bag.info_of(pack.folder).get("External-Identifier")) != swhid:
        wrong = [f"it is of {other}, expected {swhid}, the tag here"]
    hint = f"Bring {pack.path} back from a copy; else move it away, keep it, and: inv archive --version VERSION"
    return [Problem(f"{pack.path}: {each}.", hint) for each in wrong]


def _shown(text: str) -> str:
    """Return a text in one line, without what would control a terminal: some of it is from the pack."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in " ".join(text.split()))
