"""The client's invoices: bills, credit notes, taxes, and what a bill rests on."""

from __future__ import annotations

from gridlease.billing.v1 import account_pb2
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.type.v1 import money_pb2
from gridlease_kernel.ids import RandomIds

from gridlease_sdk.channel import Connection


class InvoiceCalls:
    """The part of ``Client`` about documents of the key's tenant."""

    _on: Connection
    _ids: RandomIds

    async def create_invoice(
        self, *, job: str = "", request_id: str = "", draft: bool = False
    ) -> money_pb2.Invoice:
        """Bill what is final and not billed yet; a draft waits for its number."""
        request = pb.CreateInvoiceRequest(
            job=job, request_id=request_id or self._ids.new("rq"), draft=draft
        )
        answer = await self._on.ask(
            self._on.billing.CreateInvoice, request, pb.CreateInvoiceResponse
        )
        return answer.invoice

    async def finalize_invoice(self, name: str) -> money_pb2.Invoice:
        """Give a draft its number."""
        answer = await self._on.ask(
            self._on.billing.FinalizeInvoice,
            pb.FinalizeInvoiceRequest(name=name),
            pb.FinalizeInvoiceResponse,
        )
        return answer.invoice

    async def get_invoice(self, name: str) -> money_pb2.Invoice:
        """One invoice."""
        request = pb.GetInvoiceRequest(name=name)
        answer = await self._on.ask(self._on.billing.GetInvoice, request, pb.GetInvoiceResponse)
        return answer.invoice

    async def list_invoices(self) -> list[money_pb2.Invoice]:
        """The tenant's invoices, newest first, without their lines."""
        answer = await self._on.ask(
            self._on.billing.ListInvoices, pb.ListInvoicesRequest(), pb.ListInvoicesResponse
        )
        return list(answer.invoices)

    async def render_invoice(
        self,
        name: str,
        file_format: account_pb2.InvoiceFormat.ValueType,
        *,
        language: str = "",
    ) -> pb.RenderInvoiceResponse:
        """An invoice as a file; ``language``: en or zh, empty = the tenant's."""
        request = pb.RenderInvoiceRequest(name=name, format=file_format, language=language)
        return await self._on.ask(self._on.billing.RenderInvoice, request, pb.RenderInvoiceResponse)

    async def list_meter_reports(self, invoice: str) -> list[money_pb2.MeterReport]:
        """The signed reports that an invoice rests on."""
        return list((await self.list_evidence(invoice)).reports)

    async def list_evidence(self, invoice: str) -> pb.ListMeterReportsResponse:
        """The signed reports that an invoice rests on, and the draws on commitments."""
        return await self._on.ask(
            self._on.billing.ListMeterReports,
            pb.ListMeterReportsRequest(name=invoice),
            pb.ListMeterReportsResponse,
        )

    async def create_credit_note(
        self,
        tenant: str,
        invoice: str,
        reason: str,
        *,
        position: int = 0,
        amount_nano: int = 0,
        request_id: str = "",
    ) -> money_pb2.Invoice:
        """Give back a line of an invoice, or a part of it; position 0 = all lines. Operators."""
        request = pb.CreateCreditNoteRequest(
            tenant=tenant,
            name=invoice,
            position=position,
            amount_nano=amount_nano,
            reason=reason,
            request_id=request_id or self._ids.new("rq"),
        )
        answer = await self._on.ask(
            self._on.billing.CreateCreditNote, request, pb.CreateCreditNoteResponse
        )
        return answer.invoice

    async def tax_profile(self) -> money_pb2.TaxProfile:
        """What the key's tenant is to its tax office."""
        answer = await self._on.ask(
            self._on.billing.GetTaxProfile, pb.GetTaxProfileRequest(), pb.GetTaxProfileResponse
        )
        return answer.profile

    async def set_tax_profile(self, profile: money_pb2.TaxProfile) -> money_pb2.TaxProfile:
        """Write a tenant's tax profile, for invoices to come. Operators."""
        answer = await self._on.ask(
            self._on.billing.SetTaxProfile,
            pb.SetTaxProfileRequest(profile=profile),
            pb.SetTaxProfileResponse,
        )
        return answer.profile

    async def list_legal_entities(self) -> list[money_pb2.LegalEntity]:
        """Who issues invoices. Operators."""
        answer = await self._on.ask(
            self._on.billing.ListLegalEntities,
            pb.ListLegalEntitiesRequest(),
            pb.ListLegalEntitiesResponse,
        )
        return list(answer.entities)

    async def set_legal_entity(self, entity: money_pb2.LegalEntity) -> money_pb2.LegalEntity:
        """Write a legal entity, for invoices to come. Operators."""
        answer = await self._on.ask(
            self._on.billing.SetLegalEntity,
            pb.SetLegalEntityRequest(entity=entity),
            pb.SetLegalEntityResponse,
        )
        return answer.entity

    async def list_tax_rates(self) -> list[money_pb2.TaxRate]:
        """The tax table."""
        answer = await self._on.ask(
            self._on.billing.ListTaxRates, pb.ListTaxRatesRequest(), pb.ListTaxRatesResponse
        )
        return list(answer.rates)

    async def create_tax_rate(self, rate: money_pb2.TaxRate) -> money_pb2.TaxRate:
        """Add to the tax table. Operators."""
        answer = await self._on.ask(
            self._on.billing.CreateTaxRate,
            pb.CreateTaxRateRequest(rate=rate),
            pb.CreateTaxRateResponse,
        )
        return answer.rate
