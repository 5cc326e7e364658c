"""What operators promise and limit, over the real mesh, and what a plan reads of it."""

import grpc
import pytest
from gridlease.scheduler.v1 import capacity_pb2, fleet_pb2
from gridlease.type.v1 import capacity_pb2 as types
from gridlease_mesh.status import fault_from_error
from gridlease_scheduler.adapters import catalogue
from gridlease_scheduler.adapters.store import PostgresStore
from gridlease_scheduler.domain.order.decay import used_lately
from gridlease_testkit.waiting import eventually

from tests.integration.scheduler.world import PROJECT, TENANT

HOUR_S = 3_600
BEGIN_S = 4_000_000_000


async def fault_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return fault_from_error(caught.value)


def set_quota(world, project=PROJECT, **fields):
    quota = types.Quota(project=project, **fields)
    return world.capacity.SetQuota(capacity_pb2.SetQuotaRequest(quota=quota))


async def parts(pool):
    async with PostgresStore(pool, disconnected_ms=30_000).reading() as tx:
        return await tx.planning.parts(catalogue.load())


async def test_quotas_nest_and_must_make_sense_together(world):
    await world.start()
    agent = await world.agent("n1", chips=("A100-80GB",) * 2)
    job = await world.submit(chips=("A100-80GB",))
    await agent.given()
    await set_quota(world, "folders/research", guaranteed_milli=4_000, limit_milli=8_000)
    answer = await set_quota(
        world, parent="folders/research", guaranteed_milli=2_000, limit_milli=4_000
    )
    assert answer.quota.used_milli == 1_000
    await set_quota(world, chip="a100-80gb", limit_milli=3_000)
    found = await world.capacity.ListQuotas(capacity_pb2.ListQuotasRequest())
    assert [(it.project, it.chip, it.used_milli) for it in found.quotas] == [
        ("folders/research", "", 1_000), (PROJECT, "", 1_000), (PROJECT, "A100-80GB", 1_000),
    ]  # fmt: skip
    fault = await fault_of(
        set_quota(world, "projects/other", parent="folders/research", guaranteed_milli=7_000)
    )
    assert (fault.reason, fault.field) == ("QUOTAS_CONTRADICT", "quota")
    assert (await fault_of(set_quota(world, chip="A1000", limit_milli=1))).reason == "UNKNOWN_CHIP"
    await set_quota(world, chip="A100-80GB")  # all zero takes it away
    mine = await world.capacity.ListQuotas(capacity_pb2.ListQuotasRequest(project=PROJECT))
    assert [it.chip for it in mine.quotas] == [""]
    assert (await world.get(job.name)).tasks[0].lease


async def test_an_order_tells_billing_what_power_is_at_its_site(world):
    await world.start()
    agent = await world.agent("n1")
    site = types.Site(
        name="sites/local", pue_milli=1_250, price_nano_per_kwh=range(24),
        carbon_mg_per_kwh=[400_000],
    )  # fmt: skip
    await world.capacity.SetSite(capacity_pb2.SetSiteRequest(site=site))
    await world.submit()
    lease = (await agent.given()).lease
    power = world.billing.orders[lease].power
    assert power.pue_milli == 1_250
    assert list(power.price_nano_per_kwh) == list(range(24))
    assert list(power.carbon_mg_per_kwh) == [400_000]


async def test_sites_are_written_whole_and_planned_with(world, pool):
    await world.start()
    await world.agent("n1")
    site = types.Site(
        name="sites/local", pue_milli=1_250, cap_watts=40_000, rack_cap_watts={"r1": 9_000},
        price_nano_per_kwh=range(24), carbon_mg_per_kwh=[400_000],
    )  # fmt: skip
    answer = await world.capacity.SetSite(capacity_pb2.SetSiteRequest(site=site))
    assert (answer.site.node_count, answer.site.rack_cap_watts["r1"]) == (1, 9_000)
    await world.capacity.SetSite(capacity_pb2.SetSiteRequest(site=types.Site(name="sites/edge-2")))
    found = await world.capacity.ListSites(capacity_pb2.ListSitesRequest())
    assert [(it.name, it.pue_milli) for it in found.sites] == [
        ("sites/edge-2", 1_000), ("sites/local", 1_250),
    ]  # fmt: skip
    [_, local] = (await parts(pool)).sites
    assert (local.name, local.rack_cap_watts, local.price_nano_per_kwh[23]) == (
        "local", (("r1", 9_000),), 23,
    )  # fmt: skip
    fault = await fault_of(
        world.capacity.SetSite(
            capacity_pb2.SetSiteRequest(
                site=types.Site(name="sites/local", price_nano_per_kwh=[1, 2])
            )
        )
    )
    assert fault.reason == "RULE_VIOLATED"


def reservation(milli=1_000, begin_s=BEGIN_S, hours=1, project=PROJECT, chip="A100-80GB"):
    made = types.Reservation(project=project, chip=chip, quantity_milli=milli)
    made.begin_time.seconds, made.end_time.seconds = begin_s, begin_s + hours * HOUR_S
    return made


def reserve(world, request_id, **fields):
    return world.capacity.CreateReservation(
        capacity_pb2.CreateReservationRequest(
            reservation=reservation(**fields), request_id=request_id
        )
    )


async def test_reservations_never_promise_more_than_there_is(world, pool):
    await world.start()
    await world.agent("n1", chips=("A100-80GB",) * 2)
    first = (await reserve(world, "r1", milli=1_000)).reservation
    again = (await reserve(world, "r1", milli=1_000)).reservation
    assert first.name == again.name
    assert (await fault_of(reserve(world, "r1", milli=2_000))).reason == "REQUEST_ID_REUSED"
    fault = await fault_of(reserve(world, "r2", milli=2_000))
    assert fault.reason == "RESERVATION_DOES_NOT_FIT"
    assert int(fault.metadata["fits_at_ms"]) == (BEGIN_S + HOUR_S) * 1_000
    await reserve(world, "r3", milli=2_000, begin_s=BEGIN_S + HOUR_S)
    assert [it.quantity_milli for it in (await parts(pool)).reservations] == [1_000, 2_000]
    assert (await fault_of(reserve(world, "r4", begin_s=1_000))).reason == "BAD_WINDOW"
    assert (await fault_of(reserve(world, "r5", chip="A1000"))).reason == "UNKNOWN_CHIP"
    # Another project's is not there.
    other = capacity_pb2.CancelReservationRequest(name=first.name, project="projects/other")
    assert (await fault_of(world.capacity.CancelReservation(other))).reason == (
        "RESERVATION_NOT_FOUND"
    )
    mine = capacity_pb2.CancelReservationRequest(name=first.name, project=PROJECT)
    for _ in range(2):
        gone = await world.capacity.CancelReservation(mine)
        assert gone.reservation.HasField("cancel_time")
    left = await world.capacity.ListReservations(capacity_pb2.ListReservationsRequest())
    assert [it.quantity_milli for it in left.reservations] == [2_000]


async def test_a_job_names_only_a_reservation_of_its_own_project(world):
    await world.start()
    await world.agent("n1", chips=("A100-80GB",))
    mine = (await reserve(world, "r1")).reservation
    theirs = (
        await reserve(world, "r2", project="projects/other", begin_s=BEGIN_S + HOUR_S)
    ).reservation
    job = await world.submit(chips=("A100-80GB",), reservation=mine.name)
    assert job.spec.reservation == mine.name
    for name in (theirs.name, "reservations/rs-none"):
        fault = await fault_of(world.submit(chips=("A100-80GB",), reservation=name))
        assert (fault.reason, fault.field) == ("NO_RESERVATION", "spec.reservation")


async def test_recent_use_is_kept_weighted_and_fades(world, pool):
    await world.start()
    agent = await world.agent("n1", chips=("A100-80GB",))
    job = await world.submit(chips=("A100-80GB",))
    spec = await agent.given()
    await agent.run(spec.lease)
    await pool.execute("UPDATE lease SET ready_at = now() - interval '2 hours'")
    [running] = (await parts(pool)).running
    assert 7_200_000 <= running.worked_ms < 7_260_000
    [share] = (await parts(pool)).shares
    expected = used_lately(1_000, 100, 7_200_000)
    assert expected <= share.used < expected * 1.01
    await agent.end(spec.lease)
    await world.until(job.name, "SUCCEEDED")
    await pool.execute("UPDATE share SET used_at = used_at - interval '7 days'")
    [share] = (await parts(pool)).shares
    assert expected * 0.49 < share.used < expected * 0.51
    weighed = await world.capacity.SetShare(
        capacity_pb2.SetShareRequest(share=types.Share(tenant=TENANT, weight=3))
    )
    assert weighed.share.weight == 3
    assert 0.9 < weighed.share.recent_device_hours < 1.1


async def test_a_plan_reads_what_runs_with_its_checkpoint_and_evictions(world, pool):
    await world.start()
    agent = await world.agent()
    job = await world.submit(max_duration_ms=900_000, priority=7, notice_ms=5_000)
    spec = await agent.given()
    agent.see(spec.lease, "STARTING", running=True)
    agent.leases[spec.lease].checkpoint.id = "a"
    agent.leases[spec.lease].progress.batch_size = 256
    await agent.sync()
    await pool.execute("UPDATE lease SET ready_at = now() - interval '100 s'")
    await pool.execute("UPDATE task SET checkpoint_at = now() - interval '40 s'")
    await pool.execute("UPDATE job SET evictions = 2, last_evicted_at = now() - interval '1 hour'")
    [running] = (await parts(pool)).running
    assert (running.job, running.priority, running.longest_ms, running.evictions) == (
        job.name, 7, 900_000, 2,
    )  # fmt: skip
    assert 59_000 <= running.saved_ms <= 61_000
    assert 100_000 <= running.worked_ms < 160_000
    assert not running.closing
    await pool.execute("UPDATE job SET last_evicted_at = now() - interval '2 days'")
    assert (await parts(pool)).running[0].evictions == 0
    assert await pool.fetchval("SELECT progress FROM task") == {"batch_size": 256}


async def test_an_operators_word_on_the_rack_comes_before_the_nodes_own(world):
    await world.start()
    agent = await world.agent("n1")
    told = await world.fleet.SetNodeTopology(
        fleet_pb2.SetNodeTopologyRequest(name="nodes/n1", rack="r7", rail="b")
    )
    assert (told.node.rack, told.node.rail) == ("r7", "b")
    await agent.report()

    async def seen():
        node = (await world.fleet.GetNode(fleet_pb2.GetNodeRequest(name="nodes/n1"))).node
        return node if node.rack == "r7" else None

    assert await eventually(seen, what="the rack stays")
    fault = await fault_of(
        world.fleet.SetNodeTopology(fleet_pb2.SetNodeTopologyRequest(name="nodes/none"))
    )
    assert fault.reason == "NODE_NOT_FOUND"
