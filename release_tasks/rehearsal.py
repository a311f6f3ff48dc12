"""A rehearsal: the real `inv release` in a throw-away clone, with a bare remote and embedded environments."""

import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from release_tasks import node, process, requirements, screen, temporary, versions
from release_tasks.command_line import REHEARSAL, REHEARSING
from release_tasks.config import project_root, settings_of
from release_tasks.database import apply
from release_tasks.database.pack import pack_at
from release_tasks.deploy import code
from release_tasks.embedded import open_environment, serve
from release_tasks.environments import Environment
from release_tasks.errors import Refused, counted, listed
from release_tasks.evidence import authority, seal, verify
from release_tasks.files import emptied, records_folder
from release_tasks.git import Git
from release_tasks.journal import Journal
from release_tasks.settings import Settings

WHOLE_RELEASE = 1800.0  # seconds
NOX_FOLDER = "RELEASE_NOX"  # a variable for noxfile.py: where the environments of smokes are


def rehearse(config: Any, version: str | None, keep: bool) -> None:
    """Release `version` (default: the one in work) in a throw-away clone of HEAD; nothing outside it changes.

    The evidence pack is copied to .release/rehearsals/. Raises `Refused` when the release did not go through.
    """
    os.environ[REHEARSING] = "{}"  # so that `settings_of` leaves out all that is real
    root, settings = project_root(config), settings_of(config)
    os.environ.setdefault(NOX_FOLDER, str(root / ".nox"))
    if "web" not in settings.services:
        what = "A rehearsal runs the application itself, and release.services.web does not say how."
        raise Refused(what, "Set release.services: {web: [...]} in invoke.yaml; it has to listen on PORT.")
    version = versions.chosen(root, version, in_work=True)
    git = Git.open(root, settings.remote)
    if dirty := git.dirty_paths():
        screen.say(f"Rehearsing HEAD, without {counted(len(dirty), 'uncommitted change')}: {listed(dirty, 3)}.")
    if settings.uses_node:
        os.environ.update(node.store(root / settings.folder, records_folder(root)))
    outlasts = temporary.original_variables().get("TMPDIR") if keep else None
    began, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="rehearsal-", dir=outlasts)).resolve()
    screen.say(f"Rehearsing in {folder / 'clone'}{', which is kept' if keep else ''}")
    throw_away = emptied(folder / "evidence")
    os.environ[REHEARSING] = json.dumps(authority.settings(throw_away))
    for name in ("no_proxy", "NO_PROXY"):  # the authority is on this machine
        os.environ[name] = f"127.0.0.1,{os.environ.get(name, '')}"
    clone = make_clone(git, folder, settings)
    took = {"Bringing up the environments": time.monotonic() - began}
    command = ["release", "--version", version, "--yes"]
    screen.say(f"\n$ inv {' '.join(command)}")
    argv = [sys.executable, "-m", "invoke", *command]
    released = process.run(argv, cwd=clone, timeout=WHOLE_RELEASE, check=False, supervised=True, show=True)
    seconds, tag = time.monotonic() - began, settings.tag_of(version)
    records = records_folder(clone) / tag
    for record in Journal(records / "journal.jsonl").records():
        if record["event"] in ("checked", "step"):  # both passes over a section
            took[record["section"]] = took.get(record["section"], 0.0) + record["seconds"]
    took["Beginning and ending"] = max(seconds - sum(took.values()), 0.0)
    rows = [(part, f"{part_seconds:.1f} s") for part, part_seconds in took.items()]
    screen.table(f"\nRehearsal of {version}, {seconds:.0f} s in all", ["section", "took"], rows)
    if released.code:
        what = f"The rehearsal of {version} stopped with exit code {released.code}; see above."
        raise Refused(what, f"inv rehearse --keep   # then, in its clone: inv status --version {version}")
    evidence = records_folder(root) / "rehearsals" / f"{tag}-{datetime.now():%Y%m%d-%H%M%S}"
    shutil.copytree(records / "evidence", evidence)
    _verify_what_is_kept(throw_away, settings.app)
    screen.say(f"\nThe evidence pack: {evidence.relative_to(root).as_posix()}")
    activate = "" if shutil.which("inv") else f"{requirements.activation()} && "  # nox puts no inv on PATH
    screen.say(f"Next: {activate}inv status --version {version}")


def _verify_what_is_kept(throw_away: Path, app: str) -> None:
    """Decrypt what has come to the place in `throw_away`, and verify it. Raises `Refused`."""
    from pyrage import decrypt_file, x25519

    identity = x25519.Identity.from_str((throw_away / "identity").read_text(encoding="utf-8"))
    (encrypted,) = (throw_away / "place").glob("*.age")
    restored = throw_away / "restored.tar"
    decrypt_file(str(encrypted), str(restored), [identity])
    signers = throw_away / "allowed_signers"
    signers.write_bytes(seal.allowed_signers(app, throw_away, "key"))
    rows = [*verify.results(verify.Pack(restored, throw_away, signers, throw_away / "tsa.pem"))]
    screen.report("\nThe evidence pack, decrypted from its copy", rows, False, "Check", "in the pack")


def make_clone(git: Git, folder: Path, settings: Settings) -> Path:
    """Clone HEAD and its submodules, each by a bare remote in `folder`; deploy HEAD, and return the clone."""
    if git.is_shallow:
        raise Refused("This clone is shallow; a rehearsal needs the whole history.", "git fetch --unshallow")
    clone = folder / "clone"
    author = ("--config", "user.name=Rehearsal", "--config", "user.email=rehearsal@example.invalid")
    with screen.busy("Cloning into a throw-away folder"):
        for number, (prefix, repo, commit) in enumerate(code.trees(git, "HEAD")):  # submodules are pushed to as well
            remote, branch = str(folder / f"remote-{number}.git"), settings.docs_pack.submodule_branch
            branch = branch if prefix else settings.main
            repo.run("init", "--quiet", "--bare", f"--initial-branch={branch}", remote)
            refs = (f"{commit}:refs/heads/{branch}", "refs/tags/*:refs/tags/*")
            repo.run("push", "--quiet", remote, *refs, timeout=300)
            own = ("--origin", repo.remote, *author, remote, str(clone / prefix))
            repo.run("clone", "--quiet", *own, timeout=300)
    if REHEARSING in os.environ:
        (clone / REHEARSAL).write_text(os.environ[REHEARSING], encoding="utf-8")
    for name in ("staging", "production"):
        with screen.busy(f"Deploying HEAD to {name}"), closing(open_environment(name, clone, settings)) as environment:
            deploy_previous(environment)
        screen.say(f"  {name}: {environment.origin}")
    return clone


def deploy_previous(environment: Environment) -> None:
    """Let `environment` run HEAD before the release, so that there is something to back up and to replace."""
    root, settings = environment.root, environment.settings
    with closing(Git.open(root, settings.remote)) as git:
        commit = git.commit_named("HEAD") or ""
        before = code.make_ready(git, "before", commit, environment.install)
        code.write_tar(git, commit, before, tree := before.with_suffix(".tar"))
        pack = pack_at(git, commit, settings)
    serve(environment)
    environment.hosts.place("before", {"commit": commit, "version": versions.version_here(before)}, tree)
    apply.apply(environment, pack, before, "before")
    environment.hosts.switch("before")
