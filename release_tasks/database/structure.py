"""The structure of a database, as pg_dump writes it: an object for each entry of the dump; what differs between two.

Left out is what says nothing of what the database does: comments, the order of columns, tablespaces, who granted, and
owners, except those of views and SECURITY DEFINER functions: they decide whose rights are used.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from release_tasks.database import programs
from release_tasks.errors import Refused
from release_tasks.masks import short

Structure = dict[str, list[str]]  # "table s.t" → its lines

MISSING, CHANGED, NEW = "missing", "changed", "new"
OURS = "release_proof"  # the schema of a proof's own tables on a scratch server
FLAGS = ("--schema-only", "--no-comments", "--no-security-labels", "--no-tablespaces", f"--exclude-schema={OURS}")
ENTRY = re.compile(r"^--\n-- Name: (.*); Type: (.*); Schema: (.*); Owner: (.*)\n--\n", re.MULTILINE)
STATEMENT = re.compile(r"^(CREATE|ALTER|GRANT|REVOKE) ", re.MULTILINE)
NOISE = re.compile(r"SET default_\w+ = .*;|\\(un)?restrict .*|--.*|ALTER .* OWNER TO .*;|")
UNORDERED = ("table", "foreign-table", "acl", "default-acl", "sequence")
SAME = {"SEQUENCE OWNED BY": "sequence", "ROW SECURITY": "table", "TABLE ATTACH": "table", "INDEX ATTACH": "index"}
TABLES = ("table ", "view ", "materialized-view ", "foreign-table ")
PARTS = ("constraint ", "fk-constraint ", "default ", "trigger ", "acl ", "index ", "sequence ", "statistics ")
OWNER = re.compile(r"\b(?:ON TABLE|ON|FROM|OWNED BY|ALTER (?:FOREIGN )?TABLE)(?: ONLY)? ([\w$]+\.[\w$]+)")  # of a part
# `x in ('a', 'b')` on a varchar, as it is written at first, and after a dump and restore.
RESTORED = re.compile(r"\(('(?:[^']|'')*'::character varying)\)::text|\((ARRAY\[[^\]]*\])\)::text\[\]")
OPTION = re.compile(r"[^,'\s](?:[^,']|'[^']*')*")
OPTIONS = re.compile(r"\bWITH \(([^()]*)\)")
IDENTIFIER = r'(?:"(?:[^"]|"")*"|[^\s;"]+)'
ROLE = re.compile(rf"(?:(?:CREATE|ALTER) ROLE ({IDENTIFIER})|GRANT ({IDENTIFIER}) TO ({IDENTIFIER})).*")


@dataclass(frozen=True)
class Difference:
    """An object, how it differs, and the lines that differ: "-" is expected, "+" was found."""

    name: str
    how: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name} is {self.how}{self.detail and f': {self.detail}'}"


def read(dsn: str, where: str = "", *, role: str = "", roles: bool = True, without: str = "") -> Structure:
    """Return what the database `dsn` of the environment `where` consists of, with the server's roles if wanted.

    `role` is who applies the pack there, if it is not the role of `dsn`; `without` is a table. Raises `Refused`.
    """
    role = role or programs.variables(dsn)["PGUSER"]
    major = programs.server_major(dsn, where)
    how: dict[str, Any] = {"major": major, "supervised": False}  # it only reads, and soon ends by itself
    more = [f"--lock-wait-timeout={programs.LOCK_WAIT}", *([f"--exclude-table={without}"] if without else [])]
    dump = programs.run("pg_dump", dsn, *FLAGS, *more, **how).stdout
    head, *parts = ENTRY.split(dump)  # then four names and the body of each entry
    if STATEMENT.search(head):
        raise Refused("pg_dump printed statements, but no object could be read.", "pg_dump --version   # 15 to 18?")
    found = Structure()
    for name, type_, schema, owner, body in zip(*(parts[at::5] for at in range(5)), strict=True):
        name = name.removeprefix(f"{type_} ")
        kind = SAME.get(type_, type_.lower().replace(" ", "-"))
        if kind == "acl":  # its name is "TABLE t"
            of, _, name = name.partition(" ")
            kind = f"acl {of.lower()}"
        if kind.startswith(("acl", "default-acl")):
            body = body.replace('"', "")  # so that a role compares by its plain name
        lines = found.setdefault(f"{kind} {name if schema == '-' else f'{schema}.{name}'}", [])
        lines += _lines(body, role)
        if kind.partition(" ")[0] in UNORDERED:
            lines.sort()
        whose = kind in ("view", "materialized-view") or any("SECURITY DEFINER" in line for line in lines)
        if whose and owner != role:
            lines.append(f"its owner is {owner}")
    if roles:
        argv = ("--roles-only", "--no-role-passwords", f"--database={programs.variables(dsn)['PGDATABASE']}")
        for line in ROLE.finditer(programs.run("pg_dumpall", dsn, *argv, **how).stdout):
            name = f"role {line[1]}" if line[1] else f"membership {line[2]} to {line[3]}"
            found.setdefault(name, []).append(re.sub(r" GRANTED BY .*", ";", line[0]))
    return found


def _lines(body: str, role: str) -> Iterator[str]:
    for line in (line.strip() for line in body.splitlines()):
        if not NOISE.fullmatch(line):
            line = RESTORED.sub(lambda found: found[1] or found[2], line)
            line = OPTIONS.sub(lambda found: f"WITH ({', '.join(sorted(OPTION.findall(found[1])))})", line)
            line = line.replace(f"ALTER DEFAULT PRIVILEGES FOR ROLE {role} ", "ALTER DEFAULT PRIVILEGES ")
            yield line.rstrip(",;")


def differences(expected: Structure, found: Structure) -> list[Difference]:
    """Return what differs, in the order of the names; what belongs to a missing or new table goes by its name."""
    differing = []
    for name in sorted(expected.keys() | found.keys()):
        was, now = expected.get(name, []), found.get(name, [])
        if was != now:
            how = NEW if not was else MISSING if not now else CHANGED
            differing.append(Difference(name, how, _detail(was, now) if how == CHANGED else ""))
    tables = {f"{each.how} {each.name.partition(' ')[2]}" for each in differing if each.name.startswith(TABLES)}

    def is_part(each: Difference) -> bool:
        lines = "\n".join(expected.get(each.name) or found[each.name]).replace('"', "")
        owners = {f"{each.how} {owner}" for owner in OWNER.findall(lines)}
        return each.name.startswith(PARTS) and not tables.isdisjoint(owners)

    return [each for each in differing if each.how == CHANGED or not is_part(each)]


def _detail(was: list[str], now: list[str]) -> str:
    """Return the lines that differ, shortened; secrets are left out."""
    less, more = Counter(was) - Counter(now), Counter(now) - Counter(was)
    lines = [*(f"- {line}" for line in less), *(f"+ {line}" for line in more)] or ["+ the order of its lines"]
    rest = f"; and {len(lines) - 6} more" if len(lines) > 6 else ""
    return "; ".join(short(line, 120) for line in lines[:6]) + rest
