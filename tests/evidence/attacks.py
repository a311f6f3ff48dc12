"""Hostile and damaged packs: each attack changes one good pack, and names the check that has to refuse it, and why.

An insider has the key: after the attack all manifests, the signature and the timestamp are made anew.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from release_tasks.evidence import authority, bag, seal

MANIFESTS = tuple(f"manifest-{algorithm}.txt" for algorithm in bag.ALGORITHMS)
TAGMANIFESTS = tuple(f"tag{name}" for name in MANIFESTS)


@dataclass(frozen=True)
class Good:
    """A pack in `folder`; who may sign and stamp it; the key, and the authority beside `ca`."""

    folder: Path
    key: Path
    allowed: Path
    ca: Path

    def copy(self, to: Path) -> Good:
        shutil.copytree(self.folder, to / self.folder.name, symlinks=True)
        return replace(self, folder=to / self.folder.name)

    def stamp(self, folder: Path, name: str = "tsa", file: str = bag.ROOT, digest: str = "-sha512") -> None:
        (folder / "anchors").mkdir(exist_ok=True)
        query = folder / "anchors" / f"{name}.tsq"
        argv = ["openssl", "ts", "-query", "-data", str(folder / file), digest, "-cert", "-out", str(query)]
        subprocess.run(argv, check=True, capture_output=True)
        authority.reply(self.ca.parent, query)

    def seal(self) -> None:
        """Sign and stamp the pack anew, as an insider can."""
        seal.sign(self.folder / bag.ROOT, self.folder, str(self.key))
        self.stamp(self.folder)

    def close(self) -> None:
        """Write all manifests anew, and sign and stamp them."""
        bag.close(self.folder, bag.info_of(self.folder))
        self.seal()

    def relist(self) -> None:
        """Write the tag manifests anew for manifests that were changed by hand, sign and stamp them."""
        for algorithm in bag.ALGORITHMS:
            lines = [f"{bag.digest(self.folder / name, algorithm)}  {name}\n" for name in bag.TAGS]
            (self.folder / f"tagmanifest-{algorithm}.txt").write_text("".join(lines))
        self.seal()

    @property
    def bundle(self) -> Path:
        return self.folder / "data" / "git" / "v0.1.1.bundle"

    @property
    def source(self) -> Path:
        return self.folder / "data" / "source" / "app-0.1.1.tar"

    @property
    def token(self) -> Path:
        return self.folder / "anchors" / "tsa.tsr"


@dataclass(frozen=True)
class Attack:
    """`change` makes a pack bad, or returns a tar that is; `check` refuses it with `reason`, a regular expression."""

    name: str
    check: str
    reason: str
    change: Callable[[Good], Path | None]


ATTACKS: list[Attack] = []


def attack(check: str, reason: str) -> Callable[[Callable[[Good], Path | None]], Callable[[Good], Path | None]]:
    def add(change: Callable[[Good], Path | None]) -> Callable[[Good], Path | None]:
        ATTACKS.append(Attack(change.__name__.replace("_", " ").strip(), check, reason, change))
        return change

    return add


def appended(path: Path, content: bytes = b"x") -> None:
    path.write_bytes(path.read_bytes() + content)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:-size])


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert re.search(old, text)
    path.write_bytes(re.sub(old, new, text, count=1).encode())


# Of who has no key


@attack("hashes", "data/VERSION is not as listed")
def a_tampered_file(good: Good) -> None:
    (good.folder / "data" / "VERSION").write_text("0.1.2\n")


@attack("hashes", "data/source/app-0.1.1.tar is not as listed")
def one_flipped_bit(good: Good) -> None:
    content = bytearray(good.source.read_bytes())
    content[len(content) // 2] ^= 1
    good.source.write_bytes(content)


@attack("hashes", "data/source/app-0.1.1.tar is not as listed")
def a_truncated_file(good: Good) -> None:
    cut(good.source, 1000)


@attack("hashes", "data/extra is not listed")
def an_extra_file(good: Good) -> None:
    (good.folder / "data" / "extra").touch()


@attack("hashes", "fetch.txt is not listed")
def an_extra_file_beside_the_payload(good: Good) -> None:
    """RFC 8493 would fetch what it lists."""
    (good.folder / "fetch.txt").write_text("https://example.invalid/x 1 data/x\n")


@attack("hashes", "data/extra.sig is not listed")
def an_extra_file_that_looks_like_a_signature(good: Good) -> None:
    (good.folder / "data" / "extra.sig").touch()


@attack("names", "\N{REPLACEMENT CHARACTER}")
def a_text_that_controls_the_terminal(good: Good) -> None:
    (good.folder / "data" / "VERSION").write_text("0.1.1\x1b[2Jgood\n")
    good.close()


@attack("hashes", "manifest-md5.txt is not listed")
def a_weak_manifest_beside_the_strong(good: Good) -> None:
    (good.folder / "manifest-md5.txt").touch()


@attack("hashes", r"anchors/run\.sh is not listed")
def a_program_among_the_anchors(good: Good) -> None:
    (good.folder / "anchors" / "run.sh").write_text("#!/bin/sh\n")


@attack("hashes", "data/notes/v0.1.1.md is missing")
def a_missing_file(good: Good) -> None:
    (good.folder / "data" / "notes" / "v0.1.1.md").unlink()


@attack("hashes", "data/journal.jsonl is not as listed")
def an_edited_journal(good: Good) -> None:
    edited(good.folder / "data" / "journal.jsonl", '"Tag"', '"Tug"')


@attack("plain_files", "data/SOURCE_TAG is no plain file")
def a_symlink_with_the_same_content(good: Good) -> None:
    file = good.folder / "data" / "SOURCE_TAG"
    file.rename(good.folder.parent / "elsewhere")
    file.symlink_to(good.folder.parent / "elsewhere")


@attack("plain_files", "data/checks is no plain file")
def a_folder_that_is_a_link(good: Good) -> None:
    folder = good.folder / "data" / "checks"
    folder.rename(good.folder.parent / "elsewhere")
    folder.symlink_to(good.folder.parent / "elsewhere", target_is_directory=True)


@attack("plain_files", "data/pipe is no plain file")
def a_named_pipe(good: Good) -> None:
    os.mkfifo(good.folder / "data" / "pipe")


@attack("plain_files", "'data/version' looks like 'data/VERSION'")
def names_equal_but_for_case(good: Good) -> None:
    (good.folder / "data" / "version").write_text("0.1.1\n")
    good.close()


@attack("plain_files", r"'data/ＶERSION' looks like 'data/VERSION'")
def names_that_look_alike(good: Good) -> None:
    (good.folder / "data" / "ＶERSION").write_text("0.1.1\n")
    good.close()


@attack("plain_files", "is not in Unicode's form NFC")
def a_name_that_is_not_nfc(good: Good) -> None:
    (good.folder / "data" / unicodedata.normalize("NFD", "é")).touch()
    good.close()


@attack("plain_files", "is an unsafe name")
def a_name_that_is_shown_backwards(good: Good) -> None:
    (good.folder / "data" / "gpj.\u202eexe").touch()
    good.close()


@attack("signature", "not what app has signed|no key of allowed_signers")
def a_signature_of_something_else(good: Good) -> None:
    appended(good.folder / bag.ROOT, b"\n")


@attack("signature", "tagmanifest-sha512.txt is not signed")
def no_signature(good: Good) -> None:
    (good.folder / bag.SIGNATURE).unlink()


@attack("signature", "no key of allowed_signers")
def a_torn_signature(good: Good) -> None:
    cut(good.folder / bag.SIGNATURE, 60)


@attack("signature", "no key of allowed_signers .* has signed it")
def another_key(good: Good) -> None:
    seal.sign(good.folder / bag.ROOT, good.folder, str(good.key.with_name("other")))


@attack("signature", "no key of allowed_signers .* has signed it")
def a_replaced_allowed_signers(good: Good) -> None:
    """The pack's own copy proves nothing."""
    other = good.key.with_name("other")
    copy = good.folder / "data" / "keys" / "allowed_signers"
    copy.write_bytes(seal.allowed_signers("app", good.folder, str(other)))
    replace(good, key=other).close()


@attack("signature", "not what app has signed")
def a_signature_of_another_namespace(good: Good) -> None:
    (good.folder / bag.SIGNATURE).unlink()
    argv = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(good.key), "-n", "git", str(good.folder / bag.ROOT)]
    subprocess.run(argv, check=True)


@attack("timestamps", "no authority has stamped it")
def no_anchor_at_all(good: Good) -> None:
    shutil.rmtree(good.folder / "anchors")


@attack("signature", "^z.tsr: no time can be read in it$")
def an_empty_token_beside_the_good(good: Good) -> None:
    good.token.with_name("z.tsr").touch()


@attack("timestamps", "^tsa.tsr: no time can be read in it$")
def a_truncated_token(good: Good) -> None:
    cut(good.token, 50)


@attack("timestamps", "imprint mismatch")
def the_anchor_of_another_pack(good: Good) -> None:
    good.stamp(good.folder, file="bagit.txt")


@attack("timestamps", "imprint mismatch")
def a_second_anchor_of_another_pack(good: Good) -> None:
    good.stamp(good.folder, "second", "bagit.txt")


@attack("timestamps", "^tsa.tsr: its hash algorithm is sha1$")
def a_token_over_a_weak_hash(good: Good) -> None:
    good.stamp(good.folder, digest="-sha1")


@attack("timestamps", "self-signed certificate|certificate verify error")
def a_token_of_another_authority(good: Good) -> None:
    folder = good.folder.parent / "another"
    folder.mkdir()
    replace(good, ca=authority.make(folder)).stamp(good.folder)


# Of an insider, who has the key


def listed_too(good: Good, name: str) -> None:
    """List `name` in both manifests, and sign them."""
    for manifest, digits in zip(MANIFESTS, (64, 128), strict=True):
        appended(good.folder / manifest, f"{'0' * digits}  {name}\n".encode())
    good.relist()


def lists(name: str, title: str, how: str = "missing") -> None:
    reason = rf"{re.escape(' '.join(name.split()))} is {how}(,|$)"
    ATTACKS.append(Attack(f"a manifest that lists {title}", "hashes", reason, lambda good: listed_too(good, name)))


lists("data/../../etc/passwd", "a path with ../")
lists("/etc/passwd", "an absolute path")
lists("data//x", "an empty folder")
lists("data/./x", "a dot")
lists("~/x", "a home")
lists("data/~root/x", "a home within")
lists("data\\..\\x", "backslashes")
lists("data/..\\x", "a backslash within")
lists("C:/x", "a drive")
lists("data/C:x", "a drive within")
lists("DATA/x", "another payload folder")
lists("data/version", "a name equal but for case")
lists("data/VERSION", "a name twice", "not as listed")
lists("manifest-sha256.txt", "itself", "not as listed")
lists("data/x", "a file that is not there")
lists("data/tab\there", "a control character")


@attack("hashes", "data/VERSION is not listed")
def manifests_with_crlf(good: Good) -> None:
    for name in MANIFESTS:
        path = good.folder / name
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    good.relist()


@attack("hashes", "^manifest-sha256.txt is no strict manifest, manifest-sha512.txt is no strict manifest$")
def a_manifest_without_its_last_line_end(good: Good) -> None:
    for name in MANIFESTS:
        cut(good.folder / name, 1)
    good.relist()


@attack("hashes", "^a name is missing, .*data/VERSION is not listed")
def a_manifest_that_is_no_text(good: Good) -> None:
    (good.folder / "manifest-sha512.txt").write_bytes(b"\xff")
    good.relist()


@attack("hashes", "^manifest-sha256.txt is no strict manifest, manifest-sha512.txt is no strict manifest$")
def manifests_in_another_order(good: Good) -> None:
    for name in MANIFESTS:
        path = good.folder / name
        path.write_bytes(b"".join(reversed(path.read_bytes().splitlines(keepends=True))))
    good.relist()


@attack("hashes", "^tagmanifest-sha512.txt is not as listed$")
def a_tag_manifest_that_lists_itself(good: Good) -> None:
    appended(good.folder / bag.ROOT, f"{'0' * 128}  {bag.ROOT}\n".encode())
    good.seal()


@attack("hashes", "^data/VERSION is not listed$")
def a_file_in_one_manifest_only(good: Good) -> None:
    path = good.folder / "manifest-sha512.txt"
    path.write_text("".join(line for line in path.open() if not line.endswith("data/VERSION\n")))
    good.relist()


@attack("hashes", "^manifest-sha512.txt is missing$")
def a_missing_algorithm(good: Good) -> None:
    (good.folder / "manifest-sha512.txt").unlink()


@attack("hashes", "data/VERSION is not as listed")
def one_of_two_hashes_is_wrong(good: Good) -> None:
    path = good.folder / "manifest-sha256.txt"
    path.write_text(re.sub(r"[0-9a-f]{64}(?=  data/VERSION)", "0" * 64, path.read_text()))
    good.relist()


@attack("hashes", "bagit.txt is not of BagIt 1.0")
def another_kind_of_bag(good: Good) -> None:
    edited(good.folder / "bagit.txt", "1.0", "0.9")
    good.relist()


@attack("history", "^git clone: .*fatal: ")
def a_truncated_bundle_with_fresh_hashes(good: Good) -> None:
    cut(good.bundle, 40)
    good.close()


def _cloned(good: Good) -> Path:
    clone = good.folder.parent / "clone"
    subprocess.run(["git", "clone", "--quiet", "--bare", "--template=", good.bundle, clone], check=True)
    good.bundle.unlink()
    return clone


@attack("history", "^git bundle: .*v0.1.1.bundle' does not look like")
def a_bundle_that_leads_to_a_repository_elsewhere(good: Good) -> None:
    """Git follows it, so that there was no history in the pack at all."""
    good.bundle.write_text(f"gitdir: {_cloned(good)}\n")
    good.close()


@attack("history", "^data/git/v0.1.1.bundle is not in it$")
def a_repository_instead_of_a_bundle(good: Good) -> None:
    clone = _cloned(good)
    for name in ("HEAD", "config", "packed-refs"):
        good.bundle.mkdir(exist_ok=True)
        shutil.copy(clone / name, good.bundle / name)
    (good.bundle / "refs").mkdir()
    (good.bundle / "refs" / "kept").touch()
    (good.bundle / "objects" / "info").mkdir(parents=True)
    (good.bundle / "objects" / "info" / "alternates").write_text(f"{clone}/objects\n")
    good.close()


@attack("source", "^app-0.1.1.tar is smaller than what is tagged$")
def a_tagged_bomb(good: Good) -> None:
    """A small bundle made the verifier write a tar of any size."""
    clone = _cloned(good)

    def git(*words: str, content: bytes = b"") -> str:
        ran = subprocess.run(["git", f"--git-dir={clone}", *words], input=content, capture_output=True, check=True)
        return ran.stdout.decode().strip()

    blob = git("hash-object", "-w", "--stdin", content=bytes(1 << 20))
    tree = git("mktree", content="".join(f"100644 blob {blob}\tz{number}\n" for number in range(9)).encode())
    who = ("-c", "user.name=x", "-c", "user.email=x@example.invalid")
    commit = git(*who, "commit-tree", "-m", "x", tree)
    git(*who, "tag", "--force", "--annotate", "--message", "x", "v0.1.1", commit)
    git("bundle", "create", "--quiet", str(good.bundle), "v0.1.1")
    good.close()


@attack("history", "expected refs/tags/v0.1.1 in it, found")
def a_bundle_with_another_branch(good: Good) -> None:
    clone = good.folder.parent / "clone"
    subprocess.run(["git", "clone", "--quiet", "--bare", good.bundle, clone], check=True)
    git = ["git", f"--git-dir={clone}"]
    subprocess.run([*git, "branch", "other", "v0.1.1"], check=True)
    subprocess.run([*git, "bundle", "create", "--quiet", good.bundle, "v0.1.1", "other"], check=True)
    good.close()


@attack("history", "^git fsck: .*duplicateEntries")
def a_history_in_which_a_tree_names_a_file_twice(good: Good) -> None:
    """Whoever checks it out gets another one of the two than who reads it."""
    clone = good.folder.parent / "clone"
    subprocess.run(["git", "clone", "--quiet", "--bare", good.bundle, clone], check=True)

    def git(*words: str, content: bytes = b"") -> str:
        ran = subprocess.run(["git", f"--git-dir={clone}", *words], input=content, capture_output=True, check=True)
        return ran.stdout.decode().strip()

    blobs = [git("hash-object", "-w", "--stdin", content=each) for each in (b"one", b"two")]
    tree = b"".join(b"100644 file\0" + bytes.fromhex(each) for each in blobs)
    twice = git("hash-object", "-t", "tree", "-w", "--stdin", "--literally", content=tree)
    who = ("-c", "user.name=x", "-c", "user.email=x@example.invalid")
    commit = git(*who, "commit-tree", "-m", "x", twice)
    git(*who, "tag", "--force", "--annotate", "--message", "x", "v0.1.1", commit)
    git("bundle", "create", "--quiet", str(good.bundle), "v0.1.1")
    good.close()


@attack("source", "not as tagged: app-0.1.1/CHANGELOG.md$")
def a_source_tar_altered_with_fresh_hashes(good: Good) -> None:
    content = good.source.read_bytes()
    assert b"0.1.1\n" in content
    good.source.write_bytes(content.replace(b"0.1.1\n", b"0.1.2\n", 1))
    good.close()


def retar(good: Good, *more: tarfile.TarInfo, without: str = "") -> None:
    """Write the source tar anew with `more` in it."""
    content = io.BytesIO(good.source.read_bytes())
    with tarfile.open(fileobj=content) as old, tarfile.open(good.source, "w", pax_headers=old.pax_headers) as new:
        for each in old:
            if not without or not each.name.endswith(without):
                new.addfile(each, old.extractfile(each) if each.isreg() else None)
        for each in more:
            new.addfile(each, io.BytesIO(bytes(each.size)))
    good.close()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@attack("source", r"not as tagged: \.\./evil")
def a_source_tar_that_leads_outside(good: Good) -> None:
    retar(good, entry("../evil"))


@attack("source", "not as tagged: app-0.1.1/dev")
def a_source_tar_with_a_device(good: Good) -> None:
    retar(good, entry("app-0.1.1/dev", tarfile.CHRTYPE))


@attack("source", "not as tagged: app-0.1.1/hard")
def a_source_tar_with_a_hard_link(good: Good) -> None:
    retar(good, entry("app-0.1.1/hard", tarfile.LNKTYPE, "app-0.1.1/VERSION"))


@attack("source", "not as tagged: app-0.1.1/VERSION")
def a_source_tar_with_a_file_twice(good: Good) -> None:
    retar(good, entry("app-0.1.1/VERSION", size=3))


@attack("source", "not as tagged: app-0.1.1/kept.log")
def a_source_tar_that_lacks_a_file(good: Good) -> None:
    retar(good, without="kept.log")


@attack("names", "ids.json is")
def ids_of_another_commit(good: Good) -> None:
    edited(good.folder / "data" / "ids.json", '"commit": "[0-9a-f]{8}', '"commit": "00000000')
    good.close()


@attack("names", "VERSION is 0.1.2, expected 0.1.1")
def another_version_than_tagged(good: Good) -> None:
    (good.folder / "data" / "VERSION").write_text("0.1.2\n")
    good.close()


@attack("names", r"HASHES\.sha256\.txt is [0-9a-f]{64}, expected [0-9a-f]{64}$")
def other_hashes_of_the_documents(good: Good) -> None:
    (good.folder / "data" / "HASHES.sha256.txt").write_text(f"{'0' * 64}  VERSION\n")
    good.close()


@attack("names", r"ddl/ORDER\.lock is [0-9a-f]{64}, expected [0-9a-f]{64}$")
def another_order_of_the_ddl_files(good: Good) -> None:
    (good.folder / "data" / "ddl" / "ORDER.lock").write_text("# nothing\n")
    good.close()


@attack("history", "v0.1.2")
def another_tag_than_bundled(good: Good) -> None:
    (good.folder / "data" / "SOURCE_TAG").write_text("v0.1.2\n")
    good.close()


@attack("names", "External-Identifier is swh:1:rel:0")
def another_swhid(good: Good) -> None:
    edited(good.folder / "bag-info.txt", "swh:1:rel:[0-9a-f]+", "swh:1:rel:" + "0" * 40)
    good.relist()


@attack("names", "Internal-Sender-Identifier is app-0.1.0")
def the_name_of_another_version(good: Good) -> None:
    edited(good.folder / "bag-info.txt", "app-0.1.1", "app-0.1.0")
    good.relist()


@attack("names", "the folder is app-0.1.2, expected app-0.1.1")
def the_pack_of_another_version_renamed(good: Good) -> Path:
    return good.folder.rename(good.folder.with_name("app-0.1.2"))


@attack("names", "cannot be read: RecursionError|it cannot be read")
def json_that_is_deep(good: Good) -> None:
    (good.folder / "data" / "ids.json").write_text("[" * 100_000)
    good.close()


@attack("names", "ids.json is")
def ids_that_are_options(good: Good) -> None:
    edited(good.folder / "data" / "ids.json", '"commit": "[0-9a-f]+', f'"commit": "--output={good.folder.parent}/evil')
    good.close()


@attack("history", "^data/git/../../../evil.bundle is not in it$")
def a_tag_that_leads_outside(good: Good) -> None:
    (good.folder / "data" / "SOURCE_TAG").write_text("../../../evil\n")
    shutil.copy(good.bundle, good.folder.parent / "evil.bundle")
    good.close()


@attack("names", "cannot be read: FileNotFoundError")
def no_ids(good: Good) -> None:
    (good.folder / "data" / "ids.json").unlink()
    good.close()


# Addenda


def stamps(good: Good, *rows: dict[str, str], first: str = "") -> Path:
    """Write an addendum of `rows` that is chained, and sign it."""
    file, lines = good.folder / "addenda" / "stamps.jsonl", list[bytes]()
    previous = first or hashlib.sha512((good.folder / bag.ROOT).read_bytes()).hexdigest()
    for row in rows:
        lines.append(json.dumps({"previous": previous, **row}).encode())
        previous = hashlib.sha512(lines[-1]).hexdigest()
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    seal.sign(file, good.folder, str(good.key))
    return file


@attack("addenda", "line 1 does not follow")
def the_addendum_of_another_pack(good: Good) -> None:
    stamps(good, {"a": "1"}, first="0" * 128)


@attack("addenda", "line 2 does not follow")
def reordered_addenda(good: Good) -> None:
    file = stamps(good, {"a": "1"}, {"a": "2"}, {"a": "3"})
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[2] + lines[1])
    seal.sign(file, good.folder, str(good.key))


@attack("addenda", "line 2 does not follow")
def an_edited_addendum(good: Good) -> None:
    edited(stamps(good, {"a": "1"}, {"a": "2"}), '"a": "1"', '"a": "9"')


@attack("signature", "stamps.jsonl is not signed")
def an_addendum_without_a_signature(good: Good) -> None:
    stamps(good, {"a": "1"}).with_name("stamps.jsonl.sig").unlink()


@attack("signature", "not what app has signed")
def an_addendum_that_was_shortened(good: Good) -> None:
    file = stamps(good, {"a": "1"}, {"a": "2"})
    file.write_bytes(file.read_bytes().splitlines(keepends=True)[0])


# As a tar


def tarred(good: Good, *more: tarfile.TarInfo, name: str = "app-0.1.1") -> Path:
    tar = good.folder.parent / "app-0.1.1.tar"
    bag.write_tar(good.folder, name, tar)
    with tarfile.open(tar, "a") as opened:
        for each in more:
            opened.addfile(each, io.BytesIO(bytes(each.size)))
    return tar


def tar_with(entry: tarfile.TarInfo, reason: str, title: str) -> None:
    ATTACKS.append(Attack(f"a tar with {title}", "plain_files", reason, lambda good: tarred(good, entry)))


tar_with(entry("../evil"), r"'\.\./evil' is an unsafe name", "a path that leads outside")
tar_with(entry("/tmp/evil"), "'/tmp/evil' is an unsafe name", "an absolute path")
tar_with(entry("app-0.1.1/l", tarfile.SYMTYPE, "/etc/passwd"), "app-0.1.1/l is no plain file", "a symlink")
tar_with(entry("app-0.1.1/l", tarfile.LNKTYPE, "/etc/passwd"), "app-0.1.1/l is no plain file", "a hard link")
tar_with(entry("app-0.1.1/d", tarfile.BLKTYPE), "app-0.1.1/d is no plain file", "a device")
tar_with(entry("app-0.1.1/s", tarfile.GNUTYPE_SPARSE), "no plain file|cannot be read", "a sparse file, a bomb")
tar_with(entry("another/x"), r"expected one folder in it, found \['another', 'app-0.1.1'\]", "a second folder")
tar_with(entry("app-0.1.1/data/VERSION"), "'app-0.1.1/data/VERSION' is there twice", "a file twice")
tar_with(entry("app-0.1.1/DATA/x"), "'data' looks like 'DATA'", "a folder equal but for case")


@attack("names", "the folder is another, expected app-0.1.1")
def a_tar_with_the_wrong_root_folder(good: Good) -> Path:
    return tarred(good, name="another")


@attack("plain_files", "not the zeros that end a tar")
def a_tar_after_the_tar(good: Good) -> Path:
    """GNU tar's --ignore-zeros unpacks both."""
    tar = tarred(good)
    tar.write_bytes(2 * tar.read_bytes())
    return tar


@attack("plain_files", "cannot be read|not the zeros")
def a_truncated_tar(good: Good) -> Path:
    tar = tarred(good)
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    return tar


@attack("plain_files", "as a plain tar: .*; decrypt a .age first, or unpack a .gz$")
def a_compressed_tar(good: Good) -> Path:
    """It could be a bomb."""
    packed = good.folder.parent / "app-0.1.1.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(good.folder, "app-0.1.1")
    return packed
