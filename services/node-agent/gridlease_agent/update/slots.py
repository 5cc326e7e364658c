"""Two folders, one of them current, and the record of what was taken: all of it survives a crash.

``a/`` and ``b/`` hold a release each: ``lib/`` (what Python imports) or a virtual environment
with ``bin/python``. ``current`` is a link to one of them. ``update.json`` is written before and
after each switch, in one step.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tarfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gridlease_kernel.faults import Precondition

from gridlease_agent.update.manifest import Release

NAMES = ("a", "b")
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """``versions``: by slot. ``highest``: the largest number ever taken.

    ``wanted``: the slot to change to. ``trial``: the slot that is being tried, "" = none.
    ``said``: how the last change went.
    """

    versions: dict[str, str]
    highest: int = 0
    wanted: str = ""
    trial: str = ""
    said: str = ""


class Slots:
    """One host's slots, under a folder that is root's alone."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True, mode=0o755)
        self.home = home

    # -- the record -----------------------------------------------------------------------------

    def read(self) -> Record:
        """As it stands; an empty one where nothing was ever taken."""
        try:
            return Record(**json.loads((self.home / "update.json").read_text("utf-8")))
        except FileNotFoundError:
            return Record({})
        except (ValueError, TypeError) as trouble:
            raise Precondition(
                f"{self.home / 'update.json'} is damaged ({trouble}).",
                reason="UPDATE_RECORD_DAMAGED",
                remedy="Remove it; the slot that is current stays so.",
            ) from trouble

    def note(self, **changed: object) -> Record:
        """Write the record anew, durably."""
        record = replace(self.read(), **changed)  # type: ignore[arg-type] # by name
        draft = self.home / ".update.json"
        with draft.open("w", encoding="utf-8") as file:
            json.dump(asdict(record), file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.home / "update.json")
        _sync(self.home)
        return record

    # -- the link -------------------------------------------------------------------------------

    def current(self) -> str:
        """The slot that runs, "" before the first."""
        with contextlib.suppress(OSError):
            name = str((self.home / "current").readlink())
            return name if name in NAMES else ""
        return ""

    def other(self) -> str:
        """The slot that does not run."""
        return "a" if self.current() == "b" else "b" if self.current() == "a" else "a"

    def switch(self, slot: str) -> None:
        """Make a slot the current one, in one step."""
        assert slot in NAMES, slot
        draft = self.home / ".current"
        draft.unlink(missing_ok=True)
        draft.symlink_to(slot)
        draft.replace(self.home / "current")
        _sync(self.home)

    def command(self, slot: str) -> tuple[str, dict[str, str]]:
        """The interpreter of a slot, and what it needs in its environment."""
        folder = self.home / slot
        python = folder / "bin" / "python"
        if python.exists():
            return str(python), {}
        return sys.executable, {"PYTHONPATH": str(folder / "lib")}

    # -- taking a release -----------------------------------------------------------------------

    def install(self, release: Release, archive: Path) -> str:
        """Unpack a checked release into the slot that does not run; the slot.

        Raises:
            Precondition: RELEASE_DAMAGED: the archive is not the one that was signed.
        """
        if archive.stat().st_size != release.size_bytes or _sha256(archive) != release.sha256:
            raise Precondition(
                "The archive is not the one that the release names.",
                reason="RELEASE_DAMAGED",
                remedy="Fetch it again.",
            )
        slot = self.other()
        draft = self.home / f".{slot}.new"
        shutil.rmtree(draft, ignore_errors=True)
        with tarfile.open(archive) as file:
            file.extractall(draft, filter="data")
        versions = {**self.read().versions, slot: release.version}
        old = self.home / f".{slot}.old"
        shutil.rmtree(old, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            (self.home / slot).rename(old)  # what still runs from it keeps its open files
        draft.rename(self.home / slot)
        _sync(self.home)
        shutil.rmtree(old, ignore_errors=True)
        self.note(versions=versions, highest=release.number, wanted=slot, said="")
        return slot


def _sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            sha.update(piece)
    return sha.hexdigest()


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
