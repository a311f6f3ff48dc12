"""Git as a release needs it: objects are read with GitPython, commands run as argv with a deadline."""

import re
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from release_tasks import git_setup, process
from release_tasks.errors import Refused
from release_tasks.files import INCOMPLETE, atomic_write, checksum_lines, file_sha256, read_checksums, sha256
from release_tasks.process import CommandFailed, Finished

if TYPE_CHECKING:
    import git as gitpython

NETWORK = 120  # seconds a fetch, push or ls-remote may take
NEWS = 10.0  # seconds after which the remote is listed again
# Arguments that name objects by their full ids alone: the answer never changes.
IMMUTABLE = re.compile(r"[^\0]+(\0-[^\0]*)*(\0[0-9a-f]{40,64}(\^\{commit\})?)+")


class Git:
    """One repository, at `root`, and its remote. Refs are always full names, as refs/tags/v0.1.1."""

    def __init__(self, root: Path, remote: str) -> None:
        self.root, self.remote = root, remote
        self._seen: dict[tuple[str, ...], Finished] = {}
        self._folders: dict[tuple[str, str], dict[str, gitpython.Blob]] = {}
        self._remote_refs: dict[str, str] = {}
        self._silence = ""  # what the remote said instead of an answer
        self._listed_at = -NEWS  # a `time.monotonic`

    @classmethod
    def open(cls, root: Path, remote: str) -> Self:
        """Return the repository at `root`; raises `Refused` where there is none, or it has no commit yet."""
        git = cls(root, remote)
        git_setup.check_root(root, git.look("rev-parse", "--show-toplevel"), git.commit_named("HEAD"))
        return git

    @cached_property
    def repo(self) -> "gitpython.Repo":
        import git as gitpython

        return gitpython.Repo(self.root)

    def close(self) -> None:
        if "repo" in self.__dict__:
            self.repo.close()

    def refresh(self, remote: bool = True) -> None:
        """Forget what was seen here, and what the `remote` said: something has changed."""
        kept = [args for args, found in self._seen.items() if not found.code and IMMUTABLE.fullmatch("\0".join(args))]
        self._seen = {args: self._seen[args] for args in kept}
        if remote:
            self._listed_at = -NEWS

    def run(self, *args: str, timeout: float = 60, check: bool = True, changes: bool = True, **env: str) -> Finished:
        """Run `git args`; what was seen here is forgotten, and the command recorded, unless it `changes` nothing.

        `env` is added to ours. Raises `CommandFailed` after `timeout` s (with hooks 900 s), with `check` if it fails.
        """
        hooks = git_setup.hooks(self.root, args[0]) if changes else ""
        if changes:
            self.refresh(remote=False)
        if hooks or args[0] in git_setup.MAY_WAIT:
            timeout = git_setup.HOOK
        env = {**git_setup.variables(), **env}
        try:
            return process.run(["git", *args], cwd=self.root, env=env, timeout=timeout, check=check, record=changes)
        except CommandFailed as failed:
            git_setup.explain(failed, hooks, changes)
            raise

    def reach(self, *args: str, changes: bool = True) -> Finished:
        """Run `git args`, which reaches the remote; ssh, whichever it is, has no terminal to ask at, and no dialog."""
        return self.run(*args, timeout=NETWORK, changes=changes, SSH_ASKPASS_REQUIRE="never")

    def look(self, *args: str) -> Finished:
        """Run `git args`, which only looks and may fail; the answer is remembered until `run` may change something."""
        if args not in self._seen:
            self._seen[args] = self.run(*args, check=False, changes=False)
        return self._seen[args]

    # What is here

    def commit_named(self, ref: str) -> str | None:
        """Return the id of the commit that `ref` names, None when it names none here."""
        return self.object_named(f"{ref}^{{commit}}")

    def object_named(self, ref: str) -> str | None:
        """Return the id of the very object `ref` names: for an annotated tag, the tag object."""
        found = self.look("rev-parse", "--quiet", "--verify", "--end-of-options", ref)
        return found.stdout.strip() if found.code == 0 else None

    def is_set(self, key: str) -> bool:
        """Tell whether git's configuration has `key`, as commit.gpgSign, and it is true."""
        return self.look("config", "--type=bool", key).stdout == "true\n"

    @property
    def branch(self) -> str | None:
        """The branch that is checked out, None on a detached HEAD."""
        return self.look("symbolic-ref", "--quiet", "HEAD").stdout.strip().removeprefix("refs/heads/") or None

    @property
    def is_shallow(self) -> bool:
        return self.look("rev-parse", "--is-shallow-repository").stdout.strip() == "true"

    def contains(self, commit: str, ancestor: str) -> bool:
        """Tell whether `ancestor` is in the history of `commit`; False too when either is not here."""
        return self.look("merge-base", "--is-ancestor", ancestor, commit).code == 0

    def dirty_paths(self) -> list[str]:
        """Return the paths that differ from HEAD or are untracked, sorted; but ignored ones and our incomplete ones."""
        found = self.run("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", changes=False)
        # A status leaves out a changed submodule that .gitmodules lets git ignore.
        diff = ("diff", "--name-only", "-z", "--no-renames", "--ignore-submodules=untracked", "HEAD")
        changed = self.run(*diff, changes=False).stdout.split("\0")
        paths = {*(entry[3:] for entry in found.stdout.split("\0")), *changed} - {""}
        return sorted(path for path in paths if not INCOMPLETE.search(path))

    def bytes_at(self, commit: str, path: str) -> bytes | None:
        """Return the committed bytes of `path` in `commit`, also inside a submodule; None when it is not there."""
        blob = self._files(commit, path.rpartition("/")[0]).get(path)
        return bytes(blob.data_stream.read()) if blob else None

    def text_at(self, commit: str, path: str) -> str | None:
        """Return the committed text of `path`, None when it is not there; raises `Refused` when it is not UTF-8."""
        found = self.bytes_at(commit, path)
        try:
            return None if found is None else found.decode()
        except UnicodeDecodeError as no:
            what = f"{path} is committed, and is not UTF-8 text: {no.reason} at byte {no.start}."
            raise Refused(what, f"Save {path} as UTF-8, and commit it.") from None

    def files_in(self, commit: str, folder: str) -> list[str]:
        """Return the paths of the files directly in `folder` of `commit`, sorted by bytes."""
        return sorted(self._files(commit, folder))

    def _files(self, commit: str, folder: str) -> dict[str, "gitpython.Blob"]:
        """Return path → blob of the files directly in `folder`, read once: a pack may have a thousand."""
        top, _, inside = folder.partition("/")
        if (recorded := self._submodule_at(commit, top)) and (submodule := self.submodule(top)):
            files = submodule._files(recorded, inside) if submodule.commit_named(recorded) else {}
            return {f"{top}/{path}": blob for path, blob in files.items()}
        found = self.repo.commit(commit)
        key = found.hexsha, folder
        if key not in self._folders:
            try:
                tree = found.tree if folder in ("", ".") else found.tree.join(folder)
                self._folders[key] = {str(blob.path): blob for blob in tree.blobs}
            except (KeyError, AttributeError):  # there is none, or it is a file
                self._folders[key] = {}
        return self._folders[key]

    def _submodule_at(self, commit: str, folder: str) -> str | None:
        """Return which commit of the submodule `folder` is recorded in `commit`, None where it is no submodule."""
        tree = self.repo.commit(commit).tree
        return tree[folder].hexsha if folder and folder in tree and tree[folder].type == "submodule" else None

    def submodule(self, folder: str) -> Self | None:
        """Return the repository of the submodule `folder`, directly under the root; None where it is none in HEAD."""
        if self._submodule_at("HEAD", folder) is None:
            return None
        if not (self.root / folder / ".git").exists():
            raise Refused(f"{folder}/ is a submodule that is not checked out.", f"git submodule update --init {folder}")
        return type(self)(self.root / folder, git_setup.remote_of(self.root / folder, self.remote))

    # What the remote has

    @property
    def remote_refs(self) -> dict[str, str]:
        """The remote's refs and the ids they name; raises `Refused` when there is no remote or no answer."""
        if time.monotonic() - self._listed_at >= NEWS:
            listing, self._silence = "", ""
            try:
                listing = self.reach("ls-remote", "--quiet", self.remote, changes=False).stdout
            except CommandFailed as no:
                if self.remote not in self.look("remote").stdout.split():
                    hint = f"git remote add {self.remote} <url>"
                    raise Refused(f"There is no remote {self.remote!r}.", hint) from None
                self._silence = f"The remote {self.remote!r} does not answer: {no}"
            lines = (line.split("\t") for line in listing.splitlines())
            self._remote_refs, self._listed_at = {ref: object_id for object_id, ref in lines}, time.monotonic()
        if self._silence:  # one time-out is enough for all steps
            raise Refused(self._silence, f"git ls-remote {self.remote}")
        return self._remote_refs

    def remote_commit(self, ref: str) -> str | None:
        """Return the commit that `ref` names on the remote, fetched where it is not here; None where there is none."""
        there = self.remote_refs.get(ref)
        if there and not self.commit_named(there):  # no ref of ours moves by that
            self.reach("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--refmap=", self.remote, ref)
        return self.commit_named(there) if there else None

    # Changes

    def fetch(self, ref: str) -> None:
        """Fetch `ref` alone: what else is configured may fail for reasons that do not matter here."""
        self.refresh()
        self.reach("fetch", "--quiet", "--no-tags", "--refmap=", self.remote, ref)

    def push(self, *refspecs: str) -> Finished:
        """Push `refspecs` in one atomic push: the remote takes all or none."""
        self.refresh()
        return self.reach("push", "--quiet", "--porcelain", "--atomic", "--no-follow-tags", self.remote, *refspecs)

    def commit_tree(self, tree: str, parent: str, *paragraphs: str) -> str:
        """Make and return a commit of `tree`, which no branch has yet, on `parent` ("": none), signed where all are."""
        options = [*(["-S"] if self.is_set("commit.gpgSign") else []), *(["-p", parent] if parent else [])]
        return self.run("commit-tree", *options, "-m", "\n\n".join(paragraphs), tree).stdout.strip()

    def commit_files(self, files: Mapping[str, bytes], message: str, even_empty: bool = False) -> None:
        """Write `files` (path → bytes with LF) and commit them and nothing else, `even_empty` if they are so already.

        Files in a submodule are committed there first; the parent then records the submodule's new commit.
        """
        own, submodules, hashes = dict(files), list[str](), {path: sha256(files[path]) for path in files}
        atomic_write(self._writing, checksum_lines(hashes))
        for folder in sorted({path.partition("/")[0] for path in files}):
            if submodule := self.submodule(folder):
                inside = {path.partition("/")[2]: own.pop(path) for path in files if path.startswith(f"{folder}/")}
                submodule.commit_files(inside, message)
                submodules.append(folder)
        for path, content in own.items():
            atomic_write(self.root / path, content)
        paths = [*own, *submodules]
        self.run("add", "--force", "--", *paths)
        if even_empty or self.run("diff", "--cached", "--quiet", "--", *paths, check=False).code:
            self.run("commit", "--quiet", *["--allow-empty"] * even_empty, "--message", message, "--only", "--", *paths)
        self._writing.unlink()

    @property
    def _writing(self) -> Path:
        """The list of what is being committed: it is there until that is done, whatever stops the run."""
        return Path(self.repo.git_dir) / "RELEASE_FILES"

    def half_committed(self) -> list[str]:
        """Return the files and submodules that are, byte for byte, as a `commit_files` wrote them that was stopped."""
        written = read_checksums(self._writing.read_bytes()) if self._writing.exists() else {}
        ours = [path for path in written if (at := self.root / path).is_file() and file_sha256(at) == written[path]]
        for folder in {path.partition("/")[0] for path in written}:
            if recorded := (submodule := self.submodule(folder)) and self._submodule_at("HEAD", folder):
                diff = submodule.run("diff", "--name-only", "-z", "--no-renames", recorded, changes=False).stdout
                if all(f"{folder}/{path}" in ours for path in {*diff.split("\0")[:-1], *submodule.dirty_paths()}):
                    ours.append(folder)
        return ours
