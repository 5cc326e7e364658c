"""Reads what tasks tell of themselves, from folders that the tasks may fill with anything.

A task owns its folder while it is read. So nothing is followed, nothing but a small regular file
is read, and nothing is waited for: a link, a FIFO or a device in a file's place is no report.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from gridlease_kernel.faults import Fault, Invalid

from gridlease_agent.domain import progress
from gridlease_agent.domain.progress import CHECKPOINT, MAX_BYTES, PROGRESS, TaskReport

_LOG = logging.getLogger(__name__)
FOLDER = ".gridlease"
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SETTLED_NS = 1_000_000_000  # a younger file may change again within one tick of the kernel's clock

_Stamp = tuple[int, int, int, int]


@dataclass(slots=True)
class _Known:
    """What one lease has told, and which files that was."""

    report: TaskReport = field(default_factory=TaskReport)
    stamps: dict[str, _Stamp] = field(default_factory=dict)
    warned: bool = False


class ReportFolders:
    """The report folders of all leases; safe to call from any thread."""

    def __init__(self, leases: Path) -> None:
        self._leases = leases
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def make(self, lease_id: str) -> None:
        """An empty one for a task that has not started, whatever its bundle brought there."""
        folder = self._leases / lease_id / "work" / FOLDER
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o755)

    def read(self, lease_ids: Collection[str]) -> dict[str, TaskReport]:
        """What these have told; what others told is forgotten."""
        with self._lock:
            self._known = {key: self._known.get(key) or _Known() for key in lease_ids}
            return {key: self._look(key) for key in lease_ids}

    def last(self, lease_id: str) -> TaskReport:
        """What one has told that is over."""
        with self._lock:
            return self._look(lease_id)

    def _look(self, lease_id: str) -> TaskReport:
        known = self._known.setdefault(lease_id, _Known())
        try:
            work = os.open(self._leases / lease_id / "work", _ENTER)
        except OSError:
            return known.report
        try:
            folder = os.open(FOLDER, _ENTER, dir_fd=work)
        except FileNotFoundError:
            return known.report
        except OSError as trouble:
            self._warn(lease_id, known, FOLDER, trouble)
            return known.report
        finally:
            os.close(work)
        try:
            for name in (CHECKPOINT, PROGRESS):
                self._take(lease_id, known, folder, name)
        finally:
            os.close(folder)
        return known.report

    def _take(self, lease_id: str, known: _Known, folder: int, name: str) -> None:
        """Put one file's word into ``known``; a word that is no good leaves the one before."""
        now_ns = time.time_ns()
        try:
            facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
            stamp = (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
            if known.stamps.get(name) == stamp:
                return
            if now_ns - facts.st_ctime_ns > _SETTLED_NS:
                known.stamps[name] = stamp
            content = _content(folder, name, facts)
            before = known.report
            if name == CHECKPOINT:
                saved_ns = min(max(0, facts.st_mtime_ns), now_ns)  # the task can set it at will
                saved = progress.checkpoint(content, saved_ns)
                known.report = TaskReport(saved, before.progress)
            else:
                known.report = TaskReport(before.checkpoint, progress.progress(content))
        except FileNotFoundError:
            return
        except (Fault, OSError) as trouble:
            self._warn(lease_id, known, name, trouble)

    @staticmethod
    def _warn(lease_id: str, known: _Known, name: str, trouble: Exception) -> None:
        if not known.warned:
            facts = {"lease": lease_id, "file": name}
            _LOG.warning("a task's report was ignored: %s", trouble, extra=facts)
        known.warned = True


def _content(folder: int, name: str, seen: os.stat_result) -> bytes:
    """The bytes of the small regular file that was seen there a moment ago.

    Raises:
        Invalid: it is something else by now, or always was.
    """
    if stat.S_ISREG(seen.st_mode) and seen.st_size <= MAX_BYTES:
        fd = os.open(name, _READ, dir_fd=folder)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                content = os.read(fd, MAX_BYTES + 1)
                if len(content) <= MAX_BYTES:
                    return content
        finally:
            os.close(fd)
    raise Invalid(
        f"It is no regular file of at most {MAX_BYTES} bytes.", reason="TASK_REPORT_INVALID"
    )
