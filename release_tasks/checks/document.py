"""The list items of the written process, and the tests that are named after them."""

import ast
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from release_tasks.errors import Problem
from release_tasks.files import read_text

DOCUMENT = Path("docs", "RELEASE_PROCESS.md")
SERVER_LOG = re.compile(r"\blog\.has_no_trouble\(\s*(\)|exceptions\b)")  # without a file
FENCED = re.compile(r"(?ms)^ *(```+(?=[^`\n]*\n)|~~~+).*?^ *\1[`~]*[ \t]*$")  # in which # begins no heading
ITEM = re.compile(r"^[ \t]*[-*] (.+(?:\n[ \t]+[^-* \t\n].*)*)", re.MULTILINE)
BELOW_SMOKES = re.compile(r"^( *)[-*] .*\bsmokes pass.*\n((?:\1[ \t].*(?:\n|\Z)|\n)*)", re.MULTILINE | re.IGNORECASE)


def conditions(code: Path) -> dict[str, str]:
    """Return name → list item of section 7.2, {} without the document: no_gaps_in_ingest → No gaps in ingest."""
    return _items(_section(code, r"7\.2"))


def smokes_in(code: Path) -> dict[str, Path]:
    """Return name → file of the smokes of the tree `code`: `smokes/test_<name>.py`."""
    return {path.stem.removeprefix("test_"): path for path in sorted((code / "smokes").glob("test_?*.py"))}


def acceptance_in(code: Path) -> list[Path]:
    """Return the files of the tests of section 7.2 in the tree `code`."""
    return sorted((code / "acceptance").glob("test_*.py"))


def smoke_problems(code: Path) -> Iterator[Problem]:
    """Yield each item of section 2, below the one that says that smokes pass, without a smoke."""
    below = BELOW_SMOKES.search(_section(code, "2"))
    items = _items(below[2]) if below else {}
    if below and not items:
        what = f"Section 2 of {DOCUMENT.as_posix()} says that smokes pass, and no list item below it says which."
        yield Problem(what, "Write each below that line, indented, as in:   - IDHR")
    yield from _missing(items, smokes_in(code), "smokes/test_{}.py")


def condition_problems(code: Path) -> Iterator[Problem]:
    items = conditions(code)
    if not items and (code / DOCUMENT).exists():
        what = f"Section 7.2 of {DOCUMENT.as_posix()} has no list item, so nothing would be checked."
        yield Problem(what, "Write each condition as a line that begins with a dash, as in: - API OK")
    names = {name for name, _, _ in _tests(acceptance_in(code))}
    yield from _missing(items, names, "acceptance/test_*.py, with def test_{}")


def waivers(code: Path) -> dict[str, str]:
    """Return condition → reason of those that are waived."""
    items = conditions(code)
    return {items.get(name, name): reason for name, reason, _ in _tests(acceptance_in(code)) if reason}


def uses_a_browser(code: Path) -> bool:
    """Tell whether a test that is not waived takes a fixture that needs one."""
    tests = [*_tests(acceptance_in(code)), *_tests(smokes_in(code).values())]
    return any({"view", "page", "context"} & fixtures for _, reason, fixtures in tests if not reason)


def reads_the_server_log(code: Path) -> bool:
    return any(SERVER_LOG.search(read_text(file)) for file in acceptance_in(code))


def _missing(items: dict[str, str], tests: Collection[str], where: str) -> Iterator[Problem]:
    """Yield each item of the document without a test; without the document there is one test at least."""
    for name, item in items.items():
        if name not in tests:
            what = f"{DOCUMENT.as_posix()} names {item!r}, which has no test."
            yield Problem(what, f"Write {where.format(name)}")
    if not tests:
        yield Problem("There is no test: a release that nothing checks is none.", f"Write {where.format('<name>')}")


def tree_of(file: Path) -> ast.Module:
    """Return the syntax of a file of tests, nothing where it is no Python: that pytest reports."""
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _tests(files: Iterable[Path]) -> Iterator[tuple[str, str, set[str]]]:
    return (test for file in files for test in tests_in(file))


def tests_in(file: Path) -> Iterator[tuple[str, str, set[str]]]:
    """Yield name, reason of a waiver ("" without one) and fixtures of each test."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            calls = [mark for mark in node.decorator_list if isinstance(mark, ast.Call)]
            given = [mark.args[0] for mark in calls if ast.unparse(mark.func).endswith("mark.waived") and mark.args]
            reason = "".join(str(it.value) if isinstance(it, ast.Constant) else ast.unparse(it) for it in given)
            yield node.name.removeprefix("test_"), reason, {each.arg for each in node.args.args}


def named_twice(file: Path) -> list[str]:
    """Return the names that two tests of `file` have: Python keeps the last one alone."""
    scopes = [each for each in ast.walk(tree_of(file)) if isinstance(each, ast.Module | ast.ClassDef)]
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    names = Counter((scope, node.name) for scope in scopes for node in scope.body if isinstance(node, kinds))
    return [name for (_, name), count in names.items() if count > 1 and name.startswith("test_")]


def _section(code: Path, number: str) -> str:
    text = FENCED.sub("", read_text(code / DOCUMENT))
    # A heading may be a plain line; where it is none, such a line is an item of a numbered list.
    heading = re.search(rf"(?m)^(#+) *{number}\.? ", text)
    mark, end = (heading[1], f"^#{{1,{len(heading[1])}}} ") if heading else ("", r"^ *\d+\.[\d.]* |^#+ ")
    return "".join(re.findall(rf"(?ms)^{mark} *{number}\.? [^\n]+$(.*?)(?={end}|\Z)", text)[:1])


def _items(text: str) -> dict[str, str]:
    """Return name → list item, without its mark (*checked*) and its full stop."""
    items = [re.sub(r"\s*\*\w+\*\s*$", "", " ".join(item.split())).rstrip(".:; ") for item in ITEM.findall(text)]
    return {re.sub(r"\W+", "_", item.lower()).strip("_"): item for item in items}
