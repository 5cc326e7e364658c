"""Why a job stands where it stands, asked of the fleet as it is now."""

from __future__ import annotations

from dataclasses import dataclass

from . import names
from .domain.chips import Catalogue
from .domain.job import Job, JobState, Reason
from .domain.plan import Pending, Waiting, decide
from .ports import Store

_PLACEABLE = Reason(
    "PLACEABLE",
    "There is a place for it; the next pass of the scheduler takes it.",
    "Nothing; if this lasts, look whether a scheduler leads.",
)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The dominant reason, and how many nodes each reason rules out."""

    state: JobState
    reason: Reason
    ruled_out: dict[str, int]


class Explain:
    """The use case."""

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue

    async def __call__(self, project: str, name: str) -> Explanation:
        """Raises:
        Missing: no such job in the project.
        """
        names.own_job(project, name)
        async with self._store.reading() as tx:
            job = await tx.jobs.get(name)
            if job is None:
                raise names.no_job(name)
            nodes = await tx.nodes.views() if job.state is JobState.PENDING else []
        if job.state is not JobState.PENDING:
            return Explanation(job.state, job.reason, {})
        decision = decide(_pending(job), nodes, self._catalogue)
        if isinstance(decision, Waiting):
            return Explanation(job.state, decision.reason, decision.ruled_out)
        # A place is free: then it is billing that holds it up, or nothing at all.
        refused = job.reason.evidence.get("by") == "billing"
        return Explanation(job.state, job.reason if refused else _PLACEABLE, {})


def _pending(job: Job) -> Pending:
    return Pending(
        job=job.name,
        tenant=job.tenant,
        project=job.project,
        attempt=job.task.attempt + 1,
        priority=job.priority,
        number=job.number,
        notice_ms=job.notice_ms,
        lost_after_ms=job.lost_after_ms,
        needs=job.needs,
    )
