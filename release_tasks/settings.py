"""The settings of a repo: `release:` in invoke.yaml, validated once; every problem is named by its key path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from release_tasks.errors import Problem, refuse
from release_tasks.shell import hide

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(:-(?P<default>[^}]*))?\}")
PASSWORD_IN_URL = re.compile(r"://[^/@\s:]*:(?P<password>[^@\s]+)@")
PASSWORD_IN_WORDS = re.compile(r"\bpassword\s*=\s*(?P<password>'[^']*'|\S+)", re.IGNORECASE)
SECRET_NAME = re.compile(r"(TOKEN|PASSWORD|PASSWD|SECRET|KEY|DSN|DATABASE_URL)$")


class Model(BaseModel):
    """A group of settings: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Smoke(Model):
    """A command that proves something by exit code 0 *and* by what it prints; silence is no pass."""

    command: list[str] = Field(min_length=1)
    must_print: str = Field(min_length=1, description="a regular expression its output has to match")
    timeout: float = Field(60, gt=0, description="seconds")


class Ddl(Model):
    """The DDL pack: where it is, in which order it is applied and by what."""

    folder: str = "ddl"
    order: Literal["javascript", "bytes"] = Field("bytes", description="how the runner sorts base names")
    command: list[str] = Field(default=[], description="the application's runner; empty: psycopg")
    must_print: str = Field("", description="a regular expression; {count} stands for the files of the pack")
    ledger: str = Field("ops.ddl_ledger", pattern=r"^[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*$")
    timeout: float = Field(600, gt=0, description="seconds for the whole pack")

    @property
    def lock(self) -> str:
        """The path of the order lock, beside the files it locks."""
        return f"{self.folder}/ORDER.lock"


class DocsPack(Model):
    """Section 4: the curated list of what is hashed; DDL files, VERSION and SOURCE_TAG are always in it."""

    folder: str = "docs"
    include: list[str] = []
    submodule_branch: str = Field("main", description="where commits go when the folder is a submodule")

    @property
    def hashes(self) -> str:
        return f"{self.folder}/HASHES.sha256.txt"


class Stamp(Model):
    """Section 7.1: the command that opens all sessions, and the log in which its stamp is found."""

    command: list[str] = []
    log: str = Field("ops.session_log", pattern=r"^[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*$")
    timeout: float = Field(60, gt=0)


class Fresh(Model):
    """Each key of `keys` has a row of `table` younger than `within` seconds."""

    table: str
    key: str = Field("symbol", description="an SQL expression that names the key of a row")
    time: str = Field("ts", description="an SQL expression of type timestamptz")
    within: float = Field(gt=0, description="seconds")


class Series(Model):
    """For each key, rows of `table` are no more than `every` seconds apart over the last `window` seconds."""

    table: str
    key: str = "symbol"
    time: str = "ts"
    every: float = Field(gt=0, description="seconds")
    window: float = Field(600, gt=0, description="seconds")
    late: float = Field(15, ge=0, description="seconds that the newest row may lag behind the clock")


class Acceptance(Model):
    """Section 7.2: what must hold on staging before production is touched."""

    health: str = "/api/health"
    version: str = "/api/version"
    views: list[str] = []
    keys: str = Field("", description="a query for the keys that are expected in each table")
    fresh: list[Fresh] = []
    gaps: list[Series] = []
    wait: float = Field(60, ge=0, description="seconds that a deployment may take to settle")


class Environment(Model):
    """A database, a web app and jobs. Without `dsn` it is embedded: all of it runs in .release/."""

    dsn: str = ""
    origin: str = Field("", description="base URL of the web app")
    folder: str = Field("", description="where releases are unpacked and `current` points to one of them")
    restart: list[str] = Field([], description="the command that restarts web app and jobs from `current`")
    log: str = Field("", description="PostgreSQL's server log, for the check on SQL warnings")

    @model_validator(mode="after")
    def complete(self) -> Environment:
        missing = [name for name in ("origin", "folder", "restart", "log") if not getattr(self, name)]
        if self.dsn and missing:
            raise ValueError(f"with a dsn, {', '.join(missing)} must be set too")
        return self

    @property
    def embedded(self) -> bool:
        return not self.dsn


class Settings(Model):
    """All that a repo may set; what it leaves out has the default given here."""

    app: str = Field("app", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="APP_NAME")
    title: str = Field("", description="the name people know it by; default: app")
    folder: str = Field(".", description="where package.json and the application's commands live")
    main: str = "main"
    remote: str = "origin"
    branch: str = Field("release/v{version}", description="the release branch; empty: release from main")
    must_be_merged: list[str] = Field(default=[], description="patterns of remote branches, such as feature/*")
    changelog: str = "CHANGELOG.md"
    version_files: list[str] = Field(default=[], description="JSON files with a `version`, such as package.json")
    freeze_days: int = Field(1, ge=0)
    ddl: Ddl = Ddl()
    docs_pack: DocsPack = DocsPack()
    install: list[str] = Field(default=[], description="what a fresh checkout needs before it runs")
    services: dict[str, list[str]] = Field(default={}, description="name → command; `web` listens on PORT")
    smokes: dict[str, Smoke] = {}
    stamp: Stamp = Stamp()
    acceptance: Acceptance = Acceptance()
    environments: dict[Literal["dev", "staging", "production"], Environment] = {}
    archive: list[str] = Field(default=[], description="folders that get a copy of the evidence pack")

    def environment(self, name: Literal["dev", "staging", "production"]) -> Environment:
        return self.environments.get(name, Environment())


def load(raw: Mapping[str, Any], variables: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings in `raw`, the value of `release:`, with `${NAME}` taken from `variables`.

    Raises `Refused` with every problem at once: key path, what was found, what is expected.
    """
    texts = list(_texts(raw, "release"))
    problems = [*_literal_passwords(texts), *_unset(texts, variables)]
    try:
        settings = Settings.model_validate(_filled(raw, variables))
    except ValidationError as wrong:
        refuse([*problems, *(_as_problem(error) for error in wrong.errors(include_url=False))])
        raise
    refuse(problems)
    for environment in settings.environments.values():
        for found in _passwords(environment.dsn):
            hide(found)
    return settings


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, f"{path}[{index}]")


def _passwords(text: str) -> list[str]:
    return [found["password"] for form in (PASSWORD_IN_URL, PASSWORD_IN_WORDS) for found in form.finditer(text)]


def _literal_passwords(texts: list[tuple[str, str]]) -> Iterator[Problem]:
    for path, text in texts:
        if any(VARIABLE.fullmatch(password) is None for password in _passwords(text)):
            yield Problem(
                f"invoke.yaml, {path}: a password stands in the file; expected ${{NAME}}.",
                "Put it into an environment variable and write ${NAME} in its place.",
            )


def _unset(texts: list[tuple[str, str]], variables: Mapping[str, str]) -> Iterator[Problem]:
    for path, text in texts:
        for found in VARIABLE.finditer(text):
            name = found["name"]
            if name not in variables and found["default"] is None:
                yield Problem(
                    f"invoke.yaml, {path}: the environment variable {name} is not set.",
                    f"Set {name}, or give a default as ${{{name}:-…}}.",
                )


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return VARIABLE.sub(lambda found: variables.get(found["name"]) or found["default"] or "", value)
    if isinstance(value, Mapping):
        return {key: _filled(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, variables) for inner in value]
    return value


def _as_problem(error: Any) -> Problem:
    path = "release" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    path = path.removesuffix(".[key]")
    if error["type"] == "extra_forbidden":
        return Problem(f"invoke.yaml, {path}: no such setting.", "Remove it, or see docs/SETTINGS.md for the names.")
    message = error["msg"].removeprefix("Value error, ")
    found = "" if isinstance(error["input"], dict) else f"found {error['input']!r}; "
    return Problem(f"invoke.yaml, {path}: {found}{message[:1].lower()}{message[1:]}.", "Mend the value in invoke.yaml.")
