"""One pass of the leader: snapshot, plan, ask billing, write what still holds.

Order of durability: the hold is acknowledged by billing, then the lease is written (in a
transaction that checks the epoch and everything else again), then the node is hinted at. A hold
whose lease was not written is given back at once; if that fails it ends by itself.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from gridlease_kernel.faults import Conflict, Unreachable
from gridlease_kernel.ids import Ids

from .domain.chips import Catalogue
from .domain.job import Reason
from .domain.lease import Cause, Lease, State
from .domain.plan import Placed, Snapshot, Waiting, plan, still_valid
from .ports import Authorized, Billing, Event, MonotonicClock, NewLease, Order, Refused, Store

_LOG = logging.getLogger(__name__)
_PENDING_LIMIT = 2_000
_BATCH = 64
_ASKING = 16
_FIRST_PAUSE_MS = 1_000
_LAST_PAUSE_MS = 30_000


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did. ``again_ms``: when a task that billing refused is due once more."""

    placed: int
    stale: int
    again_ms: int | None


@dataclass(slots=True)
class Pauses:
    """How long each task rests after billing has refused it: doubling, up to a bound."""

    until_ms: dict[str, int] = field(default_factory=dict)
    last_ms: dict[str, int] = field(default_factory=dict)

    def rest(self, job: str, now_ms: int) -> None:
        """Refused once more."""
        self.last_ms[job] = min(_LAST_PAUSE_MS, self.last_ms.get(job, _FIRST_PAUSE_MS // 2) * 2)
        self.until_ms[job] = now_ms + self.last_ms[job]

    def resting(self, job: str, now_ms: int) -> bool:
        """Is it still too early?"""
        return self.until_ms.get(job, now_ms) > now_ms

    def keep(self, jobs: set[str]) -> None:
        """Forget all others."""
        self.until_ms = {job: at for job, at in self.until_ms.items() if job in jobs}
        self.last_ms = {job: span for job, span in self.last_ms.items() if job in jobs}


class Cycle:
    """The use case; one for each term of leadership."""

    def __init__(
        self,
        store: Store,
        billing: Billing,
        catalogue: Catalogue,
        ids: Ids,
        clock: MonotonicClock,
    ) -> None:
        self._store = store
        self._billing = billing
        self._catalogue = catalogue
        self._ids = ids
        self._clock = clock
        self._pauses = Pauses()

    async def __call__(self, epoch: int) -> Pass:
        """Decide about all that waits.

        Raises:
            Conflict: LEADER_DEPOSED.
            Unreachable: the database is away.
        """
        now_ms = self._clock.now_ms()
        async with self._store.reading() as tx:
            pending = await tx.jobs.pending(_PENDING_LIMIT)
            nodes = await tx.nodes.views() if pending else []
        self._pauses.keep({task.job for task, _ in pending})
        due = [x for x in pending if not self._pauses.resting(x[0].job, now_ms)]
        snapshot = Snapshot(tuple(nodes), tuple(task for task, _ in due), self._catalogue)
        decisions = plan(snapshot)
        standing = {task.job: reason for task, reason in due}
        reasons = {x.task.job: x.reason for x in decisions if isinstance(x, Waiting)}
        orders = [Order(self._ids.new("ls"), x) for x in decisions if isinstance(x, Placed)]
        leases, refusals = await self._ask(orders)
        written, stale = await self._write(leases, epoch)
        await self._explain(standing, reasons | refusals, epoch)
        waits = [at - now_ms for at in self._pauses.until_ms.values()]
        return Pass(written, stale, max(1, min(waits)) if waits else None)

    async def _ask(self, orders: list[Order]) -> tuple[list[NewLease], dict[str, Reason]]:
        """Billing's word on each placement: leases to write, and reasons why not."""
        gate = asyncio.Semaphore(_ASKING)

        async def one(order: Order) -> Authorized | Refused | Unreachable:
            async with gate:
                try:
                    return await self._billing.authorize(order)
                except Unreachable as fault:
                    return fault

        answers = await asyncio.gather(*(one(order) for order in orders))
        leases: list[NewLease] = []
        reasons: dict[str, Reason] = {}
        unheard: list[Order] = []
        for order, answer in zip(orders, answers, strict=True):
            job = order.placed.task.job
            match answer:
                case Authorized(rate):
                    leases.append(NewLease(order.lease_id, order.placed, rate))
                    self._pauses.last_ms.pop(job, None)
                    continue
                case Refused(code, hint):
                    reasons[job] = _refusal(order, code, hint)
                case Unreachable():
                    reasons[job] = _UNHEARD
                    unheard.append(order)
            self._pauses.rest(job, self._clock.now_ms())
        await self._give_back([_unwritten(x.lease_id, x.placed) for x in unheard])
        return leases, reasons

    async def _write(self, leases: list[NewLease], epoch: int) -> tuple[int, int]:
        """Write those that still hold; how many, and how many were stale."""
        written = stale = 0
        for start in range(0, len(leases), _BATCH):
            batch = leases[start : start + _BATCH]
            try:
                valid = await self._write_batch(batch, epoch)
            except Conflict:
                await self._give_back([_unwritten(x.lease_id, x.placed) for x in leases[start:]])
                raise
            kept = {new.lease_id for new in valid}
            left = [_unwritten(x.lease_id, x.placed) for x in batch if x.lease_id not in kept]
            await self._give_back(left)
            written, stale = written + len(valid), stale + len(left)
        return written, stale

    async def _write_batch(self, batch: list[NewLease], epoch: int) -> list[NewLease]:
        node_ids = sorted({new.placed.node_id for new in batch})
        async with self._store.writing(epoch) as tx:
            await tx.nodes.lock(node_ids)
            nodes = {node.node_id: node for node in await tx.nodes.views(node_ids)}
            pending = await tx.jobs.lock_pending([new.placed.task.job for new in batch])
            valid = set(map(id, still_valid((x.placed for x in batch), nodes, pending)))
            leases = [new for new in batch if id(new.placed) in valid]
            await tx.jobs.place(leases)
            await tx.leases.insert(leases, epoch)
            await tx.nodes.bump({new.placed.node_id for new in leases})
            for new in leases:
                await tx.events.tell(_placed(new))
        return leases

    async def _explain(
        self, standing: dict[str, Reason], reasons: dict[str, Reason], epoch: int
    ) -> None:
        """Write the reasons whose words have changed; figures alone are not worth a revision."""
        changed = [
            (job, reason)
            for job, reason in reasons.items()
            if (reason.code, reason.message) != (standing[job].code, standing[job].message)
        ]
        if changed:
            async with self._store.writing(epoch) as tx:
                await tx.jobs.explain(sorted(changed, key=lambda x: x[0]))

    async def _give_back(self, leases: list[Lease]) -> None:
        """End holds that no lease will use; if billing does not hear it, they end by themselves."""
        if not leases:
            return
        try:
            await self._billing.close(leases)
        except Unreachable:
            _LOG.info("holds are left to end by themselves", extra={"holds": len(leases)})


_UNHEARD = Reason(
    "BILLING_UNREACHABLE",
    "There is a place for it, but billing gives no answer.",
    "It is placed when billing answers again; nothing is to be done about the job.",
    {"by": "billing"},
)


def _refusal(order: Order, code: str, hint: str) -> Reason:
    held = order.placed.allocation
    message = f"There is a place for it ({held.chip}), but billing refuses to hold the money."
    evidence = {"by": "billing", "chip": held.chip, "quantity_milli": str(held.quantity_milli)}
    return Reason(code, message, hint, evidence)


def _unwritten(lease_id: str, placed: Placed) -> Lease:
    """A lease that never was, as far as billing needs it to end its hold."""
    return Lease(
        lease_id,
        placed.task.job,
        placed.task.attempt,
        placed.node_id,
        (),
        state=State.CLOSING,
        cause=Cause.DRAINED,
    )


def _placed(new: NewLease) -> Event:
    task, held = new.placed.task, new.placed.allocation
    facts = {
        "lease": new.lease_id,
        "node": new.placed.node_id,
        "chip": held.chip,
        "attempt": str(task.attempt),
    }
    return Event("job.placed", task.job, task.project, new.placed.reason, facts)
