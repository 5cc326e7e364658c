"""Why a job stands where it stands, and what else it could do, asked of the fleet as it is now."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from . import names
from .domain.chips import Catalogue
from .domain.forecast import Forecast, Option, forecast, options
from .domain.job import Job, JobState, Reason
from .domain.plan import Placed
from .domain.snapshot import Pending, Snapshot
from .ports import PriceList, Prices, Store
from .preview import price_list, read

_PLACEABLE = Reason(
    "PLACEABLE",
    "There is a place for it; the next pass of the scheduler takes it.",
    "Nothing; if this lasts, look whether a scheduler leads.",
)
# What holds a job up although it could be placed if it were alone: the pass's own word stands.
_HELD_UP = ("KEPT_FOR_ANOTHER", "PREEMPTING", "SCALED_TO_ZERO")


@dataclass(frozen=True, slots=True)
class Explanation:
    """The dominant reason, how many nodes each reason rules out, and what else there is."""

    job: Job
    reason: Reason
    ruled_out: dict[str, int]
    earliest_ms: int | None
    remedies: tuple[str, ...]
    options: tuple[Option, ...]
    sites: dict[str, str]
    currency: str


class Explain:
    """The use case."""

    def __init__(self, store: Store, catalogue: Catalogue, prices: Prices) -> None:
        self._store = store
        self._catalogue = catalogue
        self._prices = prices

    async def __call__(self, project: str, name: str) -> Explanation:
        """Raises:
        Missing: no such job in the project.
        """
        names.own_job(project, name)
        priced = await price_list(self._prices)
        async with self._store.reading() as tx:
            job = await tx.jobs.get(name)
            if job is None:
                raise names.no_job(name)
            if job.state.ended:
                return Explanation(job, job.reason, {}, None, (), (), {}, "")
            snapshot = await read(tx, self._catalogue, priced)
        sites = {node.node_id: node.site for node in snapshot.nodes}
        look = _waits if job.state is JobState.PENDING else _runs
        # A large fleet takes a while to look at: the leader's own work goes on beside it.
        return await asyncio.to_thread(look, job, snapshot, sites, priced)


def _waits(job: Job, snapshot: Snapshot, sites: dict[str, str], priced: PriceList) -> Explanation:
    found = forecast(_pending(job), _expected_ms(job), snapshot)
    if isinstance(found.decision, Placed):
        # A place is free: then something else holds it up, or nothing at all.
        reason = job.reason if _held_up(job) else _PLACEABLE
        ruled_out: dict[str, int] = {}
    else:
        reason, ruled_out = found.decision.reason, dict(found.decision.ruled_out)
    return Explanation(
        job=job,
        reason=reason,
        ruled_out=ruled_out,
        earliest_ms=_earliest(found, reason),
        remedies=found.remedies or ((reason.hint,) if reason.hint else ()),
        options=found.options,
        sites=sites,
        currency=priced.currency,
    )


def _runs(job: Job, snapshot: Snapshot, sites: dict[str, str], priced: PriceList) -> Explanation:
    chips = [task.allocation.chip for task in job.tasks if task.allocation is not None]
    mine = chips[0] if chips else ""
    # Where it is now counts as free for the question what else it could run on.
    running = tuple(x for x in snapshot.running if x.job != job.name)
    found = options(_pending(job), _expected_ms(job), replace(snapshot, running=running), mine)
    return Explanation(
        job=job,
        reason=job.reason,
        ruled_out={},
        earliest_ms=None,
        remedies=(job.reason.hint,) if job.reason.hint else (),
        options=found,
        sites=sites,
        currency=priced.currency,
    )


def _held_up(job: Job) -> bool:
    return job.reason.code in _HELD_UP or job.reason.evidence.get("by") == "billing"


def _earliest(found: Forecast, reason: Reason) -> int | None:
    """A place alone is no promise where something else holds the job up."""
    return found.earliest_ms if reason is _PLACEABLE or found.chip == "" else None


def _expected_ms(job: Job) -> int:
    return job.extent.expected_ms or job.extent.longest_ms


def _pending(job: Job) -> Pending:
    return Pending(
        job=job.name,
        tenant=job.tenant,
        project=job.project,
        attempt=job.attempt + 1,
        priority=job.priority,
        number=job.number,
        notice_ms=job.notice_ms,
        lost_after_ms=job.lost_after_ms,
        needs=job.needs,
        tasks=job.extent.tasks,
        tasks_max=job.extent.tasks_max,
        longest_ms=job.extent.longest_ms,
        reservation=job.extent.reservation,
    )
