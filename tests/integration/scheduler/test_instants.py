"""Under two schedulers and jobs that come and go, no instant exceeds capacity (I7, P2)."""

import asyncio
import random

from gridlease_testkit.waiting import eventually

_OVER = """
SELECT n.id FROM node n JOIN lease l ON l.node_id = n.id AND l.state <> 'CLOSED'
GROUP BY n.id, n.cpu_milli, n.memory_bytes
HAVING sum(l.cpu_milli) > n.cpu_milli OR sum(l.memory_bytes) > n.memory_bytes
"""
_JOBS = 60


async def test_no_instant_exceeds_capacity(world, pool):
    await world.start()
    await world.start()
    agents = [
        await world.agent(f"n{index}", cpu_milli=4_000, chips=["A100-80GB"] * 2)
        for index in range(2)
    ]
    dice = random.Random(7)
    ended = asyncio.Event()
    instants = 0

    async def look():
        nonlocal instants
        while not ended.is_set():
            assert await pool.fetch(_OVER) == []
            instants += 1
            await asyncio.sleep(0)

    async def work(agent):
        while not ended.is_set():
            answer = await agent.sync()
            known = {spec.lease for spec in answer.run} | {stop.lease for stop in answer.stop}
            agent.leases = {lease: seen for lease, seen in agent.leases.items() if lease in known}
            for spec in answer.run:
                if dice.random() < 0.5:
                    agent.see(spec.lease, "STARTING", running=True)
                else:
                    agent.see(spec.lease, "CLEAN", code=0, gone=True)

    helpers = [asyncio.create_task(look()), *(asyncio.create_task(work(x)) for x in agents)]
    for _ in range(_JOBS):
        chips = ["A100"] if dice.random() < 0.3 else []
        await world.submit(cpu_milli=dice.choice((500, 1_000, 2_500)), chips=chips)

    async def done():
        for helper in helpers:
            assert not helper.done(), helper
        return await pool.fetchval("SELECT count(*) FROM job WHERE state = 'SUCCEEDED'") == _JOBS

    await eventually(done, 60, "all jobs succeed")
    ended.set()
    await asyncio.gather(*helpers)
    assert instants > _JOBS
    attempts = await pool.fetchval("SELECT max(attempt) FROM lease")
    assert attempts == 1
