"""How soon does a new leader decide rightly, with a long queue and a large fleet?

The scheduler is killed with SIGKILL; as many jobs wait as asked for, none of which can be placed
now, behind them one that can: it came last, and has its place only in a queue that is known whole.
Another scheduler starts and leads. Measured from the instant at which it leads to the commit of
that job's lease. Nodes are emulated: rows of the store, no agents.
"""

import argparse
import asyncio
import time

from gridlease_testkit.waiting import eventually

from . import figures, placement_core
from .placement_world import running

_JOBS = """
INSERT INTO scheduler.job (name, project, tenant, request_id, spec, spec_hash, needs, priority,
    max_attempts, notice_ms, lost_after_ms)
SELECT 'projects/p' || n % 50 || '/jobs/j' || n, 'projects/p' || n % 50, 'tenants/t' || n % 8,
    'r' || n, '', '', replace(replace($2, 'CHIP', CASE WHEN n % 2 = 0 THEN 'MI300X-192GB'
    ELSE 'H100-80GB' END), '777', (1 + n % 40)::text)::jsonb, n % 100, 3, 30000, 86400000
FROM generate_series(1, $1) AS n
"""
_TASKS = "INSERT INTO scheduler.task (job, index) SELECT name, 0 FROM scheduler.job"
_NEEDS = (
    '{"cpu_milli": 777, "memory_bytes": 1000, "disk_bytes": 1000, "purpose": "BATCH", '
    '"tier": "ON_DEMAND", "runtime": "", "budget_nano": 0, "max_price_nano_per_hour": 0, '
    '"allow_emulated": true, "accelerator": {"chips": ["CHIP"], "vendor": "", '
    '"memory_min_bytes": 0, "memory_max_bytes": 0, "count": COUNT}}'
)
_LAST = """
SELECT extract(epoch FROM l.created_at - e.taken_at)::float8 FROM scheduler.lease l,
    scheduler.leader_epoch e WHERE l.job = 'projects/p/jobs/last'
"""
_LIMIT_S = 120.0


async def measure(nodes, jobs):
    """Seconds from the lead to the first decision's transaction, and to its sight from outside."""
    async with running(nodes) as world:
        world.kill("scheduler")
        figures.note(f"{jobs} jobs that wait, and one that can be placed")
        async with world.owner.transaction():
            waiting = _NEEDS.replace("COUNT", str(placement_core.PER_NODE + 1))
            await world.owner.execute(_JOBS, jobs, waiting)
            await world.owner.execute(
                _JOBS.replace("'projects/p' || n % 50 || '/jobs/j' || n", "'projects/p/jobs/last'")
                .replace("'r' || n", "'last'")
                .replace("H100-80GB", "L4-24GB"),
                1,
                _NEEDS.replace("COUNT", "2"),
            )
            await world.owner.execute(_TASKS)
        await world.owner.execute("VACUUM ANALYZE")
        before = await world.owner.fetchval("SELECT epoch FROM scheduler.leader_epoch")
        began = time.perf_counter()
        await world.start("scheduler")
        served = time.perf_counter() - began
        found = await eventually(
            lambda: world.owner.fetchval(_LAST), _LIMIT_S, "the first decision"
        )
        seen = time.perf_counter() - began
        leases = await world.owner.fetchval("SELECT count(*) FROM scheduler.lease")
        epoch = await world.owner.fetchval("SELECT epoch FROM scheduler.leader_epoch")
        assert epoch == before + 1
        return {
            "first_decision_s": found,
            "process_to_decision_s": seen,
            "process_to_serving_s": served,
            "leases": leases,
            "double": leases - 1,
        }


def main(words):
    parser = argparse.ArgumentParser(prog="./dev bench restart", description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=100_000)
    options = parser.parse_args(words)
    head = {"bench": "restart", "machine": figures.machine()}
    found = asyncio.run(measure(options.nodes, options.jobs))
    figures.table(
        f"A new leader over {options.nodes} emulated nodes and {options.jobs} waiting jobs",
        ("", ""),
        [(key, f"{value:.4g}") for key, value in found.items()],
    )
    figures.last_line(**head, **figures.rounded({"results": found, "baseline": {}, "ratio": {}}))
    return 0
