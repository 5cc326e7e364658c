"""Money and rates as integers: nano-units (1e-9) of one currency, in a signed 64-bit range.

Amounts are rated on cumulative totals: what is posted is ``amount(now) - amount(before)``, so the
sum over any slicing equals the amount of the whole, to the nano-unit.
"""

from __future__ import annotations

from dataclasses import dataclass

NANO = 1_000_000_000
HOUR_NS = 3_600 * NANO
MAX_NANO = 2**63 - 1


def rate_nano_per_hour(price_nano_per_hour: int, quantity_milli: int) -> int:
    """The hourly rate of ``quantity_milli`` thousandths of a unit, rounded half up, in nano-units.

    >>> rate_nano_per_hour(48_000_000, 250)
    12000000
    """
    assert price_nano_per_hour >= 0, price_nano_per_hour
    assert quantity_milli >= 0, quantity_milli
    return (price_nano_per_hour * quantity_milli + 500) // 1_000


def amount_nano(rate_nano_per_hour: int, run_ns: int) -> int:
    """What ``run_ns`` nanoseconds cost at a rate: floor, so never more than the exact product.

    >>> amount_nano(3_600 * NANO, 1_500_000_000)
    1500000000
    """
    assert rate_nano_per_hour >= 0, rate_nano_per_hour
    assert run_ns >= 0, run_ns
    return rate_nano_per_hour * run_ns // HOUR_NS


def hold_nano(rate_nano_per_hour: int, span_ms: int) -> int:
    """What must be held to cover ``span_ms``: ceiling, so the hold always suffices."""
    return -(-rate_nano_per_hour * span_ms * 1_000_000 // HOUR_NS)


@dataclass(frozen=True, slots=True)
class Money:
    """An exact amount of one currency (ISO 4217 code)."""

    nano: int
    currency: str = "USD"

    def __post_init__(self) -> None:
        assert -MAX_NANO <= self.nano <= MAX_NANO, self.nano

    def __str__(self) -> str:
        sign = "-" if self.nano < 0 else ""
        whole, part = divmod(abs(self.nano), NANO)
        digits = f"{part:09d}".rstrip("0")
        return f"{sign}{whole}.{digits:0<2} {self.currency}"

    def rounded(self, minor_exponent: int = 2) -> Money:
        """To the currency's minor unit, half away from zero: the one rounding of an invoice."""
        step = 10 ** (9 - minor_exponent)
        sign = -1 if self.nano < 0 else 1
        return Money(sign * ((abs(self.nano) + step // 2) // step) * step, self.currency)


def largest_remainder(parts_nano: list[int], step: int) -> list[int]:
    """Round each part to a multiple of ``step`` so that the sum equals the rounded total.

    Ties go to the earlier part. Source: the largest-remainder (Hamilton) method.
    """
    floors = [part // step for part in parts_nano]
    total = (sum(parts_nano) + step // 2) // step
    missing = total - sum(floors)
    order = sorted(range(len(parts_nano)), key=lambda i: (-(parts_nano[i] % step), i))
    bumped = set(order[:missing])
    return [(floor + (i in bumped)) * step for i, floor in enumerate(floors)]
