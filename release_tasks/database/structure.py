"""What a database consists of, as pg_dump writes it: an object for each entry of the dump; what differs between two.

Left out is what says nothing of what the database does: comments, the order of columns, tablespaces, who granted, and
owners, except those of views and SECURITY DEFINER functions: they decide whose rights are used.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from release_tasks.database import programs
from release_tasks.errors import Refused

MISSING, DIFFERS, EXTRA = "missing", "differs", "extra"
FLAGS = ("--schema-only", "--no-comments", "--no-security-labels", "--no-tablespaces")
ENTRY = re.compile(r"^--\n-- Name: (.*); Type: (.*); Schema: (.*); Owner: (.*)\n--\n", re.MULTILINE)
STATEMENT = re.compile(r"^(CREATE|ALTER|GRANT|REVOKE|COMMENT) ", re.MULTILINE)
NOISE = re.compile(r"^(SET .*;|\\(un)?restrict .*|--.*|ALTER .* OWNER TO .*;)$")
UNORDERED = ("table", "foreign-table", "acl", "default-acl", "sequence")
SAME = {"SEQUENCE OWNED BY": "sequence", "ROW SECURITY": "table", "TABLE ATTACH": "table", "INDEX ATTACH": "index"}
WHOLES = ("table", "view", "materialized-view", "foreign-table")
PARTS = ("constraint", "fk-constraint", "default", "index", "trigger", "rule", "acl", "sequence", "statistics")
# `x in ('a', 'b')` on a varchar, as it is written at first, and after a dump and restore.
RESTORED = re.compile(r"\(('(?:[^']|'')*'::character varying)\)::text|\((ARRAY\[[^\]]*\])\)::text\[\]")
OPTION = re.compile(r"[^,'\s](?:[^,']|'[^']*')*")
OPTIONS = re.compile(r"\bWITH \(([^()]*)\)")
NAME = r'(?:"(?:[^"]|"")*"|[^\s;"]+)'
ROLE = re.compile(rf"(?:CREATE|ALTER) ROLE ({NAME})")
MEMBERSHIP = re.compile(rf"GRANT ({NAME}) TO ({NAME})")
SECRET = re.compile(r"(password\s*=?\s*)'(?:[^']|'')*'", re.IGNORECASE)


@dataclass(frozen=True)
class Structure:
    """The objects of a database: "table s.t" → its owner, then its lines; `role` is who applies the pack here."""

    role: str
    objects: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """One object and `how` it differs: missing, extra, or the lines that were expected and those that were found."""

    name: str
    how: str
    expected: tuple[str, ...] = ()
    found: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return self.name.partition(" ")[0]

    @property
    def detail(self) -> str:
        """The lines that differ, shortened; secrets are left out."""
        lines = [*(f"- {line}" for line in self.expected), *(f"+ {line}" for line in self.found)]
        short = [SECRET.sub(r"\1***", line if len(line) <= 120 else f"{line[:119]}…") for line in lines]
        return "; ".join(short[:6]) + (f"; and {len(short) - 6} more" if len(short) > 6 else "")

    def __str__(self) -> str:
        words = {MISSING: "is missing", EXTRA: "was made by no file", DIFFERS: f"differs: {self.detail}"}
        return f"{self.name} {words[self.how]}"


def read(dsn: str, where: str = "", role: str = "", roles: bool = True) -> Structure:
    """Return what the database `dsn` of the environment `where` consists of, with the server's roles if wanted.

    `role` is who applies the pack there, if it is not the role of `dsn`. Raises `Refused`, also where pg_dump's format
    is not the one that is expected.
    """
    major = programs.server_major(dsn, where)
    structure = Structure(role or programs.variables(dsn)["PGUSER"])
    head, *parts = ENTRY.split(programs.run("pg_dump", dsn, *FLAGS, major=major).stdout)
    if STATEMENT.search(head):
        raise Refused("pg_dump printed statements, but no object could be read: its format is another one.")
    for name, type_, schema, owner, body in zip(*[iter(parts)] * 5, strict=True):
        kind = SAME.get(type_, type_.lower().replace(" ", "-"))
        lines = list(_lines(body, structure.role))
        name = name.removeprefix(f"{type_} ")
        of = f"{name.partition(' ')[0].lower()} " if type_ == "ACL" else ""  # "TABLE t": of which kind of object
        name = name[len(of) :]
        here = structure.objects.setdefault(f"{kind} {of}{name if schema == '-' else f'{schema}.{name}'}", [owner])
        here += lines
        if kind in UNORDERED:
            here[1:] = sorted(here[1:])
    if roles:
        database = f"--database={programs.database_of(dsn)}"
        printed = programs.run("pg_dumpall", dsn, "--roles-only", "--no-role-passwords", database, major=major).stdout
        structure.objects.update(_roles(printed))
    return structure


def _lines(body: str, role: str) -> Iterator[str]:
    for line in (line.strip() for line in body.splitlines()):
        if not line or NOISE.match(line):
            continue
        line = RESTORED.sub(lambda found: found[1] or found[2], line)
        line = OPTIONS.sub(lambda found: f"WITH ({', '.join(sorted(OPTION.findall(found[1])))})", line)
        line = line.replace(f"ALTER DEFAULT PRIVILEGES FOR ROLE {role} ", "ALTER DEFAULT PRIVILEGES ")
        yield line.rstrip(",;")


def _roles(printed: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in printed.splitlines():
        if role := ROLE.match(line):
            found.setdefault(f"role {role[1]}", [""]).append(line)
        elif membership := MEMBERSHIP.match(line):
            line = re.sub(r" GRANTED BY .*", ";", line)
            found.setdefault(f"membership {membership[1]} to {membership[2]}", [""]).append(line)
    return {name: ["", *sorted(set(lines[1:]))] for name, lines in found.items()}


def differences(expected: Structure, found: Structure) -> list[Difference]:
    """Return what differs, in the order of the names; where a table is missing or extra, its parts are not listed."""
    differing = []
    for name in sorted(expected.objects.keys() | found.objects.keys()):
        was, now = _comparable(name, expected, found), _comparable(name, found, expected)
        if was == now:
            continue
        less, more = Counter(was) - Counter(now), Counter(now) - Counter(was)
        how = EXTRA if not was else MISSING if not now else DIFFERS
        moved = ("the order of its lines",) if not less and not more else ()
        differing.append(Difference(name, how, tuple(less), tuple(more) + moved))
    return sorted(_without_parts(differing), key=lambda each: each.name)


def _comparable(name: str, one: Structure, other: Structure) -> list[str]:
    """Return the lines of an object that count in a comparison; none where it is not there."""
    owner, *lines = one.objects.get(name, [""])
    if name.startswith("acl "):  # what an owner is granted says nothing: an owner may do all
        owners = {owner, other.objects.get(name, [""])[0]}
        return [line for line in lines if not any(line.endswith(f" TO {each}") for each in owners if each)]
    if lines and owner != one.role and (name.startswith("view ") or any("SECURITY DEFINER" in line for line in lines)):
        return [*lines, f"owner {owner}"]
    return lines


def _without_parts(differing: list[Difference]) -> Iterator[Difference]:
    for how in (MISSING, EXTRA, DIFFERS):
        alike = [each for each in differing if each.how == how]
        gone = "|".join(re.escape(each.name.partition(" ")[2]) for each in alike if each.kind in WHOLES)
        part_of = re.compile(rf"(?<= )(?:{gone})(?![\w$])") if gone and how != DIFFERS else None
        for each in alike:
            lines = (*each.expected, *each.found)
            if not (part_of and each.kind in PARTS and any(map(part_of.search, lines))):
                yield each


def without(structure: Structure, table: str) -> Structure:
    """Return `structure` without the table `table` (schema.table) and its parts."""
    whole = re.compile(rf"(?<![\w$]){re.escape(table)}(?![\w$])")
    objects = {
        name: lines
        for name, lines in structure.objects.items()
        if not (name == f"table {table}" or (name.partition(" ")[0] in PARTS and any(map(whole.search, lines))))
    }
    return Structure(structure.role, objects)
