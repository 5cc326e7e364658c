"""Documents made of generated lines: FOCUS conforms, sums hold, and the bytes stay the same."""

import hashlib
import json
from pathlib import Path

import pytest
from gridlease_billing.adapters.pdf import PdfPrinter
from gridlease_billing.domain import focus_rules
from gridlease_billing.domain.focus import money
from gridlease_billing.domain.invoice import Head, Parties, Party, as_json, compose
from gridlease_billing.domain.invoice_rows import as_csv, as_focus, focus_rows
from gridlease_billing.domain.invoice_text import as_text
from gridlease_billing.domain.tax import Tax, Treatment
from gridlease_billing.domain.usage import Line
from hypothesis import given
from hypothesis import strategies as st

DIGESTS = Path(__file__).with_name("invoice_digests.json")
HEAD = Head(
    "invoices/iv-1", "GL-2026-000001", "tenants/acme", "projects/vision", "", 1_793_000_000_000
)
PARTIES = Parties(
    Party("default", "Gridlease GmbH 网格", "Weg 1\nBerlin", "DE", "DE123456789"),
    Party("", "阿克米 ACME", "上海 & <Allee> 2", "DE"),
    Tax(Treatment.STANDARD, "DE", "VAT", 1_900),
    "zh",
)


def line(n, **more):
    known = {
        "lease": f"ls-{n}", "job": "projects/vision/jobs/train", "node": "n1", "segment": 1,
        "meter": "run", "chip": "H100-80GB", "tier": "ON_DEMAND", "quantity_milli": 1_000,
        "rate_nano_per_hour": 2_690_000_000, "price_version": 7, "counter_ns": 0, "granted_ns": 0,
        "charged_ns": 0, "amount_nano": 0, "opened_ms": 1_792_000_000_000 + n,
        "site": "sites/berlin", "starts_ms": 1_792_000_000_000, "ends_ms": 1_792_000_120_000,
        "source": f"line/{n}",
    }  # fmt: skip
    made = known | more
    if made["meter"] == "run" and made.get("kind", "USAGE") == "USAGE":
        made["amount_nano"] = made["rate_nano_per_hour"] * made["charged_ns"] // 3_600_000_000_000
    return Line(**made)


METERS = st.sampled_from(["run", "egress", "storage", "energy", "provision"])
SPANS = st.integers(0, 10**15)


@st.composite
def documents(draw):
    lines = []
    for n in range(draw(st.integers(1, 8))):
        meter, span = draw(METERS), draw(SPANS)
        lines.append(
            line(
                n,
                meter=meter,
                charged_ns=span,
                counter_ns=span,
                rate_nano_per_hour=draw(st.integers(0, 10**11)) if meter == "run" else 0,
                amount_nano=draw(st.integers(0, 10**10)) if meter != "run" and span else 0,
                tier=draw(st.sampled_from(["ON_DEMAND", "SPOT", "RESERVED"])),
            )
        )
    left = sum(it.amount_nano for it in lines)
    back = draw(st.integers(0, left))
    if back:
        lines.append(line(98, kind="CREDIT", amount_nano=-back, segment=0, note="sla_credit"))
    if draw(st.booleans()):
        lines.append(
            line(99, kind="CORRECTION", amount_nano=draw(st.integers(0, 10**9)), cites="x#1")
        )
    treatment = draw(st.sampled_from([0, 700, 1_900, 2_500]))
    tax = Tax(Treatment.STANDARD, "DE", "VAT", treatment) if treatment else Tax(Treatment.NONE)
    return compose(HEAD, lines, Parties(PARTIES.seller, PARTIES.buyer, tax))


@given(documents())
def test_any_document_adds_up_and_conforms_to_focus(invoice):
    assert sum(invoice.billed) == invoice.net_nano
    assert sum(invoice.taxes) == invoice.tax_nano
    assert all(it % 10_000_000 == 0 for it in (*invoice.billed, *invoice.taxes))
    assert abs(invoice.net_nano - invoice.total_nano) <= 5_000_000
    rows = focus_rows(invoice)
    payable = {invoice.head.number: money(invoice.payable_nano)}
    assert focus_rules.broken_file(rows, payable) == []
    assert as_focus(invoice)
    assert as_csv(invoice)


FORMATS = {
    "text-en": lambda it: as_text(it, "en"),
    "text-zh": lambda it: as_text(it, "zh"),
    "json": as_json,
    "csv": as_csv,
    "focus": as_focus,
    "pdf-en": lambda it: PdfPrinter().print(it, "en"),
    "pdf-zh": lambda it: PdfPrinter().print(it, "zh"),
}


def known_invoice():
    lines = [
        line(1, charged_ns=1_234_567_890_123, counter_ns=1_234_567_890_123),
        line(2, meter="egress", charged_ns=10**9, rate_nano_per_hour=0, note="not priced"),
        line(3, kind="CREDIT", segment=0, amount_nano=-20_000_001, note="reclaim_credit"),
        line(4, kind="CORRECTION", charged_ns=9, amount_nano=6, cites="invoices/iv-0#1"),
    ]
    return compose(HEAD, lines, PARTIES)


@pytest.mark.parametrize("name", FORMATS)
def test_the_bytes_are_those_that_were_published(name):
    """A change of a document's bytes is a change for its readers: write the new digests on purpose.

    Of PDFs, with the versions of requirements.txt.
    """
    digests = json.loads(DIGESTS.read_text("utf-8"))
    assert hashlib.sha256(FORMATS[name](known_invoice())).hexdigest() == digests[name], name


def test_what_no_typeface_has_is_told_by_a_question_mark():
    from gridlease_billing.adapters.pdf import runs

    typeset = runs("a <b> 租约 \U0001f600")
    assert typeset == 'a &lt;b&gt; <font name="GridleaseCJK">租约</font> ?'
    assert runs("Größe €") == "Größe €"
