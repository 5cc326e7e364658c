"""The slow path in a running scheduler: elastic jobs, services, moves, over the real mesh."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
from gridlease.scheduler.v1 import job_pb2
from gridlease_testkit.waiting import eventually

from tests.integration.scheduler.process import scheduler_process
from tests.integration.scheduler.world import PROJECT

QUICK = {
    "slow_path_ms": 200,
    "resize_settle_ms": 300,
    "service_settle_ms": 300,
    "service_hold_ms": 1_500,
}
TRAINING = {
    "type": 1, "purpose": 1, "chips": ["H100-80GB"], "cpu_milli": 500,
    "nodes": {"min": 1, "max": 4}, "batch_size": {"min": 256, "max": 8_192}, "notice_ms": 1_000,
}  # fmt: skip


def train(agent, lease, *, devices, batch=256, step_s=0.5, variance=2e6):
    """The next sync tells of a job that learns the more, the larger its batch is."""
    agent.see(lease, "STARTING", running=True)
    seen = agent.leases[lease]
    seen.checkpoint.id = "step-100"
    told = seen.progress
    told.steps, told.steps_total, told.step_ns = 100, 1_000_000, int(step_s * 1e9)
    told.batch_size = batch * devices
    told.gradient_sqr, told.gradient_var = 1.0, variance


def serve(agent, lease, in_flight):
    """The next sync tells of a service with so many requests in flight."""
    agent.see(lease, "STARTING", running=True)
    agent.leases[lease].progress.in_flight_milli = int(in_flight * 1_000)
    agent.leases[lease].progress.SetInParent()


async def resizes(pool, name):
    rows = await pool.fetch(
        "SELECT facts FROM event WHERE entity = $1 AND type = 'job.resizing' ORDER BY sequence",
        name,
    )
    return [int(row["facts"]["tasks_next"]) for row in rows]


async def live(agent, tell):
    """What a node does by itself: runs what it is told to, ends what it is told to end."""
    never = asyncio.Event()
    while True:
        answer = await agent.sync()
        for spec in answer.run:
            tell(spec)
        for stop in answer.stop:
            agent.see(stop.lease, "CLEAN", code=143, reason="STOPPED", gone=True)
        with contextlib.suppress(TimeoutError):  # a node's own tick
            await asyncio.wait_for(never.wait(), 0.05)


@pytest.fixture
async def living():
    """Starts nodes that live on their own, and ends them."""
    tasks = []
    yield lambda agent, tell: tasks.append(asyncio.create_task(live(agent, tell)))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_elastic_job_grows_into_free_devices_and_gives_them_back(world, pool, living):
    """The scheduler is a process of its own."""
    with scheduler_process(world, **QUICK):
        agent = await world.agent("n1", chips=["H100-80GB"] * 4, emulated=True)
        other = await world.submit(chips=["H100-80GB"], count=3, notice_ms=1_000)
        await agent.given()
        job = await world.submit(**TRAINING)
        heard = []

        def tell(spec):
            heard.append(spec.lease)
            train(agent, spec.lease, devices=spec.gang_size)

        living(agent, tell)

        async def on(count):
            now = await world.get(job.name)
            ran = now.state == 2 and now.HasField("ready_time")
            return now if ran and len(now.tasks) == count else None

        await eventually(lambda: on(1), 30, "it runs on what is left")
        await goes_on(heard, 1)
        assert not await resizes(pool, job.name), "nothing is free"
        await world.jobs.CancelJob(job_pb2.CancelJobRequest(project=PROJECT, name=other.name))
        now = await eventually(lambda: on(4), 30, "it runs on all four devices")
        steps = await resizes(pool, job.name)
        assert steps == sorted(steps), "it only grows"
        assert steps[-1] == 4
        assert len(steps) <= 2
        assert now.reason.code != "RESIZED"
        await goes_on(heard, 4)
        assert await resizes(pool, job.name) == steps
        late = await world.submit(chips=["H100-80GB"], count=2)
        await world.until(late.name, "RUNNING", 30)
        await eventually(lambda: on(2), 30, "it gave back two for one that waited")
        await goes_on(heard, 3)
        assert await resizes(pool, job.name) == [*steps, 2]


async def goes_on(heard, leases):
    """For ten passes or so: at most twenty reports a second of each lease."""
    enough = len(heard) + leases * 40
    await eventually(lambda: len(heard) > enough, 30, "it goes on for ten passes")


async def test_a_service_follows_its_requests_to_none_and_back(world, pool, living):
    await world.start(**QUICK)
    agent = await world.agent("n1", chips=["L4-24GB"] * 3, emulated=True)
    load = {"n": 20}
    autoscale = {
        "min_replicas": 0, "max_replicas": 3, "target_in_flight": 4, "idle_after_ms": 1_500,
    }  # fmt: skip
    job = await world.submit(
        type=2, purpose=2, chips=["L4-24GB"], cpu_milli=500, notice_ms=1_000, autoscale=autoscale
    )
    living(agent, lambda spec: serve(agent, spec.lease, load["n"] / spec.gang_size))

    async def replicas(count):
        now = await world.get(job.name)
        ran = now.state == 2 and now.HasField("ready_time")
        return now if ran and len(now.tasks) == count else None

    await eventually(lambda: replicas(3), 30, "as many as it may have")
    load["n"] = 0
    resting = await world.until(job.name, "PENDING", 30)
    asleep = await world.reason(job.name, "SCALED_TO_ZERO")
    assert "rests until a request comes" in asleep.message
    assert (await world.explain(job.name)).reason.code == "SCALED_TO_ZERO"
    assert not await pool.fetchval("SELECT count(*) FROM lease WHERE state <> 'CLOSED'")
    assert resting.evictions == (await world.get(job.name)).evictions
    wake = job_pb2.WakeJobRequest(project=PROJECT, name=job.name)
    load["n"] = 1
    assert (await world.jobs.WakeJob(wake)).job.reason.code == "WOKEN"
    await eventually(lambda: replicas(1), 30, "one replica is back")
    revision = (await world.get(job.name)).revision
    assert (await world.jobs.WakeJob(wake)).job.revision == revision, "who runs is left alone"


async def test_small_jobs_are_moved_for_a_large_one_within_the_budget(world, pool, living):
    await world.start(**(QUICK | {"moves_per_hour": 1}))
    agents = [
        await world.agent(f"n{x}", chips=["A100-80GB"] * 2, emulated=True, cpu_milli=64_000)
        for x in (1, 2)
    ]
    small = [await world.submit(chips=["A100-80GB"], notice_ms=500) for _ in range(4)]
    for agent in agents:
        living(agent, lambda spec, agent=agent: agent.see(spec.lease, "STARTING", running=True))
    for job in small:
        await world.until(job.name, "RUNNING")
    rows = await pool.fetch("SELECT job, node_id FROM lease ORDER BY node_id, job")
    for row in (rows[0], rows[-1]):  # one of each node ends: two free, on two nodes
        await world.jobs.CancelJob(job_pb2.CancelJobRequest(project=PROJECT, name=row["job"]))
        await world.until(row["job"], "CANCELLED")
    large = await world.submit(chips=["A100-80GB"], count=2)
    await pool.execute(
        "UPDATE lease SET ready_at = now() - interval '1 hour' WHERE state = 'ACTIVE'"
    )
    await pool.execute(
        "UPDATE task SET checkpoint = 'a', checkpoint_at = now() WHERE lease_id IN "
        "(SELECT id FROM lease WHERE state = 'ACTIVE')"
    )
    await world.until(large.name, "RUNNING", 30)
    moved = await pool.fetch("SELECT entity, reason FROM event WHERE type = 'job.moving'")
    assert len(moved) == 1
    assert moved[0]["reason"]["code"] == "DEFRAGMENTED"
    assert moved[0]["reason"]["evidence"]["for"] == large.name
    again = await world.until(moved[0]["entity"], "RUNNING", 30)
    assert again.tasks[0].attempt == 2


async def test_a_killed_optimiser_changes_nothing(world, pool):
    await world.start(**QUICK)
    agent = await world.agent("n1", chips=["H100-80GB"], emulated=True)
    await world.submit(chips=["H100-80GB"], request_id="first")
    spec = await agent.given()
    await agent.run(spec.lease)
    waiting = await world.submit(chips=["H100-80GB"])
    killed = set()
    for _ in range(3):
        child = await eventually(lambda: _child(killed), 30, "an optimiser is asked")
        os.kill(child, signal.SIGKILL)
        killed.add(child)
        await world.submit(chips=["H100-80GB"])  # asks anew
    await agent.end(spec.lease)
    await agent.report(chips=["H100-80GB"], emulated=True)
    await world.until(waiting.name, "RUNNING")


def _child(but):
    """A running optimiser of this process."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        mine = b"gridlease_scheduler.optimiser" in words and parent == os.getpid()
        if mine and int(path.name) not in but:
            return int(path.name)
    return None
