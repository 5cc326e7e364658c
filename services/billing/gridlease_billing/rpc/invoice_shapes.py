"""Invoices, taxes and reports as protobuf has them, and back."""

from __future__ import annotations

from gridlease.type.v1 import money_pb2

from gridlease_billing.domain.invoice import FINAL, Invoice, Party
from gridlease_billing.domain.issuer import (
    DEFAULT_ENTITY,
    CoverDraw,
    LegalEntity,
    SignedReport,
    TaxProfile,
    TaxSource,
)
from gridlease_billing.domain.tax import TaxRate
from gridlease_billing.rpc.shapes import line, moment, plain, resource


def invoice(value: Invoice) -> money_pb2.Invoice:
    head, tax = value.head, value.parties.tax
    made = money_pb2.Invoice(
        name=head.name,
        number=head.number,
        tenant=head.tenant,
        project=head.project,
        issue_time=moment(head.issued_ms),
        total_nano=value.total_nano,
        payable_nano=value.payable_nano,
        currency=value.currency,
        content_sha256=value.content_sha256,
        kind=head.kind,
        state=head.state,
        net_nano=value.net_nano,
        tax_nano=value.tax_nano,
        tax_treatment=tax.treatment.value,
        tax_permyriad=tax.permyriad,
        tax_note=tax.note,
        issuer=_party(value.parties.seller),
        buyer=_party(value.parties.buyer),
        cites=head.cites,
        job=head.job,
    )
    for it, billed, share in zip(value.lines, value.billed, value.taxes, strict=False):
        told = line(it, FINAL, head.name)
        told.kind, told.site, told.cites, told.note = it.kind, it.site, it.cites, it.note
        told.start_time.CopyFrom(moment(it.starts_ms or it.opened_ms))
        told.end_time.CopyFrom(moment(it.ends_ms or it.opened_ms))
        told.billed_nano, told.tax_nano = billed, share
        made.lines.append(told)
    return made


def _party(value: Party) -> money_pb2.Party:
    return money_pb2.Party(
        entity=value.entity,
        display_name=value.name,
        address=value.address,
        country=value.country,
        tax_id=value.tax_id,
    )


def report(value: SignedReport) -> money_pb2.MeterReport:
    return money_pb2.MeterReport(
        lease=value.lease,
        segment=value.segment,
        node=f"nodes/{value.node}",
        node_key=value.node_key,
        report=value.report,
        signature=value.signature,
        record_time=moment(value.recorded_ms),
        part=value.part,
    )


def draw(value: CoverDraw) -> money_pb2.CoverDraw:
    return money_pb2.CoverDraw(
        commitment=value.commitment,
        hour_time=moment(value.hour_ms),
        lease=value.lease,
        segment=value.segment,
        rate_nano_per_hour=value.rate_nano_per_hour,
        quantity_milli=value.quantity_milli,
        before_milli_ns=value.before_milli_ns,
        milli_ns=value.milli_ns,
        cover_nano=value.cover_nano,
    )


def profile(value: TaxProfile) -> money_pb2.TaxProfile:
    made = money_pb2.TaxProfile(
        tenant=value.tenant,
        display_name=value.name,
        address=value.address,
        country=value.country,
        tax_id=value.tax_id,
        language=value.language,
        entity=value.entity,
    )
    if value.recorded_ms:
        made.create_time.CopyFrom(moment(value.recorded_ms))
    return made


def told_profile(told: money_pb2.TaxProfile) -> TaxProfile:
    return TaxProfile(
        resource(told.tenant, "tenants", "profile.tenant"),
        plain(told.display_name),
        plain(told.address),
        told.country,
        plain(told.tax_id),
        told.language or "en",
        told.entity or DEFAULT_ENTITY,
    )


def entity(value: LegalEntity) -> money_pb2.LegalEntity:
    return money_pb2.LegalEntity(
        entity=value.entity,
        display_name=value.name,
        address=value.address,
        country=value.country,
        tax_id=value.tax_id,
        prefix=value.prefix,
        create_time=moment(value.recorded_ms),
    )


def told_entity(told: money_pb2.LegalEntity) -> LegalEntity:
    return LegalEntity(
        told.entity,
        plain(told.display_name),
        plain(told.address),
        told.country,
        plain(told.tax_id),
        told.prefix,
    )


def rate(value: TaxSource) -> money_pb2.TaxRate:
    it = value.rate
    return money_pb2.TaxRate(
        country=it.country,
        label=it.name,
        permyriad=it.permyriad,
        effective_time=moment(it.effective_ms),
        source=value.source,
    )


def told_rate(told: money_pb2.TaxRate) -> TaxSource:
    at_ms = told.effective_time.ToMilliseconds()
    return TaxSource(
        TaxRate(told.country, plain(told.label), told.permyriad, at_ms), plain(told.source)
    )
