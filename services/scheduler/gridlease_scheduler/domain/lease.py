"""A lease as the scheduler sees it: may its task be placed again, and what should its node have?

``ACTIVE -> CLOSING -> CLOSED``, nothing backwards. All functions are pure; ``now_ms`` is this
process's monotonic clock (integer ms) and never leaves it: a leader that takes over reads leases
without ``closable_at_ms`` (it is not stored), finds the CLOSING ones and asks ``Close`` again.

    observe(leases, node_id, sightings) -> Observed   merges a node's report; silence says nothing
    to_closing(lease, cause, notice_ms) -> Lease      idempotent; the first cause stays
    close_answered(lease, wait_ms, now_ms, terms) -> Lease      at RECEIPT of Close's answer
    may_close(lease, now_ms) -> bool                  Close answered, and gone or waited
    closed(lease, now_ms) -> Lease
    desired_set(leases, node_id, generation) -> DesiredSet      always the whole set
    connected(last_seen_ms, now_ms, terms), lost(lease, last_seen_ms, now_ms) -> bool
    device_free(device, node_id, leases, connected=, dirty=) -> bool
    wait_span_ms(wait_ms, terms) -> int

Each step is written in one transaction that reads the leader's epoch ``FOR SHARE``, adds one to
the node's generation and is committed before anything is sent.

Source: docs/lease-protocol.md, sections 2, 4, 5 and 6.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


class State(enum.StrEnum):
    ACTIVE = "ACTIVE"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"


class Cause(enum.StrEnum):
    """Why a lease ends; billing uses it for credits only."""

    EXITED = "EXITED"
    STOPPED = "STOPPED"
    PREEMPTED = "PREEMPTED"
    DRAINED = "DRAINED"
    NODE_LOST = "NODE_LOST"


class Phase(enum.IntEnum):
    """The agent's phase as reported; it only goes up."""

    UNSEEN = 0
    KNOWN = 1
    STARTING = 2
    EXITED = 3
    CLEAN = 4


@dataclass(frozen=True, slots=True)
class Terms:
    """Settings. Source: docs/lease-protocol.md, section 5."""

    grant_ms: int = 120_000  # G: the longest grant that billing issues to this node
    drift_ppm: int = 1_000  # rho: of any clock, PostgreSQL's host included
    kill_ms: int = 2_000  # kappa: a kill at the deadline has finished
    step_ms: int = 3_000  # sigma: how far the database clock may step unnoticed
    disconnected_ms: int = 30_000  # three slow ticks


@dataclass(frozen=True, slots=True)
class Exit:
    """How the sandbox ended. ``reason``: EXITED, KILLED, START_LOST, NODE_REBOOT, …"""

    code: int
    reason: str
    ran_ns: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """``phase``, ``exit``, ``gone``: what the agent said, merged upwards."""

    lease_id: str
    task_id: str
    attempt: int
    node_id: str
    devices: tuple[str, ...]
    lost_after_ms: int = 120_000
    state: State = State.ACTIVE
    cause: Cause | None = None
    notice_ms: int = 0
    phase: Phase = Phase.UNSEEN
    exit: Exit | None = None
    gone: bool = False
    closable_at_ms: int | None = None  # None = Close has not answered this process


@dataclass(frozen=True, slots=True)
class Sighting:
    """One lease of a ``SyncNode``. ``gone``: CLEAN, and billing has the final counters."""

    lease_id: str
    phase: Phase
    exit: Exit | None = None
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """``changed``: leases to write; ``exited``: those of them that this report moved to CLOSING."""

    changed: tuple[Lease, ...]
    exited: tuple[Lease, ...]


@dataclass(frozen=True, slots=True)
class StopOrder:
    lease_id: str
    notice_ms: int


@dataclass(frozen=True, slots=True)
class DesiredSet:
    """Everything that a node should have, at one generation."""

    node_id: str
    generation: int
    run: tuple[Lease, ...]
    stop: tuple[StopOrder, ...]


def observe(leases: Iterable[Lease], node_id: str, sightings: Iterable[Sighting]) -> Observed:
    """Merges what a node reports. A lease that is missing from it is left as it is: the report may
    be older than the lease. Late and doubled reports change nothing, for phases only go up."""
    by_id = {sighting.lease_id: sighting for sighting in sightings}
    changed, exited = [], []
    for lease in leases:
        sighting = by_id.get(lease.lease_id)
        if sighting is None or lease.node_id != node_id:
            continue
        merged = _merged(lease, sighting)
        if merged == lease:
            continue
        changed.append(merged)
        if merged.state is not lease.state:
            exited.append(merged)
    return Observed(tuple(changed), tuple(exited))


def _merged(lease: Lease, sighting: Sighting) -> Lease:
    merged = replace(
        lease,
        phase=max(lease.phase, sighting.phase),
        exit=lease.exit or sighting.exit,
        gone=lease.gone or sighting.gone,
    )
    if merged.phase >= Phase.EXITED:
        return to_closing(merged, Cause.EXITED, 0)
    return merged


def to_closing(lease: Lease, cause: Cause, notice_ms: int) -> Lease:
    """The lease should end. Not repeatable with effect: the first cause and notice stay."""
    if lease.state is not State.ACTIVE:
        return lease
    return replace(lease, state=State.CLOSING, cause=cause, notice_ms=notice_ms)


def wait_span_ms(wait_ms: int, terms: Terms) -> int:
    """How long after the receipt of ``Close``'s answer nothing can run any more, rounded up.

    Source: docs/lease-protocol.md, section 5: ``wait * (1 + rho) + rho * G + kappa + sigma``.
    """
    assert wait_ms >= 0, wait_ms
    drift_ms = -(-(wait_ms + terms.grant_ms) * terms.drift_ppm // 1_000_000)
    return wait_ms + drift_ms + terms.kill_ms + terms.step_ms


def close_answered(lease: Lease, wait_ms: int, now_ms: int, terms: Terms) -> Lease:
    """Billing has fenced the lease; from now on only time or *gone* is missing.

    Answers to repeated calls agree; the earliest end is kept, each of them is safe.
    """
    if lease.state is not State.CLOSING:
        return lease
    at_ms = now_ms + wait_span_ms(wait_ms, terms)
    if lease.closable_at_ms is not None:
        at_ms = min(at_ms, lease.closable_at_ms)
    return replace(lease, closable_at_ms=at_ms)


def may_close(lease: Lease, now_ms: int) -> bool:
    """Is it certain that the lease does not run and never will?

    ``gone`` alone does not do: it must follow ``Close``'s answer, or a grant might still come.
    """
    if lease.state is not State.CLOSING or lease.closable_at_ms is None:
        return False
    return lease.gone or now_ms >= lease.closable_at_ms


def closed(lease: Lease, now_ms: int) -> Lease:
    """The task may be placed again, as ``attempt + 1`` under a new lease."""
    assert may_close(lease, now_ms), lease
    return replace(lease, state=State.CLOSED)


def desired_set(leases: Sequence[Lease], node_id: str, generation: int) -> DesiredSet:
    """What the node should run and stop; read under one snapshot with ``generation``."""
    mine = sorted((x for x in leases if x.node_id == node_id), key=lambda x: x.lease_id)
    return DesiredSet(
        node_id,
        generation,
        run=tuple(x for x in mine if x.state is State.ACTIVE),
        stop=tuple(StopOrder(x.lease_id, x.notice_ms) for x in mine if x.state is State.CLOSING),
    )


def connected(last_seen_ms: int, now_ms: int, terms: Terms) -> bool:
    """May anything new be placed on a node that was last heard of then?"""
    return now_ms - last_seen_ms < terms.disconnected_ms


def lost(lease: Lease, last_seen_ms: int, now_ms: int) -> bool:
    """Has its node been silent for longer than the job bears? A new leader counts from when it
    took over."""
    return lease.state is State.ACTIVE and now_ms - last_seen_ms >= lease.lost_after_ms


def device_free(
    device: str, node_id: str, leases: Iterable[Lease], *, connected: bool, dirty: bool
) -> bool:
    """May a device be given to another task? (The agent's own record is what counts there.)"""
    return (
        connected
        and not dirty
        and not any(
            x.node_id == node_id and x.state is not State.CLOSED and device in x.devices
            for x in leases
        )
    )
