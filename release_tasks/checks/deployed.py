"""What runs is this release: the API, the newest session stamp, the DDL ledger and the deployed files say the same."""

import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

from release_tasks import process
from release_tasks.checks import CheckFailed, Inconclusive, NoPass, Record
from release_tasks.checks.api import Api, version_in
from release_tasks.checks.target import Target
from release_tasks.errors import Refused, listed
from release_tasks.masks import short

ARCHIVED = (":(exclude,attr:export-ignore)", ":(exclude,attr:export-subst)")


def check_release(target: Target, record: Record) -> None:
    """Compare what each of the four says with the release; raise `CheckFailed` with all that differs, at once.

    What this target does not have is left out. Raises `Inconclusive` where one cannot be read and no other differs.
    """
    wrong, unread = list[str](), list[str]()
    for source in (api_problems, stamp_problems, ledger_problems, tree_problems):
        try:
            wrong += source(target, record)
        except (NoPass, Refused, psycopg.Error) as error:
            unread.append(short(error))
    if wrong or unread:
        hint = "Restart the web app of dev." if target.name == "dev" else f"inv deploy.{target.name}"
        raise (CheckFailed if wrong else Inconclusive)(" ".join([*wrong, *unread]), hint)


def api_problems(target: Target, record: Record) -> Iterator[str]:
    if target.version_path:
        with Api(target.origin) as api:
            answer = api.get(target.version_path, headers={"Cache-Control": "no-cache"})
        found = version_in(answer) or "no version"
        record("api", f"{found} by API")
        if (answer.status_code, found) != (200, target.version):
            said = f"answers as {found}, with status {answer.status_code}"
            yield f"{target.origin}{target.version_path} {said}; expected {target.version}."


def stamp_problems(target: Target, record: Record) -> Iterator[str]:
    """Compare the newest stamp, and the flags that its session opened, where the schema has such."""
    if not target.session_log:
        return
    query = f"""select app_version, opened_at, opened_at < %s::timestamptz, to_jsonb(stamp)->>'session_id'
      from {target.session_log} stamp where app_name = %s order by opened_at desc nulls last limit 1"""
    stamps = target.rows(query, target.deployed_at or "-infinity", target.app) or [("no version", "never", False, None)]
    version, opened, is_older, session = stamps[0]
    record("stamp", f"stamp of {opened}")
    if version != target.version or is_older:
        since = f", after {target.deployed_at}" if is_older else ""
        yield f"The newest stamp of {target.app} is of {version}, at {opened}; expected {target.version}{since}."
    if target.session_flags and target.rows("select to_regclass(%s) is not null", target.session_flags)[0][0]:
        query = f"select schema_name, is_open, to_jsonb(flag)->>'opened_by' from {target.session_flags} flag order by 1"
        flags = target.rows(query)
        closed = [name for name, is_open, by in flags if not is_open or (session and by != session)]
        if closed or not flags:
            yield f"{target.session_flags}: not opened by this session: {listed(closed) or 'it has no row'}."


def ledger_problems(target: Target, record: Record) -> Iterator[str]:
    if target.pack:
        applied = dict(target.rows(f"select file, sha256 from {target.ledger} where applied_at is not null"))
        record("ledger", f"{len(target.pack)} DDL files")
        if other := [file for file, sha256 in target.pack.items() if applied.get(file) != sha256]:
            yield f"The ledger {target.ledger} lacks, or has another {listed(other)}."


def tree_problems(target: Target, record: Record) -> Iterator[str]:
    """Compare the deployed files with the commit, as git compares a working tree, but for what is not archived."""
    if not target.commit:
        return
    with TemporaryDirectory() as folder:
        how: dict[str, Any] = {"cwd": Path(target.root), "env": {"GIT_INDEX_FILE": f"{folder}/index"}, "record": False}
        git = ["git", f"--work-tree={target.code}"]
        process.run([*git, "read-tree", target.commit], **how)
        diff = [*git, "diff", "--name-only", "-z", "--ignore-submodules=all", "--", *ARCHIVED]
        differing = process.run(diff, **how).stdout.split("\0")[:-1]
    excepted = {name: why for name in differing for each, why in target.rewritten.items() if re.search(each, name)}
    record("tree", "; ".join([f"files of {target.commit:.9}", *dict.fromkeys(excepted.values())]))
    if wrong := [name for name in differing if name not in excepted]:
        restore = f"git -C {target.root} archive {target.commit} | tar --extract --directory {target.code}"
        yield f"In {target.code} these are not as in {target.commit:.9}: {listed(wrong)}. To restore them: {restore}"
