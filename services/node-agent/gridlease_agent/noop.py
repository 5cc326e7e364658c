"""Sandboxes of an emulated node: they run nothing and end when the spec's duration is over."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from gridlease_kernel.clock import Clock, SystemClock
from gridlease_kernel.faults import Exists, Missing, Precondition

from gridlease_agent import shim
from gridlease_agent.runtimes.spec import SandboxSpec
from gridlease_agent.runtimes.states import (
    Absent,
    Deadline,
    Exit,
    Exited,
    Looked,
    Running,
    SandboxState,
    Word,
)

MS = 1_000_000


@dataclass(slots=True)
class _Entry:
    started_ns: int
    started_wall_ns: int
    ends_ns: int  # by itself
    deadline_ns: int
    stop_ns: int | None = None
    stop_reason: str = "STOPPED"


class NoopSandboxes:
    """The same answers as ``Sandboxes`` give, from memory; safe to call from any thread."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._boot_id = shim.boot_id()
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    def start(self, lease_id: str, spec: SandboxSpec, deadline: Deadline) -> None:
        """Begin to count the spec's duration.

        Raises:
            Exists: SANDBOX_EXISTS.
        """
        now = self._clock.boottime_ns()
        with self._lock:
            if lease_id in self._entries:
                raise Exists(
                    f"Lease {lease_id} was started here before.",
                    reason="SANDBOX_EXISTS",
                    field="lease_id",
                )
            ends = now + spec.emulated_duration_ms * MS
            wall = round(self._clock.wall().timestamp() * 1e9)
            self._entries[lease_id] = _Entry(now, wall, ends, deadline.boottime_ns)

    def extend(self, lease_id: str, deadline: Deadline) -> None:
        with self._lock:
            entry = self._entry(lease_id)
            if not self._over(entry):
                entry.deadline_ns = deadline.boottime_ns

    def stop(
        self, lease_id: str, notice_ms: int, reason: str = "STOPPED", word: Word = ("", "")
    ) -> None:
        del word  # nobody is there to be told
        with self._lock:
            entry = self._entry(lease_id)
            at = self._clock.boottime_ns() + notice_ms * MS
            if entry.stop_ns is None:
                entry.stop_ns, entry.stop_reason = at, reason
            entry.stop_ns = min(at, entry.stop_ns)

    def kill(self, lease_id: str) -> None:
        self.stop(lease_id, 0)

    def inspect(self, lease_id: str) -> SandboxState:
        with self._lock:
            entry = self._entries.get(lease_id)
            if entry is None:
                return Absent()
            over = self._over(entry)
        if over is None:
            return Running(entry.started_ns, entry.started_wall_ns)
        return Exited(self._exit(entry, *over), entry.started_ns)

    def look(self) -> tuple[Looked, ...]:
        with self._lock:
            names = sorted(self._entries)
        return tuple(Looked(name, self.inspect(name), 0) for name in names)

    def alive(self, lease_ids: Collection[str]) -> tuple[str, ...]:
        return tuple(name for name in lease_ids if isinstance(self.inspect(name), Running))

    def egress_bytes(self) -> Mapping[str, int]:
        """Nothing runs, so nothing is sent."""
        return {}

    def remove(self, lease_id: str) -> None:
        """Forget it.

        Raises:
            Precondition: SANDBOX_RUNNING.
        """
        with self._lock:
            if self._over(self._entry(lease_id)) is None:
                raise Precondition(
                    f"Lease {lease_id} still runs here.",
                    reason="SANDBOX_RUNNING",
                    remedy="Stop it and wait for its end.",
                )
            del self._entries[lease_id]

    def _entry(self, lease_id: str) -> _Entry:
        entry = self._entries.get(lease_id)
        if entry is None:
            raise Missing(
                f"No sandbox of lease {lease_id} is here.",
                reason="SANDBOX_MISSING",
                field="lease_id",
            )
        return entry

    def _over(self, entry: _Entry) -> tuple[int, str] | None:
        """When and why it ended, None while it runs. A task that is told to stop obeys at once."""
        ends = [(entry.ends_ns, "EXITED"), (entry.deadline_ns, "DEADLINE")]
        if entry.stop_ns is not None:
            ends.append((entry.stop_ns, entry.stop_reason))
        first = min(ends)
        return first if first[0] <= self._clock.boottime_ns() else None

    def _exit(self, entry: _Entry, ended_ns: int, reason: str) -> Exit:
        natural = reason == "EXITED"
        return Exit(
            reason=reason,
            exit_code=0 if natural else 143,
            signal=0 if natural else 15,
            started=True,
            boot_id=self._boot_id,
            ended_boottime_ns=ended_ns,
            ended_wall_ns=entry.started_wall_ns + ended_ns - entry.started_ns,
            oom=False,
            oom_kills=0,
            message="Emulated: nothing ran.",
            cpu_ns=0,
            max_memory_bytes=0,
            clean=True,
            log_truncated=False,
        )
