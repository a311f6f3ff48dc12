"""Smokes and checks, asked: a process of pytest for what needs nothing of its own, one for each file that does."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from release_tasks import catalog, isolation, screen, shell
from release_tasks.checks import rotation
from release_tasks.checks.place import TOLD, Asked, Place
from release_tasks.checks.verdict import FAIL, PASS, UNKNOWN, Result
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.files import records_folder, write_aside
from release_tasks.kinds import Command, Log

if TYPE_CHECKING:
    from release_tasks.environments import Environment
    from release_tasks.release import Release
    from release_tasks.settings import Settings

KINDS_FILE = Path(__file__).parent / "checks" / "test_kinds.py"
INI = Path(__file__).parent / "checks" / "pytest.ini"
LAYER = Path(__file__).parents[1]
LONGEST = 1800.0  # seconds for all tests of a file
COLUMNS = ["about", "check", "verdict", "took", "seen"]
SLACK = 60.0  # seconds beyond what the checks may take by themselves


def place_of(environment: Environment, version: str, kept: Path, **facts: Any) -> Place:
    """Return `environment` as its checks see it; `facts` are those of `Place` that a release adds or changes."""
    settings = environment.settings
    code = Path(facts.pop("code", "") or environment.code)
    return Place(
        **{
            "name": environment.name,
            "app": settings.app,
            "version": version,
            "dsn": environment.dsn,
            "origin": environment.origin,
            "root": str(environment.root),
            "code": str(code),
            "folder": str(code / settings.folder),
            "kept": str(kept),
            "variables": environment.variables(version),
            "keys": settings.acceptance.keys,
            "version_path": settings.acceptance.version,
            "log": str(environment.log or ""),
            "positions": {} if "positions" in facts else rotation.positions(logs_of(environment), environment.root),
            "ends_with_us": environment.is_embedded,
            **facts,
        }
    )


def logs_of(environment: Environment) -> list[str]:
    """Return the logs that the checks of `environment` read: PostgreSQL's, and the patterns of files they name."""
    settings = environment.settings
    checks = [*settings.acceptance.log, *(each for each in settings.smokes.values() if isinstance(each, Log))]
    own = sorted({file for each in checks for file in each.files})
    return [*([str(environment.log)] if environment.log else []), *own]


def ask(place: Place, files: Sequence[Path] = (), section: str = "", words: str = "") -> list[Result]:
    """Ask all checks of `place`, and the team's own `files`, at once; return what became of each, in their order.

    `words` are options for pytest, given by a person at the terminal, who then sees what it prints.
    Raises `Refused` when the environment of a smoke cannot be made.
    """
    root = Path(place.root)
    needs = {path: isolation.needs_of_file(path) for path in files}
    isolation.make({_name(path): need for path, need in needs.items()}, root)
    plain = [path for path in files if needs[path] == isolation.Needs()]
    groups = [(Path(sys.executable), [*([KINDS_FILE] if place.asked else []), *plain])]
    for path in files:
        if path not in plain:
            home = isolation.home_of(_name(path), root)
            groups.append((isolation.python_in(home), [path]))
    groups = [group for group in groups if group[1]]
    with TemporaryDirectory(prefix="checks-", dir=records_folder(root)) as told:
        place.write(Path(told) / "place.json")
        place.hide_its_secrets()
        Path(place.kept).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(len(groups) if groups and not words else 1) as pool:
            ran = pool.map(lambda group: _run_pytest(place, group[0], group[1], Path(told), words), groups)
            results = [result for group in ran for result in group]
    return [replace(each, section=each.section or section) for each in results]


def _run_pytest(place: Place, python: Path, files: Sequence[Path], told: Path, words: str) -> list[Result]:
    """Run pytest over `files`, and return its results; whatever was asked and has none is unknown."""
    name = _name(files[0])
    out, junit = told / f"{name}.json", told / f"{name}.xml"
    argv = [str(python), "-P", "-m", "pytest", "-p", "pytest_timeout", "-p", "release_tasks.checks.plugin"]
    argv += ["-c", str(INI), f"--rootdir={place.code}", f"--junitxml={junit}", f"--results={out}"]
    argv += ["-o", f"cache_dir={records_folder(Path(place.root)) / 'cache' / 'pytest'}"]
    argv += [*map(str, files), *shlex.split(words)]
    variables = {
        "PYTHONPATH": str(LAYER),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "",
        TOLD: str(told / "place.json"),
    }
    limit = _limit_of(place.asked) if KINDS_FILE in files else 0.0
    said = ""
    if words:
        code = subprocess.run(argv, cwd=place.code, env=shell.environment(variables)).returncode
    else:
        try:
            limit += LONGEST if set(files) - {KINDS_FILE} else 0.0
            ran = shell.run(argv, cwd=Path(place.code), env=variables, timeout=limit, check=False, leash=True)
            code, said = ran.code, ran.tail(5)
        except shell.CommandFailed as late:
            code, said = late.finished.code, f"{str(late).splitlines()[0]} {late.finished.tail(2)}"
    if junit.exists():
        write_aside(Path(place.kept) / f"junit-{name}.xml", shell.mask(junit.read_text(encoding="utf-8")).encode())
    results = [Result(**each) for each in json.loads(out.read_bytes())] if out.exists() else []
    missing = [
        Result(
            each.name,
            getattr(each.check, "kind", ""),
            each.section,
            each.bullet,
            UNKNOWN,
            (f"It has no result: pytest ended with exit code {code}. {said}",),
        )
        for each in (place.asked if KINDS_FILE in files and not words else ())
        if each.name not in {result.name for result in results}
    ]
    for path in files:
        if path != KINDS_FILE and not words and not any(each.name.startswith(f"{_name(path)}/") for each in results):
            why = f"No test of {path.name} was run: exit code {code}. {said}"
            missing.append(Result(_name(path), "test", "", isolation.why_of_file(path), UNKNOWN, (why,)))
    return [replace(each, said=tuple(each.said)) for each in results] + missing


def _name(path: Path) -> str:
    return path.stem.removeprefix("test_")


def _limit_of(asked: Iterable[Asked]) -> float:
    """Return the seconds within which all of `asked` are decided: the longest of each turn, and some slack."""
    turns: dict[int, float] = {}
    for each in asked:
        turns[each.turn] = max(turns.get(each.turn, 0.0), each.check.timeout + each.wait)
    return sum(turns.values()) + SLACK


# The smokes of sections 2, 7.1 and 8


def chosen(settings: Settings, code: Path, only: str | None) -> tuple[dict[str, Any], list[Path]]:
    """Return the smokes of the settings, and the files of the tree `code`: all, or the one named `only`.

    Raises `Refused` when there is none.
    """
    files = isolation.files_in(code)
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


def asked_of(smokes: Mapping[str, Any], place: Place, section: str, on_backup: bool = False) -> tuple[Asked, ...]:
    """Return `smokes` as they are asked of `place`, each command with the programs of its own environment.

    Raises `Refused` when such an environment cannot be made.
    """
    root = Path(place.root)
    needs = {name: isolation.needs_of(smoke.model_dump()) for name, smoke in smokes.items()}
    isolation.make(needs, root)
    asked = []
    for name, smoke in smokes.items():
        variables = dict(getattr(smoke, "env", {}), **((getattr(smoke, "on_backup", None) or {}) if on_backup else {}))
        if needs[name] != isolation.Needs():
            path = str(place.variables.get("PATH") or shell.environment()["PATH"])
            variables["PATH"] = isolation.with_programs([isolation.home_of(name, root)], path)
        asked.append(Asked(name, section, smoke.why or name, smoke, smoke.wait or 0.0, variables=variables))
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
    with environment.connect() as connection:
        before = catalog.read(connection)
        results += ask(replace(place, asked=rest), paths, section, words)
        changed = catalog.differences(before, catalog.read(connection))
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
    code = code or environment.code
    kept = release.kept(f"smokes-{environment.name}")
    own = {"code": code, "commit": release.published or "", **({"origin": origin} if origin else {})}
    place = place_of(
        environment, release.version, kept, **own, variables=environment.variables(release.version, origin)
    )
    results = ask_all(environment, place, section)
    release.keep_results(f"smokes-{environment.name}", environment.name, results)
    again = f"inv smokes --env {environment.name} --only"
    refuse(problems_in(results, environment.name, "smoke", again))
    return ", ".join(f"{result.name} {result.seconds:.1f} s" for result in results)


def problems_in(results: Iterable[Result], where: str, noun: str, again: str) -> list[Problem]:
    """Return one problem for each result that is no pass; `again` repeats it, with its name."""
    found = []
    for each in results:
        if each.verdict != PASS:
            how = "fails on" if each.verdict == FAIL else "is unknown on"
            tried = f" (asked {each.attempts} times)" if each.attempts > 1 else ""
            found.append(
                Problem(
                    f"The {noun} {each.name} {how} {where}{tried}: {' '.join(each.said)}",
                    each.mend or f"{again} {shlex.quote(each.name)}",
                )
            )
    return found


def show(title: str, results: Sequence[Result]) -> None:
    """Show results as a table: which check, its verdict, its time, and what it saw."""
    screen.table(title, COLUMNS, rows_of(results))


def rows_of(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Return results as the cells of a table of `COLUMNS`."""
    return [(each.bullet, each.name, each.verdict, f"{each.seconds:.1f} s", each.words) for each in results]


def report(config: Any, where: str, only: str | None, as_json: bool, words: str | None) -> None:
    """Ask the smokes (or the one named `only`) of the environment `where`, outside a release, and show a table.

    Raises `Refused` when one is no pass.
    """
    from release_tasks.release import environment_of, version_here

    screen.for_machines(as_json)
    with environment_of(config, where) as environment:
        kept = records_folder(environment.root) / "checks" / f"smokes-{where}"
        place = place_of(environment, version_here(environment.root), kept)
        with screen.busy(f"Asking the smokes on {where}"):
            results = ask_all(environment, place, "", only, words or "")
    if as_json:
        screen.as_json(results)
    else:
        show(f"Smokes on {where}", results)
    refuse(problems_in(results, where, "smoke", f"inv smokes --env {where} --only"))
