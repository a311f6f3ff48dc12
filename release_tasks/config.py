"""`release:` of invoke.yaml read into `Settings`: variables filled in, every problem named by its key path."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from release_tasks.command_line import REHEARSAL, REHEARSING
from release_tasks.errors import Problem, refuse
from release_tasks.masks import hide, passwords_in, secrets_of
from release_tasks.settings import Settings
from release_tasks.values import VARIABLE, unset_problems


def project_root(config: Any) -> Path:
    """Return the folder of tasks.py, from where Invoke read its project settings."""
    path = getattr(config, "_project_prefix", None)
    return Path(path).resolve() if path else Path.cwd()


def settings_of(config: Any) -> Settings:
    """Return the validated settings of Invoke's `config`; in the clone of a rehearsal those of a rehearsal."""
    if "release" not in config and (close := get_close_matches("release", config, 1)):
        refuse([Problem(f"invoke.yaml has {close[0]}: at its top, and no release:.", "Did you mean release:?")])
    kept = project_root(config) / REHEARSAL
    rehearsing = {REHEARSING: kept.read_text(encoding="utf-8")} if kept.is_file() else {}
    return load(config.get("release", {}), {**os.environ, **rehearsing})


def twice_problems(node: Any) -> Iterator[Problem]:
    """Yield the keys that stand twice in a mapping of `node`, invoke.yaml as YAML's nodes: the last one would count."""
    lines, inner = dict[str, int](), node.value if node.id != "scalar" else []
    if node.id == "mapping":
        for key, _ in inner:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines and name != "<<":  # which merges
                what = f"{name} stands in line {lines[name]} and again in line {line}, which would replace the first."
                yield Problem(f"invoke.yaml: {what}", f"Put all of {name} in one place.")
            lines.setdefault(name, line)
        inner = [value for _, value in inner]
    for each in inner:
        yield from twice_problems(each)


def load(raw: Mapping[str, Any], variables: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings in `raw`, the value of `release:`, with `${NAME}` taken from `variables`.

    A rehearsal reaches nothing real, whatever `raw` says. A variable of an environment that is not set stays, for who
    names that. Raises `Refused` with every problem at once: key path, found, expected.
    """
    if variables.get(REHEARSING):
        raw = {**raw, "environments": {}, "evidence": json.loads(variables[REHEARSING])}
    problems: list[Problem] = []
    filled = _filled(raw, "release", variables, problems)
    try:
        settings = Settings.model_validate(filled)
    except ValidationError as wrong:
        problems += [_as_problem(error) for error in wrong.errors(include_url=False)]
    refuse(problems)
    if variables.get(REHEARSING):
        settings = settings.model_copy(update={"backup": settings.backup.model_copy(update={"then": []})})
    for secret in secrets_of({name: environment.dsn for name, environment in settings.environments}):
        hide(secret)
    return settings


def _filled(value: Any, path: str, variables: Mapping[str, str], problems: list[Problem]) -> Any:
    """Return `value`, Invoke's or plain, with its variables filled in; what is wrong with it is added to `problems`."""
    if hasattr(value, "items"):
        return {key: _filled(inner, f"{path}.{key}", variables, problems) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, f"{path}[{index}]", variables, problems) for index, inner in enumerate(value)]
    if not isinstance(value, str):
        return value
    # Of a default without its colon: else `user:-name` would look like a user and a password.
    shown = VARIABLE.sub(lambda it: it[0].replace(":-", "-", 1) if it["default"] else it[0], value)
    if not all(VARIABLE.fullmatch(each) for each in passwords_in(shown)):
        what = f"invoke.yaml, {path}: a password stands in the file; expected ${{NAME}}."
        problems.append(Problem(what, "Put it into an environment variable and write ${NAME} in its place."))
    filled = VARIABLE.sub(lambda it: variables.get(it["name"]) or (it["default"] if it[2] else it[0]), value)
    problems += unset_problems(path, filled) if not path.startswith("release.environments.") else ()
    return filled


def _as_problem(error: Any) -> Problem:
    *group, key = error["loc"] or ("",)
    kind, meaning = Settings, ""
    for part in group:  # a list or a table of free keys has no fields
        fields = getattr(kind, "model_fields", None)
        kind, meaning = (fields[part].annotation, fields[part].description) if fields else (get_args(kind)[-1], meaning)
    fields = getattr(kind, "model_fields", {})
    path = "release" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    path = path.removesuffix(".[key]")
    if error["type"] == "extra_forbidden":
        close = get_close_matches(str(key), fields, 1)
        what = f"invoke.yaml, {path}: no such setting; expected one of {', '.join(fields)}."
        return Problem(what, f"Did you mean {close[0]}?" if close else "Remove it, or give it one of these names.")
    found = "" if isinstance(error["input"], dict) else f"found {error['input']!r}; "
    meaning = "" if error["type"] == "value_error" else fields[key].description if key in fields else meaning
    what = re.sub(r"^\w+ should (be |have )?", "expected ", error["msg"].removeprefix("Value error, "))
    what = re.split(", unable to | or instance of ", what)[0] + (meaning and f" ({meaning})")
    if error["type"] == "invalid_key":
        what = "expected a text as key; put it in quotes"
    if meaning and error["type"] == "string_pattern_mismatch":  # words say more than a pattern
        what = f"expected {meaning}"
    return Problem(f"invoke.yaml, {path}: {found}{what}.", "Fix the value in invoke.yaml.")


def write_schema(file: str | None) -> None:
    """Write the JSON Schema of invoke.yaml to `file`, or print it."""
    release = Settings.model_json_schema(ref_template="#/properties/release/$defs/{model}")
    schema = json.dumps({"properties": {"release": release}}, indent=2)
    if file:
        Path(file).write_text(f"{schema}\n", encoding="utf-8")
    print(f"The JSON Schema of invoke.yaml is in {file}." if file else schema)
