"""Debts, payments, terms and pages of statements over the mesh, on a real database."""

import base64
import json

import grpc
import pytest
from gridlease.billing.v1 import (
    account_pb2,
    account_pb2_grpc,
    receivable_pb2,
    receivable_pb2_grpc,
    supplier_pb2,
    supplier_pb2_grpc,
)
from gridlease_billing.adapters.pdf import PdfPrinter
from gridlease_billing.rpc.accounts import Accounts
from gridlease_billing.rpc.partners import Suppliers
from gridlease_billing.rpc.receivables import Receivables
from gridlease_billing.supplier_ports import NewContract
from gridlease_billing.suppliers import assign_node, create_contract, create_supplier
from gridlease_kernel.ids import RandomIds
from gridlease_mesh.bus import Bus
from gridlease_mesh.interceptors import FaultsToStatus
from gridlease_mesh.status import fault_from_error
from gridlease_mesh.validation import ValidateRequests

from tests.integration.billing.test_documents import bill, german, ran
from tests.integration.billing.world import NODE, SECOND_NS, TENANT, TERMS, USD

CENT = USD // 100


@pytest.fixture
async def channel(books, nats):
    bus = await Bus.connect(nats.url, creds=nats.service_creds("billing"), name="billing")
    server = bus.server(queue="billing", interceptors=[FaultsToStatus(), ValidateRequests()])
    receivable_pb2_grpc.add_ReceivableServiceServicer_to_server(Receivables(books), server)
    supplier_pb2_grpc.add_SupplierServiceServicer_to_server(Suppliers(books), server)
    account_pb2_grpc.add_AccountServiceServicer_to_server(
        Accounts(books, RandomIds(), PdfPrinter(), TERMS, 0), server
    )
    await server.start()
    yield bus.channel()
    await server.stop(1)
    await bus.close()


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return fault_from_error(caught.value).reason


async def test_an_invoice_is_paid_and_says_so_wherever_it_is_looked_at(world, channel):
    room = receivable_pb2_grpc.ReceivableServiceStub(channel)
    accounts = account_pb2_grpc.AccountServiceStub(channel)
    await german(world)
    terms = receivable_pb2.SetPaymentTermsRequest(tenant=TENANT, due_days=30, grace_days=0)
    assert (await room.SetPaymentTerms(terms)).terms.HasField("grace_days")
    await ran(world, "a", 50 * SECOND_NS, quantity_milli=2_000)
    name = (await bill(world)).head.name
    invoice = (
        await accounts.GetInvoice(account_pb2.GetInvoiceRequest(tenant=TENANT, name=name))
    ).invoice
    owed = invoice.receivable
    assert (owed.state, owed.open_nano, owed.asked_nano) == ("OPEN", 19 * CENT, 19 * CENT)
    assert owed.due_time.seconds - owed.issue_time.seconds == 30 * 86_400
    ask = receivable_pb2.CreatePaymentRequest(
        tenant=TENANT, name=invoice.number, amount_nano=20 * CENT, note="bank", request_id="p"
    )
    for _ in range(2):
        made = await room.CreatePayment(ask)
        assert (made.payment.applied_nano, made.payment.prepaid_nano) == (19 * CENT, CENT)
        assert (made.receivable.state, len(made.receivable.payments)) == ("PAID", 1)
    listed = await accounts.ListInvoices(account_pb2.ListInvoicesRequest(tenant=TENANT))
    assert [it.receivable.state for it in listed.invoices] == ["PAID"]
    back = receivable_pb2.CreateRefundRequest(tenant=TENANT, payment="p", request_id="r")
    assert (await room.CreateRefund(back)).receivable.open_nano == 19 * CENT
    page = await room.ListReceivables(receivable_pb2.ListReceivablesRequest(page_size=1))
    assert [it.number for it in page.receivables] == [invoice.number]
    assert (page.ages[0].tenant, page.ages[0].current_nano) == ("", 19 * CENT)
    found = await room.ListPaymentTerms(receivable_pb2.ListPaymentTermsRequest())
    assert [(it.tenant, it.due_days) for it in found.terms] == [("", 14), (TENANT, 30)]


async def test_what_is_wrong_is_refused_with_its_reason(world, channel):
    room = receivable_pb2_grpc.ReceivableServiceStub(channel)
    none = {"tenant": TENANT, "name": "invoices/none"}
    assert await refused(room.GetReceivable(receivable_pb2.GetReceivableRequest(**none))) == (
        "INVOICE_NOT_FOUND"
    )
    pay = receivable_pb2.CreatePaymentRequest(**none, request_id="p")
    assert await refused(room.CreatePayment(pay)) == "INVOICE_NOT_FOUND"
    back = receivable_pb2.CreateRefundRequest(tenant=TENANT, payment="none", request_id="r")
    assert await refused(room.CreateRefund(back)) == "PAYMENT_NOT_FOUND"
    vast = base64.urlsafe_b64encode(b"%d/x" % 10**30).decode()
    far = json.dumps([5, [1, "l", 2**40, "run", "usage"], [0, 0]])
    page = supplier_pb2.RenderStatementRequest(
        supplier="suppliers/x",
        format="csv",
        page_token=base64.urlsafe_b64encode(far.encode()).decode(),
    )
    partners = supplier_pb2_grpc.SupplierServiceStub(channel)
    assert await refused(partners.RenderStatement(page)) == "BAD_PAGE_TOKEN"
    for token in ("x", "W10=", "eyJhIjogMX0=", vast):
        asked = receivable_pb2.ListReceivablesRequest(page_token=token)
        assert await refused(room.ListReceivables(asked)) == "BAD_PAGE_TOKEN"
        page = supplier_pb2.RenderStatementRequest(
            supplier="suppliers/x", format="csv", page_token=token
        )
        assert await refused(partners.RenderStatement(page)) == "BAD_PAGE_TOKEN"


async def test_pages_of_a_statement_are_its_file(world, channel):
    partners = supplier_pb2_grpc.SupplierServiceStub(channel)
    await create_supplier(world.books, "suppliers/acme", "Acme")
    await create_contract(world.books, NewContract("suppliers/acme", 7_000, 1_000, 30, "c"))
    await assign_node(world.books, NODE, "suppliers/acme", "n")
    for n in range(3):
        await ran(world, f"l{n}", (n + 1) * SECOND_NS)
    asked = {"supplier": "suppliers/acme", "format": "csv"}
    whole = await partners.RenderStatement(supplier_pb2.RenderStatementRequest(**asked))
    pages, token = [], ""
    while not pages or token:
        page = await partners.RenderStatement(
            supplier_pb2.RenderStatementRequest(**asked, page_size=2, page_token=token)
        )
        assert page.totals == whole.totals
        pages.append(page.content)
        token = page.next_page_token
    assert (len(pages), b"".join(pages)) == (2, whole.content)
    assert whole.totals.line_count == 3
    assert whole.totals.amount_nano == 6 * CENT
    told = await partners.RenderStatement(
        supplier_pb2.RenderStatementRequest(supplier="suppliers/acme", format="json")
    )
    assert json.loads(told.content)["totals"]["payable_nano"] == whole.totals.payable_nano
