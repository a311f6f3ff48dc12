"""Section 4: VERSION, SOURCE_TAG and the hashes of what the release stands on."""

from __future__ import annotations

import json
import re

from release_tasks.database.pack import pack_at, tag_of
from release_tasks.errors import NotYet, Problem, Refused, listed, refuse
from release_tasks.files import checksum_lines, read_checksums, sha256
from release_tasks.git import Git, differing
from release_tasks.release import Release, Step

VERSION_ENTRY = re.compile(r'"version"\s*:\s*"([^"]*)"')


def write_the_docs_pack(release: Release) -> Step:
    """Regenerate VERSION, SOURCE_TAG and the hashes."""
    if release.published:
        return f"in {release.published:.9}"
    tip = release.tip
    refuse(include_problems(release, tip))
    if tag_of(release.git.text_at(tip, release.settings.ddl.lock) or "") != release.tag:
        raise NotYet("after the DDL order is locked")
    pack = expected_pack(release, tip)
    stale = differing(pack, release.git, tip)
    if not stale:
        return f"{len(read_checksums(pack[release.settings.docs_pack.hashes]))} hashes"
    yield f"git commit {listed(stale)}"
    release.git.commit_files(pack, f"docs: update version + hashes for {release.tag}")


def publish_the_docs_submodule(release: Release) -> Step:
    """Tag and push the docs where they are a submodule."""
    folder = release.settings.docs_pack.folder
    if not release.git.is_submodule(folder):
        return "they are no submodule"
    if release.published:
        return "settled when the tag was published"
    if differing({"VERSION": f"{release.version}\n".encode()}, release.git, release.tip):
        raise NotYet("after the docs pack is built")
    docs = release.git.submodule(folder)
    commit, branch = docs.commit_named("HEAD"), f"refs/heads/{release.settings.docs_pack.submodule_branch}"
    tagged = docs.commit_named(release.tag_ref)
    if tagged not in (None, commit):
        raise Refused(
            f"In {folder}/, {release.tag} names {tagged:.9}, not the docs pack's commit {commit:.9}.",
            f"git -C {folder} tag --delete {release.tag}   # if it is a mistake",
        )
    there = docs.remote_refs
    if tagged and there.get(release.tag_ref) == docs.object_named(release.tag_ref) and there.get(branch) == commit:
        return f"{folder}/ {commit:.9}"
    yield f"git -C {folder} tag --annotate {release.tag}; git -C {folder} push --atomic HEAD:{branch} {release.tag_ref}"
    if not tagged:
        docs.run("tag", "--annotate", "--message", release.title, release.tag, commit or "HEAD")
    docs.push(f"HEAD:{branch}", release.tag_ref)


def paths(release: Release) -> set[str]:
    """Return the paths that section 4 writes."""
    settings = release.settings
    found = {"VERSION", "SOURCE_TAG", settings.docs_pack.hashes, *settings.version_files}
    if release.git.is_submodule(settings.docs_pack.folder):
        found |= {settings.docs_pack.folder, *(f"{settings.docs_pack.folder}/{n}" for n in ("VERSION", "SOURCE_TAG"))}
    return found


def version_files(release: Release, version: str, commit: str) -> dict[str, bytes]:
    """Return path → bytes of every file that carries the version, as it is for `version`."""
    files = {"VERSION": f"{version}\n".encode(), "SOURCE_TAG": f"v{version}\n".encode()}
    for path in release.settings.version_files:
        text = release.git.text_at(commit, path)
        if text is None:
            raise Refused(f"{path} is not committed; expected it with a version.", "Correct release.version_files.")
        files[path] = with_version(path, text, version).encode()
    return files


def with_version(path: str, text: str, version: str) -> str:
    """Return the JSON `text` of the file `path` with `version` as its own version, all else as it was laid out."""
    for found in VERSION_ENTRY.finditer(text):
        changed = text[: found.start(1)] + version + text[found.end(1) :]
        if version_in(changed) == version:
            return changed
    raise Refused(f"{path} is no JSON object with a version of its own.", "Fix it, or release.version_files.")


def version_in(text: str | None) -> str | None:
    """Return the version that a JSON file says it has, None when it says none."""
    try:
        content = json.loads(text or "")
    except ValueError:
        return None
    return str(content["version"]) if isinstance(content, dict) and "version" in content else None


def expected_pack(release: Release, commit: str) -> dict[str, bytes]:
    """Return path → bytes of the docs pack as it must be on top of `commit`; hashes are of committed bytes."""
    settings, git = release.settings, release.git
    files = version_files(release, release.version, commit)
    if git.is_submodule(settings.docs_pack.folder):
        files |= {f"{settings.docs_pack.folder}/{name}": files[name] for name in ("VERSION", "SOURCE_TAG")}
    pack = [file.path for file in pack_at(git, commit, settings)]
    hashed = sorted({*settings.docs_pack.include, *pack, settings.ddl.lock, *files})
    contents = {path: files.get(path) or git.bytes_at(commit, path) or b"" for path in hashed}
    hashes = {path: sha256(content) for path, content in contents.items()}
    return {**files, settings.docs_pack.hashes: checksum_lines(hashes)}


def include_problems(release: Release, commit: str) -> list[Problem]:
    """Return that files of the include list are not committed (a folder is no file), if any are not."""
    include = release.settings.docs_pack.include
    missing = [path for path in include if release.git.bytes_at(commit, path) is None]
    if not missing:
        return []
    what = f"The include list names files that are not committed: {listed(missing)}."
    return [Problem(what, "Commit them, or correct release.docs_pack.include in invoke.yaml.")]


def hash_problems(git: Git, commit: str, hashes_path: str) -> list[Problem]:
    """Return the files of `commit` that its committed hashes do not fit, as `sha256sum --check` would."""
    listing = git.bytes_at(commit, hashes_path)
    if not listing:
        return [Problem(f"{hashes_path} is not in {commit:.9}.")]
    wrong = [
        path for path, digest in read_checksums(listing).items() if sha256(git.bytes_at(commit, path) or b"") != digest
    ]
    return [Problem(f"In {commit:.9}, {path} is not what {hashes_path} says.") for path in wrong]


def tag_problems(release: Release, commit: str) -> list[Problem]:
    """Return why the commit under this version's tag cannot be its release, empty when it is."""
    git, tag = release.git, release.tag
    hint = f"git tag --delete {tag}   # if it is a mistake and was never pushed; else release the next version"
    found = release.version_at(commit)
    problems = []
    if found != release.version:
        problems.append(f"{tag} names {commit:.9}, where VERSION says {found!r}: it is not this release.")
    elif not git.tag_text(release.tag_ref):
        problems.append(f"{tag} is a lightweight tag; expected an annotated one.")
    else:
        problems += [problem.what for problem in hash_problems(git, commit, release.settings.docs_pack.hashes)]
    return [Problem(what, hint) for what in problems]
