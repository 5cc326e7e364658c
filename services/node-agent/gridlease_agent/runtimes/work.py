"""A lease's working folder: handed to the task's user, and wiped after it."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path


def give(folder: Path, uid: int) -> None:
    """Make the task's user the owner of what the job brought; never through a link."""
    os.chown(folder, uid, uid)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(parent) / name, uid, uid, follow_symlinks=False)


def scrub(work: Path, keep: list[str]) -> None:
    """Delete all of ``work`` but the kept paths; a kept path that is a link is not kept.

    What is kept must be files and folders of the task's own: links could name the host's files.
    """
    kept = {
        path
        for text in keep
        if (path := Path(os.path.normpath(text))).parts and ".." not in path.parts
        if not path.is_absolute()
    }
    if work.is_dir():
        _scrub(work, Path(), kept)


def _scrub(folder: Path, relative: Path, kept: set[Path]) -> None:
    for entry in os.scandir(folder):
        here = relative / entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if here in kept and stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) != stat.S_IFLNK:
            continue
        if is_folder and any(here in path.parents for path in kept):
            _scrub(Path(entry.path), here, kept)
        elif is_folder:
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink(missing_ok=True)
