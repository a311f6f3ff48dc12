"""Keep secrets out of all that is shown or recorded.

A variable holds one where a word of its name ends in PASSWORD, PASS, PAT, KEY, TOKEN, SECRET, CREDENTIAL, AUTH or DSN,
and its value has six characters and is no path that exists; of a URL only what stands before the @ is one. A password
that is the name of PostgreSQL is shown, as without it no hint could be typed.
Of the standard library only: the environments of smokes with packages of their own import this too.
"""

import json
import os
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote

SECRET_NAME = re.compile(
    r"(PASS(WORD|WD|PHRASE)?|_PWD|(?<![A-Z])PAT|KEY|TOKEN|SECRET|CREDENTIAL|AUTH|DSN)S?\d*(?![A-Z])", re.IGNORECASE
)
# A user of PostgreSQL or of a host alone is no secret, and hints with one can be typed; elsewhere it may be a token.
USERINFO = re.compile(r"(?<=://)(?:(?<!postgresql://)(?<!postgres://)(?<!ssh://)|[^\s/?#:]*:)[^\s/?#]+(?=@)")
QUOTED = r"'(?:[^'\\]|\\.|'')*'"  # libpq's words, and SQL's, with '' for '
NAME = r"(?:password|passwd|passphrase|token|secret|api[_-]?key)"
# In prose one is quoted, has a digit or ends the line: "password authentication failed" says nothing.
NAMED = [
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        rf"({NAME}[ \t]*=[ \t]*)(?:''[^'\\]*''|E?{QUOTED})?\S*",
        rf"(password[ \t]+)(?:E?{QUOTED}[^\s,;)]*|(?=\S*\d)\S+)",
        rf"""((?P<quote>(?<!\\)\\*["'])[\w.-]*{NAME}(?P=quote)\s*:\s*(?P=quote))"""  # JSON
        r"(?:(?!(?P=quote))(?:\\.|[^\\\n]))+",
        r"""(authorization\\*["']?\s*:\s*\\*["']?(?:basic|bearer|token)[ \t]+)[^\s'"]+""",
        rf"((?:{NAME}|authorization)[ \t]*:[ \t]*|bearer[ \t]+)(?=[^\s\d]{{0,200}}\d)[^\s'\"]\S{{5,}}",
        r"((?:passw(?:or)?d|passphrase|secret)[ \t]*:[ \t]+)"
        rf"""(?:(?:{QUOTED}|"[^"\n]+")[^\s,;)]*|\S{{6,}}(?=[ \t]*$))""",
    )
]
PASSWORD = re.compile(
    rf"://[^/@\s:]*:((?:(?!://)[^@\s])+)@|https?://([^/@\s:]+)@|\bpassword\s*=\s*({QUOTED}|\S+)"
    r"|[?&][^=&\s]*(?:token|secret|key|pass|auth)[^=&\s]*=([^&#\s]+)",  # of a URL
    re.IGNORECASE,
)

SHORTEST = 6
PUBLIC = {"postgres", "postgresql"}  # anybody's guess

_hidden: set[str] = set()


def hide(secret: str) -> None:
    """Let `mask` replace `secret` and each line of it; a few letters are left, as they would be found everywhere."""
    _hidden.update(_pieces(secret))


def _pieces(secret: str) -> set[str]:
    """Return `secret`, and each line of it without the blanks around it: who reads one strips them."""
    pieces = {secret, *map(str.strip, secret.splitlines())} - PUBLIC
    return {piece for piece in pieces if len(piece) >= SHORTEST}


def mask(text: str, secrets: re.Pattern[str] | None = None) -> str:
    """Return `text` with `***` for hidden secrets, userinfo of URLs, passwords and tokens, secret variables' values."""
    text = USERINFO.sub("***", (secrets or _secrets()).sub("***", text))
    for pattern in NAMED:
        text = pattern.sub(r"\1***", text)
    return text


def _secrets() -> re.Pattern[str]:
    """Return a pattern of all that is hidden, and of the values of secret variables; to read those takes its time."""
    return _hidden_pattern(frozenset(_hidden), frozenset(os.environ.items()))


@lru_cache(maxsize=8)
def _hidden_pattern(hidden: frozenset[str], variables: frozenset[tuple[str, str]]) -> re.Pattern[str]:
    """Return a pattern of all secrets, the longest first; made anew when one is hidden or a variable changes."""
    secrets = {form for secret in hidden.union(secrets_of(dict(variables))) for form in _forms(secret)}
    longest_first = sorted(secrets, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _forms(secret: str) -> Iterator[str]:
    """Yield `secret` as it is, quoted, in a URL, and in base64, wherever it begins: three bytes are four characters."""
    plain = secret.encode(errors="surrogateescape")
    yield from (secret, quote(plain, safe=""), quote_plus(plain))
    yield from (secret.replace("'", quoted) for quoted in ("'\"'\"'", "'\\''", "''"))  # by shlex, a shell and SQL
    yield from (text[1:-1] for text in (repr(secret), json.dumps(secret), json.dumps(secret, ensure_ascii=False)))
    for shift in range(3) if len(plain) >= 6 else ():
        whole = slice(-(-shift * 4 // 3), (shift + len(plain)) * 4 // 3)
        yield from (encode(bytes(shift) + plain)[whole].decode() for encode in (b64encode, urlsafe_b64encode))


def passwords_in(text: str) -> list[str]:
    """Return the passwords in the URLs and libpq words of `text`."""
    return [found[found.lastindex or 0].strip("'") for found in PASSWORD.finditer(text)]


def secrets_of(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the secrets in the variables of `environment`."""
    for name, value in environment.items():
        found = passwords_in(value)
        if not found and "://" not in value and SECRET_NAME.search(name) and not os.access(value, os.F_OK):
            found = [value]
        yield from {piece for secret in found for each in (secret, unquote(secret)) for piece in _pieces(each)}


def mask_file(path: Path) -> None:
    """Replace what `mask` does in the file that a program has left."""
    path.write_text(mask(path.read_text(encoding="utf-8", errors="replace")), encoding="utf-8")


def masked_json(value: Any, **how: Any) -> str:
    """Return `value` as JSON, every text in it masked; what JSON does not know, as a date, becomes text."""
    return json.dumps(_masked(value, _secrets()), **{"ensure_ascii": False, **how})


def _masked(value: Any, secrets: re.Pattern[str]) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _masked(asdict(value), secrets)
    if isinstance(value, Mapping):
        return {mask(str(key), secrets): _masked(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(inner, secrets) for inner in value]
    return value if value is None or isinstance(value, bool | int | float) else mask(str(value), secrets)


def short(text: object, length: int = 200) -> str:
    """Return a text in one line of at most `length` characters, masked."""
    line = " ".join(mask(str(text)).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
