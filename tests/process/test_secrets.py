"""Whatever a smoke, a condition, a program, an exception or a server log says, no secret is shown or kept."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import quote, quote_plus, urlsplit

import pytest
from world import World

NAMES = ("DB_PASS", "GITHUB_PAT", "API_KEY", "NPM_TOKEN", "APP_SECRET", "AWS_CREDENTIALS", "BASIC_AUTH")
SAY = """
import os, sys
from base64 import b64encode
from urllib.parse import quote

NAMES = os.environ["CANARIES"].split()
FORMS = (str, lambda each: quote(each, safe=""), *(
    lambda each, before=before: b64encode(before.encode() + each.encode()).decode() for before in ("", "x", "xy")
))
TEXT = "\\n".join(f"{name}: {form(os.environ[name])}" for name in NAMES for form in FORMS)


def is_on(fault):
    return fault in open(os.path.join(os.environ["LITTLE_FAULTS"], "leaks")).read()


if __name__ == "__main__":
    print(TEXT)
    print(TEXT, file=sys.stderr)
    print("PASS after", os.environ["DATABASE_URL"], TEXT.replace("\\n", " "))
    sys.exit(is_on(sys.argv[1]))
"""
TEST = '''
"""It says all it knows."""

import os
import sys

import pytest

sys.path.append(os.path.join(os.path.dirname(__file__), os.pardir))
from say import TEXT, is_on

if is_on("import {name}"):
    raise RuntimeError(TEXT)


@pytest.fixture
def said():
    print(TEXT)
    yield
    print(TEXT, file=sys.stderr)


def test_by_a_program(run):
    run(os.environ["PYTHON"], "say.py", "{name}", must_print="^PASS")


def test_by_an_exception(said, record_property, target):
    record_property("seen", TEXT)
    if is_on("{name}") and ("{name}" == "smokes" or target.name != "dev"):
        words = TEXT.split()  # a local, which --showlocals shows
        raise RuntimeError(TEXT + target.dsn)


def test_by_an_assertion(said, record_property):
    record_property("seen", TEXT)
    assert not is_on("{name}") or TEXT == "nothing"
'''


@pytest.mark.slow
def test_no_secret_is_printed_or_kept_in_any_form(little: World) -> None:
    """F12, F13: canaries of every kind, said in every way, at the highest verbosity."""
    canaries = {name: f'c4nary-{name}/+&<é "{number}"' for number, name in enumerate(NAMES)}
    secret, token = "9rl-of-c4nary", "qu3ry-t0ken-c4nary"
    little.variables |= canaries
    little.variables["REPORT_DSN"] = "host=db.invalid password='c4nary of a dsn' dbname=x"
    little.variables["WEBHOOK"] = f"https://someone:{secret}@hooks.invalid/x?page=1&access_token={token}"
    canaries |= {"a dsn": "c4nary of a dsn", "a url": secret, "a query": token}
    canaries |= {name: urlsplit(place.dsn).password or "" for name, place in little.places.items()}
    little.variables["PLAIN_SECRET_1"], little.variables["PLAIN_SECRET_2"] = secret, "c4nary of a dsn"
    little.variables["CANARIES"] = " ".join([*NAMES, "REPORT_DSN", "WEBHOOK", "PLAIN_SECRET_1", "PLAIN_SECRET_2"])
    leaks = little.folder / "faults" / "leaks"
    files = {f"{name}/test_leaks.py": TEST.replace("{name}", name) for name in ("smokes", "acceptance")}
    leaks.touch()
    web = (little.repo / "web.py").read_text()
    said = 'print(os.environ["DATABASE_URL"], os.environ["CANARIES"], flush=True)'
    files["web.py"] = web.replace("threading.Thread(", f"{said}\nthreading.Thread(", 1)
    little.settle("test: say it all", {"say.py": SAY, **files})
    short, loud = {"LITTLE_WAIT": "1"}, ("--", "-vv", "--tb=long", "--showlocals", "-rA")
    outputs = list[str]()

    def say(fault: str, *words: str) -> int:
        leaks.write_text(fault)
        ran = little.inv(*words, env=short)
        outputs.append(ran.output)
        return ran.code

    release = ("release", "--version", "0.1.1", "--yes")
    assert say("smokes", *release) == 1
    for fault, how in (("smokes", loud), ("import smokes", loud), ("smokes", ["--json"])):
        assert say(fault, "smokes", "--env", "dev", *how) == 1
    assert say("acceptance", *release) == 1
    assert little.runs() == {"staging": "0.1.1", "production": None}, outputs[-1]
    for fault in ("acceptance", "import acceptance"):
        assert say(fault, "accept", "--env", "staging", *loud) == 1
    leaks.write_text("")
    outputs.append(little.finish().output)
    words = "password " + canaries["DB_PASS"].replace("'", "''") + " and " + token
    little.places["staging"].rows(f"do $$ begin raise warning '{words}'; end $$")
    assert say("nothing", "accept", "--env", "staging", *loud) == 1
    assert say("nothing", "status", "--version", "0.1.1", "--json") == 0
    texts = {f"output {number}": text.encode() for number, text in enumerate(outputs)}
    for folder in (little.repo / ".release", little.folder / "archive"):
        texts |= {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(texts) > 40
    assert any(b"***" in text for name, text in texts.items() if name.endswith("candidate-production-web.log"))
    assert any(b"***" in text for name, text in texts.items() if name.endswith(".xml"))
    found = [
        (name, form, where)
        for name, canary in canaries.items()
        for form in _forms(canary)
        for where, text in texts.items()
        if form.encode() in text
    ]
    assert not found, "\n".join(map(str, found))


def _forms(canary: str) -> set[str]:
    encoded = {b64encode(before.encode() + canary.encode()).decode()[4:-4] for before in ("", "x", "xy")}
    return {canary, quote(canary, safe=""), quote_plus(canary), *encoded}
