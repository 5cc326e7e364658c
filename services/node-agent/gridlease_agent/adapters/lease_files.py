"""A lease's files on this node: its folder while it lives, and what is kept of it afterwards.

``leases/<lease>/`` belongs to the sandbox (see ``shim``); ``held.json`` in it names the devices,
for an agent that has lost its spool. ``kept/<lease>/``: ``log``, the keeper's records, ``files/``
(the outputs) and ``artefacts.json`` (their list, written last: with it the keeping is complete).
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import logging
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from gridlease_kernel.faults import Exists, Missing

from gridlease_agent import shim
from gridlease_agent.adapters.report_folder import FOLDER, ReportFolders
from gridlease_agent.domain.spool import Deadline
from gridlease_agent.domain.warm import PREFIX
from gridlease_agent.executor.codec import Handle
from gridlease_agent.executor.names import open_below
from gridlease_agent.ports import Artefact, Reports
from gridlease_agent.runtimes.spec import UID_BASE, UID_RANGE

_LOG = logging.getLogger(__name__)
_PIECE_BYTES = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAX_FILES = 10_000
_RECORDS = ("started.json", "exit.json")  # the keeper's own word on when it ran


class LeaseFiles:
    """All leases' files under one state folder."""

    def __init__(
        self,
        state: Path,
        *,
        kept_bytes: int,
        kept_hours: int,
        core: tuple[int, int] | None = None,
    ) -> None:
        """``core``: uid and gid of an agent's core that is not this process's own user."""
        self._core = core
        self._leases, self._kept = state / "leases", state / "kept"
        self._kept_bytes, self._kept_ns = kept_bytes, kept_hours * 3600 * 10**9
        for folder in (self._leases, self._kept):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.reports: Reports = ReportFolders(self._leases)

    def prepare(self, lease_id: str, devices: Iterable[str]) -> Handle:
        """An empty working folder for a lease that has not started, open, the core's to fill.

        Its devices are on record from here on.

        Raises:
            Exists: SANDBOX_EXISTS.
        """
        folder = self._leases / lease_id
        if (folder / "spec.json").exists():
            raise Exists(f"Lease {lease_id} was started here before.", reason="SANDBOX_EXISTS")
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "work").mkdir(parents=True, mode=0o755)
        folder.chmod(0o700)
        shim.write_json(str(folder / "held.json"), {"devices": list(devices)})
        work = os.open(folder / "work", _FOLDER)
        if self._core is not None:
            os.fchown(work, *self._core)
        return Handle(work)

    def held(self, lease_id: str) -> tuple[str, ...]:
        """The devices that a lease's folder says it holds."""
        record = shim.read_json(str(self._leases / lease_id / "held.json")) or {}
        return tuple(str(device) for device in record.get("devices", ()))

    def deadline(self, lease_id: str) -> Deadline | None:
        """The deadline that the lease's shim goes by."""
        record = shim.read_json(str(self._leases / lease_id / "deadline.json"))
        if record is None:
            return None
        return Deadline(record["boot_id"], record["boottime_ns"], record["raw_ns"])

    def folders(self) -> list[str]:
        """Of leases; sandboxes made ahead are nobody's yet."""
        found = (entry.name for entry in self._leases.iterdir() if entry.is_dir())
        return sorted(name for name in found if not name.startswith(PREFIX))

    def taken_slots(self) -> set[int]:
        """The slots of host uids that folders here belong to."""
        taken = set()
        for entry in self._leases.iterdir():
            try:
                taken.add(((entry / "work").stat().st_uid - UID_BASE) // UID_RANGE)
            except OSError:
                continue
        return taken

    def discard(self, lease_id: str) -> None:
        """Delete a lease's folder whole."""
        shutil.rmtree(self._leases / lease_id, ignore_errors=True)

    # -- after the end ------------------------------------------------------------------------

    def keep(self, lease_id: str, outputs: Iterable[str]) -> list[Artefact]:
        """Move log and outputs of an ended lease to where they are kept; may be repeated."""
        folder, kept = self._leases / lease_id, self._kept / lease_id
        if os.geteuid() != 0:
            open_up(folder / "work")
        (kept / "files").mkdir(parents=True, exist_ok=True, mode=0o700)
        if (folder / "log").exists():
            (folder / "log").replace(kept / "log")
        for name in _RECORDS:
            if (folder / name).exists():
                shutil.copyfile(folder / name, kept / name)
        left = self._kept_bytes
        for path in _matches(folder / "work", list(outputs)):
            source, target = folder / "work" / path, kept / "files" / path
            size = source.lstat().st_size
            if size > left:
                _LOG.warning(
                    "an output exceeds what this node keeps",
                    extra={"lease": lease_id, "path": path},
                )
                continue
            left -= size
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
        artefacts = [_described(kept / "files", path) for path in _files(kept / "files")]
        rows = [[one.path, one.size_bytes, one.sha256] for one in artefacts]
        shim.write_json(str(kept / "artefacts.json"), {"artefacts": rows})
        self.prune(spare=lease_id)
        return artefacts

    def artefacts(self, lease_id: str) -> list[Artefact] | None:
        """What is kept of a lease; None where nothing is (yet, or any more)."""
        record = shim.read_json(str(self._kept / lease_id / "artefacts.json"))
        return None if record is None else [Artefact(*row) for row in record["artefacts"]]

    def open_artefact(self, lease_id: str, path: str) -> Handle:
        """A listed artefact, open.

        Raises:
            Missing: ARTEFACT_NOT_FOUND; only what is listed can be asked for.
        """
        if path not in {one.path for one in self.artefacts(lease_id) or ()}:
            raise Missing(
                f"The lease left no artefact {path!r} here.",
                reason="ARTEFACT_NOT_FOUND",
                field="path",
                remedy="List its artefacts; a node keeps them for a limited time.",
            )
        files = os.open(self._kept / lease_id / "files", _FOLDER)
        try:
            return Handle(open_below(files, path))
        finally:
            os.close(files)

    def open_log(self, lease_id: str) -> Handle | None:
        """The task's output, open, wherever it lies now; None where there is none."""
        for folder in (self._leases, self._kept):
            with contextlib.suppress(FileNotFoundError):
                return Handle(os.open(folder / lease_id / "log", _FILE))
        return None

    def known(self, lease_id: str) -> bool:
        return (self._leases / lease_id).exists() or (self._kept / lease_id).exists()

    def prune(self, spare: str = "", now_ns: int | None = None) -> list[str]:
        """Delete what is too old, then the oldest until the rest fits; what was deleted."""
        folders = []
        for entry in self._kept.iterdir():
            size = sum(path.lstat().st_size for path in entry.rglob("*") if path.is_file())
            folders.append((entry.stat().st_mtime_ns, size, entry.name))
        total, gone = sum(size for _, size, _ in folders), []
        newest_ns = max((at for at, _, _ in folders), default=0)
        now_ns = newest_ns if now_ns is None else now_ns
        for at, size, name in sorted(folders):
            if name != spare and (total > self._kept_bytes or now_ns - at > self._kept_ns):
                shutil.rmtree(self._kept / name, ignore_errors=True)
                total -= size
                gone.append(name)
                _LOG.info("kept files were deleted", extra={"lease": name, "bytes": size})
        return gone


def open_up(folder: Path) -> None:
    """Let the owner into every folder below: a task may have shut itself, and us, out."""
    stack = [folder] if folder.is_dir() else []
    while stack:
        here = stack.pop()
        here.chmod(0o700)
        with os.scandir(here) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    stack.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    Path(entry.path).chmod(0o600)


def _files(folder: Path) -> Iterator[str]:
    """Regular files under a folder, relative, sorted; never through a link; bounded."""
    count = 0
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(parent) / name
            if stat.S_ISREG(path.lstat().st_mode) and count < _MAX_FILES:
                count += 1
                yield path.relative_to(folder).as_posix()


def _matches(work: Path, outputs: list[str]) -> list[str]:
    """Files of ``work`` that an output names: itself, a folder above it, or a pattern."""
    wanted = [str(PurePosixPath(text.removeprefix("/work/"))) for text in outputs]
    found = []
    for path in _files(work) if wanted else ():
        heads = [path, *(str(parent) for parent in PurePosixPath(path).parents)]
        if PurePosixPath(path).parts[0] == FOLDER:
            continue  # told already, and nobody's output
        if any(fnmatch.fnmatchcase(head, text) for text in wanted for head in heads):
            found.append(path)
    return found


def _described(folder: Path, path: str) -> Artefact:
    sha, size = hashlib.sha256(), 0
    fd = os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW)
    with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor
        while piece := file.read(_PIECE_BYTES):
            sha.update(piece)
            size += len(piece)
    return Artefact(path, size, sha.hexdigest())
