"""The application's own runner of the DDL pack: what it printed, and what only the server's log got meanwhile."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from release_tasks.database.pack import DdlFile, mention_of
from release_tasks.database.psql import Applied, Message
from release_tasks.errors import Refused
from release_tasks.processes import shell
from release_tasks.settings import Ddl

PRINTED = re.compile(r"\b(NOTICE|WARNING|ERROR|FATAL|PANIC)\b[:\s]*(.*)")
LOGGED = re.compile(r"\b(WARNING|ERROR|FATAL|PANIC): +(.*)")
SERVER_LOG = "the pack (server log)"  # no line of the log says of which file it is


def run(
    pack: Sequence[DdlFile], ddl: Ddl, folder: Path, variables: Mapping[str, str], server_log: Path | None
) -> list[Applied]:
    """Run the application's own runner in `folder` with `variables`, and check what it prints.

    It passes with exit code 0, `must_print`, and the files that it names in the locked order. What only the server's
    log got meanwhile, from WARNING on, comes last, as of no file. Raises `Refused`.
    """
    if not pack:
        return []
    printable, names = " ".join(ddl.command), [file.name for file in pack]
    log = server_log if server_log and server_log.exists() else None
    offset = log.stat().st_size if log else 0
    ran = shell.run(ddl.command, cwd=folder, env=variables, timeout=ddl.timeout, leash=True)
    if not re.search(ddl.must_print.replace("{count}", rf"(?<!\d){len(pack)}(?!\d)"), ran.output):
        raise Refused(
            f"{printable} ended without an error, but did not print "
            f"{ddl.must_print.replace('{count}', str(len(pack)))!r}: "
            f"expected it to apply {len(pack)} files. It printed: {ran.tail(3)}",
            "Run it by hand with --dry-run and compare with the order lock.",
        )
    named = list(dict.fromkeys(mention_of(names).findall(ran.stdout)))
    if len(named) == len(names) and named != names:
        found, instead = next(pair for pair in zip(named, names, strict=True) if pair[0] != pair[1])
        raise Refused(
            f"{printable} applied the files in another order than the locked one: {found} before {instead}.",
            "Let release.ddl.order in invoke.yaml say how the runner sorts.",
        )
    applied = _by_file(pack, ran.output.splitlines())
    printed = [warning.text for each in applied for warning in each.warnings]
    logged = [each for each in _logged_since(log, offset) if not any(each.text in text for text in printed)]
    if logged:
        applied.append(Applied(DdlFile(SERVER_LOG, b""), messages=logged))
    return applied


def _logged_since(log: Path | None, offset: int) -> list[Message]:
    if not log:
        return []
    with log.open("rb") as file:
        file.seek(offset if log.stat().st_size >= offset else 0)
        lines = file.read().decode(errors="replace").splitlines()
    return [Message("", 0, found[1], "", found[2]) for line in lines if (found := LOGGED.search(line))]


def _by_file(pack: Sequence[DdlFile], lines: Iterable[str]) -> list[Applied]:
    """Give each NOTICE and WARNING among `lines` to the file that was named last."""
    applied = {file.name: Applied(file) for file in pack}
    owner, mention = next(iter(applied.values())), mention_of(applied)
    for line in lines:
        if named := mention.search(line):
            owner = applied[named.group()]
        if found := PRINTED.search(line):
            text = found[2].removeprefix(owner.file.name).lstrip(": ") or line.strip()
            owner.messages.append(Message("", 0, found[1], "", text))
    return list(applied.values())
