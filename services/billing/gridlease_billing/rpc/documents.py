# ruff: noqa: N802, ARG002 - names and arguments are the protos'
"""AccountService, the documents: invoices, credit notes, taxes, and what a bill rests on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from gridlease.billing.v1 import account_pb2 as pb
from gridlease.type.v1 import money_pb2
from gridlease_kernel.ids import Ids

from gridlease_billing import taxes
from gridlease_billing.credit_note import Refund, create_credit_note
from gridlease_billing.domain.invoice import Invoice, as_json
from gridlease_billing.domain.invoice_rows import as_csv, as_focus
from gridlease_billing.domain.invoice_text import as_text
from gridlease_billing.invoice import (
    create_invoice,
    draws_of,
    finalize_invoice,
    get_invoice,
    list_invoices,
    reports_of,
)
from gridlease_billing.ports import Books, Printer
from gridlease_billing.receivables import of_invoices
from gridlease_billing.rpc import invoice_shapes, shapes
from gridlease_billing.rpc.receivables import receivable

_TABLE = "text/csv; charset=utf-8"


class Documents:
    """Those methods of AccountService that are about invoices and taxes."""

    _books: Books
    _ids: Ids
    _printer: Printer

    async def CreateInvoice(
        self, request: pb.CreateInvoiceRequest, context: Any
    ) -> pb.CreateInvoiceResponse:
        scope = shapes.scope(request.tenant, request.project, request.job)
        request_id = shapes.plain(request.request_id)
        made = await create_invoice(self._books, self._ids, scope, request_id, draft=request.draft)
        (told,) = await self._told([made])
        return pb.CreateInvoiceResponse(invoice=told)

    async def FinalizeInvoice(
        self, request: pb.FinalizeInvoiceRequest, context: Any
    ) -> pb.FinalizeInvoiceResponse:
        (told,) = await self._told([await finalize_invoice(self._books, *_which(request))])
        return pb.FinalizeInvoiceResponse(invoice=told)

    async def CreateCreditNote(
        self, request: pb.CreateCreditNoteRequest, context: Any
    ) -> pb.CreateCreditNoteResponse:
        tenant, name = _which(request)
        refund = Refund(
            tenant,
            name,
            shapes.plain(request.reason),
            shapes.plain(request.request_id),
            request.position,
            request.amount_nano,
        )
        made = await create_credit_note(self._books, self._ids, refund)
        return pb.CreateCreditNoteResponse(invoice=invoice_shapes.invoice(made))

    async def GetInvoice(
        self, request: pb.GetInvoiceRequest, context: Any
    ) -> pb.GetInvoiceResponse:
        (told,) = await self._told([await self._invoice(request)])
        return pb.GetInvoiceResponse(invoice=told)

    async def ListInvoices(
        self, request: pb.ListInvoicesRequest, context: Any
    ) -> pb.ListInvoicesResponse:
        found = await list_invoices(self._books, shapes.scope(request.tenant, request.project, ""))
        return pb.ListInvoicesResponse(invoices=await self._told(found))

    async def RenderInvoice(
        self, request: pb.RenderInvoiceRequest, context: Any
    ) -> pb.RenderInvoiceResponse:
        found = await self._invoice(request)
        stem = found.head.number or found.head.name.rpartition("/")[2]
        match request.format:
            case pb.INVOICE_FORMAT_PDF:
                # Setting a long document takes a while: not in the loop that answers grants.
                content = await asyncio.to_thread(self._printer.print, found, request.language)
                kind, ending = "application/pdf", "pdf"
            case pb.INVOICE_FORMAT_JSON:
                content, kind, ending = as_json(found), "application/json", "json"
            case pb.INVOICE_FORMAT_CSV:
                content, kind, ending = as_csv(found), _TABLE, "csv"
            case pb.INVOICE_FORMAT_FOCUS:
                content, kind, ending = as_focus(found), _TABLE, "focus.csv"
            case _:
                content = as_text(found, request.language)
                kind, ending = "text/plain; charset=utf-8", "txt"
        return pb.RenderInvoiceResponse(
            content=content, media_type=kind, file_name=f"{stem}.{ending}"
        )

    async def ListMeterReports(
        self, request: pb.ListMeterReportsRequest, context: Any
    ) -> pb.ListMeterReportsResponse:
        found = await reports_of(self._books, *_which(request))
        draws = await draws_of(self._books, *_which(request))
        return pb.ListMeterReportsResponse(
            reports=[invoice_shapes.report(it) for it in found],
            draws=[invoice_shapes.draw(it) for it in draws],
        )

    async def GetTaxProfile(
        self, request: pb.GetTaxProfileRequest, context: Any
    ) -> pb.GetTaxProfileResponse:
        tenant = shapes.resource(request.tenant, "tenants", "tenant")
        found = await taxes.get_profile(self._books, tenant)
        return pb.GetTaxProfileResponse(profile=invoice_shapes.profile(found))

    async def SetTaxProfile(
        self, request: pb.SetTaxProfileRequest, context: Any
    ) -> pb.SetTaxProfileResponse:
        told = invoice_shapes.told_profile(request.profile)
        made = await taxes.set_profile(self._books, told)
        return pb.SetTaxProfileResponse(profile=invoice_shapes.profile(made))

    async def ListLegalEntities(
        self, request: pb.ListLegalEntitiesRequest, context: Any
    ) -> pb.ListLegalEntitiesResponse:
        found = await taxes.list_entities(self._books)
        return pb.ListLegalEntitiesResponse(entities=[invoice_shapes.entity(it) for it in found])

    async def SetLegalEntity(
        self, request: pb.SetLegalEntityRequest, context: Any
    ) -> pb.SetLegalEntityResponse:
        told = invoice_shapes.told_entity(request.entity)
        made = await taxes.set_entity(self._books, told)
        return pb.SetLegalEntityResponse(entity=invoice_shapes.entity(made))

    async def ListTaxRates(
        self, request: pb.ListTaxRatesRequest, context: Any
    ) -> pb.ListTaxRatesResponse:
        found = await taxes.list_rates(self._books)
        return pb.ListTaxRatesResponse(rates=[invoice_shapes.rate(it) for it in found])

    async def CreateTaxRate(
        self, request: pb.CreateTaxRateRequest, context: Any
    ) -> pb.CreateTaxRateResponse:
        made = await taxes.add_rate(self._books, invoice_shapes.told_rate(request.rate))
        return pb.CreateTaxRateResponse(rate=invoice_shapes.rate(made))

    async def _told(self, found: Sequence[Invoice]) -> list[money_pb2.Invoice]:
        """As protobuf has them, with what they ask for; they are one tenant's."""
        if not found:
            return []
        names = [it.head.name for it in found]
        owed, now_ms = await of_invoices(self._books, found[0].head.tenant, names)
        told = [invoice_shapes.invoice(it) for it in found]
        for each in told:
            if each.name in owed:
                each.receivable.CopyFrom(receivable(owed[each.name], now_ms))
        return told

    async def _invoice(self, request: pb.GetInvoiceRequest | pb.RenderInvoiceRequest) -> Invoice:
        return await get_invoice(self._books, *_which(request))


def _which(request: Any) -> tuple[str, str]:
    """The tenant and the name of the document that a request is about."""
    tenant = shapes.resource(request.tenant, "tenants", "tenant")
    return tenant, shapes.resource(request.name, "invoices", "name")
