"""A bundle: files of a job as one tar archive, the same bytes for the same files."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from gridlease_kernel.faults import Invalid, Missing, TooLarge

MAX_BUNDLE_BYTES: Final = 32 << 20
_LEFT_OUT: Final = frozenset({".git", "__pycache__"})


def build(sources: Mapping[str, Path]) -> bytes:
    """The archive of ``sources``: path in the bundle ("." = its root) to a file or folder.

    Sorted, without owners and times, so that the digest depends on the content alone. ``.git``
    and ``__pycache__`` stay behind.

    Raises:
        Missing: FILE_NOT_FOUND.
        Invalid: BUNDLE_UNSAFE, FILE_UNREADABLE.
        TooLarge: BUNDLE_TOO_LARGE.
    """
    members: dict[str, Path] = {}
    for name, source in sources.items():
        members.update(_members(_inside(name), source))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(members):
            _add(archive, name, members[name])
            _check_size(out.tell())
    _check_size(out.tell())
    return out.getvalue()


def _members(root: str, source: Path) -> Iterator[tuple[str, Path]]:
    if not os.path.lexists(source):
        raise Missing(
            f"There is no file or folder {source}.",
            reason="FILE_NOT_FOUND",
            field="files",
            remedy="Paths of workdir and files count from the job file's folder.",
        )
    if source.is_symlink() or not source.is_dir():
        yield (source.name if root == "." else root), source
        return
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT)
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in (*files, *links, *([] if files or folders else [""])):
            path = Path(folder) / name
            below = PurePosixPath(root) / path.relative_to(source).as_posix()
            if str(below) != ".":
                yield str(below), path


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    try:
        info = _info(name, path)
        if info.isreg():
            _check_size(info.size)
            content = path.read_bytes()
            info.size = len(content)  # what was read, should it be growing
            archive.addfile(info, io.BytesIO(content))
        else:
            archive.addfile(info)
    except OSError as error:
        raise Invalid(
            f"{path} cannot be read: {error.strerror or error}",
            reason="FILE_UNREADABLE",
            field="files",
            remedy="Make it readable, or leave it out.",
        ) from error


def _info(name: str, path: Path) -> tarfile.TarInfo:
    found = path.lstat()
    info = tarfile.TarInfo(name)
    executable = bool(found.st_mode & stat.S_IXUSR)
    info.mode = 0o755 if executable or stat.S_ISDIR(found.st_mode) else 0o644
    if stat.S_ISLNK(found.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
        _inside(info.linkname, f"the link {name}")
    elif stat.S_ISDIR(found.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISREG(found.st_mode):
        info.size = found.st_size
    else:
        raise _unsafe(f"{path} is neither a file, a folder nor a link")
    return info


def _inside(name: str, what: str = "") -> str:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts:
        raise _unsafe(f"{what or repr(name)} leads out of the bundle")
    return str(path)


def _unsafe(why: str) -> Invalid:
    return Invalid(
        f"The bundle cannot be made: {why}.",
        reason="BUNDLE_UNSAFE",
        field="files",
        remedy="Take files, folders and links with relative paths inside the bundle.",
    )


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAX_BUNDLE_BYTES:
        raise TooLarge(
            f"The files exceed the {MAX_BUNDLE_BYTES >> 20} MiB of a bundle.",
            reason="BUNDLE_TOO_LARGE",
            field="files",
            remedy="Leave data and build results out of workdir and files.",
        )
