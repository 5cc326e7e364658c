"""Bundles in a folder, each under its digest: written once, whole, flushed, never changed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath
from typing import Final

from gridlease_kernel.faults import Invalid, TooLarge, Unreachable

from gridlease_gateway.domain.names import no_bundle

MAX_BUNDLE_BYTES: Final = 32 << 20
PIECE_BYTES: Final = 256 << 10
_MAX_MEMBERS: Final = 50_000
_PREFIX: Final = "sha256:"


class BundleFolder:
    """``ports.BundleFiles`` on a folder; several gateways may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            Unreachable: BUNDLE_STORE: the disk does not let us.
        """
        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _disk(error) from error

    def upload(self) -> FolderUpload:
        return FolderUpload(self._folder, self._incoming)

    async def read(self, digest: str) -> AsyncIterator[bytes]:
        path = self._folder / digest.removeprefix(_PREFIX)
        try:
            source = await asyncio.to_thread(path.open, "rb")
        except FileNotFoundError as error:
            raise no_bundle(digest) from error
        with source:
            while piece := await asyncio.to_thread(source.read, PIECE_BYTES):
                yield piece


class FolderUpload:
    """``ports.Upload`` into a folder."""

    def __init__(self, folder: Path, incoming: Path) -> None:
        self._folder = folder
        self._hash = hashlib.sha256()
        self._size = 0
        try:
            number, name = tempfile.mkstemp(dir=incoming)
        except OSError as error:
            raise _disk(error) from error
        self._file = os.fdopen(number, "w+b")
        self._path = Path(name)

    def write(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > MAX_BUNDLE_BYTES:
            raise TooLarge(
                f"A bundle holds at most {MAX_BUNDLE_BYTES >> 20} MiB.",
                reason="BUNDLE_TOO_LARGE",
                field="content",
                remedy="Leave data and build results out; .gitignore'd files need not travel.",
            )
        self._hash.update(piece)
        try:
            self._file.write(piece)
        except OSError as error:
            raise _disk(error) from error

    async def keep(self) -> tuple[str, int]:
        return await asyncio.to_thread(self._keep)

    def drop(self) -> None:
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def _keep(self) -> tuple[str, int]:
        digest = self._hash.hexdigest()
        try:
            self._file.flush()
            self._file.seek(0)
            check_tar(self._file)
            os.fsync(self._file.fileno())
            self._file.close()
            self._path.rename(self._folder / digest)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise _disk(error) from error
        return _PREFIX + digest, self._size


def check_tar(source: object) -> None:
    """Nothing, if the open file is a tar archive that stays inside its folder.

    Raises:
        Invalid: BUNDLE_NOT_TAR or BUNDLE_UNSAFE.
    """
    try:
        with tarfile.open(fileobj=source, mode="r:") as archive:  # type: ignore[call-overload] # any binary file
            for count, member in enumerate(archive):
                _check_member(member, count)
    except (tarfile.TarError, EOFError, ValueError, UnicodeError) as error:
        raise Invalid(
            f"The bundle is not a plain tar archive: {error}",
            reason="BUNDLE_NOT_TAR",
            field="content",
            remedy="Send an uncompressed tar archive; gridlease submit makes one.",
        ) from error


def _check_member(member: tarfile.TarInfo, count: int) -> None:
    path = PurePosixPath(member.name)
    target = PurePosixPath(member.linkname) if member.issym() or member.islnk() else path
    why = ""
    if count >= _MAX_MEMBERS:
        why = f"more than {_MAX_MEMBERS} members"
    elif path.is_absolute() or ".." in path.parts or "\0" in member.name:
        why = f"the path {member.name!r} leaves the folder"
    elif target.is_absolute() or ".." in target.parts:
        why = f"the link {member.name!r} leaves the folder"
    elif not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        why = f"{member.name!r} is neither a file, a folder nor a link"
    if why:
        raise Invalid(
            f"The bundle is refused: {why}.",
            reason="BUNDLE_UNSAFE",
            field="content",
            remedy="Send files, folders and links with relative paths inside the bundle.",
        )


def _disk(error: OSError) -> Unreachable:
    return Unreachable(
        f"The store of bundles cannot be used: {error.strerror or error}",
        reason="BUNDLE_STORE",
        remedy="Free some space on the gateway's disk, or try again soon.",
        retry_after_ms=5_000,
    )
