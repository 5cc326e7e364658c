"""One holder, one leader: what the database refuses, and what survives a takeover."""

import asyncio
import os
import signal

import asyncpg
import pytest
from gridlease.scheduler.v1 import job_pb2
from gridlease_kernel.faults import Conflict
from gridlease_scheduler.adapters.leadership import Leadership
from gridlease_scheduler.bootstrap import ROLE, ROOM
from gridlease_testkit.waiting import eventually

from tests.integration.scheduler.process import scheduler_process
from tests.integration.scheduler.world import PROJECT


async def _node(pool, node_id="n1", devices=("gpu-0",)):
    await pool.execute(
        "INSERT INTO node (id, site, public_key, inventory) VALUES ($1, 'local', 'U', '{}')",
        node_id,
    )
    for device in devices:
        await pool.execute(
            "INSERT INTO device VALUES ($1, $2, 'A100-80GB', 'nvidia', 1, false, true)",
            node_id,
            device,
        )


async def _job(pool, name):
    await pool.execute(
        "INSERT INTO job (name, project, tenant, request_id, spec, spec_hash, needs, priority, "
        "max_attempts, notice_ms, lost_after_ms) "
        "VALUES ($1, 'projects/demo', 'tenants/demo', $1, '', '', '{}', 0, 3, 0, 0)",
        name,
    )
    await pool.execute("INSERT INTO task (job, index) VALUES ($1, 0)", name)


async def _lease(pool, lease, job, *, attempt=1, device="gpu-0"):
    await pool.execute(
        "INSERT INTO lease (id, job, task_index, attempt, node_id, lost_after_ms, cpu_milli, "
        "memory_bytes, disk_bytes, device_ids, chip, quantity_milli, rate_nano_per_hour, epoch) "
        "VALUES ($1, $2, 0, $3, 'n1', 0, 1, 1, 1, '{}', 'x', 1, 0, 1)",
        lease,
        job,
        attempt,
    )
    if device:
        await pool.execute(
            "INSERT INTO lease_device (lease_id, node_id, device_id) VALUES ($1, 'n1', $2)",
            lease,
            device,
        )


async def test_a_task_and_a_device_have_one_unclosed_lease(pool):
    await _node(pool)
    await _job(pool, "a")
    await _job(pool, "b")
    await _lease(pool, "l1", "a")
    with pytest.raises(asyncpg.UniqueViolationError, match="lease_one_a_task"):
        await _lease(pool, "l2", "a", attempt=2, device="")
    with pytest.raises(asyncpg.UniqueViolationError, match="lease_one_a_device"):
        await _lease(pool, "l3", "b")


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        (["CLOSED"], "lease_moves"),
        (["CLOSING", "ACTIVE"], "lease_moves"),
        (["CLOSING", "CLOSED", "CLOSING"], "lease_moves"),
    ],
)
async def test_a_lease_moves_along_its_machine_only(pool, path, refused):
    await _node(pool)
    await _job(pool, "a")
    await _lease(pool, "l1", "a")
    *good, bad = path
    move = (
        "UPDATE lease SET state = $1, cause = CASE WHEN $1 = 'ACTIVE' THEN NULL ELSE 'STOPPED' END"
    )
    for state in good:
        await pool.execute(move, state)
    with pytest.raises(asyncpg.CheckViolationError, match="does not move"):
        await pool.execute(move, bad)


async def test_a_job_and_a_generation_do_not_go_back(pool):
    await _node(pool)
    await _job(pool, "a")
    with pytest.raises(asyncpg.CheckViolationError, match="does not move"):
        await pool.execute("UPDATE job SET state = 'SUCCEEDED'")
    await pool.execute("UPDATE node SET generation = 5")
    with pytest.raises(asyncpg.CheckViolationError, match="does not fall"):
        await pool.execute("UPDATE node SET generation = 4")


async def test_a_deposed_leader_cannot_write(store, dsn):
    first = Leadership(dsn, ROOM, "one", role=ROLE)
    second = Leadership(dsn, ROOM, "two", role=ROLE)
    async with first.term() as old:
        async with store.writing(old.epoch):
            pass
        waiting = asyncio.create_task(_epoch_of(second))
    assert await asyncio.wait_for(waiting, 10) == old.epoch + 1
    with pytest.raises(Conflict) as caught:
        async with store.writing(old.epoch):
            pytest.fail("the fence let an old epoch in")
    assert caught.value.reason == "LEADER_DEPOSED"


async def test_a_takeover_waits_for_the_old_leaders_open_write(store, dsn, pool):
    async with Leadership(dsn, ROOM, "one", role=ROLE).term() as old, store.writing(old.epoch):
        taking = asyncio.create_task(
            pool.execute("UPDATE leader_epoch SET epoch = epoch + 1 WHERE one")
        )
        blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        await eventually(lambda: pool.fetchval(blocked), what="the takeover waits")
        assert not taking.done()
    await taking


async def test_two_schedulers_place_each_task_once(world, pool):
    stop = await world.start()
    await world.start()
    agents = [await world.agent(f"n{index}", chips=["A100-80GB"] * 4) for index in range(2)]
    names = [(await world.submit(chips=["A100"])).name for _ in range(6)]
    # The leader goes in the middle of it; the other instance carries on.
    await stop()
    names += [(await world.submit(chips=["A100"])).name for _ in range(6)]

    async def placed():
        return await pool.fetchval("SELECT count(*) FROM lease WHERE state = 'ACTIVE'") == 8

    await eventually(placed, 20, "all eight devices are held")
    for agent in agents:
        assert len({spec.lease for spec in (await agent.sync()).run}) == 4
    doubled = "SELECT count(*) FROM lease GROUP BY job HAVING count(*) > 1"
    assert await pool.fetchval(doubled) is None
    states = await pool.fetch("SELECT state, count(*) FROM job GROUP BY state ORDER BY state")
    assert [tuple(row) for row in states] == [("PENDING", 4), ("RUNNING", 8)]
    assert len(names) == 12


async def test_a_standby_takes_over_and_closes_what_was_closing(world, pool):
    """The leader is killed while leases are CLOSING; the next one asks Close again."""
    with scheduler_process(world) as process:
        agent = await world.agent()
        job = await world.submit()
        spec = await agent.given()
        world.billing.down = True
        await agent.end(spec.lease)
        await eventually(lambda: world.billing.asked_to_close, what="Close was asked")
        os.kill(process.pid, signal.SIGKILL)
    assert await pool.fetchval("SELECT state FROM lease") == "CLOSING"
    world.billing.down = False
    await world.start()
    await world.until(job.name, "SUCCEEDED")
    assert await pool.fetchval("SELECT state FROM lease") == "CLOSED"


async def test_a_killed_scheduler_resumes_with_nothing_lost(world):
    with scheduler_process(world) as process:
        agent = await world.agent()
        job = await world.submit()
        spec = await agent.given()
        waiting = await world.submit(chips=["H100"])
        os.kill(process.pid, signal.SIGKILL)
    await world.start()
    answer = await agent.sync()
    assert [each.lease for each in answer.run] == [spec.lease]
    await agent.end(spec.lease)
    await world.until(job.name, "SUCCEEDED")
    await world.reason(waiting.name, "NO_SUCH_CHIP")
    page = await world.jobs.ListJobs(job_pb2.ListJobsRequest(project=PROJECT, page_size=1))
    assert [each.name for each in page.jobs] == [waiting.name]
    rest = await world.jobs.ListJobs(
        job_pb2.ListJobsRequest(project=PROJECT, page_token=page.next_page_token)
    )
    assert [each.name for each in rest.jobs] == [job.name]


async def _epoch_of(leadership):
    async with leadership.term() as term:
        return term.epoch
