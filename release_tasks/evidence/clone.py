"""Git in a clone of ours alone, of what anybody may have made, and the ids of a release there."""

import os
import subprocess
from pathlib import Path
from typing import IO, Any

from release_tasks import process
from release_tasks.errors import Refused
from release_tasks.files import atomic_write

RAW = "* -export-subst -export-ignore -text -filter -ident -working-tree-encoding\n"  # as committed, all of it
GIT = 1800.0  # seconds for a bundle, its clone, and for its fsck
# An object in a bundle may be a bomb: git gets 8 GB, where there is a shell that can say so.
LIMITED = ["sh", "-c", 'ulimit -v 8000000 2> /dev/null || :; exec "$@"', "sh"] if os.name == "posix" else []
ALONE = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_COUNT": "0", "LC_ALL": "C"}
ALONE["GIT_CONFIG_PARAMETERS"] = ""  # of who calls us by an alias, or with -c

# What git packs depends on these settings, and with a second thread on chance; the core ones bound its memory.
FIXED = ("pack.threads=1", "core.bigFileThreshold=4m", "core.packedGitWindowSize=16m", "core.packedGitLimit=64m")
CONFIG = [word for each in (*FIXED, "tar.umask=0022") for word in ("-c", each)]


def git(clone: Path, *args: str | Path, stdin: IO[bytes] | int = subprocess.DEVNULL) -> str:
    """Run git in `clone`, ours alone: no user's settings count, its memory stays small. Raises `Refused`."""
    words = [*LIMITED, "git", f"--git-dir={clone}", *CONFIG, *args]
    try:
        return process.run(words, env=ALONE, timeout=GIT, stdin=stdin).stdout.strip("\n\0")
    except process.CommandFailed as no:
        raise Refused(f"git {args[0]}: {no.finished.tail() or no}") from None


def ids_of(clone: Path, version: str, tag: str) -> dict[str, Any]:
    """Return what data/ids.json says of `tag` in `clone`: git's ids are SWHIDs too (ISO/IEC 18670)."""
    own, commit, tree = (git(clone, "rev-parse", f"refs/tags/{tag}{peel}") for peel in ("", "^{commit}", "^{tree}"))
    swhids = [f"swh:1:rel:{own}", f"swh:1:rev:{commit}", f"swh:1:dir:{tree}"]
    return {"version": version, "tag": own, "commit": commit, "tree": tree, "swhids": swhids}


def archive(clone: Path, commit: str, tar: Path) -> None:
    """Write the tree of `commit` as `tar`, in a folder of the same name, each file as it was committed."""
    atomic_write(clone / "info" / "attributes", RAW.encode())
    git(clone, "archive", f"--prefix={tar.stem}/", f"--output={tar}", commit)
