"""Which process is which: a pid is only trusted together with its start time."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it was when it was seen: its pid and the kernel's start time of that pid."""

    pid: int
    start_ticks: int

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not; ours are reaped here)."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return process_at(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the pid has come to mean another process."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait_gone(self, timeout_s: float) -> bool:
        """Wait until it has ended, at most ``timeout_s`` seconds; whether it has."""
        deadline = time.monotonic() + timeout_s
        while self.alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True


def process_at(pid: int) -> Process | None:
    """The live process that has this pid now; None for none, or for a zombie."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything; what follows the last one is regular.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in {"Z", "X"}:
        return None
    return Process(pid, int(fields[19]))


def works_in(pid: int, folder: Path) -> bool:
    """Whether the process stands in ``folder``, as each PostgreSQL process does in its data."""
    try:
        return (_PROC / str(pid) / "cwd").samefile(folder)
    except OSError:
        return False


def servers_in(folder: Path) -> list[Process]:
    """Every live PostgreSQL process on a data folder: postmaster and backends alike."""
    found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or not works_in(int(entry.name), folder):
            continue
        try:
            program = (entry / "exe").readlink().name.removesuffix(" (deleted)")
        except OSError:
            continue
        process = process_at(int(entry.name))
        if process is not None and program == "postgres":
            found.append(process)
    return found
