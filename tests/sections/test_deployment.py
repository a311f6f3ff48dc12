"""Code put in place, and what that leaves beside it for later checks."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from release_tasks.errors import Refused
from release_tasks.files import file_hashes
from release_tasks.outcome import CHANGED, DONE, REFUSED, Outcome
from release_tasks.release import Release
from release_tasks.sections.deployment import (
    deployment_of,
    put_the_code_in_place,
    run_the_release,
    stamp_the_session,
    unpack_commit,
)

if TYPE_CHECKING:
    from tests.conftest import Web, Work


@pytest.fixture
def release(work: Work, web: Web, dsn: str) -> Release:
    """Return a release whose tag is pushed, and a staging that it can go to."""
    place = {"dsn": dsn, "origin": web.origin, "folder": "srv", "restart": ["true"], "log": "none"}
    release = work.release(environments={"staging": place}, branch="")
    release.options = {"env": "staging"}  # type: ignore[attr-defined]
    work.release_before(release.tag)
    return release


@pytest.mark.parametrize("left", ["", "{", "[]", "null", "{}", '"commit"', b"\xff", None])
def test_a_mark_of_a_deployment_that_cannot_be_one_is_named_and_the_command_shown_helps(
    release: Release, take: Callable[..., Outcome], left: str | bytes | None
) -> None:
    """F8: it was a traceback that named no file."""
    marker = release.root / "srv" / "releases" / "v0.1.1.json"
    assert take(put_the_code_in_place, release).state == CHANGED
    assert take(put_the_code_in_place, release).state == DONE
    marker.unlink()
    if left is None:
        marker.mkdir()
    else:
        marker.write_bytes(left if isinstance(left, bytes) else left.encode())
    with pytest.raises(Refused, match=r"v0\.1\.1\.json is not what a deployment leaves there"):
        deployment_of(release, release.environment("staging"))
    refused = take(run_the_release, release)
    assert refused.state == REFUSED
    words = shlex.split(refused.problems[0].hint.partition("   #")[0])
    assert words[:2] == ["mv", str(marker)]
    marker.rename(words[2])
    assert take(put_the_code_in_place, release).state == CHANGED


def test_without_a_command_nothing_is_stamped(release: Release, take: Callable[..., Outcome]) -> None:
    assert take(stamp_the_session, release).text == "no stamp.command is set"


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
def test_the_tag_s_code_is_put_in_place_as_it_was_committed(work: Work, tmp_path: Path) -> None:
    """R18: under umask 077 no other user could read it. R19: `export-…` left files out, and rewrote them."""
    work.write({"a/run (1).sh": "#!/bin/sh\n", "docs/$(x)": "$Format:%H$\n"})
    work.write({".gitattributes": "a export-ignore\ndocs/* export-subst\n", "CRLF": "\r\n", "LF": "\n"})
    (work.root / "a" / "run (1).sh").chmod(0o775)
    (work.root / "link").symlink_to("a/run (1).sh")
    commit, code = work.commit({}), tmp_path / "code"
    (code / "old").mkdir(parents=True)
    work.git("config", "core.autocrlf", "true")
    before = os.umask(0o077)
    unpack_commit(work.layer(), commit, code)
    assert os.umask(before) == 0o077 and work.git("status", "--porcelain") == ""
    committed = {path: digest for path, digest in file_hashes(work.root).items() if not path.startswith(".git/")}
    assert file_hashes(code) == committed and not (code / "old").exists()
    assert (code / "link").readlink() == Path("a/run (1).sh")
    assert stat.S_IMODE((code / "a" / "run (1).sh").stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in (code, *code.rglob("*"))} == {0o755, 0o644}
