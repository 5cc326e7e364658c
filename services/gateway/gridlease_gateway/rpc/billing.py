"""BillingService: prices, credit, usage and invoices of the key's tenant."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.message import Message
from gridlease.billing.v1 import account_pb2
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease_kernel.faults import Missing
from gridlease_kernel.ids import Ids

from gridlease_gateway.budget import Prices, duration_ms
from gridlease_gateway.calls import Call
from gridlease_gateway.domain import names
from gridlease_gateway.inside import Inside
from gridlease_gateway.ports import AccessStore
from gridlease_gateway.rpc.jobs import get_job

A = TypeVar("A", bound=Message)


def again(request: Message, kind: type[A]) -> A:
    """A request as the inside has it: both have the same fields."""
    return kind.FromString(request.SerializeToString())


class Billing:
    """The methods of BillingService."""

    def __init__(self, inside: Inside, prices: Prices, access: AccessStore, ids: Ids) -> None:
        self._inside = inside
        self._accounts: Any = inside.accounts
        self._prices = prices
        self._access = access
        self._ids = ids

    async def get_quote(self, call: Call, request: pb.GetQuoteRequest) -> Message:
        span_ms = duration_ms(request.spec, request.duration_ms)
        quote = await self._prices.quote(request.spec, span_ms, call.left_s())
        return pb.GetQuoteResponse(quote=quote)

    async def get_balance(self, call: Call, _request: pb.GetBalanceRequest) -> Message:
        inner = account_pb2.GetBalanceRequest(tenant=call.caller.own_tenant())
        answer = await self._inside.ask(
            self._accounts.GetBalance, inner, call.left_s(), account_pb2.GetBalanceResponse
        )
        return pb.GetBalanceResponse(balance=answer.balance)

    async def list_usage(self, call: Call, request: pb.ListUsageRequest) -> Message:
        inner = account_pb2.ListUsageRequest(
            tenant=call.caller.own_tenant(),
            project=call.caller.own_project(),
            job=request.job,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        if request.job:
            await get_job(self._inside, call, request.job, "job")
        answer = await self._inside.ask(
            self._accounts.ListUsage, inner, call.left_s(), account_pb2.ListUsageResponse
        )
        return pb.ListUsageResponse(lines=answer.lines, next_page_token=answer.next_page_token)

    async def create_invoice(self, call: Call, request: pb.CreateInvoiceRequest) -> Message:
        inner = account_pb2.CreateInvoiceRequest(
            tenant=call.caller.own_tenant(),
            project=call.caller.own_project(),
            job=request.job,
            request_id=request.request_id or self._ids.new("rq"),
            draft=request.draft,
        )
        if request.job:
            await get_job(self._inside, call, request.job, "job")
        answer = await self._inside.ask(
            self._accounts.CreateInvoice, inner, call.left_s(), account_pb2.CreateInvoiceResponse
        )
        return pb.CreateInvoiceResponse(invoice=answer.invoice)

    async def get_invoice(self, call: Call, request: pb.GetInvoiceRequest) -> Message:
        inner = account_pb2.GetInvoiceRequest(tenant=call.caller.own_tenant(), name=request.name)
        try:
            answer = await self._inside.ask(
                self._accounts.GetInvoice, inner, call.left_s(), account_pb2.GetInvoiceResponse
            )
        except Missing as error:
            raise names.no_invoice(request.name) from error
        return pb.GetInvoiceResponse(invoice=answer.invoice)

    async def list_invoices(self, call: Call, _request: pb.ListInvoicesRequest) -> Message:
        inner = account_pb2.ListInvoicesRequest(
            tenant=call.caller.own_tenant(), project=call.caller.own_project()
        )
        answer = await self._inside.ask(
            self._accounts.ListInvoices, inner, call.left_s(), account_pb2.ListInvoicesResponse
        )
        return pb.ListInvoicesResponse(invoices=answer.invoices)

    async def render_invoice(self, call: Call, request: pb.RenderInvoiceRequest) -> Message:
        inner = account_pb2.RenderInvoiceRequest(
            tenant=call.caller.own_tenant(),
            name=request.name,
            format=request.format,
            language=request.language,
        )
        try:
            answer = await self._inside.ask(
                self._accounts.RenderInvoice,
                inner,
                call.left_s(),
                account_pb2.RenderInvoiceResponse,
            )
        except Missing as error:
            raise names.no_invoice(request.name) from error
        return pb.RenderInvoiceResponse(
            content=answer.content, media_type=answer.media_type, file_name=answer.file_name
        )

    async def list_prices(self, call: Call, request: pb.ListPricesRequest) -> Message:
        inner = again(request, account_pb2.ListPricesRequest)
        answer = await self._inside.ask(
            self._accounts.ListPrices, inner, call.left_s(), account_pb2.ListPricesResponse
        )
        return pb.ListPricesResponse(prices=answer.prices)

    async def create_price(self, call: Call, request: pb.CreatePriceRequest) -> Message:
        inner = again(request, account_pb2.CreatePriceRequest)
        inner.request_id = request.request_id or self._ids.new("rq")
        answer = await self._inside.ask(
            self._accounts.CreatePrice, inner, call.left_s(), account_pb2.CreatePriceResponse
        )
        return pb.CreatePriceResponse(price=answer.price)

    async def list_priority_multipliers(
        self, call: Call, request: pb.ListPriorityMultipliersRequest
    ) -> Message:
        inner = again(request, account_pb2.ListPriorityMultipliersRequest)
        answer = await self._inside.ask(
            self._accounts.ListPriorityMultipliers,
            inner,
            call.left_s(),
            account_pb2.ListPriorityMultipliersResponse,
        )
        return pb.ListPriorityMultipliersResponse(tables=answer.tables)

    async def create_priority_multipliers(
        self, call: Call, request: pb.CreatePriorityMultipliersRequest
    ) -> Message:
        inner = again(request, account_pb2.CreatePriorityMultipliersRequest)
        inner.request_id = request.request_id or self._ids.new("rq")
        answer = await self._inside.ask(
            self._accounts.CreatePriorityMultipliers,
            inner,
            call.left_s(),
            account_pb2.CreatePriorityMultipliersResponse,
        )
        return pb.CreatePriorityMultipliersResponse(table=answer.table)

    async def create_credit(self, call: Call, request: pb.CreateCreditRequest) -> Message:
        tenant = names.id_of(request.tenant, "tenants")
        if tenant is None or not await self._access.has_tenant(tenant):
            raise names.no_tenant(request.tenant)
        inner = account_pb2.CreateCreditRequest(
            tenant=request.tenant,
            amount_nano=request.amount_nano,
            request_id=request.request_id or self._ids.new("rq"),
            note=request.note,
        )
        answer = await self._inside.ask(
            self._accounts.CreateCredit, inner, call.left_s(), account_pb2.CreateCreditResponse
        )
        return pb.CreateCreditResponse(balance=answer.balance)

    async def get_journal_summary(
        self, call: Call, _request: pb.GetJournalSummaryRequest
    ) -> Message:
        answer = await self._inside.ask(
            self._accounts.GetJournalSummary,
            account_pb2.GetJournalSummaryRequest(),
            call.left_s(),
            account_pb2.GetJournalSummaryResponse,
        )
        return pb.GetJournalSummaryResponse(
            sum_nano=answer.sum_nano,
            journal_count=answer.journal_count,
            entry_count=answer.entry_count,
            suspense_ns=answer.suspense_ns,
        )
