"""The modules behind tasks.py: one subject each. Start reading at tasks.py."""

import atexit
import gc
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

# On its way out Python searches all that was imported for garbage, twice: a sixth of the time of a short command.
atexit.register(gc.freeze)

# Python compiles tasks.py and noxfile.py into a folder at the repo's root, before they can say otherwise.
_compiled = Path(__file__).parents[1] / "__pycache__"
if _compiled.is_dir() and not (_compiled / ".gitignore").exists():
    with suppress(OSError):
        (_compiled / ".gitignore").write_text("*\n", encoding="utf-8")


def __getattr__(name: str) -> Any:
    """Import a module when it is first named (PEP 562), so that a list of tasks costs nothing."""
    if name.startswith("_") or not (Path(__file__).parent / f"{name}.py").exists():
        raise AttributeError(name)
    return import_module(f"{__name__}.{name}")
