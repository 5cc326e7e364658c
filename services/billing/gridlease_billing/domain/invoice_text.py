"""A document in words: one layout for plain text and for the PDF's cells."""

from __future__ import annotations

import unicodedata
from fractions import Fraction

from gridlease_kernel.money import NANO, Money

from gridlease_billing.domain.focus import quantity
from gridlease_billing.domain.footprint_line import INFORMATION, SITE_ENERGY, grams, kwh
from gridlease_billing.domain.invoice import CREDIT_NOTE, DRAFT, Invoice, Party, moment
from gridlease_billing.domain.invoice_words import note, notes, word
from gridlease_billing.domain.tariff_line import MINIMUM, meter_of
from gridlease_billing.domain.tax import Treatment
from gridlease_billing.domain.usage import TIMED, Line

COLUMNS = ("position", "charge", "lease", "rented", "rate", "quantity", "amount", "billed")
RIGHT = frozenset({0, 4, 5, 6, 7})
_BY_RATE = (*TIMED, "commitment")
# A meter's unit, and how many of its counts that is.
_UNITS = {
    "egress": (1, "B"),
    "energy": (1_000, "J"),
    "provision": (NANO, "s"),
}


def language_of(invoice: Invoice, asked: str) -> str:
    """The language asked for, or the tenant's as it was when the document was issued."""
    return asked or invoice.parties.language


def heads(language: str) -> tuple[str, ...]:
    """The table's heads."""
    return tuple(word(language, name) for name in COLUMNS)


def table(invoice: Invoice, language: str) -> list[tuple[str, ...]]:
    """A row of cells for each line."""
    return [
        (str(at), *_cells(line, language), decimal(billed, NANO))
        for at, (line, billed) in enumerate(
            zip(invoice.lines, invoice.billed, strict=True), start=1
        )
    ]


def title(invoice: Invoice, language: str) -> str:
    """What it is, and its number."""
    if invoice.head.state == DRAFT:
        return word(language, DRAFT)
    return f"{word(language, invoice.head.kind)} {invoice.head.number}"


def facts(invoice: Invoice, language: str = "en") -> list[tuple[str, str]]:
    """What stands above the lines."""
    head = invoice.head
    found = [
        ("number", head.number),
        ("name", head.name),
        ("issued", moment(head.issued_ms).strftime("%Y-%m-%d %H:%M:%S UTC")),
        ("cites", head.cites),
        ("seller", _party(invoice.parties.seller, language)),
        ("buyer", _party(invoice.parties.buyer, language)),
        ("tenant", head.tenant),
        ("project", head.project),
        ("job", head.job),
    ]
    return [(word(language, name), value) for name, value in found if value]


def sums(invoice: Invoice, language: str = "en") -> list[tuple[str, str]]:
    """What stands below them."""
    tax = invoice.parties.tax
    found = [
        (word(language, "total"), _money(invoice.total_nano, invoice)),
        (word(language, "net"), _money(invoice.net_nano, invoice)),
    ]
    if tax.treatment is Treatment.STANDARD:
        rate = f"{tax.country} {tax.name} {decimal(tax.permyriad, 100)} %"
        found.append((f"{word(language, 'tax')} ({rate})", _money(invoice.tax_nano, invoice)))
    elif tax.note:
        found.append((word(language, "tax"), note(language, tax.note)))
    found.append((word(language, "payable"), _money(invoice.payable_nano, invoice)))
    if invoice.content_sha256:
        found.append((word(language, "sha256"), invoice.content_sha256))
    return found


def rule(invoice: Invoice, language: str) -> str:
    """How the amounts came to be, in a sentence or two."""
    return word(language, "rule") + invoice.currency


def decimal(value: int, unit: int) -> str:
    """``value / unit`` written exactly.

    >>> decimal(1500, 1000), decimal(-10000000, 1000000000)
    ('1.5', '-0.01')
    """
    whole, part = divmod(abs(value), unit)
    digits = str(part).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return ("-" if value < 0 else "") + (f"{whole}.{digits}" if digits else str(whole))


def as_text(invoice: Invoice, language: str = "") -> bytes:
    """A document as a plain text file."""
    language = language_of(invoice, language)
    rows = [heads(language), *table(invoice, language)]
    widths = [max(_width(row[at]) for row in rows) for at in range(len(COLUMNS))]
    out = [title(invoice, language).upper(), ""]
    out += _pairs([it for it in facts(invoice, language) if it[1] != invoice.head.number])
    out += ["", *(_row(row, widths) for row in rows)]
    out.insert(len(out) - len(invoice.lines), "-" * (sum(widths) + 2 * len(widths) - 2))
    out += ["", *_pairs(sums(invoice, language)), "", rule(invoice, language)]
    return ("\n".join(out) + "\n").encode()


def _cells(line: Line, language: str) -> tuple[str, ...]:
    return (
        _charge(line, language),
        f"{line.lease}/{line.segment}" if line.segment else line.lease,
        f"{decimal(line.quantity_milli, 1_000)} x {line.chip} {_tier(line)}",
        decimal(line.rate_nano_per_hour, NANO) if line.meter in _BY_RATE else "",
        _quantity(line),
        decimal(line.amount_nano, NANO),
    )


def _charge(line: Line, language: str) -> str:
    own, part = meter_of(line.meter)
    meter = word(language, own) + (f", {word(language, part)}" if part else "")
    if line.kind == "USAGE":
        return f"{meter} ({note(language, line.note)})" if line.note else meter
    if line.kind == INFORMATION:
        return f"{meter}: {notes(language, line.note)}"
    if line.kind == CREDIT_NOTE:
        return f"{meter}: {line.note} [{line.cites}]"
    about = line.note if line.kind != "CREDIT" else word(language, line.note)
    parts = [word(language, line.kind), note(language, about)]
    return ": ".join(parts) + (f" [{line.cites}]" if line.cites else "")


def _tier(line: Line) -> str:
    return line.tier.lower().replace("_", "-")


def _quantity(line: Line) -> str:
    meter, part = meter_of(line.meter)
    if line.kind == "CREDIT" or part == MINIMUM:
        return ""
    if line.kind == INFORMATION:
        energy = line.meter == SITE_ENERGY
        return f"{kwh(line.charged_ns)} kWh" if energy else f"{grams(line.charged_ns)} g"
    if meter == "storage":  # byte-seconds; a GB hour is 3.6e12 of them
        return f"{quantity(Fraction(line.charged_ns, 3_600 * NANO))} GB h"
    unit, name = _UNITS.get(meter, (NANO, "s"))
    return f"{decimal(line.charged_ns, unit)} {name}"


def _party(party: Party, language: str) -> str:
    parts = [party.name, *party.address.splitlines(), party.country]
    if party.tax_id:
        parts.append(f"{word(language, 'tax_id')} {party.tax_id}")
    return ", ".join(part for part in parts if part)


def _money(nano: int, invoice: Invoice) -> str:
    return str(Money(nano, invoice.currency))


def _width(text: str) -> int:
    """Columns on a terminal: wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(it) in "WF" else 1 for it in text)


def _pairs(pairs: list[tuple[str, str]]) -> list[str]:
    width = max(_width(name) for name, _ in pairs) + 2
    return [f"{name}:{' ' * (width - _width(name))}{value}" for name, value in pairs]


def _row(row: tuple[str, ...], widths: list[int]) -> str:
    cells = []
    for at, (cell, width) in enumerate(zip(row, widths, strict=True)):
        gap = " " * (width - _width(cell))
        cells.append(gap + cell if at in RIGHT else cell + gap)
    return "  ".join(cells).rstrip()
