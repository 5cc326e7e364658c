"""Guarantees over described links: kept in PostgreSQL, admitted by the leader, told to the node."""

import grpc
import pytest
from gridlease.scheduler.v1 import capacity_pb2
from gridlease.type.v1 import capacity_pb2 as types
from gridlease.type.v1 import job_pb2 as job_types
from gridlease_mesh.status import fault_from_error
from gridlease_scheduler.adapters import jsonb
from gridlease_scheduler.domain.job import Needs, NetworkClass, NetworkNeed

from tests.integration.scheduler.test_placement import Billing, cycle, fleet, job, leases

UP = {"a": "racks/local/r1", "b": "sites/local"}

CRITICAL = Needs(
    1_000, 0, 0, allow_emulated=True, network=NetworkNeed(network_class=NetworkClass.CRITICAL)
)


async def link(world, name="up", capacity=10_000, **fields):
    fields = UP | fields
    made = types.Link(name=f"links/{name}", capacity_mbps=capacity, **fields)
    return (await world.capacity.SetLink(capacity_pb2.SetLinkRequest(link=made))).link


async def links(world):
    return (await world.capacity.ListLinks(capacity_pb2.ListLinksRequest())).links


def network(mbps, **fields):
    return job_types.NetworkRequest(guaranteed_mbps=mbps, **fields)


async def test_a_guarantee_is_admitted_written_and_told_to_the_node(world, pool):
    await world.start()
    agent = await world.agent("n1", uplink_mbps=100_000, rack="r1")
    made = await link(world, latency_us=50, kind=types.LINK_KIND_ROCE)
    assert (made.capacity_mbps, made.promised_mbps, made.down) == (10_000, 0, False)
    one = await world.submit(network=network(6_000))
    spec = await agent.given()
    assert (spec.network.guaranteed_mbps, spec.network.path) == (6_000, "up")
    assert [it.promised_mbps for it in await links(world)] == [6_000]

    two = await world.submit(network=network(6_000))
    waits = await world.reason(two.name, "NETWORK_GUARANTEE")
    assert waits.evidence["most_free_mbit"] == "4000"
    assert "4000 Mbit/s" in waits.hint
    near = await world.submit(
        network=network(0, network_class=job_types.NETWORK_CLASS_CRITICAL, latency_us=20)
    )
    assert "quick" in (await world.reason(near.name, "NETWORK_LATENCY")).message

    await link(world, capacity=20_000, latency_us=10)  # the operators laid a better cable
    for name in (two.name, near.name):
        await world.until(name, "RUNNING")
    assert [it.promised_mbps for it in await links(world)] == [12_000]
    rows = await pool.fetch("SELECT network_mbps, network_path FROM lease ORDER BY created_at, id")
    assert sorted(map(tuple, rows)) == [(0, "up"), (6_000, "up"), (6_000, "up")]
    assert (await world.get(one.name)).state == job_types.JOB_STATE_RUNNING


async def test_leases_on_a_link_that_goes_are_told_of_and_keep_running(world, pool):
    await world.start()
    agent = await world.agent("n1", uplink_mbps=100_000, rack="r1")
    await link(world)
    one = await world.submit(network=network(1_000))
    spec = await agent.given()
    for _ in range(2):  # told once
        await link(world, down=True)
    events = await pool.fetch(
        "SELECT entity, project, facts FROM event WHERE type = $1", "lease.path_broken"
    )
    assert [(it["entity"], it["facts"]["link"], it["facts"]["lease"]) for it in events] == [
        (one.name, "up", spec.lease)
    ]
    two = await world.submit(network=network(1_000))
    await world.reason(two.name, "NETWORK_UNREACHABLE")
    gone = await link(world, capacity=0)
    assert gone.capacity_mbps == 0
    assert not await links(world)
    await world.until(two.name, "RUNNING")  # nothing is known to be narrow any more
    assert (await world.get(one.name)).state == job_types.JOB_STATE_RUNNING


async def test_a_link_joins_two_places(world):
    await world.start()
    for fields in ({"b": UP["a"]}, {"a": "rooms/1"}, {"a": "racks/local"}, {"a": ""}):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await link(world, **fields)
        assert fault_from_error(caught.value).reason == "RULE_VIOLATED"


async def test_a_link_that_went_meanwhile_is_not_written_into_a_lease(store, pool):
    await fleet(pool, count=1)
    await job(pool, "one")
    await pool.execute("UPDATE job SET needs = $1", jsonb.dump(CRITICAL))
    await pool.execute(
        "INSERT INTO link (id, a, b, kind, capacity_mbps, latency_us, up) VALUES "
        "('up', 'racks/local/r1', 'sites/local', 'ethernet', 1000, 5, true)"
    )
    billing = Billing()

    async def cut():
        await pool.execute("UPDATE link SET up = false")

    billing.meanwhile = cut
    pass_ = cycle(store, billing)
    first = await pass_(0)
    assert (first.placed, first.stale) == (0, 1)
    assert (await pass_(0)).placed == 0
    assert await leases(pool) == []
    assert await pool.fetchval("SELECT reason ->> 'code' FROM job") == "NETWORK_UNREACHABLE"
    await pool.execute("UPDATE link SET up = true")
    assert (await pass_(0)).placed == 1
    assert await pool.fetchval("SELECT network_path FROM lease") == "up"
