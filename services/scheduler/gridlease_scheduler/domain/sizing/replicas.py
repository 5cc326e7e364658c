"""How many replicas should each service have now, by the requests that its tasks tell of?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gridlease_scheduler.domain.ends import SCALED_TO_ZERO
from gridlease_scheduler.domain.job import Reason
from gridlease_scheduler.domain.order.patience import Patience

from .autoscale import Load, Scaling, wanted
from .flexible import Flexible, Resize
from .spare import Spare

_MOST_LOADS = 20_000


@dataclass(frozen=True, slots=True)
class ReplicaRules:
    """``every_ms``: how often loads are looked at. ``hold_ms``: a need must stay below for so long
    before replicas are taken away. ``settle_ms``: a service is left alone for so long after it was
    heard to run. ``stale_ms``: a report that is older is none."""

    every_ms: int = 15_000
    hold_ms: int = 300_000
    settle_ms: int = 60_000
    stale_ms: int = 45_000

    def scaling(self, job: Flexible) -> Scaling:
        """The service's own bounds, with windows in which loads are seen often enough."""
        assert job.load is not None
        growth_ms = max(15_000, 3 * self.every_ms) if self.every_ms >= 5_000 else 3 * self.every_ms
        return Scaling(
            job.load.least,
            job.load.most,
            job.load.target,
            growth_ms=growth_ms,
            hold_ms=max(growth_ms, self.hold_ms),
            idle_after_ms=max(growth_ms, job.load.idle_after_ms),
        )


@dataclass(frozen=True, slots=True)
class Watch:
    """Loads seen by service, the oldest first: kept for the term."""

    loads: Mapping[str, tuple[Load, ...]] = field(default_factory=dict)


def rescaled(
    jobs: Iterable[Flexible],
    watch: Watch,
    spare: Spare,
    patience: Patience,
    now_ms: int,
    rules: ReplicaRules,
) -> tuple[tuple[Resize, ...], Watch]:
    """What should change, and what was seen."""
    found: list[Resize] = []
    loads: dict[str, tuple[Load, ...]] = {}
    for job in jobs:
        if job.load is None or not job.running:
            continue  # who rests is woken by a request, who waits is about to start
        scaling = rules.scaling(job)
        seen = _seen(job, watch.loads.get(job.job, ()), now_ms, rules, scaling)
        loads[job.job] = seen
        if not job.ran_ms or job.ran_ms < rules.settle_ms:
            continue
        answer = wanted(seen, job.tasks, now_ms, scaling)
        tasks = answer.replicas
        if tasks > job.tasks:  # all of them restart: never without room for what is added
            most = patience.most(job, tasks, now_ms)
            tasks = job.tasks + spare.more(job, most - job.tasks)
        if tasks != job.tasks:
            why = _reason(answer.reason, tasks)
            found.append(Resize(job.job, job.attempt, tasks, running=True, reason=why))
    return tuple(found), Watch(loads)


def _seen(
    job: Flexible,
    before: Sequence[Load],
    now_ms: int,
    rules: ReplicaRules,
    scaling: Scaling,
) -> tuple[Load, ...]:
    """The load now with those before it: the sum over all replicas, if each of them told."""
    kept = tuple(x for x in before if x.at_ms >= now_ms - scaling.window_ms)[-_MOST_LOADS:]
    fresh = [x for x in job.reports if x.age_ms <= rules.stale_ms]
    if len(fresh) < job.tasks:
        return kept
    milli = sum(x.in_flight_milli for x in fresh)
    return (*kept, Load(now_ms, -(-milli // 1_000)))


def _reason(why: Reason, tasks: int) -> Reason:
    """The words for the tenant and its tasks: one code for a resize, one for a rest."""
    evidence = {**why.evidence, "to": str(tasks), "by": "load"}
    if not tasks:
        hint = "`gridlease wake` when a request comes; until then it holds nothing."
        return replace(why, code=SCALED_TO_ZERO, hint=hint, evidence=evidence)
    return Reason("RESIZED", why.message, why.hint, {**evidence, "because": why.code})
