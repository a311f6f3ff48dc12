"""Section 6: the release notes, drafted from git, the DDL pack and CHANGELOG; a person owns the Highlights."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from string import Template

from release_tasks import screen
from release_tasks.checks import document
from release_tasks.errors import Problem, Refused, refuse, require
from release_tasks.files import atomic_write, read_checksums, read_text, sha256
from release_tasks.release import Release, Step
from release_tasks.sections import database_notes

TYPED = re.compile(r"^(?P<type>[a-z]+)(\([^)]*\))?!?: +(?P<rest>.+)$")
ADDED, CHANGED, FIXED, DEV = "added", "changed", "fixed", "dev"
TYPES = {"feat": ADDED, "add": ADDED, "fix": FIXED, "bugfix": FIXED, "hotfix": FIXED} | dict.fromkeys(
    ("docs", "test", "tests", "ci", "build", "chore", "style", "refactor"), DEV
)
VERBS = {"add": ADDED, "adds": ADDED, "added": ADDED, "fix": FIXED, "fixes": FIXED, "fixed": FIXED}
OUR_OWN = re.compile(r"^(release: |docs: update version \+ hashes for )")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def write_the_notes(release: Release, highlights: str | None = None) -> Step:
    """Write the release notes."""
    git, path = release.git, release.notes_path
    committed = git.text_at(release.tip, path)
    if committed is not None:
        refuse(notes_problems(committed, release))
        return path
    template_of(release)
    found = find_highlights(release, highlights)
    require(release.published, "after the tag is pushed")
    yield f"git commit {path}" + ("" if found else ", after the Highlights are written in $EDITOR")
    text = draft(release, found or edited_highlights(release))
    git.commit_files({path: text.encode()}, f"release: notes for {release.tag}")


def push_the_notes(release: Release) -> Step:
    """Push the notes."""
    git, tip, docs = release.git, release.tip, release.settings.docs_pack
    if release.is_over:
        return "they are on the main branch"
    is_written = release.published and git.text_at(tip, release.notes_path) is not None
    require(is_written, "after the notes are written")
    if git.remote_refs.get(release.branch_ref) == tip:
        return f"{tip:.9}"
    yield f"git push {release.settings.remote} {release.branch_ref}"
    if submodule := git.submodule(docs.folder):
        submodule.push(f"HEAD:refs/heads/{docs.submodule_branch}")
    git.push(f"{tip}:{release.branch_ref}")


def notes_problems(text: str, release: Release) -> list[Problem]:
    """Return what is wrong with committed notes: another version's, or Highlights nobody wrote."""
    path, problems = release.notes_path, []
    title = next((line for line in text.splitlines() if line.startswith("# ")), "")
    if not re.search(rf"(?<![\w.]){re.escape(release.tag)}(?![-.\w])", title):
        problems.append(Problem(f"{path} has the title {title!r}; expected one with {release.tag}.", f"Fix {path}."))
    if not _written(_section_of(text, "Highlights")):
        what = f"The Highlights of {path} are empty; expected what this release brings."
        problems.append(Problem(what, f"Write them into {path} and commit it on {release.branch}."))
    return problems


def find_highlights(release: Release, given: str | None) -> str:
    """Return the Highlights: as `given`, from notes begun by hand, as typed before, or from CHANGELOG.

    Returns "" where an editor has to give them; raises `Refused` where none can.
    """
    changelog = release.settings.changelog
    found = (
        _written(_text_given(given or ""))
        or _written(_section_of(read_text(release.root / release.notes_path), "Highlights"))
        or _written(read_text(_typed(release)))
        or _written(_section_of(release.git.text_at(release.commit, changelog) or "", title_of(release.version)))
    )
    if not found and not _editor():
        section = f"{changelog} has no text under a heading {release.version}"
        raise Refused(
            f"The notes need Highlights: {section}, and no --highlights were given.",
            f'inv release --version {release.version} --highlights "…"   # or @file, or the section, before the tag',
        )
    return found


def _text_given(highlights: str) -> str:
    path = Path(highlights[1:])
    if not highlights.startswith("@"):
        return highlights
    if not path.exists():
        raise Refused(f"--highlights names the file {path}, which is not there.", "Give its path from here.")
    return read_text(path)


def _typed(release: Release) -> Path:
    """Return where what was written in $EDITOR stays until it is committed, whatever stops the run."""
    return release.folder / "HIGHLIGHTS.md"


def _editor() -> list[str]:
    """Return $VISUAL or $EDITOR as a command, [] without one or a terminal. Raises `Refused` for a wrong one."""
    editor, fix = os.environ.get("VISUAL") or os.environ.get("EDITOR"), 'export EDITOR=vi   # or give --highlights "…"'
    if not editor or not sys.stdin or not sys.stdin.isatty():
        return []
    try:
        words = shlex.split(editor, posix=os.name != "nt")
    except ValueError as no:
        raise Refused(f"$EDITOR is {editor!r}, which is no command: {no}.", fix) from None
    if not words or not shutil.which(words[0]):
        raise Refused(f"$EDITOR is {editor!r}, and there is no such program.", fix)
    return words


def edited_highlights(release: Release) -> str:
    """Return the Highlights that a person writes in $EDITOR now."""
    path = _typed(release)
    atomic_write(path, f"<!-- What does {release.title} bring? These comment lines go away. -->\n".encode())
    with screen.handed_over():
        subprocess.run([*_editor(), str(path)], check=False)
    if highlights := _written(read_text(path)):
        return highlights
    raise Refused("The Highlights were left empty.", f"inv notes --version {release.version}")


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
    git, commit, since = release.git, release.commit, database_notes.last_release(release)
    kinds = sorted_subjects(git.subjects(since and f"refs/tags/{since}", commit))
    return Template(template_of(release)).safe_substitute(
        title=release.title,
        version=release.version,
        tag=release.tag,
        date=f"{git.repo.commit(commit).committed_datetime:%Y-%m-%d}",
        since=since or "the beginning",
        highlights=highlights,
        **{kind: _bullets(lines) for kind, lines in kinds.items()},
        database=_bullets(database_notes.database_changes(release)),
        evidence=_bullets(_evidence(release)),
        deployment=_bullets([*database_notes.deployment(release), *_new_variables(release, since)]),
    )


def template_of(release: Release) -> str:
    """Return the committed template without its comments."""
    path = f"{release.settings.docs_pack.folder}/RELEASE_NOTES_TEMPLATE.md"
    template = release.git.text_at(release.commit, path)
    if template is None:
        raise Refused(f"{path} is not committed; the notes are made from it.", f"Add {path} and commit it.")
    return COMMENT.sub("", template).lstrip()


def sorted_subjects(subjects: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Return kind → lines of commit subjects, by conventional type, by verb, else `changed`; ours left out."""
    kinds: dict[str, list[str]] = {ADDED: [], CHANGED: [], FIXED: [], DEV: []}
    for commit, subject in subjects:
        typed = TYPED.match(subject)
        kind, rest = (TYPES.get(typed["type"]), typed["rest"]) if typed else (None, subject)
        lines = kinds[kind or VERBS.get(rest.split(" ")[0].lower(), CHANGED)]
        if not OUR_OWN.match(subject):
            lines.append(f"{rest if kind else subject} ({commit:.9})")
    return kinds


def _new_variables(release: Release, since: str | None) -> list[str]:
    """Return which environment variables came and went, as .env.example names them."""
    git, path = release.git, f"{release.settings.folder}/.env.example".removeprefix("./")
    texts = git.text_at(f"refs/tags/{since}", path) if since else "", git.text_at(release.commit, path)
    then, now = (set(re.findall(r"^#? ?([A-Z][A-Z0-9_]*)=", text or "", re.MULTILINE)) for text in texts)
    found = {"new environment variables": now - then, "environment variables that are gone": then - now}
    return [f"{what}: {', '.join(f'`{name}`' for name in sorted(names))}" for what, names in found.items() if names]


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
    return "\n".join(f"- {line}" for line in lines) or "- none"
