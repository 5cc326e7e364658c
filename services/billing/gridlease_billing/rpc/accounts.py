# ruff: noqa: N802, ARG002 - names and arguments are the protos'
"""AccountService: what the gateway asks for callers that it has authenticated."""

from __future__ import annotations

import logging
from typing import Any

from gridlease.billing.v1 import account_pb2 as pb
from gridlease.billing.v1 import account_pb2_grpc
from gridlease_kernel.ids import Ids

from gridlease_billing import credit as credits_
from gridlease_billing import prices
from gridlease_billing.domain.grant_row import Terms
from gridlease_billing.domain.price import NewPrice
from gridlease_billing.domain.priority import Band, NewPriorityTable
from gridlease_billing.footprints import expect, traces
from gridlease_billing.ports import Books, Credit, Printer
from gridlease_billing.quote import Question, quote
from gridlease_billing.rpc import energy_shapes, shapes
from gridlease_billing.rpc.documents import Documents
from gridlease_billing.usage import list_usage

_LOG = logging.getLogger(__name__)
_DEFAULT_PAGE = 100
_LARGEST_PAGE = 1_000


class Accounts(Documents, account_pb2_grpc.AccountServiceServicer):
    """Prices, credit and usage; documents are in ``Documents``."""

    def __init__(
        self, books: Books, ids: Ids, printer: Printer, terms: Terms, notice_ms: int
    ) -> None:
        self._books = books
        self._ids = ids
        self._printer = printer
        self._terms = terms
        self._notice_ms = notice_ms

    async def GetQuote(self, request: pb.GetQuoteRequest, context: Any) -> pb.GetQuoteResponse:
        question = Question(
            shapes.plain(request.chip),
            shapes.tier(request.tier),
            request.quantity_milli,
            request.duration_ms,
            request.notice_ms or self._notice_ms,
            request.priority,
            shapes.plain(request.site),
        )
        found = await quote(self._books, question, self._terms)
        quoted = shapes.quoted(question, found)
        if (plan := energy_shapes.plan(request)) is not None:
            uses = await expect(self._books, plan)
            quoted.uses.extend(energy_shapes.expected(it, plan.draw.source) for it in uses)
        return pb.GetQuoteResponse(quote=quoted)

    async def ListPrices(
        self, request: pb.ListPricesRequest, context: Any
    ) -> pb.ListPricesResponse:
        look = shapes.look(request)
        found = await prices.list_prices(self._books, history=request.history, look=look)
        return pb.ListPricesResponse(prices=[shapes.price(it) for it in found])

    async def CreatePrice(
        self, request: pb.CreatePriceRequest, context: Any
    ) -> pb.CreatePriceResponse:
        new = NewPrice(
            shapes.plain(request.chip),
            shapes.tier(request.tier),
            request.price_nano_per_hour,
            shapes.since(request),
            shapes.plain(request.request_id),
            shapes.plain(request.site),
            request.withdrawn,
            request.correction,
        )
        written = await prices.create_price(self._books, new)
        return pb.CreatePriceResponse(price=shapes.price(written))

    async def ListPriorityMultipliers(
        self, request: pb.ListPriorityMultipliersRequest, context: Any
    ) -> pb.ListPriorityMultipliersResponse:
        look = shapes.look(request)
        found = await prices.list_priorities(self._books, history=request.history, look=look)
        return pb.ListPriorityMultipliersResponse(tables=[shapes.priorities(it) for it in found])

    async def CreatePriorityMultipliers(
        self, request: pb.CreatePriorityMultipliersRequest, context: Any
    ) -> pb.CreatePriorityMultipliersResponse:
        new = NewPriorityTable(
            tuple(Band(it.above, it.permille) for it in request.bands),
            shapes.since(request),
            shapes.plain(request.request_id),
            request.correction,
        )
        written = await prices.create_priorities(self._books, new)
        return pb.CreatePriorityMultipliersResponse(table=shapes.priorities(written))

    async def CreateCredit(
        self, request: pb.CreateCreditRequest, context: Any
    ) -> pb.CreateCreditResponse:
        tenant = shapes.resource(request.tenant, "tenants", "tenant")
        paid = Credit(
            tenant,
            request.amount_nano,
            shapes.plain(request.request_id),
            shapes.plain(request.note),
        )
        wallet = await credits_.pay_in(self._books, paid)
        return pb.CreateCreditResponse(balance=shapes.balance(tenant, wallet))

    async def GetBalance(
        self, request: pb.GetBalanceRequest, context: Any
    ) -> pb.GetBalanceResponse:
        tenant = shapes.resource(request.tenant, "tenants", "tenant")
        wallet = await credits_.balance(self._books, tenant)
        return pb.GetBalanceResponse(balance=shapes.balance(tenant, wallet))

    async def ListUsage(self, request: pb.ListUsageRequest, context: Any) -> pb.ListUsageResponse:
        scope = shapes.scope(request.tenant, request.project, request.job)
        size = min(request.page_size or _DEFAULT_PAGE, _LARGEST_PAGE)
        page = await list_usage(self._books, scope, shapes.page_key(request.page_token), size)
        found = await traces(self._books, scope.tenant, [it.lease for it, _, _ in page.lines])
        return pb.ListUsageResponse(
            lines=[energy_shapes.with_use(shapes.line(*it), found) for it in page.lines],
            next_page_token=shapes.page_token(page.next_key),
        )

    async def GetJournalSummary(
        self, request: pb.GetJournalSummaryRequest, context: Any
    ) -> pb.GetJournalSummaryResponse:
        found = await credits_.journal_summary(self._books)
        if found.off_balance:
            _LOG.error("balances differ from the books", extra={"count": found.off_balance})
        return pb.GetJournalSummaryResponse(
            sum_nano=found.sum_nano,
            journal_count=found.journal_count,
            entry_count=found.entry_count,
            suspense_ns=found.suspense_ns,
        )
