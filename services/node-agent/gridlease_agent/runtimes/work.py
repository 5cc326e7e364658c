"""A lease's working folder: handed to the task's user, and wiped after it."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from gridlease_kernel.faults import Precondition

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def give(folder: Path, uid: int) -> None:
    """Make ``uid`` the owner of a folder that another user may still be changing.

    Each folder is given before it is looked into, so nothing in it can be exchanged after the
    look; files are given open, so what was checked is what is given. A file with a second name
    may be somebody else's and is refused; links are left as they are, they are never followed.

    Raises:
        Precondition: WORK_UNSAFE.
    """
    here = os.open(folder, _FOLDER)
    try:
        _give_folder(here, uid)
    finally:
        os.close(here)


def _give_folder(here: int, uid: int) -> None:
    os.fchown(here, uid, uid)
    with os.scandir(here) as found:
        entries = list(found)
    for entry in entries:
        if entry.is_symlink():
            continue
        is_folder = entry.is_dir(follow_symlinks=False)
        try:
            below = os.open(entry.name, _FOLDER if is_folder else _FILE, dir_fd=here)
        except OSError as trouble:
            if trouble.errno == errno.ENXIO:  # a socket
                raise _unsafe(entry.name) from trouble
            raise
        try:
            facts = os.fstat(below)
            if stat.S_ISDIR(facts.st_mode):
                _give_folder(below, uid)
            elif stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1:
                os.fchown(below, uid, uid)
            else:
                raise _unsafe(entry.name)
        finally:
            os.close(below)


def _unsafe(name: str) -> Precondition:
    return Precondition(
        f"{name!r} in the working folder is neither a folder nor a file of one name.",
        reason="WORK_UNSAFE",
        remedy="Bring plain files and folders only.",
    )


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
