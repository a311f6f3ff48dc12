"""Check that this release is live: by API, newest session stamp, DDL ledger and deployed files."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg

from release_tasks.checks import CheckFailed, Inconclusive, Record, Target
from release_tasks.checks.web import Api, json_in
from release_tasks.deploy.code import changed_files
from release_tasks.errors import Refused, listed
from release_tasks.git import Git
from release_tasks.masks import short

BRING_IT = """inv deploy.{env} --version {version}   # or once all of it is done:
inv deploy.rollback --env {env} --to {version}   # to start it again; and inv ddl.apply --env {env}"""


def test_this_release_runs(deployed: Callable[[], None]) -> None:
    deployed()


test_this_release_still_runs = test_this_release_runs  # section 7.2 begins with the one, and ends with the other


def check_release(target: Target, record: Record) -> None:
    """Compare what each of the four says with the release, where the target has it; raise `CheckFailed` with all.

    Raises `Inconclusive` where one cannot be read and no other differs.
    """
    wrong, unread = list[str](), list[str]()
    for source in (api_differences, stamp_differences, ledger_differences, tree_differences):
        try:
            wrong += source(target, record)
        except (Refused, psycopg.Error) as error:
            unread.append(short(error))
    if wrong or unread:
        bring_it = BRING_IT.format(env=target.name, version=target.version)
        hint = "Restart the web app of dev." if target.name == "dev" else bring_it
        raise (CheckFailed if wrong else Inconclusive)(" ".join([*wrong, *unread]), hint)


def api_differences(target: Target, record: Record) -> Iterator[str]:
    if target.version_path:
        with Api(target.origin) as api:
            answer = api.get(target.version_path, headers={"Cache-Control": "no-cache"})
        said = json_in(answer)
        found = str(said.get("version") or "no version") if isinstance(said, dict) else "no version"
        record("api", f"{found} by API")
        if (answer.status_code, found) != (200, target.version):
            said = f"answers as {found}, with status {answer.status_code}"
            yield f"{target.origin}{target.version_path} {said}; expected {target.version}."


def stamp_differences(target: Target, record: Record) -> Iterator[str]:
    if target.session_log:
        query = f"""select app_version, opened_at, opened_at < %s::timestamptz from {target.session_log}
          where app_name = %s order by opened_at desc nulls last limit 1"""
        stamps = target.rows(query, target.deployed_at or "-infinity", target.app) or [("no version", "never", False)]
        version, opened, is_older = stamps[0]
        record("stamp", f"stamp of {opened}")
        if version != target.version or is_older:
            since = f", after {target.deployed_at}" if is_older else ""
            yield f"The newest stamp of {target.app} is of {version}, at {opened}; expected {target.version}{since}."


def ledger_differences(target: Target, record: Record) -> Iterator[str]:
    if target.pack:
        applied = dict(target.rows(f"select file, sha256 from {target.ledger} where applied_at is not null"))
        record("ledger", f"{len(target.pack)} DDL files")
        if other := [file for file, sha256 in target.pack.items() if applied.get(file) != sha256]:
            yield f"The ledger {target.ledger} lacks, or has another {listed(other)}."


def tree_differences(target: Target, record: Record) -> Iterator[str]:
    """Compare the deployed files with the commit, as git compares a working tree; of other hosts' files, our copy."""
    if target.commit:
        tree = target.placed or target.code
        with closing(Git.open(Path(target.root), "origin")) as git:
            wrong = changed_files(git, target.commit, tree)
        record("tree", f"files of {target.commit:.9}{'' if target.placed else ', in our copy'}")
        if wrong:
            what = f"In {tree} these are not as in {target.commit:.9}: {listed(wrong)}."
            restore = " && ".join(f"GIT_INDEX_FILE=$(mktemp -u) {each}" for each in dict.fromkeys(wrong.values()))
            yield f"{what} To restore them: {restore}"
