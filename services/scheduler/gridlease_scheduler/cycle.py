"""One pass of the leader: what changed, a plan, billing's word, and the write of what still holds.

Order of durability: the hold is acknowledged by billing, then all leases of a job are written (in
one transaction that checks the epoch and everything else again), then the nodes are hinted at. A
hold whose leases were not written is given back at once; if that fails it ends by itself.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from gridlease_kernel.faults import Conflict, Unreachable
from gridlease_kernel.ids import Ids

from .domain.chips import Catalogue
from .domain.eviction.preempt import Eviction
from .domain.job import Reason
from .domain.lease import Cause, Lease, State
from .domain.plan import Decision, Placed, Waiting, plan, still_valid
from .domain.ruling import Ruling, rule
from .domain.slow.advice import NO_LOOKUP, Lookup
from .domain.snapshot import Offered, Pending, Snapshot, prices_of
from .evict import Ending, Evict, preempted_for
from .links import standing
from .memory import Memory
from .operators import Parts
from .pauses import Pauses
from .ports import (
    Authorized,
    Billing,
    Event,
    Granted,
    MonotonicClock,
    NewLease,
    Order,
    Prices,
    Refused,
    Store,
)

_LOG = logging.getLogger(__name__)
_BATCH = 512  # leases of one call and of one transaction; a larger gang is a batch of its own
_REASONS = 2_000  # written in one pass at most
_PRICES_MS = 10_000  # so long prices are taken to be as they were
_RESTS = 2  # after a plan by all rules, so many times as long as it took, if nobody is free
_LONGEST_REST_MS = 5_000
_WRITE_FIRST_MS = 500  # so long the rules wait while others are placed


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did. ``again_ms``: when something is due once more, if nothing happens."""

    placed: int
    stale: int
    again_ms: int | None


@dataclass(frozen=True, slots=True)
class CycleParts:
    """What a cycle works with."""

    store: Store
    billing: Billing
    prices: Prices
    evict: Evict
    catalogue: Catalogue
    ids: Ids
    clock: MonotonicClock
    advice: Callable[[], Lookup] = lambda: NO_LOOKUP


class Cycle:
    """The use case; one for each term of leadership."""

    def __init__(self, parts: CycleParts) -> None:
        self._store = parts.store
        self._billing = parts.billing
        self._prices = parts.prices
        self._evict = parts.evict
        self._catalogue = parts.catalogue
        self._ids = parts.ids
        self._clock = parts.clock
        self._advice = parts.advice
        self._pauses = Pauses()
        self._memory: Memory | None = None
        self._untold: dict[str, Reason] = {}
        self._offers: tuple[Offered, ...] = ()
        self._prices_due_ms = 0
        self._rules_due_ms = 0
        self._asked_ms: int | None = None  # since when jobs wait for the rules
        self._ruled_freed = -1

    async def __call__(self, epoch: int) -> Pass:
        """Decide about all that waits.

        Raises:
            Conflict: LEADER_DEPOSED.
            Unreachable: the database is away.
        """
        memory = await self._remembered()
        await self._learn_prices(memory)
        self._memory = None  # until this pass is through, nobody knows what was written
        done = await self._pass(memory, epoch)
        self._memory = memory
        return done

    async def _remembered(self) -> Memory:
        memory = self._memory
        async with self._store.reading() as tx:
            if memory is None:
                return await Memory.read(tx, self._catalogue)
            await memory.refresh(tx)
        return memory

    async def _learn_prices(self, memory: Memory) -> None:
        """What chips cost now; while billing is away, what they cost last."""
        now_ms = self._clock.now_ms()
        if now_ms >= self._prices_due_ms:
            with contextlib.suppress(Unreachable):
                self._offers = (await self._prices()).offers
            self._prices_due_ms = now_ms + _PRICES_MS
        memory.planner.set_advice(self._advice())
        memory.planner.set_prices(prices_of(self._offers))

    async def _pass(self, memory: Memory, epoch: int) -> Pass:
        memory.again(self._pauses.over(self._clock.now_ms()))
        ruling = await self._decide(memory)
        reasons = {x.task.job: x.reason for x in ruling.decisions if isinstance(x, Waiting)}
        written = stale = 0
        for batch in _batches(x for x in ruling.decisions if isinstance(x, Placed)):
            granted, refusals = await self._ask(memory, batch)
            reasons |= refusals
            kept = await self._write(memory, granted, epoch)
            written, stale = written + kept, stale + len(granted) - kept
        for eviction in ruling.evictions:
            await self._evict(_endings(eviction), epoch)
        await self._explain(memory, reasons, epoch)
        now_ms = self._clock.now_ms()
        waits = [at - now_ms for at in self._pauses.until_ms.values()]
        if memory.fresh or self._untold:
            waits.append(max(1, self._rules_due_ms - now_ms))
        return Pass(written, stale, max(1, min(waits)) if waits else None)

    async def _decide(self, memory: Memory) -> Ruling:
        """What is in nobody's way is placed where it fits; about the rest all rules have their say,
        which takes longer, and so not at once after the last time."""
        freed = memory.planner.index.freed
        due = self._awake(memory.due())
        plain = self._plain(memory, [task for task in due if memory.plain(task)])
        placed = {each.task.job for each in plain}
        rest = [task.job for task in due if task.job not in placed]
        now_ms = self._clock.now_ms()
        if not rest:
            self._asked_ms = None
            return Ruling(plain)
        self._asked_ms = now_ms if self._asked_ms is None else self._asked_ms
        busy = now_ms - self._asked_ms < _WRITE_FIRST_MS and any(
            isinstance(each, Placed) for each in plain
        )
        if busy or now_ms < self._rules_due_ms:  # what is placed is written first
            memory.again(rest)
            return Ruling(plain)
        async with self._store.reading() as tx:
            parts = await tx.planning.parts(self._catalogue)
        waiting = (x.pending for x in memory.queue.values() if x.pending.job not in placed)
        ruling = rule(
            self._snapshot(self._awake(waiting), parts),
            memory.planner,
            promised=memory.shadows if freed == self._ruled_freed else (),
            vacancies=memory.vacancies,
        )
        memory.block((x.task for x in ruling.decisions if isinstance(x, Waiting)), ruling.shadows)
        self._asked_ms = None
        took_ms = self._clock.now_ms() - now_ms
        self._ruled_freed = memory.planner.index.freed
        self._rules_due_ms = now_ms + took_ms + min(_LONGEST_REST_MS, _RESTS * took_ms)
        return replace(ruling, decisions=plain + ruling.decisions)

    def _plain(self, memory: Memory, due: list[Pending]) -> tuple[Decision, ...]:
        """Decisions about those of these that cannot be in anybody's way: of what those could have
        who must wait for others, nothing is given away here."""
        snapshot = Snapshot((), tuple(due), self._catalogue, now_ms=memory.now_ms)
        decisions = plan(replace(snapshot, offers=self._offers), memory.planner)
        of = {id(x.task.needs): x.task.needs for x in decisions}
        chips = {key: memory.planner.chips(needs) for key, needs in of.items()}
        stuck = {id(x.task.needs) for x in decisions if isinstance(x, Waiting)}
        contested = {chip for key in stuck for chip, _ in chips[key]}
        if not contested:
            return decisions
        free = {
            key
            for key, could in chips.items()
            if not could
            or (of[key].accelerator is not None and contested.isdisjoint(x for x, _ in could))
        }
        for each in decisions:
            if isinstance(each, Placed) and id(each.task.needs) not in free:
                memory.planner.release(each)
        return tuple([each for each in decisions if id(each.task.needs) in free])

    def _snapshot(self, pending: tuple[Pending, ...], parts: Parts) -> Snapshot:
        return Snapshot(
            nodes=(),
            pending=pending,
            catalogue=self._catalogue,
            running=parts.running,
            quotas=parts.quotas,
            shares=parts.shares,
            reservations=parts.reservations,
            sites=parts.sites,
            links=parts.links,
            offers=self._offers,
            now_ms=parts.now_ms,
        )

    def _awake(self, tasks: Iterable[Pending]) -> tuple[Pending, ...]:
        resting = self._pauses.until_ms
        return tuple([task for task in tasks if task.job not in resting])

    async def _ask(
        self, memory: Memory, batch: list[Placed]
    ) -> tuple[list[Granted], dict[str, Reason]]:
        """Billing's word on each placement: leases to write, and reasons why not."""
        orders = [Order(tuple(self._ids.new("ls") for _ in x.members), x) for x in batch]
        granted: list[Granted] = []
        reasons: dict[str, Reason] = {}
        try:
            answers = await self._billing.authorize(orders)
        except Unreachable:
            for order in orders:
                self._rest(memory, order.placed)
                reasons[order.placed.task.job] = _UNHEARD
            await self._give_back([x for order in orders for x in _unwritten(order)])
            return granted, reasons
        for order, answer in zip(orders, answers, strict=True):
            job = order.placed.task.job
            match answer:
                case Authorized(rates):
                    granted.append(_granted(order, rates))
                case Refused(code, hint):
                    reasons[job] = _refusal(order, code, hint)
                    self._rest(memory, order.placed)
        return granted, reasons

    def _rest(self, memory: Memory, placed: Placed) -> None:
        memory.planner.release(placed)
        self._pauses.rest(placed.task.job, self._clock.now_ms())

    async def _write(self, memory: Memory, granted: list[Granted], epoch: int) -> int:
        """Write those that still hold; how many."""
        if not granted:
            return 0
        try:
            kept = await self._write_batch(memory, granted, epoch)
        except Conflict:
            await self._give_back([x for each in granted for x in _unwritten(_order(each))])
            raise
        written = {id(each) for each in kept}
        left = [each for each in granted if id(each) not in written]
        for each in left:
            memory.planner.release(each.placed)
        memory.again(each.placed.task.job for each in left)
        for each in kept:
            memory.drop(each.placed.task.job)
            self._pauses.forget(each.placed.task.job)
        await self._give_back([x for each in left for x in _unwritten(_order(each))])
        return len(kept)

    async def _write_batch(
        self, memory: Memory, granted: list[Granted], epoch: int
    ) -> list[Granted]:
        members = [member for each in granted for member in each.placed.members]
        node_ids = {member.node_id for member in members}
        async with self._store.writing(epoch) as tx:
            held = await tx.nodes.hold(sorted(node_ids))
            same = {x for x in node_ids if held.get(x) == memory.changed.get(x)}
            views = await tx.nodes.views(sorted(node_ids - same)) if len(same) < len(held) else []
            nodes = {node.node_id: node for node in views}
            pending = await tx.jobs.lock_pending([each.placed.task.job for each in granted])
            sound = (x.placed for x in await standing(tx, granted))
            valid = set(map(id, still_valid(sound, nodes, pending, trusted=same)))
            kept = [each for each in granted if id(each.placed) in valid]
            await tx.jobs.place(kept)
            await tx.leases.insert(kept, epoch)
            used = {member.node_id for each in kept for member in each.placed.members}
            bumped = await tx.nodes.bump(sorted(used))
            await tx.events.tell_all([_placed(each) for each in kept])
        memory.changed.update((x, at) for x, at in bumped.items() if x in same)
        return kept

    async def _explain(self, memory: Memory, reasons: dict[str, Reason], epoch: int) -> None:
        """Write the reasons whose words have changed; figures alone are not worth a revision."""
        for job, reason in reasons.items():
            if memory.told(job, reason):
                self._untold[job] = reason
        if self._untold:
            names = sorted(self._untold)[:_REASONS]
            async with self._store.writing(epoch) as tx:
                await tx.jobs.explain([(name, self._untold[name]) for name in names])
            for name in names:
                del self._untold[name]

    async def _give_back(self, leases: Sequence[Lease]) -> None:
        """End holds that no lease will use; if billing does not hear it, they end by themselves."""
        try:
            for start in range(0, len(leases), _BATCH):
                await self._billing.close(leases[start : start + _BATCH])
        except Unreachable:
            _LOG.info("holds are left to end by themselves", extra={"holds": len(leases)})


_UNHEARD = Reason(
    "BILLING_UNREACHABLE",
    "There is a place for it, but billing gives no answer.",
    "It is placed when billing answers again; nothing is to be done about the job.",
    {"by": "billing"},
)


def _endings(eviction: Eviction) -> list[Ending]:
    """Whom to tell to end, and what they are told."""
    return [
        Ending(
            victim.job,
            Cause.PREEMPTED,
            preempted_for(victim.leases[0].project, eviction.task.job, eviction.told),
            victim.notice_ms,
        )
        for victim in eviction.victims
    ]


def _batches(placements: Iterable[Placed]) -> Iterator[list[Placed]]:
    """In order, each of so many leases at most."""
    batch: list[Placed] = []
    leases = 0
    for placed in placements:
        if batch and leases + len(placed.members) > _BATCH:
            yield batch
            batch, leases = [], 0
        batch.append(placed)
        leases += len(placed.members)
    if batch:
        yield batch


def _refusal(order: Order, code: str, hint: str) -> Reason:
    held = order.placed.allocation
    message = f"There is a place for it ({held.chip}), but billing refuses to hold the money."
    evidence = {"by": "billing", "chip": held.chip, "quantity_milli": str(held.quantity_milli)}
    return Reason(code, message, hint, evidence)


def _granted(order: Order, rates: Sequence[int]) -> Granted:
    """What is written, with its price among the figures."""
    leases = tuple(map(NewLease, order.lease_ids, order.placed.members, rates))
    reason = order.placed.reason
    evidence = reason.evidence | {"rate_nano_per_hour": str(sum(rates))}
    return Granted(order.placed, leases, replace(reason, evidence=evidence))


def _order(granted: Granted) -> Order:
    return Order(tuple(new.lease_id for new in granted.leases), granted.placed)


def _unwritten(order: Order) -> list[Lease]:
    """Leases that never were, as far as billing needs them to end its holds."""
    task = order.placed.task
    return [
        Lease(
            lease_id,
            task.job,
            task.attempt,
            member.node_id,
            (),
            state=State.CLOSING,
            cause=Cause.DRAINED,
        )
        for lease_id, member in zip(order.lease_ids, order.placed.members, strict=True)
    ]


def _placed(granted: Granted) -> Event:
    task, held = granted.placed.task, granted.placed.allocation
    facts = {
        "lease": granted.leases[0].lease_id,
        "node": granted.placed.node_id,
        "chip": held.chip,
        "attempt": str(task.attempt),
    }
    if len(granted.leases) > 1:
        facts["tasks"] = str(len(granted.leases))
    return Event("job.placed", task.job, task.project, granted.reason, facts)
