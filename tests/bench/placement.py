"""How many gangs a second are placed for good: through the mesh, billing and PostgreSQL?

A unit is one gang of 1 to 64 devices (``placement_core``): submitted over the mesh, decided,
authorised by billing (price, hold), its lease rows and its nodes' generations committed. 64
submitters wait for each other in a closed loop: each submits, waits until its gang's commit is
told, and submits the next. The scheduler is killed with SIGKILL while they submit; only what is
then on record counts. Nodes are emulated: rows of the store, no agents. The core is measured alone,
beside a naive scan of numpy masks that decides by the same rules.
"""

import argparse
import asyncio
import itertools
import time

import asyncpg
from gridlease.scheduler.v1 import job_pb2, job_pb2_grpc
from gridlease.type.v1 import job_pb2 as type_job_pb2
from gridlease_testkit.waiting import eventually

from . import figures, placement_core
from .placement_world import TENANTS, running

SUBMITTERS = 64
WARM = 0.15  # of the gangs, before anything is timed
_WAIT_S = 30.0
_LONGEST_S = 600.0
_PLACED = """
SELECT l.job, count(*) AS leases, min(j.tasks) AS tasks, bool_and(j.state = 'RUNNING') AS running,
    bool_and(n.generation > 0) AS told
FROM scheduler.lease l JOIN scheduler.job j ON j.name = l.job JOIN scheduler.node n
    ON n.id = l.node_id
GROUP BY l.job
"""
_HELD = "SELECT count(*) FROM billing.lease WHERE state = 'HELD' AND id = ANY($1::text[])"
_WAIT = "SELECT count(*) FROM scheduler.job WHERE state = 'PENDING' AND name = ANY($1::text[])"
_DOUBLE = """
SELECT count(*) FROM (SELECT 1 FROM scheduler.lease_device WHERE NOT closed
    GROUP BY node_id, device_id HAVING count(*) > 1) AS twice
"""


class Load:
    """The submitters, and the ear for commits."""

    def __init__(self, channel):
        self.stub = job_pb2_grpc.JobServiceStub(channel)
        self.gangs = placement_core.gangs(3)
        self.numbers = itertools.count(1)
        self.names = {}  # job -> (submitted, heard committed), in seconds
        self.waiting = {}
        self.early = set()

    def heard(self, _connection, _pid, _channel, name):
        """A job's row changed and is committed: first as it is submitted, then as it is placed."""
        if name not in self.early:
            self.early.add(name)
            return
        waiter = self.waiting.pop(name, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(time.perf_counter())
        else:
            self.waiting[name] = None

    async def submit(self, total):
        """One submitter, until so many gangs were submitted by all."""
        while (number := next(self.numbers)) <= total:
            message = request(number, *next(self.gangs))
            began = time.perf_counter()
            job = (await self.stub.SubmitJob(message, timeout=_WAIT_S)).job
            if job.name in self.waiting:
                del self.waiting[job.name]
                done = time.perf_counter()
            else:
                waiter = self.waiting[job.name] = asyncio.get_running_loop().create_future()
                done = await asyncio.wait_for(waiter, _WAIT_S)
            self.names[job.name] = (began, done)


def request(number, accepted, devices, members):
    """A gang as its tenant submits it."""
    spec = type_job_pb2.JobSpec(commands=["true"], purpose=type_job_pb2.PURPOSE_TRAINING)
    spec.resources.cpu_milli.min = placement_core.CPU_DEVICE * devices
    spec.resources.memory_bytes.min = placement_core.MEMORY_DEVICE * devices
    spec.resources.accelerator.chips.extend(accepted)
    spec.resources.accelerator.count.min = devices
    spec.nodes.min = spec.nodes.max = members
    return job_pb2.SubmitJobRequest(
        tenant=f"tenants/t{number % TENANTS}",
        project=f"projects/p{number % TENANTS}",
        request_id=f"r{number}",
        spec=spec,
    )


async def durable(nodes, gangs):
    """The durable figures: submit, kill, read what is on record."""
    async with running(nodes) as world:
        bus = await world.bus()
        load = Load(bus.channel())
        ear = await asyncpg.connect(world.postgres.dsn(), timeout=30)
        await ear.add_listener("scheduler_job", load.heard)
        warm = int(gangs * WARM)
        figures.note(f"{warm} gangs to warm up, then {gangs - warm}")
        submitters = [asyncio.create_task(load.submit(gangs)) for _ in range(SUBMITTERS)]
        await _until(load, warm, submitters)
        before, began = world.cpu_s(), time.perf_counter()
        await _until(load, gangs - SUBMITTERS, submitters)
        after, ended = world.cpu_s(), time.perf_counter()
        world.kill("scheduler")
        for each in submitters:
            each.cancel()
        await asyncio.gather(*submitters, return_exceptions=True)
        await ear.close()
        return await _count(world, load, began, ended, before, after)


async def _until(load, many, submitters):
    """Until so many gangs are placed, or a submitter has failed."""

    def there():
        for each in submitters:
            if each.done() and each.exception() is not None:
                raise each.exception()
        return len(load.names) >= many

    await eventually(there, _LONGEST_S, f"{many} gangs")


async def _count(world, load, began, ended, before, after):
    """Only what is on record counts."""
    rows = {row["job"]: row for row in await world.owner.fetch(_PLACED)}
    good = {
        name
        for name, row in rows.items()
        if row["leases"] == row["tasks"] and row["running"] and row["told"]
    }
    told = {name for name, (_, done) in load.names.items() if began < done <= ended}
    took = sorted((load.names[x][1] - load.names[x][0]) * 1e3 for x in told & good)
    leases = [row["id"] for row in await world.owner.fetch("SELECT id FROM scheduler.lease")]
    waited = await world.owner.fetchval(_WAIT, list(told - good))
    members = sum(rows[name]["leases"] for name in told & good)
    return {
        "per_s": len(took) / (ended - began),
        "p50_ms": figures.percentile(took, 0.5),
        "p99_ms": figures.percentile(took, 0.99),
        "gangs": len(took),
        "leases": members,
        "told_to_wait": waited,
        "lost": len(told - good) - waited,
        "half": sum(row["leases"] != row["tasks"] for row in rows.values()),
        "without_hold": len(leases) - await world.owner.fetchval(_HELD, leases),
        "double": await world.owner.fetchval(_DOUBLE),
        "cpu_ms_per_gang": {name: (after[name] - before[name]) * 1e3 / len(took) for name in after},
        "wall_s": ended - began,
    }


def options_of(words):
    parser = argparse.ArgumentParser(prog="./dev bench placement", description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--gangs", type=int, default=0, help="default: 70 %% of the devices")
    parser.add_argument("--decisions", type=int, default=20_000, help="of the core, timed")
    parser.add_argument("--no-core", action="store_true", help="the durable part alone")
    return parser.parse_args(words)


def main(words):
    options = options_of(words)
    head = {"bench": "placement", "machine": figures.machine()}
    mean = sum(
        size * share
        for size, share in zip(placement_core.SIZES, placement_core.SHARES, strict=True)
    ) / sum(placement_core.SHARES)
    room = int(options.nodes * placement_core.PER_NODE * 0.7 / mean)
    core = {} if options.no_core else placement_core.measure(options.nodes, options.decisions)
    found = asyncio.run(durable(options.nodes, min(options.gangs or room, room)))
    rows = [(key, f"{value:.6g}") for key, value in core.items()]
    if rows:
        figures.table("The core, without I/O", ("", ""), rows)
    cpu = found["cpu_ms_per_gang"]
    rows = [(name, f"{each:.3f}", f"{each / sum(cpu.values()):.0%}") for name, each in cpu.items()]
    rows.append(("all", f"{sum(cpu.values()):.3f}", ""))
    figures.table("Where the time goes: CPU milliseconds a gang", ("part", "CPU ms", "share"), rows)
    rows = [(key, f"{value:.6g}") for key, value in found.items() if key != "cpu_ms_per_gang"]
    figures.table(f"Durable placements over {options.nodes} emulated nodes", ("", ""), rows)
    figures.last_line(**head, **outcome(options, core, found))
    return 0


def outcome(options, core, found):
    """The promised object."""
    results = {
        "durable_per_s": found["per_s"],
        "p50_ms": found["p50_ms"],
        "p99_ms": found["p99_ms"],
        "lost": found["lost"],
        "double": found["double"],
        "cpu_ms_per_gang": found["cpu_ms_per_gang"],
    }
    if not core:
        return figures.rounded({"results": results, "baseline": {}, "ratio": {}})
    results |= {
        "core_per_s": core["core_per_s"],
        "pass_100k_jobs_s": core["pass_100k_jobs_s"],
    }
    return figures.rounded(
        {
            "nodes": options.nodes,
            "emulated": True,
            "results": results,
            "baseline": {"numpy": {"core_per_s": core["numpy_per_s"]}},
            "ratio": {
                "core_vs_numpy": core["core_per_s"] / core["numpy_per_s"],
                "p99_100k_vs_1k_nodes": core["p99_us_100k_nodes"] / core["p99_us_1k_nodes"],
            },
        }
    )
