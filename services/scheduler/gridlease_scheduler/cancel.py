"""Asks for a job's end: at once while it waits, through its leases once it is placed."""

from __future__ import annotations

from . import names
from .domain.ends import placed_again
from .domain.job import Job, JobState, Reason
from .domain.lease import Cause, State, to_closing
from .ports import Event, HeldLease, Store, Tx

_WAITED = Reason("CANCELLED", "It was stopped by its tenant before it was placed.")
_ASKED = Reason("STOPPED", "Its tenant asked for its end; what runs of it is being stopped.")


class Cancel:
    """The use case. Idempotent: a job that is ending or has ended is left as it is."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def __call__(self, project: str, name: str) -> Job:
        """The job after the request.

        Raises:
            Missing: no such job in the project.
        """
        names.own_job(project, name)
        async with self._store.writing() as tx:
            held = await tx.leases.unclosed_of_job(name)
            await tx.nodes.lock(sorted({x.lease.node_id for x in held}))  # before jobs
            job = await tx.jobs.get(name, lock=True)
            if job is None:
                raise names.no_job(name)
            await _stop(tx, job)
            after = await tx.jobs.get(name)
        assert after is not None
        return after


async def _stop(tx: Tx, job: Job) -> None:
    if job.state is JobState.PENDING:
        await tx.jobs.move(job.name, JobState.CANCELLED, _WAITED)
        await tx.events.tell(Event("job.cancelled", job.name, job.project, _WAITED))
        return
    if job.state is not JobState.RUNNING:
        return
    held = await tx.leases.unclosed_of_job(job.name)
    if not any(_stops(x) for x in held):
        return
    stopped = [
        to_closing(x.lease, Cause.STOPPED, job.notice_ms)
        for x in held
        if x.lease.state is State.ACTIVE
    ]
    for lease in stopped:
        await tx.leases.stop(lease, _ASKED)
    await tx.nodes.bump({lease.node_id for lease in stopped})
    await tx.jobs.move(job.name, JobState.STOPPING, _ASKED)
    await tx.events.tell(Event("job.stopping", job.name, job.project, _ASKED))


def _stops(held: HeldLease) -> bool:
    """Would it go on without this? A task that has ended by itself keeps its own end."""
    lease = held.lease
    return lease.state is State.ACTIVE or bool(placed_again(lease.cause, lease.exit))
