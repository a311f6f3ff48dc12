"""`release:` of invoke.yaml read into `Settings`: variables filled in, every problem named by its key path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args
from urllib.parse import unquote

from pydantic import ValidationError

from release_tasks.errors import Problem, refuse
from release_tasks.masks import hide
from release_tasks.settings import Settings

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(:-(?P<default>[^}]*))?\}")
PASSWORD_IN_URL = re.compile(r"://[^/@\s:]*:(?P<password>[^@\s]+)@")
PASSWORD_IN_WORDS = re.compile(r"\bpassword\s*=\s*(?P<password>'[^']*'|\S+)", re.IGNORECASE)
REHEARSING = "RELEASE_REHEARSING"  # set in a rehearsal, which may reach nothing that is real
# What was set here, and is written as a test now.
GONE = {
    "smokes": "Write each smoke as a test, smokes/test_<name>.py; then remove this key.",
    **{
        f"acceptance.{key}": "Write it as a test in acceptance/test_*.py; then remove this key."
        for key in ("keys", "http", "page", "fresh", "gaps", "log", "waived")
    },
}


def load(raw: Mapping[str, Any], variables: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings in `raw`, the value of `release:`, with `${NAME}` taken from `variables`.

    In a rehearsal all environments are embedded, the archive is in .release/, and nothing gets a backup, whatever
    `raw` says.
    Raises `Refused` with every problem at once: key path, what was found, what is expected.
    """
    if variables.get(REHEARSING):
        raw = {**raw, "environments": {}, "archive": [".release/archive"]}
    problems: list[Problem] = []
    filled = _filled(raw, "release", variables, problems)
    try:
        settings = Settings.model_validate(filled)
    except ValidationError as wrong:
        problems += [_as_problem(error) for error in wrong.errors(include_url=False)]
    refuse(problems)
    if variables.get(REHEARSING):
        settings = settings.model_copy(update={"backup": settings.backup.model_copy(update={"then": []})})
    for _, environment in settings.environments:
        for found in _passwords(environment.dsn):
            hide(found)
            hide(unquote(found))
    return settings


def _filled(value: Any, path: str, variables: Mapping[str, str], problems: list[Problem]) -> Any:
    """Return `value`, Invoke's or plain, with its variables filled in; what its texts must not hold is added."""
    if hasattr(value, "items"):
        return {key: _filled(inner, f"{path}.{key}", variables, problems) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, f"{path}[{index}]", variables, problems) for index, inner in enumerate(value)]
    if not isinstance(value, str):
        return value
    problems += text_problems(value, path, variables)
    return VARIABLE.sub(lambda found: variables.get(found["name"]) or found["default"] or "", value)


def text_problems(text: str, path: str, variables: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what is wrong with a text of the file: a literal password, variables that nobody has set."""
    if not all((found := VARIABLE.fullmatch(each)) and not found["default"] for each in _passwords(text)):
        yield Problem(
            f"invoke.yaml, {path}: a password stands in the file; expected ${{NAME}}.",
            "Put it into an environment variable and write ${NAME} in its place.",
        )
    for found in VARIABLE.finditer(text):
        name = found["name"]
        if not variables.get(name) and found["default"] is None:
            yield Problem(
                f"invoke.yaml, {path}: the environment variable {name} is not set, or it is empty.",
                f"Set {name}, or give a default as ${{{name}:-…}}.",
            )


def _passwords(text: str) -> list[str]:
    found = [form.finditer(text) for form in (PASSWORD_IN_URL, PASSWORD_IN_WORDS)]
    return [each["password"].strip("'") for matches in found for each in matches]


def _keys_at(loc: tuple[Any, ...]) -> list[str]:
    """Return the keys that the settings at `loc` may have."""
    kind: Any = Settings
    for part in loc:
        fields = getattr(kind, "model_fields", None)
        kind = fields[part].annotation if fields else get_args(kind)[-1]
    return list(kind.model_fields)


def _as_problem(error: Any) -> Problem:
    path = "release" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    path = path.removesuffix(".[key]")
    if error["type"] == "extra_forbidden":
        keys = _keys_at(error["loc"][:-1])
        close = get_close_matches(str(error["loc"][-1]), keys, 1)
        what = f"invoke.yaml, {path}: no such setting; expected one of {', '.join(keys)}."
        gone = GONE.get(path.removeprefix("release."))
        return Problem(
            what, gone or (f"Did you mean {close[0]}?" if close else "Remove it, or give it one of these names.")
        )
    message = error["msg"].removeprefix("Value error, ")
    found = "" if isinstance(error["input"], dict) else f"found {error['input']!r}; "
    return Problem(f"invoke.yaml, {path}: {found}{message[:1].lower()}{message[1:]}.", "Fix the value in invoke.yaml.")
