"""What tenants see of their jobs: one, a page, and one as it changes."""

from __future__ import annotations

from collections.abc import AsyncIterator

from . import names
from .domain.job import Job
from .ports import Store, Wakeups

_POLL_S = 1.0  # a wake-up may be lost


class Jobs:
    """The use cases that read jobs."""

    def __init__(self, store: Store, wakeups: Wakeups) -> None:
        self._store = store
        self._wakeups = wakeups

    async def get(self, project: str, name: str) -> Job:
        """One job.

        Raises:
            Missing: no such job in the project.
        """
        names.own_job(project, name)
        async with self._store.reading() as tx:
            job = await tx.jobs.get(name)
        if job is None:
            raise names.no_job(name)
        return job

    async def page(
        self, project: str, *, limit: int, before: int | None, active_only: bool
    ) -> list[Job]:
        """Newest first; ``before`` is the number of the last one of the page before."""
        names.check_project(project)
        async with self._store.reading() as tx:
            return await tx.jobs.page(project, limit=limit, before=before, active_only=active_only)

    async def watch(self, project: str, name: str) -> AsyncIterator[Job]:
        """The job now and after each change that is seen, until it has ended.

        Raises:
            Missing: no such job in the project.
        """
        revision = 0
        async with self._wakeups.watch(f"job:{name}") as ticket:
            while True:
                job = await self.get(project, name)
                if job.revision != revision:
                    revision = job.revision
                    yield job
                if job.state.ended:
                    return
                await ticket.wait(_POLL_S)
