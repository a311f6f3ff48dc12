"""What passes: also years later, elsewhere, by hand; and what does not for want of who is trusted, or for its time."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from release_tasks.errors import Refused
from release_tasks.evidence import authority, bag, copies, pack, seal, verify
from release_tasks.outcome import Result
from tests.conftest import Work
from tests.evidence.attacks import ATTACKS, Attack, Good, stamps, tarred
from tests.evidence.conftest import Verify

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime.now(UTC)


def failures(found: dict[str, Result]) -> dict[str, str]:
    return {name: result.message for name, result in found.items() if not result.is_pass}


def test_a_tar_passes_under_any_file_name(copied: Good, verified: Verify, tmp_path: Path) -> None:
    tar = tarred(copied).rename(tmp_path / "any name.tar")
    assert failures(verified(copied, tar)) == {}


def test_a_pack_restored_from_the_encrypted_copy_passes(copied: Good, verified: Verify, tmp_path: Path) -> None:
    from pyrage import decrypt_file, x25519

    identity = x25519.Identity.generate()
    recipients = [str(identity.to_public())]
    sums = copies.sums_of(copied.folder, "app-0.1.1", recipients)
    copies.write(copied.folder, sums, "app-0.1.1", recipients)
    decrypt_file(str(sums.with_suffix(".tar.age")), str(tmp_path / "restored.tar"), [identity])
    assert subprocess.run(["sha512sum", "--check", "--strict", sums.name], cwd=sums.parent).returncode == 0
    assert failures(verified(copied, tmp_path / "restored.tar")) == {}


def test_anchors_and_addenda_that_came_later_pass(copied: Good, verified: Verify) -> None:
    copied.stamp(copied.folder, "another")
    stamps(copied, {"a": "1"}, {"a": "2"})
    assert failures(verified(copied)) == {}


def test_the_bundle_of_another_way_of_git_to_pack_passes(copied: Good, verified: Verify, tmp_path: Path) -> None:
    """Other versions find other deltas, or compress otherwise: the objects are the same."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--bare", copied.bundle, clone], check=True)
    git = ["git", f"--git-dir={clone}", "-c", "core.compression=0", "-c", "pack.depth=0", "-c", "pack.window=0"]
    before = copied.bundle.read_bytes()
    argv = ["bundle", "create", "--quiet", "--version=3", copied.bundle, "refs/tags/v0.1.1"]
    subprocess.run([*git, *argv], check=True)
    assert copied.bundle.read_bytes() != before
    copied.close()
    assert failures(verified(copied)) == {}


def test_an_expired_certificate_passes_as_of_a_time_at_which_it_was_valid(good: Good, verified: Verify) -> None:
    found = failures(verified(good, at=NOW + timedelta(days=4000)))
    assert list(found) == ["timestamps"] and "certificate has expired" in found["timestamps"]
    assert failures(verified(good, at=NOW + timedelta(days=1))) == {}


def test_a_stamp_from_the_future_is_none(good: Good, verified: Verify) -> None:
    """Or the clock here is behind."""
    found = failures(verified(good, at=NOW - timedelta(days=1)))
    assert "not yet valid" in found["timestamps"] and re.search("tsa is of .*, after ", found["order_in_time"])


def test_a_stamp_from_before_the_commit_is_none(
    copied: Good, verified: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "token_time", lambda token: NOW - timedelta(days=1))
    assert (
        "tsa is of" in (found := failures(verified(copied)))["order_in_time"]
        and "before the commit" in found["order_in_time"]
    )


def test_a_key_signs_only_for_as_long_as_it_was_valid(good: Good, verified: Verify, tmp_path: Path) -> None:
    line = good.allowed.read_text()
    revoked, later = tmp_path / "revoked", tmp_path / "later"
    revoked.write_text(line.replace("namespaces", f'valid-before="{NOW - timedelta(days=2):%Y%m%d}",namespaces'))
    assert list(failures(verified(good, allowed=revoked))) == ["signature"]
    later.write_text(line.replace("namespaces", f'valid-before="{NOW + timedelta(days=2):%Y%m%d}",namespaces'))
    assert failures(verified(good, allowed=later, at=NOW + timedelta(days=9))) == {}, "it was stamped while valid"


def test_the_time_at_which_a_key_was_valid_is_read_by_older_openssh_too(
    good: Good, verified: Verify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 9.1 it reads no Z: "no key that was valid at …", of every good pack."""
    real = shutil.which("ssh-keygen")
    stub = tmp_path / "ssh-keygen"
    stub.write_text(f'#!/bin/sh\ncase "$*" in *Overify-time=*Z*) exit 255 ;; esac\nexec {real} "$@"\n')
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert failures(verified(good)) == {}


def test_who_is_trusted_has_to_come_from_outside(good: Good, verified: Verify, tmp_path: Path) -> None:
    found = failures(verified(good, allowed=None, ca=None))
    assert list(found) == ["signature", "timestamps"]
    assert "--allowed-signers" in found["signature"] and "--tsa-ca" in found["timestamps"]
    (tmp_path / "other").mkdir()
    found = failures(verified(good, ca=authority.make(tmp_path / "other")))
    assert list(found) == ["timestamps"]


def test_without_signature_and_stamp_it_passes_only_if_that_is_meant(copied: Good, verified: Verify) -> None:
    shutil.rmtree(copied.folder / "anchors")
    (copied.folder / bag.SIGNATURE).unlink()
    assert list(failures(verified(copied))) == ["signature", "timestamps"]
    assert failures(verified(copied, unsigned=True)) == {}


def test_what_is_not_safe_to_read_is_not_read(copied: Good, verified: Verify) -> None:
    (copied.folder / "link").symlink_to("/")
    assert {name: result.outcome for name, result in verified(copied).items()} == {"plain_files": "failed"}


def test_a_full_disk_is_no_fault_of_the_pack(copied: Good, verified: Verify, monkeypatch: pytest.MonkeyPatch) -> None:
    """A good pack was to be moved away."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bag, "unpack", full)
    with pytest.raises(OSError, match="No space left"):
        verified(copied, tarred(copied))


def test_the_source_may_have_names_that_are_no_utf_8(work: Work, tmp_path: Path) -> None:
    """It was built and signed, and never verified."""
    (work.root / os.fsdecode(b"caf\xe9.c")).write_text("int main;\n")
    work.git("add", "--all")
    work.git("commit", "--quiet", "--message", "a name")
    work.git("tag", "v0.1.1")
    (folder := tmp_path / "pack" / "data" / "source").mkdir(parents=True)
    work.git("archive", "--prefix=app-0.1.1/", f"--output={folder / 'app-0.1.1.tar'}", "v0.1.1")
    for name, text in {"SOURCE_TAG": "v0.1.1\n", "VERSION": "0.1.1\n"}.items():
        (folder.parent / name).write_text(text)
    (tmp_path / "pack" / "bagit.txt").touch()
    work.git("clone", "--quiet", "--bare", ".", str(tmp_path / "clone"))
    assert verify.source(verify.Pack(tmp_path / "pack", tmp_path)).endswith(" files")


def test_all_that_is_wrong_is_named(copied: Good, verified: Verify) -> None:
    for name in ("VERSION", "SOURCE_TAG"):
        (copied.folder / "data" / name).write_text("x\n")
    (copied.folder / "data" / "extra").touch()
    (copied.folder / bag.SIGNATURE).unlink()
    found = failures(verified(copied))
    assert list(found)[:3] == ["signature", "hashes", "history"]
    assert "data/extra is not listed" in found["hashes"]
    assert "data/VERSION" in found["hashes"] and "data/SOURCE_TAG" in found["hashes"]


def inv(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "invoke", "evidence.verify", *words]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})


def test_the_command_shows_a_row_for_each_check_and_exits_by_them(
    copied: Good, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs none of the release's repository: this one here is the layer's."""
    trusted = ("--allowed-signers", str(copied.allowed), "--tsa-ca", str(copied.ca))
    ran = inv(ROOT, str(copied.folder), *trusted)
    assert ran.returncode == 0 and "9 of 9 pass" in ran.stdout, ran.stdout + ran.stderr
    day = f"{datetime.now(UTC):%Y-%m-%d}"  # all of it: its midnight is before the stamp
    assert inv(ROOT, str(copied.folder), *trusted, "--at", day).returncode == 0
    monkeypatch.setenv("TZ", "JST-9")
    ran = inv(ROOT, str(copied.folder), *trusted, "--at", "2020-01-02T15:00", "--json")
    assert "as of 2020-01-02 15:00 UTC" in ran.stdout, "as a date alone is"
    ran = inv(ROOT, str(copied.folder), *trusted, "--at", "2020-01-02T15:00+01:00", "--json")
    assert "as of 2020-01-02 14:00 UTC" in ran.stdout
    (copied.folder / "data" / "VERSION").write_text("0.1.2\n")
    ran = inv(ROOT, str(copied.folder), *trusted, "--json")
    assert ran.returncode == 1 and "Traceback" not in ran.stdout + ran.stderr
    assert "inv evidence.verify" not in ran.stderr and "compare it with another copy" in ran.stderr
    rows = {row["name"]: row for row in json.loads(ran.stdout)}
    assert len(rows) == 9 and rows[verify.hashes.__doc__.rstrip(".")]["message"] == "data/VERSION is not as listed"
    ran = inv(ROOT, str(tmp_path / "nowhere"))
    assert ran.returncode == 1 and "Traceback" not in ran.stdout + ran.stderr


def test_by_hand_the_pack_passes_in_a_bare_environment(copied: Good, tmp_path: Path) -> None:
    """Exactly the commands of VERIFY.md, each of which is indented, one after the other."""
    text = (copied.folder / "data" / "VERIFY.md").read_text(encoding="utf-8")
    commands = [line.strip() for line in text.splitlines() if line.startswith(" " * 8)]
    assert len(commands) > 15 and "<" not in text.replace("< tagmanifest", "")
    shutil.copy(copied.allowed, tmp_path / "allowed_signers")
    shutil.copy(copied.ca, tmp_path / "roots.pem")
    ran = _bare(copied.folder, commands)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("Verification: OK") == 1 and 'Good "evidence-pack" signature for app' in ran.stdout
    assert re.search(r"^Time stamp: .* GMT$", ran.stdout, re.MULTILINE)
    assert bag.digest(copied.folder / bag.ROOT) in ran.stdout


@pytest.mark.parametrize("path", ["data/VERSION", "data/git/v0.1.1.bundle", "data/source/app-0.1.1.tar", bag.ROOT])
def test_by_hand_a_damaged_pack_does_not_pass(copied: Good, tmp_path: Path, path: str) -> None:
    text = (copied.folder / "data" / "VERIFY.md").read_text(encoding="utf-8")
    commands = [line.strip() for line in text.splitlines() if line.startswith(" " * 8)]
    shutil.copy(copied.allowed, tmp_path / "allowed_signers")
    shutil.copy(copied.ca, tmp_path / "roots.pem")
    content = bytearray((copied.folder / path).read_bytes())
    content[-1] ^= 1
    (copied.folder / path).write_bytes(content)
    assert _bare(copied.folder, commands).returncode != 0


@pytest.mark.parametrize("attack", [it for it in ATTACKS if it.check == "source"], ids=lambda attack: attack.name)
def test_by_hand_another_source_does_not_pass(copied: Good, attack: Attack) -> None:
    attack.change(copied)
    text = (copied.folder / "data" / "VERIFY.md").read_text(encoding="utf-8")
    steps = [text[text.index(begin) : text.index(end)] for begin, end in (("\n6. ", "\n7. "), ("\n8. ", "\n9. "))]
    commands = [line.strip() for step in steps for line in step.splitlines() if line.startswith(" " * 8)]
    ran = _bare(copied.folder, commands)
    assert ran.returncode != 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("at", ["source", "root", "bare"])
def test_by_hand_nothing_of_a_hostile_pack_is_run(copied: Good, tmp_path: Path, at: str) -> None:
    """`git add` ran what a .git/config in the source tar named, and no command failed."""
    pwned = tmp_path / "PWNED"
    run = f"touch {pwned}; false"
    config = f'[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tfsmonitor = "{run}"\n\tpager = "{run}"\n'
    config += f'\tsshCommand = "{run}"\n\thooksPath = "{tmp_path}/hooks"\n[pager]\n\tclone = "{run}"\n'
    files = {"config": config.encode(), "HEAD": b"ref: refs/heads/main\n", "objects/x": b"", "refs/x": b""}
    if at == "source":
        with tarfile.open(copied.source, "a:") as tar:
            for name, content in files.items():
                (info := tarfile.TarInfo(f"app-0.1.1/.git/{name}")).size = len(content)
                tar.addfile(info, io.BytesIO(content))
        copied.close()
    else:
        for name, content in files.items():
            (file := copied.folder / (".git" if at == "root" else "") / name).parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    text = (copied.folder / "data" / "VERIFY.md").read_text(encoding="utf-8")
    commands = [line.strip() for line in text.splitlines() if line.startswith(" " * 8)]
    shutil.copy(copied.allowed, tmp_path / "allowed_signers")
    shutil.copy(copied.ca, tmp_path / "roots.pem")
    ran = _bare(copied.folder, commands)
    assert not pwned.exists()
    assert ran.returncode != 0 and "config" in ran.stdout, "and it is named"
    for command in commands:  # somebody goes on after an error
        _bare(copied.folder, [command])
    assert not pwned.exists()


def test_by_hand_the_source_of_a_tree_with_a_submodule_passes(work: Work, tmp_path: Path) -> None:
    """It was called another tree: the source has an empty folder for a submodule."""
    text = (ROOT / "release_tasks/evidence/VERIFY.md").read_text(encoding="utf-8")
    work.git("update-index", "--add", "--cacheinfo", f"160000,{work.git('rev-parse', 'HEAD')},lib")
    work.git("commit", "--quiet", "--message", "a submodule")
    work.git("tag", "--annotate", "--message", "x", "v0.1.1")
    (data := tmp_path / "pack" / "data").mkdir(parents=True)
    pack.source(work.release(), data)
    text = text.replace("<name>", next(data.glob("source/*.tar")).stem).replace("<tag>", "v0.1.1")
    steps = [text[text.index(begin) : text.index(end)] for begin, end in (("\n6. ", "\n7. "), ("\n8. ", "\n9. "))]
    commands = [line.strip() for step in steps for line in step.splitlines() if line.startswith(" " * 8)]
    ran = _bare(data.parent, commands)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stdout + ran.stderr
    with tarfile.open(next(data.glob("source/*.tar")), "a:") as tar:
        tar.addfile(tarfile.TarInfo("app-0.1.1/lib/more"))
    ran = _bare(data.parent, commands[-4:])
    assert ran.returncode == 1 and ran.stdout.endswith("lib/more\n"), ran.stdout + ran.stderr


def _bare(folder: Path, commands: list[str]) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(["/usr/local/bin", "/usr/bin", "/bin"])
    argv = ["env", "-i", f"PATH={path}", "sh", "-e", "-c", "\n".join(commands)]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=120)


def test_an_index_is_verified_line_by_line(good: Good, tmp_path: Path) -> None:
    file, rows = tmp_path / "index.jsonl", [{"project": name, "version": "0.1.1"} for name in "abc"]
    assert seal.append(file, rows[:2], None, tmp_path, str(good.key)) == 2
    assert seal.append(file, rows, None, tmp_path, str(good.key)) == 1
    assert seal.append(file, rows, None, tmp_path, str(good.key)) == 0

    def check() -> Result:
        return next(verify.results(verify.Pack(file, tmp_path, good.allowed), (verify.index,)))

    assert check().observed[0].startswith("3 lines, app with ED25519 key SHA256:")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[1], lines[0], lines[2]]))
    seal.sign(file, tmp_path, str(good.key))
    assert "line 1 does not follow" in check().message
    file.write_bytes(b"".join(lines[:2]))
    assert "is not what app has signed" in check().message or "no key of" in check().message
    file.with_name("index.jsonl.sig").unlink()
    assert check().message == "index.jsonl is not signed" and check().hint.startswith("--unsigned   # accepts that, ")


def test_lines_that_were_not_signed_before_a_kill_are_signed_later(
    good: Good, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    file, rows = tmp_path / "index.jsonl", [{"project": name, "version": "0.1.1"} for name in "abc"]
    seal.append(file, rows[:2], None, tmp_path, str(good.key))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(seal, "sign", killed)
        seal.append(file, rows, None, tmp_path, str(good.key))
    assert seal.append(file, rows, None, tmp_path, str(good.key)) == 0
    assert seal.signer_of(file, good.allowed, NOW + timedelta(minutes=5)).startswith("app with ED25519 key SHA256:")


@pytest.mark.parametrize(("signed", "line"), [(True, -1), (False, 0)])
def test_what_somebody_has_changed_is_not_signed_anew(good: Good, tmp_path: Path, signed: bool, line: int) -> None:
    """It was: lines were added below, and all of them signed, so that a forged one passed."""
    file, key = tmp_path / "index.jsonl", str(good.key) if signed else ""
    rows = [{"project": name, "version": "0.1.1"} for name in "abc"]
    seal.append(file, rows[:2], None, tmp_path, key)
    lines = file.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b"0.1.1", b"6.6.6")
    file.write_bytes(b"".join(lines))
    with pytest.raises(
        Refused, match=r"index\.jsonl is not as it was left: (no key of|it is not what|index\.jsonl, line 2 does)"
    ):
        seal.append(file, rows, None, tmp_path, key)
    assert file.read_bytes() == b"".join(lines)
