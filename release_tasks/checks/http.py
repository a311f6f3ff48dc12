"""A request to ORIGIN: its status, what its JSON says, how long it takes."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import requests

from release_tasks.checks.verdict import Seen, Wrong
from release_tasks.checks.web import LOGIN, Session, is_own, leads_to, short

if TYPE_CHECKING:
    from release_tasks.checks.place import Asked, Place
    from release_tasks.kinds import Http


def look_at_http(check: Http, place: Place, seen: Seen, asked: Asked) -> list[str]:
    """Ask, and return what is wrong with the answer. Raises `Unknown` when nobody is there to answer."""
    wanted = f"{check.method} {check.path}"
    seen.update(request=f"{check.method} {place.origin.rstrip('/')}{check.path}", threshold=f"{check.within:g} s")
    limit = min(check.within, check.timeout)
    began = time.monotonic()
    with Session(place.origin, check.redirects) as session:
        try:
            answer = session.request(check.method, check.path, headers=check.headers, timeout=limit)
        except requests.ReadTimeout:
            return [f"{wanted} was not answered within {limit:g} s."]
    took = time.monotonic() - began
    seen.update(status=answer.status_code, body=short(answer.text), value=f"{took:.3f} s")
    seen["in_words"] = f"{answer.status_code} in {took:.2f} s"
    if answer.status_code != check.status:
        if answer.is_redirect:
            raise _redirected(answer, wanted, check.status, place.origin)
        said = short(answer.text) or "nothing"
        return [f"{wanted} answered with status {answer.status_code}, expected {check.status}; it said: {said}"]
    late = [f"{wanted} took {took:.2f} s, expected at most {check.within:g} s."] if took > check.within else []
    return late + (_unlike(answer, wanted, check.holds, place.version) if check.holds else [])


def _redirected(answer: requests.Response, wanted: str, status: int, origin: str) -> Wrong:
    where = urljoin(answer.url, answer.headers["Location"])
    to = leads_to(where) + ("" if is_own(where, origin) else ", off ORIGIN")
    mend = "In invoke.yaml, give this check a session: headers: {Cookie: 'session=${SESSION}'}"
    said = f"{wanted} is redirected ({answer.status_code}) to {to}; expected {status}."
    return Wrong(said, mend if LOGIN.search(where) else "")


def _unlike(answer: requests.Response, wanted: str, holds: dict[str, Any], version: str) -> list[str]:
    """Return a sentence for each path in the JSON of `answer` that is missing, or has another value."""
    try:
        told = answer.json()
    except ValueError:
        return [f"{wanted} answered with no JSON: {short(answer.text) or 'nothing'}"]
    wrong = []
    expected = json.loads(json.dumps(holds).replace("{version}", version))
    for path, value in expected.items():
        try:
            found = _at(path, told)
        except (LookupError, TypeError, ValueError):
            wrong.append(f"{wanted} has no {path} in its JSON, expected {json.dumps(value)}; it said: {short(told)}")
            continue
        if not _same(found, value):
            wrong.append(f"{wanted} says that {path} is {short(json.dumps(found))}, expected {json.dumps(value)}.")
    return wrong


def _at(path: str, told: Any) -> Any:
    """Return what stands at a dotted `path`, a number being a place in a list. Raises as indexing does."""
    for part in path.split("."):
        told = told[int(part) if isinstance(told, list) else part]
    return told


def _same(found: Any, value: Any) -> bool:
    """Tell whether two JSON values are the same; true is neither "true" nor 1, but 1 is 1.0 (RFC 8259, section 3)."""
    if isinstance(value, dict) and isinstance(found, dict):
        return found.keys() == value.keys() and all(_same(found[key], value[key]) for key in value)
    if isinstance(value, list) and isinstance(found, list):
        return len(found) == len(value) and all(map(_same, found, value))
    return isinstance(found, bool) == isinstance(value, bool) and bool(found == value)
