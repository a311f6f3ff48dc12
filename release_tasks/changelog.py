"""CHANGELOG and notes as text: the sections of level 2, and what a person wrote in one."""

import re
from datetime import date

from release_tasks import versions

COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
UNRELEASED = r"\[?[Uu]nreleased\]?"  # a heading of Keep a Changelog


def title_pattern(version: str) -> str:
    """Return a pattern for how a heading of CHANGELOG names `version`: 0.1.1, v0.1.1, [0.1.1], but not 0.1.1-rc1."""
    return rf"\[?v?{re.escape(version)}\]?(?![-.\w])"


def section(text: str, *titles: str) -> re.Match[str] | None:
    """Return the section (mark, title, end, text) whose heading begins with the first of the patterns `titles`."""
    rest = r"[^\r\n]*(?P<end>\r?\n)(?P<text>.*?)(?=^## |\Z)"
    found = (re.search(rf"^(?P<mark>## +)(?P<title>{title}){rest}", text, re.M | re.S) for title in titles)
    return next(filter(None, found), None)


def written(text: str) -> str:
    """Return what a person wrote in `text`: without the template's comments and placeholders."""
    found = COMMENT.sub("", text).replace("${highlights}", "").strip(" …\r\n")
    return found if re.search(r"(?m)^(?![ \t]*#+(?:\s|$))[ \t]*\S", found) else ""  # headings alone say nothing


def dated(text: str, version: str) -> str | None:
    """Return `text` with what is Unreleased under a heading of `version`; None where that is not to be done."""
    found = section(text, title_pattern(version), UNRELEASED)
    if not found or "nreleased" not in found["title"] or not written(found["text"]) or "-" in version:
        return None
    title, end, at = found["title"].lower().replace("unreleased", version), found["end"], found.start("text")
    return f"{text[:at]}{end}{found['mark']}{title} - {date.today():%Y-%m-%d}{end}{text[at:]}"


def with_heading(text: str, version: str) -> str:
    """Return `text` with an empty section for `version` above the newest one, unless it has one or Unreleased."""
    upcoming = versions.release_of(version)
    if re.search(rf"^## +({title_pattern(upcoming)}|{UNRELEASED})", text, re.MULTILINE):
        return text
    above, *sections = re.split(r"(?m)^(?=## )", text, maxsplit=1)
    line_end = "\n" if above and above[-1] != "\n" else ""
    return f"{above}{line_end}## {upcoming}\n\n{''.join(sections)}"
