"""ReceivableService: what invoices ask for, a tenant's own; payments and terms for operators."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from gridlease.billing.v1 import receivable_pb2 as inner
from gridlease.gateway.v1 import contract_pb2 as pb
from gridlease_kernel.faults import Missing
from gridlease_kernel.ids import Ids

from gridlease_gateway.calls import Call
from gridlease_gateway.domain import names
from gridlease_gateway.domain.keys import Caller, Role
from gridlease_gateway.inside import Inside
from gridlease_gateway.ports import AccessStore


class Receivables:
    """The methods of ReceivableService."""

    def __init__(self, inside: Inside, access: AccessStore, ids: Ids) -> None:
        self._inside = inside
        self._access = access
        self._ids = ids
        self._room: Any = inside.receivables

    async def get_receivable(self, call: Call, request: pb.GetReceivableRequest) -> Message:
        tenant = _whose(call.caller, request.tenant) or call.caller.own_tenant()
        again = inner.GetReceivableRequest(tenant=tenant, name=request.name)
        try:
            answer = await self._inside.ask(
                self._room.GetReceivable, again, call.left_s(), inner.GetReceivableResponse
            )
        except Missing as error:
            raise names.no_invoice(request.name) from error
        return pb.GetReceivableResponse(receivable=answer.receivable)

    async def list_receivables(self, call: Call, request: pb.ListReceivablesRequest) -> Message:
        again = inner.ListReceivablesRequest(
            tenant=_whose(call.caller, request.tenant),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        answer = await self._inside.ask(
            self._room.ListReceivables, again, call.left_s(), inner.ListReceivablesResponse
        )
        return pb.ListReceivablesResponse.FromString(answer.SerializeToString())

    async def create_payment(self, call: Call, request: pb.CreatePaymentRequest) -> Message:
        await self._known(request.tenant)
        again = inner.CreatePaymentRequest.FromString(request.SerializeToString())
        again.request_id = again.request_id or self._ids.new("rq")
        answer = await self._inside.ask(
            self._room.CreatePayment, again, call.left_s(), inner.CreatePaymentResponse
        )
        return pb.CreatePaymentResponse(payment=answer.payment, receivable=answer.receivable)

    async def create_refund(self, call: Call, request: pb.CreateRefundRequest) -> Message:
        await self._known(request.tenant)
        again = inner.CreateRefundRequest.FromString(request.SerializeToString())
        again.request_id = again.request_id or self._ids.new("rq")
        answer = await self._inside.ask(
            self._room.CreateRefund, again, call.left_s(), inner.CreateRefundResponse
        )
        return pb.CreateRefundResponse(payment=answer.payment, receivable=answer.receivable)

    async def list_payment_terms(self, call: Call, _request: pb.ListPaymentTermsRequest) -> Message:
        answer = await self._inside.ask(
            self._room.ListPaymentTerms,
            inner.ListPaymentTermsRequest(),
            call.left_s(),
            inner.ListPaymentTermsResponse,
        )
        return pb.ListPaymentTermsResponse(terms=answer.terms)

    async def set_payment_terms(self, call: Call, request: pb.SetPaymentTermsRequest) -> Message:
        if request.tenant:
            await self._known(request.tenant)
        again = inner.SetPaymentTermsRequest.FromString(request.SerializeToString())
        answer = await self._inside.ask(
            self._room.SetPaymentTerms, again, call.left_s(), inner.SetPaymentTermsResponse
        )
        return pb.SetPaymentTermsResponse(terms=answer.terms)

    async def _known(self, tenant: str) -> None:
        found = names.id_of(tenant, "tenants")
        if found is None or not await self._access.has_tenant(found):
            raise names.no_tenant(tenant)


def _whose(caller: Caller, asked: str) -> str:
    """A tenant's own, whatever it asks for; an operator's choice, empty = all."""
    return asked if caller.role is Role.OPERATOR else caller.own_tenant()
