"""An invoice: final, numbered, its total the exact sum of its lines, rounded once to be paid."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gridlease_kernel.money import Money

from gridlease_billing.domain.price import CURRENCY
from gridlease_billing.domain.usage import Line


@dataclass(frozen=True, slots=True)
class Head:
    """Who is billed, for what, and under which number."""

    name: str  # "invoices/…"
    number: str  # "GL-2026-000001"
    tenant: str
    project: str
    job: str  # "" = all of the project's
    issued_ms: int


@dataclass(frozen=True, slots=True)
class Invoice:
    head: Head
    lines: tuple[Line, ...]
    total_nano: int
    payable_nano: int
    content_sha256: str
    currency: str = CURRENCY


def number(year: int, count: int) -> str:
    """The number for people: gapless within a year.

    >>> number(2026, 1)
    'GL-2026-000001'
    """
    return f"GL-{year}-{count:06d}"


def year_of(now_ms: int) -> int:
    """The year, UTC, of a time in ms."""
    return moment(now_ms).year


def moment(now_ms: int) -> datetime.datetime:
    """A time in ms as UTC."""
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return epoch + datetime.timedelta(milliseconds=now_ms)


def compose(head: Head, lines: Sequence[Line]) -> Invoice:
    """The invoice of these lines, in the stable order: by start, lease, segment, meter."""
    ordered = tuple(
        sorted(lines, key=lambda line: (line.opened_ms, line.lease, line.segment, line.meter))
    )
    keys = {(line.lease, line.segment, line.meter) for line in ordered}
    assert len(keys) == len(ordered), "one line for each lease, segment and meter"
    total_nano = sum(line.amount_nano for line in ordered)
    payable_nano = Money(total_nano).rounded().nano
    digest = hashlib.sha256(canonical(head, ordered, total_nano, payable_nano)).hexdigest()
    return Invoice(head, ordered, total_nano, payable_nano, digest)


def canonical(head: Head, lines: Sequence[Line], total_nano: int, payable_nano: int) -> bytes:
    """The bytes that the digest is over: JSON, keys sorted, no blanks, integers only."""
    return json.dumps(
        content(head, lines, total_nano, payable_nano),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
    ).encode("ascii")


def content(
    head: Head, lines: Sequence[Line], total_nano: int, payable_nano: int
) -> Mapping[str, Any]:
    """What an invoice says, as JSON has it."""
    return {
        **asdict(head),
        "currency": CURRENCY,
        "lines": [asdict(line) for line in lines],
        "total_nano": total_nano,
        "payable_nano": payable_nano,
    }


def as_json(invoice: Invoice) -> bytes:
    """An invoice as a JSON file, with the digest of its content."""
    said = content(invoice.head, invoice.lines, invoice.total_nano, invoice.payable_nano)
    told = {**said, "content_sha256": invoice.content_sha256}
    return (json.dumps(told, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
