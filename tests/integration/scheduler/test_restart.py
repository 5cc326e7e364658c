"""A new leader begins from what is on record; one that was stopped is refused when it goes on."""

import os
import signal

import grpc
import pytest
from gridlease_agent.domain.lease import apply_desired_set
from gridlease_agent.domain.spool import Clocks, Spool, Wanted
from gridlease_kernel.faults import Conflict
from gridlease_testkit.waiting import eventually

from tests.integration.scheduler.process import scheduler_process

JOBS = 200
_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_DOUBLE = """
SELECT count(*) FROM (SELECT 1 FROM lease_device WHERE NOT closed
    GROUP BY node_id, device_id HAVING count(*) > 1) AS twice
"""


async def _epoch(pool):
    return await pool.fetchval("SELECT epoch FROM leader_epoch")


async def _heard(call):
    """A call's answer: the stopped process is still asked sometimes, and such calls are lost."""

    async def answer():
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() not in _LOST:
                raise
            return None

    return await eventually(answer, 30, "an answer")


async def _counts(pool):
    rows = await pool.fetch("SELECT state, count(*) FROM job GROUP BY state")
    return dict(rows)


async def test_a_killed_leaders_queue_and_holdings_are_the_next_ones(world, pool):
    """Killed while it places; the next one places the rest, and nothing twice."""
    with scheduler_process(world) as process:
        for index in range(4):
            await world.agent(f"n{index}", chips=["A100-80GB"] * 8, cpu_milli=64_000)
        waiting = [await world.submit(chips=["H100"]) for _ in range(3)]
        for number in range(JOBS // 4):
            await world.submit(chips=["A100"], cpu_milli=100, priority=number % 3)

        async def some():
            return await pool.fetchval("SELECT count(*) FROM lease") >= 8

        await eventually(some, 20, "some are placed")
        os.kill(process.pid, signal.SIGKILL)
    before = await _epoch(pool)
    await world.start()
    await world.submit(chips=["A100"], cpu_milli=100)

    async def full():
        return await pool.fetchval("SELECT count(*) FROM lease WHERE state = 'ACTIVE'") == 32

    await eventually(full, 20, "all 32 devices are held")
    assert await _epoch(pool) == before + 1
    assert await pool.fetchval(_DOUBLE) == 0
    assert await _counts(pool) == {"RUNNING": 32, "PENDING": JOBS // 4 + 3 + 1 - 32}
    for job in waiting:
        await world.reason(job.name, "NO_SUCH_CHIP")
    doubled = "SELECT count(*) FROM lease GROUP BY job HAVING count(*) > 1"
    assert await pool.fetchval(doubled) is None


@pytest.mark.slow  # a leader must be thought dead first; by default: an older epoch writes nothing
async def test_a_leader_that_was_stopped_is_refused_when_it_goes_on(world, pool):
    with scheduler_process(world) as zombie:
        agent = await world.agent(chips=["A100-80GB"] * 2)
        first = await world.submit(chips=["A100"])
        spec = await agent.given()
        old = await agent.sync()
        epoch = await _epoch(pool)
        os.kill(zombie.pid, signal.SIGSTOP)
        try:
            await world.start()

            async def taken():
                return await _epoch(pool) == epoch + 1

            await eventually(taken, 30, "another leads")
            second = await _heard(lambda: world.submit("second", chips=["A100"]))
            await _heard(lambda: world.until(second.name, "RUNNING", 20))
            new = await _heard(agent.sync)
        finally:
            os.kill(zombie.pid, signal.SIGCONT)

        async def deposed():
            return "no longer leading" in (world.folder / "scheduler.log").read_text()

        # The database: none of its writes goes through from here on.
        await eventually(deposed, 20, "the stopped leader finds itself deposed")
        third = await world.submit(chips=["A100"])
        await world.reason(third.name, "CHIP_BUSY")
        epochs = await pool.fetch("SELECT job, epoch FROM lease ORDER BY epoch")
        assert [tuple(row) for row in epochs] == [
            (first.name, epoch),
            (second.name, epoch + 1),
        ]
        assert await pool.fetchval(_DOUBLE) == 0
    # The agents: its older set, however late, changes nothing.
    assert new.generation > old.generation
    spool = _apply(_apply(Spool("s"), new), old)
    assert spool.generation == new.generation
    assert set(spool.rows) == {each.lease for each in new.run} != {spec.lease}


def _apply(spool, answer):
    """What the agent's own record becomes by an answer to SyncNode."""
    run = [Wanted(each.lease, ()) for each in answer.run]
    return apply_desired_set(spool, Clocks("boot-1", 0, 0), answer.generation, run, ())


async def test_an_older_epoch_writes_nothing(store, pool):
    await pool.execute("UPDATE leader_epoch SET epoch = 7")
    async with store.writing(7):
        pass
    with pytest.raises(Conflict, match="7 leads now"):
        async with store.writing(6):
            pytest.fail("the fence let an old epoch in")
