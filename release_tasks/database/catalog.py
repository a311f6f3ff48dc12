"""What a database consists of, read from its catalogs, and what differs between two of them.

An object has a name such as `table market.klines` or `column market.klines.open`, and a definition that is equal where
PostgreSQL would do the same. Left out is what says nothing of that: owners, comments, the order of columns, what
belongs to an extension, what PostgreSQL brings (PostgreSQL, "System Catalogs"). Two major versions may write one
definition in two ways, so only servers of the same one are compared for certain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from release_tasks.database import sql

if TYPE_CHECKING:
    from psycopg import Connection

Objects = dict[str, str]  # name → definition

MISSING, DIFFERS, EXTRA = "missing", "differs", "nobody's"
PARTS = ("column", "constraint", "index", "trigger", "rule", "policy")
SERVER_S = ("role", "membership")  # of the whole server, not of one database
OWNER = "owner"  # the definition of what an owner may do: all, and who that is makes no difference

QUERY = Path(__file__).with_suffix(".sql")
# What PostgreSQL writes of an object depends on these (PostgreSQL, "Client Connection Defaults"); to compile the query
# (jit) would take it ten times as long as to run it.
READING = {
    "jit": "off",
    "search_path": "",
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "quote_all_identifiers": "off",
}
WORD = re.compile(r'(?:"(?:[^"]|"")*"|[^"\s])+')
IDENTIFIER = re.compile(r'"(?:[^"]|"")*"|[^".]+')
SHOWN = 60  # characters of a definition, from shortly before where it differs


@dataclass(frozen=True)
class Difference:
    """One object and `how` it differs: it is missing, differs, or is nobody's (`expected` is then empty)."""

    name: str
    how: str
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        if self.how != DIFFERS:
            return f"{self.name} {'is missing' if self.how == MISSING else 'was made by no file'}"
        expected, found = self.apart
        return f"{self.name} differs: expected {expected or 'nothing'}; found {found or 'nothing'}"

    @property
    def apart(self) -> tuple[str, str]:
        """What was expected and what was found, in a line each that begins shortly before they part."""
        both = [" ".join(text.split()) for text in (self.expected, self.found)]
        common = next(
            (at for at, (one, other) in enumerate(zip(*both, strict=False)) if one != other), min(map(len, both))
        )
        start = max(0, common - SHOWN // 3) if max(map(len, both)) > SHOWN else 0
        cut = [f"{'…' * bool(start)}{text[start : start + SHOWN]}{'…' * (len(text) > start + SHOWN)}" for text in both]
        return cut[0], cut[1]


def read(connection: Connection) -> Objects:
    """Return every object of the database that `connection` is in, those of the whole server (roles) included."""
    return {name: definition for name, definition, _ in read_with_writers(connection)}


def read_with_writers(connection: Connection) -> list[tuple[str, str, int | None]]:
    """Return name, definition, and the id of the transaction that wrote it, as far as that can be read.

    Any role may read it all.
    """
    with connection.transaction():
        for setting, value in READING.items():
            connection.execute("select set_config(%s, %s, true)", [setting, value])
        rows = connection.execute(QUERY.read_bytes()).fetchall()
    return [
        (
            f"{kind} {name}",
            f"{definition}{f' as {sql.code(source)}' if source else ''}",
            int(writer) if writer else None,
        )
        for kind, name, definition, source, writer in sorted(rows, key=lambda row: (row[1], row[0]))
    ]


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[Difference]:
    """Return what differs, in the order of the names; where a whole is missing or extra, its parts are not told."""
    told = [
        *(Difference(name, MISSING, definition) for name, definition in expected.items() if name not in found),
        *(Difference(name, EXTRA, found=definition) for name, definition in found.items() if name not in expected),
        *(
            Difference(name, DIFFERS, definition, found[name])
            for name, definition in expected.items()
            if found.get(name, definition) != definition
        ),
    ]
    gone = {(each.how, _by_which_parts_name_it(each.name)) for each in told if each.how != DIFFERS}
    alone = [
        each
        for each in told
        if OWNER not in (each.expected, each.found)
        and (
            (each.how == EXTRA and kind_of(each.name) == "policy")  # who may see what is always told
            or not any((each.how, whole) in gone for whole in _wholes(each.name, each.expected or each.found))
        )
    ]
    return sorted(alone, key=lambda each: (object_of(each.name), each.name))


def kind_of(name: str) -> str:
    """Return the kind in an object's name: `table` of `table market.klines`."""
    return name.partition(" ")[0]


def object_of(name: str) -> str:
    """Return an object's name without its kind."""
    return name.partition(" ")[2]


def without(objects: Mapping[str, str], table: str) -> Objects:
    """Return `objects` without the table `table` (schema.table) and its parts."""
    return {
        name: definition
        for name, definition in objects.items()
        if name != f"table {table}" and table not in _wholes(name, definition)
    }


def _by_which_parts_name_it(name: str) -> str:
    return name if kind_of(name) in SERVER_S else object_of(name)


def _wholes(name: str, definition: str) -> Iterator[str]:
    """Yield that of which the object is a part, or without which it cannot be: a column's table, a grant's role."""
    kind, object_ = kind_of(name), object_of(name)
    if kind in ("grants", "membership"):
        to = WORD.findall(object_)[-1]
        what = object_.removesuffix(f" to {to}").removeprefix("on ")
        kind, object_ = kind_of(what), object_of(what)
        yield from (f"role {to}", f"role {what}", object_)
    if kind == "sequence":
        object_ = definition.partition(" owned by ")[2]
        yield object_
    if kind in (*PARTS, "sequence"):
        yield ".".join(IDENTIFIER.findall(object_)[:2])
