"""Which variables hold secrets, in which forms these are masked, and what is left as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_tasks import masks, process
from release_tasks.errors import Refused

PIECES = [
    "password",
    "token",
    "api_key",
    "Authorization",
    "Bearer",
    ":",
    "=",
    " ",
    "\n",
    '"',
    "'",
    "\\",
    "***",
    "abc",
    "x1y2z3",
]


@pytest.mark.parametrize(
    ("name", "value", "secrets"),
    [
        *[
            (name, "s3cret-w0rd", {"s3cret-w0rd"})
            for name in (
                "GITHUB_PAT",
                "DB_PASS",
                "PGPASSWORD",
                "MYSQL_PWD",
                "SSH_PASSPHRASE",
                "API_KEY",
                "OPENAI_APIKEY",
                "SECRET_KEY_BASE",
                "npm_token",
                "TOKENS",
                "CLIENT_SECRET",
                "AWS_CREDENTIALS",
                "BASIC_AUTH",
                "DB_PASSWORD2",
                "APP_DSN",
            )
        ],
        ("DATABASE_URL", "postgresql://app:s3cret@db/app", {"s3cret"}),
        ("DATABASE_URL", "postgresql://app:a%40bcdef@db/app", {"a%40bcdef", "a@bcdef"}),
        ("REMOTE", "https://ghp_0123456@github.com/x", {"ghp_0123456"}),
        ("APP_DSN", "host=db password='s3cret w' dbname=app", {"s3cret w"}),
        ("WEBHOOK", "https://h.invalid/x?page=1&access_token=t0ken-1&a=b", {"t0ken-1"}),
        ("FEED", "https://app:s3cret@h.invalid/x?api_key=k3y%2Babc#top", {"s3cret", "k3y%2Babc", "k3y+abc"}),
        ("APP_DSN", "postgresql://db/app", set()),
        ("DATABASE_URL", "postgresql://cryptopill@db/app", set()),
        ("HOMEPAGE", "https://example.org/a@b", set()),
        ("DEBUG_KEY", "1", set()),
        ("USE_AUTH", "false", set()),
        ("SSH_AUTH_SOCK", str(Path(__file__)), set()),
        *[
            (name, "ordinary", set())
            for name in (
                "KEYBOARD",
                "PATH",
                "PWD",
                "OLDPWD",
                "GIT_AUTHOR_NAME",
                "COMPAT",
                "TOKENIZERS",
                "PASSENGER_ENV",
            )
        ],
    ],
)
def test_a_variable_holds_a_secret_by_its_name_or_as_a_url(name: str, value: str, secrets: set[str]) -> None:
    """F12."""
    assert set(masks.secrets_of({name: value})) == secrets


@given(st.text(min_size=6), st.binary(max_size=4), st.binary(max_size=4))
def test_a_secret_is_masked_also_in_base64_and_in_a_url(secret: str, before: bytes, after: bytes) -> None:
    """F12."""
    plain = secret.encode()
    masks._hidden.clear()
    masks.hide(secret)
    for text in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret)):
        assert secret not in masks.mask(f"({text})") and quote(secret, safe="") not in masks.mask(f"({text})")
    for encode in (b64encode, urlsafe_b64encode):
        said = masks.mask(encode(before + plain + after).decode())
        assert encode(plain)[4:-4].decode() not in said or len(plain) < 12
        assert "***" in said


@pytest.mark.parametrize("secret", ["hunter'2-zebra77", 'hunter"22\\zebra77', "hunter'2\"zebra\\77", "hünter2-zebra77"])
def test_a_secret_is_masked_also_as_shells_programs_and_json_quote_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secret: str
) -> None:
    """One with a quote in it reached screen, hint and journal."""
    monkeypatch.setenv("API_TOKEN", secret)
    with pytest.raises(Refused) as refused:
        process.run(["false", "-H", f"X-Api: {secret}"], cwd=tmp_path)
    traced = subprocess.run(["bash", "-xc", ': "$API_TOKEN"'], capture_output=True, text=True, check=True).stderr
    as_json = json.dumps([secret]) + json.dumps([secret], ensure_ascii=False)
    for text in (str(refused.value), refused.value.problems[0].hint, traced, repr([secret]), as_json):
        assert "zebra" not in masks.mask(text)


def test_a_secret_of_a_few_letters_does_not_spoil_every_text() -> None:
    masks.hide("x")
    assert masks.mask("expected postgresql://app:x@db/app") == "expected postgresql://***@db/app"


def test_basic_authentication_is_masked() -> None:
    masks.hide("hunter2-hunter2")
    basic = f"Basic {b64encode(b'rita:hunter2-hunter2').decode()}"
    said = masks.mask(f"It sent {basic}")
    assert said.startswith("It sent Basic cml0YT") and "***" in said and "HVudGVy" not in said
    assert masks.mask(f"Authorization: {basic}") == "Authorization: Basic ***"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://git.example/x?access_token=abc123", "https://git.example/x?access_token=***"),
        ("GET /x?page=2&api_key=abc", "GET /x?page=2&api_key=***"),
        ("client_secret=abc", "client_secret=***"),
        ("ALTER ROLE app PASSWORD 'a b'", "ALTER ROLE app PASSWORD ***"),
        ("CONNECTION 'password=''my s3cret'' dbname=y'", "CONNECTION 'password=*** dbname=y'"),
        ("PASSWORD=E'a b c'", "PASSWORD=***"),
        ("password='' host='x' user='' z", "password=*** host='x' user='' z"),
        ("connecting with password hunter2 now", "connecting with password *** now"),
        ("password authentication failed for user", "password authentication failed for user"),
        ("a password stands in the file", "a password stands in the file"),
        ("the key = 5, a token: 6", "the key = 5, a token: 6"),
        ('{"access_token":"s3cr3t", "page": "2"}', '{"access_token":"***", "page": "2"}'),
        ('{"password": "a \\"b\\" c", "user": "x"}', '{"password": "***", "user": "x"}'),
        (r'"{\"apiKey\":\"abc\",\"a\":1}"', r'"{\"apiKey\":\"***\",\"a\":1}"'),
        ("{'client_secret': 'abc', 'a': 1}", "{'client_secret': '***', 'a': 1}"),
        ('answers 500: {"token": "cut of', 'answers 500: {"token": "***'),
        ('{"tokens": "x", "token": "", "password": null}', '{"tokens": "x", "token": "", "password": null}'),
        ("Authorization: Bearer abcdef", "Authorization: Bearer ***"),
        ("-H 'authorization: token abc' x", "-H 'authorization: token ***' x"),
        ("the header Authorization: it is missing", "the header Authorization: it is missing"),
        ("X-Api-Key: abc123def", "X-Api-Key: ***"),
        ("password: hunter2 # of the app", "password: *** # of the app"),
        ("user: app\n  password: swordfish\nport: 1", "user: app\n  password: ***\nport: 1"),
        ("secret: 'two words', more", "secret: ***, more"),
        ("{'Authorization': 'Basic cm9vdDpodW50ZXI='}", "{'Authorization': 'Basic ***'}"),
        ("password: see the vault", "password: see the vault"),
        ("def connect(password: str, token: int)", "def connect(password: str, token: int)"),
        ("Unexpected token: identifier", "Unexpected token: identifier"),
    ],
)
def test_what_names_itself_a_secret_is_masked(text: str, shown: str) -> None:
    """F13."""
    assert masks.mask(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "\\" * 40_000,
        "token:" * 10_000,
        "a" * 40_000,
        "password " * 10_000,
        '{"a":"http://b","c":1}' + '{"d":2}' * 20_000,
        '{"a":"http://b:1/"}' * 20_000,
    ],
)
def test_a_long_line_is_masked_at_once(text: str) -> None:
    """It took 18 s; all that is printed goes through it, and each variable."""
    assert masks.mask(text)
    assert list(masks.secrets_of({"IT": text})) == []


def test_a_password_may_be_a_token_of_any_length() -> None:
    """One of more than 2,000 characters was shown."""
    token = "Ab1-" * 1000
    assert [*masks.secrets_of({"DSN": f"postgresql://app:{token}@db/app"})] == [token]


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_masking_what_names_itself_a_secret_again_changes_nothing(pieces: list[str]) -> None:
    masked = masks.mask("".join(pieces))
    assert masks.mask(masked) == masked


def test_a_key_of_json_is_masked() -> None:
    masks.hide("swordfish")
    assert masks.masked_json({"a role with swordfish": ["swordfish"]}) == '{"a role with ***": ["***"]}'


def test_a_password_that_is_the_name_of_postgresql_leaves_hints_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "postgres")
    hint = "apt-get install postgresql   # then: psql --dbname postgres"
    assert masks.mask(hint) == hint
    assert masks.mask("postgresql://app:postgres@db/x") == "postgresql://***@db/x"


@pytest.mark.parametrize("value", ["hunter2secret\n", " hunter2secret\r\n", "first line\nhunter2secret\nlast line\n"])
def test_what_a_program_reads_of_a_variable_is_masked_too(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line's end, as `echo` puts it into a secret of Kubernetes, let the rest be shown."""
    monkeypatch.setenv("DB_PASS", value)
    assert masks.mask("login with hunter2secret failed") == "login with *** failed"


def test_what_a_smoke_prints_of_a_variable_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """F12."""
    monkeypatch.setenv("GITHUB_PAT", "ghp_0123456789")
    assert masks.mask("it says ghp_0123456789") == "it says ***"
    monkeypatch.setenv("GITHUB_PAT", "ghp_9876543210")
    assert masks.mask("it says ghp_9876543210") == "it says ***", "it was the first value's mask"
    monkeypatch.setenv("BYTES_TOKEN", "no-text-\udce9")
    assert masks.mask("it says no-text-\udce9 or no-text-%E9") == "it says *** or ***"


def test_masks_need_nothing_that_is_installed() -> None:
    """A smoke with packages of its own runs where only these are, and a checks' plugin that masks what it says."""
    argv = [sys.executable, "-S", "-c", "import release_tasks.masks"]
    assert subprocess.run(argv, cwd=Path(__file__).parents[1], check=False).returncode == 0


def test_a_user_of_postgresql_without_a_password_is_shown() -> None:
    assert masks.mask("--into postgresql://app@db/x") == "--into postgresql://app@db/x"
    assert masks.mask("ssh ssh://deploy@app1:2222 python3") == "ssh ssh://deploy@app1:2222 python3"
    assert masks.mask("ssh://deploy:pw@app1") == "ssh://***@app1"
    assert masks.mask("postgresql://app:pw@db/x https://token@host/x") == "postgresql://***@db/x https://***@host/x"
