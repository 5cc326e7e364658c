"""What the agent has on disk: its leases, the desired set that it follows, and unclean devices.

Frozen records only; what they mean and how they change is in ``lease``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

RUN_METER = "run"  # in nanoseconds; the wire's name

Counters = Mapping[tuple[int, str], int]  # (segment number, meter) -> cumulative
SETTLED = 0  # the number under which sums of settled segments are kept; no segment has it


class Phase(enum.IntEnum):
    KNOWN = 1
    STARTING = 2
    EXITED = 3
    CLEAN = 4


@dataclass(frozen=True, slots=True)
class Clocks:
    """One reading of the host: two clocks that count only within one boot."""

    boot_id: str
    boottime_ns: int
    raw_ns: int


@dataclass(frozen=True, slots=True)
class Deadline:
    """The end of a grant, on both clocks of one boot; over when either says so."""

    boot_id: str
    boottime_ns: int
    raw_ns: int

    def left_ns(self, now: Clocks) -> int:
        """Nanoseconds until the end, by the faster clock; void (0) after a reboot [T 18]."""
        if now.boot_id != self.boot_id:
            return 0
        return max(0, min(self.boottime_ns - now.boottime_ns, self.raw_ns - now.raw_ns))


@dataclass(frozen=True, slots=True)
class Exit:
    """How a lease's sandbox ended, or why it never began."""

    code: int
    reason: str
    ran_ns: int = 0


@dataclass(frozen=True, slots=True)
class Shim:
    """A shim found alive. ``ready_ns``: boottime at which the workload began, None = not yet."""

    lease_id: str
    devices: tuple[str, ...]
    deadline: Deadline
    ready_ns: int | None = None


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """A shim's exit file: boottimes of ``boot_id``."""

    boot_id: str
    code: int
    reason: str
    ready_ns: int | None
    ended_ns: int


@dataclass(frozen=True, slots=True)
class Wiped:
    """One thing that was wiped, and how that was verified; ``verified_ns``: Unix time.

    ``what``: a device's id, or "scratch", "shm" or "secrets".
    """

    what: str
    method: str
    verified_ns: int


@dataclass(frozen=True, slots=True)
class Row:
    """One lease on disk. ``segments``: (number, boottime from which it counts), in order.

    ``deadline``, ``ready_ns`` and ``segments`` count on the clocks of ``boot_id``.
    """

    lease_id: str
    devices: tuple[str, ...]
    boot_id: str
    known_ns: int  # boottime at which the lease was first heard of, in this boot
    start_by_ms: int
    phase: Phase = Phase.KNOWN
    deadline: Deadline | None = None
    span_ms: int = 0  # what the answer that set the deadline promised
    last: bool = False
    reason: str = ""  # billing's, with ``last``
    ready_ns: int | None = None
    segments: tuple[tuple[int, int], ...] = ()
    counters: Counters = field(default_factory=dict)
    exit: Exit | None = None
    final_acknowledged: bool = False
    stop_at_ns: int | None = None  # boottime by which an ordered stop has to be over
    stop_reason: str = ""  # why, as the first order said it: the task is told
    stop_message: str = ""
    wiped: tuple[Wiped, ...] = ()  # what the wipe receipt says
    receipt_told: bool = False  # of this agent's life alone: told again after a crash

    @property
    def gone(self) -> bool:
        """Proof that the lease neither runs nor ever will: billing has its last word [T 11]."""
        return self.phase is Phase.CLEAN and self.final_acknowledged


@dataclass(frozen=True, slots=True)
class Wanted:
    """One lease of a desired set's ``run``."""

    lease_id: str
    devices: tuple[str, ...]
    start_by_ms: int = 600_000


@dataclass(frozen=True, slots=True)
class StopOrder:
    """One lease of a desired set's ``stop``. ``reason``: its code; ``message``: a sentence."""

    lease_id: str
    notice_ms: int
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class WarmKind:
    """What a sandbox made ahead is good for: one tenant's leases of this make alone.

    ``root``: the image's digest; ``environment``: the prepared one's folder; ``modules``: what a
    frozen one has imported, empty = created ahead. The sizes are those of a lease.
    """

    tenant: str
    root: str = ""
    environment: str = ""
    modules: tuple[str, ...] = ()
    cpu_milli: int = 1000
    memory_bytes: int = 512 << 20
    disk_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Warm:
    """One sandbox made ahead: no lease, no device, no tenant's data; gone when a lease has it."""

    warm_id: str
    kind: WarmKind
    boot_id: str


@dataclass(frozen=True, slots=True)
class Spool:
    """The whole file. ``named``: the leases of the last desired set, to run or to stop."""

    spool_id: str
    generation: int = 0
    named: frozenset[str] = frozenset()
    dirty: frozenset[str] = frozenset()
    rows: Mapping[str, Row] = field(default_factory=dict)
    warm: Mapping[str, Warm] = field(default_factory=dict)

    def with_rows(self, *rows: Row) -> Spool:
        """The same spool with these rows written over its own."""
        if not rows:
            return self
        return replace(self, rows={**self.rows, **{row.lease_id: row for row in rows}})
