"""Output for people: one line a step, tables where they compare, colour only on a terminal."""

import shlex
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby

from rich.console import Console
from rich.prompt import Confirm
from rich.status import Status
from rich.table import Table
from rich.text import Text

from release_tasks.errors import Problem, Refused, counted
from release_tasks.masks import mask, masked_json
from release_tasks.outcome import PASSED, WAIVED, Outcome, Result, all_pass

COLOURS = dict(done="green", changed="bold green", planned="cyan", pending="dim", refused="bold red", manual="yellow")
WIDE_ENOUGH = 4000  # columns, where no terminal breaks the lines


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # rich itself would end us without a word


_console = _Console(highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE_ENOUGH)
# Is it one? rich also draws where CI sets FORCE_COLOR.
_stderr = Console(highlight=False, emoji=False, soft_wrap=True, stderr=True, force_terminal=sys.stderr.isatty())
_spinners: list[Status] = []


def say(text: str = "", style: str = "") -> None:
    """Print `text`, secrets masked, as it is."""
    _console.print(Text(mask(text), style))


def _prose(before: str | tuple[str, str], *text: str | tuple[str, str]) -> None:
    """Print `text` after `before`, on a terminal broken between words, and the lines that follow below it."""
    start = Text.assemble(before)
    width = max(_console.width - start.cell_len, 20) if _console.is_terminal else WIDE_ENOUGH
    for line in Text.assemble(*text).wrap(_console, width):
        _console.print(start + line)
        start = Text(" " * start.cell_len)


def step(outcome: Outcome, first: bool) -> None:
    """Print one line for a step: its state, what it is, what it would change or changed; `first` below the heading."""
    if first:
        say()
        say(outcome.section, "bold")
    state = (f"  {outcome.state:<8} ", COLOURS[outcome.state])
    text = f"  {mask(outcome.text)}" if outcome.text else ""
    _prose(state, f"{outcome.step}.", (text, "dim"))


def summary(outcomes: Iterable[Outcome]) -> None:
    """Print one line for each section that was checked: how many steps are in which state."""
    for section, own in groupby(outcomes, lambda outcome: outcome.section):
        counts = Counter(outcome.state for outcome in own)
        say(f"  checked {section}: {_counted(counts)}", "bold red" if counts["refused"] else "")


def refusals(outcomes: Iterable[Outcome]) -> None:
    """Print all that was refused: where, what was found and expected, and the command that fixes it."""
    found: dict[Problem, Outcome] = {}
    for seen in outcomes:
        for problem in seen.problems:
            found.setdefault(problem, seen)  # one cause refuses many steps; say it once
    say()
    say(f"Refused, {counted(len(found), 'problem')}:", "bold red")
    for problem, seen in found.items():
        say()
        say(f"  {seen.section} · {seen.step}", "bold")
        problems([problem])


def json_only(silent: bool) -> None:
    """From now on say everything on the error stream: the other one is for JSON alone."""
    _console.stderr = silent


def as_json(found: object) -> None:
    """Print `found` as JSON, for machines, whatever encoding the output has."""
    print(masked_json(found, indent=2, ensure_ascii=True))


def problems(found: Iterable[Problem]) -> None:
    for problem in found:
        for line in problem.what.splitlines():
            _prose("  ", mask(line))
        for line in problem.hint.splitlines():
            say(f"      {line}", "cyan")


def finished(outcomes: list[Outcome], summary: str) -> None:
    """Print the last line of a run that nothing stopped."""
    counts = Counter(seen.state for seen in outcomes)
    say(f"\n{summary}: {counted(len(outcomes), 'step')}, {_counted(counts)}.", "bold green")


def bug(error: Exception) -> None:
    """Print an error that nobody foresaw, with its traceback masked: this one is for the layer's authors."""
    say("".join(traceback.format_exception(error)))
    say(f"This is a mistake in the release layer, not in your release: {type(error).__name__}. Please report it with")
    say("the lines above. What is done stays done.")


def table(title: str, columns: list[str], rows: Iterable[Iterable[object]]) -> None:
    """Print rows that people compare: a table on a terminal, the same in plain lines elsewhere."""
    heading = Text(mask(title), "bold") if title else None
    drawn = Table(*columns, title=heading, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        drawn.add_row(*(Text(mask(str(cell))) for cell in row))
    if _console.is_terminal:
        return _console.print(drawn)
    with _console.capture() as printed:
        _console.print(drawn)
    for line in printed.get().splitlines():
        _console.print(Text(line.rstrip()))


def report(title: str, results: Sequence[Result], json: bool, *how: str) -> None:
    """Show results as a table, or as JSON. Raises `Refused` with the problems of those that are no pass."""
    rows = [(it.name, it.outcome, f"{it.seconds:.1f} s", it.message or "; ".join(it.observed[:3])) for it in results]
    passed, waived = (sum(it.outcome == outcome for it in results) for outcome in (PASSED, WAIVED))
    title += f": {passed} of {len(results)} pass{f', {waived} waived' if waived else ''}"
    if json:
        as_json(results)
    else:
        table(title, ["check", "outcome", "time", "observed"], rows)
    all_pass(results, *how, shlex.join(["inv", *sys.argv[1:]]))


@contextmanager
def busy(doing: str) -> Iterator[None]:
    """Show what takes longer than a second, on the error stream: a spinner on a terminal, else one plain line."""
    line = Text(f"  …        {mask(doing)}", "dim")
    with ExitStack() as stack:
        if _stderr.is_terminal:
            _spinners.append(stack.enter_context(_stderr.status(line)))
            stack.callback(_spinners.pop)
        else:
            timer = threading.Timer(1.0, _stderr.print, [line])
            timer.daemon = True
            timer.start()
            stack.callback(timer.cancel)
        yield


@contextmanager
def handed_over() -> Iterator[None]:
    """Leave the terminal to a person, or to their editor, for the block; where output goes to a file, ask beside it."""
    before, _console.stderr = _console.stderr, _console.stderr or not sys.stdout.isatty()
    for spinner in _spinners:
        spinner.stop()
    try:
        yield
    finally:
        _console.stderr = before
    for spinner in _spinners:
        spinner.start()


def need_a_terminal(what: str, hint: str) -> None:
    """Raise `Refused` where there is no terminal at which a person could confirm `what`."""
    if not (sys.stdin and sys.stdin.isatty()):
        raise Refused(f"{what} needs a typed confirmation, and there is no terminal to ask at.", hint)


def confirm_by_typing(where: str, wanted: str, lines: Iterable[str], hint: str) -> None:
    """Show `lines`, and let a person type `wanted`, before `where` changes. Raises `Refused` where they do not."""
    prompt, typed = f"  Type {wanted} to go on: ", ""
    with handed_over(), suppress(EOFError):
        for line in lines:
            _prose("  ", mask(line))
        typed = (_console.input(prompt) if _console.stderr else input(prompt)).strip()
    if typed != wanted:
        raise Refused(f"Not confirmed: found {typed!r}, expected {wanted}; {where} is as it was. Go on with:", hint)


def confirm(what: str) -> bool:
    """Ask the person at the terminal whether `what`, which was shown last, is done; the end of the input is a no."""
    with handed_over(), suppress(EOFError):
        question = f"{what}: done?" if _console.stderr else "           Done?"
        return Confirm.ask(question, console=_console, default=False)
    return False


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items())
