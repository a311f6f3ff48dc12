"""What cannot be released is refused in a sentence with its hint, before anything changes."""

from __future__ import annotations

import os
import pty
import shutil
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from outside import Ran, git, introduce, journal_records
from world import World


@pytest.mark.parametrize("kind", ["a folder", "no UTF-8"])
def test_a_version_file_that_cannot_be_read_is_named(little: World, kind: str) -> None:
    """F10"""
    file = little.repo / "VERSION"
    file.unlink()
    if kind == "a folder":
        (file / "inside").mkdir(parents=True)
        (file / "inside" / "x").touch()
    else:
        file.write_bytes(b"0.1.1\xff\n")
    assert little.inv("status").refuses(f"{file} cannot be read as UTF-8 text")
    little.settle("build: a broken VERSION", {})
    assert little.release().refuses(
        "VERSION is committed, and is not UTF-8" if kind == "no UTF-8" else "VERSION is not c"
    )


def test_production_s_variables_are_needed_only_by_what_reaches_production(little: World) -> None:
    """M18"""
    without, before = {"PRODUCTION_DSN": ""}, little.look()
    for words in (["release", "--yes"], ["--dry", "release", "--yes"], ["deploy.production", "--yes"]):
        ran = little.inv(*words, "--version", "0.1.1", env=without)
        assert ran.refuses("release.environments.production.dsn: the environment variable PRODUCTION_DSN is not set")
    ran = little.inv("status", env=without)
    assert ran.code == 0 and "production was not compared" in ran.flat
    assert "pending  Back up the database.  after the variables of production are set" in ran.output
    for words in (["accept", "--env", "production"], ["smokes", "--env", "production"]):
        assert little.inv(*words, env=without).refuses("PRODUCTION_DSN is not set")
    assert little.inv("accept", "--env", "prod").refuses("There is no environment 'prod'; expected dev, staging or")
    for words in (["ddl.drift", "--env", "dev"], ["--dry", "deploy.staging", "--version", "0.1.1"]):
        assert "PRODUCTION_DSN" not in little.inv(*words, env=without).output
    assert little.inv("ddl.drift", "--env", "production", env=without).refuses("PRODUCTION_DSN is not set")
    assert little.look() == before


WRONG = [
    [
        ("  title: Little", "  titel: Little", "release.titel"),
        ("version_files: [package.json]", "version_files: package.json", "release.version_files"),
        ("    wait:", "    0: true\n    wait:", "release.acceptance[0]: found 0; expected a text as key"),
        ("    wait:", "    fresh: []\n    wait:", "release.acceptance.fresh: no such setting"),
        ('"${LITTLE_ARCHIVE}"', '"${NO_SUCH_ARCHIVE}"', "NO_SUCH_ARCHIVE"),
        ('"${STAGING_DSN}"', '"postgresql://ada:hunter2@127.0.0.1/little"', "staging.dsn: a password stands in"),
        ('"${PRODUCTION_DSN}"', '"host=127.0.0.1 password=hunter2"', "production.dsn: a password stands in"),
    ],
    [('"${STAGING_DSN}"', '"${NO_SUCH_DSN}"', "NO_SUCH_DSN is not set")],
    [('origin: "${STAGING_ORIGIN}"', 'origin: ""', "but no origin; only one with nothing set is embedded")],
    [("tasks:\n  executor_class: release_tasks.engine.ReleaseExecutor", "", "executor_class")],
]


@pytest.mark.parametrize("wrong", WRONG, ids=["values", "variable", "origin", "executor"])
def test_all_settings_that_cannot_be_are_refused_at_once_by_their_keys(
    little: World, wrong: list[tuple[str, str, str]]
) -> None:
    little.set(*((old, new) for old, new, _ in wrong))
    before = little.look()
    ran = little.release()
    assert ran.refuses(*(words for _, _, words in wrong))
    assert "hunter2" not in ran.output
    assert little.look() == before


def _without_a_remote(little: World) -> None:
    little.git("remote", "remove", "origin")


def _with_a_remote_that_is_gone(little: World) -> None:
    little.git("remote", "set-url", "origin", str(little.folder / "nowhere.git"))


def _on_a_detached_head(little: World) -> None:
    little.git("checkout", "--quiet", "--detach")


def _on_another_branch(little: World) -> None:
    little.git("switch", "--quiet", "--create", "feature/half")


def _in_a_shallow_clone(little: World) -> None:
    little.settle("feat: more than one commit", {"more": ""})
    little.repo = little.clone("shallow", "--depth", "1")


def _in_a_merge(little: World) -> None:
    little.git("switch", "--quiet", "--create", "theirs")
    little.commit("feat: theirs", {"CHANGELOG.md": "# Theirs\n"})
    little.git("switch", "--quiet", "main")
    little.settle("feat: ours", {"ours": ""})
    little.git("merge", "--quiet", "--no-ff", "--no-commit", "theirs")


def _behind_the_remote(little: World) -> None:
    little.settle("feat: pushed", {"pushed": ""})
    little.git("reset", "--quiet", "--hard", "HEAD~1")


def _with_an_unmerged_feature(little: World) -> None:
    little.git("switch", "--quiet", "--create", "feature/v0.1.1/better")
    little.settle("feat: better", {"better": ""})
    little.git("switch", "--quiet", "main")


def _with_a_version_file_out_of_line(little: World) -> None:
    little.settle("build: out of line", {"package.json": '{\n  "version": "0.0.7"\n}\n'})


def _with_a_version_file_missing(little: World) -> None:
    little.settle("build: no package.json", {"package.json": None})


def _with_a_version_past_the_target(little: World) -> None:
    package = '{\n  "version": "0.3.0-dev"\n}\n'
    little.settle("build: far ahead", {"VERSION": "0.3.0-dev\n", "SOURCE_TAG": "v0.3.0-dev\n", "package.json": package})


def _with_a_version_that_is_none(little: World) -> None:
    little.settle("build: a word", {"VERSION": "soon\n"})


def _with_a_later_release(little: World) -> None:
    little.git("tag", "--annotate", "--message", "later", "v0.2.0")
    little.git("push", "--quiet", "origin", "v0.2.0")


def _without_ddl(little: World) -> None:
    files = dict.fromkeys(f"ddl/{file.name}" for file in (little.repo / "ddl").glob("*.sql"))
    little.settle("feat: no tables", files)


def _with_a_ddl_file_that_is_no_text(little: World) -> None:
    little.settle("feat: a broken file", {"ddl/03_broken.sql": "select 1;\0\n"})


def _with_a_document_missing(little: World) -> None:
    little.settle("docs: none", {"docs/ARCHITECTURE.md": None})


def _without_highlights(little: World) -> None:
    little.settle("docs: nothing to say", {"CHANGELOG.md": "# Changelog\n\n## 0.1.1\n\n## 0.1.0\n\nOld news.\n"})


def _without_a_notes_template(little: World) -> None:
    little.set(("      - docs/RELEASE_NOTES_TEMPLATE.md\n", ""))
    little.settle("docs: no template", {"docs/RELEASE_NOTES_TEMPLATE.md": None})


REFUSED: dict[Callable[[World], None], str] = {
    _without_a_remote: "git remote add origin",
    _with_a_remote_that_is_gone: "does not answer",
    _on_a_detached_head: "a detached HEAD",
    _on_another_branch: "git switch main",
    _in_a_shallow_clone: "git fetch --unshallow",
    _in_a_merge: "MERGE_HEAD",
    _behind_the_remote: "git pull",
    _with_an_unmerged_feature: "feature/v0.1.1/better",
    _with_a_version_file_out_of_line: "package.json says version '0.0.7'",
    _with_a_version_file_missing: "package.json",
    _with_a_version_past_the_target: "expected a version that is not past 0.1.1",
    _with_a_version_that_is_none: "VERSION says 'soon'",
    _with_a_later_release: "0.1.1 comes before 0.2.0, which this branch has",
    _without_ddl: "No *.sql file is committed in ddl",
    _with_a_ddl_file_that_is_no_text: "ddl/03_broken.sql is not UTF-8 text",
    _with_a_document_missing: "docs/ARCHITECTURE.md",
    _without_highlights: "--highlights",
    _without_a_notes_template: "docs/RELEASE_NOTES_TEMPLATE.md",
}


TOGETHER = [
    [
        _with_a_version_file_out_of_line,
        _with_a_ddl_file_that_is_no_text,
        _with_a_document_missing,
        _without_highlights,
        _with_an_unmerged_feature,
        _with_a_later_release,
    ],
    [_without_ddl, _with_a_version_file_missing, _without_a_notes_template, _in_a_shallow_clone],
    [_with_a_version_past_the_target, _behind_the_remote],
    [_with_a_version_that_is_none, _on_another_branch],
    [_in_a_merge],
    [_on_a_detached_head],
    [_with_a_remote_that_is_gone],
    [_without_a_remote],
]


@pytest.mark.parametrize("arrange", TOGETHER, ids=[each[0].__name__.strip("_") for each in TOGETHER])
def test_a_repo_that_is_not_ready_is_refused_for_all_that_is_wrong(
    little: World, arrange: list[Callable[[World], None]]
) -> None:
    for each in arrange:
        each(little)
    before = little.look()
    assert little.release().refuses(*map(REFUSED.__getitem__, arrange))
    assert little.look() == before


def test_each_arrangement_is_refused_in_one_of_the_groups() -> None:
    assert sorted(each.__name__ for group in TOGETHER for each in group) == sorted(each.__name__ for each in REFUSED)


WRITE_THEM = "Write them below a heading 0.1.1 of CHANGELOG.md, and commit that."
TYPED = {
    "status --version 0.1.1": WRITE_THEM,
    "status": WRITE_THEM,
    "deploy.staging --version 0.1.1": 'inv deploy.staging --version 0.1.1 --highlights "…"',
    "release --version 0.1.1 --yes --next 0.1.5-dev": "--highlights",
}


def test_a_hint_is_the_command_that_was_typed_with_what_is_missing(little: World) -> None:
    """It was `inv release …`, which goes on to production, without the options that were typed."""
    _without_highlights(little)
    for typed, hint in TYPED.items():
        ran = little.inv(*typed.split())
        assert ran.refuses(hint)
        assert "--next" not in typed or "--next 0.1.5-dev" in ran.commands
        assert typed.startswith("release") or "inv release" not in ran.output


def test_a_folder_without_git_and_a_repo_without_a_commit_are_refused(little: World) -> None:
    shutil.rmtree(little.repo / ".git")
    assert little.release().refuses("not a git repository", "git init")
    little.git("init", "--quiet", "--initial-branch=main")
    introduce(little.repo)
    assert little.release().refuses("has no commit yet")


@pytest.mark.parametrize("trouble", ["unreachable", "wrong password"])
def test_databases_that_cannot_be_used_are_found_before_anything_changes(little: World, trouble: str) -> None:
    dsns = {name: place.dsn.partition("@")[2] for name, place in little.places.items()}
    if trouble == "unreachable":
        dsns = dict.fromkeys(dsns, "127.0.0.1:9/little")
    before = little.look()
    env = {f"{name.upper()}_DSN": f"postgresql://postgres:hunter2@{here}" for name, here in dsns.items()}
    ran = little.release(env=env)
    for name in dsns:
        assert ran.refuses(f"The database of {name} cannot be used", f"release.environments.{name}.dsn")
    assert "hunter2" not in ran.output
    assert little.look() == before


def test_an_app_that_needs_node_is_refused_where_there_is_none(little: World) -> None:
    package = '{\n  "version": "0.1.1-dev",\n  "packageManager": "pnpm@10.0.0"\n}\n'
    little.set(("  title: Little", "  title: Little\n  install: [pnpm, install]"))
    little.settle("build: with pnpm", {"package.json": package})
    little.hide_node()
    before = little.look()
    assert little.release().refuses("Node 22.18 or newer is needed", "pip install")
    assert little.look() == before


def test_a_browser_that_does_not_start_is_found_before_anything_changes(little: World) -> None:
    browser = little.folder / "browser"
    browser.write_text("#!/bin/sh\necho '[1:ERROR:zygote_host_impl_linux.cc] No usable sandbox! If …' >&2\nexit 1\n")
    browser.chmod(0o755)
    little.settle("test: look at a page", {"acceptance/test_page.py": "def test_page(view): view('/')\n"})
    little.variables["BROWSER_BIN"] = str(browser)
    before = little.look()
    ran = little.release()
    assert ran.refuses("2. Preconditions", "does not start: No usable sandbox", "apt-get install chromium-sandbox")
    assert ran.output.count("No usable sandbox") == 1
    assert little.look() == before


FAILING = ("ddl/02_ops.sql, line 3", 'relation "app.nowhere" does not exist', "42P01")


def test_a_ddl_file_that_fails_is_found_on_dev_before_anything_changes(little: World) -> None:
    good = (little.repo / "ddl/02_ops.sql").read_text()
    little.settle("feat: a view", {"ddl/02_ops.sql": f"\n\nselect * from app.nowhere;\n{good}"})
    before = little.look()
    assert little.release().refuses(*FAILING)
    assert little.look() == before


@pytest.mark.slow
def test_a_ddl_file_that_fails_on_staging_only_is_fixed_by_the_next_version(little: World) -> None:
    """The tag is published by then and stays; production never sees it."""
    little.places["staging"].rows("create schema app; create view app.other as select 1")
    good = (little.repo / "ddl/02_ops.sql").read_text()
    other = "create table if not exists app.other ();\n\ncomment on table app.other is 'on staging it is a view';\n"
    little.settle("feat: a table", {"ddl/02_ops.sql": f"{other}{good}"})
    failing = ("ddl/02_ops.sql, line 3", '"other" is not a table', "42809")
    assert little.release().refuses("7. Deploy to Staging", *failing, "a fix is a new version")
    assert little.runs() == {"staging": None, "production": None}
    little.commit("fix: the table", {"ddl/02_ops.sql": good})
    assert little.release().refuses("ddl/02_ops.sql", "inv release --version 0.1.2")
    little.git("switch", "--quiet", "main")
    little.git("merge", "--quiet", "release/v0.1.1")
    little.push()
    fixed = ("deploy.staging", "--version", "0.1.2", "--highlights", "Fixed.")
    assert little.inv(*fixed).refuses("v0.1.1", 'inv withdraw --version 0.1.1 --reason "…"')
    assert little.inv("withdraw", "--version", "0.1.1", "--reason", "its DDL fails").code == 0
    little.git("pull", "--quiet", "origin", "main")
    ran = little.inv(*fixed)
    assert ran.code == 0, ran.output
    assert little.stamps() == {"staging": ["0.1.2"], "production": []}


def test_a_structural_shift_in_the_freeze_is_refused_unless_it_is_given_a_reason_which_is_told(little: World) -> None:
    little.kill(KILL_AFTER="*commit *ORDER.lock*")
    late, ops = "create table if not exists app.late ();\n", (little.repo / "ddl/02_ops.sql").read_text()
    little.commit("feat: late", {"ddl/03_late.sql": late, "ddl/02_ops.sql": None})
    before = little.look()
    moved = "removed ddl/02_ops.sql; added ddl/03_late.sql."
    assert little.release().refuses(f"Since the DDL order was locked: {moved}", "table app.late is new")
    assert little.look() == before
    little.commit("fix: not without", {"ddl/02_ops.sql": ops})
    assert little.inv("freeze", "--version", "0.1.1", "--allow-shift", "a law came").code == 0
    assert little.inv("notes", "--version", "0.1.1").code == 0
    notes = little.text_at("release/v0.1.1", "docs/releases/v0.1.1.md")
    assert "shift in the freeze, allowed because “a law came”: added ddl/03_late.sql; table app.late is new" in notes
    assert "ddl-shift" in [record["event"] for record in journal_records(little.journal)]


def test_a_critical_fix_in_the_freeze_is_taken_in(little: World) -> None:
    little.kill(KILL_AFTER="*commit *update version*")
    fixed = (little.repo / "ddl/02_ops.sql").read_text() + "-- mended\n"
    little.commit("fix: a critical one", {"ddl/02_ops.sql": fixed})
    assert little.inv("tag", "--version", "0.1.1").code == 0
    assert little.text_at("v0.1.1", "ddl/02_ops.sql").endswith("-- mended")


def test_without_a_terminal_and_without_yes_nothing_begins(little: World) -> None:
    before = little.look()
    assert little.inv("release", "--version", "0.1.1").refuses("typed confirmation", "--yes")
    assert little.look() == before
    assert little.inv("--dry", "release", "--version", "0.1.1").code == 0, "a dry run prompts nobody (M17)"


@pytest.mark.slow
def test_production_wants_the_version_typed_and_tells_what_is_ahead(little: World) -> None:
    waived = '@pytest.mark.waived("the law")\ndef test_ui_renders(api): api.get("/none")\n'
    little.settle("test: waive one", {"acceptance/test_waived.py": f"import pytest\n\n\n{waived}"})
    assert _typing(little, "n").refuses("fixes only: done?", "Announce the freeze: critical fixes only: not confirmed.")
    assert little.on_the_remote("refs/tags/v0.1.1") is None
    ran = _typing(little, "y\nyes")
    assert ran.refuses("Type 0.1.1 to go on", "Not confirmed: found 'yes', expected 0.1.1")
    _tells_what_is_ahead(little, ran)
    again = "inv release --version 0.1.1"
    assert _typing(little, "\x04").refuses("Not confirmed: found '', expected 0.1.1", again)
    assert little.stamps() == {"staging": ["0.1.1"], "production": []}
    assert not (little.places["production"].folder / "releases").exists()
    assert _typing(little, "0.1.1").code == 0
    assert little.is_released()


def _tells_what_is_ahead(little: World, ran: Ran) -> None:
    """M20: it named a stamp that was not set, and an order that was not so."""
    password = urlsplit(little.places["production"].dsn).password or ""
    assert "Type 0.1.1" in ran.output, ran.output
    shown = ran.output[ran.output.index("Staging: this release") : ran.output.index("Type 0.1.1")]
    ahead = [
        f"{little.places['production'].port}: nothing → Little v0.1.1",
        f"Commit {little.git('rev-parse', 'v0.1.1^{}')}",
        "DDL files to apply: 3: 00_schemas.sql, 01_app.sql, 02_ops.sql",
        "Waived: ui_renders: the law",
        "- Back up the database: pg_dump > ",
        "- Restore the backup on a scratch server",
        "- Put the code in place on every host: the tree of v0.1.1",
        "- Apply the DDL pack: ",
        "- Stamp the ops session: ",
        "- The smokes, and section 7.2, pass on the new code",
        "- Run it: ",
    ]
    places = [shown.find(words) for words in ahead]
    assert -1 not in places and places == sorted(places), shown
    assert password and password not in ran.output
    assert "evidence" not in shown, "that is a later section"


def _typing(little: World, text: str) -> Ran:
    """Run the release at a terminal where somebody types `text`."""
    person, terminal = pty.openpty()
    os.write(person, f"{text}\n".encode())
    try:
        return little.inv("release", "--version", "0.1.1", stdin=terminal)
    finally:
        os.close(person)
        os.close(terminal)


def test_an_unpushed_commit_on_main_is_released_with_it(little: World) -> None:
    commit = little.commit("feat: not pushed yet", {"more": ""})
    assert little.inv("tag", "--version", "0.1.1").code == 0
    git(little.remote, "merge-base", "--is-ancestor", commit, "refs/tags/v0.1.1")


def test_a_rehearsal_without_a_web_app_is_refused_at_once(little: World) -> None:
    little.set(('    web: ["${PYTHON}", web.py]', '    jobs: ["${PYTHON}", web.py]'))
    assert little.inv("rehearse").refuses("release.services.web does not say how")
