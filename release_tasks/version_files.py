"""Files that carry the version: one finder says where it stands in their bytes, to read it and to replace it."""

import json
import re
import tomllib
from functools import reduce

from release_tasks import versions
from release_tasks.errors import Problem, Refused
from release_tasks.settings import VersionFile

ENTRY = re.compile(r"""(version["']?\s*[:=]\s*["'])([^"'\s\\]+)(?=["'])""")
JSON = [["version"], ["packages", "", "version"]]  # the second one in package-lock.json
TOML = [["project", "version"], ["tool", "poetry", "version"], ["package", "version"]]
MARK = re.compile(r"@(\d+)-(\d+)")
ANY = "latin-1"  # for bytes of any encoding: all that matters is ASCII


def with_version(file: VersionFile, content: bytes | None, version: str) -> bytes:
    """Return `content` with `version` in it, no other byte changed. Raises `Refused` where that cannot be."""
    found, changed = spans(file, content), content or b""
    for start, end in reversed(found):
        changed = changed[:start] + version.encode() + changed[end:]
    if (says := version_in(file, changed)) != version:
        what = f"{file.path} cannot be brought to {version}: read again, it says {says!r}."
        raise Refused(what, f"Correct the pattern of {file.path} in release.version_files.")
    return changed


def version_in(file: VersionFile, content: bytes | None) -> str:
    """Return the version that `content` says, or all of them where it says several. Raises `Refused` for none."""
    return " and ".join(dict.fromkeys((content or b"")[start:end].decode(ANY) for start, end in spans(file, content)))


def spans(file: VersionFile, content: bytes | None) -> list[tuple[int, int]]:
    """Return start and end of each place in `content` where the version stands. Raises `Refused` where none does."""
    if content is None:
        raise Refused(f"{file.path} is not committed; expected it with a version.", "Correct release.version_files.")
    text = content.decode(ANY)
    if file.pattern:
        matches = re.finditer(file.pattern.encode().decode(ANY), text.replace("\r", "\n"))  # which `.` does not match
        found = [match.span(min(match.re.groups, 1)) for match in matches]
    else:
        found = _entries(file, text)
    if not found:
        says = f"nothing that fits {file.pattern!r}" if file.pattern else "no version of its own"
        raise Refused(f"{file.path} has {says}.", f"Fix {file.path}, or its entry in release.version_files.")
    return found


def _entries(file: VersionFile, text: str) -> list[tuple[int, int]]:
    """Return the spans of a JSON or TOML file: each version is replaced by its span, and what is parsed tells ours."""
    name, parse, places = ("TOML", tomllib.loads, TOML) if file.path.endswith(".toml") else ("JSON", json.loads, JSON)
    marked = ENTRY.sub(lambda match: f"{match[1]}@{match.start(2)}-{match.end(2)}", text)
    try:
        data = parse(marked.removeprefix("\ufeff".encode().decode(ANY)))
    except ValueError as no:
        fix = f"Fix {file.path}, or give it a pattern in release.version_files."
        raise Refused(f"{file.path} is no {name}: {no}.", fix) from None
    values = [reduce(lambda at, key: at.get(key) if isinstance(at, dict) else None, keys, data) for keys in places]
    return sorted((int(it[1]), int(it[2])) for value in values if (it := MARK.fullmatch(str(value))))


def file_version_problems(path: str, found: str, target: str) -> list[Problem]:
    """Return what is wrong with the version `found` in the file `path`, on the way to `target`."""
    if versions.is_version(found) and not versions.is_past(found, target):
        return []
    says = f"says {found!r}" if found else "is not committed, or it is empty"
    hint = f"Write {target} or the version in work into {path}, and commit."
    return [Problem(f"{path} {says}; expected a version that is not past {target}.", hint)]
