"""Money that comes in another currency: converted once, by a rate that is a fraction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exchanged:
    """``paid_nano`` of ``currency`` became ``credited_nano``: 1 of it is numerator/denominator."""

    currency: str
    paid_nano: int
    numerator: int
    denominator: int
    credited_nano: int


def convert(currency: str, paid_nano: int, numerator: int, denominator: int) -> Exchanged:
    """What a payment is worth, floor: never more than was paid for.

    >>> convert("EUR", 3_000_000_001, 13, 12).credited_nano
    3250000001
    """
    assert min(paid_nano, numerator, denominator) > 0, (paid_nano, numerator, denominator)
    return Exchanged(
        currency, paid_nano, numerator, denominator, paid_nano * numerator // denominator
    )
