"""Versions: what is one, which comes next, and nothing in the wild that makes the look-ups fail."""

from __future__ import annotations

from functools import cmp_to_key
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from semver import Version

from release_tasks import versions
from release_tasks.lines import released
from release_tasks.settings import Settings

NUMBER = st.integers(0, 10**6).map(str)
CORE = st.tuples(NUMBER, NUMBER, NUMBER).map(".".join)
PRE = st.sampled_from(["", "-rc1", "-rc.2", "-alpha.1", "-beta", "-0", "-a-b", "-x1.y2"])
RELEASES = st.tuples(CORE, PRE).map("".join)
CLOSE = st.tuples(st.from_regex(r"[01]\.[0-2]\.[019]", fullmatch=True), PRE).map("".join)  # so that some are equal
WILD = st.text() | st.from_regex(r"v?\d+\.\d+\.\d+([-+.]\S{0,6})?", fullmatch=True) | RELEASES


@given(WILD)
@example("")
@example("--help")
@example("0.1.1\n")
@example("1٢.0.0")
@example("9" * 5000 + ".0.0")
def test_any_text_is_a_version_or_has_one_problem_with_its_hint(text: str) -> None:
    problems = versions.version_problems(text)
    if problems:
        assert len(problems) == 1 and problems[0].hint.startswith("inv release --version ")
        assert released({f"refs/tags/v{text}": ""}, Settings()) == {}
    else:
        assert text.isascii() and str(Version.parse(text)) == text
        assert released({f"refs/tags/v{text}": ""}, Settings()) == {text: ""}


def test_what_is_nearly_a_version_is_proposed_as_one() -> None:
    """It proposed 0.1.1, whatever was typed."""
    (problem,) = versions.version_problems("1.2")
    assert "expected three numbers" in problem.what and problem.hint == "inv release --version 1.2.0"


@given(RELEASES)
def test_what_is_well_formed_is_a_version(version: str) -> None:
    assert versions.version_problems(version) == []


@pytest.mark.parametrize(
    "text",
    ["0.1", "v0.1.1", "0.1.1.1", "01.1.1", "0.1.1+build", "0.1.1-", "0.1.1-rc..1", "0.1.1-01", " 0.1.1", "0.1.1 "],
)
def test_near_misses_are_no_versions(text: str) -> None:
    assert not versions.is_version(text)


@pytest.mark.parametrize(
    ("text", "hint"), [("0.1.1-dev", "0.1.1"), ("0.2.0-rc1.dev", "0.2.0"), ("0.1.1-dev1", "0.1.1")]
)
def test_work_in_progress_is_never_released(text: str, hint: str) -> None:
    assert versions.is_in_work(text)
    (problem,) = versions.version_problems(text)
    assert problem.hint.endswith(f" {hint}")


@pytest.mark.parametrize("tag", ["nightly", "v1", "0.1.1", "vv0.1.1", "v0.1.1-dev", "release-0.1.1", "v"])
def test_tags_that_are_no_releases_of_ours_name_no_version(tag: str) -> None:
    assert released({f"refs/tags/{tag}": ""}, Settings()) == {}


@given(RELEASES)
def test_the_next_version_in_work_leads_to_a_later_release(released: str) -> None:
    following = versions.next_release(released)
    in_work = f"{following}-dev"
    assert versions.is_in_work(in_work)
    assert versions.is_past(following, released) and versions.is_past(following, in_work)
    assert versions.version_problems(following) == []


@pytest.mark.parametrize(("released", "following"), [("0.1.1", "0.1.2"), ("0.1.1-rc1", "0.1.1"), ("1.9.9", "1.9.10")])
def test_the_next_release_is_the_next_patch_or_what_a_pre_release_leads_to(released: str, following: str) -> None:
    assert versions.next_release(released) == following


@given(RELEASES)
def test_the_next_version_in_work_opens_a_cycle_and_what_was_released_does_not(released: str) -> None:
    assert versions.opens_a_cycle_after(f"{versions.next_release(released)}-dev", released)
    assert not versions.opens_a_cycle_after(released, released)


@pytest.mark.parametrize(
    ("version", "released", "opens"),
    [
        ("0.1.1-dev", "0.1.1-rc1", True),
        ("0.1.1-dev", "0.1.1", False),
        ("0.1.0-dev", "0.1.1-rc1", False),
        ("0.1.1-rc2", "0.1.1-rc1", True),
        ("0.2.0", "0.1.1", True),
    ],
)
def test_a_cycle_is_open_once_work_goes_on(version: str, released: str, opens: bool) -> None:
    assert versions.opens_a_cycle_after(version, released) == opens


@pytest.mark.parametrize("target", ["0.1.1-alpha", "0.1.1-rc1", "0.1.1", "0.2.0"])
def test_work_on_a_version_is_past_none_of_its_pre_releases(target: str) -> None:
    assert not versions.is_past("0.1.1-dev", target)
    assert versions.is_past("0.2.1-dev", target)


def test_versions_are_ordered_as_semver_says_not_as_text() -> None:
    ascending = ["0.9.0", "0.10.0", "1.0.0-alpha", "1.0.0-alpha.2", "1.0.0-alpha.10", "1.0.0-rc1", "1.0.0"]
    for lower, higher in pairwise(ascending):
        assert versions.is_past(higher, lower) and not versions.is_past(lower, higher)
    assert list(released({f"refs/tags/v{each}": "" for each in reversed(ascending)}, Settings())) == ascending


@pytest.mark.parametrize(
    ("found", "proposed"),
    [("0.1.1-dev", "0.1.1"), ("", "0.1.0"), ("x", "0.1.0"), ("1.2", "1.2.0"), ("v2", "2.0.0"), ("1.2.3.4", "1.2.3")],
)
def test_a_version_can_be_proposed_from_whatever_version_says(found: str, proposed: str) -> None:
    assert versions.release_of(found) == proposed


@given(st.lists(CLOSE, min_size=3, max_size=3))
def test_the_order_of_versions_is_total(three: list[str]) -> None:
    one, two, _ = three
    assert [one == two, versions.is_past(one, two), versions.is_past(two, one)].count(True) == 1
    low, middle, high = sorted(three, key=cmp_to_key(lambda a, b: versions.is_past(a, b) - versions.is_past(b, a)))
    assert not versions.is_past(low, middle) and not versions.is_past(middle, high) and not versions.is_past(low, high)


@given(WILD)
def test_from_any_text_a_version_can_be_proposed(text: str) -> None:
    assert versions.version_problems(versions.release_of(text)) == []


@pytest.mark.parametrize(
    ("withdrawn", "proposed"),
    [
        ("0.1.1", "0.1.2"),
        ("0.1.1-rc.1", "0.1.1-rc.2"),
        ("0.1.1-rc1", "0.1.1-rc2"),
        ("0.1.1-rc.9", "0.1.1-rc.10"),
        ("0.1.1-rc9", "0.1.1"),  # rc10 comes before rc9
        ("0.1.1-beta", "0.1.1"),
    ],
)
def test_a_candidate_is_made_anew_as_the_next_candidate(withdrawn: str, proposed: str) -> None:
    assert versions.fixed_in(withdrawn) == proposed
