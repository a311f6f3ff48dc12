"""Section 6: the release notes, drafted from git, the DDL pack and CHANGELOG; a person owns the Highlights."""

import re
from collections.abc import Sequence
from pathlib import Path
from string import Template

from release_tasks import ddl
from release_tasks.checks import document
from release_tasks.database import drift
from release_tasks.database.pack import DdlFile, changes, recorded
from release_tasks.errors import Problem, Refused, refuse, require
from release_tasks.files import read_checksums, read_text, sha256
from release_tasks.release import Release, Step

TYPED = re.compile(r"^(?P<type>[a-z]+)(\([^)]*\))?!?: +(?P<rest>.+)$")
ADDED, CHANGED, FIXED, DEV = KINDS = "added", "changed", "fixed", "dev"
TYPES = {"feat": ADDED, "add": ADDED, "fix": FIXED, "bugfix": FIXED, "hotfix": FIXED, "perf": CHANGED} | dict.fromkeys(
    ("docs", "test", "tests", "ci", "build", "chore", "style", "refactor"), DEV
)
VERBS = {"add": ADDED, "adds": ADDED, "added": ADDED, "fix": FIXED, "fixes": FIXED, "fixed": FIXED}
OUR_OWN = re.compile(r"^(release: |docs: update version \+ hashes for )")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
NOTED = {  # of what a file was seen to do: kind → how that begins
    "lock (ACCESS EXCLUSIVE)": "` locks ",
    "takes long on a large table": "` rewrites ",
    "cannot be undone": "` (drops|empties|changes rows of) ",
}


def write_the_notes(release: Release, highlights: str | None = None) -> Step:
    """Write the release notes."""
    committed = release.git.text_at(release.tip, release.notes_path)
    if committed is not None:
        refuse(notes_problems(committed, release))
        return release.notes_path
    template_of(release)
    found = find_highlights(release, highlights)
    require(release.published, "after the tag is pushed")
    yield f"git commit {release.notes_path}"
    release.git.commit_files({release.notes_path: draft(release, found).encode()}, f"release: notes for {release.tag}")


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
    """Return the Highlights: as `given`, or from CHANGELOG; raises `Refused` where none has them."""
    changelog, file = release.settings.changelog, Path((given or "").removeprefix("@"))
    if given and given.startswith("@"):
        if not file.exists():
            raise Refused(f"--highlights names the file {file}, which is not there.", "Give its path from here.")
        given = read_text(file)
    found = _written(given or "") or _written(
        _section_of(release.git.text_at(release.commit, changelog) or "", title_of(release.version))
    )
    if not found:
        what = f"{changelog} has no text under a heading {release.version}, and no --highlights were given."
        write = f"Write them below a heading {release.version} of {changelog}, and commit that."
        again = release.again(write, highlights="…")
        raise Refused(f"The notes need Highlights: {what}", again if again == write else f"{again}   # or: {write}")
    return found


def _written(text: str) -> str:
    """Return what a person wrote in `text`: without the template's comments and placeholders."""
    return COMMENT.sub("", text).replace("${highlights}", "").strip(" …\n")


def title_of(version: str) -> str:
    """Return a pattern for how a heading of CHANGELOG names `version`: 0.1.1, v0.1.1, [0.1.1], but not 0.1.1-rc1."""
    return rf"\[?v?{re.escape(version)}\]?(?![-.\w])"


def _section_of(text: str, title: str) -> str:
    """Return what stands under the level-2 heading that begins with the pattern `title`."""
    found = re.search(rf"^## +{title}[^\n]*\n(?P<body>.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found["body"] if found else ""


def draft(release: Release, highlights: str) -> str:
    """Return the notes, filled in from docs/RELEASE_NOTES_TEMPLATE.md as committed."""
    git, commit, since = release.git, release.commit, release.last
    kinds = sorted_subjects(git.subjects(since and f"refs/tags/{since}", commit))
    path = release.settings.docs_pack.hashes
    hashes = git.bytes_at(commit, path) or b""
    evidence = [
        f"tag `{release.tag}`, commit `{commit}`",
        f"`{path}`: {len(read_checksums(hashes))} files, its own SHA-256 is `{sha256(hashes)}`",
        f"DDL order: `{release.settings.ddl.lock}`",
        *(f"waived on staging: {item}: {reason}" for item, reason in document.waivers(release.root).items()),
    ]
    return Template(template_of(release)).safe_substitute(
        title=release.title,
        version=release.version,
        tag=release.tag,
        date=f"{git.repo.commit(commit).committed_datetime:%Y-%m-%d}",
        since=since or "the beginning",
        highlights=highlights,
        **{kind: _bullets(lines) for kind, lines in kinds.items()},
        database=_bullets(database_changes(release)),
        evidence=_bullets(evidence),
        deployment=_bullets([*_deployment(release), *_new_variables(release)]),
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
    kinds: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for commit, subject in subjects:
        typed = TYPED.match(subject)
        kind, rest = (TYPES.get(typed["type"]), typed["rest"]) if typed else (None, subject)
        lines = kinds[kind or VERBS.get(rest.split(" ")[0].lower(), CHANGED)]
        if not OUR_OWN.match(subject):
            lines.append(f"{rest if kind else subject} ({commit:.9})")
    return kinds


def database_changes(release: Release) -> list[str]:
    """Return the objects and files in which the pack differs from the last release's; the first is counted."""
    last, now = release.last_pack, release.pack
    moved, fixes = changes(last, now), recorded(release.git, release.commit, release.tag)
    if not last:
        return [f"first release of the pack: {len(now)} files", *fixes]
    objects = (objects_changed(last, now, release) or ["the same objects as before"]) if moved else []
    return [*objects, *([f"files: {'; '.join(moved)}"] if moved else []), *fixes]


def objects_changed(before: Sequence[DdlFile], now: Sequence[DdlFile], release: Release) -> list[str]:
    """Return which objects the pack `now` makes differently than `before`; one line where they cannot be compared."""
    try:
        return [str(shift) for shift in drift.shifts(before, now, release.root, release.settings)]
    except Refused as no:
        return [f"the objects of the two packs cannot be compared: {no}"]


def _deployment(release: Release) -> list[str]:
    """Return what an operator has to know: how the pack is applied, what it locks, what cannot be undone."""
    last, now = release.last_pack, release.pack
    if not changes(last, now):
        return []
    files = ddl.proof_of(now, last, release.root, release.settings).files if last else {}
    lines = [f"`{path}` {each}" for path, does in files.items() for each in does]
    runner = " ".join(release.settings.ddl.command) or "psql"
    return [
        f"the DDL pack {'has changed' if last else 'is new'}: `inv deploy.staging` applies it with `{runner}`, "
        "`inv deploy.production` too, after a backup",
        *(f"{kind}: {line}" for kind, pattern in NOTED.items() for line in lines if re.search(pattern, line)),
    ]


def _new_variables(release: Release) -> list[str]:
    """Return which environment variables came and went, as .env.example names them."""
    path = f"{release.settings.folder}/.env.example".removeprefix("./")
    before = release.git.text_at(f"refs/tags/{release.last}", path) if release.last else ""
    texts = before, release.git.text_at(release.commit, path)
    then, now = (set(re.findall(r"^#? ?([A-Z][A-Z0-9_]*)=", text or "", re.MULTILINE)) for text in texts)
    found = {"new environment variables": now - then, "environment variables that are gone": then - now}
    return [f"{what}: {', '.join(f'`{name}`' for name in sorted(names))}" for what, names in found.items() if names]


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or "- none"
