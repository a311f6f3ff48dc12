"""The document is the program: each condition and each smoke that it names has a test that is named like it."""

from __future__ import annotations

from pathlib import Path

import pytest

from release_tasks.checks import document

ROOT = Path(__file__).resolve().parents[2]
PROCESS = """# Release process

## 2. Preconditions

- The tree is clean. *checked*
- Smokes pass on dev:
  - Schema diagnostics
  - Persistence auto-smoke
- The tag is free. *checked*

## 7. Deploy to Staging

### 7.1 Steps

- The code is put in place. *done*

### 7.2 Acceptance

Release proceeds only if:

- API OK
- UI renders
  all views. *checked*
* Sampling/matrices are fresh

## 8. Deploy to Production

- A person confirms.
"""
TESTS = """
import pytest

def test_api_ok(api): pass

@pytest.mark.waived("there is no UI; #7")
@pytest.mark.parametrize("path", ["/"])
def test_ui_renders_all_views(view, path): pass

def test_sampling_matrices_are_fresh(series): pass
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    for name, text in {
        "docs/RELEASE_PROCESS.md": PROCESS,
        "acceptance/test_app.py": TESTS,
        "smokes/test_schema_diagnostics.py": '"""Is it whole?"""',
        "smokes/test_persistence_auto_smoke.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_items_of_section_7_2_are_the_conditions(repo: Path) -> None:
    assert [*document.conditions(repo).values()] == ["API OK", "UI renders all views", "Sampling/matrices are fresh"]
    assert [*document.condition_problems(repo), *document.smoke_problems(repo)] == []


def test_smokes_that_pass_and_are_not_named_block(repo: Path) -> None:
    """All but one had gone in an upgrade, and nobody asked for them."""
    in_one_line = PROCESS.replace("dev:\n  - Schema diagnostics\n  - P", "dev: schema diagnostics, p")
    (repo / "docs" / "RELEASE_PROCESS.md").write_text(in_one_line)
    (problem,) = document.smoke_problems(repo)
    assert problem.what.endswith("says that smokes pass, and no list item below it says which.")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("- UI renders", "#### Views\n\n- UI renders"),
        ("- UI renders", "```sh\n# to see them\n- not an item\n```\n\n- UI renders"),
        ("- UI renders", "```sh\nmake\n``` \n\n- UI renders"),
        ("- UI renders", "~~~sh title=`a`\nmake\n~~~\n\n- UI renders"),
        ("- UI renders", "````\n```\n- not an item\n````\n\n- UI renders"),
        ("- UI renders", "```inv accept``` checks them.\n\n- UI renders"),
        ("- The tree is clean", "### The tree\n\n- The tree is clean"),
        ("  - Schema diagnostics\n  - P", "\t- Schema diagnostics\n\t- P"),
    ],
    ids=[
        "a heading within",
        "a comment in code",
        "a space after",
        "tildes",
        "more marks",
        "code in a line",
        "a heading before the smokes",
        "tabs",
    ],
)
def test_what_is_written_in_between_hides_no_item(repo: Path, old: str, new: str) -> None:
    """Conditions and smokes below it were asked for by nobody."""
    assert PROCESS.count(old) == 1
    more = "\n```sh\ninv accept\n```\n~~~\n~~~\n* Sampling"  # a block below, with which the first could end
    (repo / "docs" / "RELEASE_PROCESS.md").write_text(PROCESS.replace(old, new).replace("\n* Sampling", more))
    assert [*document.conditions(repo).values()] == ["API OK", "UI renders all views", "Sampling/matrices are fresh"]
    for file in (repo / "smokes").iterdir():
        file.unlink()
    (repo / "smokes" / "test_other.py").touch()
    assert len([*document.smoke_problems(repo)]) == 2


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ("No gaps in ingest", "no_gaps_in_ingest"),
        ("Persistence auto-smoke", "persistence_auto_smoke"),
        ("Sampling/matrices are fresh", "sampling_matrices_are_fresh"),
    ],
)
def test_an_item_is_the_name_of_its_test(repo: Path, item: str, name: str) -> None:
    (repo / "docs" / "RELEASE_PROCESS.md").write_text(f"### 7.2 Acceptance\n\n- {item}.\n")
    assert document.conditions(repo) == {name: item}


def test_what_has_no_test_is_said_with_the_name_to_write(repo: Path) -> None:
    (repo / "acceptance" / "test_app.py").write_text(TESTS.replace("def test_api_ok", "def test_api"))
    (repo / "smokes" / "test_persistence_auto_smoke.py").rename(repo / "smokes" / "test_persistence.py")
    (condition,), (smoke,) = document.condition_problems(repo), document.smoke_problems(repo)
    assert "names 'API OK', which has no test" in condition.what and "def test_api_ok" in condition.hint
    assert "'Persistence auto-smoke'" in smoke.what and "smokes/test_persistence_auto_smoke.py" in smoke.hint


def test_items_without_a_test_are_said_in_the_order_of_the_document(repo: Path) -> None:
    items = [f"Item {letter}" for letter in "hgfedcba"]
    text = "### 7.2 Acceptance\n\n" + "".join(f"- {item}\n" for item in items)
    (repo / "docs" / "RELEASE_PROCESS.md").write_text(text)
    assert [problem.what.split("'")[1] for problem in document.condition_problems(repo)] == items


@pytest.mark.parametrize("mark", ["#", ""])
def test_a_numbered_list_is_no_section(repo: Path, mark: str) -> None:
    """Its second item was taken for section 2, so that no smoke was asked for."""
    text = PROCESS.replace("## 2.", "## 1. Purpose\n\n1. One line.\n2. Another.\n\n## 2.")
    (repo / "docs" / "RELEASE_PROCESS.md").write_text(text if mark else PROCESS.replace("#", ""))
    (repo / "smokes" / "test_schema_diagnostics.py").unlink()
    (problem,) = document.smoke_problems(repo)
    assert "'Schema diagnostics'" in problem.what


def test_a_section_without_a_list_is_refused(repo: Path) -> None:
    """As the process was first written: plain lines, which would all be passed over."""
    text = "7.2 Acceptance\n\nRelease proceeds only if:\n\nAPI OK\n\n8. Deploy to Production\n\n- A person confirms\n"
    (repo / "docs" / "RELEASE_PROCESS.md").write_text(text)
    (problem,) = document.condition_problems(repo)
    assert "has no list item, so nothing would be checked" in problem.what


def test_a_repo_without_the_document_runs_the_tests_it_has_at_least_one(repo: Path) -> None:
    (repo / "docs" / "RELEASE_PROCESS.md").unlink()
    assert [*document.condition_problems(repo), *document.smoke_problems(repo)] == []
    for file in [*repo.glob("smokes/*"), *repo.glob("acceptance/*")]:
        file.unlink()
    (condition,), (smoke,) = document.condition_problems(repo), document.smoke_problems(repo)
    assert "There is no test" in condition.what and "There is no test" in smoke.what


def test_a_waiver_is_a_mark_with_a_reason_on_the_test(repo: Path) -> None:
    """C13."""
    assert document.waivers(repo) == {"UI renders all views": "there is no UI; #7"}
    (repo / "acceptance" / "test_app.py").write_text(TESTS.replace('"there is no UI; #7"', "'it is \"the law\"'"))
    assert document.waivers(repo) == {"UI renders all views": 'it is "the law"'}
    (repo / "acceptance" / "test_app.py").write_text(TESTS.replace('"there is no UI; #7"', "REASON"))
    assert document.waivers(repo) == {"UI renders all views": "REASON"}  # never one that the notes do not show


def test_a_browser_is_used_where_a_test_that_is_not_waived_asks_for_one(repo: Path) -> None:
    assert not document.uses_a_browser(repo)
    (repo / "smokes" / "test_page.py").write_text("def test_a(page): pass")
    assert document.uses_a_browser(repo)


def test_this_repo_has_the_tests_that_its_document_names() -> None:
    assert [*document.condition_problems(ROOT), *document.smoke_problems(ROOT)] == []
    assert len(document.conditions(ROOT)) == 5
