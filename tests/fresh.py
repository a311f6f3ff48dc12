"""The README's commands, typed by an ordinary user on a bare Debian that has the README's packages and nothing else.

Run it by `nox -s fresh`: Linux, as root, with debootstrap. `--suite trixie` takes another Debian, `--tests` types the
second command as well. The system is made in a folder that is removed afterwards, and entered with pivot_root, so that
user namespaces work as on a real machine; then once by chroot, in which Linux refuses them to an ordinary user.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
USER = "1500"
HOME = Path("home/someone")
LIMIT = 1800.0  # seconds for one command of the README
MAX_NOX_MB = 900  # after the first command
MAX_FIRST_WORDS = 2.0  # seconds until the first command says what it does
# How a machine reaches its registries is no part of the system: proxies, mirrors, certificates.
CERTIFICATES = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
NETWORK_VARIABLES = (*CERTIFICATES, *PROXIES, "PIP_INDEX_URL", "npm_config_registry")
NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts")
# sh is process 1 of a namespace of its own, so whatever else is there at the end was left behind.
ENTER = """
set -eu
system=$1
shift
mount --rbind "$system" "$system"
mount -t proc proc "$system/proc"
mount --rbind /dev "$system/dev"
mount -t tmpfs tmpfs "$system/dev/shm"
"""
BY_PIVOT_ROOT = """
cd "$system"
pivot_root . mnt
cd /
umount -l /mnt
system=
"""
BY_CHROOT = 'set -- chroot "$system" "$@"\n'
ENDED = "THE COMMAND HAS ENDED"
RUN = f"""
code=0
"$@" || code=$?
echo "{ENDED}"
"""
LOOK = """
for second in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do  # what cleans up after a run may take a while
  set -- "$system"/proc/[0-9]*
  [ $# = 1 ] && break
  sleep 1
done
for process in "$system"/proc/[0-9]*; do
  [ "${process##*/}" = 1 ] || { printf 'LEFT BEHIND: '; tr '\\0' ' ' < "$process/cmdline"; echo; } 2> /dev/null
done
find "$system/dev/shm" -mindepth 1 -printf 'LEFT BEHIND: /dev/shm/%P\\n'
exit $code
"""


class Failed(Exception):
    """The machine is not as the README promises."""


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def packages() -> list[str]:
    """Return the Debian packages that the README names."""
    found = re.search(r"apt-get install (?:--no-install-recommends )?([\w. +-]+)`", readme())
    if not found:
        raise Failed("README.md names no `apt-get install …`.")
    return found[1].split()


def commands() -> list[str]:
    """Return the two commands of the README's first screen."""
    return re.findall(r"^    (python3 noxfile\.py -s \w+)", readme(), re.MULTILINE)


def allowed_patterns() -> list[str]:
    """Return patterns of the paths that may be made or change: the clone's, and what the README names beside it."""
    named = re.findall(r"\((`[~/][^)]+`)\)", readme())
    outside = [path.replace("~", f"/{HOME}") for path in re.findall(r"`([^`]+)`", " ".join(named))]
    paths = [f"{HOME}/project", *(path.lstrip("/") for path in outside)]
    return [*paths, *(f"{path}/*" for path in paths)]


def make_system(system: Path, suite: str) -> None:
    """Make a bare Debian with the README's packages, an ordinary user, and a clone of HEAD in her home."""
    names = ",".join(packages())
    argv = ["debootstrap", "--variant=minbase", f"--include={names}", suite, str(system)]
    made = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT)
    if made.returncode:
        raise Failed(f"debootstrap ended with exit code {made.returncode}: {made.stdout[-500:]}{made.stderr[-500:]}")
    for path in {*NETWORK_FILES, *(os.environ[name] for name in CERTIFICATES if name in os.environ)}:
        inside = system / path.lstrip("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, inside)
    with (system / "etc/passwd").open("a") as passwd:
        passwd.write(f"someone:x:{USER}:{USER}::/{HOME}:/bin/sh\n")
    clone(system)


def clone(system: Path) -> None:
    """Clone HEAD, with its tags, into a new home."""
    shutil.rmtree(system / HOME, ignore_errors=True)
    (system / HOME).mkdir(parents=True)
    bare = system / "srv" / "project.git"
    shutil.rmtree(bare, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", "--bare", "--no-hardlinks", str(ROOT), str(bare)], check=True)
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(bare), str(system / HOME / "project")], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    git = ["git", "-C", str(system / HOME / "project")]
    subprocess.run([*git, "checkout", "--quiet", "-B", "main", head.strip()], check=True)
    subprocess.run([*git, "remote", "set-url", "origin", "/srv/project.git"], check=True)
    subprocess.run(["chown", "-R", f"{USER}:{USER}", str(system / HOME), str(bare)], check=True)


def run_as_user(system: Path, command: str, namespaces: bool = True) -> tuple[int, str, float, float]:
    """Type `command` in the clone; return exit code, output, seconds, and seconds until the first word."""
    inside = f"cd /{HOME}/project && exec {command}"
    variables = [f"HOME=/{HOME}", "PATH=/usr/bin:/bin", "LANG=C.UTF-8", "PYTHONUNBUFFERED=1"]
    variables += [f"{name}={os.environ[name]}" for name in NETWORK_VARIABLES if name in os.environ]
    script = ENTER + (BY_PIVOT_ROOT if namespaces else BY_CHROOT) + RUN + LOOK
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", str(system)]
    argv += ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "env", "--ignore-environment"]
    argv += [*variables, "sh", "-c", inside]
    began, first, ended, lines = time.monotonic(), 0.0, 0.0, []
    end = subprocess.STDOUT
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=end, text=True) as process:
        limit = threading.Timer(LIMIT, process.kill)
        limit.start()
        assert process.stdout is not None
        for line in process.stdout:
            first = first or time.monotonic() - began
            if line.strip() == ENDED:
                ended = time.monotonic() - began
                continue
            print(f"  {line.rstrip()}", flush=True)
            lines.append(line)
        limit.cancel()
    if not ended and time.monotonic() - began > LIMIT:
        raise Failed(f"{command} did not end within {LIMIT:g} s.")
    return process.returncode, "".join(lines), ended, first


def files_of(system: Path) -> dict[str, tuple[float, int]]:
    """Return path → (mtime, size) of every file and link of the system, but for mounts and what the kernel makes.

    A folder is listed where nothing is in it, without its mtime: that of /tmp changes with what has come and gone.
    """
    found = {}
    for folder, folders, names in os.walk(system):
        inside = Path(folder).relative_to(system).as_posix()
        folders[:] = [each for each in folders if f"{inside}/{each}" not in ("./proc", "./sys", "./dev")]
        if not folders and not names:
            found[inside] = (0.0, 0)
        for name in [*names, *(each for each in folders if Path(folder, each).is_symlink())]:
            status = os.lstat(Path(folder, name))
            found[f"{inside}/{name}".removeprefix("./")] = (status.st_mtime, status.st_size)
    return found


def left_outside(before: dict[str, tuple[float, int]], after: dict[str, tuple[float, int]]) -> list[str]:
    """Return what was made or changed outside the clone and the caches that the README names."""
    patterns = allowed_patterns()
    changed = sorted(path for path in after if after[path] != before.get(path))
    return [path for path in changed if not any(fnmatchcase(path, pattern) for pattern in patterns)]


def size_of(folder: Path) -> int:
    """Return the size of a folder in MB, as `du` has it; 0 where it is not there."""
    ran = subprocess.run(["du", "--summarize", "--block-size=1M", str(folder)], capture_output=True, text=True)
    return int((ran.stdout.split() or ["0"])[0])


def verify_the_evidence(project: Path) -> str:
    """Return the name of the evidence pack, each of its files hashed again."""
    packs = list((project / ".release" / "rehearsals").glob("*"))
    if len(packs) != 1:
        raise Failed(f"Expected one evidence pack in .release/rehearsals, found {len(packs)}.")
    argv = ["sha256sum", "--check", "--strict", "--quiet", "manifest-sha256.txt"]
    if (ran := subprocess.run(argv, cwd=packs[0], capture_output=True, text=True)).returncode:
        raise Failed(f"The evidence pack is not as its manifest says: {ran.stdout}{ran.stderr}")
    return packs[0].name


def git_of(project: Path) -> str:
    """Return all refs of the clone, and what is not committed there."""
    git = ["git", "-c", "safe.directory=*", "-C", str(project)]
    looks = (["for-each-ref"], ["status", "--porcelain", "--branch"])
    return "".join(subprocess.run([*git, *look], capture_output=True, text=True, check=True).stdout for look in looks)


def problems_after(system: Path, before: dict[str, tuple[float, int]], output: str) -> Iterator[str]:
    """Yield what a command has left behind: processes, and files outside the clone and the caches."""
    yield from re.findall(r"LEFT BEHIND: .+", output)
    if outside := left_outside(before, files_of(system)):
        yield f"{len(outside)} files outside the clone and the caches: {', '.join(outside[:10])}"


def check_command(system: Path, command: str) -> Iterator[str]:
    """Type one command of the README and yield what is not as the README promises."""
    print(f"\n$ {command}", flush=True)
    project = system / HOME / "project"
    before, refs = files_of(system), git_of(project)
    code, output, seconds, first = run_as_user(system, command)
    nox = size_of(project / ".nox")
    print(f"\n{command}: exit code {code}, {seconds:.0f} s, first words after {first:.1f} s, .nox {nox} MB", flush=True)
    if "Traceback" in output:
        yield f"{command} shows a traceback."
    if command.endswith("rehearse") and first > MAX_FIRST_WORDS:
        yield f"{command} said nothing for {first:.1f} s, expected its first words within {MAX_FIRST_WORDS:g} s."
    if nox > MAX_NOX_MB:
        yield f".nox has {nox} MB, expected at most {MAX_NOX_MB}."
    yield from problems_after(system, before, output)
    if git_of(project) != refs:
        yield f"{command} has changed the clone: {git_of(project)}"
    if code:
        yield f"{command} ended with exit code {code}."
    elif command.endswith("rehearse"):
        print(f"Evidence pack {verify_the_evidence(project)}: every file as its manifest says.", flush=True)


def check_without_namespaces(system: Path, command: str) -> Iterator[str]:
    """Type the first command where Linux gives no user namespaces, and expect one sentence from section 2."""
    print(f"\n$ {command}   # without user namespaces", flush=True)
    before = files_of(system)
    code, output, seconds, _ = run_as_user(system, command, namespaces=False)
    print(f"\nwithout user namespaces: exit code {code} after {seconds:.0f} s", flush=True)
    if code == 0:
        yield "Without user namespaces the rehearsal passed; expected that section 2 refuses it."
    if output.count("No usable sandbox") != 1 or "chromium-sandbox" not in output:
        yield "Without user namespaces, expected one sentence on the sandbox, with the package that helps."
    if "  changed  " in output or "Traceback" in output:
        yield "Without user namespaces the rehearsal went on, or showed a traceback."
    yield from problems_after(system, before, output)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="bookworm", help="default: bookworm, with Python 3.11.2")
    parser.add_argument("--tests", action="store_true", help="type the README's second command as well")
    given = parser.parse_args()
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("debootstrap"):
        print("This proof needs Linux, root and debootstrap.\n    apt-get install debootstrap", file=sys.stderr)
        return 1
    first, second = commands()
    problems: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="fresh-"))
    folder.chmod(0o755)
    try:
        print(f"Making a bare Debian {given.suite} with {', '.join(packages())}", flush=True)
        make_system(folder / "system", given.suite)
        problems += check_command(folder / "system", first)
        problems += check_command(folder / "system", second) if given.tests else ()
        problems += check_without_namespaces(folder / "system", first)
    except Failed as failed:
        problems.append(str(failed))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(["", *problems]) if problems else "\nThe README keeps its word.", flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
