"""Dry runs, quotas, sites, reservations and drains at the door: who may, and what is passed on."""

import asyncpg
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.type.v1 import capacity_pb2 as types
from gridlease.type.v1 import fleet_pb2, job_pb2
from gridlease_kernel.faults import Forbidden, Missing

from tests.integration.gateway.test_jobs import fault_of, other_tenant

BEGIN_S = 4_000_000_000


def spec():
    made = job_pb2.JobSpec(commands=["true"], span=job_pb2.SPAN_RACK)
    made.resources.cpu_milli.min = 1_000
    made.nodes.min, made.nodes.max = 2, 8
    return made


def reservation(project="projects/demo"):
    made = types.Reservation(project=project, chip="A100-80GB", quantity_milli=1_000)
    made.begin_time.seconds, made.end_time.seconds = BEGIN_S, BEGIN_S + 3_600
    return made


async def test_a_plan_is_asked_for_the_keys_own_project(world):
    answer = await world.stub("JobService").PlanJob(pb.PlanJobRequest(spec=spec()))
    assert (answer.placeable, answer.reason.code, answer.currency) == (False, "CHIP_BUSY", "USD")
    assert answer.options[0].asked_for
    [asked] = world.scheduler.submits
    assert (asked.tenant, asked.project) == ("tenants/demo", "projects/demo")
    assert asked.spec == spec()
    foreign = pb.PlanJobRequest(parent="projects/other", spec=spec())
    fault = await fault_of(world.stub("JobService").PlanJob(foreign))
    assert fault.reason == "PROJECT_NOT_FOUND"


async def test_a_quote_counts_all_tasks_and_takes_the_cheapest_kind(world):
    made = job_pb2.JobSpec(commands=["true"])
    made.nodes.min = made.nodes.max = 3
    made.resources.accelerator.chips.append("H100")
    made.resources.accelerator.count.min = 2
    billing = world.stub("BillingService")

    async def quoted():
        request = pb.GetQuoteRequest(spec=made, duration_ms=3_600_000)
        return (await billing.GetQuote(request)).quote

    quote = await quoted()
    assert (quote.chip, quote.quantity_milli) == ("H100-80GB", 6_000)
    other = made.resources.alternatives.add()
    other.chips.append("A100")
    other.count.min = 2
    assert (await quoted()).chip == "A100-80GB"
    other.count.min = 8  # four times as many of half the price
    assert (await quoted()).chip == "H100-80GB"


async def test_tenants_see_their_own_quotas_and_reservations_only(world):
    secret = await other_tenant(world)
    ruler = world.stub("CapacityService", "operator_key")
    for project in ("projects/demo", "projects/other"):
        quota = types.Quota(project=project, limit_milli=8_000)
        await ruler.SetQuota(pb.SetQuotaRequest(quota=quota))
        await ruler.CreateReservation(pb.CreateReservationRequest(reservation=reservation(project)))
    assert len((await ruler.ListQuotas(pb.ListQuotasRequest())).quotas) == 2
    mine, theirs = world.stub("CapacityService"), world.stub("CapacityService", secret)
    for stub, project in ((mine, "projects/demo"), (theirs, "projects/other")):
        quotas = (await stub.ListQuotas(pb.ListQuotasRequest())).quotas
        assert [it.project for it in quotas] == [project]
        found = (await stub.ListReservations(pb.ListReservationsRequest())).reservations
        assert [it.project for it in found] == [project]
    named = pb.ListQuotasRequest(project="projects/other")
    assert (await fault_of(mine.ListQuotas(named))).reason == "PROJECT_NOT_FOUND"
    [foreign] = (await theirs.ListReservations(pb.ListReservationsRequest())).reservations
    faults = [
        await fault_of(mine.CancelReservation(pb.CancelReservationRequest(name=name)))
        for name in (foreign.name, "reservations/rs-none")
    ]
    assert [(type(it), it.reason) for it in faults] == [(Missing, "RESERVATION_NOT_FOUND")] * 2
    await theirs.CancelReservation(pb.CancelReservationRequest(name=foreign.name))


async def test_what_operators_write_tenants_may_not(world):
    stub = world.stub("CapacityService")
    site, share = types.Site(name="sites/local"), types.Share(tenant="tenants/demo", weight=2)
    quota = types.Quota(project="projects/demo", limit_milli=1)
    fleet = world.stub("FleetService")
    for call in (
        stub.SetQuota(pb.SetQuotaRequest(quota=quota)),
        stub.SetSite(pb.SetSiteRequest(site=site)),
        stub.SetShare(pb.SetShareRequest(share=share)),
        stub.SetLink(pb.SetLinkRequest(link=types.Link(name="links/up"))),
        stub.ListSites(pb.ListSitesRequest()),
        stub.ListLinks(pb.ListLinksRequest()),
        stub.ListShares(pb.ListSharesRequest()),
        stub.CreateReservation(pb.CreateReservationRequest(reservation=reservation())),
        fleet.DrainNode(pb.DrainNodeRequest(name="nodes/n1")),
        fleet.SetNodeTopology(pb.SetNodeTopologyRequest(name="nodes/n1", rack="r1")),
    ):
        fault = await fault_of(call)
        assert (type(fault), fault.reason) == (Forbidden, "OPERATORS_ONLY")


async def test_operators_empty_nodes_and_each_change_has_its_audit_row(world, database):
    fleet = world.stub("FleetService", "operator_key")
    answer = await fleet.DrainNode(pb.DrainNodeRequest(name="nodes/n1", notice_ms=5_000))
    assert answer.node.state == fleet_pb2.NODE_STATE_DRAINING
    unknown = pb.SetNodeTopologyRequest(name="nodes/none", rack="r1")
    assert (await fault_of(fleet.SetNodeTopology(unknown))).reason == "NODE_NOT_FOUND"
    ruler = world.stub("CapacityService", "operator_key")
    await ruler.SetSite(pb.SetSiteRequest(site=types.Site(name="sites/local", cap_watts=9)))
    foreign = pb.CreateReservationRequest(reservation=reservation("projects/nobody"))
    assert (await fault_of(ruler.CreateReservation(foreign))).reason == "PROJECT_NOT_FOUND"
    await world.gateway.auditor.drain()
    connection = await asyncpg.connect(database)
    rows = await connection.fetch("SELECT method, resource, outcome FROM gateway.audit")
    await connection.close()
    assert sorted(map(tuple, rows)) == [
        ("CapacityService.CreateReservation", "projects/nobody", "PROJECT_NOT_FOUND"),
        ("CapacityService.SetSite", "sites/local", "OK"),
        ("FleetService.DrainNode", "nodes/n1", "OK"),
        ("FleetService.SetNodeTopology", "nodes/none", "NODE_NOT_FOUND"),
    ]
