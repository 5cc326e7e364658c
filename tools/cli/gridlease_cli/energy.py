"""footprint, and energy and carbon as people read them: a tilde before what is estimated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from gridlease.type.v1 import contract_pb2, money_pb2
from gridlease_sdk.client import Client

from gridlease_cli import words
from gridlease_cli.app import job_name, options_of, reach
from gridlease_cli.output import show_rows

_MJ_A_KWH = 3_600_000_000
_HOUR_MS = 3_600_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("footprint")(footprint)


def footprint(
    context: typer.Context,
    job: Annotated[str, typer.Argument(help="Only this job")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000)] = 100,
) -> None:
    """Energy and carbon of leases; a tilde marks what is estimated."""
    options = options_of(context)

    async def work(client: Client) -> list[contract_pb2.Footprint]:
        name = await job_name(client, job) if job else ""
        return await client.list_footprints(job=name, limit=limit)

    found = reach(options, work)
    heads = ("JOB", "LEASE", "CHIP", "SITE", "DEVICES", "WITH SITE", "GRID CO2E", "EMBODIED CO2E")
    show_rows(options, found, heads, [_footprint_row(it) for it in found])


def kwh(mj: float) -> str:
    """
    >>> kwh(1_800_000_000)
    '0.5 kWh'
    """
    return f"{mj / _MJ_A_KWH:.4g} kWh"


def grams(mg: float) -> str:
    """
    >>> grams(1_250)
    '1.25 g'
    """
    return f"{mg / 1_000:.4g} g"


def used(use: contract_pb2.EnergyUse) -> tuple[str, str]:
    """Energy and carbon, the devices' share of manufacture in it; "-" where not known."""
    mark = "~" if use.basis == "ESTIMATED" else ""
    energy = f"{mark}{kwh(use.energy_mj)}" if use.basis else "-"
    carbon = f"{mark}{grams(use.operational_mg + use.embodied_mg)}" if use.known_carbon else "-"
    return energy, carbon


def expected(quote: money_pb2.Quote) -> Iterator[str]:
    """What a quote would draw and emit in an hour, at each site."""
    for use in quote.uses:
        where = f" at {use.site}" if use.site else ""
        if use.basis:
            least, mean, most = (
                _hourly(it, quote.duration_ms) / _MJ_A_KWH
                for it in (use.energy_low_mj, use.energy_mj, use.energy_high_mj)
            )
            yield f"energy    {mean:.4g} kWh an hour ({least:.4g} to {most:.4g}), estimated{where}"
        if use.known_carbon:
            least, mean, most = (
                _hourly(it, quote.duration_ms) / 1_000
                for it in (use.operational_low_mg, use.operational_mg, use.operational_high_mg)
            )
            yield f"carbon    {mean:.4g} g CO2e an hour ({least:.4g} to {most:.4g}) by the grid"
        if use.embodied_source:
            made = grams(_hourly(use.embodied_mg, quote.duration_ms))
            sure = f"{use.embodied_uncertainty_permille / 10:g} %"
            yield f"          {made} CO2e an hour of manufacture, give or take {sure}"


def _hourly(amount: int, duration_ms: int) -> float:
    return amount * _HOUR_MS / max(1, duration_ms)


_NAMES = {
    "site_energy": "energy at the site",
    "carbon": "CO2e of the grid",
    "embodied": "CO2e of manufacture",
}


def told(meter: str, count: int, note: str) -> str:
    """A line of an invoice that only tells of it."""
    figure = kwh(count) if meter == "site_energy" else grams(count)
    return f"{_NAMES.get(meter, meter)} {figure} ({note})"


def _footprint_row(it: contract_pb2.Footprint) -> tuple[str, ...]:
    made = f"{it.embodied_mg} mg +-{it.embodied_uncertainty_permille / 10:.0f} %"
    return (
        words.short(it.job),
        it.lease,
        it.chip,
        it.site or "-",
        f"{it.device_mj / 3_600_000:.3f} Wh" if it.device_mj else "not measured",
        f"{it.site_mj / 3_600_000:.3f} Wh" if it.device_mj else _estimated_energy(it.use),
        f"{it.operational_mg} mg"
        if it.known_carbon and it.device_mj
        else _estimated_carbon(it.use),
        made if it.embodied_source else "not known",
    )


def _estimated_energy(use: contract_pb2.EnergyUse) -> str:
    return f"~{use.energy_mj / 3_600_000:.3f} Wh" if use.basis == "ESTIMATED" else "-"


def _estimated_carbon(use: contract_pb2.EnergyUse) -> str:
    return f"~{use.operational_mg} mg" if use.known_carbon and use.basis else "not known"
