"""Section 9: the pack is built once, stamped, and kept; whatever is away is done later, what is damaged is named."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from release_tasks.errors import Refused
from release_tasks.evidence import authority, bag, seal, verify
from release_tasks.evidence.settings import Evidence
from release_tasks.files import file_hashes
from release_tasks.machine import point_link
from release_tasks.outcome import CHANGED, DONE, MANUAL, PENDING, REFUSED, Outcome
from release_tasks.sections import archive

if TYPE_CHECKING:
    from release_tasks.release import Release
    from tests.conftest import Web, Work


@pytest.fixture
def release(work: Work, web: Web, dsn: str) -> Release:
    """Return a release that is tagged, has its notes, and runs in production."""
    env = {"dsn": dsn, "origin": web.origin, "folder": "srv", "restart": ["true"], "log": "none"}
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create schema ops")
        connection.execute("create table ops.ddl_ledger (file text, sha256 text, version text, applied_at timestamptz)")
        connection.execute("insert into ops.ddl_ledger values ('ddl/00.sql', '00', '0.1.1', '2026-11-26 15:00+01')")
    release = work.release(
        environments={"staging": env, "production": env},
        evidence={"places": [".release/kept", "../vault"]},
        branch="",
    )
    files = {
        "VERSION": "0.1.1\n",
        "SOURCE_TAG": "v0.1.1\n",
        "docs/HASHES.sha256.txt": "# none\n",
        "ddl/ORDER.lock": "# x\n",
        ".gitattributes": "docs export-ignore\nSOURCE_TAG export-subst\n",
    }
    work.commit(files, "release")
    work.git("tag", "--annotate", "--message", "x", "v0.1.1")
    work.commit({release.notes_path: "# App v0.1.1\n"}, "notes")
    work.git("push", "--quiet", "origin", "main", "v0.1.1")
    release.journal.record("step", step="Tag")
    placed = work.root / "srv" / "releases" / "v0.1.1"
    placed.mkdir(parents=True)
    placed.with_name("v0.1.1.json").write_text('{"commit": "c0ffee", "version": "0.1.1", "since": "now"}')
    point_link(work.root / "srv" / "current", placed)
    web.be("0.1.1")
    return release


@pytest.fixture
def packed(release: Release, take: Callable[..., Outcome]) -> Path:
    assert take(archive.build_the_evidence_pack, release).state == CHANGED
    return release.pack_folder


@pytest.fixture
def rest(release: Release, take: Callable[..., Outcome]) -> Callable[[], list[Outcome]]:
    """Return what takes the steps after the pack is built, as a run of `inv archive` does."""

    def rest() -> list[Outcome]:
        release.unreachable.clear()
        return [take(step, release) for step in (*LATER, archive.ask_to_keep_the_hashes_and_file)]

    return rest


LATER = (archive.timestamp_the_pack, archive.write_the_archive_files, archive.copy_the_archive_files)


def states(outcomes: list[Outcome]) -> list[str]:
    return [outcome.state for outcome in outcomes]


def what(folder: Path, release: Release) -> str:
    swhid = f"swh:1:rel:{release.git.object_named(release.tag_ref)}"
    return " ".join(problem.what for problem in verify.damage(verify.Pack(folder, folder), swhid))


def test_a_pack_is_only_built_of_what_runs_in_production(
    release: Release, web: Web, take: Callable[..., Outcome]
) -> None:
    web.be("0.1.0")
    look = take(archive.build_the_evidence_pack, release, change=False)
    assert (look.state, look.text) == (PENDING, "after production runs it")
    for step in LATER[1:]:
        assert take(step, release, change=False).state == PENDING


def test_a_pack_without_the_records_of_its_checks_says_so(release: Release, take: Callable[..., Outcome]) -> None:
    """CI makes a clone for each section: there a pack said "0 of 0 checks pass", and all was well."""
    look = take(archive.build_the_evidence_pack, release, change=False)
    assert look.text.endswith("evidence; no check of staging, production was recorded here")
    for name in ("smokes-staging", "acceptance-production-before"):
        release.keep_check(name)
    assert take(archive.build_the_evidence_pack, release, change=False).text.endswith("/evidence")


def test_no_second_pack_is_built_of_a_release_that_is_finished(
    release: Release, work: Work, take: Callable[..., Outcome], rest: Callable[[], list[Outcome]]
) -> None:
    """In another clone a finished release was to be archived next: that pack has another root."""
    work.commit({"VERSION": "0.1.2-dev\n"})
    work.git("push", "--quiet", "origin", "main")
    assert release.is_over
    built = take(archive.build_the_evidence_pack, release)
    said = "bring .release/v0.1.1/evidence from where 0.1.1 was finished: it is not here"
    assert (built.state, built.text) == (MANUAL, said) and not release.pack_folder.exists()
    assert states(rest()) == [DONE, DONE, DONE, MANUAL]


def test_production_that_cannot_be_reached_is_refused_by_its_own_steps_alone(
    release: Release, take: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step that is history once production runs the release was refused: what signs the evidence."""

    def unreachable(*_: object) -> bool:
        raise Refused("Production, h1: Permission denied (publickey).")

    monkeypatch.setattr(release.environment("production"), "runs", unreachable)
    assert take(archive.check_evidence_setup, release).state == DONE
    assert take(archive.build_the_evidence_pack, release, change=False).state == PENDING


def test_a_pack_is_whole_and_stays_as_it_is(packed: Path, release: Release, take: Callable[..., Outcome]) -> None:
    assert what(packed, release) == ""
    look = take(archive.build_the_evidence_pack, release)
    assert (look.state, look.text) == (DONE, ".release/v0.1.1/evidence, unsigned")
    assert not list(packed.parent.glob("*incomplete*"))


@pytest.mark.parametrize("path", ["data/VERSION", "data/git/v0.1.1.bundle", "data/journal.jsonl", "data/ids.json"])
def test_a_file_that_was_changed_is_named(packed: Path, release: Release, path: str) -> None:
    content = (packed / path).read_bytes()
    (packed / path).write_bytes(b"x" + content[1:])
    assert f"{path} is not as listed" in what(packed, release)


def test_files_that_are_missing_or_too_many_are_named(packed: Path, release: Release) -> None:
    (packed / "data" / "notes" / "v0.1.1.md").unlink()
    (packed / "data" / "notes" / "extra (1).md").touch()
    found = what(packed, release)
    assert "data/notes/extra (1).md is not listed, data/notes/v0.1.1.md is missing" in found


def test_a_pack_of_another_tag_is_not_ours(packed: Path, release: Release, work: Work) -> None:
    theirs = json.loads((packed / "data" / "ids.json").read_text())["tag"]
    work.git("tag", "--force", "--annotate", "--message", "again", "v0.1.1", "v0.1.1^{}")
    release.refresh()
    assert f"{packed}: it is of swh:1:rel:{theirs}, expected swh:1:rel:" in what(packed, release)


def test_a_damaged_pack_is_refused_and_left_as_it_is(
    packed: Path, release: Release, take: Callable[..., Outcome]
) -> None:
    (packed / "data" / "VERSION").write_text("0.1.2\n")
    assert take(archive.build_the_evidence_pack, release).state == REFUSED
    assert (packed / "data" / "VERSION").read_text() == "0.1.2\n"


def test_copies_are_verified_in_their_places_and_bring_a_lost_pack_back(
    packed: Path, release: Release, work: Work, take: Callable[..., Outcome], rest: Callable[[], list[Outcome]]
) -> None:
    assert states(rest()) == [DONE, CHANGED, CHANGED, MANUAL]
    assert states(rest()) == [DONE, DONE, DONE, MANUAL]
    places = [work.root / ".release" / "kept", work.root.parent / "vault"]
    (first, second) = (sorted(place.iterdir()) for place in places)
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.suffix for path in first] == [".sha512", ".tar"]
    root = bag.digest(packed / bag.ROOT)
    shutil.rmtree(packed)
    release.journal.record("step", step="Later")
    (first[1]).write_bytes(b"damaged")
    look = take(archive.build_the_evidence_pack, release)
    assert look.state == CHANGED and look.text.startswith("fetch it back from ")
    assert bag.digest(packed / bag.ROOT) == root
    look = take(archive.copy_the_archive_files, release)
    assert look.state == REFUSED and str(first[1]) in look.problems[0].what


def settings(release: Release, **evidence: object) -> None:
    release.settings = release.settings.model_copy(update={"evidence": Evidence.model_validate(evidence)})


def test_what_evidence_needs_is_named_all_at_once(release: Release, tmp_path: Path) -> None:
    settings(release, recipients=["age1x"], authorities={"http://a": "none.pem", "http://b": "VERSION"})
    with pytest.raises(Refused) as refused:
        archive.check_evidence_setup(release)
    recipient, missing, other = refused.value.problems
    assert "no public key of age" in recipient.what and all(each.hint for each in refused.value.problems)
    assert missing.what == f"{release.root / 'none.pem'}: found no file, expected root certificates as PEM."
    assert missing.hint.endswith("# if it is one in DER; else ask the authority for it")
    assert other.what == f"{release.root / 'VERSION'}: found no certificate in it, expected root certificates as PEM."
    settings(release)
    assert archive.check_evidence_setup(release) == "nothing signs, stamps or encrypts it"
    settings(release, authorities={"http://a": str(authority.make(tmp_path))})
    assert archive.check_evidence_setup(release) == "authorities"


def test_an_authority_that_is_offline_stays_open_and_holds_up_nothing(
    packed: Path, release: Release, tmp_path: Path, take: Callable[..., Outcome], rest: Callable[[], list[Outcome]]
) -> None:
    (folder := tmp_path / "tsa").mkdir()
    ca = authority.make(folder)
    url = authority.serve(folder)
    away = "http://127.0.0.1:9/"
    settings(release, authorities={url: str(ca), away: str(ca)}, places=[])
    stamped, written, copied, _ = rest()
    assert (stamped.state, written.state, copied.state) == (MANUAL, CHANGED, DONE)
    assert "inv archive --version 0.1.1" in stamped.text and away in stamped.text and url not in stamped.text
    assert [token.suffix for token in sorted((packed / "anchors").iterdir())] == [".pem", ".tsq", ".tsr"]
    release.only_checks = True
    release.unreachable.clear()
    look = take(archive.timestamp_the_pack, release, change=False)
    assert look.state == MANUAL and f"{away}: not yet" in look.text
    release.only_checks = False
    settings(release, authorities={url: str(ca)}, places=[])
    assert states(rest()) == [DONE, DONE, DONE, MANUAL]


def test_an_answer_that_another_authority_has_signed_is_no_stamp(
    packed: Path, release: Release, tmp_path: Path, rest: Callable[[], list[Outcome]]
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        authority.make(tmp_path / name)
    url = authority.serve(tmp_path / "one")
    settings(release, authorities={url: str(tmp_path / "two" / "tsa.pem")})
    stamped = rest()[0]
    assert stamped.state == MANUAL and "openssl" not in stamped.text
    assert "its root is not in tsa.pem: " in stamped.text
    assert not (packed / "anchors").exists()


def test_why_an_authority_declines_is_told_in_its_words(
    packed: Path, release: Release, tmp_path: Path, rest: Callable[[], list[Outcome]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (config := tmp_path / "tsa.cnf").write_text(authority.CONFIG.read_text().replace(", sha512", ""))
    monkeypatch.setattr(authority, "CONFIG", config)
    ca = authority.make(tmp_path)
    settings(release, authorities={authority.serve(tmp_path): str(ca)})
    text = rest()[0].text
    assert "its reply cannot be verified: no time stamp token: " in text and "failure codes: badAlg" in text


def test_a_file_that_is_no_certificate_is_what_is_wrong_and_not_the_authority(
    packed: Path, release: Release, tmp_path: Path, rest: Callable[[], list[Outcome]]
) -> None:
    ca = authority.make(tmp_path)
    subprocess.run(["openssl", "x509", "-in", ca, "-outform", "DER", "-out", tmp_path / "tsa.der"], check=True)
    settings(release, authorities={authority.serve(tmp_path): str(tmp_path / "tsa.der")})
    stamped = rest()[0]
    assert (
        stamped.state == MANUAL
        and "tsa.der: found no certificate in it, expected root certificates as PEM" in stamped.text
    )
    with pytest.raises(Refused, match="expected root certificates as PEM") as refused:
        archive.check_evidence_setup(release)
    assert refused.value.problems[0].hint.startswith("openssl x509 -inform DER")


def test_a_look_does_not_read_what_a_run_compares(
    packed: Path, release: Release, work: Work, rest: Callable[[], list[Outcome]], take: Callable[..., Outcome]
) -> None:
    """A status read the pack, its tar and each copy: most of a minute where they have a gigabyte."""
    rest()
    for damaged in (packed / "data" / "VERSION", *work.root.parent.glob("vault/*.tar")):
        damaged.write_text("0.1.2\n")
    compare = (archive.build_the_evidence_pack, archive.copy_the_archive_files)
    release.only_checks = True
    assert states([take(step, release, change=False) for step in compare]) == [DONE, DONE]
    release.only_checks = False
    assert states([take(step, release, change=False) for step in compare]) == [REFUSED, REFUSED]


def test_a_stamp_that_comes_later_makes_new_files_beside_the_old(
    packed: Path, release: Release, work: Work, tmp_path: Path, rest: Callable[[], list[Outcome]]
) -> None:
    rest()
    vault = work.root.parent / "vault"
    before = {path.name for path in vault.iterdir()}
    (folder := tmp_path / "tsa").mkdir()
    ca = authority.make(folder)
    url = authority.serve(folder)
    settings(release, authorities={url: str(ca)}, places=["../vault"])
    assert states(rest()) == [CHANGED, CHANGED, CHANGED, MANUAL]
    after = {path.name for path in vault.iterdir()}
    assert before < after and len(after) == 4


def test_a_place_that_is_away_stays_open_and_gets_the_files_later(
    packed: Path, release: Release, work: Work, rest: Callable[[], list[Outcome]], take: Callable[..., Outcome]
) -> None:
    disk = work.root.parent / "disk"
    settings(release, places=[str(disk / "evidence"), "../vault"])
    look = rest()[2]
    assert look.state == MANUAL and f"{disk / 'evidence'}: " in look.text and "vault" not in look.text
    assert len(list((work.root.parent / "vault").iterdir())) == 2
    release.only_checks = True
    assert take(archive.copy_the_archive_files, release, change=False).state == MANUAL
    release.only_checks = False
    disk.mkdir()
    assert rest()[2].state == CHANGED and len(list((disk / "evidence").iterdir())) == 2


def test_a_disk_that_says_no_to_a_look_stays_open_as_well(
    packed: Path, release: Release, rest: Callable[[], list[Outcome]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a stale NFS mount does: the release was refused before section 10."""
    exists = Path.exists

    def stale(path: Path) -> bool:
        if "vault" in path.parts:
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return exists(path)

    monkeypatch.setattr(Path, "exists", stale)
    look = rest()[2]
    assert look.state == MANUAL and "../vault: " in look.text and "Stale file handle" in look.text


SEND = [sys.executable, "-c", "import shutil, sys; shutil.copy(*sys.argv[1:])"]


def test_commands_get_what_is_encrypted_and_bring_it_back_to_be_compared(
    packed: Path, release: Release, tmp_path: Path, rest: Callable[[], list[Outcome]]
) -> None:
    from pyrage import decrypt_file, x25519

    (cloud := tmp_path / "cloud").mkdir()
    # Some, as gh, bring back into a folder, by name.
    bring = "import pathlib, shutil, sys; shutil.copy(sys.argv[1], pathlib.Path(sys.argv[2]).parent)"
    place = ([*SEND, "{file}", f"{cloud}/{{name}}"], [sys.executable, "-c", bring, f"{cloud}/{{name}}", "{file}"])
    identity = x25519.Identity.generate()
    settings(release, recipients=[str(identity.to_public())], places=[place])
    assert states(rest()) == [DONE, CHANGED, CHANGED, MANUAL]
    assert states(rest()) == [DONE, DONE, DONE, MANUAL]
    sums, encrypted = sorted(cloud.iterdir())
    assert (encrypted.suffix, sums.suffix) == (".age", ".sha512")
    decrypt_file(str(encrypted), str(tmp_path / "back.tar"), [identity])
    (tar,) = (release.folder / "archive").glob("*.tar")
    assert (tmp_path / "back.tar").read_bytes() == tar.read_bytes()
    assert not [file for file in tar.parent.glob("*.receipt") if file.stat().st_size]
    assert str(identity) not in "".join(path.read_text(errors="replace") for path in release.folder.rglob("*.*"))


def test_who_may_read_it_may_be_said_later(
    packed: Path, release: Release, rest: Callable[[], list[Outcome]], work: Work
) -> None:
    from pyrage import x25519

    rest()
    settings(release, recipients=[str(x25519.Identity.generate().to_public())], places=["../vault"])
    assert states(rest()) == [DONE, CHANGED, CHANGED, MANUAL]
    assert len(list((work.root.parent / "vault").glob("*.tar.age"))) == 1


def test_files_that_are_lost_here_are_written_anew_beside_their_copies(
    packed: Path, release: Release, rest: Callable[[], list[Outcome]], work: Work
) -> None:
    """What is encrypted is other bytes each time: under the same name a whole copy was called damaged."""
    from pyrage import x25519

    settings(release, recipients=[str(x25519.Identity.generate().to_public())], places=["../vault"])
    assert states(rest()) == [DONE, CHANGED, CHANGED, MANUAL]
    shutil.rmtree(release.folder / "archive")
    assert states(rest()) == [DONE, CHANGED, CHANGED, MANUAL]
    sums = sorted((work.root.parent / "vault").glob("*.sha512"))
    assert len(sums) == 2
    subprocess.run(["sha512sum", "--check", "--quiet", *sums], cwd=sums[0].parent, check=True)


def test_a_pack_that_is_lost_here_comes_back_with_all_that_was_added(
    packed: Path, release: Release, rest: Callable[[], list[Outcome]], tmp_path: Path, take: Callable[..., Outcome]
) -> None:
    """The first good tar by name was taken, and a name is a hash."""
    rest()
    for number in range(3):
        seal.append(packed / "addenda" / "stamps.jsonl", [{"number": number}], packed / bag.ROOT, tmp_path, "")
        rest()
    there = file_hashes(packed)
    shutil.rmtree(packed)
    assert take(archive.build_the_evidence_pack, release).state == CHANGED
    assert file_hashes(packed) == there


def test_an_addendum_that_does_not_follow_the_pack_is_not_archived(
    packed: Path, release: Release, tmp_path: Path, take: Callable[..., Outcome]
) -> None:
    file = packed / "addenda" / "stamps.jsonl"
    seal.append(file, [{"app": "one"}, {"app": "two"}], packed / bag.ROOT, tmp_path, "")
    assert what(packed, release) == ""
    file.write_bytes(file.read_bytes().replace(b"one", b"six"))
    assert "stamps.jsonl, line 2 does not follow what is before it" in what(packed, release)
    assert take(archive.build_the_evidence_pack, release).state == REFUSED


def test_a_full_place_gets_its_space_back(
    packed: Path, release: Release, rest: Callable[[], list[Outcome]], work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path, to: Path) -> None:
        to.write_bytes(b"as much as fits")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(to))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        assert "cannot be used: No space left on device" in rest()[2].text
    assert list((work.root.parent / "vault").iterdir()) == []
    assert rest()[2].state == CHANGED


ONCE = """
import pathlib, shutil, sys
file, there, failed = map(pathlib.Path, sys.argv[1:])
if there.exists():
    raise SystemExit(9)
if file.suffix == ".sha512" and not failed.exists():
    failed.touch()
    raise SystemExit(7)
shutil.copy(file, there)
"""


def test_a_place_that_takes_each_name_once_gets_the_rest_after_a_failure(
    packed: Path, release: Release, tmp_path: Path, rest: Callable[[], list[Outcome]]
) -> None:
    (vault := tmp_path / "once").mkdir()
    send = [sys.executable, "-c", ONCE, "{file}", f"{vault}/{{name}}", str(tmp_path / "failed")]
    settings(release, places=[(send, [*SEND, f"{vault}/{{name}}", "{file}"])])
    assert rest()[2].state == MANUAL and len([*vault.iterdir()]) == 1
    assert rest()[2].state == CHANGED and len([*vault.iterdir()]) == 2


def test_what_comes_back_otherwise_is_no_copy(
    packed: Path, release: Release, tmp_path: Path, rest: Callable[[], list[Outcome]]
) -> None:
    wrong = [sys.executable, "-c", "import sys; open(sys.argv[1], 'w').write('x')", "{file}"]
    settings(release, places=[(["true", "{file}"], wrong)])
    look = rest()[2]
    assert look.state == MANUAL and "true {file}: what came back is not app-0.1.1." in look.text


def test_what_is_kept_here_and_damaged_is_refused(
    packed: Path, release: Release, rest: Callable[[], list[Outcome]], take: Callable[..., Outcome]
) -> None:
    rest()
    (tar,) = (release.folder / "archive").glob("*.tar")
    tar.write_bytes(b"")
    look = take(archive.write_the_archive_files, release)
    assert look.state == REFUSED and f"{tar} is not what app-0.1.1." in look.problems[0].what
