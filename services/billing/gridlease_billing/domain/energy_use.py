"""Energy and carbon of a lease with what is not sure of them: metered, or estimated from watts.

Sources: Green Software Foundation, Software Carbon Intensity specification 1.1.0, whose energy is
measured or, where it cannot be, estimated; Cloud Carbon Footprint, Methodology, "Compute": the draw
is idle power plus utilisation times the span up to full load, half of it where utilisation is not
known.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from gridlease_billing.domain.carbon import Embodied, SitePower, footprint

_MILLI = 1_000
# Source: Boavizta, BoaviztAPI documentation, default lifetime of servers: four years.
USUAL_LIFE_HOURS = 35_040


class Basis(enum.StrEnum):
    """Where energy is from."""

    METERED = "METERED"
    ESTIMATED = "ESTIMATED"


@dataclass(frozen=True, slots=True)
class Draw:
    """What one device (or CPU core) draws: with nothing to do, and at full load.

    ``embodied``: what the catalogue says that making it emitted.
    """

    idle_mw: int
    peak_mw: int
    source: str = ""
    embodied: Embodied | None = None

    def __post_init__(self) -> None:
        assert 0 <= self.idle_mw <= self.peak_mw, self

    def energies(self, span_ms: int, quantity_milli: int) -> tuple[int, int, int]:
        """Millijoules of a span: the least, the expected and the most.

        >>> Draw(100_000, 400_000).energies(3_600_000, 1_000)
        (360000000, 900000000, 1440000000)
        """
        usual = (self.idle_mw + self.peak_mw) // 2
        least, expected, most = (
            mw * span_ms * quantity_milli // (_MILLI * _MILLI)
            for mw in (self.idle_mw, usual, self.peak_mw)
        )
        return least, expected, most


@dataclass(frozen=True, slots=True)
class Range:
    """A figure, and between what it lies."""

    expected: int = 0
    low: int = 0
    high: int = 0

    def __post_init__(self) -> None:
        assert 0 <= self.low <= self.expected <= self.high, self

    def __add__(self, other: Range) -> Range:
        return Range(self.expected + other.expected, self.low + other.low, self.high + other.high)

    def less(self, told: Range) -> Range:
        """What is beyond ``told``; never below zero."""
        low = max(0, self.low - told.low)
        expected = max(low, self.expected - told.expected)
        return Range(expected, low, max(expected, self.high - told.high))


@dataclass(frozen=True, slots=True)
class EnergyUse:
    """``energy``: of the site, in mJ; carbon in mg of CO2 equivalent. None = not known.

    ``basis`` None: nothing was metered, and no watts are known to estimate it from.
    """

    basis: Basis | None
    energy: Range = Range()
    operational: Range | None = None
    embodied_mg: int | None = None


def use_of(
    segments: Sequence[tuple[int, int, int]],
    site: SitePower | None,
    draw: Draw | None,
    embodied: Embodied | None,
    quantity_milli: int,
    basis: Basis | None = None,
) -> tuple[EnergyUse, ...]:
    """Each segment's use, of (metered millijoules, starts_ms, span_ms); they sum to the lease's.

    ``basis``: as an earlier telling had it, so that a later one is comparable.
    """
    if basis is None:
        metered = any(mj for mj, _, _ in segments)
        basis = Basis.METERED if metered else None if draw is None else Basis.ESTIMATED
    return tuple(_use(it, site, draw, embodied, quantity_milli, basis) for it in segments)


def total(parts: Sequence[EnergyUse]) -> EnergyUse:
    """The sum of segments of one lease; what is not known of one is not known of it."""
    assert parts, "a lease has a segment"
    carbon = [it.operational for it in parts]
    made = [it.embodied_mg for it in parts]
    return EnergyUse(
        parts[0].basis,
        sum((it.energy for it in parts), Range()),
        None if None in carbon else sum((it for it in carbon if it), Range()),
        None if None in made else sum(it for it in made if it),
    )


def _use(
    segment: tuple[int, int, int],
    site: SitePower | None,
    draw: Draw | None,
    embodied: Embodied | None,
    quantity_milli: int,
    basis: Basis | None,
) -> EnergyUse:
    mj, starts_ms, span_ms = segment
    low = high = mj
    if basis is Basis.ESTIMATED and draw is not None:
        low, mj, high = draw.energies(span_ms, quantity_milli)
    power = site or SitePower(_MILLI)
    found = footprint(mj, starts_ms, span_ms, power, embodied, quantity_milli)
    if basis is None:
        return EnergyUse(None, embodied_mg=found.embodied_mg)
    least, most = (each * power.pue_milli // _MILLI for each in (low, high))
    carbon = found.operational_mg
    return EnergyUse(
        basis,
        Range(found.site_mj, least, most),
        None if carbon is None else _along(carbon, low, mj, high),
        found.embodied_mg,
    )


def _along(carbon_mg: int, low_mj: int, mj: int, high_mj: int) -> Range:
    """Carbon lies where its energy does: the hours are the same."""
    whole = max(1, mj)
    return Range(carbon_mg, carbon_mg * low_mj // whole, -(-carbon_mg * high_mj // whole))
