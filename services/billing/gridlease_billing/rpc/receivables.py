# ruff: noqa: N802, ARG002 - names and arguments are the protos'
"""ReceivableService: what invoices ask for, payments and terms."""

from __future__ import annotations

from typing import Any

from gridlease.billing.v1 import receivable_pb2 as pb
from gridlease.billing.v1 import receivable_pb2_grpc
from gridlease.type.v1 import receivable_pb2

from gridlease_billing import receivables
from gridlease_billing.domain.price import CURRENCY
from gridlease_billing.domain.receivable import Ages, Owed, Terms
from gridlease_billing.ports import Books
from gridlease_billing.receivable_ports import NewPayment, NewRefund, Payment
from gridlease_billing.rpc import shapes

_DEFAULT_PAGE = 100
_LARGEST_PAGE = 1_000


class Receivables(receivable_pb2_grpc.ReceivableServiceServicer):
    """The methods of ReceivableService."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def GetReceivable(
        self, request: pb.GetReceivableRequest, context: Any
    ) -> pb.GetReceivableResponse:
        tenant = shapes.resource(request.tenant, "tenants", "tenant")
        found = await receivables.get_receivable(self._books, tenant, shapes.plain(request.name))
        return pb.GetReceivableResponse(receivable=_told(found))

    async def ListReceivables(
        self, request: pb.ListReceivablesRequest, context: Any
    ) -> pb.ListReceivablesResponse:
        tenant = _tenant(request.tenant)
        size = min(request.page_size or _DEFAULT_PAGE, _LARGEST_PAGE)
        after = shapes.page_key(request.page_token)
        found = await receivables.list_receivables(self._books, tenant, after, size)
        return pb.ListReceivablesResponse(
            receivables=[receivable(it, found.now_ms) for it in found.owed],
            ages=[_ages(it) for it in found.ages],
            next_page_token=shapes.page_token(found.next_key),
        )

    async def CreatePayment(
        self, request: pb.CreatePaymentRequest, context: Any
    ) -> pb.CreatePaymentResponse:
        new = NewPayment(
            shapes.resource(request.tenant, "tenants", "tenant"),
            shapes.plain(request.name),
            request.amount_nano,
            shapes.plain(request.note),
            shapes.plain(request.request_id),
        )
        made, left = await receivables.pay(self._books, new)
        return pb.CreatePaymentResponse(payment=_payment(made), receivable=_told(left))

    async def CreateRefund(
        self, request: pb.CreateRefundRequest, context: Any
    ) -> pb.CreateRefundResponse:
        new = NewRefund(
            shapes.resource(request.tenant, "tenants", "tenant"),
            shapes.plain(request.payment),
            request.amount_nano,
            shapes.plain(request.note),
            shapes.plain(request.request_id),
        )
        made, left = await receivables.refund(self._books, new)
        return pb.CreateRefundResponse(payment=_payment(made), receivable=_told(left))

    async def ListPaymentTerms(
        self, request: pb.ListPaymentTermsRequest, context: Any
    ) -> pb.ListPaymentTermsResponse:
        found = await receivables.list_terms(self._books)
        return pb.ListPaymentTermsResponse(terms=[_terms(it) for it in found])

    async def SetPaymentTerms(
        self, request: pb.SetPaymentTermsRequest, context: Any
    ) -> pb.SetPaymentTermsResponse:
        grace = request.grace_days if request.HasField("grace_days") else None
        made = await receivables.set_terms(
            self._books, _tenant(request.tenant), request.due_days, grace
        )
        return pb.SetPaymentTermsResponse(terms=_terms(made))


def receivable(owed: Owed, now_ms: int) -> receivable_pb2.Receivable:
    return receivable_pb2.Receivable(
        invoice=owed.invoice,
        number=owed.number,
        tenant=owed.tenant,
        issue_time=shapes.moment(owed.issued_ms),
        due_time=shapes.moment(owed.due_ms),
        asked_nano=owed.asked_nano,
        paid_nano=owed.paid_nano,
        credited_nano=owed.credited_nano,
        open_nano=owed.open_nano,
        state=owed.state(now_ms),
        days_overdue=owed.days_overdue(now_ms),
        currency=CURRENCY,
    )


def _told(found: receivables.Told) -> receivable_pb2.Receivable:
    made = receivable(found.owed, found.now_ms)
    made.payments.extend(_payment(it) for it in found.payments)
    return made


def _payment(it: Payment) -> receivable_pb2.Payment:
    return receivable_pb2.Payment(
        request_id=it.request_id,
        tenant=it.tenant,
        invoice=it.invoice,
        amount_nano=it.parts.amount_nano,
        applied_nano=it.parts.applied_nano,
        prepaid_nano=it.parts.prepaid_nano,
        refunds=it.refunds,
        note=it.note,
        create_time=shapes.moment(it.recorded_ms),
        currency=CURRENCY,
    )


def _terms(it: Terms) -> receivable_pb2.PaymentTerms:
    made = receivable_pb2.PaymentTerms(
        tenant=it.tenant, due_days=it.due_days, grace_days=it.grace_days
    )
    if it.recorded_ms:
        made.create_time.CopyFrom(shapes.moment(it.recorded_ms))
    return made


def _ages(it: Ages) -> receivable_pb2.ReceivableAge:
    return receivable_pb2.ReceivableAge(
        tenant=it.tenant,
        current_nano=it.current_nano,
        days_30_nano=it.days_30_nano,
        days_60_nano=it.days_60_nano,
        days_90_nano=it.days_90_nano,
        older_nano=it.older_nano,
        total_nano=it.total_nano,
        currency=CURRENCY,
    )


def _tenant(name: str) -> str:
    return shapes.resource(name, "tenants", "tenant") if name else ""
