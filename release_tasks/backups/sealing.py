"""A folder as one encrypted file, by age: streamed, so that neither is ever in memory as a whole."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from release_tasks.errors import Refused
from release_tasks.files import extract
from release_tasks.masks import hide

SSH_KEY = b"-----BEGIN"


def seal(folder: Path, file: Path, recipients: Sequence[str]) -> None:
    """Write `folder` to `file`, a tar encrypted to `recipients` (public keys of age or SSH), and force it to disk.

    Raises `Refused` where that fails, as on a full disk; what is then in `file` is worth nothing.
    """
    from pyrage import EncryptError, encrypt_io, ssh, x25519

    keys = [(ssh if text.startswith("ssh-") else x25519).Recipient.from_str(text) for text in recipients]
    read, write = os.pipe()
    with ThreadPoolExecutor(1) as beside:
        packing = beside.submit(_pack, folder, os.fdopen(write, "wb"))
        try:
            with os.fdopen(read, "rb") as source, file.open("wb") as target:
                encrypt_io(source, target, keys)
                target.flush()
                os.fsync(target.fileno())
            packing.result()
        except (EncryptError, OSError) as error:
            raise Refused(f"{folder} cannot be encrypted: {error}.", f"df -h {file.parent}") from None


def unseal(file: Path, folder: Path, identity: Path) -> None:
    """Write what `seal` put into `file` below `folder`, with a key of the file `identity` (age's, or of SSH).

    Raises `Refused` for a file of keys that cannot be read, for the wrong key, and for a changed `file`.
    """
    from pyrage import DecryptError, decrypt_io

    keys = _identities(identity)
    read, write = os.pipe()
    with ThreadPoolExecutor(1) as beside:
        unpacking = beside.submit(_unpack, os.fdopen(read, "rb"), folder)
        try:
            with (
                suppress(BrokenPipeError),  # `unpacking` then knows why
                file.open("rb") as source,
                os.fdopen(write, "wb") as target,
            ):
                decrypt_io(source, target, keys)
            unpacking.result()
        except (DecryptError, tarfile.TarError, OSError) as error:
            what = f"{file} cannot be decrypted with the keys of {identity}: {error}."
            raise Refused(what, "--identity FILE   # with the key of one of its recipients") from None


def _pack(folder: Path, stream: IO[bytes]) -> None:
    with stream, tarfile.open(fileobj=stream, mode="w|") as tar:
        tar.add(folder, arcname=folder.name)


def _unpack(stream: IO[bytes], folder: Path) -> None:
    with stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        extract(tar, folder)
        while stream.read(1 << 16):
            pass  # what pads the tar: whoever writes it must not find the pipe closed


def _identities(file: Path) -> list[Any]:
    """Return the keys in `file`, hidden from now on in all that is shown."""
    from pyrage import IdentityError, ssh, x25519

    mend = "--identity FILE   # as age-keygen writes it, or an SSH key without a passphrase"
    try:
        content = file.read_bytes()
        hide(content.decode())
        if content.startswith(SSH_KEY):
            return [ssh.Identity.from_buffer(content)]
        keys = [line.strip() for line in content.decode().splitlines()]
        found = [x25519.Identity.from_str(key) for key in keys if key and not key.startswith("#")]
    except (OSError, ValueError, IdentityError) as error:
        raise Refused(f"{file} holds no key of age: {error}.", mend) from None
    if not found:
        raise Refused(f"{file} holds no key of age.", mend)
    return found
