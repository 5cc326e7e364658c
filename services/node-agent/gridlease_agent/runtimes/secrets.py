"""Secrets are files in memory: under ``/run/secrets``, for the task's user alone, never on disk.

As root each lease has a tmpfs of its own, mounted in its folder and bound into its sandbox; a
node without root keeps them in a folder of the host's ``/dev/shm``. Values go from the executor
into the file: they are in no plan, no environment and no command line.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import hashlib
import os
import shutil
from pathlib import Path

from gridlease_kernel.faults import Precondition

from gridlease_agent.runtimes.spec import Mount, SandboxSpec

SECRETS_PATH = "/run/secrets"
_SIZE = "size=4m,nr_inodes=80,mode=0755"
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MNT_DETACH = 2
_SHARED = Path("/dev/shm")  # noqa: S108 - memory, and a folder of our own in it
_libc = ctypes.CDLL(None, use_errno=True)


def shown(spec: SandboxSpec, folder: Path, *, held: bool = False) -> SandboxSpec:
    """The same sandbox with its secrets in memory. ``held``: they come later (``put``).

    Raises:
        Precondition: NO_MEMORY_FOLDER.
    """
    if not spec.secrets and not held:
        return spec
    room = _made(folder)
    put(folder, spec)
    return dataclasses.replace(spec, mounts=(*spec.mounts, Mount(str(room), SECRETS_PATH)))


def put(folder: Path, spec: SandboxSpec) -> None:
    """Write the secrets into a lease's memory; each file is whole before it has its name."""
    if not spec.secrets:
        return
    room = _room(folder)
    root = os.geteuid() == 0
    for name, value in spec.secrets:
        draft = room / f".{name}"
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400)
        with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(value.encode())
            if root:
                os.fchown(fd, spec.host_uid, spec.host_uid)
        draft.replace(room / name)


def forget(folder: Path) -> None:
    """Nothing of a lease's secrets is left; may be repeated."""
    room = _room(folder)
    if not room.is_dir():
        return
    for path in room.iterdir():
        with contextlib.suppress(OSError):
            path.chmod(0o600)
            _overwrite(path)
            path.unlink()
    if os.geteuid() == 0:
        while os.path.ismount(room) and _libc.umount2(str(room).encode(), _MNT_DETACH) == 0:
            pass
    shutil.rmtree(room, ignore_errors=True)


def _overwrite(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(bytes(size))


def _room(folder: Path) -> Path:
    if os.geteuid() == 0:
        return folder / "secrets"
    whose = hashlib.sha256(str(folder).encode()).hexdigest()[:24]
    return _SHARED / f"gridlease-{os.getuid()}" / whose


def _made(folder: Path) -> Path:
    room = _room(folder)
    if os.geteuid() == 0:
        room.mkdir(mode=0o700, exist_ok=True)
        if not os.path.ismount(room):
            _mount(room)
        return room
    if not _in_memory(_SHARED):
        raise _no_memory(f"{_SHARED} is not in memory")
    room.parent.mkdir(mode=0o700, exist_ok=True)
    if room.parent.lstat().st_uid != os.getuid() or room.parent.is_symlink():
        raise _no_memory(f"{room.parent} belongs to somebody else")
    room.mkdir(mode=0o700, exist_ok=True)
    return room


def _mount(room: Path) -> None:
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    # Kernels before 6.4 do not know noswap; there a host's swap should be off or encrypted.
    for options in (f"{_SIZE},noswap", _SIZE):
        if _libc.mount(b"secrets", str(room).encode(), b"tmpfs", flags, options.encode()) == 0:
            return
    raise _no_memory(os.strerror(ctypes.get_errno()))


def _in_memory(folder: Path) -> bool:
    try:
        lines = Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    return any(line.split()[1:3] == [str(folder), "tmpfs"] for line in lines)


def _no_memory(why: str) -> Precondition:
    return Precondition(
        f"This node has no memory to keep the job's secrets in: {why}.",
        reason="NO_MEMORY_FOLDER",
        field="spec.secrets",
        remedy="Mount a tmpfs at /dev/shm, or run the agent as root.",
    )
