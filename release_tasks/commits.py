"""Commits: our own, which a trailer tells, and those of people as lines of the notes."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from release_tasks import git_setup
from release_tasks.errors import Refused, listed
from release_tasks.git import Git

TRAILER = "Release-Step"  # of each commit of ours; its value, the step, is a tag and a section
OURS = re.compile(f"^{TRAILER}: ", re.MULTILINE)
# Such a title is a person's: a host puts the messages of all commits, ours too, into that of their squash.
SQUASHED = re.compile(r"(feat|fix|perf)\b[^:]*: ")
LOG = ["log", "-z", "--format=%H%n%s%n%b", "--encoding=UTF-8", "--topo-order", "--no-merges"]
KINDS = {  # of lines in the notes: the types of commits, and the verbs
    "breaking": "",
    "added": "feat add adds added",
    "changed": "perf",
    "fixed": "fix fixes fixed bugfix hotfix",
    "dev": "docs test tests ci build chore style refactor",
}
TYPED = re.compile(r"^(?:(\w+)(?:\(([^()]*)\))?(!)?: +)?(.*)\Z", re.DOTALL)
BREAKING = re.compile(r"^BREAKING[ -]CHANGE: +(.+(?:\n(?![\w-]+: |BREAKING CHANGE).+)*)", re.MULTILINE)
REVERT = re.compile(  # by id, which is in the body, or by title
    r'[^\n]*\b(?:revert|reapply).*?\bthis reverts commit ([0-9a-f]{7,})|Revert "([^\n]+)"', re.DOTALL | re.IGNORECASE
)
CODE_OR_MARKUP = re.compile(
    r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)|^\d*[-+#>=.)]|[\\`*\[<~]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])"
)


class Commit(NamedTuple):
    """One commit, as `git log` prints it."""

    id: str
    subject: str
    body: str


def history(git: Git, since: str | None, until: str, step: str = "") -> list[Commit]:
    """Return the commits of our `step`, by default those of people, after `since` up to `until`, newest first."""
    which = ["--basic-regexp", f"--grep=^{TRAILER}: {step.replace('.', '[.]')}$"] if step else []
    printed = git.run(*LOG, *which, f"{since}..{until}" if since else until, "--", changes=False).stdout
    commits = [Commit(*each.split("\n", 2)) for each in printed.split("\0") if each]
    return commits if step else [each for each in commits if SQUASHED.match(each.subject) or not OURS.search(each.body)]


def releaser(git: Git) -> str:
    """Return the name that our commits have as their author's, by a variable or by git's configuration."""
    return git.look("var", "GIT_AUTHOR_IDENT").stdout.partition(" <")[0] or "the releaser"


def commit_step(git: Git, files: Mapping[str, bytes], message: str, step: str, even_empty: bool = False) -> None:
    """Commit `files` as our `step`. Raises `Refused`, and takes the commit back, where a hook has changed it."""
    before = git.commit_named("HEAD") or ""
    git.commit_files(files, f"{message}\n\n{TRAILER}: {step}", even_empty)
    dirty = [path for path in git.dirty_paths() if path in files]
    changed = [path for path, content in files.items() if path in dirty or git.bytes_at("HEAD", path) != content]
    if not changed and (git.commit_named("HEAD") == before or history(git, before, "HEAD", step)):
        return
    git.run("checkout", "--quiet", "HEAD", "--", *dirty)
    git.run("reset", "--quiet", "--keep", before)
    what = f"A git hook changed {listed(changed) or f'the message, which lacks {TRAILER}: {step}'}; expected our commit"
    hooks = git_setup.hooks(git.root, "commit")
    fix = f"Let it leave the files of a release, and the trailer {TRAILER} in a message, as they are: {hooks}"
    raise Refused(f"{what} as it was made: {message.splitlines()[0]}. It was taken back.", fix)


def lines_of(commits: Sequence[Commit]) -> dict[str, list[str]]:
    """Return kind → lines of the notes, by conventional type, by verb, else `changed`; a breaking one only there."""
    kind_of = {word: kind for kind, words in KINDS.items() for word in words.split()}
    lines: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for commit in without_reverts(commits):
        [(type_, scope, mark, rest)] = TYPED.findall(commit.subject)
        kind, verb = kind_of.get(type_.lower()), kind_of.get(rest.split(" ")[0].lower())
        text = f"{f'**{harmless(scope)}**: ' if kind and scope else ''}{harmless(rest if kind else commit.subject)}"
        breaks = [harmless(" ".join(each.split())) for each in BREAKING.findall(commit.body)]
        kind = "breaking" if mark or breaks else kind or (verb if verb in ("added", "fixed") else "changed")
        lines[kind].append(": ".join([f"{text} ({commit.id:.9})", *breaks]))
    return lines


def without_reverts(commits: Sequence[Commit]) -> list[Commit]:
    """Return `commits`, newest first, without each revert and what it reverts, where both are there."""
    left = list(commits)
    for commit in commits:
        found = REVERT.match(f"{commit.subject}\n{commit.body}")
        if not found or commit not in left:
            continue
        named, titled = found.groups()
        older = left[left.index(commit) + 1 :]
        reverted = [each for each in older if (each.id.startswith(named) if named else each.subject == titled)]
        if reverted:
            left = [each for each in left if each not in (commit, reverted[0])]
    return left


def harmless(text: str) -> str:
    """Return `text` such that Markdown shows it as it is; what stands between backticks stays code."""
    return CODE_OR_MARKUP.sub(lambda found: found[0] if found[1] else f"{found[0][:-1]}\\{found[0][-1]}", text)
