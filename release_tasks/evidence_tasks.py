"""`inv evidence.verify`, `.stamps`, `.index`, `inv report` and `inv filing`: the commands, and what they print."""

import shlex
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from release_tasks import screen
from release_tasks.command_line import words_after_dashes
from release_tasks.config import project_root, settings_of
from release_tasks.errors import Refused, counted, listed, refuse
from release_tasks.evidence import bag, filing, report, seal, verify
from release_tasks.evidence.pack import rows_of
from release_tasks.files import atomic_write
from release_tasks.release import Release
from release_tasks.settings import Settings

INDEX = "index.jsonl"


def verify_pack(
    config: Any, what: str, signers: str | None, ca: str | None, at: str | None, unsigned: bool, json: bool
) -> None:
    """Verify `what`, a folder, a tar or an index of packs, and show a table.

    Whose word counts is in the files `signers` and `ca`, or the settings of the repo we are in say it.
    """
    settings = Settings() if signers and ca else settings_of(config)  # which may name variables that are not set
    root, path = project_root(config), Path(what)
    evidence, when = settings.evidence, datetime.now(UTC)
    if missing := [file for file in (what, signers, ca) if file and not Path(file).exists()]:
        raise Refused(f"There is nothing at {listed(missing)}.", f"ls -d {shlex.join(missing)}")
    if ca:
        refuse(seal.certificate_problems(Path(ca)))
    if at:
        try:
            given = datetime.fromisoformat(f"{at}T23:59:59" if len(at) == len("2026-11-26") else at)
            when = given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
        except ValueError:
            raise Refused(f"--at says {at!r}; expected a time.", "--at 2026-11-26T15:00") from None
    with TemporaryDirectory() as work:
        ours, theirs = Path(work, "allowed_signers"), Path(work, "roots.pem")
        if evidence.signing_key and not signers:
            ours.write_bytes(seal.allowed_signers(settings.app, root, evidence.signing_key))
        if evidence.authorities and not ca:
            theirs.write_bytes(b"\n".join((root / file).read_bytes() for file in evidence.authorities.values()))
        found = verify.Pack(path, Path(work), Path(signers or ours), Path(ca or theirs), when, unsigned)
        rows = [*verify.results(found, (verify.index,) if path.suffix == ".jsonl" else verify.CHECKS)]
    screen.report(f"Evidence in {what}", rows, json, "Check", f"in {what}")


def add_stamps(config: Any, version: str | None) -> None:
    """Add the sessions and flags of staging and production to the pack of `version`, those that it has not got."""
    with closing(Release.open(config, version, in_work=True)) as release:
        stamp, pack, rows = release.settings.stamp, release.pack_folder, list[dict[str, Any]]()
        if not (pack / bag.ROOT).exists():
            hint = "inv evidence.stamps --version VERSION   # a version that has a pack"
            raise Refused(f"There is no pack of {release.version}.", hint)
        refuse(verify.damage(verify.Pack(pack, pack)))
        for name in ("staging", "production"):
            with release.environment(name).connect() as connection:
                for table in (stamp.log, f"{stamp.log.partition('.')[0]}.session_flags"):
                    if connection.execute("select to_regclass(%s)", [table]).fetchone() != (None,):
                        about = {"environment": name, "table": table}
                        rows += [{**about, **row} for row in rows_of(connection, table)]
        key = release.settings.evidence.signing_key
        new = seal.append(pack / "addenda" / "stamps.jsonl", rows, pack / bag.ROOT, release.root, key)
    screen.say(f"{counted(new, 'new line')}. inv archive --version {release.version}   # copies them to each place")


def add_to_index(config: Any, repos: Sequence[str]) -> None:
    """Add the packs of `repos`, and of those named after `--`, to index.jsonl here, those that it has not got."""
    root, key, rows = project_root(config), settings_of(config).evidence.signing_key, list[dict[str, Any]]()
    for repo in [*repos, *words_after_dashes()] or ["."]:
        if not (packs := sorted(Path(repo).glob(".release/*/evidence"))):
            raise Refused(f"There is no pack in {repo}; nothing was added.", f"ls -d {shlex.quote(repo)}/.release/*/")
        for pack in packs:
            refuse(verify.damage(verify.Pack(pack, pack)))
            info, version = bag.info_of(pack), (pack / "data" / "VERSION").read_text(encoding="utf-8").strip()
            project = info["Internal-Sender-Identifier"].removesuffix(version).removesuffix("v").rstrip("-")
            about = {"project": project, "version": version, "swhid": info["External-Identifier"]}
            rows.append({**about, "root": bag.digest(pack / bag.ROOT)})
    new = seal.append(root / INDEX, rows, None, root, key)
    unsigned = "" if key else " It is unsigned: release.evidence.signing_key is not set."
    commit = f"\ngit add {INDEX}* && git commit   # before the next release" if new else ""
    screen.say(f"{INDEX}: {counted(new, 'new pack')}.{unsigned}{commit}")


def write_report(config: Any, version: str | None) -> None:
    """Write the report of `version` beside its records: of its pack, or of what there is yet."""
    with closing(Release.open(config, version, in_work=True)) as release:
        if not release.folder.exists():
            raise Refused(f"There is no record of {release.version} here.", "ls .release   # which versions there are")
        pack, data, to = release.pack_folder, release.folder, release.folder / "report.html"
        if (pack / bag.ROOT).exists():
            refuse(verify.damage(verify.Pack(pack, pack)))
            data = pack / "data"
        commit = release.git.commit_named(release.tag_ref) or "not tagged"  # also where no remote answers
        about = {"title": release.title, "tag": release.tag, "commit": commit}
        atomic_write(to, report.page(data, release.journal.records(), **about))
        screen.say(release.shown(to))


def prepare_filing(config: Any, office: str, version: str | None) -> None:
    """Prepare the filing of `version` with `office`, and say what is left to do."""
    with closing(Release.open(config, version, in_work=True)) as release:
        screen.say("\n".join(filing.prepare(release, office)))
