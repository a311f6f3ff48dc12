"""The pack as files to keep: a plain tar, one that only the recipients can read, and their hashes; and their copies.

A name holds a hash of what was added to the pack so far, and of who can read it, so nothing is ever written over.
"""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

from release_tasks import process
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.evidence import bag
from release_tasks.evidence.settings import Place
from release_tasks.files import atomic_write, checksum_lines, emptied, file_hashes, read_checksums, sha256

MOVING = 3600.0  # seconds for a command that moves a file


def name_of(place: Place) -> str:
    return place if isinstance(place, str) else " ".join(place[0])


def sums_of(pack: Path, name: str, recipients: Sequence[str]) -> Path:
    """Return the list of hashes, beside `pack`, of the files made of it as it is now; it is written last.

    What is encrypted is another file each time, so that it gets another name too.
    """
    growing = [pack / "anchors", pack / "addenda", *map(checked, sorted(pack.parent.glob("filing-*")))]
    about = [
        *(bag.digest(file) for file in sorted(pack.glob("tagmanifest-sha512.*"))),
        *recipients,
        *(str(file_hashes(folder)) for folder in growing),
    ]
    state = f"{name}.{sha256(' '.join(about).encode())[:8]}"
    new = pack.with_name("archive") / f"{state}{f'-{token_hex(2)}' if recipients else ''}.sha512"
    return next(new.parent.glob(f"{state}*.sha512"), new)


def write(pack: Path, sums: Path, name: str, recipients: Sequence[str]) -> None:
    """Write the tar, what is encrypted for `recipients`, and `sums`, into a folder of which nothing else is left."""
    tar, keys = emptied(sums.parent) / f"{sums.stem}.tar", recipients_of(recipients)
    bag.write_tar(pack, name, tar)
    if keys:
        from pyrage import encrypt_file

        encrypt_file(str(tar), f"{tar}.age", keys)
        for filing in sorted(pack.parent.glob("filing-*")):  # which is about persons: nobody gets it as it is
            bag.write_tar(filing, filing.name, plain := sums.with_suffix(f".{filing.name}.tar"))
            encrypt_file(str(plain), f"{plain}.age", keys)
            plain.unlink()
    atomic_write(sums, checksum_lines({file.name: bag.digest(file) for file in sorted(sums.parent.iterdir())}))


def recipients_of(keys: Sequence[str]) -> list[Any]:
    """Return the recipients that the public `keys` of age or ssh are. Raises `Refused` where one is none."""
    if not keys:
        return []
    from pyrage import RecipientError, ssh, x25519

    try:
        return [(x25519 if key.startswith("age1") else ssh).Recipient.from_str(key) for key in keys]
    except RecipientError as no:
        what = f"evidence.recipients holds what is no public key of age: {no}."
        raise Refused(what, "age-keygen -y IDENTITY   # shows the public key of an identity") from None


def checked(filing: Path) -> Path:
    """Return the folder `filing`. Raises `Refused` where the deposit in it is not, or no longer, as it was made."""
    deposit, sums = filing / "deposit.zip", filing / "deposit.zip.sha512"
    found = {deposit.name: bag.digest(deposit)} if deposit.exists() else {}
    if sums.exists() and read_checksums(sums.read_bytes()) != found:
        hint = f"Bring {deposit} back from a copy: only those bytes have the hash that is filed."
        raise Refused(f"{deposit} is not what {sums.name} says.", hint)
    return filing


def lacking(place: Place, root: Path, sums: Path, hashed: bool = True) -> dict[str, str]:
    """Return name → SHA-512 of the files that `place` has not got yet, `sums` itself the last.

    Raises `Refused` where a file there has another hash (compared only with `hashed`). A folder gets all of them;
    commands, where something is encrypted, nothing else. What they brought back as it was has a receipt beside `sums`.
    """
    files = {**read_checksums(sums.read_bytes()), sums.name: bag.digest(sums)}
    if isinstance(place, str):
        there = {name: root / place / name for name in files if (root / place / name).exists()}
        wrong = [file for name, file in there.items() if hashed and bag.digest(file) != files[name]]
        fix = "Move {} away and keep it, then run again."
        refuse(Problem(f"{file} is not what {sums.name} says.", fix.format(file)) for file in wrong)
        return {name: digest for name, digest in files.items() if name not in there}
    is_encrypted = any(name.endswith(".age") for name in files)
    given = {name: digest for name, digest in files.items() if not (is_encrypted and name.endswith(".tar"))}
    return {name: digest for name, digest in given.items() if not receipt(sums.with_name(name), place).exists()}


def receipt(file: Path, place: Place) -> Path:
    return file.with_name(f"{file.name}.{sha256(str(place).encode())[:8]}.receipt")


def copy(place: Place, root: Path, sums: Path) -> None:
    """Bring what is `lacking` to `place`, and see that it is there as `sums` says. Raises `Refused` or `OSError`."""
    for name, digest in lacking(place, root, sums).items():
        file = sums.with_name(name)
        with TemporaryDirectory() as folder, ExitStack() as stack:
            if isinstance(place, str):
                (root / place).mkdir(exist_ok=True)  # what is above it is there, unless a disk is not
                back = root / place / f".{name}.incomplete"
                stack.callback(back.unlink, missing_ok=True)  # a full disk gets its space back
                shutil.copyfile(file, back)
            else:
                back = Path(folder, name)
                for command, given in zip(place, (file, back), strict=True):
                    argv = [word.replace("{file}", str(given)).replace("{name}", name) for word in command]
                    process.run(argv, cwd=root, timeout=MOVING)
            if not back.is_file() or bag.digest(back) != digest:
                raise Refused(f"what came back is not {name}")
            if isinstance(place, str):
                back.rename(root / place / name)
            else:
                receipt(file, place).touch()
