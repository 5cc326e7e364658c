"""BillingService, the documents: drafts made final, credit notes, tax, and what a bill rests on."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from gridlease.billing.v1 import account_pb2
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease_kernel.faults import Missing
from gridlease_kernel.ids import Ids

from gridlease_gateway.calls import Call
from gridlease_gateway.domain import names
from gridlease_gateway.inside import Inside
from gridlease_gateway.ports import AccessStore


class Invoices:
    """Those methods of BillingService that are about invoices and taxes."""

    def __init__(self, inside: Inside, access: AccessStore, ids: Ids) -> None:
        self._inside = inside
        self._accounts: Any = inside.accounts
        self._access = access
        self._ids = ids

    async def finalize_invoice(self, call: Call, request: pb.FinalizeInvoiceRequest) -> Message:
        inner = account_pb2.FinalizeInvoiceRequest(
            tenant=call.caller.own_tenant(), name=request.name
        )
        try:
            answer = await self._inside.ask(
                self._accounts.FinalizeInvoice,
                inner,
                call.left_s(),
                account_pb2.FinalizeInvoiceResponse,
            )
        except Missing as error:
            raise names.no_invoice(request.name) from error
        return pb.FinalizeInvoiceResponse(invoice=answer.invoice)

    async def create_credit_note(self, call: Call, request: pb.CreateCreditNoteRequest) -> Message:
        await self._known(request.tenant)
        inner = account_pb2.CreateCreditNoteRequest(
            tenant=request.tenant,
            name=request.name,
            position=request.position,
            amount_nano=request.amount_nano,
            reason=request.reason,
            request_id=request.request_id or self._ids.new("rq"),
        )
        answer = await self._inside.ask(
            self._accounts.CreateCreditNote,
            inner,
            call.left_s(),
            account_pb2.CreateCreditNoteResponse,
        )
        return pb.CreateCreditNoteResponse(invoice=answer.invoice)

    async def list_meter_reports(self, call: Call, request: pb.ListMeterReportsRequest) -> Message:
        inner = account_pb2.ListMeterReportsRequest(
            tenant=call.caller.own_tenant(), name=request.name
        )
        try:
            answer = await self._inside.ask(
                self._accounts.ListMeterReports,
                inner,
                call.left_s(),
                account_pb2.ListMeterReportsResponse,
            )
        except Missing as error:
            raise names.no_invoice(request.name) from error
        return pb.ListMeterReportsResponse(reports=answer.reports, draws=answer.draws)

    async def get_tax_profile(self, call: Call, _request: pb.GetTaxProfileRequest) -> Message:
        answer = await self._inside.ask(
            self._accounts.GetTaxProfile,
            account_pb2.GetTaxProfileRequest(tenant=call.caller.own_tenant()),
            call.left_s(),
            account_pb2.GetTaxProfileResponse,
        )
        return pb.GetTaxProfileResponse(profile=answer.profile)

    async def set_tax_profile(self, call: Call, request: pb.SetTaxProfileRequest) -> Message:
        await self._known(request.profile.tenant)
        answer = await self._inside.ask(
            self._accounts.SetTaxProfile,
            account_pb2.SetTaxProfileRequest(profile=request.profile),
            call.left_s(),
            account_pb2.SetTaxProfileResponse,
        )
        return pb.SetTaxProfileResponse(profile=answer.profile)

    async def list_legal_entities(
        self, call: Call, _request: pb.ListLegalEntitiesRequest
    ) -> Message:
        answer = await self._inside.ask(
            self._accounts.ListLegalEntities,
            account_pb2.ListLegalEntitiesRequest(),
            call.left_s(),
            account_pb2.ListLegalEntitiesResponse,
        )
        return pb.ListLegalEntitiesResponse(entities=answer.entities)

    async def set_legal_entity(self, call: Call, request: pb.SetLegalEntityRequest) -> Message:
        answer = await self._inside.ask(
            self._accounts.SetLegalEntity,
            account_pb2.SetLegalEntityRequest(entity=request.entity),
            call.left_s(),
            account_pb2.SetLegalEntityResponse,
        )
        return pb.SetLegalEntityResponse(entity=answer.entity)

    async def list_tax_rates(self, call: Call, _request: pb.ListTaxRatesRequest) -> Message:
        answer = await self._inside.ask(
            self._accounts.ListTaxRates,
            account_pb2.ListTaxRatesRequest(),
            call.left_s(),
            account_pb2.ListTaxRatesResponse,
        )
        return pb.ListTaxRatesResponse(rates=answer.rates)

    async def create_tax_rate(self, call: Call, request: pb.CreateTaxRateRequest) -> Message:
        answer = await self._inside.ask(
            self._accounts.CreateTaxRate,
            account_pb2.CreateTaxRateRequest(rate=request.rate),
            call.left_s(),
            account_pb2.CreateTaxRateResponse,
        )
        return pb.CreateTaxRateResponse(rate=answer.rate)

    async def _known(self, tenant: str) -> None:
        found = names.id_of(tenant, "tenants")
        if found is None or not await self._access.has_tenant(found):
            raise names.no_tenant(tenant)
