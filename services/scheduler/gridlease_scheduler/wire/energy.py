"""What chips and sites draw, as billing and the gateway are told it."""

from __future__ import annotations

from collections.abc import Iterable

from gridlease.type.v1 import contract_pb2

from gridlease_scheduler.domain.chips import Catalogue, Chip
from gridlease_scheduler.domain.snapshot import Site

_MILLI = 1_000
_MOST_PUE_MILLI = 5_000
_LONGEST_SOURCE = 300


def draws(chips: Iterable[str], catalogue: Catalogue) -> list[contract_pb2.ChipPower]:
    """Of each chip that the catalogue has, once, by name as it was given."""
    found = {name: catalogue.find(name) for name in sorted(set(chips))}
    return [chip_power(name, chip) for name, chip in found.items() if chip is not None]


def chip_power(name: str, chip: Chip) -> contract_pb2.ChipPower:
    """One device, or one core of a CPU."""
    told = contract_pb2.ChipPower(
        chip=name,
        idle_mw=chip.idle_watts * _MILLI,
        peak_mw=chip.peak_watts * _MILLI,
        source=chip.source[:_LONGEST_SOURCE],
    )
    if chip.embodied is not None:
        made = chip.embodied
        told.embodied.carbon_g = made.kg * _MILLI
        told.embodied.uncertainty_permille = made.uncertainty_percent * 10
        told.embodied.source = made.source[:_LONGEST_SOURCE]
    return told


def site_energy(site: Site) -> contract_pb2.SiteEnergy | None:
    """None where nothing is known of its power."""
    if site.pue_milli == _MILLI and not site.carbon_mg_per_kwh:
        return None
    return contract_pb2.SiteEnergy(
        site=f"sites/{site.name}",
        pue_milli=max(_MILLI, min(_MOST_PUE_MILLI, site.pue_milli)),
        carbon_mg_per_kwh=site.carbon_mg_per_kwh,
    )
