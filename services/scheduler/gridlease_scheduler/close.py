"""Ends leases for good: CLOSING, then billing's Close, then gone or the wait, then CLOSED.

Close is asked again and again until it is answered; nothing else prolongs a CLOSING lease. What
billing answered is kept in memory only: a leader that takes over asks again.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from gridlease_kernel.faults import Fault, Unreachable

from .domain.job import JobState, Outcome, Reason, outcome
from .domain.lease import Lease, State, Terms, close_answered, closed, may_close
from .ports import Billing, Event, HeldLease, MonotonicClock, Store

_LOG = logging.getLogger(__name__)
_BATCH = 256
_FIRST_PAUSE_MS = 200
_LAST_PAUSE_MS = 5_000
_EVENTS = {
    JobState.PENDING: "job.requeued",
    JobState.SUCCEEDED: "job.succeeded",
    JobState.FAILED: "job.failed",
    JobState.CANCELLED: "job.cancelled",
}


class Close:
    """The use case; one for each term of leadership."""

    def __init__(self, store: Store, billing: Billing, clock: MonotonicClock, terms: Terms) -> None:
        self._store = store
        self._billing = billing
        self._clock = clock
        self._terms = terms
        self._closable_at_ms: dict[str, int] = {}
        self._pause_ms = _FIRST_PAUSE_MS

    async def __call__(self, epoch: int) -> int | None:
        """Do what can be done now; milliseconds until something more can, None = nothing waits.

        Raises:
            Conflict: LEADER_DEPOSED.
            Unreachable: the database is away.
        """
        async with self._store.reading() as tx:
            closing = await tx.leases.closing()
        ids = {held.lease.lease_id for held in closing}
        self._closable_at_ms = {x: at for x, at in self._closable_at_ms.items() if x in ids}
        heard = await self._ask([held.lease for held in closing])
        now_ms = self._clock.now_ms()
        waits: list[int] = [] if heard else [self._pause_ms]
        bugs: list[Exception] = []
        for held in closing:
            lease = self._known(held.lease)
            if may_close(lease, now_ms):
                try:
                    await self._finish(held, now_ms, epoch)
                except Fault:
                    raise
                except Exception as bug:  # noqa: BLE001 - raised once the others had their turn
                    bugs.append(bug)
            elif lease.closable_at_ms is not None:
                waits.append(max(1, lease.closable_at_ms - now_ms))
        if bugs:
            raise ExceptionGroup("some leases could not be closed", bugs)
        return min(waits, default=None)

    def _known(self, lease: Lease) -> Lease:
        return replace(lease, closable_at_ms=self._closable_at_ms.get(lease.lease_id))

    async def _ask(self, leases: list[Lease]) -> bool:
        """Ask Close for those not answered yet; whether billing answered for all."""
        open_ = [lease for lease in leases if lease.lease_id not in self._closable_at_ms]
        for start in range(0, len(open_), _BATCH):
            batch = open_[start : start + _BATCH]
            try:
                waits_ms = await self._billing.close(batch)
            except Unreachable as fault:
                _LOG.warning("billing does not answer Close: %s", fault.message)
                self._pause_ms = min(_LAST_PAUSE_MS, self._pause_ms * 2)
                return False
            now_ms = self._clock.now_ms()  # the wait counts from the receipt
            for lease in batch:
                if lease.lease_id in waits_ms:
                    answered = close_answered(lease, waits_ms[lease.lease_id], now_ms, self._terms)
                    assert answered.closable_at_ms is not None
                    self._closable_at_ms[lease.lease_id] = answered.closable_at_ms
        self._pause_ms = _FIRST_PAUSE_MS
        return all(lease.lease_id in self._closable_at_ms for lease in open_)

    async def _finish(self, held: HeldLease, now_ms: int, epoch: int) -> None:
        """CLOSED: the task is placed again, or its job has ended."""
        async with self._store.writing(epoch) as tx:
            await tx.nodes.lock([held.lease.node_id])
            current = await tx.leases.get(held.lease.lease_id)
            assert current is not None, held
            if current.lease.state is not State.CLOSING:
                return
            job = await tx.jobs.get(held.job, lock=True)
            assert job is not None, held.job
            lease = closed(self._known(current.lease), now_ms)
            end = outcome(job.state, lease, job.max_attempts, current.exit_message)
            await tx.leases.close(lease)
            await tx.jobs.finish(held.job, held.index, end, lease)
            await tx.nodes.bump([lease.node_id])
            await tx.events.tell(_told(held, end, job.project))
        self._closable_at_ms.pop(held.lease.lease_id, None)


def _told(held: HeldLease, end: Outcome, project: str) -> Event:
    facts = {"lease": held.lease.lease_id, "attempt": str(held.lease.attempt)}
    reason = end.reason if end.reason.code else Reason("EXITED")
    return Event(_EVENTS[end.state], held.job, project, reason, facts)
