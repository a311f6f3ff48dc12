"""HTTP on ORIGIN, which a request never leaves, and JSON that is compared strictly."""

import os
import re
from collections.abc import Callable
from functools import partial
from json import dumps
from typing import Any

import requests

from release_tasks.checks import CheckFailed, Inconclusive
from release_tasks.masks import short

LOGIN = re.compile(r"log-?in|sign-?in|\bo?auth\d?\b|\bsso\b", re.IGNORECASE)
as_text = partial(dumps, ensure_ascii=False, sort_keys=True)  # by which true is neither "true" nor 1


class Api(requests.Session):
    """A session of requests whose paths are those of ORIGIN: no redirects, no proxy, 10 s."""

    def __init__(self, origin: str, record: Callable[[str, object], None] = lambda name, value: None) -> None:
        super().__init__()
        self.origin, self.record, self.trust_env = origin, record, False
        self.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True  # which trust_env no longer reads

    def request(self, method: Any, url: Any, *args: Any, **how: Any) -> requests.Response:
        """Request a path of ORIGIN. Raises `CheckFailed` when it is late, `Inconclusive` when nobody answers."""
        if not str(url).startswith("/"):
            raise Inconclusive(f"{short(url)} is no path on ORIGIN, as /api/health is.", final=True)
        how = {"timeout": 10, **how, "allow_redirects": False}
        try:
            answer = super().request(method, f"{self.origin}{url}", *args, **how)
        except requests.ReadTimeout:
            raise CheckFailed(f"{url} was not answered within {how['timeout']:g} s.") from None
        except requests.RequestException as error:
            why = short(str(error).rpartition(": ")[2].rstrip("\"')"))
            raise Inconclusive(f"{self.origin}{url} could not be reached: {why}.", f"curl -I {self.origin}") from None
        self.record("request", f"{answer.status_code} in {answer.elapsed.total_seconds():.2f} s, {url}")
        return answer

    def expect(self, path: str, json: Any = None, status: int = 200, within: float = 5, **how: Any) -> None:
        """Raise `CheckFailed` unless the answer comes `within` seconds with `status` and holds `json`.

        Of an object only the expected keys are compared; true is neither "true" nor 1.
        """
        answer = self.get(path, timeout=within, **how)
        if answer.status_code != status:
            said = leads_to(answer.headers.get("Location", "")) or f"said {short(answer.text)}"
            raise CheckFailed(f"{path} answered {answer.status_code}, expected {status}; it {said}")
        if json is not None and as_text(found := part_of(json_in(answer), json)) != as_text(json):
            raise CheckFailed(f"{path} says {short(as_text(found))}, expected {as_text(json)}.")


def json_in(answer: requests.Response) -> Any:
    """Return the JSON of an answer, its text where it is none."""
    try:
        return answer.json()
    except ValueError:
        return answer.text


def part_of(found: Any, expected: Any) -> Any:
    """Return of JSON `found` what `expected` names: of an object only its keys."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return {key: part_of(found[key], expected[key]) for key in expected if key in found}
    return found


def version_in(answer: requests.Response) -> str:
    """Return the version that a version route answers with, whatever its status; "" for any other answer."""
    found = json_in(answer)
    return str(found.get("version") or "") if isinstance(found, dict) else ""


def leads_to(url: str) -> str:
    """Return where a page leads, "" where it stays."""
    return url and f"leads to {short(url)}{', a login page' if LOGIN.search(url) else ''}"
