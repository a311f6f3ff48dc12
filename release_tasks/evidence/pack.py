"""The content of an evidence pack: each of PARTS fills the folder data/; the same tag and records make the same bytes.

A part is a function `(release, data)` that writes there, from what was committed, what was recorded, and what the parts
before it wrote. It depends on no clock, host name or randomness, and brings no secret into the pack. People are in it
as the records name them: accounts and machines in the journal, who applied a file in the ledgers, authors in git's
history.
"""

import json
import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from release_tasks.database import backup
from release_tasks.errors import Refused
from release_tasks.evidence import bag, clone, filing, report, seal, statements
from release_tasks.files import atomic_write
from release_tasks.release import Release


def name_of(release: Release) -> str:
    """Return the name of the pack, which the one folder of its tar has."""
    return f"{release.settings.app}-{release.tag.removeprefix('v')}"


def build(release: Release, folder: Path) -> None:
    """Write the pack of `release` into the empty `folder`, signed where a key is set."""
    data = folder / "data"
    data.mkdir()
    for part in PARTS:
        part(release, data)
    tag = release.git.object_named(release.tag_ref)
    info = {"Internal-Sender-Identifier": name_of(release), "External-Identifier": f"swh:1:rel:{tag}"}
    bag.close(folder, info)
    if key := release.settings.evidence.signing_key:
        seal.sign(folder / bag.ROOT, release.root, key)


def documents(release: Release, data: Path) -> None:
    """Copy what was committed: VERSION, SOURCE_TAG and the hashes of the docs pack, the DDL order, the notes."""
    settings, notes = release.settings, release.notes_path
    files = {"VERSION": "VERSION", "SOURCE_TAG": "SOURCE_TAG", "HASHES.sha256.txt": settings.docs_pack.hashes}
    for there, path in (files | {"ddl/ORDER.lock": settings.ddl.lock, f"notes/{release.tag}.md": notes}).items():
        at = release.tip if path == notes else release.commit
        if not (content := release.git.bytes_at(at, path)):
            raise Refused(f"The evidence pack needs {path}; it is missing or empty in {at:.9}.", f"git show {at}")
        atomic_write(data / there, content)


def source(release: Release, data: Path) -> None:
    """Write the tag with its whole history as a bundle, the source as a tar, and their ids, which are SWHIDs too."""
    git = release.git
    for folder in ("source", "git"):
        (data / folder).mkdir()
    with TemporaryDirectory(dir=data.parent) as copy, TemporaryFile() as wanted:  # on the disk of the pack
        git.run("clone", "--quiet", "--bare", "--shared", "--template=", str(git.root), copy, timeout=clone.GIT)
        run, ids = partial(clone.git, Path(copy)), clone.ids_of(Path(copy), release.version, release.tag)
        atomic_write(data / "ids.json", json.dumps(ids, indent=2).encode() + b"\n")
        clone.archive(Path(copy), ids["commit"], data / "source" / f"{name_of(release)}.tar")
        wanted.write(release.tag_ref.encode())
        wanted.seek(0)
        anew = ("--quiet", "--revs", "--delta-base-offset", "--no-reuse-object")
        run("pack-objects", *anew, Path(copy, "objects", "pack", "pack"), stdin=wanted)
        Path(copy, "objects", "info", "alternates").unlink()  # so that the bundle is made of this pack alone
        run("bundle", "create", "--quiet", data / "git" / f"{release.tag}.bundle", release.tag_ref)


def applied(release: Release, data: Path) -> None:
    """Write what the ledgers of staging and production say: which DDL file was applied when, by whom, for what."""
    for name in ("staging", "production"):
        with release.environment(name).connect() as connection:
            rows = rows_of(connection, release.settings.ddl.ledger)
        lines = [json.dumps(row, default=str, ensure_ascii=False) for row in rows]
        atomic_write(data / "ddl" / f"applied-{name}.jsonl", "".join(f"{line}\n" for line in lines).encode())


def rows_of(connection: Connection, table: str) -> list[dict[str, Any]]:
    """Return all rows of `table` by its first column, with times in UTC."""
    connection.execute("set timezone to 'UTC'")
    return connection.cursor(row_factory=dict_row).execute(f"select * from {table} order by 1".encode()).fetchall()


def records(release: Release, data: Path) -> None:
    """Copy the journal, what the checks have seen, and what is known of the backup, without its data."""
    if (checks := release.folder / "checks").exists():
        shutil.copytree(checks, data / "checks")
    if used := backup.made_for(release.environment("production"), release.commit):
        to = data / "checks" / "backup" / used.name
        shutil.copytree(used.folder, to, ignore=shutil.ignore_patterns(backup.DUMP))
    if release.journal.path.exists():
        shutil.copy(release.journal.path, data)


def instructions(release: Release, data: Path) -> None:
    """Write how to verify the pack by hand, and a copy of who signs: trust comes from outside the pack."""
    if key := release.settings.evidence.signing_key:
        atomic_write(data / "keys" / "allowed_signers", seal.allowed_signers(release.settings.app, release.root, key))
    text = Path(__file__).with_name("VERIFY.md").read_text(encoding="utf-8")
    atomic_write(data / "VERIFY.md", text.replace("<name>", name_of(release)).replace("<tag>", release.tag).encode())


PARTS = (documents, source, applied, records, instructions, statements.write, filing.copy, report.write)
