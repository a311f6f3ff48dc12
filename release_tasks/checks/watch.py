"""What fails in a page of a browser, and what is still on its way to it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urldefrag

from release_tasks.checks.web import is_own, short

PARTS = {"document", "stylesheet", "script", "image", "font"}
ENDLESS = {"eventsource", "websocket", "ping"}
# What the console says of requests, which are judged as such; with a URL, those to other origins, which may fail.
OF_REQUESTS = re.compile(r"Failed to load resource|(?:Access to .+? at|WebSocket connection to) '(?P<url>[^']+)'")


class Watch:
    """Hears what fails in a page (of either API of Playwright), and what is on its way; `say` gets each sentence.

    Failing are an exception, an error on the console, a request to `origin`; that for the page itself if `itself`.
    """

    def __init__(self, page: Any, origin: str, called: str, say: Callable[[str], None], itself: bool) -> None:
        self.origin, self.called, self.say, self.itself = origin, called, say, itself
        self.pending: set[Any] = set()
        self.asked: Any = None  # the last request for the page itself
        self.last = time.monotonic()  # when a request last began or ended
        page.on("request", self._begins)
        page.on("requestfinished", self._ends)
        page.on("requestfailed", self._fails)
        page.on("response", self._answered)
        page.on("console", self._logged)
        page.on("pageerror", lambda error: self.say(f"{called} throws {short(str(error))}"))
        page.on("crash", lambda _: self.say(f"{called} crashes the browser's page."))

    def lacks_parts(self) -> bool:
        """Tell whether something that the page is made of has not come yet."""
        return any(request.resource_type in PARTS for request in self.pending)

    def slow(self) -> str:
        """Return what has not come yet, at most three."""
        return ", ".join(sorted({short(request.url) for request in self.pending})[:3])

    def _begins(self, request: Any) -> None:
        if request.is_navigation_request() and request.frame.parent_frame is None:
            self.asked = request
        if is_own(request.url, self.origin) and request.resource_type not in ENDLESS:
            self.pending.add(request)
            self.last = time.monotonic()

    def _ends(self, request: Any) -> None:
        self.pending.discard(request)
        self.last = time.monotonic()

    def _fails(self, request: Any) -> None:
        self._ends(request)
        if is_own(request.url, self.origin) and request != self.asked and request.failure != "net::ERR_ABORTED":
            self.say(f"{self.called} asks for {short(request.url)}, which fails: {request.failure}")

    def _answered(self, response: Any) -> None:
        judged = self.itself or response.request != self.asked
        if judged and response.status >= 400 and is_own(response.url, self.origin):
            self.say(f"{self.called} asks for {short(response.url)}, and gets status {response.status}.")

    def _logged(self, message: Any) -> None:
        if message.type != "error":
            return
        request = OF_REQUESTS.match(message.text)
        url = re.sub("^ws", "http", request["url"] or "") if request else ""
        if request is None or is_own(url, self.origin):
            self.say(f"{self.called} logs an error: {short(message.text)}")


def first_of(request: Any) -> Any:
    """Return the request that led to `request` by redirects."""
    while request is not None and request.redirected_from is not None:
        request = request.redirected_from
    return request


def address(url: str) -> str:
    """Return `url` without its fragment, unless that is a route of a script."""
    plain, fragment = urldefrag(url)
    return f"{plain}#{fragment}" if fragment.startswith(("/", "!")) else plain
