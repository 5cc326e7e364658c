"""Wakes a service that rests: a request waits for it."""

from __future__ import annotations

from . import names
from .domain.job import Job, Reason
from .ports import Event, Store

_WOKEN = Reason("WOKEN", "A request waits for it, so it is placed again.")


class Wake:
    """The use case. Idempotent: a job that does not rest is left as it is."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def __call__(self, project: str, name: str) -> Job:
        """The job after the request.

        Raises:
            Missing: no such job in the project.
        """
        names.own_job(project, name)
        async with self._store.writing() as tx:
            if await tx.jobs.wake(name, _WOKEN):
                await tx.events.tell(Event("job.woken", name, project, _WOKEN))
            job = await tx.jobs.get(name)
        if job is None:
            raise names.no_job(name)
        return job
