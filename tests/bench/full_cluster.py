"""A cluster where every device is held, and the least that must be lost to make room in it."""

import numpy as np
from gridlease_scheduler.domain.eviction.victims import lost_work
from gridlease_scheduler.domain.job import Tier
from scipy.optimize import Bounds, LinearConstraint, milp

from tests.unit.scheduler.standing import CATALOGUE, MINUTE, runs

SPEEDS = {chip.name: chip.throughput for chip in CATALOGUE.chips}


def full_cluster(random, names, gangs):
    """Every device is held: some gangs over several nodes, the rest in small jobs."""
    free = {name: [f"gpu-{k}" for k in range(8)] for name in names}
    leases = []

    def hold(job, shape):
        fields = {"tier": Tier.SPOT, "worked_ms": random.randrange(10 * MINUTE, 600 * MINUTE)}
        fields["saved_ms"] = random.randrange(fields["worked_ms"])
        for name, count in shape:
            mine, free[name] = tuple(free[name][:count]), free[name][count:]
            leases.append(runs(job, name, mine, **fields))

    for at in range(gangs):
        several = random.sample(names, random.randrange(2, 5))
        shape = [(x, min(len(free[x]), random.randrange(1, 5))) for x in several]
        hold(f"g{at}", [(x, count) for x, count in shape if count])
    for name in names:
        at = 0
        while free[name]:
            at += 1
            hold(f"{name}-{at}", [(name, min(len(free[name]), random.choice((1, 2, 4))))])
    return leases


def by_milp(task, names, leases):
    """The same question to HiGHS: victims and members of each node, least work lost."""
    jobs = sorted({x.job for x in leases})
    count = task.needs.accelerator.count
    lost = [lost_work([x for x in leases if x.job == job], SPEEDS) for job in jobs]
    scale = max(lost)
    rows = np.zeros((len(names) + 1, len(jobs) + len(names)))
    for lease in leases:
        rows[names.index(lease.node_id), jobs.index(lease.job)] += len(lease.allocation.device_ids)
    for at in range(len(names)):
        rows[at, len(jobs) + at] = -count
    rows[-1, len(jobs) :] = 1
    low = np.zeros(len(names) + 1)
    low[-1] = task.tasks
    many = len(jobs) + len(names)
    found = milp(
        np.array([*(x / scale for x in lost), *([0.0] * len(names))]),
        constraints=LinearConstraint(rows, low, np.inf),
        integrality=np.ones(many),
        bounds=Bounds(np.zeros(many), np.array([1.0] * len(jobs) + [8.0] * len(names))),
        options={"mip_rel_gap": 1e-4},
    )
    assert found.success, found.message
    return sum(each for each, x in zip(lost, found.x, strict=False) if x > 0.5)
