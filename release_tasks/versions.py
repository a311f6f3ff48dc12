"""What a version may look like, and which one comes next (SemVer 2.0.0)."""

from __future__ import annotations

import re

from semver import Version

from release_tasks.errors import Problem

FORM = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z]+([.-][0-9A-Za-z]+)*)?")
IN_WORK = "dev"


def version_problems(text: str) -> list[Problem]:
    """Return what is wrong with `text` as the version of a release, empty when it can be one."""
    if not is_version(text):
        what = f"{text!r} is not a version: expected MAJOR.MINOR.PATCH with an optional pre-release."
        return [Problem(what, "inv release --version 0.1.1")]
    if is_in_work(text):
        what = f"{text} is the name of work in progress, not of a release."
        return [Problem(what, f"inv release --version {release_after(text)}")]
    return []


def is_version(text: str) -> bool:
    """Tell whether `text` is MAJOR.MINOR.PATCH[-pre]; build metadata (`+…`) is not part of our versions."""
    return bool(FORM.fullmatch(text)) and Version.is_valid(text)


def is_in_work(version: str) -> bool:
    """Tell whether the well-formed `version` is a `-dev` one, which is never released."""
    identifiers = (Version.parse(version).prerelease or "").split(".")
    return any(re.fullmatch(rf"{IN_WORK}\d*", identifier) for identifier in identifiers)


def is_past(version: str, target: str) -> bool:
    """Tell whether `version` comes after `target` (both well-formed), in SemVer's order but for work in progress.

    0.1.1-dev is on the way to 0.1.1 and to each of its pre-releases, so it is past none of them.
    """
    found, wanted = Version.parse(version), Version.parse(target)
    return found.finalize_version() > wanted.finalize_version() if is_in_work(version) else found > wanted


def opens_a_cycle_after(version: str, released: str) -> bool:
    """Tell whether main on `version` means that work goes on after `released`: 0.1.1-dev does after 0.1.1-rc1."""
    goes_on = Version.parse(version).finalize_version() == Version.parse(released).finalize_version()
    return is_past(version, released) or (is_in_work(version) and goes_on and bool(Version.parse(released).prerelease))


def version_named(tag: str) -> str | None:
    """Return the version that `tag` names, None for a tag that is no release of ours (tags in the wild vary)."""
    version = tag.removeprefix("v")
    return version if version != tag and is_version(version) and not is_in_work(version) else None


def highest(versions: list[str]) -> str | None:
    """Return the highest of `versions`, None when there are none."""
    return max(versions, key=Version.parse, default=None)


def next_release(released: str) -> str:
    """Return the next release after `released`: 0.1.2 after 0.1.1, 0.1.1 after 0.1.1-rc1."""
    version = Version.parse(released)
    return str(version.finalize_version() if version.prerelease else version.bump_patch())


def next_in_work(released: str) -> str:
    """Return the version to work on after `released`: 0.1.2-dev after 0.1.1, 0.1.1-dev after 0.1.1-rc1."""
    return f"{next_release(released)}-{IN_WORK}"


def release_after(version: str) -> str:
    """Return a version to propose when `version` is in work or is none: 0.1.1 for 0.1.1-dev, else 0.1.0."""
    return str(Version.parse(version).finalize_version()) if is_version(version) else "0.1.0"
