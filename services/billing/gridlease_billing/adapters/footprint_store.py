# ruff: noqa: S608 - statements are made of constants of this file
"""Energy and carbon of leases in PostgreSQL, and what invoices have told of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import asyncpg
from gridlease_store.pool import Connection

from gridlease_billing.domain.carbon import Embodied, SitePower
from gridlease_billing.domain.energy_use import Basis, Draw, EnergyUse, Range
from gridlease_billing.domain.footprint_line import Telling, Told
from gridlease_billing.footprint_ports import Drew

_COLUMNS = """
l.id, l.job, l.node, l.chip, l.tier, l.site, l.quantity_milli, l.opened_ms, p.pue_milli,
p.carbon_mg_per_kwh, p.price_nano_per_kwh, e.carbon_g, e.life_hours, e.uncertainty_permille,
e.source, d.idle_mw, d.peak_mw, d.source AS draw_source, d.carbon_g AS draw_carbon_g,
d.life_hours AS draw_life_hours, d.uncertainty_permille AS draw_uncertainty_permille,
d.embodied_source AS draw_embodied_source,
ARRAY(SELECT m.segment FROM meter AS m WHERE m.lease = l.id ORDER BY m.segment) AS numbers,
ARRAY(SELECT m.energy FROM meter AS m WHERE m.lease = l.id ORDER BY m.segment) AS energies,
ARRAY(SELECT s.starts_ms FROM meter AS m
    JOIN segment AS s ON s.lease = m.lease AND s.number = m.segment
    WHERE m.lease = l.id ORDER BY m.segment) AS starts,
ARRAY(SELECT m.run / 1000000 FROM meter AS m WHERE m.lease = l.id ORDER BY m.segment) AS spans
"""
_FROM = """
FROM lease AS l LEFT JOIN site_power AS p ON p.id = l.power
LEFT JOIN LATERAL (SELECT * FROM embodied WHERE chip = l.chip ORDER BY version DESC LIMIT 1) AS e
    ON true
LEFT JOIN LATERAL (SELECT * FROM chip_power WHERE chip = l.chip ORDER BY version DESC LIMIT 1) AS d
    ON true
"""
_DREW = f"""
SELECT {_COLUMNS} {_FROM} WHERE l.tenant = $1 AND ($2 = '' OR l.job = $2)
    AND EXISTS (SELECT FROM meter AS m WHERE m.lease = l.id)
ORDER BY l.opened_ms DESC, l.id DESC LIMIT $3
"""
_DREW_OF = f"SELECT {_COLUMNS} {_FROM} WHERE l.id = ANY($1) ORDER BY l.id"
_EMBODIED_OF = "SELECT * FROM embodied WHERE chip = $1 ORDER BY version DESC LIMIT 1"
_EMBODIED = """
INSERT INTO embodied (chip, carbon_g, life_hours, uncertainty_permille, source, recorded_ms,
    request_id)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (request_id) DO NOTHING
"""
_DRAW = "SELECT * FROM chip_power WHERE chip = $1 ORDER BY version DESC LIMIT 1"
_NEW_DRAW = """
INSERT INTO chip_power (chip, idle_mw, peak_mw, source, carbon_g, life_hours,
    uncertainty_permille, embodied_source, recorded_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""
_TOLD = """
SELECT f.*, l.job, l.node, l.chip, l.tier, l.site, l.quantity_milli, l.opened_ms
FROM footprint AS f JOIN lease AS l ON l.id = f.lease
WHERE f.lease = ANY($1) ORDER BY f.lease, f.number
"""
_TELL = """
INSERT INTO footprint (lease, number, tenant, invoice, recorded_ms, starts_ms, ends_ms, basis,
    energy_mj, operational_mg, embodied_mg, pue_milli, carbon_mg_per_kwh, source, carbon_g,
    life_hours, uncertainty_permille, embodied_source)
SELECT $1, $2, tenant, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17
FROM lease WHERE id = $1
"""


class PostgresFootprints:
    """The tables of embodied carbon, chips' power and what was told, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def drew(self, tenant: str, job: str, limit: int) -> list[Drew]:
        return [_drew(it) for it in await self._db.fetch(_DREW, tenant, job, limit)]

    async def drew_of(self, leases: Collection[str]) -> list[Drew]:
        return [_drew(it) for it in await self._db.fetch(_DREW_OF, list(leases))]

    async def embodied(self, chip: str) -> Embodied | None:
        found = await self._db.fetchrow(_EMBODIED_OF, chip)
        return None if found is None else _embodied(found, "", "source")

    async def put_embodied(self, chip: str, it: Embodied, request_id: str, now_ms: int) -> None:
        await self._db.execute(_EMBODIED, chip, *_made(it), now_ms, request_id)

    async def keep_draws(self, draws: Mapping[str, Draw], now_ms: int) -> None:
        for chip, draw in sorted(draws.items()):
            found = await self._db.fetchrow(_DRAW, chip)
            if found is None or _draw(found) != draw:
                values = (chip, draw.idle_mw, draw.peak_mw, draw.source, *_made(draw.embodied))
                await self._db.execute(_NEW_DRAW, *values, now_ms)

    async def told(self, leases: Collection[str]) -> list[Telling]:
        return [_telling(it) for it in await self._db.fetch(_TOLD, list(leases))]

    async def tell(self, tellings: Sequence[Telling], invoice: str, now_ms: int) -> None:
        await self._db.executemany(_TELL, [_row(it, invoice, now_ms) for it in tellings])


def _made(it: Embodied | None) -> tuple[object, ...]:
    if it is None:
        return (None, None, None, None)
    return (it.carbon_g, it.life_hours, it.uncertainty_permille, it.source)


def _drew(it: asyncpg.Record) -> Drew:
    power = None
    if it["pue_milli"] is not None:
        price = tuple(it["price_nano_per_kwh"])
        power = SitePower(it["pue_milli"], tuple(it["carbon_mg_per_kwh"]), price)
    draw = None
    if it["idle_mw"] is not None:
        made = _embodied(it, "draw_", "draw_embodied_source")
        draw = Draw(it["idle_mw"], it["peak_mw"], it["draw_source"], made)
    return Drew(
        _told(it, it["id"]),
        tuple(it["numbers"]),
        tuple(zip(it["energies"], it["starts"], it["spans"], strict=True)),
        power,
        draw,
        _embodied(it, "", "source") or (draw.embodied if draw else None),
    )


def _told(it: asyncpg.Record, lease: str) -> Told:
    return Told(
        lease,
        it["job"],
        it["node"],
        it["site"],
        it["chip"],
        it["tier"],
        it["quantity_milli"],
        it["opened_ms"],
    )


def _embodied(it: asyncpg.Record, prefix: str, source: str) -> Embodied | None:
    if it[f"{prefix}carbon_g"] is None:
        return None
    return Embodied(
        it[f"{prefix}carbon_g"],
        it[f"{prefix}life_hours"],
        it[f"{prefix}uncertainty_permille"],
        it[source],
    )


def _draw(it: asyncpg.Record) -> Draw:
    made = _embodied(it, "", "embodied_source")
    return Draw(it["idle_mw"], it["peak_mw"], it["source"], made)


def _telling(it: asyncpg.Record) -> Telling:
    carbon, pue_milli = it["operational_mg"], it["pue_milli"]
    use = EnergyUse(
        None if it["basis"] is None else Basis(it["basis"]),
        Range(*it["energy_mj"]),
        None if carbon is None else Range(*carbon),
        it["embodied_mg"],
    )
    return Telling(
        _told(it, it["lease"]),
        it["number"],
        it["starts_ms"],
        it["ends_ms"],
        use,
        None if pue_milli is None else SitePower(pue_milli, tuple(it["carbon_mg_per_kwh"])),
        _embodied(it, "", "embodied_source"),
        it["source"],
    )


def _row(it: Telling, invoice: str, now_ms: int) -> tuple[object, ...]:
    use, power = it.use, it.power
    return (
        it.of.lease, it.number, invoice, now_ms, it.starts_ms, it.ends_ms, use.basis,
        _list(use.energy), None if use.operational is None else _list(use.operational),
        use.embodied_mg, None if power is None else power.pue_milli,
        [] if power is None else list(power.carbon_mg_per_kwh), it.source, *_made(it.embodied),
    )  # fmt: skip


def _list(it: Range) -> list[int]:
    return [it.expected, it.low, it.high]
