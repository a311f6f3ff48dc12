"""A DDL pack as a script for psql, which a DBA can read and run by hand, and what psql printed while it ran."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from psycopg.sql import quote

from release_tasks.database import programs, structure
from release_tasks.database.pack import DdlFile
from release_tasks.errors import Problem, Refused
from release_tasks.settings import Ddl

SLACK = 60.0  # seconds for psql beyond the time limit of a statement
RETRIED = ("55P03", "40P01")  # lock not available, deadlock detected
SCRIPT = "apply.sql"
PARTS = Path(__file__).with_name(SCRIPT).read_text(encoding="utf-8")
_, SETTINGS, LOCK, LEDGER, FILE, DROP_INVALID = re.split(r"(?m)^-- part: .*\n", PARTS)
NAMED = re.compile(r'"((?:[^"\n]|"")+)"|[^\W\d][\w$]*')  # identifiers in SQL, quoted or not
BEGUN = re.compile(r"^release: (.+)$", re.MULTILINE)
# psql's message, with PostgreSQL's severity and SQLSTATE where it is the server's; of its fields, DETAIL is kept.
MESSAGE = re.compile(
    r"""^psql:(?P<path>[^\n]+?):(?P<line>\d+):\ (?!warning:)(?:error:\ )?(?:(?P<severity>\w+):\ \ (?P<state>\w{5}):\ )?
    (?P<text>.*(?:\n(?!psql:|LINE\ \d|[A-Z ]+:\ \ ).*)*)
    (?:\n(?!psql:|DETAIL:).*)*(?:\nDETAIL:\ \ (?P<detail>.*))?""",
    re.MULTILINE | re.VERBOSE,
)
HARMLESS = ("NOTICE", "INFO", "LOG", "DEBUG")


@dataclass(frozen=True)
class Ran:
    """Outcome of psql: warnings; where a file failed, why, the files after it, and whether all may be tried again."""

    warnings: list[str]
    problems: tuple[Problem, ...] = ()
    rest: Sequence[DdlFile] = ()
    can_be_retried: bool = False


def script(pack: Sequence[DdlFile], ddl: Ddl, version: str, watch: str = "") -> str:
    """Return the script that applies `pack` (not empty); it lies in the folder from where the files' paths begin.

    `watch` is SQL that is run in the transaction of each file, whose path is then the setting release.file.
    """
    parts = [SETTINGS.format(options=options(ddl)), LOCK, ledger(pack, ddl)]
    for file in pack:
        end = f"{watch}{entries([file], ddl, version)}"
        if file.in_transaction:  # and stays in ours: a file that has committed has no savepoint any more
            begin, end = "begin; savepoint release_file;\n", f"release savepoint release_file;\n{end}commit;\n"
        else:
            names = NAMED.finditer(file.content.decode(errors="replace"))
            named = {found[1].replace('""', '"') if found[1] else found[0].lower() for found in names}
            begin = DROP_INVALID.format(names=", ".join(map(quote, sorted(named))))
        parts.append(FILE.format(path=file.path, quoted=quote(file.path), begin=begin, end=end))
    return "".join(parts)


def ledger(pack: Sequence[DdlFile], ddl: Ddl) -> str:
    """Return the SQL that makes the ledger, and lets all of `pack` count as unapplied: a killed run is seen as such."""
    paths = ", ".join(quote(file.path) for file in pack)
    return LEDGER.format(ledger=ddl.ledger, schema=ddl.ledger.partition(".")[0], paths=paths)


def entries(pack: Sequence[DdlFile], ddl: Ddl, version: str) -> str:
    """Return the SQL that enters `pack` into the ledger."""
    values = (f"({quote(file.path)}, {quote(file.sha256)}, {quote(version)})" for file in pack)
    return f"insert into {ddl.ledger} (file, sha256, version) values {', '.join(values)};\n"


def options(ddl: Ddl, given: str = "") -> str:
    """Return PGOPTIONS with the timeouts of the settings and what is `given`, for the clients of libpq."""
    return f"-c lock_timeout={ddl.lock_timeout * 1000:.0f} -c statement_timeout={ddl.timeout * 1000:.0f} {given}"


def run(dsn: str, pack: Sequence[DdlFile], ddl: Ddl, version: str, where: str, watch: str = "") -> Ran:
    """Apply `pack` to the database `dsn` of `where` by one psql, up to the first error. Raises `Refused`."""
    with TemporaryDirectory(prefix="release-ddl-") as name:
        folder = Path(name)
        contents = {SCRIPT: script(pack, ddl, version, watch).encode(), **{file.path: file.content for file in pack}}
        for path, content in contents.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        env = {"PGOPTIONS": options(ddl, programs.variables(dsn)["PGOPTIONS"]), "LC_MESSAGES": "C"}
        argv = ("--no-psqlrc", "--quiet", "--file", folder / SCRIPT)
        ran = programs.run("psql", dsn, *argv, env=env, timeout=ddl.timeout + SLACK, check=False)
    begun, warnings, error = BEGUN.findall(ran.stdout), list[str](), dict[str, str]()
    for found in MESSAGE.finditer(ran.stderr.replace(f"psql:{folder.as_posix()}/", "psql:")):
        text = ": ".join(" ".join(part.split()).rstrip(".") for part in (found["text"], found["detail"]) if part)
        if (found["state"] or "")[:2] == "01" or found["severity"] == "WARNING":
            warnings.append(f"{found['path']}: WARNING: {text}")
        elif found["severity"] not in HARMLESS and (found["state"] or "")[:2] != "00":  # of any language
            error = error or {**found.groupdict(), "text": text}
    if ran.code == 0:
        with programs.connect(dsn, where) as connection:
            entered = [file for (file,) in connection.execute(f"select file from {ddl.ledger}").fetchall()]
        if not (lost := [path for path in begun if path not in entered]):
            return Ran(warnings)
        what = f"{lost[0]} leaves a transaction open, or the database by \\connect: nothing from it on was kept."
        return Ran(warnings, (Problem(what, f"Fix {lost[0]}."),), pack[begun.index(lost[0]) + 1 :])
    if not error:
        raise Refused(f"psql ended with exit code {ran.code}: {ran.tail(3)}", "Run the same command again.")
    file = pack[len(begun) - 1] if begun else None
    problem = _problem(error, file.path if file else "", where, ddl, lost=ran.code == 2)  # psql's: the line was cut
    again = error["state"] in RETRIED and (not file or file.in_transaction)  # else what it has left would be left again
    return Ran(warnings, (problem,), pack[len(begun) :] if file else (), again)


def _problem(error: Mapping[str, str], file: str, where: str, ddl: Ddl, lost: bool) -> Problem:
    """Return why psql stopped: file, line, message and SQLSTATE, and what to do about it."""
    marker = f"Take COMMIT and the like out; or write -- release: no-transaction into {file}, on a line of its own."
    hints = {
        **dict.fromkeys(("25001", "25P01", "2D000", "3B001"), marker),
        **dict.fromkeys(RETRIED, programs.HOLDERS),
        "25P04": "alter database … reset transaction_timeout   # or of the role; then run again",
        "42501": "Grant what is missing, or let the owner of the database release; then run again.",
        "42883": f"Fix {file}, or use the version of PostgreSQL that it is written for.",
        "55006": "Wait for it to end, then run again.",
        "57014": f"Run again; where it needs more than {ddl.timeout:g} s, set release.ddl.timeout.",
    }
    fix = f"Fix {file}; once the tag is published, a fix is a new version." if file else f"See what {ddl.ledger} is."
    hint = hints.get(error["state"], "Run the same command again." if lost else fix)
    at = f"{file}, line {error['line']}" if error["path"] == file else file
    state = f" (SQLSTATE {error['state']})" if error["state"] else ""
    what = f"{at or f'The DDL pack was not applied to {where}'}: {error['text']}{state}."
    return Problem(what, hint)


def run_each(dsn: str, pack: Sequence[DdlFile], ddl: Ddl, watch: str = "") -> tuple[list[str], list[Problem]]:
    """Apply each file of `pack` on a scratch server, whatever becomes of others; return warnings, and what failed."""
    ours = ddl.model_copy(update={"ledger": f"{structure.OURS}.ledger"})
    warnings, failed, rest = list[str](), list[Problem](), pack
    while rest:
        ran = run(dsn, rest, ours, "proof", "the scratch server", watch)
        warnings += ran.warnings
        failed += ran.problems
        rest = ran.rest
    return warnings, failed
