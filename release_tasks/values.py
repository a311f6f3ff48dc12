"""The kinds of values that settings have, and variables in them."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated
from urllib.parse import unquote, urlsplit

from psycopg import ProgrammingError, conninfo
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from release_tasks.errors import Problem
from release_tasks.masks import passwords_in

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(:-(?P<default>[^}]*))?\}")
HOST = r"(\[[^]@/?]*\]|[^][:@/?,]*)(:[0-9]*)?"
URL = re.compile(rf"postgres(ql)?://(([^@/?% ]|%[0-9a-fA-F]{{2}})*@)?{HOST}(,{HOST})*(/[^@?]*)?(\?[^@]*)?")
FOLDER = r"^[^/.:\\\x00][^/:\\\x00]*(/[^/.:\\\x00][^/:\\\x00]*)*$"  # of the repository, from its root
ENCODE = """In the password, write @ as %40, : as %3A, / as %2F, ? as %3F, % as %25. This does it:
python3 -c "import getpass, urllib.parse; print(urllib.parse.quote(getpass.getpass(), safe=''))\""""
QUOTE = r"Write the password as '${NAME}', quotes included, and in the variable \' for each ' and \\ for each \."


class Model(BaseModel):
    """A group of settings: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _is_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None
    return text


def _is_an_origin(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query
    except ValueError:  # no number for a port
        good = False
    if text and not good and "${" not in text:
        raise ValueError("expected http:// or https://, a host, perhaps a port")
    return text


def _is_an_order(order: object) -> object:
    if order not in ("javascript", "bytes") and not (order and isinstance(order, list)):
        raise ValueError("expected javascript, bytes, or a command as a list of words")
    return order


Order = Annotated[str | list[str], BeforeValidator(_is_an_order)]
Pattern = Annotated[str, AfterValidator(_is_pattern)]
Text = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(gt=0, le=1_000_000)]  # PostgreSQL takes twice as many
Origin = Annotated[str, AfterValidator(_is_an_origin)]
UrlPath = Annotated[str, Field(pattern="^(/([^/].*)?)?$")]
Command = Annotated[list[str], Field(min_length=1)]
Template = Annotated[str, Field(pattern=r"^([^{}]|\{(version|tag)\})*$")]
Tag = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?\{version\}$")]
Table = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*$")]


def unset_problems(path: str, text: str) -> Iterator[Problem]:
    """Yield the variables that are left in `text`, the value of the key `path`: nobody has set them."""
    for name in dict.fromkeys(found["name"] for found in VARIABLE.finditer(text)):
        what = f"invoke.yaml, {path}: the environment variable {name} is not set, or it is empty."
        is_password = f"${{{name}}}" in passwords_in(text)
        yield Problem(what, f"Set {name}." if is_password else f"Set {name}, or give a default as ${{{name}:-…}}.")


def dsn_problems(where: str, dsn: str) -> list[Problem]:
    """Return a problem if libpq could read the URL `dsn` in another way, or words with a password not at all.

    Nothing of it is shown.
    """
    if dsn.startswith(("postgresql://", "postgres://")):
        what = "an @, :, /, ?, % or space that parts nothing in it is not percent-encoded, or a port is no number"
        is_clear = URL.fullmatch(dsn) and "\ufffd" not in unquote(dsn)  # which stands for what is no UTF-8
        return [] if is_clear else [Problem(f"{where}: the URL is ambiguous: {what}.", ENCODE)]
    with suppress(ProgrammingError):  # libpq's words about one without a password can be shown, and say more
        if not re.search("password|@", dsn) or conninfo.conninfo_to_dict(dsn):
            return []
    what = "its words cannot be read: a key is unknown, or a value with a space in it is not in quotes"
    return [Problem(f"{where}: {what}.", QUOTE)]
