"""The API gives each symbol's latest 5 s buckets: none empty, few of bad quality."""

import pytest


@pytest.mark.wait(20)
def test_the_latest_buckets_are_filled(run):
    run("node", "scripts/smokes/sampling.mts", must_print="^PASS sampling")
