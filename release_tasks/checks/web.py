"""The web app: HTTP on ORIGIN, which a request never leaves, JSON compared strictly, and views in a real browser."""

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from json import dumps
from typing import Any
from urllib.parse import urldefrag

import requests

from release_tasks.checks import Inconclusive, Record, fail
from release_tasks.masks import short

as_text = partial(dumps, ensure_ascii=False, sort_keys=True)  # by which true is neither "true" nor 1
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


class Api(requests.Session):
    """A session of requests whose paths are those of ORIGIN: no redirects, no proxy, 10 s."""

    def __init__(self, origin: str, record: Record = lambda name, value: None) -> None:
        super().__init__()
        self.origin, self.record, self.trust_env = origin, record, False
        # The first is no longer read without trust_env; the second, which the probe reads, requests never reads.
        self.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or True

    def request(self, method: Any, url: Any, *args: Any, **how: Any) -> requests.Response:
        """Request a path of ORIGIN. Raises `CheckFailed` when it is late, `Inconclusive` when nobody answers."""
        if not str(url).startswith("/"):
            raise Inconclusive(f"{short(url)} is no path on ORIGIN, as /api/health is.", final=True)
        how, began = {"timeout": 10, **how, "allow_redirects": False}, time.monotonic()
        try:
            answer = super().request(method, f"{self.origin}{url}", *args, **how)
        except requests.ReadTimeout:
            answer = None
        except OSError as error:  # of requests too; a file of certificates may be gone
            why = short(str(error).rpartition(": ")[2].rstrip("\"')"))
            raise Inconclusive(f"{self.origin}{url} could not be reached: {why}.", f"curl -I {self.origin}") from None
        took = time.monotonic() - began
        if answer is None or took > how["timeout"]:  # it may come in drops, each in time
            fail(self.record, f"{url} was not answered within {how['timeout']:g} s.")
        self.record("request", f"{answer.status_code} in {took:.2f} s, {url}")
        return answer

    def expect(self, path: str, json: Any = None, status: int = 200, within: float = 5, **how: Any) -> None:
        """Raise `CheckFailed` unless the answer comes `within` seconds with `status` and has what `json` has."""
        answer = self.get(path, timeout=within, **how)
        if answer.status_code != status:
            to = answer.headers.get("Location")
            said = f"leads to {short(to)}" if to else f"said {short(answer.text)}"
            fail(self.record, f"{path} answered {answer.status_code}, expected {status}; it {said}")
        if json is not None and as_text(found := part_of(json_in(answer), json)) != as_text(json):
            fail(self.record, f"{path} says {short(as_text(found))}, expected {as_text(json)}.")


def json_in(answer: requests.Response) -> Any:
    """Return the JSON of an answer, its text where it is none."""
    try:
        # int takes no "NaN", and neither does JSON (RFC 8259).
        return answer.json(object_pairs_hook=_unique, parse_constant=int)
    except ValueError:
        return answer.text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key is there twice, of which each reader takes another")
    return found


def part_of(found: Any, expected: Any) -> Any:
    """Return of JSON `found` what `expected` names: of an object only its keys."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return {key: part_of(found[key], expected[key]) for key in expected if key in found}
    return found


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
    """Visit `path` until the CSS selector `shows` is visible, and raise `CheckFailed` with all that is wrong there."""
    from playwright.sync_api import Error, TimeoutError

    url, began, wrong = api.origin + path, time.monotonic(), list[str]()
    # Without a browser first: a redirect is seen at once, wherever it leads.
    api.expect(path, within=timeout, cookies={each["name"]: each["value"] for each in context.cookies(api.origin)})

    def is_own(url: str) -> bool:
        return url.startswith(own)

    def judge(request: Any, how: str) -> None:
        if is_own(request.url) and request.failure != "net::ERR_ABORTED":
            wrong.append(f"requests {short(request.url)}, {how}")

    def read(it: Any) -> None:
        if it.type == "error" and not it.text.startswith(OF_REQUESTS):
            wrong.append(f"logs an error: {short(it.text)}")

    page, step = context.new_page(), "is not loaded"
    page.set_default_timeout(timeout * 1000)
    own, url = page.evaluate("urls => urls.map(url => new URL(url).href)", [f"{api.origin}/", url])  # as browsers do
    for earlier in [each for each in context.pages if each.url == url]:
        earlier.close()
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
            wrong.append(f"leads to {short(page.url)}; expected that it stays")
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
        fail(record, f"{path} {', '.join(dict.fromkeys(wrong))}.")
    record("view", f"{path} in {time.monotonic() - began:.1f} s")
