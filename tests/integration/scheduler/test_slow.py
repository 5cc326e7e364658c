"""The slow path in a running scheduler: elastic jobs, services, moves, over the real mesh."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from gridlease.scheduler.v1 import job_pb2
from gridlease_testkit.waiting import eventually

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
    agent.leases[lease].progress.in_flight_milli = in_flight * 1_000
    agent.leases[lease].progress.SetInParent()


async def resizes(pool, name):
    rows = await pool.fetch(
        "SELECT facts FROM event WHERE entity = $1 AND type = 'job.resizing' ORDER BY sequence",
        name,
    )
    return [int(row["facts"]["tasks_next"]) for row in rows]


async def live(agent, tell):
    """What a node does by itself: runs what it is told to, ends what it is told to end."""
    while True:
        answer = await agent.sync()
        for spec in answer.run:
            tell(spec)
        for stop in answer.stop:
            agent.see(stop.lease, "CLEAN", code=143, reason="STOPPED", gone=True)
        await asyncio.sleep(0.05)


@pytest.fixture
async def living():
    """Starts nodes that live on their own, and ends them."""
    tasks = []
    yield lambda agent, tell: tasks.append(asyncio.create_task(live(agent, tell)))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_elastic_job_grows_where_that_pays_and_never_flaps(world, pool, living):
    await world.start(**QUICK)
    agent = await world.agent("n1", chips=["H100-80GB"] * 4, emulated=True)
    job = await world.submit(**TRAINING)
    tell = lambda spec: train(agent, spec.lease, devices=spec.gang_size)  # noqa: E731
    living(agent, tell)

    async def grown():
        now = await world.get(job.name)
        ran = now.state == 2 and now.HasField("ready_time")
        return now if ran and len(now.tasks) == 4 else None

    now = await eventually(grown, 30, "it runs on all four devices")
    steps = await resizes(pool, job.name)
    assert steps == sorted(steps), "it only grows"
    assert steps[-1] == 4
    assert now.evictions == len(steps) <= 2
    passes = await pool.fetchval("SELECT max(sequence) FROM event")
    await asyncio.sleep(2.0)  # ten passes
    assert await resizes(pool, job.name) == steps
    assert passes
