"""ORIGIN: what is of it, and requests that never leave it, of a session or of a page."""

from __future__ import annotations

import asyncio
import json
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urljoin, urlsplit

import requests

from release_tasks.checks.verdict import Unknown
from release_tasks.masks import mask

if TYPE_CHECKING:
    from playwright.async_api import Page

SHOWN = 200  # characters
PORTS = {"http": 80, "https": 443}
LOGIN = re.compile(r"log-?in|sign-?in|\bo?auth\d?\b|\bsso\b", re.IGNORECASE)


class Session(requests.Session):
    """A session whose paths are those of ORIGIN, which it never leaves, with no proxy. Raises `Unknown`."""

    def __init__(self, origin: str, redirects: bool = False) -> None:
        super().__init__()
        self.origin, self.redirects, self.trust_env = origin.rstrip("/"), redirects, False
        self.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True  # which trust_env no longer reads

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        """Ask a path of ORIGIN, within 10 s where nothing else is said."""
        full = own_url(str(url), self.origin)
        try:
            return super().request(method, full, *args, **{"timeout": 10, **kwargs})
        except requests.ReadTimeout:
            raise
        except requests.RequestException as error:
            why = re.search(r"\[Errno -?\d+\] [\w ]+|certificate[\w ]+|Remote end closed[\w ]+", str(error))
            reached = not isinstance(error, requests.ConnectionError | requests.Timeout)
            what = "gave no answer that can be read" if reached else "could not be reached"
            said = f"{mask(full)} {what}: {why[0] if why else type(error).__name__}."
            raise Unknown(said, f"curl --head {self.origin}") from None

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Follow a redirect within ORIGIN alone, and only where that was asked for."""
        target = super().get_redirect_target(resp) if self.redirects else None
        return target if target and is_own(urljoin(resp.url, target), self.origin) else None


async def send_headers(page: Page, origin: str, headers: dict[str, str]) -> None:
    """Have `page` send `headers` to `origin` alone: what Playwright adds goes along with a redirect elsewhere."""
    session = await page.context.new_cdp_session(page)

    def go_on(paused: Any) -> None:
        every = {**paused["request"]["headers"], **headers}
        pairs = [{"name": name, "value": value} for name, value in every.items()]
        told = session.send("Fetch.continueRequest", {"requestId": paused["requestId"], "headers": pairs})
        sending = asyncio.ensure_future(told)
        sending.add_done_callback(lambda done: done.cancelled() or done.exception())

    session.on("Fetch.requestPaused", go_on)
    await session.send("Fetch.enable", {"patterns": [{"urlPattern": f"{origin}/*"}]})


def own_url(path: str, origin: str) -> str:
    """Return the URL of a path of ORIGIN, or of a URL there. Raises `Unknown` for all else."""
    url = origin.rstrip("/") + path if path.startswith("/") else path
    if is_own(url, origin):
        return url
    raise Unknown(f"{short(path)} is off ORIGIN; expected a path on {origin}, as /api/health.", definite=True)


def is_own(url: str, origin: str) -> bool:
    """Tell whether `url` is of the origin of `origin`: scheme, host and port (RFC 6454, section 4)."""
    try:
        return _origin(urlsplit(url)) == _origin(urlsplit(origin))
    except ValueError:  # no number for a port
        return False


def _origin(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port or PORTS.get(url.scheme)


def leads_to(url: str) -> str:
    """Return `url` as people see it, and whether it looks like a login page."""
    return short(url) + (", a login page" if LOGIN.search(url) else "")


def short(told: Any) -> str:
    """Return a text, or a value as JSON, in one line of at most 200 characters, without secrets."""
    text = " ".join(mask(told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)).split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
