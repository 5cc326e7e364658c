"""kill -9 of any one part while a job runs: it runs once, is charged once, nothing is left over."""

from __future__ import annotations

import pytest
from gridlease.type.v1 import job_pb2
from gridlease_kernel.money import amount_nano
from gridlease_testkit.waiting import eventually

from tests.e2e.world import ENDED, World, draft, prints, state_is

# It prints "begin" once a run, and lives long enough for a part to die and come back.
LONG = "echo begin; for i in 1 2 3 4 5; do sleep 1; echo tick $i; done; echo end"


_SLOW = (pytest.param(part, marks=pytest.mark.slow) for part in ("scheduler", "gateway", "nats"))


@pytest.mark.parametrize("part", ["billing", "agent", "postgres", *_SLOW])
async def test_a_part_dies_while_a_job_runs(world: World, part: str) -> None:
    async with world.tenant() as tenant, world.operator() as operator:
        name = (await tenant.submit(draft(LONG))).name
        await prints(tenant, name, b"tick 1")
        old = world.kill(part)
        await world.back(part, old)
        job = await state_is(tenant, name, *ENDED)

        output = b"".join([piece async for piece in tenant.logs(name)])
        assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job
        assert output.count(b"begin") == 1
        assert output.endswith(b"end\n")
        assert job.tasks[0].attempt == 1

        async def billed() -> bool:
            lines = await tenant.list_usage(job=name)
            return bool(lines) and all(line.lease_state == "FINAL" for line in lines)

        await eventually(billed, 40.0, "the usage is final")
        runs = [it for it in await tenant.list_usage(job=name) if it.meter == "run"]
        charged_ns = sum(it.charged_ns for it in runs)
        assert 5e9 < charged_ns <= job.tasks[0].ran_ns < charged_ns + 1e9
        assert all(it.charged_ns == min(it.counter_ns, it.granted_ns) for it in runs)
        invoice = await tenant.create_invoice(job=name)
        assert invoice.total_nano == sum(
            amount_nano(it.rate_nano_per_hour, it.charged_ns) for it in runs
        )
        assert (await operator.journal_summary()).sum_nano == 0
    await eventually(lambda: not world.shims(), 10.0, "no sandbox is left over")
    assert not world.cgroups()


async def test_a_second_up_resumes_with_nothing_lost(world: World) -> None:
    async with world.tenant() as tenant:
        before = {job.name: job.state for job in await tenant.list_jobs()}
        waiting = (await tenant.submit(draft("echo never", resources={"gpu": "H100:8"}))).name
    world.stop()
    world.start()
    async with world.tenant() as tenant:
        after = {job.name: job.state for job in await tenant.list_jobs()}
        assert after.pop(waiting) == job_pb2.JOB_STATE_PENDING
        assert after == before
        name = (await tenant.submit(draft("echo again"))).name
        job = await state_is(tenant, name, *ENDED)
        assert job.state == job_pb2.JOB_STATE_SUCCEEDED
