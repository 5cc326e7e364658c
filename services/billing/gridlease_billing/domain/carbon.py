"""Energy and carbon of a lease: what its devices drew, what the site drew for it, what that emits.

Source: Green Software Foundation, Software Carbon Intensity specification 1.1.0: emissions are
energy times the grid's intensity, plus the device's share of what making it emitted; location
based, offsets do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gridlease_billing.domain.credit_note import share

HOUR_MS = 3_600_000
_MJ_A_KWH = 3_600_000_000
_MILLI = 1_000


@dataclass(frozen=True, slots=True)
class SitePower:
    """A site as it stood when the lease was opened. Intensity and price by hour of the day, UTC.

    One entry = the same all day; none = not known. ``pue_milli``: the site's power over that of
    its machines, in thousandths.
    """

    pue_milli: int
    carbon_mg_per_kwh: tuple[int, ...] = ()
    price_nano_per_kwh: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """A site draws at least what its machines draw; a day has 24 hours or one."""
        assert self.pue_milli >= _MILLI, self
        assert len(self.carbon_mg_per_kwh) in (0, 1, 24), self
        assert len(self.price_nano_per_kwh) in (0, 1, 24), self


@dataclass(frozen=True, slots=True)
class Embodied:
    """What making a device emitted; ``uncertainty_permille`` either way, by ``source``."""

    carbon_g: int
    life_hours: int
    uncertainty_permille: int
    source: str


@dataclass(frozen=True, slots=True)
class Footprint:
    """Energy: millijoules; carbon: milligrams of CO2 equivalent; None = not known."""

    device_mj: int
    site_mj: int
    operational_mg: int | None
    embodied_mg: int | None
    energy_nano: int | None

    @property
    def carbon_mg(self) -> int | None:
        """What is known of it together; None where the grid's part is not."""
        if self.operational_mg is None:
            return None
        return self.operational_mg + (self.embodied_mg or 0)


def footprint(
    energy_mj: int,
    starts_ms: int,
    span_ms: int,
    site: SitePower,
    embodied: Embodied | None = None,
    quantity_milli: int = 1_000,
) -> Footprint:
    """Of ``energy_mj`` drawn evenly over a span, by the hours that it fell into.

    ``quantity_milli``: thousandths of a device, for its share of what making it emitted.
    """
    hours, parts = [0], [energy_mj]
    if max(len(site.carbon_mg_per_kwh), len(site.price_nano_per_kwh)) > 1:
        hours, parts = by_hour(energy_mj, starts_ms, span_ms)
    return Footprint(
        device_mj=energy_mj,
        site_mj=energy_mj * site.pue_milli // _MILLI,
        operational_mg=_weighed(hours, parts, site, site.carbon_mg_per_kwh),
        embodied_mg=None if embodied is None else _made(embodied, span_ms, quantity_milli),
        energy_nano=_weighed(hours, parts, site, site.price_nano_per_kwh),
    )


def by_hour(energy_mj: int, starts_ms: int, span_ms: int) -> tuple[list[int], list[int]]:
    """The hours of a span, each as its hour of the day, and the energy of each; exact in sum.

    >>> by_hour(300, 1_800_000, 5_400_000)
    ([0, 1], [100, 200])
    """
    assert min(energy_mj, starts_ms, span_ms) >= 0, (energy_mj, starts_ms, span_ms)
    ends_ms = starts_ms + max(1, span_ms)
    first = starts_ms // HOUR_MS
    hours = range(first, -(-ends_ms // HOUR_MS))
    spans = [min(ends_ms, (hour + 1) * HOUR_MS) - max(starts_ms, hour * HOUR_MS) for hour in hours]
    # Shares of a larger whole: the spans scaled up, so that each is at least what it may get.
    scaled = [each * max(1, energy_mj) for each in spans]
    return [hour % 24 for hour in hours], share(scaled, energy_mj)


def _weighed(
    hours: Sequence[int], parts: Sequence[int], site: SitePower, table: Sequence[int]
) -> int | None:
    if not table:
        return None
    rates = [table[hour % len(table)] for hour in hours]
    whole = sum(part * rate for part, rate in zip(parts, rates, strict=True))
    return whole * site.pue_milli // (_MILLI * _MJ_A_KWH)


def _made(embodied: Embodied, span_ms: int, quantity_milli: int) -> int:
    # Source: SCI 1.1.0, M = TE x TS x RS: all of it, by the share of time and of the device.
    return embodied.carbon_g * span_ms * quantity_milli // (embodied.life_hours * HOUR_MS)
