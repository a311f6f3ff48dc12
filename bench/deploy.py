"""How long a deployment takes against the same commands by hand, three hosts against one, and a rollback.

Run by `nox -s bench`, on three sshd's of its own. By hand: `tar` by ssh, an install of nothing, the restart, and curl
until the new version answers, without colours, hashes or a record. Prints medians of rounds in turns, and ratios.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from release_tasks import screen  # noqa: E402
from release_tasks.deploy.drivers import Processes  # noqa: E402
from tests.deploy.servers import VERSION, Network, facts, tree  # noqa: E402

FILES = {f"src/{number}.txt": f"{number}\n" * 300 for number in range(300)}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    times = parser.parse_args().times
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name, Network.of_three(Path(name).resolve()) as network:
        for number in range(times):
            first, second, third = (tree(Path(name), f"0.{number}.{patch}", FILES) for patch in (1, 2, 3))
            one = Processes("production", network.host(), ["h1"], ssh=network.ssh)
            plain = Processes("production", network.host(colours={}), ["h1"], ssh=network.ssh)
            three, at_once = network.driver(), network.driver()
            at_once.batches = [3]
            network.reset()
            network.hosts["h1"].server.stop_nginx()  # its port is the application's there
            measure(taken, "by hand, one host", partial(by_hand, network, first))
            measure(taken, "a deployment by a restart, one host", partial(deploy, plain, second))
            network.reset()
            deploy(three, first)
            measure(taken, "a deployment behind nginx, one host", partial(deploy, one, second))
            measure(taken, "a rollback behind nginx, one host", partial(one.switch, first.stem))
            measure(taken, "a deployment behind nginx, three hosts at once", partial(deploy, at_once, third))
            measure(taken, "a rollback behind nginx, three hosts in two batches", partial(three.switch, first.stem))
            measure(taken, "a look at three hosts", three.try_status)
    base = statistics.median(taken["by hand, one host"])
    rows = [
        (what, f"{statistics.median(found):.2f}", f"{statistics.median(found) / base:.2f}")
        for what, found in taken.items()
    ]
    screen.table(f"Deployments, {len(FILES) + 3} files, medians of {times}", ["what", "seconds", "ratio"], rows)


def measure(taken: dict[str, list[float]], what: str, action: Callable[[], object]) -> None:
    began = time.perf_counter()
    action()
    taken.setdefault(what, []).append(time.perf_counter() - began)


def deploy(hosts: Processes, tar: Path) -> None:
    """Put a release in place and make it live, as a release does after its first look."""
    hosts.place(tar.stem, facts(tar.stem.removeprefix("v")), tar)
    hosts.switch(tar.stem)


def by_hand(network: Network, tar: Path) -> None:
    """Do what one types: copy, point the link, restart, wait for the answer."""
    host = network.hosts["h1"].server
    folder, version = f"{host.folder}/releases/{tar.stem}", tar.stem.removeprefix("v")
    ssh = [*network.ssh, "h1"]
    with tar.open("rb") as content:
        subprocess.run([*ssh, f"mkdir -p {folder} && tar -xf - -C {folder}"], stdin=content, check=True)
    restart = f"ln -sfn {folder} {host.folder}/current && COLOUR=current SERVICE=web {host.folder}/service restart"
    subprocess.run([*ssh, restart], check=True)
    curl = f"until curl -s http://127.0.0.1:{host.front}{VERSION} | grep -q {version}; do sleep 0.1; done"
    subprocess.run([*ssh, curl], check=True)


if __name__ == "__main__":
    main()
