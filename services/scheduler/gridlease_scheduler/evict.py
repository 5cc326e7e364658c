"""Takes jobs' places away, with notice: for another job, to empty a node, or to resize.

All leases of a gang are told to end together. The whole group of jobs is told, or none of them:
a plan that needs all of the places has no use for some of them. Each job waits again once its
leases are CLOSED, unless it asked otherwise, and goes on from its newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import names
from .domain.ends import Member, follow
from .domain.eviction.preempt import EVICTION_WINDOW_MS
from .domain.job import Job, JobState, Reason
from .domain.lease import Cause, State, to_closing
from .ports import Event, HeldLease, NodeDetail, Store, Tx

_EVENTS = {
    "PREEMPTED": "job.preempted",
    "DRAINED": "job.drained",
    "RESIZED": "job.resizing",
    "DEFRAGMENTED": "job.moving",
    "SCALED_TO_ZERO": "job.scaling_to_zero",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """A running job whose leases are to end.

    Attributes:
        cause: PREEMPTED or DRAINED.
        reason: What its tenant and its tasks are told; its code is a key of ``_EVENTS``. After
            SCALED_TO_ZERO it is not placed again before it is woken.
        notice_ms: Warning; None = the job's own.
        attempt: It must still be in this attempt; 0 = in whichever.
        tasks: How many its next attempt has; 0 = as before.
    """

    job: str
    cause: Cause
    reason: Reason
    notice_ms: int | None = None
    attempt: int = 0
    tasks: int = 0


class Evict:
    """The use case."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def __call__(self, endings: Sequence[Ending], epoch: int | None) -> bool:
        """Tell all of them to end; False and nothing written where one does not run as thought.

        Args:
            epoch: The leader's; None for an operator's own word, which needs no leader.

        Raises:
            Conflict: LEADER_DEPOSED.
            Unreachable: the database is away.
        """
        async with self._store.writing(epoch) as tx:
            held = {x.job: await tx.leases.unclosed_of_job(x.job) for x in endings}
            await tx.nodes.lock(sorted({y.lease.node_id for x in held.values() for y in x}))
            jobs = {}
            for job in sorted(held):
                jobs[job] = await tx.jobs.get(job, lock=True)
                held[job] = await tx.leases.unclosed_of_job(job)
            if not all(_runs(jobs[x.job], held[x.job], x) for x in endings):
                return False
            for ending in endings:
                job_now = jobs[ending.job]
                assert job_now is not None
                await _end(tx, job_now, held[ending.job], ending)
        return True


def _runs(job: Job | None, held: Sequence[HeldLease], ending: Ending) -> bool:
    """Is it still what the plan thought: does it run, and would it go on running?"""
    if job is None or job.state is not JobState.RUNNING:
        return False
    over = [x for x in held if x.lease.state is not State.ACTIVE]
    ends = follow([Member(x.index, x.lease, x.stop, x.exit_message) for x in over])
    told = [x for x in over if x.stop.code]
    goes_on = len(over) < len(held) and not told and ends is None
    return goes_on and ending.attempt in (0, job.attempt)


async def _end(tx: Tx, job: Job, held: Sequence[HeldLease], ending: Ending) -> None:
    notice_ms = job.notice_ms if ending.notice_ms is None else ending.notice_ms
    stopped = [
        to_closing(x.lease, ending.cause, notice_ms) for x in held if x.lease.state is State.ACTIVE
    ]
    for lease in stopped:
        await tx.leases.stop(lease, ending.reason)
    await tx.nodes.bump({lease.node_id for lease in stopped})
    asleep = ending.reason.code == "SCALED_TO_ZERO"
    tasks_next = ending.tasks or job.extent.tasks
    taken = ending.reason.code == "PREEMPTED"  # what is arranged for it is no disturbance
    await tx.jobs.evicted(job.name, tasks_next, EVICTION_WINDOW_MS, asleep=asleep, counted=taken)
    await tx.jobs.move(job.name, job.state, ending.reason)
    facts = {
        "attempt": str(job.attempt),
        "leases": ",".join(lease.lease_id for lease in stopped),
        "notice_ms": str(notice_ms),
        "tasks_next": "0" if asleep else str(tasks_next),
        "waits_again": str(job.extent.requeue or ending.reason.code != "PREEMPTED").lower(),
    }
    saved = [task.checkpoint.id for task in job.tasks if task.checkpoint is not None]
    if saved:
        facts["checkpoint"] = saved[0]
    kind = _EVENTS[ending.reason.code]
    await tx.events.tell(Event(kind, job.name, job.project, ending.reason, facts))


def preempted_for(project: str, beneficiary: str, reason: Reason) -> Reason:
    """What a tenant is told of the job that takes its place: its name only if it is its own."""
    evidence = dict(reason.evidence)
    if beneficiary.startswith(f"{project}/jobs/"):
        evidence["for"] = beneficiary
    hint = "It waits for a new place; raise its priority or its tier to be moved less often."
    return Reason("PREEMPTED", reason.message, hint, evidence)


@dataclass(frozen=True, slots=True)
class Drained:
    """A node that is being emptied, and the jobs that move."""

    node: NodeDetail
    jobs: tuple[str, ...]


class Drain:
    """The use case of an operator who empties a node. Idempotent: who was told is left alone."""

    def __init__(self, store: Store, evict: Evict) -> None:
        self._store = store
        self._evict = evict

    async def __call__(self, name: str, notice_ms: int, note: str) -> Drained:
        """Cordon it, and tell every job that runs there to end and to wait for another place.

        Raises:
            Missing: no such node.
        """
        node_id = names.node_id(name)
        async with self._store.writing() as tx:
            await tx.nodes.lock([node_id])
            before = await tx.nodes.detail(node_id)
            if before is None:
                raise names.no_node(name)
            if not before.row.draining:
                await tx.nodes.drain(node_id)
                facts = {"notice_ms": str(notice_ms), "note": note}
                await tx.events.tell(Event("node.draining", name, facts=facts))
            held = await tx.leases.unclosed_of_node(node_id)
        reason = _drained(node_id, note)
        told = []
        for job in sorted({x.job for x in held if x.lease.state is State.ACTIVE}):
            ending = Ending(job, Cause.DRAINED, reason, notice_ms or None)
            if await self._evict([ending], None):
                told.append(job)
        async with self._store.reading() as tx:
            after = await tx.nodes.detail(node_id)
        assert after is not None
        return Drained(after, tuple(told))


def _drained(node_id: str, note: str) -> Reason:
    message = f"Its node {node_id} is being emptied"
    message += f": {note.rstrip('.')}." if note else "."
    hint = "It is placed elsewhere once its leases are closed; nothing is to be done."
    return Reason("DRAINED", message, hint, {"node": node_id})
