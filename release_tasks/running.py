"""`inv deploy.running`: what runs in each environment, at a glance. Nothing is started for it."""

from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from release_tasks import ddl, embedded, screen
from release_tasks.config import project_root, settings_of
from release_tasks.database import apply
from release_tasks.database.pack import DdlFile, pack_at
from release_tasks.deploy import local
from release_tasks.environments import Environment
from release_tasks.errors import Refused, counted
from release_tasks.files import read_link
from release_tasks.git import Git
from release_tasks.settings import Settings
from release_tasks.versions import is_later_release


@dataclass
class Running:
    """What was found in one environment; "" and None where it is not known."""

    environment: str
    answers: str = ""
    tag: str = ""
    commit: str = ""
    since: str = ""
    by: str = ""
    stamped: str = ""
    ddl: str = ""
    unapplied: int | None = None
    problem: str = ""


def report(config: Any, as_json: bool) -> None:
    """Print a row for each environment. Raises `SystemExit` where there are some to be reached, and none was."""
    screen.for_machines(as_json)
    root, settings = project_root(config), settings_of(config)
    rows, reached = list[Running](), list[bool]()
    for name in type(settings.environments).model_fields:
        row = Running(name)
        rows.append(row)
        try:
            if settings.environments.named(name).embedded:
                row.problem = "embedded: runs only with a command"
                row.tag = getattr(read_link(embedded.folder_of(name, root) / "current"), "name", "")
                continue
            with closing(embedded.open_environment(name, root, settings)) as env:
                _look(env, row)
        except Refused as no:
            row.problem = str(no)
        reached.append(bool(row.answers or row.ddl or row.stamped or not row.problem))
    if as_json:
        screen.as_json([asdict(row) for row in rows])
    else:
        columns = ["environment", "answers", "commit", "since", "by", "stamped", "DDL", ""]
        screen.table("", columns, [_cells(row) for row in rows])
    if reached and not any(reached):
        raise SystemExit(1)


def _look(env: Environment, row: Running) -> None:
    """Fill `row` with what is seen in `env`. Raises `Refused` where its database cannot be reached."""
    version, said = env.probe()
    code = None if env.name == "dev" else read_link(env.current)
    row.answers, row.problem = version, "" if version else said
    if code:
        facts, row.tag = local.facts_of(env, code.name), code.name
        row.commit = facts["commit"] or ""
        row.since, row.by = facts.get("since") or facts.get("began", ""), facts.get("by") or ""
        if version and version not in ("any", env.settings.version_of(code.name)):
            row.problem = f"current names {code.name}"
    if stamp := env.last_stamp():
        row.stamped = f"{stamp[0]} at {stamp[1]:%Y-%m-%d %H:%M:%S%z}"
    with env.connect() as connection:
        row.ddl = apply.last_version(connection, env.settings.ddl)
        row.unapplied = len(apply.unapplied(connection, _pack(row, env.root, env.settings), env.settings.ddl))


def _pack(row: Running, root: Path, settings: Settings) -> list[DdlFile]:
    """Return the pack that should be there: of what is in place, or of what was gone back from, which is not undone."""
    is_later = row.tag and is_later_release(row.ddl, settings.version_of(row.tag))
    tag = f"refs/tags/{settings.tag_of(row.ddl) if is_later else row.tag}"
    with closing(Git.open(root, settings.remote)) as git:
        if row.tag and git.commit_named(tag):
            return pack_at(git, tag, settings)
    return ddl.pack_for(row.environment, root, settings)


def _cells(row: Running) -> list[str]:
    pack = row.ddl + (f", {counted(row.unapplied, 'file')} unapplied" if row.unapplied else "")
    cells = [row.environment, row.answers or row.tag, row.commit[:9], row.since, row.by, row.stamped, pack]
    return [*(cell or "–" for cell in cells), row.problem]
