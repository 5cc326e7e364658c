"""Energy and carbon as protobuf has them, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gridlease.billing.v1 import account_pb2
from gridlease.type.v1 import contract_pb2, money_pb2

from gridlease_billing.domain.carbon import Embodied, SitePower
from gridlease_billing.domain.energy_use import USUAL_LIFE_HOURS, Draw, EnergyUse, Range
from gridlease_billing.domain.segment import RUN_METER
from gridlease_billing.footprints import Expected, Plan, Trace
from gridlease_billing.rpc.shapes import plain

_MOST = 2**63 - 1  # of the wire: a quote may be for more than there is


def draw(told: contract_pb2.ChipPower) -> Draw:
    """What a chip draws; over four years where no life is told of what making it emitted."""
    made = None
    if told.HasField("embodied"):
        it = told.embodied
        made = Embodied(
            max(0, it.carbon_g),
            it.life_hours if it.life_hours > 0 else USUAL_LIFE_HOURS,
            min(1_000, max(0, it.uncertainty_permille)),
            plain(it.source),
        )
    return Draw(told.idle_mw, told.peak_mw, plain(told.source), made)


def draws(told: Iterable[contract_pb2.ChipPower]) -> dict[str, Draw]:
    """By chip."""
    return {plain(it.chip): draw(it) for it in told if it.chip}


def plan(request: account_pb2.GetQuoteRequest) -> Plan | None:
    """What a quote is of; None where nothing is known of what it draws."""
    if not request.HasField("power"):
        return None
    sites = tuple(
        (plain(it.site), SitePower(max(1_000, it.pue_milli), tuple(it.carbon_mg_per_kwh)))
        for it in request.sites
    )
    return Plan(
        plain(request.chip), request.quantity_milli, request.duration_ms, draw(request.power), sites
    )


def expected(it: Expected, source: str) -> contract_pb2.EnergyUse:
    """At one site; ``source``: where its watts stand."""
    return _use(it.use, it.site, it.power, it.embodied, source)


def traced(it: Trace, segment: int = 0) -> contract_pb2.EnergyUse:
    """Of a lease, or of one of its segments."""
    use = it.uses.get(segment, EnergyUse(None)) if segment else it.use
    drew = it.drew
    source = drew.draw.source if drew.draw else ""
    return _use(use, drew.of.site, drew.power, drew.embodied, source)


def with_use(line: money_pb2.UsageLine, found: Mapping[str, Trace]) -> money_pb2.UsageLine:
    """A line of run time with what its segment drew and emitted; another as it is."""
    if line.meter == RUN_METER and line.lease in found:
        use = traced(found[line.lease], line.segment)
        if use.basis or use.embodied_source:  # else nothing is known of it
            line.use.CopyFrom(use)
    return line


def _use(
    it: EnergyUse, site: str, power: SitePower | None, made: Embodied | None, source: str
) -> contract_pb2.EnergyUse:
    carbon = it.operational or Range()
    return contract_pb2.EnergyUse(
        basis=it.basis or "",
        site=site,
        energy_mj=min(it.energy.expected, _MOST),
        energy_low_mj=min(it.energy.low, _MOST),
        energy_high_mj=min(it.energy.high, _MOST),
        pue_milli=power.pue_milli if power else 0,
        known_carbon=it.operational is not None,
        operational_mg=min(carbon.expected, _MOST),
        operational_low_mg=min(carbon.low, _MOST),
        operational_high_mg=min(carbon.high, _MOST),
        embodied_mg=min(it.embodied_mg or 0, _MOST),
        embodied_uncertainty_permille=made.uncertainty_permille if made else 0,
        embodied_source=made.source if made else "",
        source=source if it.basis == "ESTIMATED" else "",
    )
