"""What runs is this release: the API, the newest session stamp, the DDL ledger and the deployed files say the same."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import requests

from release_tasks.checks.verdict import ROWS, Seen, Unknown, Wrong
from release_tasks.checks.web import Session
from release_tasks.errors import Refused
from release_tasks.processes import shell

if TYPE_CHECKING:
    from release_tasks.checks.place import Asked, Place
    from release_tasks.kinds import Version


def look_at_version(check: Version, place: Place, seen: Seen, asked: Asked) -> list[str]:
    """Compare what each of the four says with the release; raise `Wrong` with all that differs, at once.

    What this place does not have (stamp, ledger, commit) is not asked. Raises `Unknown` where one of them cannot be
    asked, if nothing else is wrong.
    """
    wrong: list[str] = []
    mend = f"git -C {place.root} archive {place.commit} | tar --extract --directory {place.code}"
    mend += "   # or, for what a build writes: why, in acceptance.rewritten of invoke.yaml"
    unseen: dict[str, str] = {}  # why it could not be asked → what mends it
    for ask in (_api, _stamp, _ledger, _tree):
        try:
            for sentence in ask(place, check.timeout, seen):
                wrong.append(sentence)
                if ask is not _tree:
                    mend = "Restart the web app of dev." if place.name == "dev" else f"inv deploy.{place.name}"
        except Unknown as no:
            unseen[" ".join(no.said)] = no.mend
        except Refused as no:
            unseen |= {each.what: each.mend for each in no.problems}
    seen["in_words"] = ", ".join(str(seen[part]) for part in ("api", "stamp", "ledger", "tree") if part in seen)
    if wrong:
        raise Wrong([*wrong, *unseen], mend)
    if unseen:
        raise Unknown(" ".join(unseen), next(iter(unseen.values())))
    return []


def _api(place: Place, timeout: float, seen: Seen) -> Iterator[str]:
    url, said = f"{place.origin}{place.version_path}", None
    try:
        with Session(place.origin) as session, suppress(requests.JSONDecodeError):
            answer = session.get(place.version_path, headers={"Cache-Control": "no-cache"}, timeout=timeout)
            said = answer.json()
    except requests.ReadTimeout:
        raise Unknown(f"{url} does not answer within {timeout:g} s.", f"curl --include {url}") from None
    version = said.get("version") if isinstance(said, dict) else None
    seen["api"] = f"{version} by API"
    if answer.status_code != 200 or not version:
        yield f"{url} answers {answer.status_code} and no version; expected {place.version}."
    elif version != place.version:
        yield f"{url} answers as {version}; expected {place.version}."


def _stamp(place: Place, timeout: float, seen: Seen) -> Iterator[str]:
    if not (log := place.stamp_log):
        return
    query = (
        "select app_version, opened_at, opened_at >= %s::timestamptz, to_jsonb(l)->>'session_id'"
        f" from {log} l where app_name = %s order by opened_at desc nulls last limit 1"
    )
    newest = _rows(place, timeout, query, log, [place.began or "-infinity", place.app])
    if not newest:
        yield f"{log} has no stamp of {place.app}; expected one of {place.version}."
        return
    version, opened, is_of_this_deployment, session = newest[0]
    seen["stamp"] = f"stamp of {opened.astimezone():%H:%M}" if opened else "stamp"
    if version != place.version:
        yield f"The newest stamp of {place.app} is of {version}, at {opened}; expected {place.version}."
    elif not is_of_this_deployment:
        yield f"The newest stamp of {place.app}, at {opened}, is older than the deployment, of {place.began}."
    if place.stamp_flags:
        yield from _flags(place, timeout, seen, session)


def _flags(place: Place, timeout: float, seen: Seen, session: str | None) -> Iterator[str]:
    flags = place.stamp_flags
    rows = _rows(
        place, timeout, f"select schema_name, is_open, to_jsonb(f)->>'opened_by' from {flags} f order by 1", flags
    )
    if rows is None:
        seen["flags"] = "there are none"
        return
    seen["flags"] = f"{len(rows)} compared, {'with' if session else 'without'} the session they point to"
    if not rows:
        yield f"{flags} has no row; expected the schemas that were opened."
    if closed := [name for name, is_open, _ in rows if not is_open]:
        yield f"{flags}: these are not open: {_named(closed)}."
    if others := [name for name, _, opened_by in rows if session and opened_by != session]:
        yield f"{flags}: these point to another session than {session}: {_named(others)}."


def _ledger(place: Place, timeout: float, seen: Seen) -> Iterator[str]:
    if not place.pack:
        return
    rows = _rows(place, timeout, f"select file, sha256, applied_at is not null from {place.ledger}", place.ledger)
    held = {file: (sha256, is_applied) for file, sha256, is_applied in rows or []}
    missing = [file for file in place.pack if file not in held]
    other = [file for file in held if file in place.pack and held[file][0] != place.pack[file]]
    begun = [file for file, sha256 in place.pack.items() if held.get(file) == (sha256, False)]
    seen["ledger"] = f"{len(place.pack)} DDL files"
    for way, files in (("not in it", missing), ("applied as another file", other), ("not applied to the end", begun)):
        if files:
            yield f"The ledger {place.ledger}, {way}: {_named(files)}."


def _rows(place: Place, timeout: float, query: str, table: str, values: Sequence[Any] = ()) -> list[Any] | None:
    """Return the rows of `query`, None where there is no such `table`. Raises `Unknown`."""
    from psycopg import Error, errors

    with place.connect(timeout) as connection:
        try:
            if connection.execute("select to_regclass(%s)", [table]).fetchone() == (None,):
                return None
            return connection.execute(query, values).fetchall()
        except errors.InsufficientPrivilege as no:
            role, what = connection.info.user, no.diag.message_primary
            mend = f"grant usage on schema {table.partition('.')[0]} to {role}; grant select on {table} to {role}"
            raise Unknown(f"The role {role} of {place.name} may not read {table}: {what}.", mend) from None
        except Error as error:
            raise Unknown(f"{place.name} does not say its version: {' '.join(str(error).split())}") from None


def _tree(place: Place, timeout: float, seen: Seen) -> Iterator[str]:
    """Compare the deployed files with what `git archive` gives, as it did for the deployment: line ends and all."""
    code = Path(place.code)
    if not code.is_dir():
        yield f"There is no folder {code}; expected the release's code in it."
        return
    if not place.commit:
        return
    missing, changed = list[str](), list[str]()
    with TemporaryDirectory() as folder:
        archive = Path(folder) / "code.tar"
        argv = ["git", "archive", "--format=tar", f"--output={archive}", place.commit]
        shell.run(argv, cwd=Path(place.root), timeout=timeout, told=False)
        with tarfile.open(archive) as tar:
            members = [member for member in tar if not member.isdir()]
            for member in members:
                if not os.path.lexists(code / member.name):
                    missing.append(member.name)
                elif not _is_same(tar, member, code / member.name):
                    changed.append(member.name)
    known = {name: why for name in changed for pattern, why in place.rewritten.items() if re.search(pattern, name)}
    changed = [name for name in changed if name not in known]
    excepted = f", {len(known)} excepted: {'; '.join(dict.fromkeys(known.values()))}" if known else ""
    seen["tree"] = f"{len(members)} files of {place.commit:.9}{excepted}"
    for way, names in (("missing", missing), ("not as committed", changed)):
        if names:
            yield f"Files of {place.commit:.9} that are {way} in {code}: {_named(names)}."


def _is_same(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bool:
    if member.issym():
        return path.is_symlink() and path.readlink() == Path(member.linkname)
    content = tar.extractfile(member)
    if content is None or path.is_symlink() or not path.is_file() or path.stat().st_size != member.size:
        return False
    runs = os.name == "nt" or (path.stat().st_mode ^ member.mode) & 0o100 == 0
    return runs and path.read_bytes() == content.read()


def _named(names: list[str]) -> str:
    more = f" and {len(names) - ROWS} more" if len(names) > ROWS else ""
    return ", ".join(names[:ROWS]) + more
