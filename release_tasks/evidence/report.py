"""The report: what was released, when, how it was checked and by whom, as one page that needs nothing else."""

from base64 import b64encode
from pathlib import Path
from typing import Any

from release_tasks.files import atomic_write, read_checksums, read_text
from release_tasks.journal import Journal
from release_tasks.machine import parsed
from release_tasks.release import Release


def write(release: Release, data: Path) -> None:
    """Write the report into a pack: of what the parts before it wrote, and nothing else."""
    records = Journal(data / "journal.jsonl").records()
    atomic_write(data / "report.html", page(data, records, title=release.title, tag=release.tag))


def page(data: Path, records: list[dict[str, Any]], **facts: Any) -> bytes:
    """Return the page about the payload `data` of a pack, or what there is of it, and the `records` of a journal."""
    from jinja2 import ChainableUndefined, Environment, FileSystemLoader

    how: dict[str, Any] = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    engine = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=ChainableUndefined, **how)
    engine.globals |= {
        "text": lambda name: read_text(data / name),
        "json": lambda name: parsed(read_text(data / name)),
        "lines": lambda name: [*map(parsed, read_text(data / name).splitlines())],
        "sums": lambda name: read_checksums(read_text(data / name).encode()),
        "names": lambda pattern: sorted(path.relative_to(data).as_posix() for path in data.glob(pattern)),
        "picture": lambda name: b64encode((data / name).read_bytes()).decode(),
    }
    engine.filters["read"] = engine.globals["json"]
    template = engine.get_template("report.html.j2")
    return template.render(records=records, lanes=lanes(records), **facts).encode() + b"\n"


def lanes(records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return section → its steps, each with `x` and `width` in per cent of the time that all took, without pauses."""
    steps = [each for each in records if each.keys() >= {"section", "step", "state", "seconds"}]
    whole, x, found = sum(each["seconds"] for each in steps) or 1.0, 0.0, dict[str, list[dict[str, Any]]]()
    for each in steps:
        width = 100 * each["seconds"] / whole
        found.setdefault(each["section"], []).append({**each, "x": x, "width": width})
        x += width
    return found
