"""What a job's priority makes of its price: a published table of bands and multipliers.

    rate = base + surcharge,  surcharge = floor(base x (permille - 1,000) / 1,000)

A lease is charged at the whole rate. Documents show two lines: the base, ``f(base, ns)``, and the
priority, ``f(rate, ns) - f(base, ns)``; both are of totals, so they add up to the whole to the
atom, however the run time was sliced. Below 1,000 permille the second line is a discount.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gridlease_kernel.money import amount_nano

from gridlease_billing.domain.book import Span

METER = "run_priority"  # the line beside the run time's
NEUTRAL_PERMILLE = 1_000
MOST_PERMILLE = 10_000
HIGHEST = 100


@dataclass(frozen=True, slots=True)
class Band:
    """From priority ``above`` on, a price is multiplied by ``permille`` thousandths."""

    above: int
    permille: int


@dataclass(frozen=True, slots=True)
class PriorityTable:
    """One version of the table. Times: database clock, ms."""

    version: int
    bands: tuple[Band, ...]
    effective_ms: int
    recorded_ms: int
    correction: bool = False
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class NewPriorityTable:
    """A version to write; ``effective_ms`` None = from now on, in the past = a correction."""

    bands: tuple[Band, ...]
    effective_ms: int | None
    request_id: str
    correction: bool = False


def wrong(bands: Sequence[Band]) -> str:
    """What makes these no table; "" = they are one."""
    starts = [it.above for it in bands]
    if starts[:1] != [0]:
        return "the first band begins at 0"
    if starts != sorted(set(starts)) or starts[-1] > HIGHEST:
        return f"bands begin at ever higher priorities, {HIGHEST} at most"
    if not all(0 <= it.permille <= MOST_PERMILLE for it in bands):
        return f"a multiplier is between 0 and {MOST_PERMILLE} permille"
    return ""


def permille_of(table: PriorityTable, priority: int) -> int:
    """The multiplier of a priority.

    >>> permille_of(PriorityTable(1, (Band(0, 800), Band(50, 1250)), 0, 0), 50)
    1250
    """
    return next(it.permille for it in reversed(table.bands) if it.above <= max(0, priority))


def surcharge_of(base_nano_per_hour: int, permille: int) -> int:
    """What a multiplier adds to a rate; rounded down, in the customer's favour.

    >>> surcharge_of(1_001, 1_500), surcharge_of(1_001, 500)
    (500, -501)
    """
    return base_nano_per_hour * (permille - NEUTRAL_PERMILLE) // NEUTRAL_PERMILLE


def priority_part(rate_nano_per_hour: int, surcharge_nano_per_hour: int, ns: int) -> int:
    """Of what ``ns`` of run time cost at a whole rate, what the priority makes of it."""
    base = rate_nano_per_hour - surcharge_nano_per_hour
    return amount_nano(rate_nano_per_hour, ns) - amount_nano(base, ns)
