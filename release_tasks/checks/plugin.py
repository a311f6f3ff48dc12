"""What pytest lacks for a gate: a skip, an xfail, an error or no test at all is never a pass, and nothing hangs.

Loaded by `-p release_tasks.checks.plugin` in a process of its own, which `release_tasks.asking` starts. It writes what
became of each check, and of each collected test, into the file that `--results` names: a line of JSON for each, as
it is decided.
"""

from __future__ import annotations

import gc
import inspect
import os
import sys
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from release_tasks.checks import looking
from release_tasks.checks.judging import about, judged, one_sentence, seconds_of, title_of, wait_of
from release_tasks.checks.place import Asked, Place
from release_tasks.checks.verdict import ENDED, PASS, UNKNOWN, Result, Seen, Unknown, name_of
from release_tasks.files import write_aside
from release_tasks.masks import mask, masked_json

pytest_plugins = ["release_tasks.checks.fixtures"]

NOTHING = "It looked at nothing: no query, request or command; what it looks at by itself belongs into `seen`."
LIMIT = 60.0  # seconds for a test that says nothing else
SEEN = pytest.StashKey[Seen]()
ATTEMPTS = pytest.StashKey[int]()
GATE = pytest.StashKey["Gate"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", default="", help="the file that gets the results as JSON")
    parser.addoption("--by-hand", action="store_true", help="a person says which tests to ask")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(args: list[str]) -> None:
    """Compile nothing of a team's own smokes into their working tree, which would not be clean any more."""
    sys.dont_write_bytecode = str(looking.KINDS_FILE) not in args


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "wait(seconds, interval=1): look again until it holds, or the time is over")
    try:
        gate = Gate(Place.told(), config.getoption("--results"), config.getoption("--by-hand"))
    except Unknown as no:
        raise pytest.UsageError(f"{no} {no.mend}") from None
    config.stash[GATE] = gate
    config.pluginmanager.register(gate)


class Masked:
    """A file to print to, in which no secret is shown."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, text: str) -> Any:
        return self.file.write(mask(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class Gate:
    """Begins the checks of a place, gives each test its time, and turns outcomes into verdicts, written to `path`.

    `by_hand`: a person says which tests are asked; else all have to be.
    """

    def __init__(self, place: Place, path: str, by_hand: bool) -> None:
        self.place, self.path, self.by_hand = place, path, by_hand
        self.collected: dict[str, pytest.Item] = {}
        self.answers: dict[str, looking.Answer] = {}
        self.results: dict[str, Result] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Let pytest print no secret: a person at the terminal reads it as it comes."""
        writer = session.config.get_terminal_writer()
        writer._file = Masked(writer._file)  # it has no other place for that

    # The tests: one for each check, and those of the team's own files

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make of each kind's function a test for each of its checks."""
        if metafunc.definition.path == looking.KINDS_FILE:
            kind = metafunc.function.__name__.removeprefix("test_")
            asked = [each for each in self.place.asked if each.check.kind == kind]
            metafunc.parametrize("answer", asked, ids=[each.name for each in asked], indirect=True)

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        item.stash[SEEN] = {}
        if not _is_of_no_check(item):
            self.collected[item.nodeid] = item

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Give every test its limit, and tell the checks in the order in which they are asked."""
        items[:] = [item for item in items if not _is_of_no_check(item)]
        whole = max(looking.limits_of(self.place.asked).values(), default=0.0) + 2 * looking.GRACE
        for item in items:
            limit = whole if asked_of(item) else LIMIT
            with suppress(Unknown):  # which its call will tell
                limit += wait_of(item)[0]
            if not seconds_of(item.get_closest_marker("timeout")):  # 0 would mean none at all
                item.add_marker(pytest.mark.timeout(limit), append=False)
        items.sort(key=_turn_of)

    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Begin all checks that were not deselected."""
        chosen = [asked for item in session.items if (asked := asked_of(item))]
        if not session.config.option.collectonly:
            self.answers = looking.begin(self.place, chosen)

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """Call a test of the team that has a `wait` until it passes, or cannot pass any more."""
        seconds, interval = wait_of(pyfuncitem)
        if not seconds:
            return None
        names = inspect.signature(pyfuncitem.obj).parameters
        arguments = {name: pyfuncitem.funcargs[name] for name in names}

        def look() -> None:
            pyfuncitem.stash[ATTEMPTS] = pyfuncitem.stash.get(ATTEMPTS, 0) + 1
            pyfuncitem.stash[SEEN].clear()
            pyfuncitem.obj(**arguments)

        looking.again(look, seconds, interval, (Exception,))
        return True

    # Verdicts

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        gc.disable()  # on Python 3.11 a finalizer could break it (https://github.com/python/cpython/issues/106905)
        try:
            report = yield
        finally:
            gc.enable()
        before = self.results.get(item.nodeid)
        verdict, said, mend = judged(report, call)
        if (report.when != "call" and report.passed) or (before is not None and before.verdict != PASS):
            return report  # the call decides; an error while tidying up does not hide what it found
        if verdict == PASS and not item.stash[SEEN] and asked_of(item) is None:
            verdict, said = UNKNOWN, (NOTHING,)
        result = self._result(item, verdict, said, mend, report.duration)
        self._keep(item.nodeid, result)
        if report.when == "call":
            told = {"section": result.section, "bullet": result.bullet, "verdict": result.verdict, **result.seen}
            item.user_properties.extend((name, mask(str(value))) for name, value in told.items())
        return report

    def _keep(self, test: str, result: Result) -> None:
        """Keep what became of a test, and write it down: it is decided, whatever comes of the rest."""
        self.results[test] = result
        if self.path:
            with Path(self.path).open("a", encoding="utf-8") as file:
                file.write(f"{masked_json([test, result])}\n")

    def _result(
        self, item: pytest.Item, verdict: str, said: tuple[str, ...], mend: str = "", seconds: float = 0.0
    ) -> Result:
        asked, seen = asked_of(item), item.stash[SEEN]
        if asked is None:
            tried, took = item.stash.get(ATTEMPTS, 1), round(seconds, 3)
            return Result(title_of(item), "test", "", about(item), verdict, said, mend, seen, tried, took)
        answer = self.answers.get(asked.name) or looking.Answer(asked)
        kind, tried, took = asked.check.kind, max(answer.attempts, 1), round(answer.seconds, 3)
        return Result(asked.name, kind, asked.section, asked.bullet, verdict, said, mend, answer.seen, tried, took)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be read, or a module that skips itself, is unknown."""
        if not report.passed:
            said = one_sentence(report.longrepr) or f"{report.nodeid} could not be collected."
            file, _, inside = report.nodeid.partition("::")
            name = f"{name_of(Path(file))}/{inside or 'the whole file'}"
            self._keep(report.nodeid, Result(name, "test", "", report.nodeid, UNKNOWN, (said,)))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the results: what was collected, and was not asked, is unknown, but where a person chose."""
        chosen = {item.nodeid for item in session.items}
        for item in session.items if self.by_hand else self.collected.values():
            said = "the run ended before" if item.nodeid in chosen else "a conftest.py or a plugin took it out"
            self.results.setdefault(item.nodeid, self._result(item, UNKNOWN, (f"It was not asked: {said}.",)))
        if self.path:
            lines = [masked_json(each) for each in self.results.items()]
            write_aside(Path(self.path), "\n".join([*lines, ENDED, ""]).encode())
        passed = [each.verdict == PASS for each in self.results.values()]
        session.exitstatus = 0 if passed and all(passed) else 1

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """End, also where a look goes on that nobody waits for any longer."""
        if any(not answer.future.done() for answer in self.answers.values()):
            os._exit(1)


@pytest.fixture
def answer(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> looking.Answer:
    """What comes of the check that this test is for."""
    return pytestconfig.stash[GATE].answers[request.param.name]


def asked_of(item: pytest.Item) -> Asked | None:
    """Return the check that `item` is for; None for a team's own test."""
    callspec = getattr(item, "callspec", None)
    asked = callspec.params.get("answer") if callspec else None
    return asked if isinstance(asked, Asked) else None


def _is_of_no_check(item: pytest.Item) -> bool:
    """Whether `item` is a kind's, of which nobody asks for a check."""
    return item.name.endswith("[NOTSET]") and item.path == looking.KINDS_FILE


def _turn_of(item: pytest.Item) -> int:
    asked = asked_of(item)
    return asked.turn if asked else 1
