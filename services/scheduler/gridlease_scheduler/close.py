"""Ends leases for good: CLOSING, then billing's Close, then gone or the wait, then CLOSED.

Of a gang whose member ended otherwise than done, the others are told to end first.

Close is asked again and again until it is answered; nothing else prolongs a CLOSING lease. What
billing answered is kept in memory only: a leader that takes over asks again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from gridlease_kernel.faults import Fault, Unreachable

from .domain.chips import Catalogue
from .domain.ends import Member, Outcome, Patience, ended, follow, notice_missed_ms, task_end
from .domain.job import Job, JobState, Reason
from .domain.lease import (
    Lease,
    State,
    Terms,
    close_answered,
    closed,
    may_close,
    to_closing,
)
from .domain.order.decay import used_lately
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

    def __init__(
        self,
        store: Store,
        billing: Billing,
        clock: MonotonicClock,
        terms: Terms,
        catalogue: Catalogue,
    ) -> None:
        self._store = store
        self._billing = billing
        self._clock = clock
        self._terms = terms
        self._catalogue = catalogue
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
            split = await tx.leases.split() if closing else []
        for job in split:
            await self._follow(job, epoch)
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
                    if not await self._credited(held):
                        waits.append(self._pause_ms)
                        continue
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

    async def _follow(self, job_name: str, epoch: int) -> None:
        """One of a gang ended otherwise than done: those that still run are told to end."""
        async with self._store.writing(epoch) as tx:
            held = await tx.leases.unclosed_of_job(job_name)
            await tx.nodes.lock(sorted({x.lease.node_id for x in held}))
            job = await tx.jobs.get(job_name, lock=True)
            assert job is not None, job_name
            members = await tx.leases.of_attempt(job_name, job.attempt)
            told = follow([_member(x) for x in members if x.lease.state is not State.ACTIVE])
            active = [x.lease for x in members if x.lease.state is State.ACTIVE]
            if told is None or not active:
                return
            cause, reason = told
            for lease in active:
                await tx.leases.stop(to_closing(lease, cause, job.notice_ms), reason)
            await tx.nodes.bump({lease.node_id for lease in active})
            await tx.jobs.move(job.name, job.state, reason)
            facts = {"attempt": str(job.attempt), "tasks": str(len(active))}
            await tx.events.tell(Event("job.gang_ending", job.name, job.project, reason, facts))

    async def _credited(self, held: HeldLease) -> bool:
        """Billing knows of a warning that was cut short, before the lease is CLOSED; again is
        harmless."""
        missing_ms = notice_missed_ms(held.lease, held.given_ms)
        if not missing_ms:
            return True
        try:
            await self._billing.close([held.lease], {held.lease.lease_id: missing_ms})
        except Unreachable as fault:
            _LOG.warning("billing does not hear of a credit: %s", fault.message)
            self._pause_ms = min(_LAST_PAUSE_MS, self._pause_ms * 2)
            return False
        return True

    async def _finish(self, held: HeldLease, now_ms: int, epoch: int) -> None:
        """CLOSED; with the last of its attempt the job is placed again, or has ended."""
        async with self._store.writing(epoch) as tx:
            await tx.nodes.lock([held.lease.node_id])
            job = await tx.jobs.get(held.job, lock=True)
            assert job is not None, held.job
            members = await tx.leases.of_attempt(held.job, held.lease.attempt)
            current = next(x for x in members if x.lease.lease_id == held.lease.lease_id)
            others = [x for x in members if x is not current and x.lease.state is not State.CLOSED]
            if current.lease.state is not State.CLOSING or _awaits_others(current, others):
                return
            lease = closed(self._known(current.lease), now_ms)
            await tx.leases.close(lease)
            await tx.nodes.bump([lease.node_id])
            end = task_end(_member(current))
            await tx.jobs.end_task(job.name, current.index, end)
            await tx.planning.spent(job.tenant, _used(current, self._catalogue))
            if (owed := _credit(current)) is not None:
                await tx.events.tell(Event("job.reclaim_credit", job.name, job.project, *owed))
            if not others:
                ended_ = ended(job.state, [_member(x) for x in members], _patience(job))
                await tx.jobs.finish(job.name, lease.attempt, ended_)
                await tx.events.tell(_told(current, ended_, job.project))
            elif len(members) > 1:
                facts = {"lease": lease.lease_id, "task": str(current.index)}
                await tx.events.tell(
                    Event("job.task_ended", job.name, job.project, end.reason, facts)
                )
        self._closable_at_ms.pop(held.lease.lease_id, None)


def _member(held: HeldLease) -> Member:
    return Member(held.index, held.lease, held.stop, held.exit_message)


def _awaits_others(held: HeldLease, others: Sequence[HeldLease]) -> bool:
    """Must members that still run be told to end before this lease is CLOSED?"""
    running = any(x.lease.state is State.ACTIVE for x in others)
    return running and follow([_member(held)]) is not None


def _patience(job: Job) -> Patience:
    return Patience(job.max_attempts, job.evicted, job.extent.requeue)


def _used(held: HeldLease, catalogue: Catalogue) -> int:
    """What the lease adds to its tenant's recent use."""
    chip = catalogue.find(held.allocation.chip)
    throughput = chip.throughput if chip else 0
    return used_lately(held.allocation.quantity_milli, throughput, held.ran_ms)


def _credit(held: HeldLease) -> tuple[Reason, dict[str, str]] | None:
    """What is owed for a warning that was promised and not given whole."""
    missing_ms = notice_missed_ms(held.lease, held.given_ms)
    if not missing_ms:
        return None
    promised_ms = held.lease.notice_ms
    reason = Reason(
        "NOTICE_CUT_SHORT",
        f"It was promised {promised_ms} ms of warning and ended {missing_ms} ms early.",
        "Credit for the missing time follows by itself.",
        {"notice_ms": str(promised_ms), "missing_ms": str(missing_ms)},
    )
    facts = {
        "lease": held.lease.lease_id,
        "missing_ms": str(missing_ms),
        "amount_nano": str(held.rate_nano_per_hour * missing_ms // 3_600_000),
    }
    return reason, facts


def _told(held: HeldLease, end: Outcome, project: str) -> Event:
    facts = {"lease": held.lease.lease_id, "attempt": str(held.lease.attempt)}
    reason = end.reason if end.reason.code else Reason("EXITED")
    return Event(_EVENTS[end.state], held.job, project, reason, facts)
