"""Stats and vectors of each symbol and window are stored, and are what the samples give when recomputed."""

import pytest


@pytest.mark.on_backup
@pytest.mark.wait(20)
def test_stats_and_vectors_are_what_the_samples_give(run, target):
    max_age = "86400" if target.is_backup else "60"
    run("node", "scripts/smokes/persistence.mts", must_print="^PASS persistence", MAX_AGE_S=max_age)
