"""The standard checks: each kind is a test, over its list in invoke.yaml. What a kind looks at is in its own module.

`answer` is the look of one check, begun with the others when the run began (plugin).
"""

from release_tasks.checks.looking import Answer


def test_version(answer: Answer) -> None:
    """What runs is this release."""
    answer.tell()


def test_command(answer: Answer) -> None:
    """A program ends well, and prints its mark."""
    answer.tell()


def test_http(answer: Answer) -> None:
    """A request is answered as expected."""
    answer.tell()


def test_page(answer: Answer) -> None:
    """A view renders in a browser."""
    answer.tell()


def test_sql(answer: Answer) -> None:
    """A query gives what it should."""
    answer.tell()


def test_fresh(answer: Answer) -> None:
    """Each expected key has a young row."""
    answer.tell()


def test_gaps(answer: Answer) -> None:
    """Each expected key has its rows without a hole."""
    answer.tell()


def test_log(answer: Answer) -> None:
    """A log has no trouble in it since the deployment began."""
    answer.tell()
