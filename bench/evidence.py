"""How long an evidence pack of 1 GB of source takes, and its verification, against the same by hand, and its memory.

Run by `nox -s bench`. Half of the source cannot be compressed, as pictures, half is text. Each part is a process of its
own, whose peak of memory is that of its largest program; prints medians of rounds in turns, and ratios. It needs 12 GB
of disk; `--megabytes 100` makes a smaller source.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from release_tasks import screen  # noqa: E402
from release_tasks.evidence import copies, pack, statements, verify  # noqa: E402
from release_tasks.files import emptied  # noqa: E402
from release_tasks.release import Release  # noqa: E402
from release_tasks.settings import Settings  # noqa: E402

MB = 1_000_000
TEXTS = {
    "VERSION": "0.1.1\n",
    "SOURCE_TAG": "v0.1.1\n",
    "docs/HASHES.sha256.txt": "# none\n",
    "ddl/ORDER.lock": "# x\n",
}
TEXTS |= {"docs/releases/v0.1.1.md": "# App v0.1.1\n", "CHANGELOG.md": "# Changelog\n"}
ARCHIVE = "git archive --prefix=app-0.1.1/ --output=$T/source.tar v0.1.1 && (cd $T && sha256sum source.tar > sums)"
TAR = "tar --create --file $T.tar --directory $T ."
HAND = {
    "git archive, sha256sum, tar": f"{ARCHIVE} && {TAR}",
    "by hand: the same, git bundle, sha512sum": f"{ARCHIVE} && git bundle create --quiet $T/git.bundle v0.1.1"
    " && (cd $T && sha256sum git.bundle >> sums && sha512sum source.tar git.bundle > sums512)"
    f" && {TAR} && sha512sum $T.tar",
    "verified by hand: sums, clone, fsck, write-tree": """cd $T && sha256sum --check --quiet sums &&
        sha512sum --check --quiet sums512 &&
        git clone --quiet --bare git.bundle $T.clone && git -C $T.clone fsck --full &&
        mkdir $T.source && tar --extract --file source.tar --directory $T.source --strip-components=1 &&
        git init --quiet $T.source && git -C $T.source add --all --force && git -C $T.source write-tree""",
}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--part")
    given = parser.parse_args()
    if given.part:
        return PARTS[given.part](Path.cwd())
    with tempfile.TemporaryDirectory() as name:
        make_source(source := Path(name).resolve() / "source", given.megabytes)
        took: dict[str, list[tuple[float, float]]] = {}
        for _ in range(given.times):
            emptied(hand := source.with_name("hand"))
            for what, script in HAND.items():
                took.setdefault(what, []).append(measured(["sh", "-ec", script], source, hand))
            for what in PARTS:
                took.setdefault(what, []).append(measured([sys.executable, __file__, "--part", what], source, hand))
            for each in source.parent.glob("hand*"):
                subprocess.run(["rm", "-r", str(each)], check=True)
    rows = []
    for what, found in took.items():
        seconds = statistics.median(second for second, _ in found)
        base = BASES.get(what, what)
        ratio = seconds / statistics.median(second for second, _ in took[base])
        rows.append((what, f"{seconds:.1f}", f"{ratio:.2f}", f"{max(peak for _, peak in found):.0f}"))
    screen.table(f"{given.megabytes} MB, medians of {given.times}", ["what", "seconds", "ratio", "MB at most"], rows)


def make_source(folder: Path, size: int) -> None:
    """Make a repository of `size` megabytes, tagged v0.1.1."""
    chance, files = random.Random(0), {name: text.encode() for name, text in TEXTS.items()}
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    for n in range(size // 10):
        files[f"pictures/{n}.bin"] = chance.randbytes(5 * MB)
        for part in range(100):
            files[f"src/{n}/{part}.txt"] = chance.randbytes(MB // 40).hex("\n", 32).encode()
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        files.clear()
    who = ["-c", "gc.auto=0", "-c", "user.name=Bench", "-c", "user.email=bench@example.invalid"]
    own = ["remote", "add", "origin", str(folder)]  # itself: nothing is pushed
    for words in (
        own,
        ["add", "."],
        ["commit", "--quiet", "-m", "x"],
        ["tag", "--annotate", "--message", "x", "v0.1.1"],
    ):
        subprocess.run(["git", *who, *words], cwd=folder, check=True)


def measured(argv: list[str], folder: Path, hand: Path) -> tuple[float, float]:
    """Run `argv` in `folder`; return its seconds, and the megabytes of its largest program."""
    began = time.perf_counter()
    process = subprocess.Popen(argv, cwd=folder, env={**os.environ, "T": str(hand)}, stdout=subprocess.DEVNULL)
    _, code, used = os.wait4(process.pid, 0)
    if code:
        raise SystemExit(f"{' '.join(argv)} failed.")
    return time.perf_counter() - began, used.ru_maxrss / 1000


def build(folder: Path) -> None:
    release = Release("0.1.1", folder, Settings.model_validate({"branch": ""}))
    pack.PARTS = (pack.documents, pack.source, pack.instructions, statements.write)  # what needs no environments
    pack.build(release, made := emptied(folder.parent / "hand.pack" / "app-0.1.1"))
    copies.write(made, copies.sums_of(made, "app-0.1.1", []), "app-0.1.1", [])


def check(folder: Path) -> None:
    path, work = folder.parent / "hand.pack" / "app-0.1.1", emptied(folder.parent / "hand.work")
    wrong = [each for each in verify.results(verify.Pack(path, work, unsigned=True)) if not each.is_pass]
    if wrong:
        raise SystemExit(f"{wrong[0].name}: {wrong[0].message}")


PARTS = {"the pack, and its tar": build, "the pack verified": check}
BASES = dict(zip(PARTS, list(HAND)[1:], strict=True))

if __name__ == "__main__":
    main()
