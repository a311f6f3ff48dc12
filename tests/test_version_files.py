"""Version files: the version is found in the bytes, and nothing else is changed."""

from __future__ import annotations

import json
import re
import tomllib
from codecs import BOM_UTF8

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_tasks.errors import Refused
from release_tasks.settings import VersionFile
from release_tasks.version_files import spans, version_in, with_version

PACKAGE = VersionFile(path="package.json")
LOCK = VersionFile(path="package-lock.json")
PYPROJECT = VersionFile(path="pyproject.toml")
CARGO = VersionFile(path="Cargo.toml")
PYTHON = VersionFile(path="app.py", pattern='__version__ = "(.*)"')

VERSIONS = st.sampled_from(["0.1.0", "0.1.1-dev", "10.20.30-rc.1"])
KEYS = st.sampled_from(["version", "packages", "", "project", "my-version", "name", "engine"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | VERSIONS | st.just('version": "0.1.0'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
DUMPS = st.sampled_from([{}, {"indent": 2}, {"indent": "\t", "separators": (",", " :")}, {"ensure_ascii": False}])


def around(content: bytes, places: list[tuple[int, int]]) -> list[bytes]:
    """Return what stands outside of `places`."""
    ends = [0, *(end for _, end in places)]
    starts = [*(start for start, _ in places), len(content)]
    return [content[end:start] for end, start in zip(ends, starts, strict=True)]


@given(st.dictionaries(KEYS, VALUES, max_size=5), VERSIONS, VERSIONS, DUMPS, st.sampled_from(["\n", "\r\n"]))
def test_outside_of_the_version_no_byte_of_a_json_file_changes(
    entries: dict[str, object], old: str, new: str, layout: dict[str, object], end: str
) -> None:
    """R20, R21: also where strings and other keys look like a version."""
    text = json.dumps({**entries, "version": old}, **layout)  # type: ignore[arg-type]
    inner = entries.get("packages")
    own = inner.get("") if isinstance(inner, dict) else None
    also = str(own.get("version")) if isinstance(own, dict) and isinstance(own.get("version"), str) else ""
    for content in (
        text.replace("\n", end).encode(errors="surrogatepass"),
        BOM_UTF8 + text.encode("latin-1", "replace"),
    ):
        changed = with_version(PACKAGE, content, new)
        assert around(content, spans(PACKAGE, content)) == around(changed, spans(PACKAGE, changed))
        data = json.loads(changed.removeprefix(BOM_UTF8).decode("latin-1"))
        assert data["version"] == new == version_in(PACKAGE, changed)
        if re.fullmatch(r"[!#-&(-\[\]-~]+", also):  # neither a quote nor a backslash
            assert data["packages"][""]["version"] == new


@given(st.binary(), st.binary(), VERSIONS, VERSIONS)
def test_outside_of_the_version_no_byte_of_any_text_changes(before: bytes, after: bytes, old: str, new: str) -> None:
    content = b'%s__version__ = "%s"\r\n%s' % (before, old.encode(), after)
    assert with_version(PYTHON, content, new) == b'%s__version__ = "%s"\r\n%s' % (before, new.encode(), after)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (PYPROJECT, '[tool.x]\nversion = "9"\n\n[project]\nname = "x"\nversion = "@"  # ours\n'),
        (PYPROJECT, "[tool.poetry]\r\nversion = '@'\r\n[tool.poetry.dependencies]\r\nx = {version = '1'}\r\n"),
        (PYPROJECT, 'project.version = "@"\n'),
        (PYPROJECT, 'project = { name = "x", version="@" }\n'),
        (CARGO, '[package]\nname = "x"\nversion = "@"\n\n[dependencies]\ny = { version = "1.0" }\n'),
        (PACKAGE, '{\n\t"version":"@",\n\t"name": "app"\n}\n'),
        (PACKAGE, '{"engine": {"version": "20"}, "version": "@"}\n'),
        (PACKAGE, '{"version": "9", "version": "@"}'),
        (LOCK, '{"version": "@", "packages": {"": {"version": "@"}, "node_modules/x": {"version": "@x"}}}'),
        (VersionFile(path="a.properties", pattern="(?m)^version=(.*)$"), "old.version=1\r\nversion=@\r\n"),
        (VersionFile(path="Größe.txt", pattern="Größe: (.*)"), "Größe: @\n"),
        (VersionFile(path="package.json", pattern="v([^ ]+)"), "no json at all: v@ and v@ again"),
    ],
)
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_each_place_of_the_version_is_found_and_no_other(file: VersionFile, text: str, bom: str) -> None:
    """R20, R21"""
    before, after = (f"{bom}{text.replace('@', version)}".encode() for version in ("0.1.0", "0.1.1"))
    if "@x" in text:  # which belongs to a dependency
        after = after.replace(b"0.1.1x", b"0.1.0x")
    assert version_in(file, before) == "0.1.0"
    assert with_version(file, before, "0.1.1") == after


def test_a_lock_whose_two_versions_differ_says_both() -> None:
    """R20: the inner one once stayed as it was."""
    content = b'{"packages": {"": {"version": "0.1.0"}}, "version": "0.1.1"}'
    assert version_in(LOCK, content) == "0.1.0 and 0.1.1"
    assert version_in(LOCK, with_version(LOCK, content, "0.1.1")) == "0.1.1"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (PACKAGE, b"no json", r"package\.json is no JSON: Expecting value: line 1 column 1"),
        (PACKAGE, b"", r"package\.json is no JSON"),
        (PACKAGE, "{}".encode("utf-16"), r"package\.json is no JSON"),
        (PACKAGE, None, r"package\.json is not committed"),
        (PACKAGE, b"[]", r"package\.json has no version of its own"),
        (PACKAGE, b'{"version": ""}', "has no version of its own"),
        (PACKAGE, b'{"version": 5}', "has no version of its own"),
        (PACKAGE, b'{"engine": {"version": "5"}}', "has no version of its own"),
        (PYPROJECT, b"[project", r"pyproject\.toml is no TOML"),
        (PYPROJECT, b'[project]\nname = "x"\ndynamic = ["version"]\n', "has no version of its own"),
        (CARGO, b"[package]\nversion.workspace = true\n", "has no version of its own"),
        (PYTHON, b"x = 1", "has nothing that fits '__version__ = "),
    ],
)
def test_what_has_no_version_is_refused_by_its_name(file: VersionFile, content: bytes | None, message: str) -> None:
    """R21: it was told as version None."""
    for refused in (lambda: version_in(file, content), lambda: with_version(file, content, "0.1.1")):
        with pytest.raises(Refused, match=message) as no:
            refused()
        assert no.value.problems[0].hint


def test_a_pattern_that_would_lose_the_version_is_refused() -> None:
    file = VersionFile(path="app.py", pattern='"(.*-dev)"')
    with pytest.raises(Refused, match="nothing that fits"):
        with_version(file, b'"0.1.1-dev"', "0.1.1")
    with pytest.raises(Refused, match="nothing that fits"):
        with_version(VersionFile(path="app.py", pattern='__version__ = ".*"'), b'__version__ = "0.1.0"', "0.1.1")
    with pytest.raises(Refused, match=r"read again, it says ''"):
        with_version(VersionFile(path="app.py", pattern="x(y)?"), b"x", "0.1.1")
    with pytest.raises(Refused, match=r"read again, it says '0\.1'"):
        with_version(VersionFile(path="app.py", pattern=r"(\d+\.\d+)"), b"0.0", "0.1.1")


def test_toml_with_other_bytes_than_utf_8_stays_as_it_is() -> None:
    content = '[project]\nname = "Größe"\nversion = "0.1.0"\n'.encode("latin-1")
    changed = with_version(PYPROJECT, content, "0.1.1")
    assert tomllib.loads(changed.decode("latin-1"))["project"] == {"name": "Größe", "version": "0.1.1"}
