"""`release:` of invoke.yaml read into `Settings`: variables filled in, every problem named by its key path."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, get_args
from urllib.parse import unquote

from pydantic import ValidationError

from release_tasks.errors import Problem, refuse
from release_tasks.masks import hide, passwords_in
from release_tasks.settings import Settings

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(:-(?P<default>[^}]*))?\}")
REHEARSING = "RELEASE_REHEARSING"  # set in a rehearsal, which may reach nothing that is real
# What was set here, and where it is written now.
GONE = {
    "smokes": "Write each smoke as a test, smokes/test_<name>.py; then remove this key.",
    "stamp.flags": "Remove this key: the newest row of stamp.log says which version is stamped.",
    "acceptance.rewritten": "Write each path into .gitattributes, as `path rewritten`; then remove this key.",
    **{
        f"acceptance.{key}": "Write it as a test in acceptance/test_*.py; then remove this key."
        for key in ("keys", "http", "page", "fresh", "gaps", "log", "waived")
    },
}


def load(raw: Mapping[str, Any], variables: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings in `raw`, the value of `release:`, with `${NAME}` taken from `variables`.

    In a rehearsal all environments are embedded, the archive is in .release/, and nothing gets a backup, whatever
    `raw` says.
    Raises `Refused` with every problem at once: key path, what was found, what is expected. A variable that is not set
    and belongs to an environment is a problem of who names that.
    """
    if variables.get(REHEARSING):
        raw = {**raw, "environments": {}, "archive": [".release/archive"]}
    problems: list[Problem] = []
    unset: dict[str, list[Problem]] = {"": problems}
    filled = _filled(raw, "release", variables, unset)
    try:
        settings = Settings.model_validate(filled, context=unset)
    except ValidationError as wrong:
        problems += [_as_problem(error) for error in wrong.errors(include_url=False)]
    refuse(problems)
    if variables.get(REHEARSING):
        settings = settings.model_copy(update={"backup": settings.backup.model_copy(update={"then": []})})
    for name, environment in settings.environments:
        for found in passwords_in(environment.dsn) if not settings.environments.unset(name) else ():
            hide(found)
            hide(unquote(found))
    return settings


def _filled(value: Any, path: str, variables: Mapping[str, str], problems: dict[str, list[Problem]]) -> Any:
    """Return `value`, Invoke's or plain, with its variables filled in, but for those that nobody has set.

    What is wrong with its texts is added to `problems`: environment (or "") → what stands in the way of its use.
    """
    if hasattr(value, "items"):
        return {key: _filled(inner, f"{path}.{key}", variables, problems) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, f"{path}[{index}]", variables, problems) for index, inner in enumerate(value)]
    if not isinstance(value, str):
        return value
    if not all((found := VARIABLE.fullmatch(each)) and not found["default"] for each in passwords_in(value)):
        what = f"invoke.yaml, {path}: a password stands in the file; expected ${{NAME}}."
        problems[""].append(Problem(what, "Put it into an environment variable and write ${NAME} in its place."))
    environment = path.split(".")[2] if path.startswith("release.environments.") else ""

    def fill(found: re.Match[str]) -> str:
        name, default = found["name"], found["default"]
        if default is None and not variables.get(name):
            what = f"invoke.yaml, {path}: the environment variable {name} is not set, or it is empty."
            hint = f"Set {name}, or give a default as ${{{name}:-…}}."
            problems.setdefault(environment, []).append(Problem(what, hint))
            return found[0]
        return variables.get(name) or default or ""

    return VARIABLE.sub(fill, value)


def _fields_at(loc: tuple[Any, ...]) -> dict[str, Any]:
    """Return the fields of the group of settings at `loc`; a list or a table of free keys has none."""
    kind: Any = Settings
    for part in loc:
        fields = getattr(kind, "model_fields", None)
        kind = fields[part].annotation if fields else get_args(kind)[-1]
    return getattr(kind, "model_fields", {})


def _as_problem(error: Any) -> Problem:
    path = "release" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    path, (*group, key) = path.removesuffix(".[key]"), error["loc"] or ("",)
    fields = _fields_at(tuple(group))
    if error["type"] == "extra_forbidden":
        close = get_close_matches(str(key), fields, 1)
        what = f"invoke.yaml, {path}: no such setting; expected one of {', '.join(fields)}."
        hint = f"Did you mean {close[0]}?" if close else "Remove it, or give it one of these names."
        return Problem(what, GONE.get(path.removeprefix("release."), hint))
    message = error["msg"].removeprefix("Value error, ")
    found = "" if isinstance(error["input"], dict) else f"found {error['input']!r}; "
    about = f" ({fields[key].description})" if key in fields and error["type"] != "value_error" else ""
    what = f"invoke.yaml, {path}: {found}{message[:1].lower()}{message[1:]}{about}."
    return Problem(what, "Fix the value in invoke.yaml.")
