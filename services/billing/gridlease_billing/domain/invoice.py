"""An invoice or credit note: numbered, its total the exact sum of its lines, rounded once.

The net total is rounded to the currency's minor unit, the tax is computed once on it, and both
are allotted to the lines by largest remainder, so that the lines add up to what is asked for.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from gridlease_kernel.money import Money, largest_remainder

from gridlease_billing.domain.price import CURRENCY
from gridlease_billing.domain.tax import PERMYRIAD, Tax, Treatment, tax_of
from gridlease_billing.domain.usage import Line

INVOICE, CREDIT_NOTE = "INVOICE", "CREDIT_NOTE"
DRAFT, FINAL = "DRAFT", "FINAL"
FORMAT = 2  # of what the digest is over; 1 knew neither parties nor tax
MINOR_EXPONENT: Mapping[str, int] = {"USD": 2, "EUR": 2, "GBP": 2, "CNY": 2, "JPY": 0}
_LINE = tuple(it.name for it in fields(Line))
_LINES_OF_1 = (
    "lease", "job", "node", "segment", "meter", "chip", "tier", "quantity_milli",
    "rate_nano_per_hour", "price_version", "counter_ns", "granted_ns", "charged_ns",
    "amount_nano", "opened_ms", "currency",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Head:
    """Who is billed, for what, and under which number."""

    name: str  # "invoices/…"
    number: str  # "GL-2026-000001"; "" of a draft
    tenant: str
    project: str
    job: str  # "" = all of the project's
    issued_ms: int
    kind: str = INVOICE
    state: str = FINAL
    cites: str = ""  # a credit note's invoice
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Party:
    """Who issues or receives it. ``entity``: the issuer's, "" of a tenant."""

    entity: str = ""
    name: str = ""
    address: str = ""
    country: str = ""
    tax_id: str = ""


@dataclass(frozen=True, slots=True)
class Parties:
    """What was known of both when it was issued; ``language``: of its documents."""

    seller: Party = field(default_factory=Party)
    buyer: Party = field(default_factory=Party)
    tax: Tax = field(default_factory=lambda: Tax(Treatment.NONE))
    language: str = "en"


@dataclass(frozen=True, slots=True)
class Invoice:
    """``billed``, ``taxes``: of each line, what it is asked for and its part of the tax."""

    head: Head
    lines: tuple[Line, ...]
    parties: Parties
    total_nano: int
    net_nano: int
    tax_nano: int
    payable_nano: int
    billed: tuple[int, ...] = ()
    taxes: tuple[int, ...] = ()
    content_sha256: str = ""
    currency: str = CURRENCY


def number(prefix: str, kind: str, year: int, count: int) -> str:
    """The number for people: gapless for an issuer, a kind and a year.

    >>> number("GL", INVOICE, 2026, 1), number("GL", CREDIT_NOTE, 2026, 1)
    ('GL-2026-000001', 'GL-CN-2026-000001')
    """
    series = "" if kind == INVOICE else "-CN"
    return f"{prefix}{series}-{year}-{count:06d}"


def year_of(now_ms: int) -> int:
    """The year, UTC, of a time in ms."""
    return moment(now_ms).year


def moment(now_ms: int) -> datetime.datetime:
    """A time in ms as UTC."""
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return epoch + datetime.timedelta(milliseconds=now_ms)


def in_order(lines: Sequence[Line]) -> tuple[Line, ...]:
    """The stable order: by start, lease, segment, meter; each row of the books once."""
    found = tuple(
        sorted(
            lines, key=lambda it: (it.opened_ms, it.lease, it.segment, it.meter, it.kind, it.source)
        )
    )
    keys = {(it.lease, it.segment, it.meter, it.kind, it.source) for it in found}
    assert len(keys) == len(found), "one line for each row of the books"
    return found


def compose(head: Head, lines: Sequence[Line], parties: Parties | None = None) -> Invoice:
    """The document of these lines."""
    parties = parties or Parties()
    ordered = in_order(lines)
    exponent = MINOR_EXPONENT[CURRENCY]
    step = 10 ** (9 - exponent)
    total_nano = sum(line.amount_nano for line in ordered)
    net_nano = Money(total_nano).rounded(exponent).nano
    billed, taxes = _allotted(head, ordered, parties.tax, step)
    tax_nano = sum(taxes)
    made = Invoice(
        head, ordered, parties, total_nano, net_nano, tax_nano, net_nano + tax_nano, billed, taxes
    )
    if head.kind == INVOICE and ordered:
        assert sum(billed) == net_nano, (sum(billed), net_nano)
        assert tax_nano == tax_of(net_nano, parties.tax.permyriad, step), tax_nano
    if head.state == DRAFT:
        return made
    return replace(made, content_sha256=hashlib.sha256(canonical(made)).hexdigest())


def _allotted(
    head: Head, lines: Sequence[Line], tax: Tax, step: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if head.kind == CREDIT_NOTE:  # taken from what its lines were split into
        return tuple(it.amount_nano for it in lines), tuple(it.tax_nano for it in lines)
    billed = largest_remainder([line.amount_nano for line in lines], step)
    exact = [each * tax.permyriad // PERMYRIAD for each in billed]
    return tuple(billed), tuple(largest_remainder(exact, step))


def asked_for(invoice: Invoice) -> dict[int, tuple[int, int]]:
    """By position, the net and the tax that a line asks for, and that notes may give back.

    What a low priority, or a minimum that was charged before, takes off a line comes off here, so
    that no note gives it back as well.
    """
    at = {line.source: position for position, line in enumerate(invoice.lines, start=1)}
    shares = zip(invoice.billed, invoice.taxes, strict=True)
    found = dict(enumerate(shares, start=1))
    for position, line in enumerate(invoice.lines, start=1):
        base = at.get(line.source.rpartition("/")[0])  # the part's line, if it is a part
        if line.amount_nano < 0 and base is not None:
            (net, tax), (less_net, less_tax) = found[base], found[position]
            found[base], found[position] = (net + less_net, tax + less_tax), (0, 0)
    return found


def canonical(invoice: Invoice) -> bytes:
    """The bytes that the digest is over: JSON, keys sorted, no blanks, integers only."""
    return json.dumps(
        content(invoice), sort_keys=True, separators=(",", ":"), ensure_ascii=True
    ).encode("ascii")


def content(invoice: Invoice) -> Mapping[str, Any]:
    """What a document says, as JSON has it."""
    head = invoice.head
    if head.format == 1:
        names = ("name", "number", "tenant", "project", "job", "issued_ms")
        lines = [_told(line) for line in invoice.lines]
        return {
            **{name: getattr(head, name) for name in names},
            "currency": invoice.currency,
            "lines": [{name: line[name] for name in _LINES_OF_1} for line in lines],
            "total_nano": invoice.total_nano,
            "payable_nano": invoice.payable_nano,
        }
    shares = zip(invoice.lines, invoice.billed, invoice.taxes, strict=True)
    return {
        **asdict(head),
        "currency": invoice.currency,
        **asdict(invoice.parties),
        "lines": [
            {**_told(line), "position": at, "billed_nano": billed, "tax_nano": tax}
            for at, (line, billed, tax) in enumerate(shares, start=1)
        ],
        "total_nano": invoice.total_nano,
        "net_nano": invoice.net_nano,
        "tax_nano": invoice.tax_nano,
        "payable_nano": invoice.payable_nano,
    }


def _told(line: Line) -> dict[str, Any]:
    """As ``asdict``, which copies each value to its depth: a line has none."""
    return {name: getattr(line, name) for name in _LINE}


def as_json(invoice: Invoice) -> bytes:
    """A document as a JSON file, with the digest of its content."""
    told = {**content(invoice), "content_sha256": invoice.content_sha256}
    return (json.dumps(told, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
