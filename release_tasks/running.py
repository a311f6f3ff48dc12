"""`inv deploy.running`: what runs in each environment, at a glance. Nothing is started for it."""

from contextlib import closing
from typing import Any

from release_tasks import ddl, embedded, screen
from release_tasks.config import project_root, settings_of
from release_tasks.database import apply
from release_tasks.database.pack import pack_at
from release_tasks.deploy import local
from release_tasks.errors import Refused
from release_tasks.files import read_link
from release_tasks.git import Git
from release_tasks.settings import Settings
from release_tasks.versions import is_later_release

COLUMNS = "environment", "answers", "in place", "commit", "since", "by", "stamped", "ddl", "unapplied", "problem"
EMBEDDED = "embedded: runs only with a command"


def report(config: Any, as_json: bool) -> None:
    """Print a row for each environment. Raises `SystemExit` where there are some to be reached, and none was."""
    screen.for_machines(as_json)
    settings = settings_of(config)
    rows: list[dict[str, Any]] = [{**dict.fromkeys(COLUMNS), "environment": name} for name, _ in settings.environments]
    with closing(Git.open(project_root(config), settings.remote)) as git:
        for row in rows:
            try:
                _look(row, row["environment"], git, settings)
            except Refused as no:
                row["problem"] = str(no)
    if as_json:
        screen.as_json(rows)
    else:
        short = [row | {"commit": (row["commit"] or "")[:9]} for row in rows]
        screen.table("", [*COLUMNS], [["–" if cell in ("", None) else cell for cell in row.values()] for row in short])
    wanted = [row for row in rows if row["problem"] != EMBEDDED]
    if wanted and not any(row["answers"] or row["ddl"] is not None for row in wanted):
        raise SystemExit(1)


def _look(row: dict[str, Any], name: str, git: Git, settings: Settings) -> None:
    """Fill `row` with what is seen in the environment `name`. Raises `Refused` where it cannot be reached."""
    if settings.environments.named(name).embedded:
        current = read_link(embedded.folder_of(name, git.root) / "current")
        row |= {"in place": current and current.name, "problem": EMBEDDED}
        return
    with closing(embedded.open_environment(name, git.root, settings)) as env:
        (version, said), tag = env.probe(), getattr(name != "dev" and read_link(env.current), "name", "")
        facts = local.facts_of(env, tag)
        row |= {"answers": version, "in place": tag, "problem": "" if version else said}
        row |= {key: facts.get(key) for key in ("commit", "since", "by")}
        if stamp := env.last_stamp():
            row["stamped"] = f"{stamp[0]} at {stamp[1]:%Y-%m-%d %H:%M:%S%z}"
        with env.connect() as connection:
            applied = row["ddl"] = apply.last_version(connection, settings.ddl)
            if tag and is_later_release(applied, settings.version_of(tag)):  # which a rollback does not undo
                tag = settings.tag_of(applied)
            at = tag and git.commit_named(f"refs/tags/{tag}")
            pack = pack_at(git, at, settings) if at else ddl.pack_for(name, git.root, settings)
            row["unapplied"] = len(apply.unapplied(connection, pack, settings.ddl))
