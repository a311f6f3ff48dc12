"""SQL text taken apart as psql does it, without a server (PostgreSQL, "Lexical Structure")."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

# What is not closed goes on to the end, as for PostgreSQL. An operator ends in + or - only where it holds one of ~!@#….
TOKEN = re.compile(
    r"""
    (?P<comment>--[^\r\n]*|/\*)
  | (?P<quoted>(?:"[^"]*(?:"|\Z))+ | [eE]'(?:[^'\\]|''|\\(?:.|\Z))*+(?:'|\Z) | (?:'[^']*(?:'|\Z))+
             | (?P<tag>\$(?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?\$).*?(?:(?P=tag)|\Z))
  | (?P<word>[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)
  | (?P<number>\d+(?:\.\d+)?\w*)
  | (?P<meta>\\[^\n]*)
  | (?P<space>\s+)
  | (?P<operator>(?=OP*[~!@\#%^&|`?])OP+ | OP*(?!/\*)[*/<>=] | ::|:=)
  | (?P<other>.)
    """.replace("OP", r"(?:(?!--|/\*)[-+*/<>=~!@\#%^&|`?])"),
    re.VERBOSE | re.DOTALL | re.ASCII,
)
COMMENT_EDGE = re.compile(r"/\*|\*/")
END_OF_DATA = re.compile(r"^\\\.\r?$", re.MULTILINE)


class Token(NamedTuple):
    """One word, quoted text, number, operator or other sign, with its offset."""

    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class Statement:
    """One statement, or one psql metacommand (`\\…`), of a text.

    `source` is as written; `text` has its comments removed and every gap made one blank; `bare` has one blank between
    any two tokens and its strings emptied, for looking at what the statement does. `line` counts from 1, `start` and
    `end` are offsets.
    """

    line: int
    start: int
    end: int
    source: str
    text: str
    bare: str


def statements(text: str) -> Iterator[Statement]:
    """Yield the statements of `text`: parted by `;` outside quotes, comments, parentheses and BEGIN ATOMIC bodies."""
    parts: list[Token] = []
    parentheses = blocks = 0
    for token in _tokens(text):
        if token.kind == "meta":
            yield from _statement(text, token.at, parts)
            yield from _statement(text, token.at + len(token.text), [token])
            parts = []
        elif token.text == ";" and not parentheses and not blocks:
            yield from _statement(text, token.at + 1, parts)
            parts = []
        else:
            parts.append(token)
            if token.text in "()":
                parentheses = max(0, parentheses + (1 if token.text == "(" else -1))
            elif not parentheses:
                blocks += _deeper(parts, blocks)
            continue
        parentheses = blocks = 0
    yield from _statement(text, len(text), parts)


def code(text: str) -> str:
    """Return `text` without comments, one blank between any two tokens: equal for what PostgreSQL reads alike."""
    return " ".join(token.text for token in _tokens(text))


def _tokens(text: str) -> Iterator[Token]:
    """Yield the tokens; space, comments, and the data after `COPY … FROM stdin;`, are passed over."""
    position = 0
    words: list[str] = []
    while position < len(text):
        found = TOKEN.match(text, position)
        assert found is not None and found.lastgroup is not None, "the last alternative takes any character"
        token, position = Token(found.lastgroup, found.group(), position), found.end()
        if token.text == "/*":
            position = _end_of_comment(text, position)
        if token.kind in ("comment", "space"):
            continue
        yield token
        if token.kind == "word":
            words.append(token.text.lower())
        elif token.text == ";":
            if words[:1] == ["copy"] and "stdin" in words:
                position = _end_of_data(text, position)
            words = []


def _end_of_data(text: str, position: int) -> int:
    end = END_OF_DATA.search(text, position)
    return end.start() if end else len(text)


def _end_of_comment(text: str, position: int) -> int:
    """Return where the comment ends whose `/*` ends at `position`; they nest."""
    depth = 1
    while depth and (edge := COMMENT_EDGE.search(text, position)):
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return position if not depth else len(text)


def _deeper(parts: list[Token], blocks: int) -> int:
    """Return by how much the last of `parts` opens or closes a BEGIN ATOMIC body, in which CASE has its END too."""
    word = parts[-1].text.lower()
    if word == "atomic" and parts[0].text.lower() == "create" and parts[-2].text.lower() == "begin":
        return 1
    return {"case": 1, "end": -1}.get(word, 0) if blocks else 0


def _statement(text: str, end: int, parts: list[Token]) -> Iterator[Statement]:
    """Yield the statement that `parts` are, or nothing without any."""
    if not parts:
        return
    start, written, behind = parts[0].at, "", parts[0].at
    for part in parts:
        written += f"{' ' if part.at > behind else ''}{part.text}"
        behind = part.at + len(part.text)
    bare = " ".join("''" if part.kind == "quoted" and part.text[0] != '"' else part.text for part in parts)
    line, source = text.count("\n", 0, start) + 1, text[start:end].rstrip()
    yield Statement(line, start, end, source, written.rstrip(), bare.rstrip())
