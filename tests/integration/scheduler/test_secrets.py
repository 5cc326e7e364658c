"""Secrets reach the node, and nobody else: no answer, no event, and no table once it is over."""

import os

from gridlease.scheduler.v1 import job_pb2

from tests.integration.scheduler.world import PROJECT


async def test_secrets_go_to_the_node_alone_and_are_gone_at_the_end(world, pool):
    canary = "canary-" + os.urandom(12).hex()
    await world.start()
    agent = await world.agent()
    answered = await world.submit("once", image="registry.example/a:v1", secrets={"TOKEN": canary})
    spec = await agent.given()
    assert dict(spec.secrets) == {"TOKEN": canary}
    assert spec.image == "registry.example/a:v1"
    page = await world.jobs.ListJobs(job_pb2.ListJobsRequest(project=PROJECT))
    for job in (answered, await world.get(answered.name), *page.jobs):
        assert dict(job.spec.secrets) == {"TOKEN": ""}
        assert canary not in str(job)
    again = await world.submit("once", image="registry.example/a:v1", secrets={"TOKEN": canary})
    assert again.name == answered.name
    await agent.run(spec.lease)
    await agent.end(spec.lease)
    await world.until(answered.name, "SUCCEEDED")
    assert await _tables_with(pool, canary) == []


async def _tables_with(pool, canary):
    """Tables that hold the value, as text or as bytes."""
    hexed = canary.encode().hex()
    tables = await pool.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = "
        "current_schema()::regnamespace"
    )
    found = []
    for (name,) in tables:
        held = await pool.fetchval(
            f'SELECT count(*) FROM "{name}" t WHERE t::text LIKE $1 OR t::text LIKE $2',
            f"%{canary}%",
            f"%{hexed}%",
        )
        if held:
            found.append(name)
    return found
