"""The whole service: its process over real NATS and PostgreSQL."""

import asyncio
import os
import signal
import subprocess
import sys

import grpc
import grpc.aio
import pytest
from gridlease.billing.v1 import account_pb2, account_pb2_grpc, lease_pb2, lease_pb2_grpc
from gridlease.type.v1 import job_pb2
from gridlease_mesh import credentials, status
from gridlease_mesh.bus import Bus
from gridlease_mesh.embedded import EmbeddedNats
from gridlease_testkit.postgres import start_server
from gridlease_testkit.waiting import eventually, eventually_sync

TENANT, PROJECT = "tenants/demo", "projects/demo"
JOB = f"{PROJECT}/jobs/j"


class Service:
    """One process of billing."""

    def __init__(self, environ, folder):
        self.environ = environ
        self.ready = folder / "billing.ready"
        self.log = folder / "billing.log"
        self.process = None

    def launch(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gridlease_billing"],
                env={**os.environ, **self.environ, "GRIDLEASE_READY_FILE": str(self.ready)},
                stderr=log,
            )

    def start(self):
        self.launch()
        eventually_sync(self._serves, 30.0, "billing serves")

    def _serves(self):
        assert self.process.poll() is None, self.log.read_text()
        return self.ready.exists() and self.ready.read_text().strip() == str(self.process.pid)

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(timeout=10)


@pytest.fixture
async def service(dsn, nats, state_folder):
    environ = {
        "GRIDLEASE_NATS_URL": nats.url,
        "GRIDLEASE_NATS_CREDS": str(nats.service_creds("billing")),
        "GRIDLEASE_POSTGRES_DSN": dsn,
        "GRIDLEASE_SLOW_TICK_MS": "200",
        "GRIDLEASE_HOLD_TTL_MS": "5000",
    }
    service = Service(environ, state_folder)
    service.start()
    yield service
    if service.process.poll() is None:
        service.end(signal.SIGKILL)


@pytest.fixture
async def node_bus(nats, tmp_path):
    seed, public = credentials.new_user_key()
    creds = tmp_path / "n1.creds"
    credentials.write_creds(creds, nats.authority.mint_node_user("n1", public), seed)
    bus = await Bus.connect(nats.url, creds=creds, name="agent", node_id="n1")
    yield bus
    await bus.close()


def order(lease, **more):
    given = {
        "job": JOB, "tenant": TENANT, "project": PROJECT, "node": "n1", "chip": "H100-80GB",
        "quantity_milli": 1000, "tier": job_pb2.TIER_ON_DEMAND, "notice_ms": 1000,
    }  # fmt: skip
    return lease_pb2.LeaseOrder(lease=lease, **{**given, **more})


def settle_request(ran_ns=0, phase=lease_pb2.SETTLE_PHASE_STARTING, final=False):
    counters = [lease_pb2.Counter(segment=1, meter="run", cumulative=ran_ns)] if ran_ns else []
    report = lease_pb2.LeaseReport(lease="a", phase=phase, final=final, counters=counters)
    return lease_pb2.SettleRequest(spool_id="s", reports=[report])


async def asked(method, request, code=grpc.StatusCode.UNAVAILABLE):
    """The answer, asked again while the service is away."""

    async def once():
        try:
            return await method(request, timeout=5)
        except grpc.aio.AioRpcError as error:
            if error.code() is not code:
                raise
            return None

    return await eventually(once, 20.0)


async def test_a_lease_from_credit_to_invoice(service, bus, node_bus):
    accounts = account_pb2_grpc.AccountServiceStub(bus.channel())
    leases = lease_pb2_grpc.LeaseServiceStub(bus.channel())
    node = lease_pb2_grpc.SettlementServiceStub(node_bus.channel())
    credit = account_pb2.CreateCreditRequest(
        tenant=TENANT, amount_nano=10_000_000_000, request_id="r", note="first"
    )
    for _ in range(2):
        paid = await accounts.CreateCredit(credit)
    assert paid.balance.available_nano == 10_000_000_000
    quote = await accounts.GetQuote(
        account_pb2.GetQuoteRequest(chip="H100-80GB", quantity_milli=1000, duration_ms=3_600_000)
    )
    assert quote.quote.amount_nano == quote.quote.rate_nano_per_hour == 2_990_000_000
    answer = await leases.Authorize(lease_pb2.AuthorizeRequest(orders=[order("a")]))
    assert answer.authorizations[0].ok
    granted = (await node.Settle(settle_request(phase=lease_pb2.SETTLE_PHASE_KNOWN))).grants[0]
    assert granted.valid_for_ms > 100_000

    assert service.end(signal.SIGKILL) == -signal.SIGKILL
    service.start()  # from PostgreSQL alone

    await asked(node.Settle, settle_request(1_000_000_000))
    closure = lease_pb2.LeaseClosure(lease="a", cause=lease_pb2.CLOSE_CAUSE_EXITED)
    closed = await leases.Close(lease_pb2.CloseRequest(closures=[closure]))
    assert closed.closed[0].wait_ms > 100_000
    bill = account_pb2.CreateInvoiceRequest(tenant=TENANT, project=PROJECT, request_id="i")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await accounts.CreateInvoice(bill)
    fault = status.fault_from_error(caught.value)
    assert (fault.reason, fault.field) == ("NOTHING_TO_BILL", "project")
    assert "1 of its leases are not final" in fault.remedy
    last = (await node.Settle(settle_request(2_000_000_000, 4, final=True))).grants[0]
    assert last.final_acknowledged
    closed = await leases.Close(lease_pb2.CloseRequest(closures=[closure]))
    assert closed.closed[0].wait_ms == 0
    invoice = (await accounts.CreateInvoice(bill)).invoice
    assert invoice.total_nano == 2_990_000_000 * 2 // 3600
    assert (await accounts.CreateInvoice(bill)).invoice == invoice
    usage = await accounts.ListUsage(account_pb2.ListUsageRequest(tenant=TENANT))
    [line], [billed] = usage.lines, invoice.lines
    assert (billed.kind, billed.billed_nano, billed.tax_nano) == ("USAGE", 0, 0)
    for name in ("kind", "start_time", "end_time"):
        billed.ClearField(name)
    assert line == billed
    summary = await accounts.GetJournalSummary(account_pb2.GetJournalSummaryRequest())
    assert (summary.sum_nano, summary.suspense_ns) == (0, 0)
    balance = (await accounts.GetBalance(account_pb2.GetBalanceRequest(tenant=TENANT))).balance
    assert balance.posted_nano == 10_000_000_000 - invoice.total_nano
    assert balance.held_nano == 0
    assert service.end(signal.SIGTERM) == 0
    assert not service.ready.exists()


async def test_a_node_speaks_for_itself_only(service, bus, node_bus):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await lease_pb2_grpc.SettlementServiceStub(bus.channel()).Settle(settle_request())
    assert status.fault_from_error(caught.value).reason == "NODES_ONLY"


async def test_bad_requests_name_their_field(service, bus):
    accounts = account_pb2_grpc.AccountServiceStub(bus.channel())
    cases = [
        (accounts.GetQuote, account_pb2.GetQuoteRequest(chip="Z80", quantity_milli=1), "chip"),
        (accounts.GetQuote, account_pb2.GetQuoteRequest(chip="x"), "quantity_milli"),
        (accounts.GetBalance, account_pb2.GetBalanceRequest(tenant="demo"), "tenant"),
        (
            accounts.GetInvoice,
            account_pb2.GetInvoiceRequest(tenant=TENANT, name="invoices/none"),
            "name",
        ),
        (
            accounts.ListUsage,
            account_pb2.ListUsageRequest(tenant=TENANT, page_token="%"),
            "page_token",
        ),
    ]
    for method, request, field in cases:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request, timeout=5)
        fault = status.fault_from_error(caught.value)
        assert fault.field == field
        assert fault.remedy


async def test_a_report_of_use_moves_the_listed_price_once(service, bus):
    accounts = account_pb2_grpc.AccountServiceStub(bus.channel())
    leases = lease_pb2_grpc.LeaseServiceStub(bus.channel())

    async def spot():
        prices = (await accounts.ListPrices(account_pb2.ListPricesRequest(), timeout=5)).prices
        wanted = ("H100-80GB", job_pb2.TIER_SPOT)
        return next(it for it in prices if (it.chip, it.tier) == wanted)

    before = await spot()
    use = lease_pb2.ChipUse(chip="H100-80GB", total_milli=8_000, used_milli=8_000)
    use.waiting_milli = 8_000
    full = lease_pb2.ReportUtilizationRequest(chips=[use])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await leases.ReportUtilization(full, timeout=5)
    assert status.fault_from_error(caught.value).field == "window_end_time"
    full.window_end_time.GetCurrentTime()
    moved = (await leases.ReportUtilization(full, timeout=5)).moved
    assert [it.price_nano_per_hour for it in moved] == [before.price_nano_per_hour * 102 // 100]
    assert await spot() == moved[0]
    assert not (await leases.ReportUtilization(full, timeout=5)).moved
    assert await spot() == moved[0]


async def test_two_processes_share_the_work(service, bus, dsn, nats, state_folder):
    folder = state_folder / "second"
    folder.mkdir()
    second = Service(service.environ, folder)
    second.start()
    accounts = account_pb2_grpc.AccountServiceStub(bus.channel())
    pay = account_pb2.CreateCreditRequest(tenant=TENANT, amount_nano=7, request_id="r")
    paid = await asyncio.gather(*(accounts.CreateCredit(pay) for _ in range(16)))
    assert {it.balance.posted_nano for it in paid} == {7}
    assert second.end(signal.SIGTERM) == 0


async def test_it_recovers_by_itself_when_its_servers_are_killed(state_folder):
    postgres = start_server(state_folder / "postgres")
    nats = EmbeddedNats(state_folder / "nats")
    nats.start()
    environ = {
        "GRIDLEASE_NATS_URL": nats.url,
        "GRIDLEASE_NATS_CREDS": str(nats.service_creds("billing")),
        "GRIDLEASE_POSTGRES_DSN": postgres.dsn(),
    }
    service = Service(environ, state_folder)
    bus = None
    try:
        await asyncio.to_thread(service.start)
        bus = await Bus.connect(nats.url, creds=nats.service_creds("test"), name="test")
        accounts = account_pb2_grpc.AccountServiceStub(bus.channel())

        def pay(request_id):
            return account_pb2.CreateCreditRequest(
                tenant=TENANT, amount_nano=1, request_id=request_id
            )

        assert (await accounts.CreateCredit(pay("1"))).balance.posted_nano == 1
        os.kill(postgres.pid, signal.SIGKILL)
        await eventually(lambda: postgres.pid is None)
        await asyncio.to_thread(postgres.start)
        assert (await asked(accounts.CreateCredit, pay("2"))).balance.posted_nano == 2
        nats.kill()
        await asyncio.to_thread(nats.start)
        assert (await asked(accounts.CreateCredit, pay("3"))).balance.posted_nano == 3
        assert (await asked(accounts.CreateCredit, pay("1"))).balance.posted_nano == 3
        assert await asyncio.to_thread(service.end, signal.SIGTERM) == 0
    finally:
        if bus is not None:
            await bus.close()
        if service.process is not None and service.process.poll() is None:
            service.end(signal.SIGKILL)
        nats.stop()
        postgres.stop(timeout_s=5.0)


async def test_it_waits_for_servers_that_are_not_there_yet_and_stops_when_told(state_folder):
    environ = {
        "GRIDLEASE_NATS_URL": "nats://127.0.0.1:1",
        "GRIDLEASE_POSTGRES_DSN": f"postgresql://x@/x?host={state_folder}",
    }
    service = Service(environ, state_folder)
    service.launch()
    try:
        await eventually(lambda: "waiting for the database" in service.log.read_text())
    finally:
        ended = await asyncio.to_thread(service.end, signal.SIGTERM)
    assert ended == 0
