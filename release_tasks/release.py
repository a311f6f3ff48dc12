"""One release: its names, and what git says about how far it has come. Every step is handed this."""

import platform
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

from release_tasks import command_line, lines, versions
from release_tasks.config import project_root, settings_of
from release_tasks.database.pack import DdlFile, pack_at
from release_tasks.deploy import code
from release_tasks.embedded import open_environment, recorded, serve
from release_tasks.environments import Environment
from release_tasks.errors import IN_A_RUN, NotYet, Refused, require
from release_tasks.files import RECORDS, atomic_write, records_folder
from release_tasks.git import Git
from release_tasks.journal import Journal
from release_tasks.machine import locked
from release_tasks.masks import masked_json
from release_tasks.outcome import Result
from release_tasks.release_lock import ReleaseLock
from release_tasks.settings import Settings

# A step that changes something: its one `yield` says what it would change; it returns what it observed.
Step = Generator[str, None, str | None]
Marked = TypeVar("Marked", bound=Callable[..., Any])


def skip_when(holds: "Callable[[Release], object]", reason: str) -> Callable[[Marked], Marked]:
    """Return a decorator: the step is skipped, for `reason`, when `holds(release)`."""

    def mark(step: Marked) -> Marked:
        step.skipped = lambda release: reason if holds(release) else ""  # type: ignore[attr-defined]
        return step

    return mark


until_published = skip_when(lambda release: release.published, "settled when the tag was published")
until_live = skip_when(lambda release: release.runs_in_production, "done: it is or was live in production")
until_over = skip_when(lambda release: release.is_over, "done: the next cycle is open")


class Release:
    """The release of `version` from the repository at `root`."""

    def __init__(self, version: str, root: Path, settings: Settings) -> None:
        self.version, self.root, self.settings = version, root, settings
        self.only_checks = self.quick = False  # only_checks: nothing is recorded; quick: nothing is started either
        self.acceptance: dict[str, list[Result]] = {}  # environment → what section 7.2 came to, until something changes
        self.steps: list[Any] = []  # the command line's, from which the prompt for production is made
        self.confirmed: Any = None  # what a person's confirmation was about
        self.unreachable: dict[str, str] = {}  # what did not answer in this run, and holds up nothing → why
        self.git = Git.open(root, settings.remote)
        self.tag, self.notes_path = settings.tag_of(version), settings.notes_of(version)
        self.folder = root / RECORDS / self.tag
        self.pack_folder = self.folder / "evidence"
        self.journal = Journal(self.folder / "journal.jsonl")
        self.environments: dict[str, Environment] = {}
        self.tag_ref, self.main_ref = f"refs/tags/{self.tag}", f"refs/heads/{settings.main}"
        self.title = f"{settings.title or settings.app} {self.tag}"

    @classmethod
    def open(cls, config: Any, version: str | None, in_work: bool = False) -> Self:
        """Return the release of `version`, else of the one that `versions.chosen` finds. Raises `Refused`."""
        root = project_root(config)
        return cls(versions.chosen(root, version, in_work), root, settings_of(config))

    def again(self, instead: str = "", **options: Any) -> str:
        """Return the command that was typed, with this version and `options` in it, as a hint."""
        return command_line.again(instead, **{"version": self.version, **options})

    def shown(self, path: Path) -> str:
        """Return `path` from the root where it is inside, with forward slashes."""
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()

    @property
    def base(self) -> str:
        """The branch it comes from and goes back to: where it began, by the locks; until then support/0.1, or main."""
        main, support, lock = self.settings.main, self.settings.support_of(self.version), self.settings.ddl.lock
        if f"refs/heads/{support}" not in self.git.remote_refs:
            return main
        if self.tag_ref not in self.git.remote_refs:  # it may have lost the lock of main, and begin anew on support/0.1
            return main if self.lock_of(main).state().is_of(self.version) else support
        begun = {each: self.lock_of(each).began() for each in (main, support)}
        if any(begun.values()):
            return max(begun, key=begun.__getitem__)
        both = [self.git.remote_commit(f"refs/heads/{each}") or "" for each in begun]  # as before there were locks
        is_on_both = self.published and all(lines.has_release(self.git, at, self.published, lock) for at in both)
        return main if is_on_both else support

    @property
    def base_ref(self) -> str:
        return f"refs/heads/{self.base}"

    @cached_property
    def lock(self) -> ReleaseLock:
        return self.lock_of(self.base)

    def lock_of(self, base: str) -> ReleaseLock:
        return ReleaseLock(self.git, self.version, self.tag, self.settings.lock_of(base))

    @property
    def branch(self) -> str:
        return self.settings.branch.format(version=self.version, tag=self.tag) or self.base

    @property
    def branch_ref(self) -> str:
        return f"refs/heads/{self.branch}"

    @property
    def published(self) -> str | None:
        """The commit this version's tag names on the remote; None before. Refused where it is not the tag we have."""
        return lines.tagged(self.git, self.tag)

    @property
    def tip(self) -> str:
        """The newest commit of the release's own branch, here or on the remote; before the freeze, HEAD."""
        if self.is_over:
            return self.git.remote_refs[self.main_ref]
        newest = self.git.commit_named(self.branch_ref) or self.git.remote_commit(self.branch_ref)
        return newest or self.published or self.git.commit_named("HEAD") or ""

    @property
    def commit(self) -> str:
        """The release commit: the tagged one once the tag is published, until then the branch's newest."""
        return self.published or self.tip

    @property
    def is_over(self) -> bool:
        """Whether the remote has all of it, merged back, and the lock is given up: a colleague may merge it early."""
        is_everywhere = self.is_in(self.settings.main) and self.is_in(self.base)
        return is_everywhere and not self.lock_of(self.base).state().is_of(self.version)

    @property
    def is_ended(self) -> bool:
        """Whether it is over, or was withdrawn."""
        return self.is_over or bool(lines.withdrawn(self.git, self.settings, self.version))

    @property
    def may_be_withdrawn(self) -> bool:
        """Whether its tag is published, production does not run it, and it has not ended."""
        return bool(self.published) and not self.runs_in_production and not self.is_ended

    def is_in(self, branch: str) -> bool:
        """Tell whether the remote's `branch` has its part: main the notes, the base all and the next VERSION."""
        there = self.git.remote_commit(f"refs/heads/{branch}")
        if not (there and self.published):
            return False
        if branch == self.settings.main and self.git.bytes_at(there, self.notes_path) is None:
            return False
        is_merged = lines.has_release(self.git, there, self.published, self.settings.ddl.lock)
        return branch != self.base or (self.has_next_version(there) and is_merged)

    def version_at(self, commit: str) -> str:
        """Return what VERSION says in `commit`, "" where it is not there."""
        return (self.git.text_at(commit, "VERSION") or "").strip()

    def has_next_version(self, commit: str) -> bool:
        """Tell whether VERSION in `commit` means that work goes on after this release."""
        return versions.opens_a_cycle_after(self.version_at(commit), self.version)

    @property
    def is_under_way(self) -> bool:
        """Whether something has been changed for it: its tag is published, or its own branch is cut."""
        return bool(self.published or (self.settings.branch and self.git.commit_named(self.branch_ref)))

    @property
    def line(self) -> lines.Line:
        """The releases that this one comes after."""
        return lines.Line(self.git, self.settings, self.commit)

    def last(self, for_notes: bool = False) -> str | None:
        """Return the tag of the previous release, None before the first. Raises `Refused` where it is not here.

        Candidates count, as production may run them, but not in notes of a final release; withdrawn ones never do.
        """
        version = self.line.last(self.version, finals=for_notes and "-" not in self.version, with_withdrawn=False)
        tag = self.settings.tag_of(version or "")
        return tag if version and lines.tagged(self.git, tag) else None

    @property
    def pack(self) -> list[DdlFile]:
        """The DDL pack of the release commit, in the order in which it is applied."""
        return pack_at(self.git, self.commit, self.settings)

    def pack_of(self, tag: str | None) -> list[DdlFile]:
        """Return the DDL pack of the release `tag`; no file where there is none."""
        return pack_at(self.git, f"refs/tags/{tag}", self.settings) if tag else []

    def environment(self, name: str) -> Environment:
        """Return environment `name`, brought up if embedded. `NotYet` where a check would do that, or settings lack."""
        if self.settings.environments.problems(name):
            raise NotYet(f"after the variables of {name} are set and its DSN is right")
        if name not in self.environments:
            if self.settings.environments.named(name).embedded:
                self.only_in_a_run()
            self.environments[name] = open_environment(name, self.root, self.settings)
            if name != "dev":  # its web app is served later: it needs the DDL pack, which section 2 applies
                serve(self.environments[name])
        return self.environments[name]

    @property
    def code(self) -> Path:
        """The tag's code, unpacked and installed on this machine. Raises `NotYet` before it is."""
        commit = self.published
        require(commit and code.is_ready(self.root, self.tag, commit), "after the code is unpacked")
        return code.folder_of(self.root, self.tag)

    @cached_property
    def runs_in_production(self) -> bool:
        """Whether production runs this release, or did when it was finished: then what came before is history."""
        if self.is_over or not self.published or self.settings.environments.problems("production"):
            return self.is_over
        if self.settings.environments.production.embedded:  # which runs only with a command
            return recorded("production", self.root, self.settings) == (self.tag, True)
        with suppress(Refused):  # where production cannot be reached, its own steps say so
            return self.environment("production").runs(self.version)
        return False

    def only_in_a_run(self) -> None:
        """Raise `NotYet` while `quick` is set: in a status, a dry run, and the first checks of a run (`Plan.check`)."""
        if self.quick:
            raise NotYet(IN_A_RUN)

    def keep_check(self, name: str, **facts: Any) -> None:
        """Keep what a check has seen as evidence."""
        atomic_write(self.folder / "checks" / f"{name}.json", masked_json(facts, indent=2).encode())

    def refresh(self) -> None:
        """Forget what was remembered of the world: something has changed."""
        self.git.refresh(remote=False)
        self.acceptance = {}
        self.__dict__.pop("runs_in_production", None)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second run out of this checkout while this one changes things."""
        with locked(records_folder(self.root) / "lock", "release run"), self.journal.listening():
            git = self.git.run("--version").stdout.strip()
            self.journal.record("run", argv=sys.argv[1:], git=git, python=platform.python_version())
            yield

    def close(self) -> None:
        self.git.close()
        for environment in self.environments.values():
            environment.close()
