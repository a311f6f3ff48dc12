"""The browser: which one this machine has, and one of it kept for all checks, in a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import shutil
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from release_tasks.checks.verdict import Unknown
from release_tasks.masks import mask

if TYPE_CHECKING:
    from playwright.async_api import Browser, Playwright

T = TypeVar("T")

AT_ONCE = 4  # pages
START = 10.0  # seconds to start the browser
FLAGS = ["--disable-background-networking", "--disable-component-update", "--no-first-run", "--disable-sync"]
NAMES = ("chromium-headless-shell", "chromium", "google-chrome", "microsoft-edge", "chrome", "msedge")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    r"${ProgramFiles}\Google\Chrome\Application\chrome.exe",
    r"${ProgramFiles(x86)}\Microsoft\Edge\Application\msedge.exe",
)
GET_ONE = (
    "python -m playwright install chromium (on Debian: apt-get install chromium-headless-shell; else BROWSER_BIN=…)"
)


def run(look: Callable[[Browser, asyncio.Semaphore], Awaitable[T]], seconds: float) -> T:
    """Return what `look` returns, given the browser of this process and its slots for pages.

    Raises `Unknown` when there is no browser, or nothing came of it `seconds` after its start.
    """
    kept = _kept_one()
    future = asyncio.run_coroutine_threadsafe(kept.give(look), kept.loop)
    try:
        return future.result(START + seconds)
    except TimeoutError:
        future.cancel()
        raise Unknown(f"The browser did not answer within {START + seconds:g} s.") from None


def launching() -> dict[str, Any]:
    """Return how Playwright has to launch the browser. Raises `Unknown` where BROWSER_BIN names no program."""
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0  # for whom Chromium has no sandbox
    return {"executable_path": found(), "args": FLAGS, "chromium_sandbox": not as_root, "timeout": START * 1000}


def found() -> str | None:
    """Return the browser that BROWSER_BIN names, else one of this machine; None: perhaps Playwright's own.

    Raises `Unknown` where BROWSER_BIN names no program.
    """
    if told := os.environ.get("BROWSER_BIN"):
        if program := shutil.which(told):
            return program
        raise Unknown(f"BROWSER_BIN names {told}, which is no program.", GET_ONE, definite=True)
    there = (program for name in NAMES if (program := shutil.which(name)))
    return next(there, None) or next((path for path in map(os.path.expandvars, PLACES) if Path(path).is_file()), None)


def refuse_without() -> None:
    """Raise `Unknown` where this machine has no browser, without starting one."""
    if found():
        return
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise playwright_missing() from None
    with sync_playwright() as playwright:
        if not Path(playwright.chromium.executable_path).exists():
            raise Unknown("No browser was found on this machine.", GET_ONE, definite=True)


def not_started(error: Exception) -> Unknown:
    """Return what to say of a browser that did not start, or is not there."""
    if "Executable doesn't exist" in str(error):
        return Unknown("No browser was found on this machine.", GET_ONE, definite=True)
    said = re.search(r"\[err\] (.+)", str(error)) or re.match("(.+)", str(error))
    told = os.environ.get("BROWSER_BIN")
    who = f"BROWSER_BIN names {told}, which does" if told else f"The browser {found()} does"
    return Unknown(f"{who} not start: {mask(said[1]) if said else 'it says nothing'}", GET_ONE, definite=bool(told))


def playwright_missing() -> Unknown:
    """Return what to say where Playwright itself is not installed."""
    mend = "python -m pip install playwright   # a smoke with packages of its own names it among them"
    return Unknown("Playwright for Python is not installed here.", mend, definite=True)


class Kept:
    """A browser that starts when it is first needed, starts again if it has ended, and ends with the process."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.slots = asyncio.Semaphore(AT_ONCE)
        self._starting = asyncio.Lock()
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        threading.Thread(target=self.loop.run_forever, name="browser", daemon=True).start()
        atexit.register(self.end)

    async def give(self, look: Callable[[Browser, asyncio.Semaphore], Awaitable[T]]) -> T:
        """Return what `look` returns, given the browser."""
        try:
            from playwright.async_api import Error, async_playwright
        except ImportError:
            raise playwright_missing() from None

        async with self._starting:
            if self._browser is None or not self._browser.is_connected():
                how = launching()
                try:
                    self._playwright = self._playwright or await async_playwright().start()
                    self._browser = await self._playwright.chromium.launch(**how)
                except Error as error:
                    raise not_started(error) from None
        return await look(self._browser, self.slots)

    def end(self) -> None:
        """Close the browser, and Playwright's driver."""
        if self._playwright is not None and self.loop.is_running():
            with suppress(Exception):
                asyncio.run_coroutine_threadsafe(self._playwright.stop(), self.loop).result(5)


_kept: list[Kept] = []
_making = threading.Lock()


def _kept_one() -> Kept:
    with _making:
        if not _kept:
            _kept.append(Kept())
        return _kept[0]
