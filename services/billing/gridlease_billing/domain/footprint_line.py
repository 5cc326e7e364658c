"""What an invoice tells of a lease's energy and carbon: lines that cost nothing.

A telling is written down when its invoice takes its lines, with every figure that it was computed
from; the lines are made from it alone, so they are the same for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from gridlease_billing.domain.carbon import Embodied, SitePower
from gridlease_billing.domain.energy_use import Basis, EnergyUse, Range
from gridlease_billing.domain.focus import quantity
from gridlease_billing.domain.usage import Line

INFORMATION = "INFORMATION"
SITE_ENERGY, CARBON, EMBODIED = "site_energy", "carbon", "embodied"
METERS = (SITE_ENERGY, CARBON, EMBODIED)
_MJ_A_KWH = 3_600_000_000
_MG_A_G = 1_000


@dataclass(frozen=True, slots=True)
class Told:
    """The lease that a telling is of."""

    lease: str
    job: str
    node: str
    site: str
    chip: str
    tier: str
    quantity_milli: int
    opened_ms: int


@dataclass(frozen=True, slots=True)
class Telling:
    """What one invoice tells of one lease, beyond what earlier ones told. ``number`` from 1.

    ``power``, ``embodied``, ``source``: what it was computed from, as it was known then.
    """

    of: Told
    number: int
    starts_ms: int
    ends_ms: int
    use: EnergyUse
    power: SitePower | None
    embodied: Embodied | None
    source: str


def beyond(whole: EnergyUse, told: Sequence[Telling]) -> EnergyUse:
    """What of a lease's use no invoice has told yet."""
    use = whole
    for it in told:
        known = it.use
        carbon = use.operational
        if carbon is not None and known.operational is not None:
            carbon = carbon.less(known.operational)
        made = use.embodied_mg
        if made is not None:
            made = max(0, made - (known.embodied_mg or 0))
        use = EnergyUse(use.basis, use.energy.less(known.energy), carbon, made)
    return use


def worth_telling(use: EnergyUse) -> bool:
    """Is there a figure at all?"""
    return bool(use.energy.high or use.embodied_mg or (use.operational and use.operational.high))


def information(it: Telling) -> Iterator[Line]:
    """Its lines: energy at the site, what the grid emitted for it, a share of what making did."""
    use = it.use
    if use.basis is not None and use.energy.high and (it.power or use.basis is Basis.ESTIMATED):
        yield _line(it, SITE_ENERGY, use.energy.expected, _of_energy(it))
    if use.operational is not None:
        yield _line(it, CARBON, use.operational.expected, _of_carbon(it, use.operational))
    if use.embodied_mg is not None and it.embodied is not None:
        yield _line(it, EMBODIED, use.embodied_mg, _of_making(it.embodied))


def kwh(mj: int) -> str:
    """To a milliwatt-hour, half to even.

    >>> kwh(1_800_000_000), kwh(3_600)
    ('0.5', '0.000001')
    """
    return _rounded(Fraction(mj, _MJ_A_KWH), 6)


def grams(mg: int) -> str:
    """Exact.

    >>> grams(1_250)
    '1.25'
    """
    return _rounded(Fraction(mg, _MG_A_G), 3)


def percent(permille: int) -> str:
    """
    >>> percent(500), percent(125)
    ('50', '12.5')
    """
    return _rounded(Fraction(permille, 10), 1)


def _rounded(value: Fraction, digits: int) -> str:
    return quantity(Fraction(round(value * 10**digits), 10**digits))


def _of_energy(it: Telling) -> str:
    use = it.use
    parts = ["metered" if use.basis is Basis.METERED else "estimated"]
    if use.energy.low != use.energy.high:
        parts.append(f"{kwh(use.energy.low)}..{kwh(use.energy.high)} kWh")
    if it.power is None:
        parts.append("overhead of the site not known")
    else:
        parts.append(f"PUE {_rounded(Fraction(it.power.pue_milli, 1_000), 3)}")
    if use.operational is None:
        parts.append("intensity of the grid not known")
    if use.basis is Basis.ESTIMATED and it.source:
        parts.append(it.source)
    return "; ".join(parts)


def _of_carbon(it: Telling, carbon: Range) -> str:
    assert it.power is not None, "carbon is known of a site that is known"
    table = it.power.carbon_mg_per_kwh
    least, most = grams(min(table)), grams(max(table))
    parts = ["metered" if it.use.basis is Basis.METERED else "estimated"]
    if carbon.low != carbon.high:
        parts.append(f"{grams(carbon.low)}..{grams(carbon.high)} g")
    parts.append(f"{least} g/kWh" if least == most else f"{least}..{most} g/kWh")
    return "; ".join(parts)


def _of_making(made: Embodied) -> str:
    years = _rounded(Fraction(made.life_hours, 8_760), 2)
    share = f"{made.carbon_g} g / {years} a"
    return f"±{percent(made.uncertainty_permille)} %; {share}; {made.source}"


def _line(it: Telling, meter: str, count: int, note: str) -> Line:
    of = it.of
    return Line(
        lease=of.lease,
        job=of.job,
        node=of.node,
        segment=0,
        meter=meter,
        chip=of.chip,
        tier=of.tier,
        quantity_milli=of.quantity_milli,
        rate_nano_per_hour=0,
        price_version=0,
        counter_ns=count,
        granted_ns=count,
        charged_ns=count,
        amount_nano=0,
        opened_ms=of.opened_ms,
        kind=INFORMATION,
        site=of.site,
        starts_ms=it.starts_ms,
        ends_ms=it.ends_ms,
        note=note,
        source=f"footprint/{of.lease}/{it.number}/{meter}",
    )
