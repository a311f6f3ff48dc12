"""Section 7.2 of the little app, which has no written process: the tests are the conditions."""

import pytest

SYMBOLS = "select symbol from app.symbols"


def test_api_ok(api):
    api.expect("/api/health", {"ok": True})


@pytest.mark.parametrize("path", ["/", "/samples"])
def test_pages_are_there(api, path):
    api.expect(path)


def test_samples_are_fresh(series):
    series("app.samples", keys=SYMBOLS).is_fresh(within=15)


def test_no_gaps_in_samples(series):
    series("app.samples", keys=SYMBOLS).has_no_gaps(every=1, window=30)


def test_no_sql_warnings_in_server_logs(log):
    log.has_no_trouble()
