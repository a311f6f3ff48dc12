"""What `inv deploy.history` shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from release_tasks import running


@pytest.mark.parametrize("stamps", [[], [("0.1.1", datetime(2026, 11, 26, tzinfo=UTC))]])
def test_the_history_of_dev_says_that_it_has_no_deployments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stamps: list[Any]
) -> None:
    """It was an empty table."""

    @contextmanager
    def environment_of(_: Any, where: str) -> Iterator[Any]:
        yield SimpleNamespace(name=where, stamps=lambda most: stamps)

    monkeypatch.setattr(running.embedded, "environment_of", environment_of)
    running.history(None, "dev", as_json=False)
    shown = capsys.readouterr().out
    assert "Dev has no deployments: it runs the working tree." in shown
    assert ("stamped 0.1.1" in shown) == bool(stamps) == ("History" in shown)
