"""The folder of a filing with an office: one deposit, made once and kept byte for byte, the form, a checklist."""

import json
import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from shlex import quote
from typing import Any
from zipfile import ZipFile, ZipInfo

from release_tasks.errors import Problem, Refused, listed, refuse
from release_tasks.evidence import bag, copies
from release_tasks.files import RECORDS, atomic_write, checksum_lines
from release_tasks.journal import Journal
from release_tasks.masks import secrets_of
from release_tasks.release import Release

HINT = """In invoke.yaml, release: {evidence: {filing: {include: ["src/**/*.ts", "db/*.sql"]}}}"""
FIELDS = {"inpi-br": "title created published languages codes holder authors", "inpi-fr": "title holder authors years"}
KNOWN = re.compile("A[DGHNPSTV]|B[LT]|C[CDOT]|DS|E[CDLNT]|F[ANQ]|G[CIL]|H[BD]|I[AFNT]|LG|M[ET]|P[DLRS]|S[MOV]|T[BCIP]")
LANGUAGES = dict.fromkeys(("ts", "tsx", "mts", "cts"), "TypeScript") | dict.fromkeys(("js", "mjs", "cjs"), "JavaScript")
LANGUAGES |= {"py": "Python", "sh": "Shell", "css": "CSS", "html": "HTML", "json": "JSON", "sql": "SQL"}  # by ending
# Tokens as gitleaks knows them, passwords in URLs, literals under a name like a secret's (:'name' is psql's), and SQL's
SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[A-Z0-9]{16}\b|\b(gh[pousr]|npm|sk_live|glpat|xox[abprs])[_-][\w-]{16}"
    r"|\bAIza[\w-]{35}|AGE-SECRET-KEY-1|\beyJ[\w-]{10,}\.eyJ|://[^\s/:@${}]*:[^\s/@${}]+@"
    r"""|(?i:(password|passwd|secret|token|api_?key)\w*["']?(?:\s*=|:|\s+:\s)\s*["'][^"'\s${}<]{6,}["'])"""
    r"|(?i:password\s+'(?![#$%]?[{<])[^']{6,}')"
)


def copy(release: Release, data: Path) -> None:
    """Copy what was deposited, and the checklist, into a pack; nothing that is about persons."""
    for folder in map(copies.checked, sorted(release.folder.glob("filing-*"))):
        for name in ("deposit.zip", "deposit.zip.sha512", "CHECKLIST.md"):
            atomic_write(data / folder.name.replace("filing-", "inpi/") / name, (folder / name).read_bytes())


def prepare(release: Release, office: str) -> Iterator[str]:
    """Make the deposit, unless it is there, the form and the checklist; yield what a person needs to know."""
    if office not in FIELDS:
        raise Refused(f"There is no office {office!r}; expected {listed(FIELDS)}.")
    if not release.published:
        raise Refused(
            f"{release.tag} is not published; only a published release can be filed.",
            f"inv filing --office {office} --version VERSION",
        )
    folder, filing = release.folder / f"filing-{office}", release.settings.evidence.filing
    deposit, sums = folder / "deposit.zip", folder / "deposit.zip.sha512"
    private = _private(release.root, Path(filing.private)) if filing.private else {}
    if not sums.exists():
        atomic_write(deposit, _excerpts(release, filing.include))
        atomic_write(sums, checksum_lines({deposit.name: bag.digest(deposit)}))
    copies.checked(folder)
    digest, date = bag.digest(deposit), ("show", "--no-patch", "--format=%cs", release.commit)
    endings = {Path(name).suffix.strip(".") for name in ZipFile(deposit).namelist()} - {""}
    languages = sorted({LANGUAGES.get(ending, ending) for ending in endings})
    known = {"title": release.title, "created": release.git.look(*date).stdout.strip(), "languages": languages}
    known |= {"codes": filing.codes, **private}
    form = {name: known.get(name) or "MISSING" for name in FIELDS[office].split()}
    missing = [name for name, value in form.items() if value == "MISSING"]
    form |= {"algorithm": "SHA-512", "hash": digest}
    checklist = Path(__file__).with_name(f"{office}.md").read_text(encoding="utf-8").replace("<hash>", digest)
    atomic_write(folder / "form.json", json.dumps(form, indent=1, ensure_ascii=False).encode())
    atomic_write(folder / "CHECKLIST.md", checklist.encode())
    Journal(release.folder.parent / "filings.jsonl").record("filing", office=office, tag=release.tag, sha512=digest)
    yield f"{release.shown(folder)}; missing in its form: {listed(missing) or 'nothing'}"
    yield from (f"{code} is not known here; compare with INPI's list" for code in filing.codes if not KNOWN.match(code))
    if release.settings.evidence.recipients:
        yield f"inv archive --version {release.version}   # encrypts it, and copies it to each place"
    else:
        yield "It stays on this machine: evidence.recipients names nobody to encrypt it for."


def _private(root: Path, file: Path) -> dict[str, Any]:
    """Return what the form needs about persons, from a file that git does not have. Raises `Refused` for another."""
    found, root = (root / file).resolve(), root.resolve()
    if found.is_relative_to(root) and not found.is_relative_to(root / RECORDS):
        raise Refused(f"{file} is about persons, and in the repository.", f"mv {file} {RECORDS}/   # and name it so")
    try:
        return dict(json.loads(found.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as no:
        raise Refused(f"{file} is no JSON object: {no}.", f"python3 -m json.tool {file}") from None


def _excerpts(release: Release, include: list[str]) -> bytes:
    """Return a zip of the tag's texts that `include` names, always the same. Raises `Refused` for secrets in them."""
    argv = ("grep", "-z", "-l", "-I", "-e", "", release.commit, "--", *(f":(glob){each}" for each in include))
    found = release.git.run(*argv, check=False, changes=False).stdout.split("\0")[:-1] if include else []
    what = f"evidence.filing.include names no text of {release.tag}; found {include}, expected git's patterns."
    problems = [] if found else [Problem(what, HINT)]
    zipped, own = BytesIO(), [*secrets_of(os.environ)]
    with ZipFile(zipped, "w") as archive:
        for path in (each.partition(":")[2] for each in found):
            if (text := release.git.bytes_at(release.commit, path)) is None:
                raise Refused(f"{path} cannot be deposited: its name is not UTF-8.", "git mv OLD NEW")
            about = ZipInfo(path)
            about.create_system, about.external_attr = 3, 0o644 << 16  # else the machine has a part in it
            archive.writestr(about, text)
            for number, line in enumerate(text.decode(errors="replace").splitlines(), 1):
                if SECRET.search(line) or any(secret in line for secret in own):
                    hint = f"git show {quote(f'{release.tag}:{path}')}   # if it is one, do not include that file"
                    problems.append(Problem(f"{path}, line {number}, looks like a secret; nothing is deposited.", hint))
    refuse(problems)
    return zipped.getvalue()
