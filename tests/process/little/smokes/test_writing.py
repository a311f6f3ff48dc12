"""A sample can be stored."""

import os


def test_a_sample_can_be_stored(run):
    run(os.environ["PYTHON"], "smoke.py", "writing", must_print="^PASS writing$", timeout=60)
