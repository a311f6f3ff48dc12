"""What the written process asks for: its list items, and the tests that are named like them."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from release_tasks.errors import Problem

DOCUMENT = Path("docs", "RELEASE_PROCESS.md")
ITEM = re.compile(r"^(?P<indent> *)[-*] (?P<text>.+(?:\n +[^-* \n].*)*)", re.MULTILINE)


def conditions(code: Path) -> list[str]:
    """Return the list items of section 7.2, [] without the document."""
    return [item for _, item in _items(code, r"7\.2")]


def named_smokes(code: Path) -> list[str]:
    """Return the items of section 2 that stand below the one that says that smokes pass."""
    found, below = list[str](), -1
    for indent, item in _items(code, "2"):
        if 0 <= below < indent:
            found.append(item)
        else:
            below = indent if re.search(r"(?i)\bsmokes pass", item) else -1
    return found


def slug(item: str) -> str:
    """Return an item as the name of a test: "No gaps in ingest" is no_gaps_in_ingest."""
    return re.sub(r"\W+", "_", item.lower()).strip("_")


def smokes_in(code: Path) -> dict[str, Path]:
    """Return name → file of the smokes of the tree `code`: `smokes/test_<name>.py`."""
    return {path.stem.removeprefix("test_"): path for path in sorted((code / "smokes").glob("test_?*.py"))}


def acceptance_in(code: Path) -> dict[str, str]:
    """Return name → waiver, "" without one, of the tests `acceptance/test_*.py`; what is no Python, pytest reports."""
    found = dict[str, str]()
    for file in sorted((code / "acceptance").glob("test_*.py")):
        try:
            nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        except (SyntaxError, ValueError):
            continue
        tests = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
        for test in tests:
            marks = [mark for mark in map(ast.unparse, test.decorator_list) if "mark.waived" in mark]
            found[test.name.removeprefix("test_")] = re.sub(r".*waived\(['\"]?|['\"]?\)$", "", "".join(marks))
    return found


def smoke_problems(code: Path) -> Iterator[Problem]:
    return _missing(named_smokes(code), smokes_in(code), "smokes/test_{}.py")


def condition_problems(code: Path) -> Iterator[Problem]:
    items = conditions(code)
    if not items and (code / DOCUMENT).exists():
        what = f"Section 7.2 of {DOCUMENT.as_posix()} has no list item, so nothing would be checked."
        yield Problem(what, "Write each condition as a line that begins with a dash, as in: - API OK")
    yield from _missing(items, acceptance_in(code), "acceptance/test_*.py, with def test_{}")


def _missing(items: list[str], tests: Collection[str], where: str) -> Iterator[Problem]:
    """Yield each item of the document without a test; without the document there is one test at least."""
    for item in items:
        if slug(item) not in tests:
            yield Problem(
                f"{DOCUMENT.as_posix()} names {item!r}, which has no test.", f"Write {where.format(slug(item))}"
            )
    if not tests:
        yield Problem("There is no test: a release that nothing checks is none.", f"Write {where.format('<name>')}")


def waivers(code: Path) -> dict[str, str]:
    """Return condition → reason of those that are waived."""
    names = {slug(item): item for item in conditions(code)}
    return {names.get(name, name): reason for name, reason in acceptance_in(code).items() if reason}


def uses_a_browser(code: Path) -> bool:
    """Tell whether a test that is not waived takes a fixture that needs one."""
    files, waived = [*code.glob("acceptance/test_*.py"), *code.glob("smokes/test_*.py")], acceptance_in(code)
    takes = re.compile(r"def test_(\w*)\([^)]*\b(?:view|page|context)\b")
    return any(not waived.get(name) for file in files for name in takes.findall(file.read_text(encoding="utf-8")))


def _items(code: Path, number: str) -> Iterator[tuple[int, str]]:
    """Yield indent and text of each list item of a section, without its mark (*checked*) and its full stop."""
    text = (code / DOCUMENT).read_text(encoding="utf-8") if (code / DOCUMENT).exists() else ""
    section = re.search(rf"(?ms)^#* *{number}\.? .+?$(.*?)(?=^#* *\d+\.[\d.]* |^#+ |\Z)", text)
    for each in ITEM.finditer(section[1] if section else ""):
        item = " ".join(each["text"].split())
        yield len(each["indent"]), re.sub(r"\s*\*\w+\*\s*$", "", item).rstrip(".:; ")
