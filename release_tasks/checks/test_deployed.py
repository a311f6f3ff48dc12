"""What runs is this release: checked before the conditions of section 7.2, and after them."""


def test_this_release_runs(deployed):  # type: ignore[no-untyped-def]
    deployed()


test_this_release_still_runs = test_this_release_runs
