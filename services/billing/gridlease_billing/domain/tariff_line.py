"""What a tariff makes of a line: what its steps cost, what of it was free, and the minimum.

The meters of the parts are the line's own and "_free" or "_minimum". They add up to what is
charged, to the atom, however the month's total was sliced.
"""

from __future__ import annotations

from dataclasses import replace

from gridlease_billing.domain.meter_price import shown
from gridlease_billing.domain.rating import Tariff
from gridlease_billing.domain.usage import Line

FREE, MINIMUM = "free", "minimum"


def meter_of(meter: str) -> tuple[str, str]:
    """A line's meter, and which part of its line it is; "" = all of it, or its main part.

    >>> meter_of("egress_free"), meter_of("run")
    (('egress', 'free'), ('run', ''))
    """
    base, _, part = meter.partition("_")
    return (base, part) if part in (FREE, MINIMUM) else (meter, "")


def by_tariff(whole: Line, tariff: Tariff, month_before: int) -> list[Line]:
    """A line of a meter as what its steps cost, what of it was free, and the month's minimum."""
    parts = shown(tariff, month_before, whole.charged_ns)
    found = [replace(whole, amount_nano=parts.stepped_nano)]
    if parts.free:
        free = replace(
            _part(whole, FREE),
            amount_nano=0,
            before=whole.before + whole.charged_ns - parts.free,  # of the count, what is not it
            granted_ns=parts.free,
            charged_ns=parts.free,
        )
        found.append(free)
    if parts.minimum_nano:
        found.append(replace(_part(whole, MINIMUM), amount_nano=parts.minimum_nano))
    assert sum(it.amount_nano for it in found) == whole.amount_nano, (whole, tariff, month_before)
    return found


def _part(whole: Line, name: str) -> Line:
    source = f"{whole.source}/{name}" if whole.source else ""
    return replace(whole, meter=f"{whole.meter}_{name}", source=source)
