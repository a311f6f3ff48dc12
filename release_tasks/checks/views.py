"""A view in the browser of this machine: the page itself, something visible, and nothing in it that fails."""

import os
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urldefrag

from release_tasks import node
from release_tasks.checks import CheckFailed, Inconclusive, Record
from release_tasks.checks.api import Api, leads_to
from release_tasks.masks import short

NODE = "PLAYWRIGHT_NODEJS_PATH"  # by which Playwright finds its Node; its own needs libatomic1, which may be missing
NAMES = ("chromium-headless-shell", "chromium", "google-chrome", "microsoft-edge", "chrome", "msedge")
GET_ONE = "python -m playwright install chromium   # or set BROWSER_BIN to one that is there"
GET_A_SANDBOX = "sudo apt-get install chromium-sandbox   # on Debian; on Ubuntu Google Chrome's own package has it"
ERROR_WORDS = (
    r"(?i)\b(something went wrong|(application|internal server|unexpected|unhandled( runtime)?) error|"
    r"an error (has )?occurred|failed to (fetch|load)|(service|temporarily) unavailable|bad gateway|gateway timeout|"
    r"cannot (GET|POST) /|Traceback \(most recent call last\))"
)
IDLE = 2000  # milliseconds in which what scripts request may still come; a page that polls is never idle
OF_REQUESTS = ("Failed to load resource", "Access to ")  # errors on the console about requests, which are judged so
# What people see of a page, and which of its pictures a browser cannot draw (HTML Standard, img.decode).
TEXT = "[document.title, document.body ? document.body.innerText : '']"
BROKEN = """Promise.all([...document.images].filter(image => image.complete && image.currentSrc).map(
  image => image.decode().then(() => '', () => image.currentSrc)))"""


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
    """Return how to launch BROWSER_BIN, or one on PATH, or Playwright's own; for root Chromium has no sandbox."""
    found = os.environ.get("BROWSER_BIN") or next(filter(None, map(shutil.which, NAMES)), None)
    return {"executable_path": found, "chromium_sandbox": not hasattr(os, "geteuid") or os.geteuid() != 0}


def check_view(
    context: Any,
    api: Api,
    record: Record,
    path: str,
    shows: str = "main",
    must_not_show: Sequence[str] = (),
    error_words: str = ERROR_WORDS,
    timeout: float = 15,
) -> None:
    """Visit `path` in a context of Playwright, and raise `CheckFailed` with all that is wrong with it.

    The CSS selector `shows` becomes visible within `timeout` seconds; the text matches none of `must_not_show`.
    """
    from playwright.sync_api import Error, TimeoutError

    url, began, wrong = api.origin + path, time.monotonic(), list[str]()
    # Without a browser first: a redirect is seen at once, wherever it leads.
    api.expect(path, within=timeout, cookies={each["name"]: each["value"] for each in context.cookies(api.origin)})
    for earlier in [page for page in context.pages if page.url == url]:
        earlier.close()

    def is_own(url: str) -> bool:
        return url.startswith(f"{api.origin}/")

    def judge(request: Any, how: str) -> None:
        if is_own(request.url) and request.failure != "net::ERR_ABORTED":
            wrong.append(f"requests {short(request.url)}, {how}")

    def read(message: Any) -> None:
        if message.type == "error" and not message.text.startswith(OF_REQUESTS):
            wrong.append(f"logs an error: {short(message.text)}")

    page, step = context.new_page(), "is not loaded"
    page.set_default_timeout(timeout * 1000)
    page.on("console", read)
    page.on("pageerror", lambda error: wrong.append(f"throws {short(error)}"))
    page.on("requestfailed", lambda request: judge(request, f"which fails: {request.failure}"))
    page.on("response", lambda it: judge(it.request, f"and gets status {it.status}") if it.status >= 400 else None)
    try:
        page.goto(url)
        step = f"does not show {shows}"
        page.locator(shows).locator("visible=true").first.wait_for()
        with suppress(TimeoutError):
            page.wait_for_load_state("networkidle", timeout=IDLE)
        step = "cannot be read"
        if urldefrag(page.url)[0] != urldefrag(url)[0]:
            wrong.append(f"{leads_to(page.url)}; expected that it stays")
        # `evaluate` has no time limit, and a page may be busy.
        broken = [each for each in page.wait_for_function(BROKEN).json_value() if is_own(each)]
        wrong += [f"has a picture that cannot be drawn: {short(picture)}" for picture in broken]
        frames = [frame for frame in page.frames if frame == page.main_frame or is_own(frame.url)]
        text = "\n".join(piece for frame in frames for piece in frame.wait_for_function(TEXT).json_value())
        unwanted = [match for words in [error_words, *must_not_show] if words and (match := re.search(words, text))]
        wrong += [f"shows what it must not: {short(match[0])}" for match in unwanted]
    except Error as error:
        wrong.append(f"{step}: {short(error.message.partition('Call log')[0])}")
    if wrong:
        raise CheckFailed(f"{path} {', '.join(dict.fromkeys(wrong))}.")
    record("view", f"{path} in {time.monotonic() - began:.1f} s")
