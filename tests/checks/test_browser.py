"""A browser is found or asked for in one sentence; one is kept for all, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from release_tasks.checks import browser
from release_tasks.checks.place import Place
from release_tasks.checks.verdict import UNKNOWN, Result, Unknown
from release_tasks.kinds import Page

ROOT = Path(__file__).resolve().parents[2]


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
    monkeypatch.setenv("BROWSER_BIN", str(alone.parent / told))
    result = look(Page(path="/"), place(), wait=5)
    assert (result.verdict, result.attempts, len(result.said)) == (UNKNOWN, 1, 1)
    assert said in result.words and "\n" not in result.words


def test_the_sandbox_is_off_for_root_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for user, sandbox in ((0, False), (1000, True)):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert browser.launching()["chromium_sandbox"] is sandbox


async def version(one: Any, _: asyncio.Semaphore) -> tuple[int, str]:
    return id(one), one.version


def test_all_who_ask_at_once_get_the_same_browser() -> None:
    got: list[tuple[int, str]] = []
    threads = [Thread(target=lambda: got.append(browser.run(version, 10))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 6 and len(set(got)) == 1


def test_a_browser_that_has_ended_is_started_again() -> None:
    async def end(one: Any, _: asyncio.Semaphore) -> int:
        await one.close()
        return id(one)

    ended = browser.run(end, 10)
    again, number = browser.run(version, 10)
    assert again != ended and number


def test_a_look_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    browser.run(version, 10)
    monkeypatch.setattr(browser, "START", 0.2)

    async def hang(*_: Any) -> None:
        await asyncio.sleep(60)

    with pytest.raises(Unknown, match="did not answer within"):
        browser.run(hang, 0.1)


@pytest.mark.parametrize("ending", ["pass", "os._exit(1)", "os.kill(os.getpid(), 9)"])
def test_nothing_of_it_is_left_when_the_process_ends(ending: str, tmp_path: Path) -> None:
    real = shutil.which(browser.found() or "")
    mine = program(tmp_path / "browser", f'echo $$ > {tmp_path}/pid; exec {real} "$@"')
    code = (
        "import os\nfrom release_tasks.checks import browser\n"
        "async def look(one, _): await one.new_page()\n"
        f"browser.run(look, 10)\n{ending}\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "BROWSER_BIN": mine, "PYTHONPATH": str(ROOT)}, timeout=30
    )
    pid = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 5
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_alive(pid)


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
