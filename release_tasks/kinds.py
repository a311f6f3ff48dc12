"""The kinds of checks: what each may be told in invoke.yaml."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    PositiveInt,
    Tag,
    model_validator,
)

ERROR_WORDS = (
    r"(?i)\b(something went wrong|(application|internal server|unexpected|unhandled( runtime)?) error|"
    r"an error (has )?occurred|failed to (fetch|load)|(service|temporarily) unavailable|bad gateway|gateway timeout|"
    r"cannot (GET|POST) /|Traceback \(most recent call last\))"
)
SQL_TROUBLE = r"\b(WARNING|ERROR|FATAL|PANIC): |\bSQL (warn|error)|\bPostgresError\b"


class Model(BaseModel):
    """A group of settings: unknown keys are refused, values never change after loading.

    It is built when it is first used: a gate uses one or two, and starts the sooner.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def _is_pattern(text: str) -> str:
    try:
        re.compile(text.replace("{count}", "1"))
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None
    return text


def _is_a_mark(text: str) -> str:
    if re.search(_is_pattern(text).replace("{count}", "1"), ""):
        raise ValueError("it matches silence; expected a pattern that a mark has to match")
    return text


def _is_inside(path: str) -> str:
    if path.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", path) or ":" in path:
        raise ValueError("expected a path in the release's code")
    return path


def _is_a_path(text: str) -> str:
    if not text.startswith("/") or text.startswith("//") or "\\" in text:
        raise ValueError("expected a path on ORIGIN, which begins with one /")
    return text


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Listed = Literal["http", "page", "fresh", "gaps", "log"]  # the kinds that section 7.2 has a list of
Pattern = Annotated[str, AfterValidator(_is_pattern)]
Mark = Annotated[str, AfterValidator(_is_a_mark)]
Reason = Annotated[str, Field(min_length=1)]
UrlPath = Annotated[str, AfterValidator(_is_a_path)]
Words = Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]
Paths = Annotated[list[UrlPath], BeforeValidator(_as_list), Field(min_length=1)]


class Check(Model):
    """What every kind of check may be told."""

    kind: str = ""  # each says its own
    why: str = Field("", description="what it proves, in a few words: its name to people, and its bullet")
    timeout: float = Field(60, gt=0, description="seconds for one look")
    wait: float | None = Field(None, ge=0, description="seconds in which it may come about; None: its section's")
    interval: float = Field(1, gt=0, description="seconds between two looks")

    # Which look is asked when: those of turn 1 at once, version before them all, logs and version after them.
    turns: ClassVar[tuple[int, ...]] = (1,)

    @property
    def title(self) -> str:
        """What it looks at, in a word or two, where nobody gave it a name."""
        return ""

    @property
    def views(self) -> int:
        """The number of views that one look opens in the browser."""
        return 0


class Command(Check):
    """A program that passes with exit code 0 *and* its mark *and* no sign of trouble; silence is no pass."""

    kind: Literal["command"] = "command"
    command: list[str] = Field(min_length=1)
    must_print: Mark = Field(description="a regular expression that its output has to match")
    must_not_print: list[Pattern] = Field([SQL_TROUBLE], description="regular expressions that it must not match")
    env: dict[str, str] = Field({}, description="variables over those of the environment")
    node: str = Field("", pattern=r"^(\d+(\.\d+){0,2})?$", description="the version of Node it runs on")
    npm: list[str] = Field([], description="npm packages of its own, such as tsx@4")
    python: str = Field("", pattern=r"^(\d+\.\d+(\.\d+)?)?$", description="the version of Python it runs on")
    pip: list[str] = Field([], description="Python packages of its own; `python` is then its environment's")
    changes: str = Field("", description="why it may change what the database consists of")
    on_backup: dict[str, str] | None = Field(None, description="only reads: runs on a restored backup, with these set")


class Sql(Check):
    """A query, or a file with one, and what it has to give; reading only, unless it is marked as changing."""

    kind: Literal["sql"] = "sql"
    query: str = ""
    file: Annotated[str, AfterValidator(_is_inside)] = ""
    expect: Literal["none", "some"] | None = None
    at_least: int | None = Field(None, ge=1, description="rows")
    between: tuple[FiniteFloat, FiniteFloat] | None = Field(
        None, description="the one value it gives, both ends included"
    )
    over: str = Field("", description="with `expect: none`: a query for what was looked at, which must give a row")
    changes: bool = Field(False, description="it may write, in a transaction that is rolled back")
    on_backup: dict[str, str] | None = None

    @model_validator(mode="after")
    def asks_one_thing(self) -> Sql:
        if bool(self.query) == bool(self.file):
            raise ValueError("expected one of query and file")
        if sum(each is not None for each in (self.expect, self.at_least, self.between)) != 1:
            raise ValueError("expected one of expect, at_least and between")
        if (self.expect == "none") != bool(self.over):
            raise ValueError("expect: none needs over, a query for what was looked at, and only it does")
        if self.between and self.between[0] > self.between[1]:
            raise ValueError("expected between with the lesser end first: nothing else can pass")
        return self


class Keyed(Check):
    """What fresh and gaps have in common: a table, the keys that are expected in it, and the time of a row."""

    table: str
    key: Words = Field(["symbol"], description="the columns (or expressions) that name the key of a row")
    keys: str = Field("", description="a query for the expected keys, a column each; empty: acceptance.keys")
    time: str = "ts"
    unit: Literal["timestamptz", "ms"] = Field("timestamptz", description="ms: milliseconds since 1970")

    @property
    def title(self) -> str:
        return self.table


class Fresh(Keyed):
    """Each expected key has a row of `table` younger than `within` seconds, and none from the future."""

    kind: Literal["fresh"] = "fresh"
    within: float = Field(gt=0, description="seconds")

    @property
    def title(self) -> str:
        return f"{self.table} within {self.within:g} s"


class Gaps(Keyed):
    """For each expected key, rows of `table` are no more than `every` seconds apart over the last `window` seconds."""

    kind: Literal["gaps"] = "gaps"
    every: float = Field(gt=0, description="seconds; 1.5 times as much is a hole")
    window: float = Field(600, gt=0, description="seconds")
    late: float = Field(15, ge=0, description="seconds that the newest row may be away longer")

    @property
    def title(self) -> str:
        return f"{self.table} over {self.window:g} s"

    @model_validator(mode="after")
    def sees_a_dead_key(self) -> Gaps:
        if self.window <= (least := self.every * 1.5 + self.late):
            raise ValueError(f"expected a window of more than {least:g} s, 1.5 times every and late: a dead key passes")
        return self


class Http(Check):
    """A request to ORIGIN: its status, what its JSON says, how long it takes."""

    kind: Literal["http"] = "http"
    path: UrlPath
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    status: int = Field(200, ge=100, le=599)
    holds: dict[str, Any] = Field({}, description="path in the JSON, as database.ok → value; {version} is filled in")
    within: float = Field(5, gt=0, description="seconds until it has answered")
    redirects: bool = Field(False, description="follow them, but never off ORIGIN")
    headers: dict[str, str] = {}

    @property
    def title(self) -> str:
        return self.path


class Page(Check):
    """A view in a real browser: it is there, it shows what it should, and nothing in it fails."""

    kind: Literal["page"] = "page"
    timeout: float = Field(15, gt=0, description="seconds for one look")
    path: Paths
    status: int = Field(200, ge=100, le=599)
    selector: str = Field("main", min_length=1, description="what has to be visible, in CSS")
    must_not_show: list[Pattern] = Field([], description="regular expressions that its text must not match")
    error_words: Pattern = Field(ERROR_WORDS, description="the same, for the words of usual error boxes; empty: none")
    stay: float = Field(0, ge=0, description="seconds that it is watched on, once all is there")
    viewports: list[tuple[PositiveInt, PositiveInt]] = Field(
        [(1280, 800)], min_length=1, description="width and height in pixels"
    )
    dark: bool = Field(False, description="look in dark mode as well")
    cookies: dict[str, str] = Field({}, description="as a session's, from ${NAME}")
    headers: dict[str, str] = {}

    @model_validator(mode="after")
    def stays_to_the_end(self) -> Page:
        if self.stay >= self.timeout:
            raise ValueError(f"expected stay to be less than timeout, {self.timeout:g} s, which is for the whole look")
        return self

    @property
    def title(self) -> str:
        return self.path[0]

    @property
    def views(self) -> int:
        return len(self.path) * len(self.viewports) * (1 + self.dark)


class Log(Check):
    """A log, read from where it stood when the deployment began: no trouble in it."""

    kind: Literal["log"] = "log"
    files: list[str] = Field([], description="patterns of files; nothing given: PostgreSQL's server log")
    command: list[str] = Field(
        [], description="prints the log since the deployment began: {since}, in ISO 8601; {since_unix}, in seconds"
    )
    must_not_match: list[Pattern] = Field([SQL_TROUBLE], min_length=1)
    exceptions: dict[Pattern, Reason] = Field({}, description="pattern of a line → why it may be")
    silent: str = Field("", description="why it is right that nobody writes to it")
    turns: ClassVar[tuple[int, ...]] = (2,)

    @model_validator(mode="after")
    def reads_one_thing(self) -> Log:
        if self.files and self.command:
            raise ValueError("expected files or command, not both")
        return self

    @property
    def title(self) -> str:
        return " ".join(self.files or self.command) or "server log"


class Version(Check):
    """What runs is this release: API, session stamp and its flags, DDL ledger and deployed files say the same."""

    kind: Literal["version"] = "version"
    turns: ClassVar[tuple[int, ...]] = (0, 3)

    @property
    def title(self) -> str:
        return "version"


KINDS: dict[str, type[Check]] = {
    "command": Command,
    "sql": Sql,
    "fresh": Fresh,
    "gaps": Gaps,
    "http": Http,
    "page": Page,
    "log": Log,
    "version": Version,
}


def _kind_of(value: Any) -> str | None:
    return value.get("kind", "command") if isinstance(value, dict) else getattr(value, "kind", None)


AnyCheck = Annotated[
    Annotated[Command, Tag("command")]
    | Annotated[Sql, Tag("sql")]
    | Annotated[Fresh, Tag("fresh")]
    | Annotated[Gaps, Tag("gaps")]
    | Annotated[Http, Tag("http")]
    | Annotated[Page, Tag("page")]
    | Annotated[Log, Tag("log")]
    | Annotated[Version, Tag("version")],
    Discriminator(_kind_of),
]
