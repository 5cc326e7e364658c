"""Energy and carbon of leases; the figures of what making devices emitted."""

from __future__ import annotations

from dataclasses import dataclass

from gridlease_billing.contract_ports import Drew
from gridlease_billing.domain.carbon import Embodied, Footprint, SitePower, footprint
from gridlease_billing.ports import Books, Work


@dataclass(frozen=True, slots=True)
class Trace:
    """A lease and its footprint. ``measured``: its node counted energy."""

    drew: Drew
    footprint: Footprint
    measured: bool


async def list_footprints(books: Books, tenant: str, job: str, limit: int) -> list[Trace]:
    """What a tenant's leases drew and emitted, newest first."""

    async def work(tx: Work) -> list[Trace]:
        return [trace(it) for it in await tx.tariffs.drew(tenant, job, limit)]

    return await books.run(work, tenant=tenant)


async def put_embodied(books: Books, chip: str, it: Embodied, request_id: str) -> None:
    """Writes a figure down; the latest of a chip holds."""

    async def work(tx: Work) -> None:
        now = await tx.now()
        await tx.tariffs.put_embodied(chip, it, request_id, now.ms)

    await books.run(work)


def trace(drew: Drew) -> Trace:
    """The sum of a lease's segments, each by the hours that it fell into."""
    site = drew.power or SitePower(1_000)
    parts = [
        footprint(mj, starts_ms, span_ms, site, drew.embodied, drew.quantity_milli)
        for mj, starts_ms, span_ms in drew.segments
    ]
    known = drew.power is not None and bool(drew.power.carbon_mg_per_kwh)
    priced = drew.power is not None and bool(drew.power.price_nano_per_kwh)
    whole = Footprint(
        device_mj=sum(it.device_mj for it in parts),
        site_mj=sum(it.site_mj for it in parts),
        operational_mg=sum(it.operational_mg or 0 for it in parts) if known else None,
        embodied_mg=None if drew.embodied is None else sum(it.embodied_mg or 0 for it in parts),
        energy_nano=sum(it.energy_nano or 0 for it in parts) if priced else None,
    )
    return Trace(drew, whole, any(mj for mj, _, _ in drew.segments))
