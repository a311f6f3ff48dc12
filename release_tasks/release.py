"""One release: its names, and what git says about how far it has come. Every step is handed this."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release_tasks import versions
from release_tasks.config import load
from release_tasks.embedded import in_turn, open_environment
from release_tasks.errors import NotYet, Refused, refuse
from release_tasks.files import atomic_write, emptied, locked, read_link, records_folder
from release_tasks.git import Git
from release_tasks.journal import Journal
from release_tasks.masks import masked_json
from release_tasks.settings import Settings

if TYPE_CHECKING:
    from release_tasks.checks.runner import Result
    from release_tasks.environments import Environment
# What a step that changes something is: its one `yield` says what it would change; it returns what it saw.
Step = Generator[str, None, str | None]


def _until(holds: Callable[[Release], object], words: str) -> Callable[[Any], Any]:
    """Return what marks a step as settled once `holds`: it is then not run, and `words` say why."""

    def mark(step: Any) -> Any:
        step.settled = lambda release: words if holds(release) else ""
        return step

    return mark


until_published = _until(lambda release: release.published, "settled when the tag was published")
until_live = _until(lambda release: release.runs_in_production, "history: production runs it")


class Release:
    """The release of `version` from the repository at `root`.

    `settings` are the repo's, validated. With `only_checks` (a status, a dry run) nothing is recorded, and
    nobody is prompted.
    """

    def __init__(self, version: str, root: Path, settings: Settings) -> None:
        self.version, self.root, self.settings = version, root, settings
        self.only_checks = False
        self.acceptance: Any = None  # list[Result]: what section 7.2 came to, until something changes
        self.confirmed: Any = None  # what a person's confirmation was about
        self.git = Git.open(root, settings.remote)
        self.folder = records_folder(root) / f"v{version}"
        self.journal = Journal(self.folder / "journal.jsonl")
        self._environments: dict[str, Environment] = {}

    @classmethod
    def open(cls, config: Any, version: str | None, in_work: bool = False) -> Release:
        """Return the release of `version` (None: the one VERSION names) from the folder of tasks.py.

        With `in_work`, VERSION may also name the work on it, as 0.1.1-dev.
        Raises `Refused` for a version or settings that cannot be, all problems at once.
        """
        root = project_root(config)
        named = version if version is not None else _version_in_file(root, in_work)
        refuse(versions.version_problems(named))
        return cls(named, root, settings_of(config))

    # Names

    @property
    def tag(self) -> str:
        return f"v{self.version}"

    @property
    def tag_ref(self) -> str:
        return f"refs/tags/{self.tag}"

    @property
    def branch(self) -> str:
        """The branch the release is made on; the main branch where the setting is empty."""
        return self.settings.branch.format(version=self.version) or self.settings.main

    @property
    def branch_ref(self) -> str:
        return f"refs/heads/{self.branch}"

    @property
    def main_ref(self) -> str:
        return f"refs/heads/{self.settings.main}"

    @property
    def title(self) -> str:
        return f"{self.settings.title or self.settings.app} {self.tag}"

    @property
    def notes_path(self) -> str:
        return f"{self.settings.docs_pack.folder}/releases/{self.tag}.md"

    # How far it has come

    @property
    def published(self) -> str | None:
        """The commit this version's tag names on the remote; None before. Refused where it is not the tag we have."""
        there = self.git.remote_refs.get(self.tag_ref)
        here = self.git.object_named(self.tag_ref)
        if there is None:
            return None
        remote = self.settings.remote
        if here is None:
            raise Refused(f"The tag {self.tag} is on the remote, but not here.", f"git fetch {remote} tag {self.tag}")
        if here != there:
            raise Refused(
                f"The tag {self.tag} is {there:.9} on the remote, but {here:.9} here: somebody released it meanwhile.",
                f"git tag --delete {self.tag} && git fetch {remote} tag {self.tag}   # if theirs is the right one",
            )
        return self.git.commit_named(self.tag_ref)

    @property
    def tip(self) -> str:
        """The newest commit of the release's own branch, here or on the remote; before the freeze, HEAD."""
        if self.is_over:
            return self.git.remote_refs[self.main_ref]
        here = self.git.commit_named(self.branch_ref)
        there = self.git.remote_refs.get(self.branch_ref)
        tip = here or (there if there and self.git.has(there) else None) or self.published
        return tip or self.git.commit_named("HEAD") or ""

    @property
    def commit(self) -> str:
        """The release commit: the tagged one once the tag is published, until then the branch's newest."""
        return self.published or self.tip

    @property
    def is_over(self) -> bool:
        """Whether the remote's main branch has tag and notes and is on a later version: our last change."""
        main = self.git.remote_refs.get(self.main_ref)
        if not (self.published and main and self.git.has(main)):
            return False
        has_it = self.git.contains(main, self.published) and self.git.bytes_at(main, self.notes_path) is not None
        return has_it and self.goes_on_at(main)

    def version_at(self, commit: str) -> str:
        """Return what VERSION says in `commit`, "" where it is not there."""
        return (self.git.text_at(commit, "VERSION") or "").strip()

    def goes_on_at(self, commit: str) -> bool:
        """Tell whether VERSION in `commit` means that work goes on after this release."""
        version = self.version_at(commit)
        return versions.is_version(version) and versions.opens_a_cycle_after(version, self.version)

    # What it reaches

    def environment(self, name: str) -> Environment:
        """Return the environment `name` (dev, staging, production), brought up if it is an embedded one.

        Raises `NotYet` where a variable of it is not set: a status shows the rest.
        """
        if self.settings.environments.unset(name):
            raise NotYet(f"after the variables of {name} are set")
        if name not in self._environments:
            self._environments[name] = open_environment(name, self.root, self.settings)
        return self._environments[name]

    def runs_on(self, env: Environment) -> bool:
        """Tell whether this release is what `current` names there and what answers at the origin."""
        code = read_link(env.current)
        if code is None or code.name != self.tag:
            return False
        return not self.settings.acceptance.version or env.running_version() == self.version

    @cached_property
    def runs_in_production(self) -> bool:
        """Whether production answers with this version: then what came before is history."""
        return bool(self.published) and self.runs_on(self.environment("production"))

    def keep_check(self, name: str, **facts: Any) -> None:
        """Keep what a check has seen as evidence."""
        if not self.only_checks:
            atomic_write(self.folder / "checks" / f"{name}.json", masked_json(facts, indent=2).encode())

    def kept(self, name: str) -> Path:
        """Return the empty folder for what checks leave beside their results: screenshots, JUnit XML."""
        return emptied((records_folder(self.root) if self.only_checks else self.folder) / "checks" / name)

    def keep_results(self, name: str, where: str, results: Sequence[Result], **facts: Any) -> None:
        """Keep the results of checks as evidence: as JSON, and each in the journal."""
        self.keep_check(name, version=self.version, where=where, **facts, results=results)
        for result in results if not self.only_checks else ():
            self.journal.record("check", where=where, **asdict(result))

    def refresh(self) -> None:
        """Forget what was remembered of the world: something has changed."""
        self.git.refresh(remote=False)
        self.acceptance = None
        self.__dict__.pop("runs_in_production", None)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep a second run out of this checkout while this one changes things."""
        with locked(records_folder(self.root) / "lock", "release run"), self.journal.listening():
            git = self.git.run("--version").stdout.strip()
            self.journal.record("run", argv=sys.argv[1:], git=git, python=platform.python_version())
            yield

    def close(self) -> None:
        self.git.close()
        for environment in self._environments.values():
            environment.close()


def project_root(config: Any) -> Path:
    """Return the folder of tasks.py, from where Invoke read its project settings."""
    path = getattr(config, "_project_prefix", None)
    return Path(path).resolve() if path else Path.cwd()


def settings_of(config: Any) -> Settings:
    """Return the validated settings of Invoke's `config`."""
    return load(config.get("release", {}))


@contextmanager
def environment_of(config: Any, where: str) -> Iterator[Environment]:
    """Open the environment `where` of the repo, outside a release, for the length of the block."""
    root, settings = project_root(config), settings_of(config)
    with in_turn(where, root, settings):
        environment = open_environment(where, root, settings)
        try:
            yield environment
        finally:
            environment.close()


def version_here(root: Path) -> str:
    """Return what VERSION in the working tree says, "" when it is not there."""
    path = root / "VERSION"
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _version_in_file(root: Path, in_work: bool) -> str:
    """Return the version that VERSION names, with `in_work` also the one that it leads to."""
    found = version_here(root)
    if in_work and versions.is_version(found):
        return versions.release_after(found)
    if found and not versions.version_problems(found):
        return found
    found_there = f"VERSION says {found!r}, which names no release" if found else "there is no VERSION file"
    example = versions.release_after(found)
    raise Refused(f"Which version? None was given, and {found_there}.", f"Add --version {example} to the command.")
