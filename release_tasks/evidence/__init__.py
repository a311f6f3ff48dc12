"""The evidence pack: built, sealed, verified; what is added later, and an index of several."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """Import a module when it is first named (PEP 562), so that a list of tasks costs nothing."""
    if name.startswith("_"):
        raise AttributeError(name)
    return import_module(f"{__name__}.{name}")
