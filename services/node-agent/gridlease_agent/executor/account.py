"""The user that the core runs as, and what of the state folder is that user's."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from pathlib import Path

from gridlease_kernel.faults import Precondition

USER = "gridlease"
ROOT = "root"
# Between what distributions, systemd and containers give away. Source: systemd, UIDS-GIDS.md.
_UNUSED = range(60_700, 61_184)
_CORES: tuple[str, ...] = (
    *("spool.", "telemetry.", "credential.json", "node.", "disk.json", "bundles", ".node"),
    *(".credential", "blobs", "sessions", "selftest", "burn-in", "core.lock", "ailments"),
)
_ROOTS = ("leases", "kept", "executor")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def account(name: str = "") -> tuple[int, int]:
    """uid and gid: of ``name``, else of the user "gridlease", else of nobody on this host.

    Raises:
        Precondition: NO_SUCH_USER.
    """
    with contextlib.suppress(KeyError):
        entry = pwd.getpwnam(name or USER)
        return entry.pw_uid, entry.pw_gid
    if name:
        raise Precondition(
            f"There is no user {name!r}.",
            reason="NO_SUCH_USER",
            field="GRIDLEASE_AGENT_USER",
            remedy="Make it (useradd --system), or name another.",
        )
    for uid in _UNUSED:
        with contextlib.suppress(KeyError):
            pwd.getpwuid(uid)
            continue
        return uid, uid
    raise Precondition(f"No user number of {_UNUSED} is free.", reason="NO_SUCH_USER")


def share_out(state: Path, uid: int, gid: int) -> None:
    """Give the core its files in the state folder, and keep the rest.

    The folder is root's, open to the core's group and sticky: the core makes and removes files of
    its own there, and can neither remove nor rename what is root's.
    """
    here = os.open(state, _FOLDER)
    try:
        os.fchown(here, 0, gid)
        os.fchmod(here, 0o1770)
        for name in _ROOTS:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=here)
            below = os.open(name, _FOLDER, dir_fd=here)
            os.fchown(below, 0, 0)
            os.fchmod(below, 0o700)
            os.close(below)
        for name in os.listdir(here):  # noqa: PTH208 - a descriptor
            if name.startswith(_CORES):
                _give(here, name, uid, gid)
    finally:
        os.close(here)


def _give(folder: int, name: str, uid: int, gid: int) -> None:
    """Make the core the owner of a file or a folder of files; what is neither stays as it is."""
    try:
        one = os.open(name, _FILE, dir_fd=folder)
    except OSError:
        return
    try:
        facts = os.fstat(one)
        if stat.S_ISDIR(facts.st_mode):
            os.fchown(one, uid, gid)
            for each in os.listdir(one):  # noqa: PTH208 - a descriptor
                _give(one, each, uid, gid)
        elif stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1:
            os.fchown(one, uid, gid)
    finally:
        os.close(one)


def become(uid: int, gid: int) -> None:
    """Be that user from here on, for good."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
