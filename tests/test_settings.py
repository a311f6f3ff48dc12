"""Settings: every problem is found at once and named by its key path; secrets are never in the file."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock, Mock
from urllib.parse import quote, unquote, urlsplit

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg import conninfo
from pydantic import BaseModel

from release_tasks import masks, rehearsal
from release_tasks.command_line import REHEARSING
from release_tasks.config import load, settings_of, write_schema
from release_tasks.errors import Problem, Refused
from release_tasks.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import Work

REMOTE = {"origin": "https://example.org", "folder": "/srv/app", "restart": ["true"], "log": "/var/log/pg.log"}


def problems(raw: Any, **variables: str) -> tuple[Problem, ...]:
    with pytest.raises(Refused) as refused:
        load(raw, variables)
    return refused.value.problems


def problems_of_production(raw: Any, **variables: str) -> tuple[Problem, ...]:
    with pytest.raises(Refused) as refused:
        load(raw, variables).environments.named("production")
    return refused.value.problems


def with_dsn(dsn: str, **changed: Any) -> dict[str, Any]:
    return {"environments": {"production": {"dsn": dsn, **REMOTE, **changed}}}


def test_nothing_set_is_a_whole_set_of_defaults() -> None:
    settings = load({}, {})
    assert (settings.app, settings.branch, settings.ddl.lock) == ("app", "release/{tag}", "ddl/ORDER.lock")
    assert settings.environments.production.embedded


@pytest.mark.parametrize(
    ("raw", "path", "told"),
    [
        ({"apps": "x"}, "release.apps", "no such setting"),
        ({"ddl": {"foldr": "x"}}, "release.ddl.foldr", "no such setting"),
        (
            {"freeze_days": "soon"},
            "release.freeze_days",
            "found 'soon'; expected a valid integer (days the freeze is announced for).",
        ),
        ({"freeze_days": -1}, "release.freeze_days", "greater than or equal to 0"),
        ({"app": "two words"}, "release.app", "found 'two words'"),
        ({"version_files": "package.json"}, "release.version_files", "valid list"),
        (
            {"version_files": [{"path": "a", "pattern": "("}]},
            "release.version_files[0].pattern",
            "no regular expression",
        ),
        ({"acceptance": {"views": ["/"]}}, "release.acceptance.views", "no such setting"),
        ({"acceptance": {"version": "//other/x"}}, "release.acceptance.version", "a path on ORIGIN"),
        ({"acceptance": {"rewritten": {"x": "why"}}}, "release.acceptance.rewritten", "no such setting"),
        ({"stamp": {"flags": "ops.flags"}}, "release.stamp.flags", "no such setting"),
        ({"acceptance": {"wait": float("inf")}}, "release.acceptance.wait", "finite"),
        ({"services": {"web": []}}, "release.services.web", "at least 1 item"),
        (
            {"ddl": {"order": "alphabet"}},
            "release.ddl.order",
            "found 'alphabet'; expected javascript, bytes, or a command",
        ),
        ({"ddl": {"order": 5}}, "release.ddl.order", "found 5; expected javascript, bytes, or a command"),
        (
            {"ddl": {"ledger": "x; drop table y"}},
            "release.ddl.ledger",
            "expected the table of what was applied, as schema.table.",
        ),
        (
            {"evidence": {"places": [["rclone"]]}},
            "release.evidence.places[0]",
            "expected a folder, or two commands with",
        ),
        (
            {"evidence": {"places": [None]}},
            "release.evidence.places[0]",
            "found None; expected a folder, or two commands",
        ),
        ({"evidence": {"filing": {"codes": ["F1"]}}}, "release.evidence.filing.codes[0]", "two letters and two digits"),
        ({"evidence": {"authorities": {"u": 5}}}, "release.evidence.authorities.u", "PEM file"),
        ({"ddl": "db"}, "release.ddl", "found 'db'; expected a valid dictionary (the DDL pack)"),
        ({"environments": {"test": {}}}, "release.environments.test", "no such setting"),
        ({"install": ["ok", "${NOWHERE}"]}, "release.install[1]", "the environment variable NOWHERE is not set"),
        ("text", "release", "found 'text'"),
    ],
)
def test_a_problem_is_named_by_its_key_path(raw: Any, path: str, told: str) -> None:
    (problem,) = problems(raw)
    assert problem.what.startswith(f"invoke.yaml, {path}: ") and told in problem.what
    assert problem.hint


@pytest.mark.parametrize(
    ("raw", "keys", "hint"),
    [
        ({"apps": "x"}, "app, title, folder, main, ", "Did you mean app?"),
        ({"ddl": {"foldr": "x"}}, "folder, order, command, ", "Did you mean folder?"),
        ({"environments": {"dev": {"url": "x"}}}, "dsn, origin, log, folder, restart, ", "Remove it"),
    ],
)
def test_a_wrong_key_is_answered_with_the_right_ones(raw: Any, keys: str, hint: str) -> None:
    (problem,) = problems(raw)
    assert "expected one of " in problem.what and keys in problem.what
    assert hint in problem.hint


def test_all_problems_are_found_at_once() -> None:
    raw = {
        "apps": "x",
        "freeze_days": "soon",
        "install": ["${NOWHERE}", "${NOR_HERE}"],
        **with_dsn("postgresql://app:hunter2@db/app"),
    }
    found = problems(raw)
    assert len(found) == 5
    assert not any("hunter2" in str(problem) for problem in found)


@pytest.mark.parametrize("missing", REMOTE)
def test_a_dsn_needs_the_rest_of_its_environment(missing: str) -> None:
    (problem,) = problems(with_dsn("postgresql://db/app", **{missing: [] if missing == "restart" else ""}))
    given = ", ".join(["dsn", *(key for key in ("origin", "log", "folder", "restart") if key != missing)])
    what = f"production has {given}, but no {missing}; only one with nothing set is embedded."
    assert problem.what == f"invoke.yaml, release.environments: {what}"


@pytest.mark.parametrize("name", REMOTE)
def test_an_environment_without_a_dsn_is_embedded_and_takes_nothing_else(name: str) -> None:
    (problem,) = problems({"environments": {"production": {name: REMOTE[name]}}})
    assert f"production has {name}, but no dsn, " in problem.what and "nothing set is embedded" in problem.what


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${PLACE}", "here"),
        ("a/${PLACE}/b", "a/here/b"),
        ("${GONE:-there}", "there"),
        ("${EMPTY:-there}", "there"),
        ("${GONE:-}", ""),
        ("${PLACE:-there} ${PLACE}", "here here"),
        ("$PLACE {version} $$", "$PLACE {version} $$"),
    ],
)
def test_variables_are_filled_in(text: str, value: str) -> None:
    assert load({"install": [text]}, {"PLACE": "here", "EMPTY": ""}).install == [value]


def test_an_empty_variable_never_makes_an_environment_embedded() -> None:
    told = [problem.what for problem in problems_of_production(with_dsn("${PRODUCTION_DSN}"), PRODUCTION_DSN="")]
    empty = "the environment variable PRODUCTION_DSN is not set, or it is empty"
    assert f"invoke.yaml, release.environments.production.dsn: {empty}." in told


@pytest.mark.parametrize(
    "changed", [{"dsn": "postgresql://app:${PW}@db/app"}, {"dsn": "${DSN}"}, {"origin": "${ORIGIN}"}]
)
def test_a_variable_of_an_environment_is_needed_by_who_names_it(changed: dict[str, str]) -> None:
    """M18."""
    raw = with_dsn(**{"dsn": "dbname=app", **changed})
    settings = load(raw, {})
    assert settings.environments.named("dev").embedded and settings.environments.named("staging").embedded
    (problem,) = problems_of_production(raw)
    assert f"release.environments.production.{next(iter(changed))}: the environment variable" in problem.what
    assert not settings.environments.problems("dev") and settings.environments.problems("production") == [problem]
    assert load(raw, {"PW": "x", "DSN": "dbname=app", "ORIGIN": "https://example.org"}).environments.named("production")


@pytest.mark.parametrize(
    ("changed", "default"),
    [
        ({"dsn": "postgresql://app:${PW}@db/app"}, False),
        ({"dsn": "host=db password='${PW}'"}, False),
        ({"dsn": "postgresql://${PW}@db/app"}, True),
        ({"dsn": "dbname=app", "origin": "https://${PW}"}, True),
    ],
)
def test_a_default_is_proposed_where_one_may_be(changed: dict[str, str], default: bool) -> None:
    """The hint proposed one for a password, which is then refused."""
    (problem,) = problems_of_production(with_dsn(**{"dsn": "", **changed}))
    assert problem.hint == ("Set PW, or give a default as ${PW:-…}." if default else "Set PW.")


HOSTS = ["db", "db:5432", "a:5432,b:5432", "a,b", "[::1]:5432", "[::1]", "", "%2Frun%2Fpostgresql"]
GOOD = [
    f"{scheme}://{user}{host}/app" for scheme in ("postgres", "postgresql") for user in ("", "u@") for host in HOSTS
]


@pytest.mark.parametrize(
    "dsn",
    [
        *GOOD,
        "postgresql:///db?host=/run/postgresql",
        "postgresql://u:a%40b:c#d,e@a:1,b:2/app?target_session_attrs=any&options=-c%20x%3D1",
        "postgresql://db?dbname=app",
        "postgresql://",
        "host=db password='a@b/c?d:e' dbname=app",
        "service=app",
    ],
)
def test_a_dsn_that_can_be_read_in_one_way_only_is_taken(dsn: str) -> None:
    settings = load(with_dsn("${DSN}"), {"DSN": dsn})
    assert settings.environments.named("production").dsn == dsn
    if "service" not in dsn:
        conninfo.conninfo_to_dict(dsn)


@given(st.text("aZ1@:/?#%&=,[] \\", min_size=1))
@example("x@SuperSecret99")
@example("release/99")
@example("1?y=")
@example("x@1/y?z")
@example("x%zz")
@example("%a1")
def test_a_password_that_makes_a_url_ambiguous_is_refused_and_not_shown(password: str) -> None:
    """Pieces of it were shown as the host that cannot be resolved."""
    raw, variables = with_dsn("postgresql://app:${PW}@127.0.0.1:5499/db"), {"PW": password}
    if not re.search("[@/? ]|%(?![0-9a-fA-F]{2})", password) and "\ufffd" not in unquote(password):
        dsn = load(raw, variables).environments.named("production").dsn
        assert conninfo.conninfo_to_dict(dsn)["password"] == unquote(password)
        return
    assert load(raw, variables).environments.named("dev"), "who does not reach production is not held up"
    (problem,) = problems_of_production(raw, **variables)
    other = problems_of_production(raw, PW="another@one")
    assert (problem,) == other and "release.environments.production.dsn: " in problem.what and "%40" in problem.hint


@given(st.text("aZ1='\\ ", min_size=1))
@example("correct horse_battery9staple")
@example("hunter'22 zebra77giraffe")
@example("'")
@pytest.mark.parametrize(
    "dsn", ["host=127.0.0.1 password={} dbname=db", "host=db sslpassword='{}'", "mysql://a:{}@h/x"]
)
def test_a_password_that_libpq_cannot_read_is_refused_and_not_shown(dsn: str, password: str) -> None:
    """The rest of it after a space was shown as a keyword that lacks its value."""
    raw = with_dsn(dsn.format("${PW}"))
    with suppress(psycopg.ProgrammingError):
        conninfo.conninfo_to_dict(dsn.format(password))
        assert load(raw, {"PW": password}).environments.named("production")
        return
    (problem,) = problems_of_production(raw, PW=password)
    assert (problem,) == problems_of_production(raw, PW="' another one")
    assert "release.environments.production.dsn: " in problem.what and "'${NAME}', quotes" in masks.mask(problem.hint)


@pytest.mark.parametrize(
    "dsn", ["postgresql://db:http/app", "postgresql://app:hunter2/app", "postgresql://a:1,b:x/app"]
)
def test_a_port_that_is_no_number_is_refused(dsn: str) -> None:
    (problem,) = problems_of_production(with_dsn("${DSN}"), DSN=dsn)
    assert "a port is no number" in problem.what and "hunter2" not in str(problem)


def test_the_hint_for_a_password_makes_it_fit_for_a_url() -> None:
    (problem,) = problems_of_production(with_dsn("${DSN}"), DSN="postgresql://a:b@c@d/app")
    argv = shlex.split(problem.hint.splitlines()[-1])
    ran = subprocess.run(argv, input="x@/?:%\n", capture_output=True, text=True, check=True, start_new_session=True)
    assert ran.stdout.splitlines()[-1].endswith("x%40%2F%3F%3A%25")


def test_what_is_wrong_with_an_environment_is_found_without_its_variables() -> None:
    found = problems(with_dsn("postgresql://app:${PW}@db/app", foldr="x", log="a password=hunter2"))
    assert sorted(problem.what.partition(":")[0] for problem in found) == [
        "invoke.yaml, release.environments.production.foldr",
        "invoke.yaml, release.environments.production.log",
    ]


def test_dev_with_a_dsn_runs_the_working_tree_and_needs_its_origin_only() -> None:
    dev = {"dsn": "postgresql://db/app", "origin": "http://127.0.0.1:3000"}
    assert load({"environments": {"dev": dev}}, {}).environments.named("dev").origin == dev["origin"]
    (problem,) = problems({"environments": {"dev": {"dsn": dev["dsn"]}}})
    assert "dev has dsn, but no origin;" in problem.what


def test_an_unknown_environment_is_refused_by_its_name() -> None:
    with pytest.raises(Refused, match="There is no environment 'prod'; expected dev, staging or production"):
        load({}, {}).environments.named("prod")


def test_a_rehearsal_reaches_nothing_that_is_real() -> None:
    raw = {**with_dsn("${PRODUCTION_DSN}"), "evidence": {"places": ["/mnt/vault"]}}
    settings = load(raw, {REHEARSING: '{"places": [".release/archive"]}'})
    assert all(environment.embedded for _, environment in settings.environments)
    assert settings.evidence.places == [".release/archive"]


def test_a_kept_clone_of_a_rehearsal_stays_one(tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that was typed there reached the real staging and production."""
    monkeypatch.setattr(rehearsal, "open_environment", lambda *_: Mock())
    monkeypatch.setattr(rehearsal, "deploy_previous", lambda _: None)
    monkeypatch.setenv(REHEARSING, '{"places": [".release/archive"]}')
    clone = rehearsal.make_clone(work.layer(), tmp_path / "rehearsal", Settings())
    monkeypatch.delenv(REHEARSING)
    raw = {**with_dsn("${PRODUCTION_DSN}"), "evidence": {"places": ["/mnt/vault"]}}
    real, kept = (settings_of(MagicMock(_project_prefix=root, get=lambda *_: raw)) for root in (work.root, clone))
    assert not real.environments.production.embedded
    assert kept.environments.production.embedded
    assert kept.evidence.places == [".release/archive"]


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://app:hunter2@db/app",
        "postgresql://:hunter2@db/app",
        "postgresql://${USER}:hunter2@db/app",
        "postgresql://db/app?user=app&password=hunter2",
        "host=db password=hunter2",
        "host=db PASSWORD = 'hunter2 or so'",
        "${DSN:-postgresql://app:hunter2@db/app}",
        "postgresql://app:${PW:-hunter2}@db/app",
        "postgresql://${USER:-app}:hunter2@db/app",
        "postgresql://${USER:-app:hunter2}@db/app",
    ],
)
def test_a_literal_password_is_refused_and_not_repeated(dsn: str) -> None:
    found = problems(with_dsn(dsn), USER="app", PW="x")
    assert [problem.what for problem in found] == [
        "invoke.yaml, release.environments.production.dsn: a password stands in the file; expected ${NAME}."
    ]
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        (["https://user:hunter2@tsa.example/tsr"], "expected URLs without user, password and ${…}"),
        (["https://hunter2@tsa.example/tsr"], "expected URLs without user, password and ${…}"),
        (["https://tsa.example/tsr?token=hunter2"], "expected URLs without user, password and ${…}"),
        (["https://user:${PW}@tsa.example/tsr"], "expected URLs without user, password and ${…}"),
        (["https://${HOST}/tsr"], "expected URLs without user, password and ${…}"),
        (["https://tsa.example/a?b", "https://tsa.example/a/B"], "the stamps of two would have one name"),
    ],
)
def test_the_url_of_an_authority_has_nothing_secret_and_gives_its_stamp_a_name_of_its_own(
    urls: list[str], said: str
) -> None:
    """Its password was in the name of a file of the pack; of two with one name the second stamped nothing."""
    (problem,) = problems({"evidence": {"authorities": dict.fromkeys(urls, "tsa.pem")}}, PW="hunter2", HOST="x")
    assert problem.what.startswith(f"invoke.yaml, release.evidence.authorities: {said}")
    assert "hunter2" not in str(problem)


def test_a_home_is_one_wherever_evidence_has_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder named ~ was made in the repository."""
    monkeypatch.setenv("HOME", "/home/rita")
    keys = {"signing_key": "~/key", "authorities": {"http://a": "~/a.pem"}, "places": ["~/vault", "~~", "/mnt/~"]}
    found = load({"evidence": {**keys, "filing": {"private": "~/me.json"}}}, {}).evidence
    assert (found.signing_key, found.filing.private) == ("/home/rita/key", "/home/rita/me.json")
    assert found.authorities == {"http://a": "/home/rita/a.pem"}
    assert found.places == ["/home/rita/vault", "~~", "/mnt/~"]


@pytest.mark.parametrize(
    ("dsn", "filled"),
    [
        ("${DSN}", "postgresql://app:hunter2@db/app"),
        ("postgresql://app:${PW}@db/app", "postgresql://app:hunter2@db/app"),
        ("postgresql://${USER:-app}:${PW}@db/app", "postgresql://app:hunter2@db/app"),
        ("postgresql://${USER:-app}:${PW:-}@db/app", "postgresql://app:hunter2@db/app"),
        ("host=db password=${PW}", "host=db password=hunter2"),
        ("host=db password='${PW}'", "host=db password='hunter2'"),
        ("postgresql://db/app", "postgresql://db/app"),
    ],
)
def test_a_password_from_a_variable_is_taken_and_hidden(dsn: str, filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(with_dsn(dsn), {"PW": "hunter2", "DSN": "postgresql://app:hunter2@db/app"})
    assert settings.environments.production.dsn == filled
    assert masks.mask("it says hunter2 here") == f"it says {'***' if 'hunter2' in filled else 'hunter2'} here"


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ({"ddl": {"must_print": "[a-"}}, "release.ddl.must_print"),
        ({"branch": "release/{number}"}, "release.branch"),
        ({"tag": "web"}, "release.tag"),
        ({"tag": "web/v{version}"}, "release.tag"),
        ({"must_be_merged": ["feature/{name}/*"]}, "release.must_be_merged[0]"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused_before_anything_begins(raw: dict[str, Any], path: str) -> None:
    (problem,) = problems(raw)
    assert problem.what.startswith(f"invoke.yaml, {path}: ")


def test_settings_never_change_after_loading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load({}, {}).app = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "origin", ["ftp://app.example", "app.example", "http://", "http://app:http", "http://app:99999", "http://app:66000"]
)
def test_an_origin_that_no_browser_can_open_is_refused(origin: str) -> None:
    """C11."""
    (problem,) = problems(with_dsn("dbname=app", origin=origin))
    assert f"found {origin!r}; expected http:// or https://, a host" in problem.what


def test_the_json_schema_describes_every_setting_and_allows_no_other(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    write_schema(str(file))
    schema = json.loads(file.read_text())["properties"]["release"]
    groups = [schema, *schema["$defs"].values()]
    fields = [(group["title"], name, about) for group in groups for name, about in group["properties"].items()]
    assert len(fields) > 40 and [field[:2] for field in fields if not field[2].get("description")] == []
    assert all(group["additionalProperties"] is False for group in groups)
    assert schema["properties"]["ddl"]["$ref"] == "#/properties/release/$defs/Ddl" and "Ddl" in schema["$defs"]


def key_paths(model: type[BaseModel] = Settings) -> Iterator[tuple[str, ...]]:
    """Yield the path of each key, groups included."""
    for name, field in model.model_fields.items():
        yield (name,)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from ((name, *rest) for rest in key_paths(field.annotation))


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.datetimes() | st.binary()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | SCALARS, inner, max_size=3)
)


@given(st.sampled_from(list(key_paths())), VALUES, st.booleans())
def test_any_value_at_any_key_is_taken_or_refused_by_its_path(path: tuple[str, ...], value: Any, more: bool) -> None:
    """F10"""
    raw: Any = value
    for key in reversed(path):
        raw = {key: raw, **({"no such key": value} if more else {})}
    try:
        assert isinstance(load(raw, {}), Settings) and not more
    except Refused as no:
        assert all(problem.what.startswith("invoke.yaml, release") and problem.hint for problem in no.problems)
        assert not more or any("no such key" in problem.what for problem in no.problems)


@given(st.lists(st.text() | SCALARS.filter(lambda it: not isinstance(it, bytes))))
def test_an_include_list_is_one_of_texts_or_each_other_item_is_named(items: list[Any]) -> None:
    wrong = [index for index, item in enumerate(items) if not (isinstance(item, str) and item)]
    raw = {"docs_pack": {"include": items}}
    if any("${" in str(item) for item in items):
        return
    if not wrong:
        assert load(raw, {}).docs_pack.include == items
    else:
        paths = {problem.what.partition(": ")[0] for problem in problems(raw)}
        assert {f"invoke.yaml, release.docs_pack.include[{index}]" for index in wrong} <= paths


@given(st.text() | st.text().map("http://{}".format) | st.from_regex(r"https?://[a-z\[\]:@/?#0-9%]*", fullmatch=True))
@example("http://[::1")
@example("http://x:٣")
def test_any_text_is_an_origin_or_refused_by_its_path(origin: str) -> None:
    """F10"""
    try:
        load(with_dsn("dbname=app", origin=origin), {})
    except Refused as no:
        assert no.problems[0].what.startswith("invoke.yaml, release.environments")
    else:
        assert urlsplit(origin).hostname and urlsplit(origin).port != 0


@given(st.text(min_size=6), st.sampled_from(["postgresql://app:${PW}@db/app", "postgresql://db/app?password=${PW}"]))
@example("a@b:c/d", "postgresql://app:${PW}@db/app")
def test_the_password_of_a_url_is_shown_neither_as_typed_nor_as_it_is(password: str, dsn: str) -> None:
    """F13"""
    masks._hidden.clear()
    load(with_dsn(dsn), {"PW": quote(password, safe="")})
    shown = masks.mask(f"<{password}> <{quote(password, safe='')}> {dsn.replace('${PW}', quote(password, safe=''))}")
    assert password not in shown and quote(password, safe="") not in shown


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"colours": {"blue": 3001}, "stop": ["x"]}, "expected|has to name two"),
        ({"colours": {"blue": 3001, "green": 3001}, "stop": ["x"]}, "has to name two, each with a port of its own"),
        ({"hosts": ["app1"], "inventory": "hosts.yml"}, "hosts and inventory cannot be set with another way"),
        ({"tool": {"deploy": ["d"], "running": ["r"]}}, "tool cannot be set with another way to deploy"),
        ({"hosts": ["app1"], "folder": "srv"}, "expected an absolute path, as it is on other hosts"),
    ],
)
def test_one_way_to_deploy_is_set_and_whole(own: dict[str, Any], said: str) -> None:
    about = {"dsn": "dbname=x", "origin": "http://x", "log": "l", "folder": "/srv/x", "restart": ["r"], **own}
    (problem,) = problems({"environments": {"production": about}})
    assert re.search(said, problem.what), problem.what


def test_an_image_that_a_command_has_is_set() -> None:
    tool = {"deploy": ["set", "{image}"], "running": ["get"]}
    about = {"dsn": "dbname=x", "origin": "http://x", "log": "l", "tool": tool}
    (problem,) = problems({"environments": {"production": about}})
    assert "a command has {image}, and image does not say which" in problem.what
