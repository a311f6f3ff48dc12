"""The command line: what was typed, the same again as a hint, and the help texts of options."""

import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from itertools import takewhile
from typing import Any

REHEARSING = "RELEASE_REHEARSING"  # in a rehearsal, which may reach nothing real: its settings of evidence, as JSON
REHEARSAL = ".git/rehearsal.json"  # the same in the clone of a rehearsal, which may be kept and typed in
typed: list[tuple[str, dict[str, Any]]] = [("release", {})]  # the tasks of the command line, each with its options
IN_WORK = "the version, such as 0.1.1; default: the one that VERSION names or leads to"
HELP = {
    "version": "the version to release, such as 0.1.1; default: VERSION, where that names a release",
    "env": "dev, staging or production",
    "sign": "sign the tag, as git is configured (gpg or ssh)",
    "yes": "confirm production and manual steps without a question, for machines",
    "next": "the version to work on afterwards; default: the next patch, as 0.1.2-dev",
    "highlights": "the Highlights of the notes: a text, or @file",
    "allow_shift": "why the DDL pack may make something else than was locked",
    "reason": "why it is withdrawn",
    "until": "when the freeze ends, in words",
    "take_over": "the commit of another release's lock, as it was shown, to take over",
    "json": "print the outcome as JSON",
    "to": "default: the release that was live before",
    "only": "the name of one smoke",
    "watch": "seconds that each may take",
    "keep": "keep the throw-away folder",
    "again": "also where nothing is new",
    "from": "a backup: its name, or its folder",
    "into": "dev, staging, production, or the URL of a database",
    "over": "the name of a database that is there: it is kept under another name",
    "allowed_signers": "who may sign, as ssh-keygen reads it; default: evidence.signing_key",
    "tsa_ca": "certificates that timestamps lead to; default: those of evidence.authorities",
    "at": "when certificates have to be valid, such as 2026-11-26; default: now",
    "unsigned": "it need be neither signed nor stamped",
    "office": "inpi-br or inpi-fr",
    "file": "where to write it; default: standard output",
}


def again(instead: str = "", **options: Any) -> str:
    """Return the command that was typed, with `options` in it, as a hint.

    A status changes nothing: there the sentence `instead` is the hint, if one is given. Within a rehearsal that command
    would be a real release, without a question.
    """
    task = typed[-1][0]
    if REHEARSING in os.environ and task != "rehearse":
        version = ["--version", options["version"]] if "version" in options else []
        return instead or shlex.join(["inv", "rehearse", *version])
    if instead and task == "status":
        return instead
    words = ["inv", "--dry"] if {"--dry", "-R"} & {*sys.argv} else ["inv"]
    given = [(task, dict(own)) for task, own in typed]
    for name, value in options.items():
        for own in [own for _, own in given if name in own] or [given[-1][1]]:
            own[name] = value
    for task, own in given:
        words.append(task)
        for name, value in own.items():
            words += [f"--{name.rstrip('_').replace('_', '-')}", *([] if value is True else [str(value)])]
    return " ".join(f'"{word}"' if word == "…" else shlex.quote(word) for word in words)


def texts_of(names: Iterable[str], **texts: str) -> dict[str, str]:
    """Return what `inv --help` says of the options `names`: `texts`, else HELP; Python needs `from_` for "from"."""
    return {name: HELP[name] for name in (each.rstrip("_") for each in names) if name in HELP} | texts


def words_after(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let `body(c, *words)` be the task `name`, with all words that are typed after it: Invoke takes a fixed number."""
    following = sys.argv[sys.argv.index(name) + 1 :] if name in sys.argv else []
    words = [f"word_{n}" for n, _ in enumerate(takewhile(lambda word: not word.startswith("-"), following))]

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        @wraps(body)
        def run(c: Any, **given: str) -> None:
            body(c, *given.values())

        parameters = [inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in ("c", *words)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def words_after_dashes() -> list[str]:
    """Return what was typed after `--`, word by word: Invoke itself keeps it as one text."""
    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
