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


def sums_of(kept: Path, pack: Path, name: str, recipients: Sequence[str]) -> Path:
    """Return the list of hashes in the folder `kept` of the files made of `pack` as it is now; it is written last.

    What is encrypted is another file each time, so that it gets another name too.
    """
    filings = [str(file_hashes(checked(folder))) for folder in sorted(pack.parent.glob("filing-*"))]
    state = f"{name}.{sha256(' '.join([bag.state_of(pack), *recipients, *filings]).encode())[:8]}"
    new = kept / f"{state}{f'-{token_hex(2)}' if recipients else ''}.sha512"
    return next(kept.glob(f"{state}*.sha512"), new)


def write(pack: Path, sums: Path, name: str, recipients: Sequence[str]) -> None:
    """Write the tar, what is encrypted for `recipients`, and `sums`, into a folder of which nothing else is left."""
    tar = emptied(sums.parent) / f"{sums.stem}.tar"
    bag.write_tar(pack, name, tar)
    if recipients:
        from pyrage import encrypt_file

        encrypt_file(str(tar), f"{tar}.age", recipients_of(recipients))
        for filing in sorted(pack.parent.glob("filing-*")):  # which is about persons: nobody gets it as it is
            bag.write_tar(filing, filing.name, plain := sums.with_suffix(f".{filing.name}.tar"))
            encrypt_file(str(plain), f"{plain}.age", recipients_of(recipients))
            plain.unlink()
    atomic_write(sums, checksum_lines({file.name: bag.digest(file) for file in sorted(sums.parent.iterdir())}))


def recipients_of(keys: Sequence[str]) -> list[Any]:
    """Return the recipients that the public `keys` of age or ssh are. Raises `Refused` where one is none."""
    from pyrage import RecipientError, ssh, x25519

    if any(key.upper().startswith("AGE-SECRET-KEY") for key in keys):
        what = "evidence.recipients holds a secret key: whoever has the repository can decrypt what it was for."
        raise Refused(what, "age-keygen -o NEW   # keep that file elsewhere; set the public key that it shows")
    try:
        return [(x25519 if key.startswith("age1") else ssh).Recipient.from_str(key) for key in keys]
    except RecipientError as no:
        what = f"evidence.recipients holds what is no public key of age: {no}."
        raise Refused(what, "age-keygen -y IDENTITY   # shows the public key of an identity") from None


def check(sums: Path, folder: Path) -> None:
    """Raise `Refused` for files in `folder` that have the names of those in `sums`, but are not as it says."""
    there = {folder / name: digest for name, digest in read_checksums(sums.read_bytes()).items()}
    wrong = [file for file, digest in there.items() if file.exists() and bag.digest(file) != digest]
    fix = "Move {} away and keep it, then run again."
    refuse(Problem(f"{file} is not what {sums.name} says.", fix.format(file)) for file in wrong)


def checked(filing: Path) -> Path:
    """Return the folder `filing`. Raises `Refused` where the deposit in it is not, or no longer, as it was made."""
    deposit, sums = filing / "deposit.zip", filing / "deposit.zip.sha512"
    found = {deposit.name: bag.digest(deposit)} if deposit.exists() else {}
    if sums.exists() and read_checksums(sums.read_bytes()) != found:
        hint = f"Bring {deposit} back from a copy: only those bytes have the hash that is filed."
        raise Refused(f"{deposit} is not what {sums.name} says.", hint)
    return filing


def lacking(place: Place, root: Path, sums: Path, hashed: bool = True) -> list[Path]:
    """Return the files that `place` has not got yet.

    Raises `Refused` where a file there has another hash (compared only with `hashed`). A folder gets all of them;
    commands, where something is encrypted, nothing else. What they brought back as it was has a receipt beside `sums`.
    """
    files = [*(sums.with_name(name) for name in read_checksums(sums.read_bytes())), sums]
    if isinstance(place, str):
        if hashed:
            check(sums, root / place)
        return [file for file in files if not (root / place / file.name).exists()]
    encrypted = any(file.suffix == ".age" for file in files)
    given = [file for file in files if not (encrypted and file.suffix == ".tar")]
    return [file for file in given if not receipt(file, place).exists()]


def receipt(file: Path, place: Place) -> Path:
    return file.with_name(f"{file.name}.{sha256(str(place).encode())[:8]}.receipt")


def copy(place: Place, root: Path, sums: Path) -> None:
    """Bring what is `lacking` to `place`, and see that it is there as it is here. Raises `Refused` or `OSError`."""
    for file in lacking(place, root, sums):
        with TemporaryDirectory() as folder, ExitStack() as stack:
            if isinstance(place, str):
                (root / place).mkdir(exist_ok=True)  # what is above it is there, unless a disk is not
                back, done = root / place / f".{file.name}.incomplete", root / place / file.name
                stack.callback(back.unlink, missing_ok=True)  # a full disk gets its space back
                shutil.copyfile(file, back)
            else:
                back, done = Path(folder, file.name), receipt(file, place)
                for command, given in zip(place, (file, back), strict=True):
                    argv = [word.replace("{file}", str(given)).replace("{name}", file.name) for word in command]
                    process.run(argv, cwd=root, timeout=MOVING)
            if not back.is_file() or bag.digest(back) != bag.digest(file):
                raise Refused(f"what came back is not {file.name}")
            if isinstance(place, str):
                back.rename(done)
            else:
                done.touch()
