"""What should the agent do next, and in which order?

    next_steps(spool, now, shims, prepared, asked_ns, retry_ms, report_ms) -> tuple[Step, ...]

Level-triggered: the same state gives the same steps, so every step is safe to repeat and none
has to be remembered. The shell takes them in order. Only ``Start`` carries a ``spool_after``: it
is written and committed first, then the shim is executed. After ``Scrub`` has been verified the
shell writes ``lease.scrubbed``; ``Delete`` writes ``lease.deleted``.

Source: docs/lease-protocol.md, sections 4, 5 and 7.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from gridlease_agent.domain.lease import deletable, may_start, started
from gridlease_agent.domain.spool import Clocks, Deadline, Phase, Row, Shim, Spool


@dataclass(frozen=True, slots=True)
class Kill:
    """The notice or the grant is over. (The shim does this at the deadline by itself.)"""

    lease_id: str


@dataclass(frozen=True, slots=True)
class Extend:
    """Hand a longer deadline to the shim; it is on disk already."""

    lease_id: str
    deadline: Deadline


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell the workload that it ends at ``by_ns`` (boottime) at the latest; again is harmless.

    ``reason`` goes on record as the exit's. ``code``, ``message``: why, as whoever ordered it says
    it; an empty code = the reason.
    """

    lease_id: str
    by_ns: int
    reason: str
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Scrub:
    devices: frozenset[str]


@dataclass(frozen=True, slots=True)
class Delete:
    lease_id: str


@dataclass(frozen=True, slots=True)
class Start:
    """Write ``spool_after``, commit, then execute the shim with ``deadline``."""

    lease_id: str
    spool_after: Spool
    deadline: Deadline


@dataclass(frozen=True, slots=True)
class Settle:
    """Write ``lease.ticked``, commit, note the clocks, send ``lease.settle_report``."""


Step = Kill | Extend | Stop | Scrub | Delete | Start | Settle


def next_steps(
    spool: Spool,
    now: Clocks,
    shims: Mapping[str, Shim],
    prepared: Collection[str],
    asked_ns: int | None,
    retry_ms: int,
    report_ms: int = 0,
) -> tuple[Step, ...]:
    """The steps that are due now.

    ``shims``: those alive. ``prepared``: leases whose image and bundle are in place.
    ``asked_ns``: boottime of the last ``Settle`` sent, None = ask at once (the agent has just
    started, or a lease became KNOWN or EXITED since). ``report_ms``: how often billing hears of
    tasks that run, also where no grant is to be renewed; 0 = it does not.
    """
    steps: list[Step] = []
    for lease_id in sorted(shims):
        row = spool.rows.get(lease_id)
        if row is not None and row.phase is Phase.STARTING:
            steps += _running(row, shims[lease_id], now)
    busy = {device for shim in shims.values() for device in shim.devices}
    unclean = spool.dirty - busy - _starting(spool)
    if unclean:
        steps.append(Scrub(unclean))
    steps += [Delete(row.lease_id) for row in spool.rows.values() if deletable(spool, row)]
    for lease_id in sorted(spool.rows):
        if lease_id in prepared and may_start(spool, lease_id, now, busy):
            deadline = spool.rows[lease_id].deadline
            assert deadline is not None, lease_id
            spool = started(spool, lease_id)
            steps.append(Start(lease_id, spool, deadline))
    if _settle_due(spool, now, asked_ns, retry_ms) or _report_due(spool, now, asked_ns, report_ms):
        steps.append(Settle())
    return tuple(steps)


def _starting(spool: Spool) -> frozenset[str]:
    return frozenset(
        device
        for row in spool.rows.values()
        if row.phase is Phase.STARTING
        for device in row.devices
    )


def _running(row: Row, shim: Shim, now: Clocks) -> list[Step]:
    ends_ns = shim.deadline.boottime_ns
    steps: list[Step] = []
    if row.deadline is not None and row.deadline.boottime_ns > ends_ns:
        steps.append(Extend(row.lease_id, row.deadline))
        ends_ns = row.deadline.boottime_ns
    if row.stop_at_ns is not None and now.boottime_ns >= row.stop_at_ns:
        return [Kill(row.lease_id)]
    if row.stop_at_ns is not None:
        by_ns = min(row.stop_at_ns, ends_ns)
        steps.append(Stop(row.lease_id, by_ns, "STOPPED", row.stop_reason, row.stop_message))
    elif row.last:
        steps.append(Stop(row.lease_id, ends_ns, row.reason))
    return steps


def _settle_due(spool: Spool, now: Clocks, asked_ns: int | None, retry_ms: int) -> bool:
    if asked_ns is not None and now.boottime_ns - asked_ns < retry_ms * 1_000_000:
        return False
    return any(_needs_billing(row, now) for row in spool.rows.values())


def _report_due(spool: Spool, now: Clocks, asked_ns: int | None, report_ms: int) -> bool:
    """Has billing not heard for a while of a task that runs?"""
    if not report_ms or asked_ns is None or now.boottime_ns - asked_ns < report_ms * 1_000_000:
        return False
    return any(
        row.phase is Phase.STARTING and row.ready_ns is not None for row in spool.rows.values()
    )


def _needs_billing(row: Row, now: Clocks) -> bool:
    if row.phase >= Phase.EXITED:
        return not row.final_acknowledged
    if row.last:
        return False
    left_ns = 0 if row.deadline is None else row.deadline.left_ns(now)
    return left_ns <= row.span_ms * 1_000_000 // 2
