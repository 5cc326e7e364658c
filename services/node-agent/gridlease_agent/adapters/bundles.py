"""Bundles of a job's files: fetched by digest, kept for the next task, unpacked without trust."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path, PurePosixPath

from gridlease_kernel.faults import Invalid, TooLarge

_LOG = logging.getLogger(__name__)
MAX_BUNDLE_BYTES = 64 << 20  # a tenant may upload 32 MiB
MAX_MEMBERS = 50_000
CACHE_BYTES = 1 << 30
_PIECE_BYTES = 1 << 20

Read = Callable[[str], AsyncIterator[bytes]]


class BundleFolder:
    """A cache of bundles under one folder; a file's name is its digest."""

    def __init__(self, folder: Path, read: Read, cache_bytes: int = CACHE_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._read = read
        self._cache_bytes = cache_bytes
        self._locks: dict[str, asyncio.Lock] = {}
        for left in folder.glob("*.part"):
            left.unlink()

    async def fetch(self, digest: str) -> Path:
        """The bundle's file, fetched unless it is here; its content has that digest.

        Raises:
            Invalid: BAD_DIGEST or BUNDLE_CORRUPT.
            TooLarge: BUNDLE_TOO_LARGE.
            Fault: the store has none, or does not answer.
        """
        kind, _, name = digest.partition(":")
        if kind != "sha256" or len(name) != 64 or not set(name) <= set("0123456789abcdef"):
            raise Invalid(f"{digest!r} is no digest.", reason="BAD_DIGEST", field="bundle_digest")
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock:
            path = self._folder / name
            if path.exists():
                os.utime(path)
            else:
                await self._download(digest, name, path)
                self._prune(path)
        self._locks.pop(name, None)
        return path

    async def _download(self, digest: str, name: str, path: Path) -> None:
        sha, size = hashlib.sha256(), 0
        part = path.with_suffix(".part")
        try:
            with part.open("wb") as file:
                async for piece in self._read(digest):
                    size += len(piece)
                    if size > MAX_BUNDLE_BYTES:
                        raise TooLarge(
                            f"The bundle exceeds {MAX_BUNDLE_BYTES} bytes.",
                            reason="BUNDLE_TOO_LARGE",
                            field="bundle_digest",
                        )
                    sha.update(piece)
                    file.write(piece)
            if sha.hexdigest() != name:
                raise Invalid(
                    "The bundle's content is not what its digest says.",
                    reason="BUNDLE_CORRUPT",
                    field="bundle_digest",
                    remedy="Submit the job again, which uploads the files again.",
                )
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def unpack(self, archive: Path, folder: Path, limit_bytes: int) -> None:
        """See ``unpack``."""
        unpack(archive, folder, limit_bytes)

    def _prune(self, newest: Path) -> None:
        files = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        total = sum(path.stat().st_size for path in files)
        for path in files:
            if total <= self._cache_bytes:
                return
            if path != newest and path.suffix != ".part":
                total -= path.stat().st_size
                path.unlink()
                _LOG.info("a bundle left the cache", extra={"bundle": path.name})


def unpack(archive: Path, folder: Path, limit_bytes: int) -> None:
    """Unpack a tar (plain or compressed) into ``folder``, which nothing of it can leave.

    Files, folders, and symbolic links that stay inside; no hard links, devices or sockets; no
    absolute names, no "..", nothing through a link; no set-user bits.

    Raises:
        Invalid: BUNDLE_UNSAFE or BUNDLE_CORRUPT.
        TooLarge: BUNDLE_TOO_LARGE.
    """
    left, count = limit_bytes, 0
    try:
        with tarfile.open(archive, "r|*") as tar:
            for member in tar:
                count += 1
                left -= max(0, member.size)
                if left < 0 or count > MAX_MEMBERS:
                    raise TooLarge(
                        f"The bundle unpacks to more than {limit_bytes} bytes "
                        f"or {MAX_MEMBERS} files.",
                        reason="BUNDLE_TOO_LARGE",
                        field="bundle_digest",
                        remedy="Ask for more disk, or submit fewer files.",
                    )
                _unpack_one(tar, member, folder)
    except (tarfile.TarError, EOFError, OSError) as trouble:
        raise Invalid(
            f"The bundle cannot be unpacked ({trouble}).",
            reason="BUNDLE_CORRUPT",
            field="bundle_digest",
            remedy="Submit the job again, which uploads the files again.",
        ) from trouble


def _unpack_one(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\0" in member.name:
        raise _unsafe(member, "leads out of the working folder")
    if not name.parts:
        return
    target = _parent(folder, name, member) / name.name
    if member.isdir():
        if target.is_symlink() or not target.is_dir():
            target.mkdir(mode=0o755)
    elif member.issym():
        end = PurePosixPath(member.linkname)
        inside = os.path.normpath(name.parent / end)
        if end.is_absolute() or inside.startswith(".."):
            raise _unsafe(member, "links out of the working folder")
        target.symlink_to(member.linkname)
    elif member.isreg():
        source = tar.extractfile(member)
        assert source is not None, member.name
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        fd = os.open(target, flags, 0o755 if member.mode & 0o111 else 0o644)
        with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor
            while piece := source.read(_PIECE_BYTES):
                file.write(piece)
    else:
        raise _unsafe(member, "is neither a file, a folder nor a symbolic link")


def _parent(folder: Path, name: PurePosixPath, member: tarfile.TarInfo) -> Path:
    """The member's folder, made where it is missing; every step of it a real folder."""
    here = folder
    for part in name.parts[:-1]:
        here /= part
        if here.is_symlink():
            raise _unsafe(member, "goes through a link")
        if not here.is_dir():
            here.mkdir(mode=0o755)
    return here


def _unsafe(member: tarfile.TarInfo, why: str) -> Invalid:
    return Invalid(
        f"The bundle's member {member.name!r} {why}.",
        reason="BUNDLE_UNSAFE",
        field="bundle_digest",
        remedy="Submit plain files and folders only.",
    )
