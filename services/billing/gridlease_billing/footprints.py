"""Energy and carbon of leases, of a quote, and what invoices tell of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gridlease_billing.domain.carbon import Embodied, Footprint, SitePower, footprint
from gridlease_billing.domain.energy_use import Basis, Draw, EnergyUse, total, use_of
from gridlease_billing.domain.footprint_line import Telling, beyond, information, worth_telling
from gridlease_billing.domain.usage import Line
from gridlease_billing.footprint_ports import Drew
from gridlease_billing.ports import Books, Work


@dataclass(frozen=True, slots=True)
class Trace:
    """A lease and its footprint. ``measured``: its node counted energy; ``use``: or else estimated.

    ``uses``: by segment.
    """

    drew: Drew
    footprint: Footprint
    measured: bool
    use: EnergyUse
    uses: Mapping[int, EnergyUse]


async def list_footprints(books: Books, tenant: str, job: str, limit: int) -> list[Trace]:
    """What a tenant's leases drew and emitted, newest first."""

    async def work(tx: Work) -> list[Trace]:
        return [trace(it) for it in await tx.footprints.drew(tenant, job, limit)]

    return await books.run(work, tenant=tenant)


async def put_embodied(books: Books, chip: str, it: Embodied, request_id: str) -> None:
    """Writes a figure down; the latest of a chip holds."""

    async def work(tx: Work) -> None:
        now = await tx.now()
        await tx.footprints.put_embodied(chip, it, request_id, now.ms)

    await books.run(work)


@dataclass(frozen=True, slots=True)
class Plan:
    """What may run, from now on. ``sites``: where, with what is known of the power there."""

    chip: str
    quantity_milli: int
    duration_ms: int
    draw: Draw
    sites: tuple[tuple[str, SitePower], ...]


@dataclass(frozen=True, slots=True)
class Expected:
    """What it would draw and emit at one site; ``power`` None where none is known to have it."""

    site: str
    power: SitePower | None
    embodied: Embodied | None
    use: EnergyUse


async def expect(books: Books, plan: Plan) -> list[Expected]:
    """What a plan would draw and emit, site by site; before it runs all of it is an estimate."""

    async def work(tx: Work) -> tuple[int, Embodied | None]:
        return (await tx.now()).ms, await tx.footprints.embodied(plan.chip)

    now_ms, written = await books.run(work)
    embodied = written or plan.draw.embodied
    span = (0, now_ms, plan.duration_ms)
    places: Sequence[tuple[str, SitePower | None]] = plan.sites or (("", None),)
    return [
        Expected(
            site,
            power,
            embodied,
            total(use_of([span], power, plan.draw, embodied, plan.quantity_milli)),
        )
        for site, power in places
    ]


class DrawKeeper:
    """Writes down what chips draw, as orders tell it: each figure once, not once an order."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._known: dict[str, Draw] = {}

    async def keep(self, draws: Mapping[str, Draw]) -> None:
        """By chip."""
        new = {chip: it for chip, it in draws.items() if self._known.get(chip) != it}
        if not new:
            return

        async def work(tx: Work) -> None:
            await tx.footprints.keep_draws(new, (await tx.now()).ms)

        await self._books.run(work)
        self._known.update(new)


def trace(drew: Drew) -> Trace:
    """The sum of a lease's segments, each by the hours that it fell into."""
    site = drew.power or SitePower(1_000)
    quantity_milli = drew.of.quantity_milli
    parts = [
        footprint(mj, starts_ms, span_ms, site, drew.embodied, quantity_milli)
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
    uses = use_of(drew.segments, drew.power, drew.draw, drew.embodied, quantity_milli)
    measured = any(mj for mj, _, _ in drew.segments)
    return Trace(drew, whole, measured, total(uses), dict(zip(drew.numbers, uses, strict=True)))


async def traces(books: Books, tenant: str, leases: Collection[str]) -> dict[str, Trace]:
    """Of a tenant's leases, as they stand."""

    async def work(tx: Work) -> dict[str, Trace]:
        found = await tx.footprints.drew_of(sorted(set(leases)))
        return {it.of.lease: trace(it) for it in found if it.numbers}

    return await books.run(work, tenant=tenant)


async def tell(tx: Work, invoice: str, lines: Sequence[Line]) -> list[Line]:
    """The lines that say what the leases of an invoice drew and emitted, and it is written down.

    Only what no earlier invoice told; by the figures that the first telling of a lease was from.
    """
    running = {it.lease for it in lines if it.kind in ("USAGE", "CORRECTION")}
    if not running:
        return []
    told: defaultdict[str, list[Telling]] = defaultdict(list)
    for it in await tx.footprints.told(sorted(running)):
        told[it.of.lease].append(it)
    drew = [it for it in await tx.footprints.drew_of(sorted(running)) if it.numbers]
    new = [it for it in (_telling(each, told[each.of.lease]) for each in drew) if it is not None]
    if new:
        await tx.footprints.tell(new, invoice, (await tx.now()).ms)
    return [line for it in new for line in information(it)]


async def told_again(tx: Work, sources: Collection[str]) -> list[Line]:
    """The lines that some rows of what was told make, for documents made again."""
    leases = {it.split("/")[1] for it in sources if it.startswith("footprint/")}
    if not leases:
        return []
    made = [line for it in await tx.footprints.told(sorted(leases)) for line in information(it)]
    return [it for it in made if it.source in sources]


def _telling(drew: Drew, told: Sequence[Telling]) -> Telling | None:
    """What is told of a lease now; None = nothing new, or nothing known."""
    first = told[0] if told else None
    power, embodied, basis = drew.power, drew.embodied, None
    if first is not None:
        embodied, basis = first.embodied, first.use.basis
    uses = use_of(drew.segments, power, drew.draw, embodied, drew.of.quantity_milli, basis)
    use = beyond(total(uses), told)
    if not worth_telling(use):
        return None
    starts_ms = min(it[1] for it in drew.segments)
    ends_ms = max(it[1] + it[2] for it in drew.segments)
    source = drew.draw.source if drew.draw and use.basis is Basis.ESTIMATED else ""
    number = len(told) + 1
    return Telling(drew.of, number, starts_ms, ends_ms, use, power, embodied, source)
