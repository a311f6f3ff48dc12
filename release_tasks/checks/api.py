"""HTTP on ORIGIN, which a request never leaves, and JSON that is compared strictly."""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import requests

from release_tasks.checks import CheckFailed, Inconclusive
from release_tasks.masks import mask

PORTS = {"http": 80, "https": 443}
LOGIN = re.compile(r"log-?in|sign-?in|\bo?auth\d?\b|\bsso\b", re.IGNORECASE)


class Api(requests.Session):
    """A session of requests whose paths are those of ORIGIN: no redirects, no proxy, 10 s."""

    def __init__(self, origin: str) -> None:
        super().__init__()
        self.origin, self.trust_env = origin.rstrip("/"), False
        self.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True  # which trust_env no longer reads

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        """Request a path of ORIGIN. Raises `CheckFailed` when it is late, `Inconclusive` when nobody answers."""
        full = own_url(str(url), self.origin)
        kwargs = {"timeout": 10, "allow_redirects": False, **kwargs}
        try:
            return super().request(method, full, *args, **kwargs)
        except requests.ReadTimeout:
            raise CheckFailed(f"{method} {url} was not answered within {kwargs['timeout']:g} s.") from None
        except requests.RequestException as error:
            why = re.search(r"\[Errno -?\d+\] [\w ]+|certificate[\w ]+|Remote end closed[\w ]+", str(error))
            said = f"{mask(full)} could not be reached: {why[0] if why else type(error).__name__}."
            raise Inconclusive(said, f"curl --head {self.origin}") from None

    def get(self, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        """Get a path of ORIGIN; that of requests follows redirects where nothing is said."""
        return self.request("GET", url, *args, **kwargs)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Follow a redirect within ORIGIN alone, where a test wants redirects to be followed."""
        target = super().get_redirect_target(resp)
        return target if target and is_own(urljoin(resp.url, target), self.origin) else None

    def expect(
        self, path: str, json: Any = None, status: int = 200, within: float = 5, method: str = "GET", **how: Any
    ) -> requests.Response:
        """Return the answer, which has to come `within` seconds with `status` and, where given, hold `json`.

        Of an object only the expected keys are compared; true is neither "true" nor 1.
        """
        began = time.monotonic()
        answer = self.request(method, path, timeout=within, **how)
        took = time.monotonic() - began
        if answer.status_code != status and answer.is_redirect:
            to = leads_to(urljoin(answer.url, answer.headers["Location"]))
            raise CheckFailed(f"{path} is redirected ({answer.status_code}) to {to}; expected {status}.")
        if answer.status_code != status:
            said = short(answer.text) or "nothing"
            raise CheckFailed(f"{path} answered with status {answer.status_code}, expected {status}; it said: {said}")
        if took > within:
            raise CheckFailed(f"{path} took {took:.2f} s, expected at most {within:g} s.")
        if json is not None:
            try:
                found = answer.json()
            except ValueError:
                raise CheckFailed(f"{path} answered with no JSON: {short(answer.text) or 'nothing'}") from None
            said = expected_part(found, json)
            if as_text(said) != as_text(json):
                raise CheckFailed(f"{path} says {short(as_text(said))}, expected {as_text(json)}.")
        return answer


def expected_part(found: Any, expected: Any) -> Any:
    """Return of JSON `found` what `expected` names: of an object only the expected keys."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return {key: expected_part(found[key], expected[key]) for key in expected if key in found}
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [expected_part(*pair) for pair in zip(found, expected, strict=True)]
    return found


def as_text(value: Any) -> str:
    """Return JSON by which true is neither "true" nor 1, whatever the order of keys."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def version_in(answer: requests.Response) -> str:
    """Return the version that a version route answers with, whatever its status; "" for any other answer."""
    try:
        said = answer.json()
    except ValueError:
        return ""
    return str(said.get("version") or "") if isinstance(said, dict) else ""


def own_url(path: str, origin: str) -> str:
    """Return the URL of a path of ORIGIN, or of a URL there. Raises `Inconclusive` for all else."""
    url = origin + path if path.startswith("/") else path
    if is_own(url, origin):
        return url
    raise Inconclusive(f"{short(path)} is off ORIGIN; expected a path on {origin}, as /api/health.", final=True)


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


def short(value: Any, length: int = 200) -> str:
    """Return a text, or a value as JSON, in one line of at most `length` characters, without secrets."""
    text = " ".join(mask(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
