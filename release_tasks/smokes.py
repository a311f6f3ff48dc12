"""The smokes of sections 2, 7.1 and 8: checks of invoke.yaml and a team's own tests, passed by an environment."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release_tasks import asking, isolation, screen
from release_tasks.asking import ask, place_of, problems_in
from release_tasks.checks.place import Asked, Place
from release_tasks.checks.verdict import FAIL, Result
from release_tasks.database import programs, structure
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.files import emptied, records_folder
from release_tasks.kinds import Check, Command, Sql
from release_tasks.processes import shell
from release_tasks.processes.links import read_link

if TYPE_CHECKING:
    from release_tasks.environments import Environment
    from release_tasks.release import Release
    from release_tasks.settings import Settings


def chosen(settings: Settings, code: Path, only: str | None) -> tuple[Mapping[str, Check], list[Path]]:
    """Return the smokes of the settings, and the files of the tree `code`: all, or the one named `only`.

    Raises `Refused` when there is none.
    """
    files = isolation.files_in(code)
    refuse(_stray_problems(code))
    if clash := sorted(settings.smokes.keys() & files.keys()):
        what = f"The smoke {clash[0]} stands in invoke.yaml and in {files[clash[0]].name}."
        raise Refused(what, f"git mv smokes/test_{clash[0]}.py smokes/test_other.py")
    named = {name: smoke for name, smoke in settings.smokes.items() if only in (None, name)}
    paths = [path for name, path in files.items() if only in (None, name)]
    if not named and not paths and only:
        there = ", ".join([*settings.smokes, *files]) or "none"
        raise Refused(f"There is no smoke {only!r}; expected one of {there}.", "nox -l")
    if not named and not paths:
        raise Refused("No smokes are set; a release that nothing checks is none.", "Set release.smokes in invoke.yaml.")
    return named, paths


def _stray_problems(code: Path) -> Iterator[Problem]:
    for stray in isolation.strays_in(code):
        name = isolation.TEST.sub("", stray.stem).lower() or "other"
        path = stray.relative_to(code).as_posix()
        what = f"Nobody would ask {path}; expected smokes in smokes/test_<name>.py."
        yield Problem(what, f"git mv {shlex.quote(path)} smokes/test_{name}.py")


def asked_of(smokes: Mapping[str, Check], place: Place, section: str, on_backup: bool = False) -> tuple[Asked, ...]:
    """Return `smokes` as they are asked of `place`, each command with the programs of its own environment.

    Raises `Refused` when such an environment cannot be made.
    """
    root = Path(place.root)
    needs = {name: isolation.needs_of(smoke.model_dump()) for name, smoke in smokes.items()}
    isolation.make(needs, root)
    asked = []
    for name, smoke in smokes.items():
        variables = dict[str, str]()
        if isinstance(smoke, Command):
            variables = {**smoke.env, **((smoke.on_backup or {}) if on_backup else {})}
        if needs[name] != isolation.Needs():
            path = str(place.variables.get("PATH") or shell.environment()["PATH"])
            variables["PATH"] = isolation.with_programs([isolation.home_of(name, root)], path)
        turn = smoke.turns[-1]  # a log is read after the others have written to it
        asked.append(Asked(name, section, smoke.why or name, smoke, smoke.wait or 0.0, turn, variables))
    return tuple(asked)


def ask_all(
    environment: Environment, place: Place, section: str, only: str | None = None, words: str = ""
) -> list[Result]:
    """Ask the smokes of `environment` (or the one named `only`), and see that they leave its objects as they were.

    Those that may change what the database consists of are asked first, one by one. Raises `Refused`.
    """
    named, paths = chosen(environment.settings, Path(place.code), only)
    asked = asked_of(named, place, section)
    free = [each for each in asked if isinstance(each.check, Command) and each.check.changes]
    rest = tuple(each for each in asked if each not in free)
    results = [result for each in free for result in ask(replace(place, asked=(each,)), section=section, words=words)]
    if not rest and not paths:
        return results
    before = structure.read(environment.dsn, environment.name, roles=False)
    results += ask(replace(place, asked=rest), paths, section, words)
    changed = structure.differences(before, structure.read(environment.dsn, environment.name, roles=False))
    if changed:
        said = tuple(f"While they ran, {each}." for each in changed)
        mend = "Let them leave the database as it is, or say why not: release.smokes.<name>.changes"
        results.append(Result("unchanged", "unchanged", section, "The smokes change nothing", FAIL, said, mend))
    order = [*named, *(result.name for result in results)]
    return sorted(results, key=lambda result: order.index(result.name))


def pass_all(
    release: Release, environment: Environment, section: str, code: Path | None = None, origin: str = ""
) -> str:
    """Pass all smokes in `environment`, with the tree `code` and against `origin` where they are other ones.

    The results are kept as evidence. Returns a few words; raises `Refused` with all that did not pass.
    """
    kept, commit = release.kept(f"smokes-{environment.name}"), release.published or ""
    place = place_of(environment, release.version, kept, code, origin, commit=commit)
    results = ask_all(environment, place, section)
    release.keep_results(f"smokes-{environment.name}", environment.name, results, commit=place.commit)
    again = f"inv smokes --env {environment.name} --only {{name}}"
    refuse(problems_in(results, environment.name, "smoke", again))
    return ", ".join(f"{result.name} {result.seconds:.1f} s" for result in results)


def pass_on_copy(environment: Environment, version: str, dsn: str) -> str:
    """Run the smokes that are marked `on_backup` on `dsn`, a restored copy that is read-only meanwhile.

    They run in the code that is deployed in `environment`, which made the data. Returns their names, or why none ran;
    raises `Refused` with those that do not pass.
    """
    every = environment.settings.smokes.items()
    marked = {name: each for name, each in every if isinstance(each, Command | Sql) and each.on_backup is not None}
    if not marked:
        return "no smoke is marked on_backup"
    code = environment.root if environment.name == "dev" else read_link(environment.current)
    if code is None:
        return "no smoke ran, for nothing has been deployed there yet"
    from psycopg import sql

    kept = emptied(records_folder(environment.root) / "checks" / "restored")
    with programs.connect(dsn) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("alter database {} set default_transaction_read_only = on").format(name))
        place = place_of(replace(environment, dsn=dsn, held=[]), version, kept, code=code)
        results = ask(replace(place, asked=asked_of(marked, place, "8", on_backup=True)))
        connection.execute(sql.SQL("alter database {} reset default_transaction_read_only").format(name))
    fix = "Correct the smoke, or its on_backup; it can only read, and runs with the code deployed there."
    refuse(replace(each, mend=fix) for each in problems_in(results, "the restored backup", "smoke", ""))
    return f"smokes: {', '.join(each.name for each in results)}"


def report(config: Any, where: str, only: str | None, as_json: bool, words: str | None) -> None:
    """Ask the smokes (or the one named `only`) of the environment `where`, outside a release, and show a table.

    Raises `Refused` when one is no pass.
    """
    from release_tasks.release import environment_of, version_here

    screen.for_machines(as_json)
    if as_json and words:
        raise Refused("--json and --pytest both print to the same place.", "inv smokes --pytest …, without --json")
    try:
        shlex.split(words or "")
    except ValueError as error:
        raise Refused(f"--pytest is no list of options: {error}.", "--pytest '-k BTC --lf'") from None
    with environment_of(config, where) as environment:
        kept = emptied(records_folder(environment.root) / "checks" / f"smokes-{where}")
        place = place_of(environment, version_here(environment.root), kept)
        with screen.busy(f"Asking the smokes on {where}"):
            results = ask_all(environment, place, "", only, words or "")
    asking.keep(kept, results)
    if as_json:
        screen.as_json(results)
    else:
        asking.show(f"Smokes on {where}", results)
    refuse(problems_in(results, where, "smoke", f"inv smokes --env {where} --only {{name}}"))
