"""What runs is this release: checked before the conditions of section 7.2, and after them."""

from collections.abc import Callable


def test_this_release_runs(deployed: Callable[[], None]) -> None:
    deployed()


def test_this_release_still_runs(deployed: Callable[[], None]) -> None:
    deployed()
