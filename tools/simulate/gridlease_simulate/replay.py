"""A trace replayed: arrivals, decisions and ends on a virtual clock, in whole milliseconds.

Between two instants nothing happens. At each: leases end, jobs arrive, then the policy decides
once about all that waits. No chance, no wall clock: the same input gives the same run.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from gridlease_kernel.money import amount_nano, rate_nano_per_hour
from gridlease_scheduler.domain.job import Allocation, Reason, Tier
from gridlease_scheduler.domain.node import Node, has_room, with_held
from gridlease_scheduler.domain.snapshot import Pending, Running, Snapshot

from gridlease_simulate.cluster import Cluster
from gridlease_simulate.outcome import JobRecord, LeaseRecord, Moment, Outcome
from gridlease_simulate.policies import MakePolicy, Member, without
from gridlease_simulate.power import Meter
from gridlease_simulate.rules import Progress, Rules
from gridlease_simulate.usage import Usage
from gridlease_simulate.workload import Arrival, Scaling, Trace

WHOLE: Final = 1_000_000_000  # all of a job's work, in parts
_NEVER: Final = -1


@dataclass(slots=True)
class _Job:
    """A job while the run lasts."""

    arrival: Arrival
    number: int
    attempt: int = 1
    left: int = WHOLE
    since_ms: int = 0  # it waits, or runs, since then
    started_ms: int = _NEVER
    ended_ms: int = _NEVER
    waited_ms: int = 0
    span_ms: int = 0  # what all of it takes where it runs
    lost_ms: int = 0  # of the present attempt, before work begins
    held: tuple[Member, ...] = ()
    evictions: int = 0
    closing: bool = False
    cost_nano: int = 0
    device_milli_ms: int = 0
    reason: Reason = field(default_factory=Reason)
    rejected: bool = False


class Replay:
    """One run of one trace on one cluster under one policy."""

    def __init__(self, cluster: Cluster, trace: Trace, policy: MakePolicy, rules: Rules) -> None:
        self._cluster, self._rules = cluster, rules
        self._empty = cluster.nodes()
        self._nodes: dict[str, Node] = {node.node_id: node for node in self._empty}
        self._policy = policy(self._empty, cluster.catalogue)
        self._alone = policy(self._empty, cluster.catalogue)  # asked about one job each
        groups = ((node, group) for group in cluster.groups for node in range(group.count))
        names = (node.node_id for node in self._empty)
        self._group = {name: group for name, (_, group) in zip(names, groups, strict=True)}
        self._scaling = Scaling(cluster.catalogue, rules.reference)
        self._offers = cluster.offers()
        self._meter = Meter(cluster)
        self._jobs = [_Job(arrival, at) for at, arrival in enumerate(trace.arrivals)]
        self._by_name = {job.arrival.name: job for job in self._jobs}
        assert len(self._by_name) == len(self._jobs), "names of a trace are unique"
        self._trace = trace
        self._waiting: dict[str, Pending] = {}
        self._running: dict[str, _Job] = {}
        self._standing: dict[str, tuple[Running, ...]] = {}
        self._usage = Usage(cluster.catalogue)
        self._ends: list[tuple[int, int, int]] = []  # (instant, number, attempt)
        self._never: dict[tuple[object, int], Reason] = {}
        self._busy_milli: dict[str, int] = defaultdict(int)
        self._busy_milli_ms: dict[str, int] = defaultdict(int)
        self._moments: list[Moment] = []
        self._leases_ended: list[LeaseRecord] = []
        self._now_ms = 0
        self._again_ms = 0  # the policy wants to look again then
        self._rested_ms = 0  # no decision before it, where jobs wait
        self._ended = 0
        self._plans = 0

    def run(self, progress: Callable[[Progress], None] | None = None) -> Outcome:
        """Play it to the end (or to ``until_ms``), and say what came of every job."""
        next_job = 0
        while self._ends or next_job < len(self._jobs) or self._looks_again():
            now_ms = self._next_instant(next_job)
            if self._rules.until_ms and now_ms > self._rules.until_ms:
                self._advance(self._rules.until_ms)
                break
            self._advance(now_ms)
            changed = self._finish() or now_ms == self._again_ms
            while next_job < len(self._jobs) and self._at(next_job) == now_ms:
                changed |= self._arrive(self._jobs[next_job])
                next_job += 1
            if changed and self._waiting:
                if now_ms < self._rested_ms:
                    self._again_ms = self._rested_ms
                else:
                    self._decide()
            self._moments.append(self._moment())
            if progress is not None and len(self._moments) % 64 == 0:
                progress(Progress(now_ms, self._ended, len(self._jobs)))
        return self._outcome(next_job)

    def _at(self, index: int) -> int:
        return self._jobs[index].arrival.submit_ms

    def _looks_again(self) -> bool:
        return bool(self._waiting) and self._again_ms > self._now_ms

    def _next_instant(self, next_job: int) -> int:
        ends = [self._ends[0][0]] if self._ends else []
        arrives = [self._at(next_job)] if next_job < len(self._jobs) else []
        again = [self._again_ms] if self._looks_again() else []
        return min(ends + arrives + again)

    def _advance(self, now_ms: int) -> None:
        span_ms = now_ms - self._now_ms
        assert span_ms >= 0, (self._now_ms, now_ms)
        self._meter.advance(now_ms)
        for chip, milli in self._busy_milli.items():
            self._busy_milli_ms[chip] += milli * span_ms
        self._now_ms = now_ms

    def _finish(self) -> bool:
        """End the leases that are due; did any?"""
        ended = False
        while self._ends and self._ends[0][0] <= self._now_ms:
            _, number, attempt = heapq.heappop(self._ends)
            job = self._jobs[number]
            if job.attempt != attempt or not job.held:
                continue  # it was evicted before
            ended = True
            evicted = job.closing
            self._release(job)
            if evicted:
                self._requeue(job)
            else:
                job.left, job.ended_ms = 0, self._now_ms
                self._ended += 1
        return ended

    def _arrive(self, job: _Job) -> bool:
        """Admit it, unless not even the empty cluster could run it; is there more to decide?"""
        needs, tasks = job.arrival.needs, job.arrival.tasks
        job.since_ms = self._now_ms
        pending = self._pending(job)
        if (needs, tasks) not in self._never:
            self._never[needs, tasks] = self._would_never_fit(pending)
        job.reason = self._never[needs, tasks]
        if job.reason.code:
            job.rejected = True
            self._ended += 1
            return False
        self._policy.arrived(pending)
        self._waiting[pending.job] = pending
        return True

    def _would_never_fit(self, pending: Pending) -> Reason:
        """Why not even the empty cluster has room for it; no code = it has."""
        verdict = self._alone.decide(self._snapshot(self._empty, (pending,)), _nothing_runs)
        for node_id, held in verdict.placed.get(pending.job, ()):
            self._alone.released(node_id, held)
        return verdict.reasons.get(pending.job, Reason())

    def _decide(self) -> None:
        """Ask the policy, and do as it says."""
        self._plans += 1
        waiting = tuple(self._waiting.values())
        snapshot = self._snapshot(tuple(self._nodes.values()), waiting)
        if len({task.tenant for task in waiting}) > 1:
            shares = self._usage.shares(self._leases(worked=False), self._now_ms)
            snapshot = replace(snapshot, shares=shares)
        verdict = self._policy.decide(snapshot, self._leases)
        for name, reason in verdict.reasons.items():
            self._by_name[name].reason = reason
        self._again_ms = verdict.again_ms
        if verdict.reasons:
            self._rested_ms = self._now_ms + self._rules.rest_ms
        for name in verdict.evicted:
            self._evict(self._running[name])
        for name, members in verdict.placed.items():
            self._start(self._by_name[name], members)

    def _leases(self, *, worked: bool) -> tuple[Running, ...]:
        """What policies are told of running leases; made anew only for how long they worked."""
        if not worked:
            return tuple(itertools.chain.from_iterable(self._standing.values()))
        return tuple(lease for job in self._running.values() for lease in self._told(job))

    def _snapshot(self, nodes: tuple[Node, ...], pending: tuple[Pending, ...]) -> Snapshot:
        return Snapshot(
            nodes=nodes,
            pending=pending,
            catalogue=self._cluster.catalogue,
            sites=self._cluster.sites,
            offers=self._offers,
            now_ms=self._now_ms,
        )

    def _pending(self, job: _Job) -> Pending:
        arrival = job.arrival
        return Pending(
            job=arrival.name,
            tenant=arrival.tenant,
            project=arrival.project,
            attempt=job.attempt,
            priority=arrival.priority,
            number=job.number,
            notice_ms=self._rules.notice_ms,
            lost_after_ms=600_000,
            needs=arrival.needs,
            tasks=arrival.tasks,
            tasks_max=arrival.tasks,
            submitted_ms=arrival.submit_ms,
            longest_ms=arrival.longest_ms,
            queued_ms=job.since_ms if job.attempt > 1 else 0,
        )

    def _told(self, job: _Job) -> tuple[Running, ...]:
        """The leases of a running job as they are now."""
        arrival = job.arrival
        worked_ms = self._now_ms - job.since_ms
        saved_ms = self._saved_ms(worked_ms)
        return tuple(
            Running(
                lease_id=f"{arrival.name}/{job.attempt}/{index}",
                job=arrival.name,
                index=index,
                tenant=arrival.tenant,
                project=arrival.project,
                node_id=node_id,
                priority=arrival.priority,
                tier=arrival.needs.tier,
                allocation=held,
                started_ms=job.since_ms,
                worked_ms=worked_ms,
                saved_ms=saved_ms,
                longest_ms=arrival.longest_ms,
                notice_ms=self._rules.notice_ms,
                evictions=job.evictions,
                tasks_min=arrival.tasks,
                closing=job.closing,
                number=job.number,
            )
            for index, (node_id, held) in enumerate(job.held)
        )

    def _saved_ms(self, worked_ms: int) -> int:
        every_ms = self._rules.checkpoint_ms
        return worked_ms - worked_ms % every_ms if every_ms else 0

    def _start(self, job: _Job, members: tuple[Member, ...]) -> None:
        """Its leases begin now; its end is known from here on."""
        arrival = job.arrival
        assert len(members) == arrival.tasks, (arrival.name, len(members))
        for node_id, held in members:
            self._hold(node_id, held)
        del self._waiting[arrival.name]
        self._running[arrival.name] = job
        job.held, job.reason = members, Reason()
        job.waited_ms += self._now_ms - job.since_ms
        job.since_ms = self._now_ms
        job.lost_ms = self._rules.restart_ms if job.started_ms != _NEVER else 0
        if job.started_ms == _NEVER:
            job.started_ms = self._now_ms
        nodes = len({node_id for node_id, _ in members})
        chips = {held.chip for _, held in members}
        job.span_ms = max(self._scaling.duration_ms(arrival, chip, nodes) for chip in chips)
        work_ms = -(-job.span_ms * job.left // WHOLE)
        end_ms = self._now_ms + job.lost_ms + max(1, work_ms)
        heapq.heappush(self._ends, (end_ms, job.number, job.attempt))
        self._standing[arrival.name] = self._told(job)

    def _hold(self, node_id: str, held: Allocation) -> None:
        node = self._nodes[node_id]
        assert has_room(node, held), (node_id, held)
        self._nodes[node_id] = with_held(node, held)
        self._count(node, held, 1)

    def _count(self, node: Node, held: Allocation, sign: int) -> None:
        cpu_chip = node.cpu_chip
        self._busy_milli[cpu_chip] += sign * held.cpu_milli
        if held.device_ids:
            self._busy_milli[held.chip] += (
                sign * 1_000 * len(held.device_ids) // self._cluster.slices
            )
        self._meter.hold(node.site, cpu_chip, held, sign)

    def _evict(self, job: _Job) -> None:
        """It is told to end: its devices come free when its notice is over."""
        if job.closing:
            return
        job.closing = True
        job.evictions += 1
        self._standing[job.arrival.name] = self._told(job)
        end_ms = self._now_ms + self._rules.notice_ms
        heapq.heappush(self._ends, (end_ms, job.number, job.attempt))

    def _requeue(self, job: _Job) -> None:
        """What its checkpoints keep is not done again."""
        worked_ms = max(0, self._now_ms - job.since_ms - job.lost_ms)
        done = self._saved_ms(worked_ms) * WHOLE // job.span_ms
        job.left = max(1, job.left - done)
        job.attempt += 1
        job.closing, job.since_ms = False, self._now_ms
        self._waiting[job.arrival.name] = self._pending(job)

    def _release(self, job: _Job) -> None:
        """Close its leases: charge them, and give back what they held."""
        self._charge(job)
        for node_id, held in job.held:
            node = self._nodes[node_id]
            self._nodes[node_id] = without(node, held)
            self._policy.released(node_id, held)
            self._count(node, held, -1)
        del self._running[job.arrival.name], self._standing[job.arrival.name]
        job.held = ()

    def _charge(self, job: _Job) -> None:
        """What its leases cost from their start until now."""
        span_ms = self._now_ms - job.since_ms
        tier = job.arrival.needs.tier
        slices = self._cluster.slices
        for node_id, held in job.held:
            milli = held.cpu_milli
            if held.device_ids:
                milli = 1_000 * len(held.device_ids) // slices
                job.device_milli_ms += milli * span_ms
            self._usage.ended(job.arrival.tenant, held, span_ms, self._now_ms)
            cost_nano = None
            if tier is Tier.SPOT and self._rules.spot is not None:
                spot = self._rules.spot
                cost_nano = spot.cost_nano(held.chip, milli, job.since_ms, self._now_ms)
            if cost_nano is None:
                group = self._group[node_id]
                price = self._cluster.group_price_nano(group, held.chip, tier)
                cost_nano = amount_nano(rate_nano_per_hour(price, milli), span_ms * 1_000_000)
            job.cost_nano += cost_nano
            self._leases_ended.append(
                LeaseRecord(
                    job.arrival.name,
                    job.attempt,
                    node_id,
                    held,
                    job.since_ms,
                    self._now_ms,
                    cost_nano,
                )
            )

    def _moment(self) -> Moment:
        return Moment(self._now_ms, tuple(self._busy_milli.items()), len(self._waiting))

    def _outcome(self, arrived: int) -> Outcome:
        for job in self._running.values():
            self._charge(job)
        for name in self._waiting:
            job = self._by_name[name]
            job.waited_ms += self._now_ms - job.since_ms
        return Outcome(
            cluster=self._cluster,
            trace=self._trace,
            jobs=tuple(self._record(job) for job in self._jobs[:arrived]),
            leases=tuple(self._leases_ended),
            unsent=len(self._jobs) - arrived,
            span_ms=self._now_ms,
            busy_milli_ms=dict(self._busy_milli_ms),
            energy=self._meter.used(),
            moments=tuple(self._moments),
            plans=self._plans,
        )

    def _record(self, job: _Job) -> JobRecord:
        arrival = job.arrival
        state = "waiting"
        if job.rejected:
            state = "rejected"
        elif job.ended_ms != _NEVER:
            state = "finished"
        elif job.held:
            state = "running"
        return JobRecord(
            name=arrival.name,
            state=state,
            tier=arrival.needs.tier,
            submit_ms=arrival.submit_ms,
            started_ms=job.started_ms,
            ended_ms=job.ended_ms,
            waited_ms=job.waited_ms,
            evictions=job.evictions,
            cost_nano=job.cost_nano,
            device_milli_ms=job.device_milli_ms,
            reason=job.reason,
        )


def _nothing_runs(*, worked: bool) -> tuple[Running, ...]:
    """The leases of an empty cluster, however they are asked for."""
    del worked
    return ()
