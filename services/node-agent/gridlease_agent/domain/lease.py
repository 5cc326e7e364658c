"""A lease on its node: may it start, how long may it run, and what is to be done next?

``KNOWN -> STARTING -> EXITED -> CLEAN -> (deleted)``, nothing backwards. All functions are pure:
a ``Spool`` (records in ``spool``) goes in, a ``Spool`` comes out. The shell writes what changed
to disk, commits, and only then uses it: sends, executes, hands a deadline to a shim.
``now`` is one reading of the host's clocks (boot id, boottime and raw, ns).

    new_spool(spool_id, devices) -> Spool             every device dirty
    recover(spool, now, shims, exits) -> Spool        at the agent's start, before anything else
    apply_desired_set(spool, now, generation, run, stop) -> Spool    an older generation: unchanged
    grant_answer(spool, sent, received, answer) -> Spool    sent: clocks when the request was SENT
    may_start(spool, lease_id, now, busy) -> bool     re-check just before exec
    started(spool, lease_id) -> Spool                 STARTING and dirty: on disk BEFORE exec
    observe_ready(spool, lease_id, ready_ns), observe_exit(spool, lease_id, record) -> Spool
    scrubbed(spool, devices, proofs) -> Spool         scrub verified
    receipts_told(spool, lease_ids) -> Spool          the scheduler has heard what was wiped
    abandoned(spool, lease_id, reason) -> Spool       it can never be prepared
    ticked(spool, now, alive) -> Spool                counters up to now; start_by passed
    settle_report(spool), sync_report(spool)          what is on disk, nothing else
    deletable(spool, row), deleted(spool, lease_id)

``step.next_steps`` says what to do next. ``Settle`` and ``SyncNode`` speak only of what is
committed.

Source: docs/lease-protocol.md, sections 2, 4, 5 and 7.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass, replace

from gridlease_agent.domain.spool import (
    RUN_METER,
    SETTLED,
    Clocks,
    Counters,
    Deadline,
    Exit,
    ExitRecord,
    Phase,
    Row,
    Shim,
    Spool,
    StopOrder,
    Wanted,
    Wiped,
)

_NEVER_STARTED = -1
_FASTER_NS = 1_000_000_000  # by which one answer may be faster than another
_NO_PROOFS: Mapping[str, tuple[Wiped, ...]] = {}


@dataclass(frozen=True, slots=True)
class Answer:
    """One lease of ``Settle``'s answer. ``valid_for_ms``: from when the request was sent."""

    lease_id: str
    valid_for_ms: int
    last: bool
    reason: str
    segment: int
    final_acknowledged: bool


@dataclass(frozen=True, slots=True)
class Report:
    """One lease of ``Settle``. ``final``: these counters are the last."""

    lease_id: str
    phase: Phase
    final: bool
    counters: Counters


@dataclass(frozen=True, slots=True)
class Sighting:
    """One lease of ``SyncNode``. ``wiped``: from CLEAN on."""

    lease_id: str
    phase: Phase
    exit: Exit | None
    gone: bool
    wiped: tuple[Wiped, ...] = ()


def new_spool(spool_id: str, devices: Iterable[str]) -> Spool:
    """A spool that remembers nothing trusts nothing: every device is dirty."""
    return Spool(spool_id, dirty=frozenset(devices))


def apply_desired_set(
    spool: Spool,
    now: Clocks,
    generation: int,
    run: Iterable[Wanted],
    stop: Iterable[StopOrder],
) -> Spool:
    """Follows the newest desired set; an older one is dropped [T 9].

    A lease to stop that is not on record gets a row that has exited, so that billing hears of its
    end. One that is no longer named at all is over for the scheduler: it stops at once.
    """
    if generation < spool.generation:
        return spool
    wanted = {lease.lease_id: lease for lease in run}
    stops = {order.lease_id: order for order in stop}
    rows = dict(spool.rows)
    for lease_id in sorted(wanted.keys() | stops.keys()):
        if lease_id not in rows:
            lease = wanted.get(lease_id)
            devices, start_by_ms = (lease.devices, lease.start_by_ms) if lease else ((), 0)
            rows[lease_id] = Row(lease_id, devices, now.boot_id, now.boottime_ns, start_by_ms)
        if lease_id in stops:
            rows[lease_id] = _stopped(rows[lease_id], now, stops[lease_id])
    for lease_id, row in rows.items():
        if lease_id not in wanted and lease_id not in stops:
            rows[lease_id] = _stopped(row, now, StopOrder(lease_id, 0))
    named = frozenset(wanted) | frozenset(stops)
    return _cleaned(replace(spool, generation=generation, named=named, rows=rows))


def _stopped(row: Row, now: Clocks, order: StopOrder) -> Row:
    if row.phase is Phase.KNOWN:
        return _never_started(row, "STOPPED")
    if row.phase is not Phase.STARTING:
        return row
    at_ns = now.boottime_ns + order.notice_ms * 1_000_000
    if row.stop_at_ns is not None:
        return replace(row, stop_at_ns=min(at_ns, row.stop_at_ns))
    return replace(row, stop_at_ns=at_ns, stop_reason=order.reason, stop_message=order.message)


def _never_started(row: Row, reason: str) -> Row:
    assert row.phase is Phase.KNOWN, row
    return replace(row, phase=Phase.EXITED, exit=Exit(_NEVER_STARTED, reason))


def grant_answer(spool: Spool, sent: Clocks, received: Clocks, answer: Answer) -> Spool:
    """What billing said about one lease. The deadline counts from when the request was sent, and
    the latest of all answers holds [T 1]: an answer only ever adds."""
    row = spool.rows.get(answer.lease_id)
    if row is None or sent.boot_id != received.boot_id:
        return spool
    if row.phase >= Phase.EXITED:
        acknowledged = row.final_acknowledged or answer.final_acknowledged
        return spool.with_rows(replace(row, final_acknowledged=acknowledged))
    if answer.valid_for_ms > 0:
        row = _extended(row, sent, received, answer)
    if answer.last:
        row = replace(row, last=True, reason=answer.reason)
        if row.phase is Phase.KNOWN:
            row = _never_started(row, answer.reason or "GRANT_REFUSED")
    return _cleaned(spool.with_rows(row))


def _extended(row: Row, sent: Clocks, received: Clocks, answer: Answer) -> Row:
    span_ns = answer.valid_for_ms * 1_000_000
    end = Deadline(sent.boot_id, sent.boottime_ns + span_ns, sent.raw_ns + span_ns)
    # The same grant told again comes out later by what this answer was faster: no new span.
    told_again_ns = min(row.span_ms * 1_000_000 // 4, _FASTER_NS)
    if row.deadline is None or end.boottime_ns > row.deadline.boottime_ns + told_again_ns:
        row = replace(row, span_ms=answer.valid_for_ms, deadline=_later(row.deadline, end))
    if row.ready_ns is None or not row.segments:
        return replace(row, segments=((answer.segment, 0),))
    if answer.segment > row.segments[-1][0]:
        entry = (answer.segment, received.boottime_ns)
        return replace(row, segments=(*row.segments, entry))
    return row


def _later(old: Deadline | None, new: Deadline) -> Deadline:
    if old is None or old.boot_id != new.boot_id:
        return new
    return Deadline(new.boot_id, max(old.boottime_ns, new.boottime_ns), max(old.raw_ns, new.raw_ns))


def abandoned(spool: Spool, lease_id: str, reason: str) -> Spool:
    """The lease can never be prepared: it ends without having started."""
    row = spool.rows.get(lease_id)
    if row is None or row.phase is not Phase.KNOWN:
        return spool
    return _cleaned(spool.with_rows(_never_started(row, reason)))


def may_start(spool: Spool, lease_id: str, now: Clocks, busy: Collection[str]) -> bool:
    """Never started, still wanted, granted, and every device scrubbed on record and unused.

    ``busy``: devices under any live sandbox, also one that no row knows.
    """
    row = spool.rows.get(lease_id)
    return (
        row is not None
        and row.phase is Phase.KNOWN
        and lease_id in spool.named
        and not row.last
        and row.deadline is not None
        and row.deadline.left_ns(now) > 0
        and not any(device in spool.dirty or device in busy for device in row.devices)
    )


def started(spool: Spool, lease_id: str) -> Spool:
    """What must be on disk before exec: the phase and the dirty devices, together [T 13, T 17]."""
    row = spool.rows[lease_id]
    assert row.phase is Phase.KNOWN, row
    spool = replace(spool, dirty=spool.dirty | frozenset(row.devices))
    return spool.with_rows(replace(row, phase=Phase.STARTING))


def observe_ready(spool: Spool, lease_id: str, ready_ns: int) -> Spool:
    """The workload has begun: the instant (boottime) from which every counter is computed."""
    row = spool.rows[lease_id]
    if row.phase is not Phase.STARTING or row.ready_ns is not None:
        return spool
    return spool.with_rows(replace(row, ready_ns=ready_ns))


def observe_exit(spool: Spool, lease_id: str, record: ExitRecord | None) -> Spool:
    """The sandbox has ended. Without an exit file (None) the counters on disk are the last."""
    return _cleaned(spool.with_rows(_exited(spool.rows[lease_id], record, "START_LOST")))


def _exited(row: Row, record: ExitRecord | None, reason: str) -> Row:
    if row.phase >= Phase.EXITED:
        return row
    if record is None:
        ran_ns = sum(ns for (_, meter), ns in row.counters.items() if meter == RUN_METER)
        return replace(row, phase=Phase.EXITED, exit=Exit(_NEVER_STARTED, reason, ran_ns))
    ready_ns = record.ready_ns if row.ready_ns is None else row.ready_ns
    row = replace(row, ready_ns=ready_ns)
    ran_ns = 0 if ready_ns is None else max(0, record.ended_ns - ready_ns)
    return replace(
        row,
        phase=Phase.EXITED,
        exit=Exit(record.code, record.reason, ran_ns),
        counters=_counted(row, record.ended_ns),
    )


def _counted(row: Row, until_ns: int) -> Counters:
    """Cumulative run time by segment, computed from the start on record, not accumulated [T 16]."""
    if row.ready_ns is None or not row.segments:  # adopted without a grant of its own
        return row.counters
    counters = dict(row.counters)
    ends = [begins_ns for _, begins_ns in row.segments[1:]] + [until_ns]
    for (number, begins_ns), ends_ns in zip(row.segments, ends, strict=True):
        ns = min(ends_ns, until_ns) - max(begins_ns, row.ready_ns)
        key = (number, RUN_METER)
        counters[key] = max(counters.get(key, 0), ns)
    return counters


def ticked(spool: Spool, now: Clocks, alive: Container[str]) -> Spool:
    """What time alone does: running counters come up to now, and what did not start by its time
    never will. Written every few seconds and before each ``Settle``. ``alive``: leases whose task
    was seen alive after ``now`` was read; a task that is over waits for its exit record."""
    rows = [_ticked(row, now, alive) for row in spool.rows.values() if row.boot_id == now.boot_id]
    return _cleaned(spool.with_rows(*rows))


def _ticked(row: Row, now: Clocks, alive: Container[str]) -> Row:
    if row.phase is Phase.STARTING and row.ready_ns is not None and row.lease_id in alive:
        return replace(row, counters=_counted(row, now.boottime_ns))
    waited_ns = now.boottime_ns - row.known_ns
    if row.phase is Phase.KNOWN and waited_ns >= row.start_by_ms * 1_000_000:
        return _never_started(row, "START_BY_PASSED")
    return row


def scrubbed(
    spool: Spool, devices: Iterable[str], proofs: Mapping[str, tuple[Wiped, ...]] = _NO_PROOFS
) -> Spool:
    """A scrub was verified; ``proofs``: how, by device, for the receipts of whose it was."""
    known = _noted(spool, proofs) if proofs else spool
    return _cleaned(replace(known, dirty=spool.dirty - frozenset(devices)))


def _noted(spool: Spool, proofs: Mapping[str, tuple[Wiped, ...]]) -> Spool:
    rows = []
    for row in spool.rows.values():
        if row.phase is Phase.EXITED:
            news = [proof for device in row.devices for proof in proofs.get(device, ())]
            before = [x for x in row.wiped if x.what not in {proof.what for proof in news}]
            rows += [replace(row, wiped=(*before, *news))] if news else []
    return spool.with_rows(*rows)


def quarantined(spool: Spool, devices: Iterable[str]) -> Spool:
    """Devices that nobody holds are to be looked at, and wiped, before anybody has them."""
    fresh = frozenset(devices) - spool.dirty
    return replace(spool, dirty=spool.dirty | fresh) if fresh else spool


def receipts_told(spool: Spool, lease_ids: Iterable[str]) -> Spool:
    """The scheduler has heard what was wiped for these leases."""
    rows = [spool.rows[one] for one in lease_ids if one in spool.rows]
    fresh = [replace(row, receipt_told=True) for row in rows if not row.receipt_told]
    return spool.with_rows(*fresh)


def _cleaned(spool: Spool) -> Spool:
    """EXITED rows whose devices are all clean become CLEAN."""
    return spool.with_rows(
        *(
            replace(row, phase=Phase.CLEAN)
            for row in spool.rows.values()
            if row.phase is Phase.EXITED and not spool.dirty.intersection(row.devices)
        )
    )


def recover(
    spool: Spool, now: Clocks, shims: Mapping[str, Shim], exits: Mapping[str, ExitRecord]
) -> Spool:
    """The agent starts: what is on disk, against what is alive. Section 7 of the protocol."""
    rows = [_recovered(row, now, shims, exits) for row in spool.rows.values()]
    held = frozenset(device for shim in shims.values() for device in shim.devices)
    return _cleaned(replace(spool.with_rows(*rows), dirty=spool.dirty | held))


def _recovered(
    row: Row, now: Clocks, shims: Mapping[str, Shim], exits: Mapping[str, ExitRecord]
) -> Row:
    if row.phase >= Phase.EXITED:
        return row
    shim, record = shims.get(row.lease_id), exits.get(row.lease_id)
    if record is not None and record.boot_id != row.boot_id:
        record = None
    if record is not None and shim is None:
        return _exited(row, record, "")
    if row.boot_id != now.boot_id:
        if row.phase is Phase.STARTING:
            return _exited(row, None, "NODE_REBOOT")
        return replace(row, boot_id=now.boot_id, known_ns=now.boottime_ns, deadline=None)
    if shim is not None:
        ready_ns = shim.ready_ns if row.ready_ns is None else row.ready_ns
        return replace(row, phase=Phase.STARTING, deadline=shim.deadline, ready_ns=ready_ns)
    return _exited(row, None, "START_LOST") if row.phase is Phase.STARTING else row


def deletable(spool: Spool, row: Row) -> bool:
    """Gone, absent from the newest desired set that this node has seen [T 14], and its wipe
    receipt told."""
    told = row.receipt_told or not row.wiped
    return row.gone and told and row.lease_id not in spool.named


def deleted(spool: Spool, lease_id: str) -> Spool:
    assert deletable(spool, spool.rows[lease_id]), lease_id
    return replace(spool, rows={k: v for k, v in spool.rows.items() if k != lease_id})


def settle_report(spool: Spool) -> tuple[Report, ...]:
    """All leases that billing has yet to say its last word about, as they are on disk."""
    return tuple(
        Report(row.lease_id, row.phase, row.phase >= Phase.EXITED, _told(row))
        for row in sorted(spool.rows.values(), key=lambda row: row.lease_id)
        if not row.final_acknowledged
    )


def _told(row: Row) -> Counters:
    return {key: count for key, count in row.counters.items() if key[0] != SETTLED}


def sync_report(spool: Spool) -> tuple[Sighting, ...]:
    """All leases, as they are on disk, for the scheduler."""
    return tuple(
        Sighting(
            row.lease_id,
            row.phase,
            row.exit,
            row.gone,
            row.wiped if row.phase is Phase.CLEAN else (),
        )
        for row in sorted(spool.rows.values(), key=lambda row: row.lease_id)
    )
