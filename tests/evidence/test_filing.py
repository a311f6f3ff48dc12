"""A filing: the deposit is made once and of nothing secret, the form says what is missing, persons are in no pack."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from invoke.util import yaml

from release_tasks.errors import Refused
from release_tasks.evidence import copies, filing
from release_tasks.files import records_folder
from release_tasks.release import Release
from tests.conftest import Work

FILES = {"src/a.ts": "export const a = 1\n", "src/deep/b.ts": "// b\r\n", "src/c.sql": "select 1\n", "x.bin.ts": "a\0b"}
SECRETS = {
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "a cloud's key": f"key = AKIA{'Q' * 16}",
    "a forge's token": f"use ghp_{'a1' * 18}",
    "a password in a URL": "connect('postgres://app:hunter22@db/app')",
    "a literal": 'const apiKey = "s3cr3t-value"',
    "a role's password": "create role app_rw login password 'hunter2hunter2';",
    "a server's password": "create user mapping for u server s options (user 'u', PASSWORD 'a $ and blanks');",
    "a secret of the environment": "call(tok-of-this-machine)",
}
HARMLESS = """const token = process.env.TOKEN
password = read_password()
url = `postgres://${user}:${password}@db/app`
const passwordField = "#{field}"
<input type="password" name="secret" autocomplete='current-password'>
{type:"password",value:"hunter22"}
alter role app_rw password :'app_password';
sql`alter role app_rw password '${quoted(password)}'`
alter role app_rw password $1; -- or :app_password, or password ''
"""


@pytest.fixture
def tagged(work: Work) -> Work:
    work.commit({**FILES, "src/harmless.ts": HARMLESS})
    work.release_before("v0.1.1")
    records_folder(work.root)
    return work


def release(work: Work, include: tuple[str, ...] = ("src/**/*.ts",), **settings: Any) -> Release:
    return work.release(evidence={"filing": {"include": include, **settings}}, title="The App")


def test_the_deposit_is_what_the_patterns_name_and_is_made_once(tagged: Work) -> None:
    said = list(filing.prepare(release(tagged), "inpi-br"))
    folder = tagged.root / ".release/v0.1.1/filing-inpi-br"
    deposit = (folder / "deposit.zip").read_bytes()
    with zipfile.ZipFile(folder / "deposit.zip") as found:
        assert found.namelist() == ["src/a.ts", "src/deep/b.ts", "src/harmless.ts"]
        assert found.read("src/deep/b.ts") == b"// b\r\n"
    digest = hashlib.sha512(deposit).hexdigest()
    assert (folder / "deposit.zip.sha512").read_text() == f"{digest}  deposit.zip\n"
    assert said == [
        ".release/v0.1.1/filing-inpi-br; missing in its form: published, codes, holder, authors",
        "It stays on this machine: evidence.recipients names nobody to encrypt it for.",
    ]
    list(filing.prepare(release(tagged, ("src/**",)), "inpi-br"))
    assert (folder / "deposit.zip").read_bytes() == deposit, "it is kept, whatever the settings say now"
    with_recipient = tagged.release(evidence={"filing": {"include": ("src/**/*.ts",)}, "recipients": ["age1x"]})
    assert list(filing.prepare(with_recipient, "inpi-fr"))[-1].startswith("inv archive --version 0.1.1 ")
    assert (folder.with_name("filing-inpi-fr") / "deposit.zip").read_bytes() == deposit, "the same bytes elsewhere"
    log = [json.loads(line) for line in (tagged.root / ".release/filings.jsonl").read_text().splitlines()]
    assert [(row["office"], row["tag"], row["sha512"]) for row in log][::2] == [
        ("inpi-br", "v0.1.1", digest),
        ("inpi-fr", "v0.1.1", digest),
    ]


@pytest.mark.parametrize(
    ("ending", "language"), [("mts", "TypeScript"), ("cts", "TypeScript"), ("cjs", "JavaScript"), ("mjs", "JavaScript")]
)
def test_languages_are_known_by_each_of_their_endings(work: Work, ending: str, language: str) -> None:
    """The form said "languages: SQL, mts"."""
    work.commit({f"src/server.{ending}": "export const a = 1\n"})
    work.release_before("v0.1.1")
    records_folder(work.root)
    list(filing.prepare(release(work, ("src/*",)), "inpi-br"))
    form = json.loads((work.root / ".release/v0.1.1/filing-inpi-br/form.json").read_text())
    assert form["languages"] == [language]


@pytest.mark.parametrize("there", [True, False])
def test_a_deposit_that_was_changed_or_lost_is_refused_and_not_archived(
    tagged: Work, tmp_path: Path, there: bool
) -> None:
    """The hint, to move it away, led to "No such file", and `inv archive` encrypted and copied what was left."""
    list(filing.prepare(own := release(tagged), "inpi-br"))
    deposit = own.folder / "filing-inpi-br/deposit.zip"
    good = deposit.read_bytes()
    deposit.write_bytes(b"another") if there else deposit.unlink()
    for refused in (
        lambda: list(filing.prepare(release(tagged), "inpi-br")),
        lambda: copies.sums_of(own.folder / "evidence", "app-0.1.1", []),
        lambda: filing.copy(own, tmp_path / "data"),
    ):
        with pytest.raises(Refused, match=r"deposit\.zip is not what deposit\.zip\.sha512 says") as no:
            refused()
        assert no.value.problems[0].hint.startswith(f"Bring {deposit} back from a copy")
    deposit.write_bytes(good)
    assert list(filing.prepare(release(tagged), "inpi-br"))


def test_the_form_has_what_settings_git_and_the_private_file_say_and_names_the_rest(
    tagged: Work, tmp_path: Path
) -> None:
    (tmp_path / "me.json").write_text(json.dumps({"holder": "Rita Ünal", "cpf": "123", "published": "2026-11-27"}))
    own = release(tagged, codes=["FN01", "AP01", "ZZ99"], private=str(tmp_path / "me.json"))
    said = list(filing.prepare(own, "inpi-br"))[:2]
    assert said == [
        ".release/v0.1.1/filing-inpi-br; missing in its form: authors",
        "ZZ99 is not known here; compare with INPI's list",
    ]
    folder = own.folder / "filing-inpi-br"
    form = json.loads((folder / "form.json").read_text(encoding="utf-8"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", form["created"]) and len(form["hash"]) == 128
    assert (form["title"], form["holder"], form["authors"]) == ("The App v0.1.1", "Rita Ünal", "MISSING")
    assert (form["languages"], form["codes"]) == (["TypeScript"], ["FN01", "AP01", "ZZ99"])
    assert form["algorithm"] == "SHA-512"
    said = list(filing.prepare(own, "inpi-fr"))
    assert said[0].endswith("missing in its form: authors, years")
    french = json.loads((own.folder / "filing-inpi-fr" / "form.json").read_text(encoding="utf-8"))
    assert list(french) == ["title", "holder", "authors", "years", "algorithm", "hash"], "it had those of Brazil"


@pytest.mark.parametrize(("office", "words"), [("inpi-br", "DV"), ("inpi-fr", "redevance")])
def test_the_checklist_is_in_the_offices_language_and_has_the_hash(tagged: Work, office: str, words: str) -> None:
    list(filing.prepare(own := release(tagged), office))
    folder = own.folder / f"filing-{office}"
    text = (folder / "CHECKLIST.md").read_text(encoding="utf-8")
    assert words in text and hashlib.sha512((folder / "deposit.zip").read_bytes()).hexdigest() in text


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_refused_with_file_and_line_and_nothing_is_made(
    work: Work, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("DEPLOY_TOKEN", "tok-of-this-machine")
    work.commit({"src/a.ts": f"// fine\n{SECRETS[kind]}\n"})
    work.release_before("v0.1.1")
    own = release(work)
    with pytest.raises(Refused, match=r"src/a\.ts, line 2, looks like a secret; nothing is deposited") as no:
        list(filing.prepare(own, "inpi-br"))
    assert SECRETS[kind] not in str(no.value)
    assert no.value.problems[0].hint.startswith("git show v0.1.1:src/a.ts   # ")
    assert not (own.folder / "filing-inpi-br" / "deposit.zip").exists()


def test_the_name_of_postgresql_is_no_secret(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """With it as password no file with that word could be deposited."""
    monkeypatch.setenv("PGPASSWORD", "postgres")
    work.commit({"src/a.ts": "// needs postgres\n"})
    work.release_before("v0.1.1")
    records_folder(work.root)
    assert list(filing.prepare(release(work), "inpi-br"))


def test_what_cannot_be_is_refused_with_what_fixes_it(tagged: Work) -> None:
    tagged.write({"me.json": "{}", ".release/list.json": "[1]"})
    for own, office, said in (
        (release(tagged), "../x", "There is no office '../x'; expected inpi-br, inpi-fr."),
        (release(tagged, ()), "inpi-br", "evidence.filing.include names no text of v0.1.1; found [], expected"),
        (release(tagged, ("no/*",)), "inpi-br", "evidence.filing.include names no text of v0.1.1; found ['no/*'],"),
        (release(tagged, private="me.json"), "inpi-br", "me.json is about persons, and in the repository."),
        (release(tagged, private=".release/list.json"), "inpi-br", ".release/list.json is no JSON object"),
        (tagged.release("0.1.2"), "inpi-br", "v0.1.2 is not published; only a published release can be filed."),
    ):
        with pytest.raises(Refused) as no:
            list(filing.prepare(own, office))
        assert said in str(no.value)


def test_where_nothing_is_set_the_settings_to_write_are_shown_and_are_right(tagged: Work) -> None:
    with pytest.raises(Refused) as no:
        list(filing.prepare(release(tagged, ()), "inpi-br"))
    hint = no.value.problems[0].hint.removeprefix("In invoke.yaml, ")
    shown = yaml.safe_load(hint)["release"]["evidence"]["filing"]
    assert list(filing.prepare(release(tagged, shown["include"]), "inpi-br"))


def test_a_pack_gets_deposit_and_checklist_and_nothing_about_persons(tagged: Work, tmp_path: Path) -> None:
    (tmp_path / "me.json").write_text('{"holder": "Rita", "cpf": "12345678900"}')
    own = release(tagged, private=str(tmp_path / "me.json"))
    filing.copy(own, tmp_path / "none")
    assert not (tmp_path / "none").exists(), "where nothing was filed before"
    list(filing.prepare(own, "inpi-br"))
    filing.copy(own, tmp_path / "data")
    there = sorted(path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("*.*"))
    assert there == [f"inpi/inpi-br/{name}" for name in ("CHECKLIST.md", "deposit.zip", "deposit.zip.sha512")]
    assert not any(b"12345678900" in path.read_bytes() for path in (tmp_path / "data").rglob("*.*"))
    assert "12345678900" not in (tagged.root / ".release/filings.jsonl").read_text()


def test_the_folder_goes_encrypted_with_the_packs_copies_and_never_as_it_is(tagged: Work, tmp_path: Path) -> None:
    from pyrage import decrypt, x25519

    identity, own = x25519.Identity.generate(), release(tagged)
    pack, kept = own.folder / "evidence", own.folder / "archive"
    pack.mkdir(parents=True)
    (pack / "tagmanifest-sha512.txt").write_text("00  x\n")
    recipients = [str(identity.to_public())]
    before = copies.sums_of(pack, "app-0.1.1", recipients)
    list(filing.prepare(own, "inpi-br"))
    sums = copies.sums_of(pack, "app-0.1.1", recipients)
    assert sums != before, "so that inv archive makes and copies the files anew"
    copies.write(pack, sums, "app-0.1.1", recipients)
    (tmp_path / "place").mkdir()
    copies.copy(str(tmp_path / "place"), own.root, sums)
    names = sorted(path.name for path in (tmp_path / "place").iterdir())
    assert names == sorted(path.name for path in kept.iterdir())
    assert [name.removeprefix(sums.stem) for name in names] == [
        ".filing-inpi-br.tar.age",
        ".sha512",
        ".tar",
        ".tar.age",
    ]
    encrypted = (tmp_path / "place" / f"{sums.stem}.filing-inpi-br.tar.age").read_bytes()
    assert b"filing-inpi-br/form.json" in decrypt(encrypted, [identity])
    plain = tmp_path / "unencrypted" / sums.name
    copies.write(pack, plain, "app-0.1.1", [])
    assert sorted(path.name for path in plain.parent.iterdir()) == [f"{sums.stem}.sha512", f"{sums.stem}.tar"]
