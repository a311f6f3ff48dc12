"""Run checks: one direction, from here to pytest, by way of nox where a smoke has packages of its own.

The results come back as JUnit XML. Only `passed` is a pass; what has no result is inconclusive.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from release_tasks import screen
from release_tasks.checks import HINT, logs
from release_tasks.checks.target import VARIABLE, Target
from release_tasks.errors import Problem
from release_tasks.files import records_folder, write_aside
from release_tasks.masks import masked_json
from release_tasks.processes import shell

if TYPE_CHECKING:
    from release_tasks.environments import Environment

PASSED, FAILED, INCONCLUSIVE, WAIVED = "passed", "failed", "inconclusive", "waived"
HERE = Path(__file__).parent
THE_RELEASE = HERE / "test_deployed.py"
Command = tuple[list[str], dict[str, str]]
LIMIT = 1800.0  # seconds for all tests of one process
FAILURES = ("CheckFailed", "AssertionError", "Failed")  # exceptions
OWN_PACKAGES = "# /// script"  # PEP 723


@dataclass(frozen=True)
class Result:
    """What became of one test: its outcome, what was wrong and what fixes it, and what it observed."""

    name: str  # of the smoke or the condition, with its parameter
    outcome: str
    message: str = ""
    hint: str = ""
    observed: tuple[str, ...] = ()
    seconds: float = 0.0
    file: str = ""  # its stem

    @property
    def is_pass(self) -> bool:
        return self.outcome in (PASSED, WAIVED)


def target_of(
    environment: Environment, version: str, code: Path | None = None, origin: str = "", **facts: Any
) -> Target:
    """Return `environment` as its checks see it, with the tree `code` and at `origin` where they are other ones."""
    settings, code = environment.settings, code or environment.code
    return Target(
        name=environment.name,
        app=settings.app,
        version=version,
        dsn=environment.dsn,
        origin=(origin or environment.origin).rstrip("/"),
        root=str(environment.root),
        code=str(code),
        folder=str(code / settings.folder),
        env=environment.variables(version, origin),
        version_path=settings.acceptance.version,
        rewritten=settings.acceptance.rewritten,
        is_embedded=environment.is_embedded,
        log=str(environment.log or ""),
        prefix=sys.prefix,
        **facts,
    )


def noted_logs(environment: Environment) -> dict[str, Any]:
    """Return where the logs stand now, for what is deployed from here on."""
    own = [str(environment.log)] if environment.log else []
    return logs.positions([*own, *environment.settings.acceptance.logs], environment.root)


def run(
    target: Target, files: Sequence[Path], evidence: Path, options: Sequence[str] = (), marked: str = ""
) -> list[Result]:
    """Run the tests of `files` (those `marked` so) on `target`; JUnit XML and screenshots go to `evidence`.

    Files with packages of their own run each in the environment that nox makes for it, beside the others. `options`
    are pytest's, of a person at the terminal, who then sees what it prints.
    """
    target = replace(target, evidence=str(evidence), marked=marked)
    own = [file for file in files if OWN_PACKAGES in file.read_text(encoding="utf-8")]
    groups = [[file] for file in own]
    if together := [file for file in files if file not in own]:
        groups.insert(0, together)
    with ThreadPoolExecutor(1 if options else max(len(groups), 1)) as pool:
        try:
            found = [begun.result() for begun in [pool.submit(_run, target, group, options) for group in groups]]
        except KeyboardInterrupt:
            shell.end_all()  # the pool would wait for them
            raise
    return [result for results in found for result in results]


def command(target: Target, files: Sequence[Path], file: Path, options: Sequence[str] = ()) -> Command:
    """Return the arguments of Python that run `files` under the gate, and the variables; the target goes into `file`.

    The deployed tree shadows no module (-P); no conftest.py and no variable of the shell changes what runs, or how.
    """
    cache, report = (
        records_folder(Path(target.root)) / "cache" / "pytest",
        Path(target.evidence, f"{files[0].stem}.xml"),
    )
    argv = ["-P", "-m", "pytest", "-p", "release_tasks.checks.gate", "-c", str(HERE / "pytest.ini"), "--noconftest"]
    argv += [f"--rootdir={target.code}", f"--override-ini=cache_dir={cache}", f"--junitxml={report}"]
    variables = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "PYTHONDONTWRITEBYTECODE": "1"}
    variables |= {"PYTHONPATH": str(HERE.parents[1]), VARIABLE: str(target.save(file))}
    return [*argv, *map(str, files), *options], variables


def _run(target: Target, files: list[Path], options: Sequence[str]) -> list[Result]:
    root, report = Path(target.root), Path(target.evidence, f"{files[0].stem}.xml")
    report.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="checks-", dir=records_folder(root)) as folder:
        argv, env = command(target, files, Path(folder) / "target.json", options)
        if OWN_PACKAGES in files[0].read_text(encoding="utf-8"):
            argv = ["-m", "nox", "--session", f"smokes({name_of(files[0].stem)})", "--", *argv]
        if options:
            code = subprocess.run([sys.executable, *argv], cwd=root, env=shell.environment(env)).returncode
            said = f"pytest {' '.join(options)} ended with exit code {code}."
        else:
            try:
                ran = shell.run([sys.executable, *argv], cwd=root, env=env, timeout=LIMIT, check=False, strays=True)
                said = f"pytest ended with exit code {ran.code}: {ran.tail(5)}"
            except shell.CommandFailed as late:
                said = f"pytest did not end within {LIMIT:g} s: {late.finished.tail(3)}"
    if report.exists():
        write_aside(report, shell.mask(report.read_text(encoding="utf-8")).encode())
    results = list(read_junit(report)) if report.exists() else []
    there = {result.file for result in results}
    missing = [file.stem for file in files if file.stem not in there and not (options and results)]
    return [*results, *(Result(stem, INCONCLUSIVE, f"No test of {stem}.py ran: {said}", file=stem) for stem in missing)]


def read_junit(report: Path) -> Iterator[Result]:
    """Yield the results in a JUnit XML file."""
    for case in ElementTree.parse(report).iter("testcase"):
        kept = [(each.get("name", ""), each.get("value", "")) for each in case.iter("property")]
        test = re.sub(r"\[chromium\]$|-?\bchromium-?(?=.*\]$)", "", case.get("name", ""))
        outcome, message, hint = PASSED, "", ""
        if (found := next((each for tag in ("error", "failure") for each in case.iter(tag)), None)) is not None:
            outcome, message, hint = _outcome(found)
        elif case.find("skipped") is not None:
            outcome, message = WAIVED, dict(kept).get("waived", "")
        observed = tuple(value for name, value in kept if name != "waived")
        stem = Path(case.get("file") or case.get("name", "").replace(".", "/")).name.removesuffix(".py")
        seconds = float(case.get("time") or 0)
        yield Result(test, outcome, " ".join(message.split()), hint, observed, seconds, stem)


def _outcome(found: ElementTree.Element) -> tuple[str, str, str]:
    """Return the outcome of what is no pass, its message without the name of the exception, and the hint."""
    message, text = found.get("message") or "", found.text or ""
    if found.tag == "error" or message == "collection failure":
        lines = [line[4:] for line in text.splitlines() if line.startswith("E ")]
        message = "\n".join(lines) or text or message
        message = re.sub(r"^failed on (setup|teardown) with \"(.*)\"$", r"\2", message, flags=re.DOTALL)
    name, _, rest = message.partition(": ")
    kind = name.rpartition(".")[2]
    outcome = FAILED if kind in FAILURES or message.startswith("assert ") else INCONCLUSIVE
    if kind in ("CheckFailed", "Inconclusive"):
        message, _, hint = rest.partition(HINT)
        return outcome, message, hint
    return outcome, rest if kind in FAILURES else message, ""


def name_of(stem: str) -> str:
    """Return the name under which people know a test or its file: test_coins is coins."""
    return stem.removeprefix("test_")


# What is said of results


def problems_of(results: Iterable[Result], where: str, noun: str, again: str) -> list[Problem]:
    """Return a problem for each result that is no pass, one for those of which there is the same to say."""
    alike: dict[tuple[str, str, str], list[Result]] = {}
    for each in results:
        if not each.is_pass:
            alike.setdefault((each.outcome, each.message, each.hint), []).append(each)
    found = []
    for (outcome, message, hint), those in alike.items():
        names, many = ", ".join(each.name for each in those), len(those) > 1
        how = {FAILED: "fail" if many else "fails"}.get(outcome, f"{'are' if many else 'is'} {outcome}")
        what = f"The {noun}{'s' if many else ''} {names} {how} on {where}: {message}"
        found.append(Problem(what, hint or again))
    return found


def show(title: str, results: Sequence[Result], as_json: bool) -> None:
    """Show results as a table, or as JSON."""
    if as_json:
        screen.as_json(results)
        return
    said = [each.message or "; ".join(each.observed[:3]) for each in results]
    rows = [(each.name, each.outcome, f"{each.seconds:.1f} s", it) for each, it in zip(results, said, strict=True)]
    screen.table(title, ["check", "outcome", "time", "observed"], rows)
    passed = sum(each.is_pass for each in results)
    screen.say(f"\n{passed} of {len(results)} pass.", "bold green" if passed == len(results) else "bold red")


def keep(evidence: Path, results: Sequence[Result]) -> None:
    """Keep results as JSON beside the folder `evidence`, which has their screenshots and JUnit XML."""
    write_aside(evidence.with_name(f"{evidence.name}.json"), masked_json(results, indent=2).encode())
