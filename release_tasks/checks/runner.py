"""Run checks: from here to pytest, by way of nox where a smoke has packages of its own; results are JUnit XML."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from release_tasks import process, screen
from release_tasks.checks import INCONCLUSIVE, PASSED, WAIVED
from release_tasks.checks.target import VARIABLE, Target
from release_tasks.checks.views import node_of_playwright
from release_tasks.database import programs
from release_tasks.errors import Problem, Refused
from release_tasks.files import records_folder

if TYPE_CHECKING:
    from release_tasks.environments import Environment

HERE = Path(__file__).parent
THE_RELEASE = HERE / "test_deployed.py"
LIMIT = 1800.0  # seconds for all tests of one process
COLUMNS = ["check", "outcome", "time", "observed"]
OWN_PACKAGES = "# /// script"  # PEP 723
BROWSER_NAME = re.compile(r"\[chromium\]$|\bchromium-|-chromium\b")  # pytest-playwright's own parameter
# No conftest.py, no variable of the shell and no module of the deployed tree (-P) changes what runs, or how.
PYTEST = ["-P", "-m", "pytest", "-p", "release_tasks.checks.gate", "-c", str(HERE / "pytest.ini"), "--noconftest"]
VARIABLES = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "PYTHONDONTWRITEBYTECODE": "1"}


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
    return Target(
        name=here.name,
        app=settings.app,
        version=version,
        dsn=here.dsn,
        origin=(origin or here.origin).rstrip("/"),
        root=str(here.root),
        code=str(code),
        folder=str(code / settings.folder),
        env=here.variables(version, origin),
        version_path=settings.acceptance.version,
        rewritten=settings.acceptance.rewritten,
        is_embedded=here.is_embedded,
        log=str(here.log or ""),
        **facts,
    )


def run(target: Target, files: Sequence[Path], evidence: Path, *options: str, shown: bool = False) -> list[Result]:
    """Run the tests of `files` on `target`; JUnit XML and screenshots go to `evidence`, `options` to pytest.

    Files with packages of their own run beside the others. `shown`: a person sees pytest, and can use a debugger.
    """
    own = [file for file in files if OWN_PACKAGES in file.read_text(encoding="utf-8")]
    groups = [group for group in ([file for file in files if file not in own], *([file] for file in own)) if group]
    with ThreadPoolExecutor(1 if shown else len(groups)) as pool:
        try:
            running = [pool.submit(_run, target, group, evidence, options, shown) for group in groups]
            return [result for each in running for result in each.result()]
        except KeyboardInterrupt:
            process.end_all()  # the pool would wait for them
            raise


def _run(target: Target, files: list[Path], evidence: Path, options: Sequence[str], shown: bool) -> list[Result]:
    root, report = Path(target.root), evidence / f"{files[0].stem}.xml"
    cache = records_folder(root) / "cache" / "pytest"
    argv = [*PYTEST, f"--rootdir={target.code}", f"--override-ini=cache_dir={cache}", f"--junitxml={report}"]
    env = {**VARIABLES, "PYTEST_BASE_URL": target.origin, "PYTHONPATH": str(HERE.parents[1]), **node_of_playwright()}
    if OWN_PACKAGES in files[0].read_text(encoding="utf-8"):
        with suppress(Refused):  # the layer's PostgreSQL may be a wheel, which is not in the smoke's environment
            env["PG_BIN"] = str(programs.client("pg_dump", programs.server_major(target.dsn)).parent)
        argv = ["-m", "nox", "--session", f"smokes({files[0].stem.removeprefix('test_')})", "--", *argv]
    argv = [sys.executable, *argv, *map(str, files), *options]
    with TemporaryDirectory(prefix="checks-", dir=records_folder(root)) as folder:
        env[VARIABLE] = str(target.save(Path(folder) / "target.json"))
        if shown:
            code, said = subprocess.run(argv, cwd=root, env=process.environment(env)).returncode, ""
        else:
            try:
                ran = process.run(argv, cwd=root, env=env, timeout=LIMIT, check=False, supervised=True)
            except process.CommandFailed as late:
                ran = late.finished
            code, said = ran.code, ran.tail(5)
    results = list(read_junit(report)) if report.exists() else []
    missing = {file.stem for file in files} - {each.file for each in results} if not (options and results) else set()
    said = f"{' '.join(['pytest', *options])} ended with exit code {code}. {said}"
    return [*results, *(Result(stem, INCONCLUSIVE, f"No test of {stem}.py ran: {said}", file=stem) for stem in missing)]


def read_junit(report: Path) -> Iterator[Result]:
    """Yield the results in a JUnit XML file, as the gate judged them; what it could not judge is inconclusive."""
    for case in ElementTree.parse(report).iter("testcase"):
        kept = [(each.get("name", ""), each.get("value", "")) for each in case.iter("property")]
        facts, broken = dict(kept), [each for each in case if each.tag in ("error", "failure", "skipped")]
        said = " ".join(f"{each.tag}: {each.get('message')} {each.text}" for each in broken)
        test = BROWSER_NAME.sub("", case.get("name", ""))
        file = Path(case.get("file") or test.replace(".", "/")).name.removesuffix(".py")
        yield Result(
            f"{name_of(file)}: {name_of(test)}",
            facts.get("outcome", INCONCLUSIVE if broken else PASSED),
            " ".join(facts.get("message", said).split()),
            facts.get("hint", ""),
            tuple(value for name, value in kept if name not in ("outcome", "message", "hint")),
            float(case.get("time") or 0),
            file,
            test,
        )


def name_of(stem: str) -> str:
    """Return the name under which people know a test or its file: test_no_gaps is no gaps."""
    return stem.removeprefix("test_").replace("_", " ")


def problems_of(results: Iterable[Result], noun: str, where: str, again: str) -> list[Problem]:
    """Return a problem for each result that is no pass, one for those of which there is the same to say."""
    alike = dict[tuple[str, str, str], list[str]]()
    for each in results:
        if not each.is_pass:
            alike.setdefault((each.outcome, each.message, each.hint or again), []).append(each.name)
    return [
        Problem(f"{noun} {', '.join(names)}: {how} {where}. {said}", hint) for (how, said, hint), names in alike.items()
    ]


def show(title: str, results: Sequence[Result], as_json: bool) -> None:
    """Show results as a table, or as JSON."""
    if as_json:
        return screen.as_json(results)
    rows = [(it.name, it.outcome, f"{it.seconds:.1f} s", it.message or "; ".join(it.observed[:3])) for it in results]
    screen.table(f"{title}: {sum(it.is_pass for it in results)} of {len(results)} pass", COLUMNS, rows)
