"""The files that the core sees: closed folders above what it needs show that and nothing else.

The interpreter, the programs or the state may lie below a folder that only root may enter, such
as ``/root``. In a mount namespace of the core's own each such folder is covered by an empty file
system in memory, and what the core needs is bound back at its old place.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    _check(
        _libc.mount(
            os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags),
            data.encode(),
        ),
        target,
    )  # fmt: skip


def programs() -> list[Path]:
    """Folders that this interpreter and what it imports lie in."""
    paths = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path]
    paths += os.environ.get("LD_LIBRARY_PATH", "").split(":")
    paths.append(str(Path(sys.executable).resolve().parent))
    return sorted({Path(path) for path in paths if path and Path(path).is_dir()})


def may_enter(facts: os.stat_result, uid: int, gid: int) -> bool:
    """Whether a user without further groups may pass through a folder."""
    if facts.st_uid == uid:
        return bool(facts.st_mode & stat.S_IXUSR)
    return bool(facts.st_mode & (stat.S_IXGRP if facts.st_gid == gid else stat.S_IXOTH))


def unshare() -> None:
    """Into a mount namespace of one's own, from which nothing comes back."""
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)


def cover(needed: Iterable[Path], uid: int, gid: int) -> None:
    """Let the user reach the needed folders, in this process's mount namespace.

    Raises:
        OSError: a mount was refused.
    """
    kept = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in needed}
    try:
        for path in sorted(kept, key=lambda one: len(one.parts)):
            for above in reversed(path.parents):
                _open(above, uid, gid)
            facts = os.fstat(kept[path])
            if path.is_dir() and os.path.samestat(path.stat(), facts):
                continue
            path.mkdir(exist_ok=True)
            _mount(f"/proc/self/fd/{kept[path]}", str(path), "", _MS_BIND | _MS_REC)
    finally:
        for number in kept.values():
            os.close(number)


def _open(folder: Path, uid: int, gid: int) -> None:
    if not folder.exists():  # only below what was covered
        folder.mkdir(mode=0o755)
    elif not may_enter(folder.stat(), uid, gid):
        _mount("tmpfs", str(folder), "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
