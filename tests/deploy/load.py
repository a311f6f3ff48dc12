"""Flips under load: keep-alive clients that repeat nothing, some of whose requests are slow; run by `nox -s load`.

Prints what was sent and lost, and the longest time without an answer; draws the requests by colour over time. Every
request goes to this machine; each run ends after its flips and its number of requests.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from release_tasks import screen  # noqa: E402
from release_tasks.deploy.host import Host  # noqa: E402
from release_tasks.deploy.hosts import Hosts  # noqa: E402
from tests.deploy.servers import VERSION, Server, put  # noqa: E402

CLIENTS, SLOW = 24, 40  # every 40th request takes half a second
VERSIONS = ("0.1.1", "0.1.2")
ANSWER = 20.0  # seconds


@dataclass
class Load:
    """What clients have sent and got; `answers` are moments with the version, "" for a lost request."""

    port: int
    wanted: int
    sent: int = 0
    answers: list[tuple[float, str]] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)
    flips: list[float] = field(default_factory=list)
    flipped: threading.Event = field(default_factory=threading.Event)

    async def run(self) -> None:
        await asyncio.gather(*(self.client() for _ in range(CLIENTS)))

    async def client(self) -> None:
        """Send one request after the other on one connection; a new one only where the server has closed it."""
        writer = None
        while self.sent < self.wanted or not self.flipped.is_set():
            self.sent += 1
            path = "/slow" if self.sent % SLOW == 0 else VERSION
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(f"GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
                head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER)).decode().lower()
                body = await reader.readexactly(int(head.partition("content-length:")[2].split()[0]))
                status = head.split()[1]
                if status != "200":
                    self.lost[status] += 1
                self.answers.append((time.monotonic(), body.decode().split('"')[3] if status == "200" else ""))
                ends = "connection: close" in head
            except (OSError, EOFError, TimeoutError, LookupError) as error:
                self.lost[type(error).__name__] += 1
                self.answers.append((time.monotonic(), ""))
                ends = True
            if ends and writer:
                writer.close()
                writer = None

    @property
    def gap(self) -> float:
        """The longest time between two answers, in seconds."""
        moments = [moment for moment, version in self.answers if version]
        return max(after - before for before, after in pairwise(moments))


class Killing(Host):
    """A host whose old colour is killed right after each flip, in the middle of its requests."""

    def expect(self, tag: str, seconds: float, origin: str = "") -> None:
        old = self.folder / f"{self.other(self.record()[1])}-web.pid"
        if old.exists() and not origin:  # the front is asked: it has just been flipped
            os.kill(int(old.read_text()), 9)
            old.unlink()
        super().expect(tag, seconds, origin)


def measure(kind: type[Host], flips: int, requests: int) -> Load:
    """Flip back and forth under load; a flip that fails ends it."""
    with tempfile.TemporaryDirectory() as name:
        server = Server(Path(name) / "shop")
        try:
            about = server.behind_nginx(wait=30, drain=30)
            hosts = Hosts("production", kind(**vars(about)))
            for version in VERSIONS:
                put(hosts, version)
            hosts.switch(f"v{VERSIONS[0]}")
            load = Load(server.front, requests)
            clients = threading.Thread(target=asyncio.run, args=[load.run()])
            clients.start()
            try:
                for number in range(1, flips + 1):
                    while load.sent < requests * (number - 0.5) / flips:
                        time.sleep(0.05)
                    load.flips.append(time.monotonic())
                    hosts.switch(f"v{VERSIONS[number % 2]}")
                    time.sleep(1)  # twice a slow request: one that meets the end of both colours has none left
            finally:
                load.flipped.set()
                clients.join()
        finally:
            server.power_off()
    return load


def drawn(load: Load, bins: int = 240) -> str:
    """Return a picture of the requests by colour over time; its colours do on dark and on light."""
    width, height, left, top = 900, 220, 56, 34
    begin, end = load.answers[0][0], load.answers[-1][0]
    seconds = (end - begin) / bins
    counts = {version: [0] * bins for version in (*VERSIONS, "")}
    for moment, version in load.answers:
        counts[version][min(int((moment - begin) / seconds), bins - 1)] += 1
    most = max(map(sum, zip(*counts.values(), strict=True)))

    def x(moment: float) -> float:
        return round(left + (moment - begin) / (end - begin) * width, 1)

    def bars(version: str, colour: str, below: list[int]) -> str:
        made = []
        for number, count in filter(lambda each: each[1], enumerate(counts[version])):
            tall, base = count / most * height, below[number] / most * height
            step = width / bins
            made.append(f"M{left + number * step:.1f} {top + height - base:.1f}v-{tall:.1f}h{step:.2f}v{tall:.1f}")
            below[number] += count
        return f'<path fill="{colour}" d="{"".join(made)}z"/>'

    below = [0] * bins
    blue, green = (
        bars(version, colour, below) for version, colour in zip(VERSIONS, ("#4c8dff", "#2ea36b"), strict=True)
    )
    flips = "".join(f'<path class="flip" d="M{x(flip)} {top - 6}v{height + 6}"/>' for flip in load.flips)
    ticks = [(begin + (end - begin) * part / 6) for part in range(7)]
    axis = "".join(
        f'<text x="{x(at)}" y="{top + height + 18}" text-anchor="middle">{at - begin:.0f} s</text>' for at in ticks
    )
    title = f"{len(load.answers):,} requests, {sum(load.lost.values())} failed; {len(load.flips)} flips (lines)"
    legend = '<tspan fill="#4c8dff">■</tspan> blue <tspan fill="#2ea36b">■</tspan> green'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 24} {top + height + 30}" role="img">
<title>{title}</title>
<style>text{{font:13px sans-serif;fill:#7d8590}}.flip{{stroke:#7d8590;stroke-dasharray:3 3}}</style>
{blue}
{green}
{bars("", "#e5484d", below)}
{flips}
<text x="{left}" y="16">{title}</text>
<text x="{left + width}" y="16" text-anchor="end">{legend}</text>
<text x="{left - 6}" y="{top + 10}" text-anchor="end">{most / seconds:,.0f}/s</text>
<text x="{left - 6}" y="{top + height}" text-anchor="end">0</text>
{axis}
</svg>
"""


def main() -> None:
    """Measure both, print the table, draw the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--flips", type=int, default=10)
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "traffic.svg")
    given, rows = parser.parse_args(), []
    kinds: dict[str, tuple[type[Host], Any]] = {
        "old colour drained, then stopped": (Host, given.picture),
        "old colour killed right after the flip": (Killing, None),
    }
    for what, (kind, picture) in kinds.items():
        load = measure(kind, given.flips, given.requests)
        lost = ", ".join(f"{count} {name}" for name, count in load.lost.items())
        seconds = load.answers[-1][0] - load.answers[0][0]
        numbers = f"{load.sent:,}", f"{sum(load.lost.values())} {lost}".strip(), f"{load.gap:.2f} s", f"{seconds:.0f} s"
        rows.append((what, f"{len(load.flips)}", *numbers))
        if picture:
            picture.write_text(drawn(load), encoding="utf-8")
    screen.table("Flips under load", ["what", "flips", "sent", "failed", "longest gap", "took"], rows)


if __name__ == "__main__":
    main()
