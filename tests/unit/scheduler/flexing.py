"""Elastic jobs and services as the slow path sees them, for tests."""

from gridlease_scheduler.domain.chips import AcceleratorNeed
from gridlease_scheduler.domain.job import Needs, Purpose
from gridlease_scheduler.domain.order.patience import Patience
from gridlease_scheduler.domain.order.quota import Book
from gridlease_scheduler.domain.placing.index import Index
from gridlease_scheduler.domain.plan import Planner
from gridlease_scheduler.domain.sizing.flexible import Flexible, LoadPolicy, Report
from gridlease_scheduler.domain.sizing.spare import Spare
from gridlease_scheduler.domain.sizing.training import Scene

from tests.unit.scheduler.standing import A100, CATALOGUE, GIB, HOUR, node, runs

NOW = 1_000 * HOUR
NEEDS = Needs(1_000, GIB, GIB, AcceleratorNeed((A100,)), purpose=Purpose.TRAINING)
LEARNS = {"steps": 100, "steps_total": 1_000_000, "squared": 1.0, "variance": 2e6}


def told(batch=256, step_s=0.5, **changes):
    """A report: the larger its batch, the more the job learns."""
    fields = {"age_ms": 1_000, "step_ns": int(step_s * 1e9), "batch": batch} | LEARNS | changes
    return Report(0, **fields)


def trains(job="j", tasks=1, *, least=1, most=4, reports=None, **changes):
    """An elastic job that has run for an hour."""
    fields = {
        "tenant": "tenants/t", "project": "projects/p", "running": True, "attempt": 1,
        "tasks": tasks, "tasks_min": least, "tasks_max": most, "needs": NEEDS, "app": job,
        "batches": (256, 8_192), "ran_ms": HOUR, "start_ms": 5_000, "queued_ms": NOW - 2 * HOUR,
        "reports": (told(batch=256 * tasks),) if reports is None else reports,
    }  # fmt: skip
    return Flexible(job, **(fields | changes))


def serves(job="s", tasks=1, *, in_flight=0, least=0, most=4, target=4, age_ms=1_000, **changes):
    """A service whose replicas each have so many requests in flight."""
    each = tuple(Report(n, age_ms, in_flight_milli=in_flight * 1_000) for n in range(tasks))
    load = LoadPolicy(least, most, target, 300_000)
    return trains(job, tasks, most=most, reports=each, **({"load": load} | changes))


def leases(job, tasks, begin=0, on="n1"):
    """What it holds: a device for each task; all of its work is saved."""
    return [
        runs(job, on, (f"gpu-{begin + n}",), index=n, lease_id=f"{job}/{n}", saved_ms=HOUR)
        for n in range(tasks)
    ]


def look(*, devices=4, running=(), waiting=(), quotas=(), patience=None):
    """A scene on one node, and its planner."""
    nodes = (node("n1", devices, running=running),)
    planner = Planner(Index(nodes, CATALOGUE))
    spare = Spare(planner, Book(quotas, CATALOGUE, running))
    return Scene(
        nodes,
        running,
        waiting,
        lambda task: [chip for chip, _ in planner.chips(task.needs)],
        spare,
        patience or Patience(NOW - 15_000),
        NOW,
    )
