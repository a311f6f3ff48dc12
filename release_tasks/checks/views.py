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
SOON = 1.0  # seconds in which what is to be visible may still come, once something has failed
LATE = 2.0  # seconds in which what scripts request may still come, once all else is there
QUIET = 0.1  # seconds without a request, after which a page has settled
GRACE = 4.0  # seconds beyond its time after which a page that answers nothing is closed
PARTS = {"document", "stylesheet", "script", "image", "font"}
ENDLESS = {"eventsource", "websocket", "ping"}
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
        visit = Visit(context.new_page(), self.origin, path, time.monotonic() + timeout, timeout)
        try:
            with closed_when_stuck(visit.page, timeout + stay + GRACE):
                visit.look(status, shows, [*must_not_show, *filter(None, [error_words])], stay)
        except Error as error:
            stuck = time.monotonic() > visit.until
            why = f"keeps its page busy for {timeout:g} s." if stuck else f"ends: {short(error.message)}"
            visit.problems.append(f"{path} {why}")
        finally:
            with suppress(Error):
                context.close()
        if visit.problems:
            login = any(", a login page" in problem for problem in visit.problems)
            hint = 'Give the view a session: view(…, cookies={"session": os.environ["SESSION"]})' if login else ""
            raise CheckFailed(" ".join(dict.fromkeys(visit.problems)), hint)
        self.record("view", f"{path} in {time.monotonic() - began:.1f} s")


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


class Visit:
    """One visit of a path: `problems` gets a sentence for each thing that is wrong."""

    def __init__(self, page: Page, origin: str, path: str, until: float, timeout: float) -> None:
        self.page, self.origin, self.path, self.until, self.timeout = page, origin, path, until, timeout
        self.problems: list[str] = []
        self.watch = Watch(page, origin, path, self.problems.append)

    def look(self, status: int, shows: str, must_not_show: Sequence[str], stay: float) -> None:
        answer = self._go()
        if answer is None:
            return
        if answer.status != status:
            self.problems.append(f"{self.path} answered with status {answer.status}, expected {status}.")
            return
        if self._is_visible(shows, answer.url):
            self._settle()
            self.page.wait_for_timeout(stay * 1000)
        if address(self.page.url) != address(answer.url):
            self.problems.append(f"{self.path} goes on to {leads_to(self.page.url)}; expected that it stays.")
        pictures = [short(url) for url in self.page.evaluate(BROKEN) if is_own(url, self.origin)]
        self.problems += [f"{self.path} has a picture that cannot be drawn: {url}" for url in pictures]
        frames = [each for each in self.page.frames if each == self.page.main_frame or is_own(each.url, self.origin)]
        text = "\n".join(frame.evaluate(TEXT) for frame in frames)
        for pattern in must_not_show:
            if found := re.search(pattern, text):
                self.problems.append(f"{self.path} shows what it must not, {pattern!r}: {short(found[0])}")

    def _go(self) -> Any:
        """Return the answer for the page itself; None where that is none, or a redirect, which is a problem."""
        url = own_url(self.path, self.origin)
        try:
            answer = self.page.goto(url, wait_until="commit", timeout=self._left())
        except Error as error:
            if not self.watch.redirect:
                if refused := UNREACHABLE.search(error.message):
                    said = f"{url} could not be reached: {refused[0]}."
                    raise Inconclusive(said, f"curl --head {url}") from None
                late = isinstance(error, TimeoutError)
                why = f"did not answer within {self.timeout:g} s" if late else f"gives no page: {short(error.message)}"
                self.problems.append(f"{self.path} {why}.")
                return None
        if self.watch.redirect:
            self.problems.append(
                f"{self.path} is redirected to {leads_to(self.watch.redirect)}; expected the page itself."
            )
            return None
        return answer

    def _is_visible(self, selector: str, url: str) -> bool:
        """Wait until the selector is visible; not for long once something has failed, or the page has moved on."""
        end = self.until
        while True:
            try:
                if self.page.locator(selector).locator("visible=true").count():
                    return True
            except Error as error:  # of a page that has just moved on, unless it is of the selector
                if "selector" in error.message.lower():
                    raise Inconclusive(f"{selector!r} is no selector: {short(error.message)}", final=True) from None
                if self.page.is_closed():
                    raise
            if self.problems or address(self.page.url) != address(url):
                end = min(end, time.monotonic() + SOON)
            if time.monotonic() > end:
                break
            self.page.wait_for_timeout(30)
        there = "it is there, but hidden" if self.page.locator(selector).count() else "there is none"
        slow = f"; it still waits for {self.watch.slow()}" if self.watch.pending else ""
        within = f" within {self.timeout:g} s" if end == self.until else ""
        self.problems.append(f"{self.path} does not show {selector}{within}: {there}{slow}.")
        return False

    def _settle(self) -> None:
        """Wait for the parts of the page that are still on their way, and a little for what its scripts request."""
        began = time.monotonic()
        while (now := time.monotonic()) < self.until:
            quiet = not self.watch.pending and now > max(self.watch.last, began) + QUIET
            if quiet or (now > began + LATE and not self.watch.lacks_parts()):
                return
            self.page.wait_for_timeout(20)
        self.problems.append(f"{self.path} is not loaded after {self.timeout:g} s: {self.watch.slow()}.")

    def _left(self) -> float:
        return max(self.until - time.monotonic(), 0.001) * 1000


class Watch:
    """Hears what fails in a page, and what is on its way to it; `tell` gets each sentence.

    Failing are an exception, an error on the console, a request to `origin` (that for the page itself is the caller's).
    """

    def __init__(self, page: Page, origin: str, name: str, tell: Callable[[str], None]) -> None:
        self.page, self.origin, self.name, self.tell = page, origin, name, tell
        self.pending: set[Any] = set()
        self.redirect = ""  # where the page itself is redirected to
        self.last = time.monotonic()  # when a request last began or ended
        page.on("request", self._begins)
        page.on("requestfinished", self._ends)
        page.on("requestfailed", self._fails)
        page.on("response", self._answered)
        page.on("console", self._logged)
        page.on("pageerror", lambda error: tell(f"{name} throws {short(str(error))}"))
        page.on("crash", lambda _: tell(f"{name} crashes the browser's page."))

    def lacks_parts(self) -> bool:
        """Tell whether something that the page is made of has not come yet."""
        return any(request.resource_type in PARTS for request in self.pending)

    def slow(self) -> str:
        """Return what has not come yet, at most three."""
        return ", ".join(sorted({short(request.url) for request in self.pending})[:3])

    def _begins(self, request: Any) -> None:
        if self._is_the_page(request) and request.redirected_from and self.page.url == "about:blank":
            self.redirect = request.url
            with suppress(Error):
                self.page.goto("about:blank")  # where it leads may be slow
        if is_own(request.url, self.origin) and request.resource_type not in ENDLESS:
            self.pending.add(request)
            self.last = time.monotonic()

    def _ends(self, request: Any) -> None:
        self.pending.discard(request)
        self.last = time.monotonic()

    def _fails(self, request: Any) -> None:
        self._ends(request)
        own = is_own(request.url, self.origin) and not self._is_the_page(request)
        if own and request.failure != "net::ERR_ABORTED":
            self.tell(f"{self.name} requests {short(request.url)}, which fails: {request.failure}")

    def _answered(self, response: Any) -> None:
        own = is_own(response.url, self.origin) and not self._is_the_page(response.request)
        if own and response.status >= 400:
            self.tell(f"{self.name} requests {short(response.url)}, and gets status {response.status}.")

    def _logged(self, message: Any) -> None:
        if message.type != "error":
            return
        request = OF_REQUESTS.match(message.text)
        url = re.sub("^ws", "http", request["url"] or "") if request else ""
        if request is None or is_own(url, self.origin):
            self.tell(f"{self.name} logs an error: {short(message.text)}")

    def _is_the_page(self, request: Any) -> bool:
        return bool(request.is_navigation_request()) and request.frame.parent_frame is None


def address(url: str) -> str:
    """Return `url` without its fragment, unless that is a route of a script."""
    plain, fragment = urldefrag(url)
    return f"{plain}#{fragment}" if fragment.startswith(("/", "!")) else plain
