"""Section 4: VERSION, SOURCE_TAG and the hashes of what the release stands on."""

from collections.abc import Iterator

from release_tasks import changelog
from release_tasks.commits import commit_step
from release_tasks.database.pack import pack_at, tag_of
from release_tasks.errors import Problem, Refused, listed, require
from release_tasks.files import checksum_lines, read_checksums, sha256
from release_tasks.git import Git
from release_tasks.lines import retag_hint
from release_tasks.release import Release, Step, until_published
from release_tasks.version_files import with_version


@until_published
def write_the_docs_pack(release: Release) -> Step:
    """Regenerate VERSION, SOURCE_TAG and the hashes."""
    git, tip, settings = release.git, release.tip, release.settings
    if missing := [path for path in settings.docs_pack.include if git.bytes_at(tip, path) is None]:
        what = f"The include list names files that are not committed: {listed(missing)}."
        raise Refused(what, "Commit them, or correct release.docs_pack.include in invoke.yaml.")
    require(tag_of(git.text_at(tip, settings.ddl.lock) or "") == release.tag, "after the DDL order is locked")
    expected = expected_pack(release, tip)
    stale = [path for path, content in expected.items() if git.bytes_at(tip, path) != content]
    if not stale:
        return f"{len(read_checksums(expected[settings.docs_pack.hashes]))} hashes"
    yield f"git commit {listed(stale)}"
    commit_step(git, expected, f"docs: update version + hashes for {release.tag}", f"{release.tag} docs-pack")


@until_published
def publish_the_docs_submodule(release: Release) -> Step:
    """Tag and push the docs where they are a submodule."""
    folder, tag_ref = release.settings.docs_pack.folder, release.tag_ref
    docs = release.git.submodule(folder)
    if docs is None:
        return "they are no submodule"
    require(release.version_at(release.tip) == release.version, "after the docs pack is built")
    commit = release.git.object_named(f"{release.tip}:{folder}") or ""
    branch = f"refs/heads/{release.settings.docs_pack.submodule_branch}"
    tagged, refs = docs.commit_named(tag_ref), docs.remote_refs
    if tagged not in (None, commit):
        what = f"In {folder}/, {release.tag} names {tagged:.9}, not the docs pack's commit {commit:.9}."
        raise Refused(what, retag_hint(release.tag, git=f"git -C {folder}"))
    if tagged and refs.get(tag_ref) == docs.object_named(tag_ref) and refs.get(branch) == commit:
        return f"{folder}/ {commit:.9}"
    yield f"git -C {folder} tag --annotate {release.tag}; git -C {folder} push --atomic {commit:.9}:{branch} {tag_ref}"
    if not tagged:
        docs.run("tag", "--annotate", "--message", release.title, release.tag, commit)
    docs.push(f"{commit}:{branch}", tag_ref)


def behind_problems(release: Release, even_tagged: bool = False) -> Iterator[Problem]:
    """Yield a problem if the docs are a submodule that lacks what its remote's branch has, but this release's own."""
    folder, branch = release.settings.docs_pack.folder, release.settings.docs_pack.submodule_branch
    docs = release.git.submodule(folder)
    if docs and (even_tagged or release.tag_ref not in docs.remote_refs):
        there = docs.remote_commit(f"refs/heads/{branch}")
        if there and not docs.contains("HEAD", there):
            fix = f"git -C {folder} pull --rebase {docs.remote} {branch} && git add {folder} && git commit"
            yield Problem(f"{folder}/ lacks commits that its remote's {branch} has ({there:.9}).", fix)


def expected_pack(release: Release, commit: str) -> dict[str, bytes]:
    """Return path → bytes of the docs pack as it must be on top of `commit`; hashes are of committed bytes."""
    settings, git, folder = release.settings, release.git, release.settings.docs_pack.folder
    files = with_version_everywhere(release, release.version, commit)
    if git.submodule(folder):
        files |= {f"{folder}/{name}": files[name] for name in ("VERSION", "SOURCE_TAG")}
    ddl_paths = [file.path for file in pack_at(git, commit, settings)]
    hashed = sorted({*settings.docs_pack.include, *ddl_paths, settings.ddl.lock, *files})
    if text := changelog.dated(git.text_at(commit, settings.changelog) or "", release.version):
        files[settings.changelog] = text.encode()
    hashes = {path: sha256(files.get(path) or git.bytes_at(commit, path) or b"") for path in hashed}
    return {**files, settings.docs_pack.hashes: checksum_lines(hashes)}


def with_version_everywhere(release: Release, version: str, commit: str) -> dict[str, bytes]:
    """Return path → bytes of every file that carries the version, as it is for `version`."""
    files = {"VERSION": f"{version}\n".encode(), "SOURCE_TAG": f"{release.settings.tag_of(version)}\n".encode()}
    for file in release.settings.version_files:
        content = files.get(file.path) or release.git.bytes_at(commit, file.path)
        files[file.path] = with_version(file, content, version)
    return files


def hash_mismatches(git: Git, commit: str, hashes_path: str) -> list[str]:
    """Return the files of `commit` that its committed hashes do not fit, as `sha256sum --check` would."""
    sums = read_checksums((git.text_at(commit, hashes_path) or "").encode())
    if not sums:
        return [f"{hashes_path} is not in {commit:.9}."]
    wrong = [path for path in sums if (found := git.bytes_at(commit, path)) is None or sha256(found) != sums[path]]
    return [f"In {commit:.9}, {path} is not what {hashes_path} says." for path in wrong]
