"""`inv deploy.running`: what runs in each environment, at a glance; `inv deploy.history`: what happened to one."""

import re
from collections.abc import Callable
from contextlib import closing
from datetime import UTC
from operator import itemgetter
from typing import Any

from release_tasks import ddl, embedded, screen
from release_tasks.config import project_root, settings_of
from release_tasks.database import apply
from release_tasks.errors import Refused
from release_tasks.git import Git
from release_tasks.release_lock import FREE, ReleaseLock
from release_tasks.settings import Settings

FACTS = ["answers", "tag", "colour", "commit", "since", "by", "stamped", "ddl", "unapplied", "drift", "problem"]
EMBEDDED = "embedded: runs only with a command"


def report(config: Any, as_json: bool, next_step: Callable[[str | None], str]) -> None:
    """Print a row for each environment, and the next step. Raises `SystemExit` where none could be reached."""
    settings = settings_of(config)
    rows: list[dict[str, Any]] = [{"environment": name, **dict.fromkeys(FACTS)} for name, _ in settings.environments]
    with closing(Git.open(project_root(config), settings.remote)) as git:
        for row in rows:
            try:
                _look(row, row["environment"], git, settings)
            except Refused as no:
                row["problem"] = str(no)
        try:
            ahead = next_step(_lock_holder(git, settings))
        except Refused as no:  # which is no reason not to show what runs
            ahead = f"unknown: {no}"
    if as_json:
        screen.as_json({"environments": rows, "next": ahead})
    else:
        words = {True: "yes", False: "no"}
        short = [row | {"commit": (row["commit"] or "")[:9], "drift": words.get(row["drift"])} for row in rows]
        cells = [[fact, *("–" if row[fact] in ("", None) else row[fact] for row in short)] for fact in FACTS]
        screen.table("", ["", *(row["environment"] for row in rows)], cells)
        status = "" if ahead.startswith("unknown") else f"   (inv status --version {ahead.partition(':')[0]})"
        screen.say(f"Next: {ahead}{status}" if ahead else "No release is under way.")
    wanted = [row for row in rows if row["problem"] != EMBEDDED]
    if wanted and not any(row["answers"] or row["ddl"] is not None for row in wanted):
        raise SystemExit(1)


def _lock_holder(git: Git, settings: Settings) -> str | None:
    """Return the version that holds the release lock of main or of a support branch, None where none does."""
    ours = re.compile(rf"{re.escape(settings.lock_of(settings.main))}(-?v?\d+\.\d+)?")  # not another product's
    locks = [lock for ref in git.remote_refs if ours.fullmatch(lock := ref.removeprefix("refs/heads/"))]
    holders = (ReleaseLock(git, "", branch=lock).state().holder for lock in locks)
    return next((holder.partition(" ")[0] for holder in holders if holder != FREE), None)


def _look(row: dict[str, Any], name: str, git: Git, settings: Settings) -> None:
    """Fill `row` with what is seen in the environment `name`. Raises `Refused` where it cannot be reached."""
    if settings.environments.named(name).embedded:
        row |= {"tag": embedded.recorded(name, git.root, settings)[0], "problem": EMBEDDED}
        return
    with closing(embedded.open_environment(name, git.root, settings)) as env:
        version, said = env.probe()
        hosts = {} if name == "dev" else env.hosts.try_status()
        live = [each for each in hosts.values() if each.tag]
        row["answers"], problems = version, ["" if version else said]
        for host, each in hosts.items():
            problems.append(each.problem or (f"{host}: nothing is live." if live and not each.tag else ""))
        row["problem"] = " ".join(filter(None, problems))
        for key in ("tag", "colour"):
            row[key] = ", ".join(dict.fromkeys(getattr(each, key) for each in live))
        facts = live[0].releases.get(live[0].tag, {}) if live else {}
        row |= {key: facts.get(key) for key in ("commit", "since", "by")}
        if stamp := env.last_stamp():
            row["stamped"] = f"{stamp[0]} at {stamp[1].astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
        row["ddl"] = apply.last_applied(env)[0]
        _, pack = ddl.pack_there(env, git)
        row["unapplied"] = len(apply.unapplied(env, pack))
        with screen.busy(f"Comparing {name} with a scratch server"):
            found = apply.drift(env, pack)
        row["drift"] = any(not settings.ddl.excepts(str(each)) for each in found)


def history(config: Any, where: str, as_json: bool) -> None:
    """Print the switches noted on each host, and the stamps. Raises `SystemExit` where a host could not be reached."""
    with embedded.environment_of(config, where) as env:
        looks = {} if where == "dev" else env.hosts.try_status()
        rows = [{**switch, "where": name} for name, seen in looks.items() for switch in seen.switches]
        rows += [
            {"at": f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}", "what": f"stamped {version}"}
            for version, at in env.stamps(50)
        ]
    unreached = [{"what": each.problem} for each in looks.values() if each.problem]
    rows = sorted(rows, key=itemgetter("at")) + unreached
    rows = [{column: row.get(column, "") for column in ("at", "where", "by", "what")} for row in rows]
    if as_json:
        screen.as_json(rows)
    elif rows:
        screen.table(f"History of {where}", ["at", "where", "by", "what"], [[*row.values()] for row in rows])
    else:
        screen.say(f"Nothing was deployed to {where} yet, or stamped there.")
    if unreached:
        raise SystemExit(1)
