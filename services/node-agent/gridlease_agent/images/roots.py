"""The root folder that a sandbox of an image sees: its layers under a layer of ours, read-only.

    STORE/roots/<digest>-<key>/    the mount
    STORE/under/<digest>-<key>/    0 = our layer, 1, 2 … = links to the image's, from the top down

One mount serves every sandbox of the image: a start binds it and mounts nothing else. Our layer
holds a folder or a file for every place at which a sandbox mounts something; lying on top, it is
there whatever the image has at that place (nothing, a file, a link that leads elsewhere).

Needs root. Source: Linux, filesystems/overlayfs.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gridlease_kernel.faults import Invalid, Precondition

from gridlease_agent.images.manifest import Image, Layer
from gridlease_agent.images.reference import is_digest
from gridlease_agent.images.store import Held, ImageStore

_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4
_MNT_DETACH = 2
_CLONE_FS = 0x200
_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_IN_ROOT = 0x10
_SHELL = "/bin/sh"
_MARK = "image"  # in a lease's folder: the image that it stands on
_PASSWD_BYTES = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)

# What every sandbox mounts, whatever else it does.
PLACES = (
    "/work", "/run/gridlease", "/run/secrets", "/proc", "/sys", "/dev", "/tmp",  # noqa: S108
    "/opt/gridlease/env",
)  # fmt: skip
FILES = ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sandbox mounts something: a folder, or a file that holds ``text`` till then."""

    path: str
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Root:
    """An image as a sandbox sees it. ``user``: who runs in it, never root; 0 = it does not say."""

    digest: str
    folder: str
    env: tuple[tuple[str, str], ...]
    argv: tuple[str, ...]
    cwd: str
    user: int


def blob_name(layer: Layer) -> str:
    """The name of the file that holds a layer on its way.

    Raises:
        Invalid: IMAGE_INVALID; a digest is a name, and never a path.
    """
    if not is_digest(layer.digest) or not is_digest(layer.diff_id):
        raise Invalid("A layer's digest is none.", reason="IMAGE_INVALID", field="image")
    return layer.digest.replace(":", "-")


class _How(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_in(root: int, path: str, flags: int) -> int:
    """Open a path as a process would whose root folder that is: no link leads out.

    Raises:
        OSError: there is no such thing.
    """
    how = _How(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT)
    fd = _libc.syscall(
        ctypes.c_long(_OPENAT2), root, path.encode(), ctypes.byref(how), ctypes.sizeof(how)
    )
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    return int(fd)


class ImageRoots:
    """The mounts of one node's images, and all that is done with images as root.

    ``leases``: the folder of the leases' folders. ``blobs``: where layers lie that were fetched.
    """

    def __init__(self, folder: Path, leases: Path, blobs: Path, limit_bytes: int) -> None:
        folder = folder.absolute()
        self._roots, self._under = folder / "roots", folder / "under"
        self._leases, self._blobs = leases, blobs
        self.store = ImageStore(folder, limit_bytes, self._in_use, self._unmount)
        self._lock = threading.Lock()
        for each in (self._roots, self._under):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)

    def missing(self, image: Image) -> tuple[Layer, ...]:
        """The layers that must still be unpacked."""
        return self.store.missing(image)

    def unpack(self, layer: Layer) -> None:
        """The blob that lies under the layer's digest becomes its folder.

        Raises:
            Fault: of the store: it is not what its digest says, or too large. OSError: no blob.
        """
        path = self._blobs / blob_name(layer)
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self.store.unpack(layer, Path(f"/proc/self/fd/{fd}"))
        finally:
            os.close(fd)

    def record(self, image: Image) -> None:
        """The image is whole; others may have to leave for it."""
        self.store.record(image)

    def held(self) -> tuple[str, ...]:
        """Digests of the images here, the most recently used first."""
        return self.store.held()

    def room(self) -> int:
        """Bytes that images may still take without any having to leave."""
        return self.store.room()

    def ready(self, digest: str, lease_id: str, places: tuple[Place, ...] = ()) -> Root:
        """An image's root folder, mounted; the lease stands on it until its folder is gone.

        Raises:
            Missing: IMAGE_NOT_HELD. Precondition: IMAGE_NOT_MOUNTED, IMAGE_WITHOUT_SHELL.
            Invalid: IMAGE_INVALID.
        """
        with self.store.standing():
            held = self.store.get(digest)
            if lease_id:
                (self._leases / lease_id / _MARK).write_text(digest, "ascii")
            with self._lock:
                folder = self._mounted(held, places)
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _need_shell(root, digest)
            user = _user(root, held.image)
            cwd = _cwd(root, held.image)
        finally:
            os.close(root)
        return root_of(held.image, str(folder), user, cwd)

    def _in_use(self) -> set[str]:
        found = set()
        for mark in self._leases.glob(f"*/{_MARK}"):
            with contextlib.suppress(OSError):
                found.add(mark.read_text("ascii"))
        return found

    # -- mounts -------------------------------------------------------------------------------

    def _mounted(self, held: Held, places: tuple[Place, ...]) -> Path:
        table = {place.path: place for place in (*_standard(), *places)}
        wanted = tuple(table[path] for path in sorted(table))
        key = hashlib.sha256(repr(wanted).encode()).hexdigest()[:16]
        name = f"{held.image.digest.partition(':')[2]}-{key}"
        folder = self._roots / name
        if os.path.ismount(folder):
            return folder
        under = self._under / name
        shutil.rmtree(under, ignore_errors=True)
        _lay(under / "0", wanted)
        for number, lower in enumerate(held.lowers, 1):
            (under / str(number)).symlink_to(lower)
        folder.mkdir(mode=0o755, exist_ok=True)
        _overlay(under, len(held.lowers) + 1, folder)
        return folder

    def _unmount(self, digest: str) -> None:
        for folder in self._roots.glob(f"{digest.partition(':')[2]}-*"):
            _libc.umount2(str(folder).encode(), _MNT_DETACH)
            folder.rmdir()
            shutil.rmtree(self._under / folder.name, ignore_errors=True)

    def close(self) -> None:
        """Unmount every root; sandboxes that run keep theirs."""
        for folder in self._roots.iterdir():
            _libc.umount2(str(folder).encode(), _MNT_DETACH)


def _standard() -> Iterable[Place]:
    yield from (Place(path) for path in PLACES)
    texts = ("127.0.0.1 localhost\n::1 localhost\n", "", "task\n")
    yield from (Place(path, text) for path, text in zip(FILES, texts, strict=True))


def _lay(folder: Path, places: Iterable[Place]) -> None:
    """Our layer. Its names come from us and from device tables, never from an image."""
    folder.mkdir(parents=True, mode=0o755)
    for place in places:
        relative = PurePosixPath(place.path).relative_to("/")
        if ".." in relative.parts:
            raise Invalid(f"{place.path} is no place to mount at.", reason="BAD_MOUNT_PLACE")
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        if place.text is None:
            path.mkdir(exist_ok=True, mode=0o755)
        elif not path.exists():
            path.write_text(place.text, "utf-8")
            path.chmod(0o644)


def _overlay(under: Path, count: int, target: Path) -> None:
    """Mount layers ``0 .. count`` of ``under`` as one, read-only.

    They are named as they lie in ``under``, so that 128 fit into the page that mount(2) reads and
    no path of this host is shown inside; the thread that goes there shares its folder with none.
    """
    names = ":".join(map(str, range(count)))
    # One lower layer alone is refused without an upper one; ours makes two of every image.
    options = f"lowerdir={names},redirect_dir=nofollow,metacopy=off"
    trouble: list[str] = []

    def work() -> None:
        if _libc.unshare(_CLONE_FS) != 0:
            trouble.append(os.strerror(ctypes.get_errno()))
            return
        os.chdir(under)
        flags = ctypes.c_ulong(_MS_RDONLY | _MS_NOSUID | _MS_NODEV)
        done = _libc.mount(b"image", str(target).encode(), b"overlay", flags, options.encode())
        if done != 0:
            trouble.append(os.strerror(ctypes.get_errno()))

    thread = threading.Thread(target=work, name="overlay")
    thread.start()
    thread.join()
    if trouble:
        raise Precondition(
            f"The image's layers cannot be mounted as one folder: {trouble[0]}.",
            reason="IMAGE_NOT_MOUNTED",
            field="image",
            remedy="The node needs overlayfs; without it, use a prepared environment.",
        )


# -- what an image says ----------------------------------------------------------------------


def _need_shell(root: int, digest: str) -> None:
    try:
        fd = open_in(root, _SHELL, os.O_PATH)
        executable = os.fstat(fd).st_mode & 0o111 and not os.fstat(fd).st_mode & 0o40000
        os.close(fd)
    except OSError:
        executable = False
    if not executable:
        raise Precondition(
            f"The image {digest} has no {_SHELL}, and a task's commands are run by it.",
            reason="IMAGE_WITHOUT_SHELL",
            field="image",
            remedy="Use an image with a shell, such as the -slim or -debug variant of this one.",
        )


def _user(root: int, image: Image) -> int:
    """The number of the image's user, 0 where it says root, or nobody that it knows."""
    name = image.user.partition(":")[0]
    number = int(name) if name.isdecimal() else _users(root).get(name, 0)
    return number if 0 < number < 65_534 else 0


def _users(root: int) -> dict[str, int]:
    try:
        fd = open_in(root, "/etc/passwd", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return {}
    with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor
        lines = file.read(_PASSWD_BYTES).decode("utf-8", "replace").splitlines()
    rows = (line.split(":") for line in lines)
    return {row[0]: int(row[2]) for row in rows if len(row) > 2 and row[2].isdecimal()}


# The sandbox's own say, whatever an image has in mind for them.
_OURS = ("HOME", "USER", "TMPDIR", "HOSTNAME")


def root_of(image: Image, folder: str, user: int, cwd: str) -> Root:
    """An image's configuration as far as a task follows it."""
    pairs = (word.partition("=")[::2] for word in image.env)
    env = tuple(
        (name, value)
        for name, value in pairs
        if name and name not in _OURS and not name.startswith("GRIDLEASE_")
        if "\0" not in name + value
    )
    return Root(image.digest, folder, env, (*image.entrypoint, *image.cmd), cwd, user)


def _cwd(root: int, image: Image) -> str:
    """The image's working folder, or the task's own where it has none such."""
    if image.cwd.startswith("/") and "\0" not in image.cwd:
        with contextlib.suppress(OSError):
            os.close(open_in(root, image.cwd, os.O_PATH | os.O_DIRECTORY))
            return image.cwd
    return "/work"
