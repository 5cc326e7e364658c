"""What a client does with what invoices ask for, payments, and the care of webhooks."""

from __future__ import annotations

import datetime

from gridlease.gateway.v1 import contract_pb2 as pb
from gridlease.type.v1 import receivable_pb2
from gridlease_kernel.ids import RandomIds

from gridlease_sdk.channel import Connection


class OfficeCalls:
    """The part of ``Client`` about who paid what, and events that are sent again."""

    _on: Connection
    _ids: RandomIds

    async def get_receivable(self, name: str, *, tenant: str = "") -> receivable_pb2.Receivable:
        """What an invoice asks for, and its payments; ``tenant``: for operators."""
        request = pb.GetReceivableRequest(tenant=tenant, name=name)
        ask = self._on.receivables.GetReceivable
        return (await self._on.ask(ask, request, pb.GetReceivableResponse)).receivable

    async def list_receivables(
        self, *, tenant: str = "", page_size: int = 0, page_token: str = ""
    ) -> pb.ListReceivablesResponse:
        """A page of what is open, due first first, and its sums by age."""
        request = pb.ListReceivablesRequest(
            tenant=tenant, page_size=page_size, page_token=page_token
        )
        ask = self._on.receivables.ListReceivables
        return await self._on.ask(ask, request, pb.ListReceivablesResponse)

    async def create_payment(
        self, tenant: str, name: str, amount_nano: int = 0, *, note: str = "", request_id: str = ""
    ) -> pb.CreatePaymentResponse:
        """Write down money for an invoice; 0 = what is open. Operators."""
        request = pb.CreatePaymentRequest(
            tenant=tenant,
            name=name,
            amount_nano=amount_nano,
            note=note,
            request_id=request_id or self._ids.new("rq"),
        )
        ask = self._on.receivables.CreatePayment
        return await self._on.ask(ask, request, pb.CreatePaymentResponse)

    async def create_refund(
        self,
        tenant: str,
        payment: str,
        amount_nano: int = 0,
        *,
        note: str = "",
        request_id: str = "",
    ) -> pb.CreateRefundResponse:
        """Write down that a payment went back; 0 = what is left of it. Operators."""
        request = pb.CreateRefundRequest(
            tenant=tenant,
            payment=payment,
            amount_nano=amount_nano,
            note=note,
            request_id=request_id or self._ids.new("rq"),
        )
        ask = self._on.receivables.CreateRefund
        return await self._on.ask(ask, request, pb.CreateRefundResponse)

    async def list_payment_terms(self) -> list[receivable_pb2.PaymentTerms]:
        """Terms in force: everybody's, then tenants' own. Operators."""
        ask = self._on.receivables.ListPaymentTerms
        request = pb.ListPaymentTermsRequest()
        return list((await self._on.ask(ask, request, pb.ListPaymentTermsResponse)).terms)

    async def set_payment_terms(
        self, due_days: int, *, grace_days: int | None = None, tenant: str = ""
    ) -> receivable_pb2.PaymentTerms:
        """Write terms; no grace = who is overdue gets grants all the same. Operators."""
        request = pb.SetPaymentTermsRequest(tenant=tenant, due_days=due_days, grace_days=grace_days)
        ask = self._on.receivables.SetPaymentTerms
        return (await self._on.ask(ask, request, pb.SetPaymentTermsResponse)).terms

    async def renew_webhook_secret(
        self, name: str, *, overlap_ms: int = 86_400_000
    ) -> pb.CreateWebhookSecretResponse:
        """A new secret; the old one signs beside it for a while."""
        request = pb.CreateWebhookSecretRequest(name=name, overlap_ms=overlap_ms)
        ask = self._on.webhooks.CreateWebhookSecret
        return await self._on.ask(ask, request, pb.CreateWebhookSecretResponse, again=False)

    async def replay_webhook(
        self,
        name: str,
        *,
        message_id: str = "",
        start: datetime.datetime | None = None,
        end: datetime.datetime | None = None,
    ) -> pb.CreateWebhookReplayResponse:
        """Send one event again, or all of a time, each under the id that it had."""
        request = pb.CreateWebhookReplayRequest(name=name, message_id=message_id)
        if start is not None:
            request.start_time.FromDatetime(start)
        if end is not None:
            request.end_time.FromDatetime(end)
        ask = self._on.webhooks.CreateWebhookReplay
        return await self._on.ask(ask, request, pb.CreateWebhookReplayResponse)

    async def list_dead_letters(
        self, *, name: str = "", page_size: int = 0, page_token: str = ""
    ) -> pb.ListDeadLettersResponse:
        """A page of events that webhooks never took, newest first; all of them for operators."""
        request = pb.ListDeadLettersRequest(name=name, page_size=page_size, page_token=page_token)
        ask = self._on.webhooks.ListDeadLetters
        return await self._on.ask(ask, request, pb.ListDeadLettersResponse)
