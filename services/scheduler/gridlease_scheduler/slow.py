"""One pass of the slow path: what is decided over minutes, beside the fast path and never in it.

One reading of the fleet and of what runs and waits; then, in a thread or in the optimiser's child,
advice for the planner, elastic jobs, services, moves that make room, hosts that could sleep. What
it decides is checked again against locked rows when it is written, and told as events and in the
jobs' reasons. It keeps a memory of its own, so that it may think while the fast path places.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from .advise import Advise
from .domain.chips import Catalogue
from .domain.electricity import idle, resting
from .domain.eviction import moving
from .domain.eviction.defragment import Defragmentation
from .domain.job import Job, JobState, Reason
from .domain.lease import Cause
from .domain.order.patience import Patience, lessened
from .domain.order.quota import Book
from .domain.sizing import replicas, training
from .domain.sizing.flexible import Flexible, Resize
from .domain.sizing.spare import Spare
from .domain.slow import preferred, rounds
from .domain.slow.advice import Lookup
from .domain.snapshot import Pending, Snapshot
from .evict import Ending, Evict
from .memory import Memory
from .operators import Parts
from .ports import Aside, Event, MonotonicClock, Store, Tx

_LOG = logging.getLogger(__name__)
_REST = 20  # times as long as it took, so that it takes a small part of the process
_QUICK_MS = 200  # what it may always take
_LONGEST_REST_MS = 60_000


@dataclass(frozen=True, slots=True)
class SlowRules:
    """``every_ms``: how often. ``wake_ms``: how long a sleeping host takes to come back."""

    every_ms: int = 15_000
    training: training.TrainingRules = field(default_factory=training.TrainingRules)
    replicas: replicas.ReplicaRules = field(default_factory=replicas.ReplicaRules)
    moving: moving.MovingRules = field(default_factory=moving.MovingRules)
    sleep: idle.SleepPolicy = field(default_factory=idle.SleepPolicy)
    wake_ms: int = 300_000


@dataclass(frozen=True, slots=True)
class SlowParts:
    """What it works with."""

    store: Store
    aside: Aside
    evict: Evict
    advise: Advise
    catalogue: Catalogue
    clock: MonotonicClock
    rules: SlowRules


@dataclass(frozen=True, slots=True)
class SlowPass:
    """What one pass did, and for how long it rests."""

    resized: int
    moved: int
    proposed: int
    rest_ms: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one pass of thinking found."""

    resizes: tuple[Resize, ...]
    moves: tuple[Defragmentation, ...]
    proposals: tuple[idle.Proposal, ...]


class Slow:
    """The use case; one for each term of leadership."""

    def __init__(self, parts: SlowParts) -> None:
        self._parts = parts
        self.every_ms = self._rest_ms = parts.rules.every_ms
        self._memory: Memory | None = None
        self._diary = training.Diary()
        self._watch = replicas.Watch()
        self._patience = Patience()
        self._preferred: dict[str, str] = {}
        self._rounds = rounds.Memory()
        self._moved: dict[str, list[int]] = {}
        self._empty: dict[str, int] = {}
        self._proposed: set[str] = set()

    @property
    def lookup(self) -> Lookup:
        """What the fast path looks up."""
        return replace(self._parts.advise.lookup, preferred=self._preferred)

    async def __call__(self, epoch: int) -> SlowPass:
        """Look, think, and write what still holds.

        Raises:
            Conflict: LEADER_DEPOSED.
            Unreachable: the database is away.
        """
        began_ms = self._parts.clock.now_ms()
        memory, snapshot, jobs = await self._parts.aside.read(self._read)
        took_ms = self._parts.clock.now_ms() - began_ms
        await self._parts.advise(snapshot)
        began_ms = self._parts.clock.now_ms()
        plan = await asyncio.to_thread(self._think, memory, snapshot, jobs)
        self._memory = memory
        resized = [x for x in plan.resizes if await self._resize(x, epoch)]
        moved = [x for x in plan.moves if await self._move(x, snapshot.now_ms, epoch)]
        proposed = await self._propose(plan.proposals, epoch)
        took_ms += self._parts.clock.now_ms() - began_ms
        rest_ms = min(_LONGEST_REST_MS, _REST * took_ms) if took_ms > _QUICK_MS else 0
        self._rest_ms = max(self.every_ms, rest_ms)
        return SlowPass(len(resized), len(moved), proposed, self._rest_ms)

    async def _read(self, tx: Tx) -> tuple[Memory, Snapshot, tuple[Flexible, ...]]:
        """All at one instant; of fleet and queue only what changed since the last one."""
        memory, self._memory = self._memory, None  # forgotten where the pass fails half-way
        if memory is None:
            memory = await Memory.read(tx, self._parts.catalogue)
        else:
            await memory.refresh(tx)
        parts = await tx.planning.parts(self._parts.catalogue)
        return memory, self._snapshot(memory, parts), await tx.planning.flexible()

    def _snapshot(self, memory: Memory, parts: Parts) -> Snapshot:
        return Snapshot(
            nodes=memory.planner.index.views(),
            pending=tuple(x.pending for x in memory.queue.values()),
            catalogue=self._parts.catalogue,
            running=parts.running,
            quotas=parts.quotas,
            shares=parts.shares,
            sites=parts.sites,
            now_ms=parts.now_ms,
        )

    def _think(self, memory: Memory, now: Snapshot, jobs: Sequence[Flexible]) -> _Plan:
        """In a thread: nothing else touches this memory meanwhile."""
        rules, chips = self._parts.rules, _chips(memory)
        spare = Spare(memory.planner, Book(now.quotas, now.catalogue, now.running))
        patience = self._patience
        less, self._patience = lessened(jobs, patience, now.now_ms)
        seen_every = replace(rules.replicas, every_ms=self._rest_ms)
        scaled, self._watch = replicas.rescaled(
            jobs, self._watch, spare, patience, now.now_ms, seen_every
        )
        scene = training.Scene(
            now.nodes, now.running, now.pending, chips, spare, patience, now.now_ms
        )
        trained, self._diary = training.resizes(jobs, scene, self._diary, rules.training)
        spare.give_back()
        self._preferred, self._rounds = preferred.preferred(
            now.pending, now.running, now.nodes, memory.planner, now.now_ms, self._rounds
        )
        moves = moving.made_room(
            now.pending, now.running, memory.planner, self._moved, now.now_ms, rules.moving
        )
        resizes = (*less, *scaled, *trained)
        resized = {x.job for x in resizes}
        kept = tuple(x for x in moves if not resized & {x.job, *(y.job for y in x.moves)})
        return _Plan(resizes, kept, self._idle(now, chips))

    def _idle(
        self, now: Snapshot, chips: Callable[[Pending], set[str]]
    ) -> tuple[idle.Proposal, ...]:
        self._empty = resting.empty_since(now.nodes, self._empty, now.now_ms)
        rules = self._parts.rules
        hosts = resting.hosts(now.nodes, self._empty, now.sites, now.catalogue, rules.wake_ms)
        if not hosts:
            return ()
        waiting: Counter[frozenset[str]] = Counter()
        for task in now.pending:
            waiting[frozenset(chips(task))] += task.tasks
        kinds = {resting.kind(x): {y.chip for y in x.devices} or {x.cpu_chip} for x in now.nodes}
        wanted = {
            kind: sum(tasks for could, tasks in waiting.items() if could & mine)
            for kind, mine in kinds.items()
        }
        return idle.to_sleep(hosts, now.now_ms, rules.sleep, wanted)

    async def _resize(self, resize: Resize, epoch: int) -> bool:
        """Whether it still held."""
        if resize.running:
            ending = Ending(
                resize.job, Cause.PREEMPTED, resize.reason, None, resize.attempt,
                max(1, resize.tasks),
            )  # fmt: skip
            return await self._parts.evict([ending], epoch)
        async with self._parts.store.writing(epoch) as tx:
            job = await tx.jobs.get(resize.job, lock=True)
            if job is None or job.state is not JobState.PENDING or job.attempt != resize.attempt:
                return False
            await tx.jobs.want(job.name, resize.tasks)
            await tx.events.tell(Event("job.resized", job.name, job.project, resize.reason))
        return True

    async def _move(self, found: Defragmentation, now_ms: int, epoch: int) -> bool:
        """All moves of one that lets a job in, if it still waits and they still run there."""
        async with self._parts.store.reading() as tx:
            jobs = await tx.jobs.some([found.job, *(x.job for x in found.moves)])
        waits = jobs.get(found.job)
        if waits is None or waits.state is not JobState.PENDING:
            return False
        endings, chips = [], []
        for move in found.moves:
            job = jobs.get(move.job)
            if job is None or not _runs(job, move.lease_id):
                return False
            chips += [x.allocation.chip for x in job.tasks if x.allocation is not None]
            reason = moving.why(move, found, job.project)
            endings.append(Ending(job.name, Cause.PREEMPTED, reason, None, job.attempt))
        if not await self._parts.evict(endings, epoch):
            return False
        for chip in chips:
            lately = [x for x in self._moved.get(chip, ()) if x > now_ms - moving.HOUR_MS]
            self._moved[chip] = [*lately, now_ms]
        return True

    async def _propose(self, proposals: Sequence[idle.Proposal], epoch: int) -> int:
        """Each once, for as long as the host stays empty."""
        new = [x for x in proposals if x.node_id not in self._proposed]
        if new:
            async with self._parts.store.writing(epoch) as tx:
                await tx.events.tell_all([_proposal(x) for x in new])
        self._proposed = (self._proposed & self._empty.keys()) | {x.node_id for x in new}
        return len(new)


def _chips(memory: Memory) -> Callable[[Pending], set[str]]:
    """Chips that a waiting job could have, found once for jobs alike."""
    known: dict[int, set[str]] = {}

    def find(task: Pending) -> set[str]:
        mine = known.get(id(task.needs))
        if mine is None:
            mine = {chip for chip, _ in memory.planner.chips(task.needs)}
            known[id(task.needs)] = mine
        return mine

    return find


def _runs(job: Job, lease_id: str) -> bool:
    return job.state is JobState.RUNNING and lease_id in [x.lease_id for x in job.tasks]


def _proposal(proposal: idle.Proposal) -> Event:
    hint = "Cordon it and power it down; cordoned nodes are given no work."
    evidence = {"saved_mw": str(proposal.saved_mw)}
    reason = Reason("IDLE", proposal.message, hint, evidence)
    return Event("node.sleep_proposed", f"nodes/{proposal.node_id}", reason=reason)
