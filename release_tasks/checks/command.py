"""A program, run where the release's code is: it passes with exit code 0, its mark, and no sign of trouble."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from release_tasks.checks.verdict import ROWS, Seen
from release_tasks.processes import shell

if TYPE_CHECKING:
    from release_tasks.checks.place import Asked, Place
    from release_tasks.kinds import Command


def look_at_command(check: Command, place: Place, seen: Seen, asked: Asked) -> list[str]:
    """Run the program, and return what is wrong with how it ended and what it printed."""
    seen["command"] = check.command
    try:
        ran = shell.run(
            check.command,
            cwd=Path(place.folder),
            env={**place.variables, **asked.variables},
            timeout=check.timeout,
            check=False,
            leash=True,
        )
    except shell.CommandFailed as late:
        seen["code"], seen["last_lines"] = late.finished.code, late.finished.tail(ROWS)
        return [f"It did not end within {check.timeout:g} s; it said: {late.finished.tail(3) or 'nothing'}"]
    seen.update(code=ran.code, last_lines=ran.tail(ROWS), in_words=ran.tail(1))
    return list(_wrong(check, ran))


def _wrong(check: Command, ran: shell.Finished) -> Iterator[str]:
    if ran.code:
        yield f"It ended with exit code {ran.code}; it said: {ran.tail(5) or 'nothing'}"
    elif not re.search(check.must_print, ran.output):
        yield f"It ended with exit code 0, but did not print {check.must_print!r}; it said: {ran.tail(1) or 'nothing'}"
    for pattern in check.must_not_print:
        lines = [line for line in ran.output.splitlines() if re.search(pattern, line)]
        if lines and not ran.code:
            yield f"It printed what it must not, {pattern!r}: {shell.mask(lines[0])}"
