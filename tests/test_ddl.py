"""The pack that an environment should have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from release_tasks import ddl
from release_tasks.database.pack import DdlFile, pack_at
from release_tasks.errors import Refused
from release_tasks.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import Work

MORE = DdlFile("ddl/02_more.sql", b"create table app.more ();")
Ledger = tuple[str, set[tuple[str, str]]]


class Unreachable:
    """An environment whose hosts cannot be reached: where Ansible was not installed, nobody was told of drift."""

    name, settings = "staging", Settings()

    @property
    def hosts(self) -> Any:
        raise Refused("The program ansible-inventory was not found.")


@pytest.fixture
def there(work: Work) -> Any:
    """Return an environment of a repository with 0.1.0, 0.1.1 with one file more, and another one since then."""
    work.release_before("v0.1.0")
    work.commit({MORE.path: MORE.content.decode()})
    work.release_before("v0.1.1")
    work.commit({"ddl/03_most.sql": "create table app.most ();"})
    return Unreachable()


@pytest.mark.parametrize(
    ("last", "whose", "files"),
    [
        ("", "HEAD", 4),
        ("0.1.2-dev", "HEAD", 4),
        ("0.1.1", "v0.1.1", 3),
        ("0.1.0", "v0.1.0", 2),  # also after 0.1.1, as a hotfix of an older line: its views are the ones that stand
    ],
)
def test_the_ledger_says_which_pack_it_is(
    work: Work, there: Any, last: str, whose: str, files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ddl.apply, "last_applied", lambda _: (last, {(MORE.path, MORE.sha256)}))
    found, pack = ddl.pack_there(there, work.layer())
    assert (found, len(pack)) == (whose, files)


def test_a_pack_that_was_applied_before_its_tag_is_here_is_head_s_or_fetched_first(
    work: Work, there: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = ddl.pack_for("staging", work.root, there.settings)
    last: Ledger = ("0.1.2", {(file.path, file.sha256) for file in head})
    monkeypatch.setattr(ddl.apply, "last_applied", lambda _: last)
    assert ddl.pack_there(there, work.layer()) == ("v0.1.2", head)
    last = ("0.1.2", {(MORE.path, MORE.sha256)})
    with pytest.raises(Refused, match=r"^Staging has the DDL pack of v0\.1\.2, which is not here\.$") as refused:
        ddl.pack_there(there, work.layer())
    hint = "git fetch --tags   # or where it is no tag: inv ddl.apply --env staging"
    assert refused.value.problems[0].hint == hint


def test_what_was_applied_as_work_in_progress_and_then_released_is_the_release_s(
    work: Work, there: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next version's files were drift then, on a production that runs the release."""
    released = pack_at(work.layer(), "refs/tags/v0.1.1", there.settings)
    monkeypatch.setattr(ddl.apply, "last_applied", lambda _: ("0.1.1-dev", ddl.hashes_of(released)))
    assert ddl.pack_there(there, work.layer()) == ("v0.1.1", released)
