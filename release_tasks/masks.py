"""Keep secrets out of all that is shown or recorded."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from functools import lru_cache
from typing import Any

SECRET_NAME = re.compile(r"TOKEN|PASSWORD|PASSWD|SECRET|API_KEY|PRIVATE_KEY", re.IGNORECASE)
USERINFO = re.compile(r"(?<=://)[^\s/?#]+(?=@)")
KEYWORD = re.compile(r"(password[ \t]*=[ \t]*)('(?:[^'\\]|\\.)*'|\S+)", re.IGNORECASE)

_hidden: set[str] = set()


def hide(secret: str) -> None:
    """Remember `secret`, so that `mask` replaces it from now on, and each longer line of it if it has several."""
    _hidden.update(piece for piece in (secret, *(line for line in secret.splitlines() if len(line) >= 6)) if piece)


def mask(text: str) -> str:
    """Return `text` with `***` for hidden secrets, userinfo of URLs, libpq passwords and secret environment values."""
    secrets = _hidden_pattern(frozenset(_hidden), frozenset(os.environ))
    if secrets:
        text = secrets.sub("***", text)
    return KEYWORD.sub(r"\1***", USERINFO.sub("***", text))


@lru_cache(maxsize=8)
def _hidden_pattern(hidden: frozenset[str], _names: frozenset[str]) -> re.Pattern[str] | None:
    """Return what matches any secret, the longest first; made anew when one is hidden or a variable comes."""
    secrets = sorted(hidden.union(secrets_of(os.environ)), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, secrets))) if secrets else None


def masked_json(value: Any, indent: int | None = None) -> str:
    """Return `value` as JSON, every text in it masked; what JSON does not know, as a date, becomes text."""
    return json.dumps(_masked(value), ensure_ascii=False, indent=indent)


def _masked(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _masked(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _masked(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float) else mask(str(value))


def secrets_of(environment: Mapping[str, str]) -> Iterator[str]:
    """Return the values of the variables in `environment` whose names speak of a secret."""
    return (value for name, value in environment.items() if SECRET_NAME.search(name) and len(value) >= 6)


def short(text: object, length: int = 200) -> str:
    """Return a text in one line of at most `length` characters, masked."""
    line = " ".join(mask(str(text)).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
