"""What runs is this release: the API, the newest session stamp, the DDL ledger and the deployed files say the same."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from release_tasks.checks import HINT, CheckFailed, Inconclusive
from release_tasks.checks.api import Api, short, version_in
from release_tasks.checks.target import Target
from release_tasks.errors import Refused
from release_tasks.processes import shell

SHOWN = 10  # names
Record = Callable[[str, object], None]


def check_release(target: Target, record: Record) -> None:
    """Compare what each of the four says with the release; raise `CheckFailed` with all that differs, at once.

    What this target does not have (stamp, ledger, commit) is left out. Raises `Inconclusive` where one of them cannot
    be read, if nothing else is wrong.
    """
    problems, unread, hint = list[str](), list[str](), ""
    for source in (_api, _stamp, _ledger, _tree):
        try:
            for problem in source(target, record):
                problems.append(problem)
                hint = hint or _hint(target, source is _tree)
        except Inconclusive as no:
            said, _, more = str(no).partition(HINT)
            unread, hint = [*unread, said], hint or more
        except Refused as no:
            unread.append(str(no))
    if problems:
        raise CheckFailed(" ".join([*problems, *unread]), hint)
    if unread:
        raise Inconclusive(" ".join(unread), hint)


def _hint(target: Target, tree: bool) -> str:
    if target.name == "dev":
        return "Restart the web app of dev."
    rewritten = "   # or, for what a build writes: why, in release.acceptance.rewritten of invoke.yaml"
    restore = f"git -C {target.root} archive {target.commit} | tar --extract --directory {target.code}{rewritten}"
    return restore if tree else f"inv deploy.{target.name}"


def _api(target: Target, record: Record) -> Iterator[str]:
    if not target.version_path:
        return
    with Api(target.origin) as api:
        answer = api.get(target.version_path, headers={"Cache-Control": "no-cache"})
    url, found = f"{target.origin}{target.version_path}", version_in(answer)
    record("api", f"{found} by API")
    if answer.status_code != 200 or not found:
        yield f"{url} answers {answer.status_code} and no version; expected {target.version}."
    elif found != target.version:
        yield f"{url} answers as {short(found)}; expected {target.version}."


def _stamp(target: Target, record: Record) -> Iterator[str]:
    if not (log := target.session_log):
        return
    query = (
        "select app_version, opened_at, opened_at >= %s::timestamptz, to_jsonb(l)->>'session_id'"
        f" from {log} l where app_name = %s order by opened_at desc nulls last limit 1"
    )
    newest = _rows(target, query, log, [target.deployed_at or "-infinity", target.app])
    if not newest:
        yield f"{log} has no stamp of {target.app}; expected one of {target.version}."
        return
    version, opened, is_of_this_deployment, session = newest[0]
    record("stamp", f"stamp of {opened:%H:%M}" if opened else "stamp")
    if version != target.version:
        yield f"The newest stamp of {target.app} is of {version}, at {opened}; expected {target.version}."
    elif not is_of_this_deployment:
        yield f"The newest stamp of {target.app}, at {opened}, is older than the deployment, of {target.deployed_at}."
    if flags := target.session_flags:
        rows = _rows(target, f"select schema_name, is_open, to_jsonb(f)->>'opened_by' from {flags} f order by 1", flags)
        yield from [f"{flags} has no row; expected the schemas that were opened."] if rows == [] else []
        yield from _named(f"{flags}: these are not open", [name for name, is_open, _ in rows or [] if not is_open])
        others = [name for name, _, opened_by in rows or [] if session and opened_by != session]
        yield from _named(f"{flags}: these point to another session than {session}", others)


def _ledger(target: Target, record: Record) -> Iterator[str]:
    if not target.pack:
        return
    query = f"select file, sha256, applied_at is not null from {target.ledger}"
    held = {file: (sha256, applied) for file, sha256, applied in _rows(target, query, target.ledger) or []}
    record("ledger", f"{len(target.pack)} DDL files")
    yield from _named(f"Not in the ledger {target.ledger}", [file for file in target.pack if file not in held])
    there = {file: held[file] for file in target.pack if file in held}
    other = [file for file, (sha256, _) in there.items() if sha256 != target.pack[file]]
    begun = [file for file, (_, applied) in there.items() if not applied and file not in other]
    yield from _named(f"In the ledger {target.ledger}, applied as another file", other)
    yield from _named(f"In the ledger {target.ledger}, not applied to the end", begun)


def _rows(target: Target, query: str, table: str, values: Sequence[Any] = ()) -> list[Any] | None:
    """Return the rows of `query`, None where there is no such `table`. Raises `Inconclusive`."""
    with target.connect() as connection:
        if connection.execute("select to_regclass(%s)", [table]).fetchone() == (None,):
            return None
        return connection.execute(query.encode(), values).fetchall()


def _tree(target: Target, record: Record) -> Iterator[str]:
    """Compare the deployed files with what `git archive` gives, as it did for the deployment: line ends and all."""
    code = Path(target.code)
    if not code.is_dir():
        yield f"There is no folder {code}; expected the release's code in it."
        return
    if not target.commit:
        return
    missing, changed = list[str](), list[str]()
    with TemporaryDirectory() as folder:
        archive = Path(folder) / "code.tar"
        shell.run(["git", "archive", f"--output={archive}", target.commit], cwd=Path(target.root), told=False)
        with tarfile.open(archive) as tar:
            members = [member for member in tar if not member.isdir()]
            for member in members:
                if not os.path.lexists(code / member.name):
                    missing.append(member.name)
                elif not _is_same(tar, member, code / member.name):
                    changed.append(member.name)
    known = {name: why for name in changed for pattern, why in target.rewritten.items() if re.search(pattern, name)}
    excepted = f", {len(known)} excepted: {'; '.join(dict.fromkeys(known.values()))}" if known else ""
    record("tree", f"{len(members)} files of {target.commit:.9}{excepted}")
    yield from _named(f"Missing in {code}, of {target.commit:.9}", missing)
    yield from _named(
        f"Not as committed in {code}, of {target.commit:.9}", [each for each in changed if each not in known]
    )


def _is_same(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bool:
    if member.issym():
        return path.is_symlink() and path.readlink() == Path(member.linkname)
    content = tar.extractfile(member)
    if content is None or path.is_symlink() or not path.is_file() or path.stat().st_size != member.size:
        return False
    runs = os.name == "nt" or (path.stat().st_mode ^ member.mode) & 0o100 == 0
    return runs and path.read_bytes() == content.read()


def _named(what: str, names: list[str]) -> list[str]:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{what}: {', '.join(names[:SHOWN])}{more}."] if names else []
