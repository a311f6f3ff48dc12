"""A view in a real browser: the page itself, something visible in it, and nothing in it that fails."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urldefrag

from release_tasks.checks import CheckFailed, Inconclusive
from release_tasks.checks.api import is_own, leads_to, own_url, short
from release_tasks.checks.browser import Error, Page, TimeoutError

ERROR_WORDS = (
    r"(?i)\b(something went wrong|(application|internal server|unexpected|unhandled( runtime)?) error|"
    r"an error (has )?occurred|failed to (fetch|load)|(service|temporarily) unavailable|bad gateway|gateway timeout|"
    r"cannot (GET|POST) /|Traceback \(most recent call last\))"
)
IDLE = 2000  # milliseconds in which what scripts request may still come; a page that polls is never idle
GRACE = 4.0  # seconds beyond its time after which a page that answers nothing is closed
UNREACHABLE = re.compile(r"ERR_(UNSAFE_PORT|CONNECTION_(REFUSED|TIMED_OUT)|NAME_|ADDRESS_|INTERNET_|CERT_|SSL_)\w*")
# What the console says of requests, which are judged as such; with a URL, those to other origins, which may fail.
OF_REQUESTS = re.compile(r"Failed to load resource|(?:Access to .+? at|WebSocket connection to) '(?P<url>[^']+)'")
# What people see of a page, and which of its pictures a browser cannot draw (HTML Standard, img.decode).
TEXT = "document.body ? `${document.title}\\n${document.body.innerText}` : ''"
BROKEN = """Promise.all([...document.images].filter(image => image.complete && image.currentSrc).map(
  image => image.decode().then(() => '', () => image.currentSrc))).then(found => found.filter(Boolean))"""


class View:
    """Visits pages: `view("/prices", shows="main", must_not_show=[…])`; each has its own time."""

    def __init__(self, origin: str, new_context: Callable[..., Any], record: Callable[[str, object], None]) -> None:
        self.origin, self.new_context, self.record = origin, new_context, record

    def __call__(
        self,
        path: str,
        shows: str = "main",
        must_not_show: Sequence[str] = (),
        error_words: str = ERROR_WORDS,
        status: int = 200,
        timeout: float = 15,
        stay: float = 0,
        cookies: dict[str, str] | None = None,
        viewport: tuple[int, int] = (1280, 800),
        dark: bool = False,
    ) -> None:
        """Visit `path`, and raise `CheckFailed` with all that is wrong with it.

        `shows` is a CSS selector that becomes visible within `timeout` seconds; the text may match none of the regular
        expressions `must_not_show` and `error_words`; for `stay` seconds the page is watched on, for what timers do.
        """
        size, began = {"width": viewport[0], "height": viewport[1]}, time.monotonic()
        context = self.new_context(viewport=size, color_scheme="dark" if dark else "light")
        context.add_cookies([{"name": k, "value": v, "url": self.origin} for k, v in (cookies or {}).items()])
        page, problems = context.new_page(), list[str]()
        page.set_default_timeout(timeout * 1000)
        watch = Watch(page, self.origin, path, problems.append)
        try:
            with closed_when_stuck(page, timeout + stay + GRACE):
                if answer := watch.go(path, status, timeout):
                    look(page, self.origin, path, answer.url, shows, problems)
                    page.wait_for_timeout(stay * 1000)
                    problems += shown(page, self.origin, path, [*must_not_show, *filter(None, [error_words])])
        except Error as error:
            stuck = page.is_closed() and time.monotonic() > began + timeout
            why = f"keeps its page busy for {timeout:g} s." if stuck else f"ends: {short(error.message)}"
            problems.append(f"{path} {why}")
        finally:
            with suppress(Error):
                context.close()
        if problems:
            login = any(", a login page" in problem for problem in problems)
            hint = 'Give the view a session: view(…, cookies={"session": os.environ["SESSION"]})' if login else ""
            raise CheckFailed(" ".join(dict.fromkeys(problems)), hint)
        self.record("view", f"{path} in {time.monotonic() - began:.1f} s")


def look(page: Page, origin: str, path: str, url: str, selector: str, problems: list[str]) -> None:
    """Wait until the selector is visible and the page is idle; add what is wrong to `problems`."""
    try:
        page.locator(selector).locator("visible=true").first.wait_for()
        page.wait_for_load_state("load")
    except TimeoutError as late:
        there = "it is there, but hidden" if page.locator(selector).count() else "there is none"
        visible = "load state" in late.message or page.locator(selector).locator("visible=true").count()
        problems.append(f"{path} is not loaded in time." if visible else f"{path} does not show {selector}: {there}.")
    except Error as error:
        if "selector" in error.message.lower():
            raise Inconclusive(f"{selector!r} is no selector: {short(error.message)}", final=True) from None
        raise
    with suppress(TimeoutError):
        page.wait_for_load_state("networkidle", timeout=IDLE)
    if address(page.url) != address(url):
        problems.append(f"{path} goes on to {leads_to(page.url)}; expected that it stays.")
    broken = [short(picture) for picture in page.evaluate(BROKEN) if is_own(picture, origin)]
    problems += [f"{path} has a picture that cannot be drawn: {picture}" for picture in broken]


def shown(page: Page, origin: str, path: str, patterns: Sequence[str]) -> list[str]:
    """Return what the text of the page and of its own frames must not show."""
    frames = [frame for frame in page.frames if frame == page.main_frame or is_own(frame.url, origin)]
    text = "\n".join(frame.evaluate(TEXT) for frame in frames)
    found = [(pattern, match) for pattern in patterns if (match := re.search(pattern, text))]
    return [f"{path} shows what it must not, {pattern!r}: {short(match[0])}" for pattern, match in found]


@contextmanager
def closed_when_stuck(page: Page, seconds: float) -> Iterator[None]:
    """Close `page` from outside if the block lasts longer: a script in an endless loop answers no question."""

    def close() -> None:  # the loop still turns while we wait in it
        asyncio.run_coroutine_threadsafe(page._impl_obj.close(reason=None, run_before_unload=None), page._loop)

    timer = threading.Timer(seconds, close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Watch:
    """Hears what fails in a page: an exception, an error on the console, a request to `origin`; `tell` gets it."""

    def __init__(self, page: Page, origin: str, name: str, tell: Callable[[str], None]) -> None:
        self.page, self.origin, self.name, self.tell = page, origin, name, tell
        self.redirect = ""  # where the page itself is redirected to
        page.on("request", self._requested)
        page.on("requestfailed", lambda request: self._judge(request, f"which fails: {request.failure}", 0))
        page.on("response", lambda it: self._judge(it.request, f"and gets status {it.status}.", it.status))
        page.on("console", self._logged)
        page.on("pageerror", lambda error: tell(f"{name} throws {short(str(error))}"))
        page.on("crash", lambda _: tell(f"{name} crashes the browser's page."))

    def go(self, path: str, status: int, timeout: float) -> Any:
        """Return the answer for the page at `path`; None where it is no such answer, and told."""
        url, answer = own_url(path, self.origin), None
        try:
            answer = self.page.goto(url, wait_until="commit")
        except Error as error:
            if refused := UNREACHABLE.search(error.message):
                raise Inconclusive(f"{url} could not be reached: {refused[0]}.", f"curl --head {url}") from None
            if not self.redirect:
                late = isinstance(error, TimeoutError)
                why = f"did not answer within {timeout:g} s" if late else f"gives no page: {short(error.message)}"
                self.tell(f"{path} {why}.")
        if self.redirect:
            self.tell(f"{path} is redirected to {leads_to(self.redirect)}; expected the page itself.")
            return None
        if answer and answer.status != status:
            self.tell(f"{path} answered with status {answer.status}, expected {status}.")
            return None
        return answer

    def _requested(self, request: Any) -> None:
        if self._is_the_page(request) and request.redirected_from and self.page.url == "about:blank":
            self.redirect = request.url
            with suppress(Error):
                self.page.goto("about:blank")  # where it leads may be slow

    def _judge(self, request: Any, how: str, status: int) -> None:
        own = is_own(request.url, self.origin) and not self._is_the_page(request)
        if own and not 0 < status < 400 and request.failure != "net::ERR_ABORTED":
            self.tell(f"{self.name} requests {short(request.url)}, {how}")

    def _logged(self, message: Any) -> None:
        request = OF_REQUESTS.match(message.text)
        url = re.sub("^ws", "http", request["url"] or "") if request else ""
        if message.type == "error" and (request is None or is_own(url, self.origin)):
            self.tell(f"{self.name} logs an error: {short(message.text)}")

    def _is_the_page(self, request: Any) -> bool:
        return bool(request.is_navigation_request()) and request.frame.parent_frame is None


def address(url: str) -> str:
    """Return `url` without its fragment, unless that is a route of a script."""
    plain, fragment = urldefrag(url)
    return f"{plain}#{fragment}" if fragment.startswith(("/", "!")) else plain
