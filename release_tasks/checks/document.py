"""What the written process asks for: its list items, and the tests that are named like them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from release_tasks.errors import Problem, Refused

DOCUMENT = Path("docs", "RELEASE_PROCESS.md")
ITEM = re.compile(r"^(?P<indent> *)[-*] (?P<text>.+(?:\n +[^-* \n].*)*)", re.MULTILINE)
BROWSER = {"view", "page", "context", "new_context", "browser"}  # fixtures
TEST = re.compile(r"^tests?([-_. ]|$)|[-_. ]tests?$", re.IGNORECASE)  # how tests are called


@dataclass(frozen=True)
class Test:
    """One test as it is written: its file, what it asks for, and why it is waived, if it is."""

    name: str
    file: Path
    fixtures: frozenset[str]
    waived: str


def conditions(code: Path) -> list[str]:
    """Return the list items of section 7.2, [] without the document. Raises `Refused` where the section has none."""
    section = _section(code, r"7\.2")
    items = [item for _, item in _items(section)]
    if section and not items:
        what = f"Section 7.2 of {DOCUMENT.as_posix()} has no list item, so nothing would be checked."
        raise Refused(what, "Write each condition as a line that begins with a dash, as in: - API OK")
    return items


def named_smokes(code: Path) -> list[str]:
    """Return the items of section 2 that stand below the one that says that smokes pass."""
    items, found, below = _items(_section(code, "2")), list[str](), -1
    for indent, item in items:
        if below >= 0 and indent > below:
            found.append(item)
        else:
            below = indent if re.search(r"(?i)\bsmokes pass", item) else -1
    return found


def slug(item: str) -> str:
    """Return an item as the name of a test: "No gaps in ingest" is no_gaps_in_ingest."""
    return re.sub(r"\W+", "_", item.lower()).strip("_")


def tests_in(folder: Path) -> dict[str, Test]:
    """Return name → test of the functions `test_…` in the files of `folder`; what is no Python, pytest reports."""
    found = {}
    for file in sorted(folder.glob("test_*.py")):
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                given = frozenset(argument.arg for argument in node.args.args)
                marks = [each for each in node.decorator_list if isinstance(each, ast.Call) and each.args]
                reasons = [mark.args[0] for mark in marks if ast.unparse(mark.func).endswith("mark.waived")]
                waived = str(getattr(reasons[0], "value", "") or ast.unparse(reasons[0])) if reasons else ""
                found[node.name] = Test(node.name, file, given, waived)
    return found


def purpose(file: Path) -> str:
    """Return the first line of a file's docstring, "" without one."""
    try:
        return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0].rstrip(".")
    except (SyntaxError, ValueError):
        return ""


def smokes_in(code: Path) -> dict[str, Path]:
    """Return name → file of the smokes of the tree `code`: `smokes/test_<name>.py`."""
    return {path.stem.removeprefix("test_"): path for path in sorted((code / "smokes").glob("test_?*.py"))}


def smoke_problems(code: Path) -> Iterator[Problem]:
    """Yield what section 2 names without a file, and what is named like a test, but not so that it would run."""
    there = smokes_in(code)
    for item in named_smokes(code):
        if slug(item) not in there:
            what = f"Section 2 of {DOCUMENT.as_posix()} names the smoke {item!r}, which has no file."
            yield Problem(what, f"Write it: smokes/test_{slug(item)}.py")
    if not there:
        yield Problem("There are no smokes; a release that nothing checks is none.", "Write one: smokes/test_<name>.py")
    yield from _strays(code / "smokes", set(there.values()))


def condition_problems(code: Path) -> Iterator[Problem]:
    """Yield each condition of section 7.2 without a test; a repo without the document has one test at least."""
    tests = tests_in(code / "acceptance")
    for item in conditions(code):
        if f"test_{slug(item)}" not in tests:
            what = f"Section 7.2 of {DOCUMENT.as_posix()} says {item!r}, and no test in acceptance/ is named so."
            yield Problem(what, f"Write it: def test_{slug(item)}, in a file acceptance/test_*.py")
    if not tests:
        yield Problem("There is no test in acceptance/, so nothing would be checked.", "Write acceptance/test_*.py")
    yield from _strays(code / "acceptance", {test.file for test in tests.values()})


def waivers(code: Path) -> dict[str, str]:
    """Return condition → reason of those that are waived."""
    names = {f"test_{slug(item)}": item for item in conditions(code)}
    tests = tests_in(code / "acceptance").values()
    return {names.get(test.name, test.name): test.waived for test in tests if test.waived}


def uses_a_browser(code: Path) -> bool:
    tests = [*tests_in(code / "acceptance").values(), *tests_in(code / "smokes").values()]
    return any(test.fixtures & BROWSER and not test.waived for test in tests)


def _strays(folder: Path, run: set[Path]) -> Iterator[Problem]:
    for path in sorted(folder.rglob("*.py")):
        if TEST.search(path.stem) and path not in run:
            name = f"{folder.name}/test_{slug(TEST.sub('', path.stem)) or 'other'}.py"
            here = path.relative_to(folder.parent).as_posix()
            yield Problem(f"Nobody would run {here}; expected {folder.name}/test_<name>.py.", f"git mv {here} {name}")


def _section(code: Path, number: str) -> str:
    path = code / DOCUMENT
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = re.search(rf"(?ms)^#* *{number}\.? .+?$(.*?)(?=^#* *\d+\.[\d.]* |^#+ |\Z)", text)
    return found[1] if found else ""


def _items(section: str) -> list[tuple[int, str]]:
    """Return indent and text of each list item, without the mark at its end (*checked*) and its full stop."""
    found = ((len(each["indent"]), " ".join(each["text"].split())) for each in ITEM.finditer(section))
    return [(indent, re.sub(r"\s*\*\w+\*\s*$", "", text).rstrip(".:; ")) for indent, text in found]
