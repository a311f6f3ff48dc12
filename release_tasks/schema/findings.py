"""What can be read from a DDL pack's text: what only psql can run, or no transaction, or nobody a second time.

Looked at are the words of a statement, outside its strings and parentheses; only for passwords a DO is read as a whole,
for that is where packs make roles. What is overlooked here, the proof on a scratch server meets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from release_tasks.schema import ddl
from release_tasks.schema.sending import shortened

META, TRANSACTION, ALONE, PASSWORD = "metacommand", "transaction", "no-transaction", "password"
DROP, TWICE, IRREVERSIBLE = "drop", "twice", "irreversible"
BLOCKING = (META, ALONE, PASSWORD)
MENDS = {
    META: "Write it in SQL.",
    TRANSACTION: "Take it out: a file is applied in one transaction.",
    ALONE: "Give the file the line: -- release: no-transaction",
    PASSWORD: "Take it out and set another by hand: whoever reads the repository knows this one.",
    TWICE: "Write IF NOT EXISTS or OR REPLACE, or DROP … IF EXISTS before it.",
}

# As PostgreSQL's reference says of each command; besides, all but a REFRESH cannot when it is CONCURRENTLY.
NO_TRANSACTION = "vacuum, alter system, create database, drop database, create tablespace, drop tablespace"
LOSING = "truncate, drop table, drop schema, drop type, drop domain, drop sequence, drop extension, drop owned"
ROLES = "do, create role, create user, create group, alter role, alter user, alter group"
CONSTRAINTS = ("constraint", "primary", "unique", "check", "foreign", "exclude")

WORD = re.compile(r'(?:"[^"]*"|[^\s"])+')
SECRET = re.compile(r"\bpassword\b.*", re.IGNORECASE | re.DOTALL)
ROLE_WITH_PASSWORD = re.compile(  # ends in a literal's first letter: so not in '' || …, %L or null
    r"\b((?:create|alter)\s+(?:role|user|group)\s+(?:\"[^\"]*\"|[\w%]+))[^;]*?\bpassword\s*[eu&]*['$]+[^'$%|\s]",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Finding:
    """A statement: where it begins, the rule it meets, what that means, and whether it stands in a release's way."""

    path: str
    line: int
    rule: str
    what: str
    blocks: bool
    mend: str

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.what}"


def findings_in(pack: list[ddl.DdlFile]) -> list[Finding]:
    """Return what the text of `pack` lets one foresee, in the order in which it stands there."""
    return [
        Finding(file.path, line, rule, what, rule in BLOCKING, MENDS.get(rule, ""))
        for file in pack
        for line, rule, what in _read(file)
        if not (rule == ALONE and file.wants_no_transaction)
    ]


def _read(file: ddl.DdlFile) -> Iterator[tuple[int, str, str]]:
    dropped: set[str] = set()
    for statement in file.statements:
        words = _words(statement.bare)
        for rule, what in (*_of_statement(statement.bare, words, dropped), *_of_actions(words)):
            yield statement.line, rule, f"{what}: {_shown(statement.bare)}"
        for found in ROLE_WITH_PASSWORD.finditer(statement.source) if _begins(words, ROLES) else ():
            line = statement.line + statement.source.count("\n", 0, found.start())
            yield line, PASSWORD, f"{' '.join(found[1].split())} has a password in it"
        if words[:1] == ["drop"] and "exists" in words:
            dropped |= _dropped(words)


def _of_statement(bare: str, words: list[str], dropped: set[str]) -> Iterator[tuple[str, str]]:
    """Yield the rules that a statement meets and the words for them, where the names in `dropped` are gone already."""
    if bare.startswith("\\"):
        yield META, "only psql knows metacommands"
    if ddl.TRANSACTION_CONTROL.match(bare):
        yield TRANSACTION, "its own transaction: what a failure leaves is the file's affair"
    if _begins(words, NO_TRANSACTION) or ("concurrently" in words and _begins(words, "create, drop, alter, reindex")):
        yield ALONE, "it cannot run in a transaction"
    if _begins(words, "drop") and "exists" not in words and words[1:2] != ["owned"]:
        yield DROP, "DROP without IF EXISTS"
    again = "if not exists" in " ".join(words) or _begins(words, "create or replace, create temp, create temporary")
    if _begins(words, "create") and not again and not dropped & _names(words):
        yield TWICE, "it cannot be applied twice"
    if _begins(words, LOSING):
        yield IRREVERSIBLE, "it loses what is there"
    if _begins(words, "delete from, update") and "where" not in words:
        yield IRREVERSIBLE, "without WHERE it is about every row"


def _of_actions(words: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the same for what an ALTER adds, drops and alters."""
    for part in " ".join(words[2:]).split(" , ") if _begins(words, "alter table, alter type") else ():
        found = re.search(r"\b(add|drop|alter)( column| attribute)? (.+)", part)
        verb, rest = (found[1], found[3].split()) if found else ("", [])
        if verb == "drop" and "exists" not in rest:
            yield DROP, "DROP without IF EXISTS"
        if verb == "drop" and rest[0] != "constraint":
            yield IRREVERSIBLE, "DROP COLUMN loses what is there"
        if verb == "add" and rest[0] not in CONSTRAINTS and "if not exists" not in part:
            yield TWICE, "ADD without IF NOT EXISTS"
        if verb == "alter" and (rest[1:2] == ["type"] or rest[1:4] == ["set", "data", "type"]):
            yield IRREVERSIBLE, "ALTER COLUMN TYPE converts what is there"


def _words(bare: str) -> list[str]:
    """Return a statement's words in lower case, a name with its schema as one, without what parentheses hold."""
    words, depth = [], 0
    for word in WORD.findall(bare.lower().replace(" . ", ".")):
        depth += {"(": 1, ")": -1}.get(word, 0)
        if depth <= 0 and word != ")":
            words.append(word.replace(" ", "_"))
    return words


def _begins(words: list[str], phrases: str) -> bool:
    return any(words[: len(phrase.split())] == phrase.split() for phrase in phrases.split(","))


def _dropped(words: list[str]) -> set[str]:
    """Return what a DROP … IF EXISTS names; a trigger or a policy as `name on table`."""
    parts = " ".join(words[words.index("exists") + 1 :]).split(" , ")
    return {" ".join(part.split()[: 3 if " on " in part else 1]) for part in parts}


def _names(words: list[str]) -> set[str]:
    """Return what to drop so that this CREATE can be repeated: a name in it, its schema, or `name on table`."""
    table = " ".join(words[words.index("on") :][:2]) if "on" in words else ""
    return {name for word in words for name in (word, word.rpartition(".")[0], f"{word} {table}")}


def _shown(bare: str) -> str:
    """Return a statement to be shown: without its strings, and nothing of what may be a secret."""
    return bare.split()[0] if bare.startswith("\\") else shortened(SECRET.sub("password …", bare.replace(" . ", ".")))
