"""The sections of the written process: a module each, named like its task; sections 7 and 8 share deployment."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """Import a section's module when it is first named (PEP 562), so that a list of tasks costs nothing."""
    if name.startswith("_"):
        raise AttributeError(name)
    return import_module(f"{__name__}.{name}")
