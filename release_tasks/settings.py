"""The settings of a repo, `release:` in invoke.yaml: what may be set, and the default of what is not."""

import re
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, FiniteFloat, model_validator

from release_tasks.deploy.settings import Environments
from release_tasks.evidence.settings import Evidence
from release_tasks.values import FOLDER, Command, Model, Order, Pattern, Seconds, Table, Tag, Template, Text, UrlPath

NODES = (["node"], ["npm"], ["npx"], ["pnpm"])
PROGRAM = re.compile(r"[^/]+/.*")  # in the repo; of others only the name is given, or the whole path
SCRIPT = re.compile(r"(?![-/])[\w./-]+\.([cm]?[jt]s|py|sh|sql|rb|pl|php|jar|exe)")


class VersionFile(Model):
    """A file that carries the version: JSON, TOML, or any text with a pattern."""

    path: str = Field(description="such as package.json, pyproject.toml or Cargo.toml")
    pattern: Pattern = Field("", description="a regular expression whose first group, in (), is the version")


PathOrFile = Annotated[
    VersionFile,
    BeforeValidator(lambda it: {"path": it} if isinstance(it, str) else it, json_schema_input_type=str | VersionFile),
]


class Ddl(Model):
    """The DDL pack: where it is, in which order it is applied and by what."""

    folder: str = Field("ddl", pattern=FOLDER, description="the folder of the *.sql files, from the root, as db/ddl")
    order: Order = Field("bytes", description="how base names are sorted: javascript, bytes, or a command's lines")
    command: list[str] = Field([], description="the application's runner; empty: psql")
    must_print: Pattern = Field("", description="a regular expression; {count} stands for the files of the pack")
    ledger: Table = Field("ops.ddl_ledger", description="the table of what was applied, as schema.table")
    timeout: Seconds = Field(600, description="seconds for one statement, and for the whole run")
    lock_timeout: Seconds = Field(5, description="seconds that a statement waits for a lock")
    exceptions: dict[Pattern, Text] = Field({}, description="pattern of a problem or difference → why it may be")

    @model_validator(mode="after")
    def proves_what_it_did(self) -> Self:
        if self.command and not self.must_print:
            raise ValueError("a command needs must_print, as '{count} files applied': silence is no success")
        return self

    def excepts(self, text: str) -> str | None:
        """Return the reason why `text`, a problem or a difference, may be; None where the settings give none."""
        return next((reason for pattern, reason in self.exceptions.items() if re.search(pattern, text)), None)

    @property
    def lock(self) -> str:
        """The path of the order lock, beside the files it locks."""
        return f"{self.folder}/ORDER.lock"


class Backup(Model):
    """Section 8: how backups are taken, where and how many are kept, and which command gets each one."""

    folder: str = Field(".release/backups", description="where backups are kept, a folder each")
    keep: int = Field(5, ge=1, description="verified backups that are kept of an environment")
    jobs: int = Field(1, ge=1, description="tables that are dumped and restored at once")
    then: list[str] = Field([], description="command that gets a verified backup, as [restic, backup, '{folder}']")
    timeout: Seconds = Field(3600, description="seconds for the dump, for the restore, and for `then`")

    @model_validator(mode="after")
    def then_gets_the_backup(self) -> Self:
        if self.then and not any("{folder}" in word for word in self.then):
            raise ValueError("then needs {folder}, which stands for the folder of the backup")
        return self


class DocsPack(Model):
    """Section 4: the curated list of what is hashed; DDL files, VERSION and SOURCE_TAG are always in it."""

    folder: str = Field("docs", description="where hashes, notes template and releases/ are; may be a submodule")
    include: list[Text] = Field([], description="files, beside those that are always in it")
    submodule_branch: str = Field("main", description="where commits go when the folder is a submodule")

    @property
    def hashes(self) -> str:
        return f"{self.folder}/HASHES.sha256.txt"


class Stamp(Model):
    """Section 7.1: the command that opens all sessions, and the log in which its stamp is found."""

    command: list[str] = Field([], description="opens all sessions; empty: nothing is stamped")
    log: Table = Field("ops.session_log", description="schema.table in which a stamp is looked for")
    timeout: Seconds = Field(60, description="seconds for the command")


class Acceptance(Model):
    """Section 7.2: what its tests in `acceptance/` cannot say themselves."""

    version: UrlPath = Field("/api/version", description="a path on ORIGIN: JSON with the version; empty: none")
    wait: FiniteFloat = Field(60, ge=0, description="seconds that a deployment may take to settle")
    logs: list[str] = Field([], description="patterns of log files that tests read, beside the server log")


class Settings(Model):
    """All that a repo may set; what it leaves out has the default given here."""

    app: str = Field("app", pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", description="APP_NAME: letters, digits, . _ -")
    title: str = Field("", description="the name people know it by; default: app")
    folder: str = Field(".", pattern=rf"^\.$|{FOLDER}", description="where commands run, from the root, as apps/web")
    main: Text = Field("main", description="the main branch")
    remote: Text = Field("origin", description="the remote that is pushed to")
    tag: Tag = Field("v{version}", description="how tags are named, as web-v{version} in a repo of several products")
    branch: str = Field(
        "release/{tag}",
        pattern=r"^([^{}]*\{(version|tag)\}[^{}]*)*$",
        description="{tag} or {version} in it; empty: main",
    )
    must_be_merged: list[Template] = Field([], description="patterns of remote branches, such as feature/*")
    changelog: str = Field("CHANGELOG.md", description="its section of this version gives the Highlights")
    version_files: list[PathOrFile] = Field([], description="JSON, TOML, or a path and a pattern")
    freeze_days: int = Field(1, ge=0, le=366, description="days the freeze is announced for")
    ddl: Ddl = Field(Ddl(), description="the DDL pack")
    backup: Backup = Field(Backup(), description="backups of production")
    docs_pack: DocsPack = Field(DocsPack(), description="the documents that are hashed")
    install: list[str] = Field([], description="what a fresh checkout needs before it runs")
    services: dict[str, Command] = Field({}, description="name → command; `web` listens on PORT")
    stamp: Stamp = Field(Stamp(), description="the session stamp")
    acceptance: Acceptance = Field(Acceptance(), description="when a release is accepted")
    environments: Environments = Field(Environments(), description="dev, staging and production")
    keep_releases: int = Field(5, ge=1, description="releases that stay in place in staging and in production")
    evidence: Evidence = Field(Evidence(), description="the evidence pack: who signs and stamps it, where it goes")

    def tag_of(self, version: str) -> str:
        return self.tag.format(version=version)

    def version_of(self, tag: str) -> str:
        """Return the version that `tag` names, "" where it is no such tag."""
        version = tag.removeprefix(self.tag.partition("{")[0])
        return version if self.tag_of(version) == tag else ""

    def notes_of(self, version: str) -> str:
        return f"{self.docs_pack.folder}/releases/{self.tag_of(version)}.md"

    def lock_of(self, base: str) -> str:
        """Return the lock branch of `base`: release/lock, release/lock-0.1, release/lock-web, release/lock-web-v0.1."""
        line = base if base != self.main else self.tag.partition("{")[0].removesuffix("v")
        return f"release/lock-{line.removeprefix('support/')}".rstrip("-")

    def support_of(self, version: str) -> str:
        """Return the branch on which the older versions of one minor are fixed: support/0.1, support/web-v0.1."""
        return f"support/{self.tag_of('.'.join(version.split('.')[:2])).removeprefix('v')}"

    @property
    def commands(self) -> dict[str, list[str]]:
        """The application's commands that are set, by their keys."""
        found = {"install": self.install, **{f"services.{name}": command for name, command in self.services.items()}}
        found |= {"ddl.command": self.ddl.command, "stamp.command": self.stamp.command}
        return {key: command for key, command in found.items() if command}

    @property
    def scripts(self) -> list[tuple[str, str]]:
        """Each file of the repo that a command names, from `folder`, after the command's key."""
        programs = [(key, command[0]) for key, command in self.commands.items() if PROGRAM.fullmatch(command[0])]
        words = [(key, word) for key, command in self.commands.items() for word in command if SCRIPT.fullmatch(word)]
        return list(dict.fromkeys([*programs, *words]))

    @property
    def uses_node(self) -> bool:
        """Whether any command is Node's or a package manager's, or Node itself says how the DDL pack is sorted."""
        order = ["node"] if self.ddl.order == "javascript" else self.ddl.order
        return any(command[:1] in NODES for command in [order, *self.commands.values()])
