"""Section 6: the release notes, drafted from git, the DDL pack and CHANGELOG; a person owns the Highlights."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from string import Template

from release_tasks import changelog, ddl
from release_tasks.checks import document
from release_tasks.commits import commit_step, harmless, history, lines_of
from release_tasks.database import proof
from release_tasks.database.pack import changes, recorded
from release_tasks.errors import Refused, counted, refuse, require
from release_tasks.files import read_checksums, read_text, sha256
from release_tasks.release import Release, Step
from release_tasks.sections import docs_pack, landing

NOTED = {  # of what a file was seen to do: kind → how that begins
    "lock (ACCESS EXCLUSIVE)": "` locks ",
    "takes long on a large table": "` rewrites ",
    "cannot be undone": "` (drops|empties|changes rows of) ",
}


def write_the_notes(release: Release, highlights: str | None = None) -> Step:
    """Write the release notes."""
    path, committed = release.notes_path, release.git.text_at(release.tip, release.notes_path)
    text = find_highlights(release, highlights) if committed is None else ""
    notes = template_of(release).replace("${highlights}", text) if committed is None else committed
    found = changelog.section(notes, "Highlights")  # as they are read again
    if not (found and changelog.written(found["text"])):
        what = f"The Highlights of {path} are empty: there is no text under a heading `## Highlights`"
        why = "." if committed is not None else ", for the template has none, or they begin with another one."
        write = f"Write {path} with that heading, and commit it on the release branch."
        template = f"{release.settings.docs_pack.folder}/RELEASE_NOTES_TEMPLATE.md"
        fix = f"Let {template} have that, then ${{highlights}}, and commit it."
        raise Refused(f"{what}{why}", write if committed is not None or release.published else fix)
    if committed is not None:
        return f"{path}{', as committed: --highlights changes nothing any more' if highlights else ''}"
    require(release.published, "after the tag is pushed")
    yield f"git commit {path}"
    files = {path: draft(release, text).encode()}
    commit_step(release.git, files, f"release: notes for {release.tag}", f"{release.tag} notes")


def push_the_notes(release: Release) -> Step:
    """Push the notes."""
    git, tip, docs = release.git, release.tip, release.settings.docs_pack
    if release.is_over:
        return "they are on the main branch"
    require(release.published and git.text_at(tip, release.notes_path) is not None, "after the notes are written")
    if git.contains(git.remote_commit(release.branch_ref) or "", tip):
        return f"{tip:.9}"
    refuse([*landing.behind_problems(release, release.branch), *docs_pack.behind_problems(release, even_tagged=True)])
    yield f"git push {release.settings.remote} {release.branch_ref}"
    if submodule := git.submodule(docs.folder):
        recorded = git.object_named(f"{tip}:{docs.folder}")
        submodule.push(f"{recorded}:refs/heads/{docs.submodule_branch}")
    release.lock.push(f"{tip}:{release.branch_ref}", what="has its notes")


def find_highlights(release: Release, given: str | None) -> str:
    """Return the Highlights: as `given`, or from CHANGELOG; raises `Refused` where none has them."""
    path, file = release.settings.changelog, Path((given or "").removeprefix("@"))
    if given and given.startswith("@"):
        if not file.is_file():
            raise Refused(f"--highlights names the file {file}, which is not there.", "Give its path from here.")
        given = read_text(file)
    committed = release.git.text_at(release.commit, path) or ""
    section = changelog.section(committed, changelog.title_pattern(release.version), changelog.UNRELEASED)
    found = changelog.written(given or "") or changelog.written(section["text"] if section else "")
    if not found:
        heading = section["title"] if section else f"{release.version} or Unreleased"
        what = f"{path} has no text under a heading {heading}, as it is committed, and no --highlights came."
        write = f"Write them below a heading {release.version} of {path}, and commit that."
        if release.published:  # whose CHANGELOG stays as it is
            write = f'inv notes --version {release.version} --highlights "…"'
        again = release.again(write, highlights="…")
        hint = again if release.published or again == write else f"{again}   # or: {write}"
        raise Refused(f"The notes need Highlights: {what}", hint)
    return found


def draft(release: Release, highlights: str) -> str:
    """Return the notes, filled in from docs/RELEASE_NOTES_TEMPLATE.md as committed."""
    git, commit, since, template = release.git, release.commit, release.last(for_notes=True), template_of(release)
    kinds = lines_of(history(git, since and f"refs/tags/{since}", commit))
    if kinds["breaking"] and "${breaking}" not in template:
        before, heading, after = template.partition("\n## ")
        template = f"{before}\n## Breaking Changes\n\n${{breaking}}\n{heading}{after}"
    database, deployment = _database(release, since)
    path = release.settings.docs_pack.hashes
    hashes = git.bytes_at(commit, path) or b""
    evidence = [
        f"tag `{release.tag}`, commit `{commit}`",
        f"`{path}`: {len(read_checksums(hashes))} files, its own SHA-256 is `{sha256(hashes)}`",
        f"DDL order: `{release.settings.ddl.lock}`",
        *(f"waived on staging: {item}: {reason}" for item, reason in document.waivers(release.root).items()),
    ]
    return Template(template).safe_substitute(
        title=release.title,
        version=release.version,
        tag=release.tag,
        date=f"{git.repo.commit(commit).committed_datetime:%Y-%m-%d}",
        since=since or "the beginning",
        highlights=highlights,
        **{kind: _bullets(lines) for kind, lines in kinds.items()},
        database=_bullets(map(harmless, database)),
        evidence=_bullets(evidence),
        deployment=_bullets([*deployment, *_new_variables(release, since)]),
    )


def template_of(release: Release) -> str:
    """Return the committed template without its comments."""
    path = f"{release.settings.docs_pack.folder}/RELEASE_NOTES_TEMPLATE.md"
    template = release.git.text_at(release.commit, path)
    if template is None:
        raise Refused(f"{path} is not committed; the notes are made from it.", f"Add {path} and commit it.")
    return changelog.COMMENT.sub("", template).lstrip()


def _database(release: Release, since: str | None) -> tuple[list[str], list[str]]:
    """Return what the DDL pack changes since the tag `since`, and what an operator has to know of that."""
    last, now, settings, root = release.pack_of(since), release.pack, release.settings, release.root
    moved, fixes = changes(last, now), [*recorded(release.git, release.commit, release.tag)]
    if not moved:
        return fixes, []
    applied = (
        f"the DDL pack {'has changed' if last else 'is new'}: `inv deploy.staging` applies it with "
        f"`{' '.join(settings.ddl.command) or 'psql'}`, `inv deploy.production` too, after a backup"
    )
    if not last:
        return [f"first release of the pack: {counted(len(now), 'file')}", *fixes], [applied]
    objects = proof.objects_changed(last, now, root, settings) or ["the same objects as before"]
    files = ddl.proof_of(now, last, root, settings).files
    lines = [f"`{path}` {each}" for path, does in files.items() for each in does]
    noted = [f"{kind}: {line}" for kind, pattern in NOTED.items() for line in lines if re.search(pattern, line)]
    return [*objects, f"files: {'; '.join(moved)}", *fixes], [applied, *noted]


def _new_variables(release: Release, since: str | None) -> list[str]:
    """Return which environment variables came and went, as .env.example names them."""
    path = PurePosixPath(release.settings.folder, ".env.example").as_posix()
    before = release.git.text_at(f"refs/tags/{since}", path) if since else ""
    texts = before, release.git.text_at(release.commit, path)
    then, now = (set(re.findall(r"^#? ?([A-Z][A-Z0-9_]*)=", text or "", re.MULTILINE)) for text in texts)
    found = {"new environment variables": now - then, "environment variables that are gone": then - now}
    return [f"{what}: {', '.join(f'`{name}`' for name in sorted(names))}" for what, names in found.items() if names]


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or "- none"
