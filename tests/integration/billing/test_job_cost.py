"""What a job costs now: the same as the books at every instant, and nothing of another tenant's."""

import asyncio

import pytest
from gridlease.billing.v1 import report_pb2
from gridlease_billing.contract_ports import NewTariff
from gridlease_billing.credit import pay_in
from gridlease_billing.domain.grant_row import Phase, Report
from gridlease_billing.domain.job_cost import Limit
from gridlease_billing.domain.rating import Step, Tariff
from gridlease_billing.job_cost import job_cost
from gridlease_billing.ports import Credit
from gridlease_billing.rpc.reports import Reports
from gridlease_billing.tariffs import create_tariff
from gridlease_billing.ticks import Settler
from gridlease_kernel.clock import SystemClock
from gridlease_kernel.faults import Invalid
from gridlease_mesh import meter_report

from tests.integration.billing.world import (
    NODE,
    PRICE,
    PROJECT,
    SECOND_NS,
    TENANT,
    USD,
    Cause,
    ask,
    report,
)

JOB = f"{PROJECT}/jobs/j"
OTHER = "tenants/other"


async def cost(world, tenant=TENANT, job=JOB):
    return await job_cost(world.books, tenant, job)


async def begin(world, lease="a", **more):
    await world.authorize(ask(lease, **more))
    for phase in (Phase.KNOWN, Phase.STARTING):
        await world.settle(report(lease, phase=phase))


async def test_a_job_that_never_ran_has_cost_nothing(world):
    found = await cost(world)
    assert (found.charged_nano, found.held_nano, found.rate_nano_per_hour) == (0, 0, 0)
    assert (found.lasts, found.leases, found.ended) == (None, (), 0)
    assert found.available_nano == 100 * USD


async def test_a_running_job_tells_cost_hold_rate_grant_and_time_left(world):
    await begin(world, budget_nano=10 * USD)
    await world.settle(report("a", 5 * SECOND_NS))
    found = await cost(world)
    balance = await world.balance()
    (lease,) = found.leases
    assert found.charged_nano == lease.charged_nano == 5 * PRICE // 3_600
    assert found.held_nano == lease.held_nano == balance.held_nano
    assert found.available_nano == balance.available_nano
    assert (found.rate_nano_per_hour, found.tenant_rate_nano_per_hour) == (PRICE, PRICE)
    assert (lease.state, lease.segment, lease.node) == ("OPEN", 1, NODE)
    assert 0 < found.grant_left_ms <= world.terms.grant_ms + 10_000
    assert found.budget_nano == 10 * USD
    assert found.lasts == (995_000, Limit.BUDGET), "1,000 s at 0.01 USD, of which 5 are over"


async def test_the_balance_ends_before_a_budget_that_is_larger(world):
    await begin(world, budget_nano=1_000 * USD)
    await begin(world, "b", job=f"{PROJECT}/jobs/k")
    found = await cost(world)
    assert found.tenant_rate_nano_per_hour == 2 * PRICE
    assert found.lasts == (5_000_000, Limit.BALANCE), "100 USD at 0.02 USD a second"


async def test_what_has_ended_stays_in_the_sum_with_its_meters_and_credits(world):
    await create_tariff(
        world.books,
        NewTariff("egress", "", Tariff((Step(0, USD),), 1), False, None, "t1"),
    )
    await begin(world)
    counters = {(1, "run"): 3 * SECOND_NS, (1, "egress"): 2}
    await world.settle(Report("a", "s1", Phase.CLEAN, True, counters))
    await begin(world, "b")
    await world.settle(report("b", 4 * SECOND_NS))
    found = await cost(world)
    assert found.charged_nano == 7 * PRICE // 3_600
    assert found.other_nano == 2 * USD
    assert (found.ended, [it.lease for it in found.leases]) == (1, ["b"])
    await world.close("b", cause=Cause.PREEMPTED)
    assert (await cost(world)).credited_nano == 10 * PRICE // 3_600, "no warning was given"
    spent = 100 * USD - (await world.balance()).posted_nano
    found = await cost(world)
    assert spent == found.charged_nano + found.other_nano - found.credited_nano


async def test_it_is_the_books_at_every_instant_while_ticks_run(world):
    """The sum over a tenant's jobs is what the balance lost, read beside running charges."""
    for lease in ("a", "b", "c"):
        await begin(world, lease)
    settler = Settler(world.books, world.terms, meter_report.holds, SystemClock())
    seen = []

    async def look():
        while not done.is_set():
            async with world.pool.acquire() as db, db.transaction(isolation="repeatable_read"):
                row = await db.fetchrow(
                    "SELECT b.posted, b.held FROM balance AS b JOIN account AS a"
                    " ON a.id = b.account WHERE a.tenant = $1",
                    TENANT,
                )
            found = await cost(world)
            seen.append(found)
            assert found.charged_nano + found.available_nano + found.held_nano == 100 * USD
            assert row["posted"] >= found.available_nano + found.held_nano

    done = asyncio.Event()
    looking = asyncio.create_task(look())
    for second in range(1, 21):
        reports = [report(it, second * SECOND_NS + n) for n, it in enumerate(("a", "b", "c"))]
        await settler.settle(NODE, reports)
    done.set()
    await looking
    assert (await cost(world)).charged_nano >= 60 * PRICE // 3_600
    assert sorted(it.charged_nano for it in seen) == [it.charged_nano for it in seen]
    assert len(seen) > 3


async def test_another_tenant_learns_nothing(world):
    await pay_in(world.books, Credit(OTHER, USD, "o1", "test"))
    await begin(world)
    await world.settle(report("a", 5 * SECOND_NS))
    found = await cost(world, OTHER)
    assert (found.charged_nano, found.held_nano, found.leases, found.ended) == (0, 0, (), 0)
    assert (found.tenant_rate_nano_per_hour, found.budget_nano) == (0, None)
    assert found.available_nano == USD


async def test_the_call_tells_the_same(world):
    service = Reports(world.books, None)
    await begin(world, budget_nano=10 * USD)
    request = report_pb2.GetJobCostRequest(tenant=TENANT, job=JOB)
    told = (await service.GetJobCost(request, None)).cost
    assert (told.job, told.rate_nano_per_hour, told.lasts_by) == (JOB, PRICE, "BUDGET")
    assert told.leases[0].node == f"nodes/{NODE}"
    with pytest.raises(Invalid):
        await service.GetJobCost(report_pb2.GetJobCostRequest(tenant=TENANT, job="x"), None)
