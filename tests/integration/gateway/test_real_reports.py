"""Billing's own reports behind a real gateway: cost now, and notices as far as a webhook."""

import base64
import json

import grpc
import pytest
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease_billing import reports
from gridlease_billing.adapters.books import PostgresBooks
from gridlease_billing.adapters.report_store import PostgresReportBook
from gridlease_billing.bootstrap import ROLE
from gridlease_billing.domain.grant_row import Cause, Phase
from gridlease_billing.job_cost import job_cost
from gridlease_billing.rpc.reports import Reports
from gridlease_gateway.domain.webhooks import signature
from gridlease_kernel.clock import SystemClock
from gridlease_mesh.status import fault_from_error
from gridlease_store.migrate import migrate
from gridlease_store.pool import connect_pool
from gridlease_testkit.waiting import eventually

from tests.integration.billing.world import PRICE, PROJECT, SECOND_NS, TENANT, USD, ask, report
from tests.integration.billing.world import World as Books
from tests.integration.gateway.test_jobs import submitted
from tests.integration.gateway.test_webhooks import receiver

__all__ = ["receiver"]  # a fixture
DAY_MS = 86_400_000
_BESIDE = f"{PROJECT}/jobs/beside"
_EARLIER = """
INSERT INTO line (recorded_ms, lease, amount_nano, segment, meter, class, tenant, project, job,
    node, site, chip, tier, quantity_milli, rate_nano_per_hour, price_version, starts_ms, ends_ms,
    counter, granted, charged, currency)
SELECT $1, $2, $3, segment, meter, class, tenant, project, job, node, site, chip, tier,
    quantity_milli, rate_nano_per_hour, price_version, starts_ms, ends_ms, counter, granted,
    charged, currency
FROM line WHERE lease = 'a' AND meter = 'run' LIMIT 1
"""


@pytest.fixture
async def real(world, postgres):
    """Real books behind the gateway; the pool may see every row."""
    template = await postgres.template(
        "billing", lambda owner: migrate(owner, "billing", "gridlease_billing", login=True)
    )
    name = await postgres.create(template)
    pool = await connect_pool(postgres.dsn(name), schema="billing", role=ROLE, max_size=4)
    books = Books(PostgresBooks(pool, SystemClock(), 600_000), pool)
    await books.begin()
    world.billing.reports.real = Reports(books.books, PostgresReportBook(pool))
    books.dsn = postgres.dsn(name)
    yield books
    pool.terminate()
    await postgres.drop(name)


async def ran(real, lease, seconds, **more):
    await real.authorize(ask(lease, **more))
    for phase in (Phase.KNOWN, Phase.STARTING):
        await real.settle(report(lease, phase=phase))
    await real.settle(report(lease, seconds * SECOND_NS))


async def test_a_tenant_sees_what_its_job_costs_now_and_no_other_does(world, real):
    name = (await submitted(world)).name
    await ran(real, "a", 5, job=name, budget_nano=10 * USD)
    await ran(real, "b", 7, job=_BESIDE)
    stub = world.stub("ReportService")
    cost = (await stub.GetJobCost(pb.GetJobCostRequest(job=name))).cost
    assert cost.charged_nano == 5 * PRICE // 3_600
    assert (cost.rate_nano_per_hour, cost.tenant_rate_nano_per_hour) == (PRICE, 2 * PRICE)
    assert (cost.lasts_ms, cost.lasts_by) == (995_000, "BUDGET")
    assert [it.lease for it in cost.leases] == ["a"]
    balance = await real.balance()
    beside = await job_cost(real.books, TENANT, _BESIDE)
    assert cost.held_nano + beside.held_nano == balance.held_nano
    assert cost.available_nano == beside.available_nano == balance.available_nano
    await world.stub("AccessService", "operator_key").CreateTenant(
        pb.CreateTenantRequest(tenant_id="other", project_id="other")
    )
    key = await world.stub("AccessService", "operator_key").CreateApiKey(
        pb.CreateApiKeyRequest(project="projects/other")
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await world.stub("ReportService", key.secret).GetJobCost(pb.GetJobCostRequest(job=name))
    assert fault_from_error(refused.value).reason == "JOB_NOT_FOUND"


async def test_a_budget_and_an_odd_day_reach_a_webhook(world, real, receiver):
    stub = world.stub("ReportService")
    asked = pb.CreateWebhookRequest(url=receiver.url, types=["budget.", "cost."])
    made = await stub.CreateWebhook(asked)
    budget = pb.SetBudgetRequest(amount_nano=USD, thresholds_permille=[100, 500, 1_000])
    await stub.SetBudget(budget)
    book = PostgresReportBook(real.pool)
    await ran(real, "a", 55)
    assert await reports.watch_budgets(book) == 2
    await real.close("a", cause=Cause.EXITED)
    await real.settle(report("a", 55 * SECOND_NS, phase=Phase.EXITED, final=True))
    async with real.pool.acquire() as db:
        await db.execute("SELECT set_config('gridlease.tenant', '*', false)")
        now_ms = await db.fetchval("SELECT floor(extract(epoch FROM now()) * 1000)::int8")
        today_ms = now_ms - now_ms % DAY_MS
        for day in range(1, 12):
            amount = 100 * USD if day == 1 else USD + day
            await db.execute(_EARLIER, today_ms - day * DAY_MS, f"l{day}", amount)
    assert await reports.find_anomalies(book) == 1
    await eventually(lambda: len(receiver.got) == 3, 30.0)
    told = [json.loads(body) for _, _, body in receiver.got]
    assert [it["type"] for it in told] == ["budget.threshold", "budget.threshold", "cost.anomaly"]
    facts = [it["data"]["facts"] for it in told]
    assert [it.get("threshold_permille") for it in facts] == ["100", "500", None]
    assert facts[2]["amount"] == "100.00 USD"
    secret = base64.b64decode(made.secret.removeprefix("whsec_"))
    for _, headers, body in receiver.got:
        stamp = int(headers["webhook-timestamp"])
        right = signature(secret, headers["webhook-id"], stamp, body)
        assert headers["webhook-signature"] == right
    assert {it["data"]["entity"] for it in told} == {TENANT}
