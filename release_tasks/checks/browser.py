"""The browser of this machine, which Playwright drives: which it is, on which Node, and whether it starts."""

import os
import re
import shutil
from typing import Any

from release_tasks import node
from release_tasks.checks import Inconclusive
from release_tasks.masks import short

NODE = "PLAYWRIGHT_NODEJS_PATH"  # by which Playwright finds its Node; its own needs libatomic1, which may be missing
CHROMIUM = ("chromium-headless-shell", "chromium", "chromium-browser")
NAMES = (*CHROMIUM, "google-chrome", "chrome", "microsoft-edge", "msedge")
USUAL = (  # where installers of macOS and Windows put it, which is not on PATH
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
GET_ONE = "python -m playwright install chromium   # or set BROWSER_BIN to one that is there"
GET_A_SANDBOX = "sudo apt-get install chromium-sandbox   # on Debian; on Ubuntu Google Chrome's own package has it"


def start_once() -> str:
    """Start the browser, open a page, and return which browser it is. Raises `Inconclusive` with its own words."""
    from playwright.sync_api import sync_playwright

    os.environ |= node_of_playwright()
    try:
        with sync_playwright() as playwright, playwright.chromium.launch(**launch_options()) as browser:
            browser.new_page().goto("data:text/html,<main>A page</main>")
            return f"{launch_options()['executable_path'] or 'Chromium of Playwright'}, {browser.version}"
    except Exception as error:  # Playwright's, and whatever hinders its Node
        said = re.findall(r"\[err\] (?:\[[^]]*\] )?(.+)", str(error)) or str(error).splitlines()
        hint = GET_A_SANDBOX if "No usable sandbox" in str(error) else GET_ONE
        raise Inconclusive(f"The browser does not start: {short(said[0])}", hint) from None


def node_of_playwright() -> dict[str, str]:
    """Return the variable that lets Playwright run on the wheel's Node, unless it is set."""
    return {NODE: os.environ.get(NODE) or str(node.wheel_node() or "")}


def launch_options() -> dict[str, Any]:
    """Return how to launch BROWSER_BIN, or one that is installed, or Playwright's own; for root without a sandbox."""
    found = os.environ.get("BROWSER_BIN") or next(filter(None, map(shutil.which, NAMES + USUAL)), None)
    return {"executable_path": found, "chromium_sandbox": not hasattr(os, "geteuid") or os.geteuid() != 0}
