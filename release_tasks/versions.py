"""Rules for versions: their form, their order, and the next one (SemVer 2.0.0)."""

import re
from pathlib import Path

from semver import Version

from release_tasks.command_line import again
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.files import read_text

FORM = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z]+([.-][0-9A-Za-z]+)*)?")


def version_here(root: Path) -> str:
    """Return what VERSION in the working tree says, "" when it is not there."""
    return read_text(root / "VERSION").strip()


def chosen(root: Path, given: str | None, in_work: bool = False) -> str:
    """Return the version `given`, by default the one that VERSION names, or with `in_work` leads to.

    Raises `Refused` where that can be no release.
    """
    if given is None:
        found = version_here(root)
        given = release_of(found) if in_work and is_version(found) and is_in_work(found) else found
        if problems := version_problems(given):
            what = f"VERSION says {found!r}, which names no release" if found else "there is no VERSION file"
            raise Refused(f"Which version? None was given, and {what}.", problems[0].hint)
    refuse(version_problems(given))
    return given


def version_problems(text: str) -> list[Problem]:
    """Return what is wrong with `text` as the version of a release, empty when it can be one."""
    if not is_version(text):
        what = f"{text!r} is not a version: expected three numbers, as in 0.1.1, and perhaps a pre-release."
    elif is_in_work(text):
        what = f"{text} is the name of work in progress, not of a release."
    else:
        return []
    return [Problem(what, again(version=release_of(text)))]


def is_version(text: str) -> bool:
    """Tell whether `text` is MAJOR.MINOR.PATCH[-pre]; build metadata (`+…`) is not part of our versions."""
    return bool(FORM.fullmatch(text)) and Version.is_valid(text)


def is_in_work(version: str) -> bool:
    """Tell whether the well-formed `version` is a `-dev` one, which is never released."""
    identifiers = (Version.parse(version).prerelease or "").split(".")
    return any(re.fullmatch(r"dev\d*", identifier) for identifier in identifiers)


def is_past(version: str, target: str) -> bool:
    """Tell whether `version` comes after `target` (both well-formed), in SemVer's order but for work in progress.

    0.1.1-dev is on the way to 0.1.1 and to each of its pre-releases, so it is past none of them.
    """
    found, wanted = Version.parse(version), Version.parse(target)
    return found.finalize_version() > wanted.finalize_version() if is_in_work(version) else found > wanted


def is_later_release(text: str, version: str) -> bool:
    """Tell whether `text` names a release, not work in progress, that comes after `version`."""
    return is_version(text) and not is_in_work(text) and is_past(text, version)


def opens_a_cycle_after(text: str, released: str) -> bool:
    """Tell whether main on the version `text` is work after `released`, as on 0.1.1-dev after 0.1.1-rc1."""
    return is_version(text) and is_past(release_of(text) if is_in_work(text) else text, released)


def next_release(released: str) -> str:
    """Return the next release after `released`: 0.1.2 after 0.1.1, 0.1.1 after 0.1.1-rc1."""
    return str(Version.parse(released).next_version("patch"))


def fixed_in(version: str) -> str:
    """Return the version in which the released `version` is fixed: 0.1.1-rc.2 after 0.1.1-rc.1, 0.1.2 after 0.1.1."""
    found = re.sub(r"\d+$", lambda last: str(int(last[0]) + 1), version) if "-" in version else version
    return found if is_past(found, version) else next_release(version)  # rc10 comes before rc9


def release_of(text: str) -> str:
    """Return a version to propose for `text`: 0.1.1 for 0.1.1-dev, 1.2.0 for 1.2; 0.1.0 where it has no number."""
    numbers = [number.lstrip("0") or "0" for number in re.findall("[0-9]+", text)][:3] or ["0", "1"]
    return ".".join([*numbers, "0", "0"][:3])
