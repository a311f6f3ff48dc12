"""Section 9: the evidence pack, which shows what was released and when; its timestamps, and its copies."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from release_tasks.errors import Manual, Refused, listed, refuse, require
from release_tasks.evidence import bag, copies, pack, seal, verify
from release_tasks.evidence.settings import token_name
from release_tasks.failures import problem_of
from release_tasks.files import emptied
from release_tasks.masks import short
from release_tasks.release import Release, Step, skip_when, until_live

skip_where_the_pack_is_elsewhere = skip_when(
    lambda release: release.is_over and not release.pack_folder.exists(), "the evidence pack is elsewhere"
)


@until_live
def check_evidence_setup(release: Release) -> str:
    """What signs, stamps and encrypts the evidence pack is there, and works (section 9)."""
    evidence, root = release.settings.evidence, release.root
    problems = [each for ca in evidence.authorities.values() for each in seal.certificate_problems(root / ca)]
    try:
        copies.recipients_of(evidence.recipients)
    except Refused as no:
        problems = [*no.problems, *problems]
    refuse(problems)
    if evidence.signing_key:
        release.only_in_a_run()  # the key may need its passphrase
        with TemporaryDirectory() as folder:
            (trial := Path(folder, "trial")).touch()
            seal.sign(trial, root, evidence.signing_key)
            seal.check_own_signature(trial, root, evidence.signing_key)
    given = [key for key in ("signing_key", "authorities", "recipients") if getattr(evidence, key)]
    return ", ".join(given) or "nothing signs, stamps or encrypts it"


def build_the_evidence_pack(release: Release) -> Step:
    """Build the evidence pack, and sign it."""
    folder, places = release.pack_folder, release.settings.evidence.places
    swhid, hashed = f"swh:1:rel:{release.git.object_named(release.tag_ref)}", not release.only_checks
    if folder.exists():
        refuse(verify.damage(verify.Pack(folder, folder), swhid, hashed))
        unread = "; a run compares its hashes" if release.only_checks else ""
        return f"{release.shown(folder)}{'' if (folder / bag.SIGNATURE).exists() else ', unsigned'}{unread}"
    require(release.runs_in_production, "after production runs it")
    folders = [release.root / place for place in places if isinstance(place, str)]
    tars = [tar for each in folders for tar in each.glob(f"{pack.name_of(release)}.*.tar")]
    kept = max(tars, key=lambda tar: (tar.stat().st_size, tar.stat().st_mtime), default=None)  # a pack only ever grows
    if release.is_over and not kept:  # another one would have another root
        return Manual(f"bring {release.shown(folder)} from where {release.version} was finished: it is not here")
    lacking = [name for name in ("staging", "production") if not any(release.folder.glob(f"checks/*-{name}*.json"))]
    without = f"; no check of {listed(lacking)} was recorded here" if lacking else ""
    yield f"fetch it back from {kept.parent}" if kept else f"write {release.shown(folder)}{without}"
    incomplete = emptied(folder.with_name(f".{folder.name}.incomplete"))
    if not kept:
        pack.build(release, incomplete)
    found = verify.Pack(kept or incomplete, incomplete)
    refuse(verify.damage(found, swhid))
    found.folder.rename(folder)
    emptied(incomplete).rmdir()


@skip_where_the_pack_is_elsewhere
def timestamp_the_pack(release: Release) -> Step:
    """Each timestamp authority stamps the pack."""
    authorities, folder = release.settings.evidence.authorities, release.pack_folder
    require(folder.exists() or not authorities, "after the evidence pack is built")
    stamps = {url: partial(seal.stamp, folder, url, release.root / ca) for url, ca in authorities.items()}
    missing = {url: stamp for url, stamp in stamps.items() if not (folder / token_name(url)).exists()}
    return (yield from _try_all(release, missing, listed(authorities) or "no evidence.authorities are set"))


@skip_where_the_pack_is_elsewhere
def write_the_archive_files(release: Release) -> Step:
    """Write the pack as a tar, and encrypted for its recipients."""
    recipients, sums = release.settings.evidence.recipients, _sums(release)
    if sums.exists():
        copies.lacking(str(sums.parent), release.root, sums, hashed=not release.only_checks)  # which refuses others
        return f"{release.shown(sums)}{'' if recipients else '; no evidence.recipients are set'}"
    yield f"write {release.shown(sums.with_suffix('.tar'))}{' and .tar.age' if recipients else ''}"
    copies.write(release.pack_folder, sums, pack.name_of(release), recipients)


@skip_where_the_pack_is_elsewhere
def copy_the_archive_files(release: Release) -> Step:
    """Copy the files to each place, and verify them there."""
    root, places, sums = release.root, release.settings.evidence.places, _sums(release)
    require(sums.exists(), "after the files are written")
    missing = dict[str, Callable[[], None]]()
    for place in places:
        with suppress(OSError):  # a disk that is away says so again when it is tried
            if not copies.lacking(place, root, sums, hashed=not release.only_checks):
                continue
        missing[copies.name_of(place)] = partial(copies.copy, place, root, sums)
    return (yield from _try_all(release, missing, listed(map(copies.name_of, places)) or "no evidence.places are set"))


def _sums(release: Release) -> Path:
    require(release.pack_folder.exists(), "after the evidence pack is built")
    return copies.sums_of(release.pack_folder, pack.name_of(release), release.settings.evidence.recipients)


def _try_all(release: Release, missing: Mapping[str, Callable[[], None]], done: str) -> Step:
    """Try all that are `missing`; one that does not answer holds up nothing, and is left for the next `inv archive`."""
    if not missing:
        return done
    left = [name for name in missing if name not in release.unreachable]
    if release.only_checks or not left:
        why = "; ".join(f"{name}: {release.unreachable.get(name, 'not yet')}" for name in missing)
        return Manual(f"inv archive --version {release.version}   # tries again: {why}")
    yield listed(left)
    for name in left:
        try:
            missing[name]()
        except (Refused, OSError) as error:
            release.unreachable[name] = short(problem_of(error).what if isinstance(error, OSError) else error)
    return done


def ask_to_keep_the_hashes_and_file(release: Release) -> str:
    """Keep the hashes offline and encrypted; prepare the INPI filing if needed."""
    root = release.pack_folder / bag.ROOT
    which = f" of {release.shown(root)}" if root.exists() else ""
    return Manual(f"keep the SHA-512{which} in offline, encrypted storage; file with INPI if this release needs it")
