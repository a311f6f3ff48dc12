"""Section 6: the release notes, drafted from git, the DDL pack and CHANGELOG; a person owns the Highlights."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from string import Template

from release_tasks import screen, versions
from release_tasks.checks import document
from release_tasks.errors import NotYet, Problem, Refused, refuse
from release_tasks.files import read_checksums, sha256
from release_tasks.release import Release, Step
from release_tasks.sections import database_notes

TYPED = re.compile(r"^(?P<type>[a-z]+)(\([^)]*\))?!?: +(?P<rest>.+)$")
ADDED, CHANGED, FIXED, DEV = "added", "changed", "fixed", "dev"
KINDS = {"feat": ADDED, "add": ADDED, "fix": FIXED, "bugfix": FIXED, "hotfix": FIXED} | dict.fromkeys(
    ("docs", "test", "tests", "ci", "build", "chore", "style", "refactor"), DEV
)
VERBS = {"add": ADDED, "adds": ADDED, "added": ADDED, "fix": FIXED, "fixes": FIXED, "fixed": FIXED}
OUR_OWN = re.compile(r"^(release: |docs: update version \+ hashes for )")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
NONE = "- none"


def write_the_notes(release: Release, highlights: str | None = None) -> Step:
    """Write the release notes."""
    git, path = release.git, release.notes_path
    committed = git.text_at(release.tip, path)
    if committed is not None:
        refuse(notes_problems(committed, release))
        return path
    if not release.published:
        template_of(release)
        find_highlights(release, highlights, edit=False)
        raise NotYet("after the tag is pushed")
    found = find_highlights(release, highlights, edit=False)
    yield f"git commit {path}" + ("" if found else ", after the Highlights are written in $EDITOR")
    text = draft(release, found or find_highlights(release, highlights, edit=True))
    git.commit_files({path: text.encode()}, f"release: notes for {release.tag}")


def push_the_notes(release: Release) -> Step:
    """Push the notes."""
    git = release.git
    if release.is_over:
        return "they are on the main branch"
    if not release.published or git.text_at(release.tip, release.notes_path) is None:
        raise NotYet("after the notes are written")
    tip = release.tip
    if git.remote_refs.get(release.branch_ref) == tip:
        return f"{tip:.9}"
    yield f"git push {release.settings.remote} {release.branch_ref}"
    _push_a_submodule(release)
    git.push(f"{tip}:{release.branch_ref}")


def _push_a_submodule(release: Release) -> None:
    docs = release.settings.docs_pack
    if release.git.is_submodule(docs.folder):
        release.git.submodule(docs.folder).push(f"HEAD:refs/heads/{docs.submodule_branch}")


def notes_problems(text: str, release: Release) -> list[Problem]:
    """Return what is wrong with committed notes: another version's, or Highlights nobody wrote."""
    path, problems = release.notes_path, []
    title = next((line for line in text.splitlines() if line.startswith("# ")), "")
    if not re.search(rf"(?<![\w.]){re.escape(release.tag)}(?![-.\w])", title):
        problems.append(Problem(f"{path} has the title {title!r}; expected one with {release.tag}.", f"Fix {path}."))
    if not _written(_section_of(text, "Highlights")):
        problems.append(
            Problem(
                f"The Highlights of {path} are empty; expected what this release brings.",
                f"Write them into {path} and commit it on {release.branch}.",
            )
        )
    return problems


def find_highlights(release: Release, given: str | None, edit: bool) -> str:
    """Return the Highlights: as `given`, from notes begun by hand, CHANGELOG, or with `edit` from $EDITOR.

    Returns "" when only an editor can give them and `edit` is off; raises `Refused` when nothing can.
    """
    begun = release.root / release.notes_path
    begun_highlights = _section_of(begun.read_text(encoding="utf-8"), "Highlights") if begun.exists() else ""
    changelog = release.git.text_at(release.commit, release.settings.changelog) or ""
    found = (
        _given(given)
        or _written(begun_highlights)
        or _written_in(_edited_file(release))
        or _written(_section_of(changelog, title_of(release.version)))
    )
    if found:
        return found
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if sys.stdin.isatty() and editor:
        return _edited(editor, release) if edit else ""
    raise Refused(
        f"The notes need Highlights: {release.settings.changelog} has no text under a heading {release.version}, "
        "and no --highlights were given.",
        f'inv release --version {release.version} --highlights "…"   # or @file, or write the section in '
        f"{release.settings.changelog} before the tag",
    )


def _given(highlights: str | None) -> str:
    if highlights and highlights.startswith("@"):
        path = Path(highlights[1:])
        if not path.is_file():
            raise Refused(f"--highlights names the file {path}, which is not there.", "Give its path from here.")
        return _written(path.read_text(encoding="utf-8"))
    return _written(highlights or "")


def _edited(editor: str, release: Release) -> str:
    path = _edited_file(release)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<!-- What does {release.title} bring? These comment lines go away. -->\n", encoding="utf-8")
    with screen.handed_over():
        subprocess.run([*shlex.split(editor, posix=os.name != "nt"), str(path)], check=False)
    highlights = _written_in(path)
    if not highlights:
        raise Refused("The Highlights were left empty.", f"inv notes --version {release.version}")
    return highlights


def _edited_file(release: Release) -> Path:
    """Return where what was written in $EDITOR stays until it is committed, whatever stops the run."""
    return release.folder / "HIGHLIGHTS.md"


def _written_in(path: Path) -> str:
    return _written(path.read_text(encoding="utf-8")) if path.exists() else ""


def _written(text: str) -> str:
    """Return what a person wrote in `text`: without the template's comments and placeholders."""
    return COMMENT.sub("", text).replace("${highlights}", "").strip()


def title_of(version: str) -> str:
    """Return a pattern for how a heading of CHANGELOG names `version`: 0.1.1, v0.1.1, [0.1.1], but not 0.1.1-rc1."""
    return rf"\[?v?{re.escape(version)}\]?(?![-.\w])"


def _section_of(text: str, title: str) -> str:
    """Return what stands under the level-2 heading that begins with the pattern `title`."""
    found = re.search(rf"^## +{title}[^\n]*\n(?P<body>.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found["body"] if found else ""


def draft(release: Release, highlights: str) -> str:
    """Return the notes, filled in from docs/RELEASE_NOTES_TEMPLATE.md as committed."""
    git, commit = release.git, release.commit
    since = last_release(release)
    kinds = sorted_subjects(git.subjects(since and f"refs/tags/{since}", commit))
    return Template(template_of(release)).safe_substitute(
        title=release.title,
        version=release.version,
        tag=release.tag,
        date=f"{git.repo.commit(commit).committed_datetime:%Y-%m-%d}",
        since=since or "the beginning",
        highlights=highlights,
        **{kind: _bullets(kinds[kind]) for kind in (ADDED, CHANGED, FIXED, DEV)},
        database=_bullets(database_notes.database_changes(release, since)),
        evidence=_bullets(_evidence(release)),
        deployment=_bullets(_deployment_notes(release, since)),
    )


def template_of(release: Release) -> str:
    """Return the committed template without its comments."""
    path = f"{release.settings.docs_pack.folder}/RELEASE_NOTES_TEMPLATE.md"
    template = release.git.text_at(release.commit, path)
    if template is None:
        raise Refused(f"{path} is not committed; the notes are made from it.", f"Add {path} and commit it.")
    return COMMENT.sub("", template).lstrip()


def last_release(release: Release) -> str | None:
    """Return the tag of the release before this one, in the history of the release commit."""
    tagged = [versions.version_named(tag) for tag in release.git.tagged_on(release.commit)]
    before = versions.highest([found for found in tagged if found and versions.is_past(release.version, found)])
    return f"v{before}" if before else None


def sorted_subjects(subjects: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Return kind → lines of commit subjects, by conventional type, by verb, else `changed`; ours left out."""
    kinds: dict[str, list[str]] = {ADDED: [], CHANGED: [], FIXED: [], DEV: []}
    for commit, subject in subjects:
        if OUR_OWN.match(subject):
            continue
        typed = TYPED.match(subject)
        said = typed["rest"] if typed and typed["type"] in KINDS else subject
        text = typed["rest"] if typed else subject
        kind = KINDS.get(typed["type"] if typed else "") or VERBS.get(text.split(" ")[0].lower(), CHANGED)
        kinds[kind].append(f"{said} ({commit:.9})")
    return kinds


def _deployment_notes(release: Release, since: str | None) -> list[str]:
    lines = database_notes.deployment(release, since)
    path = f"{release.settings.folder}/.env.example".removeprefix("./")
    now = _variables(release.git.text_at(release.commit, path))
    then = _variables(release.git.text_at(f"refs/tags/{since}", path) if since else "")
    for what, names in (("new environment variables", now - then), ("environment variables that are gone", then - now)):
        if names:
            lines.append(f"{what}: {', '.join(f'`{name}`' for name in sorted(names))}")
    return lines


def _variables(text: str | None) -> set[str]:
    return set(re.findall(r"^#? ?([A-Z][A-Z0-9_]*)=", text or "", re.MULTILINE))


def _evidence(release: Release) -> list[str]:
    path = release.settings.docs_pack.hashes
    hashes = release.git.bytes_at(release.commit, path) or b""
    waivers = document.waivers(release.root).items()
    return [
        f"tag `{release.tag}`, commit `{release.commit}`",
        f"`{path}`: {len(read_checksums(hashes))} files, its own SHA-256 is `{sha256(hashes)}`",
        f"DDL order: `{release.settings.ddl.lock}`",
        *(f"waived on staging: {condition}: {reason}" for condition, reason in waivers),
    ]


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or NONE
