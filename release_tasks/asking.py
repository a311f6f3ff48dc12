"""Checks are asked: those of invoke.yaml in one process of pytest, each file of the team's own in one more."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from release_tasks import isolation, screen
from release_tasks.checks import rotation
from release_tasks.checks.looking import KINDS_FILE, limits_of
from release_tasks.checks.place import TOLD, Asked, Place
from release_tasks.checks.verdict import ENDED, FAIL, PASS, UNKNOWN, Result, name_of
from release_tasks.errors import Problem
from release_tasks.files import records_folder, write_aside
from release_tasks.kinds import Log
from release_tasks.masks import masked_json
from release_tasks.processes import shell

if TYPE_CHECKING:
    from release_tasks.environments import Environment

INI = Path(__file__).parent / "checks" / "pytest.ini"
LAYER = Path(__file__).parents[1]
FILES = 1800.0  # seconds for all tests of a team's files
SLACK = 60.0  # seconds beyond what the checks may take by themselves
COLUMNS = ["about", "check", "verdict", "took", "seen"]


def place_of(
    environment: Environment, version: str, kept: Path, code: Path | None = None, origin: str = "", **facts: Any
) -> Place:
    """Return `environment` as its checks see it, with the tree `code` and at `origin` where they are other ones.

    `facts` are those of `Place` that a release adds or changes.
    """
    settings, code = environment.settings, code or environment.code
    plain = {
        "name": environment.name,
        "app": settings.app,
        "version": version,
        "dsn": environment.dsn,
        "origin": origin or environment.origin,
        "root": str(environment.root),
        "code": str(code),
        "folder": str(code / settings.folder),
        "kept": str(kept),
        "variables": environment.variables(version, origin),
        "keys": settings.acceptance.keys,
        "version_path": settings.acceptance.version,
        "rewritten": settings.acceptance.rewritten,
        "log": str(environment.log or ""),
        "positions": {} if "positions" in facts else rotation.positions(logs_of(environment), environment.root),
        "ends_with_us": environment.is_embedded,
    }
    return Place(**{**plain, **facts})


def logs_of(environment: Environment) -> list[str]:
    """Return the logs that the checks of `environment` read: PostgreSQL's, and the patterns of files they name."""
    settings = environment.settings
    checks = [*settings.acceptance.log, *(each for each in settings.smokes.values() if isinstance(each, Log))]
    own = sorted({file for each in checks for file in each.files})
    return [*([str(environment.log)] if environment.log else []), *own]


def ask(place: Place, files: Sequence[Path] = (), section: str = "", words: str = "") -> list[Result]:
    """Ask all checks of `place`, and the team's own `files`, at once; return what became of each.

    `words` are options for pytest, given by a person at the terminal, who then sees what it prints.
    Raises `Refused` when the environment of a smoke cannot be made.
    """
    root = Path(place.root)
    needs = {path: isolation.needs_of_file(path) for path in files}
    isolation.make({name_of(path): need for path, need in needs.items()}, root)
    runs = [(Path(sys.executable), KINDS_FILE)] if place.asked else []
    for path in files:
        own = isolation.python_in(isolation.home_of(name_of(path), root))
        runs.append((own if needs[path] != isolation.Needs() else Path(sys.executable), path))
    with TemporaryDirectory(prefix="checks-", dir=records_folder(root)) as told:
        place.hide_its_secrets()
        Path(place.kept).mkdir(parents=True, exist_ok=True)
        calls = [partial(_run_pytest, place, *run, Path(told), words) for run in runs]
        found = [call() for call in calls] if words else _all_at_once(calls)
    return [replace(each, section=each.section or section) for results in found for each in results]


def _all_at_once(calls: Sequence[Callable[[], list[Result]]]) -> list[list[Result]]:
    with ThreadPoolExecutor(max(len(calls), 1)) as pool:
        try:
            return [begun.result() for begun in [pool.submit(call) for call in calls]]
        except KeyboardInterrupt:
            shell.end_all()  # the pool would wait for them
            raise


def _run_pytest(place: Place, python: Path, tests: Path, told: Path, words: str) -> list[Result]:
    """Run pytest over the file `tests`; return its results, and `unknown` for whatever it has none of."""
    name, root = "invoke.yaml" if tests == KINDS_FILE else name_of(tests), Path(place.root)
    out, junit = told / f"{name}.json", told / f"junit-{name}.xml"
    # -P: the deployed tree, where it runs, may hold another release_tasks, or a pytest.py.
    argv = [str(python), "-P", "-m", "pytest", "-p", "pytest_timeout", "-p", "release_tasks.checks.plugin"]
    argv += ["-c", str(INI), f"--rootdir={place.code}", f"--junitxml={junit}", f"--results={out}"]
    argv += ["-o", f"cache_dir={records_folder(root) / 'cache' / 'pytest'}", str(tests)]
    argv += ["--by-hand", *shlex.split(words)] if words else []
    variables = {
        "PYTHONPATH": str(LAYER),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "",
        TOLD: str(told / f"{name}.place.json"),
    }
    place.write(Path(variables[TOLD]))
    asked = place.asked if tests == KINDS_FILE else ()
    if words:
        code = subprocess.run(argv, cwd=place.code, env=shell.environment(variables)).returncode
        said = f"pytest {words} ended with exit code {code}."
    else:
        said = _last_words(argv, place, variables, _limit_of(asked) if asked else FILES)
    if junit.exists():
        write_aside(Path(place.kept) / junit.name, shell.mask(junit.read_text(encoding="utf-8")).encode())
    results, ended = _results_in(out)
    return [*results, *_missing(results, () if words and results else asked, tests, said, ended)]


def _results_in(out: Path) -> tuple[list[Result], bool]:
    """Return what became of each test, and whether that is all; what a run that died had half written is left out."""
    lines = out.read_text(encoding="utf-8").split("\n")[:-1] if out.exists() else []
    ended = lines[-1:] == [ENDED]
    told = dict(json.loads(line) for line in (lines[:-1] if ended else lines))
    return [Result(**{**each, "said": tuple(each["said"])}) for each in told.values()], ended


def _last_words(argv: list[str], place: Place, variables: dict[str, str], limit: float) -> str:
    """Run pytest for `limit` seconds at most; return how it ended, and what it said at last."""
    try:
        ran = shell.run(argv, cwd=Path(place.code), env=variables, timeout=limit, check=False, strays=True)
    except shell.CommandFailed as late:
        return f"pytest did not end within {limit:g} s: {late.finished.tail(3)}"
    return f"pytest ended with exit code {ran.code}: {ran.tail(5)}"


def _missing(
    results: Sequence[Result], asked: Sequence[Asked], tests: Path, said: str, ended: bool
) -> Iterator[Result]:
    """Yield `unknown` for each check without a result, and for a team's file that ran no test, or not all of them."""
    for each in asked:
        if each.name not in {result.name for result in results}:
            why = f"It has no result: {said}"
            yield Result(each.name, each.check.kind, each.section, each.bullet, UNKNOWN, (why,))
    if not asked and not (results and ended):
        why = f"{'Not all tests' if results else 'No test'} of {tests.name} {'were' if results else 'was'} run: {said}"
        yield Result(name_of(tests), "test", "", isolation.why_of_file(tests), UNKNOWN, (why,))


def _limit_of(asked: Sequence[Asked]) -> float:
    """Return the seconds within which all of `asked` are decided, and pytest has begun and ended."""
    return max(limits_of(asked).values()) + SLACK


# What is told of results


def problems_in(results: Iterable[Result], where: str, noun: str, again: str) -> list[Problem]:
    """Return a problem for each result that is no pass, one for those of which there is the same to say.

    `again` is the command that asks once more, its `{name}` filled in.
    """
    alike: dict[tuple[str, tuple[str, ...], str], list[Result]] = {}
    for each in results:
        if each.verdict != PASS:
            alike.setdefault((each.verdict, each.said, each.mend), []).append(each)
    found = []
    for (verdict, said, mend), those in alike.items():
        one, many = ("fails", "fail") if verdict == FAIL else ("is unknown", "are unknown")
        names, times = ", ".join(each.name for each in those), max(each.attempts for each in those)
        what = f"The {noun} {names} {one}" if len(those) == 1 else f"The {noun}s {names} {many}"
        tried = f" (asked {times} times)" if times > 1 else ""
        name = those[0].name.partition("/")[0] if those[0].kind == "test" else those[0].name  # of a file, the whole
        mend = mend or again.format(name=shlex.quote(name))
        found.append(Problem(f"{what} on {where}{tried}: {' '.join(said)}", mend))
    return found


def keep(kept: Path, results: Sequence[Result]) -> None:
    """Keep results as JSON beside the folder `kept`, which has their screenshots and JUnit XML."""
    write_aside(kept.with_name(f"{kept.name}.json"), masked_json(results, indent=2).encode())


def show(title: str, results: Sequence[Result]) -> None:
    """Show results as a table: which check, its verdict, its time, and what it saw; and how many pass."""
    screen.table(title, COLUMNS, rows_of(results))
    passed = sum(each.verdict == PASS for each in results)
    screen.say(f"\n{passed} of {len(results)} pass.", "bold green" if passed == len(results) else "bold red")


def rows_of(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Return results as the cells of a table of `COLUMNS`."""
    return [(each.bullet, each.name, each.verdict, f"{each.seconds:.1f} s", each.words) for each in results]
