"""The pack that an environment should have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from release_tasks import ddl
from release_tasks.errors import Refused
from release_tasks.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import Work


def test_where_no_host_can_be_reached_the_ledger_says_which_pack_it_is(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Ansible was not installed, nobody was told of drift."""

    class Unreachable:
        name, settings = "staging", Settings()

        @property
        def hosts(self) -> Any:
            raise Refused("The program ansible-inventory was not found.")

    monkeypatch.setattr(ddl.apply, "last_applied", lambda _: ("", set()))
    there: Any = Unreachable()
    whose, files = ddl.pack_there(there, work.layer(), ddl.live_tag(there))
    assert (whose, [file.name for file in files]) == ("HEAD", ["00_schemas.sql", "01_tables.sql"])
