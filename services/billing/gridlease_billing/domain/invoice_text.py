"""An invoice in words: one layout for plain text and for the PDF's cells."""

from __future__ import annotations

from gridlease_kernel.money import NANO, Money

from gridlease_billing.domain.invoice import Invoice, moment
from gridlease_billing.domain.usage import Line

COLUMNS = ("Lease", "Seg", "Chip", "Tier", "Units", "Rate / h", "Seconds", "Amount")
_RIGHT = {1, 4, 5, 6, 7}


def cells(line: Line) -> tuple[str, ...]:
    """A line's cells, in the order of ``COLUMNS``."""
    return (
        line.lease,
        str(line.segment),
        line.chip,
        line.tier.lower().replace("_", "-"),
        decimal(line.quantity_milli, 1_000),
        decimal(line.rate_nano_per_hour, NANO),
        decimal(line.charged_ns, NANO),
        decimal(line.amount_nano, NANO),
    )


def facts(invoice: Invoice) -> list[tuple[str, str]]:
    """What stands above the lines."""
    head = invoice.head
    return [
        ("Number", head.number),
        ("Name", head.name),
        ("Issued", moment(head.issued_ms).strftime("%Y-%m-%d %H:%M:%S UTC")),
        ("Tenant", head.tenant),
        ("Project", head.project),
        *([("Job", head.job)] if head.job else []),
    ]


def sums(invoice: Invoice) -> list[tuple[str, str]]:
    """What stands below them."""
    return [
        ("Total, exact", str(Money(invoice.total_nano, invoice.currency))),
        ("Payable, rounded once", str(Money(invoice.payable_nano, invoice.currency))),
        ("SHA-256", invoice.content_sha256),
    ]


def decimal(value: int, unit: int) -> str:
    """``value / unit`` written exactly.

    >>> decimal(1500, 1000)
    '1.5'
    """
    whole, part = divmod(value, unit)
    digits = str(part).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def as_text(invoice: Invoice) -> bytes:
    """An invoice as a plain text file."""
    rows = [COLUMNS, *(cells(line) for line in invoice.lines)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    out = [f"INVOICE {invoice.head.number}", ""]
    out += [f"{name + ':':<10}{value}" for name, value in facts(invoice)[1:]]
    out += ["", *(_row(row, widths) for row in rows)]
    out.insert(len(out) - len(invoice.lines), "-" * len(_row(COLUMNS, widths)))
    out += ["", *(f"{name + ':':<24}{value}" for name, value in sums(invoice))]
    out += [
        "",
        "Amount = rate x seconds / 3600, rounded down to 1e-9; rates are hourly, in"
        f" {invoice.currency}.",
    ]
    return ("\n".join(out) + "\n").encode()


def _row(row: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(
        cell.rjust(width) if at in _RIGHT else cell.ljust(width)
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
