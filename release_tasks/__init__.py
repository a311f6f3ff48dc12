"""The rooms behind tasks.py: one subject a module. Start reading at tasks.py."""

from contextlib import suppress
from pathlib import Path

# Python compiles tasks.py and noxfile.py into a folder at the repo's root, before they can say otherwise.
_compiled = Path(__file__).parents[1] / "__pycache__"
if _compiled.is_dir() and not (_compiled / ".gitignore").exists():
    with suppress(OSError):
        (_compiled / ".gitignore").write_text("*\n", encoding="utf-8")
