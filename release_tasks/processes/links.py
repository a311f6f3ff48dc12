"""Links to folders, switched in one atomic step, and folders that appear whole. Of the standard library only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def read_link(link: Path) -> Path | None:
    """Return the folder that `link` names, a symlink or a text file holding a path, or None when there is none."""
    try:
        target = link.readlink() if link.is_symlink() else link.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return (link.parent / target).resolve()


def point_link(link: Path, target: Path) -> None:
    """Make `link` name the folder `target` in one atomic step, whether it is there already or not.

    Where symlinks need a privilege (Windows) the link is a text file that holds the path.
    """
    aside = link.with_name(f".{link.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    try:
        aside.symlink_to(target, target_is_directory=True)
    except OSError:
        aside.write_text(f"{target}\n", encoding="utf-8")
    aside.replace(link)


def rename_unless_there(aside: Path, folder: Path) -> None:
    """Let `aside` become `folder`; when another process was as fast, its work stands and ours is deleted."""
    try:
        aside.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(aside)
