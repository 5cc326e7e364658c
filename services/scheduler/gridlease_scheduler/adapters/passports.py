"""Where nodes stand and with which key they sign: told to billing with each order."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import asyncpg
from gridlease_store.pool import Pool, transaction

_PASSPORTS = """
SELECT node.id, node.site, node.public_key, site.pue_milli, site.carbon_mg_per_kwh,
    site.price_nano_per_kwh
FROM node LEFT JOIN site ON site.id = node.site WHERE node.id = ANY($1::text[])
"""
_POWERS = """
SELECT id, pue_milli, carbon_mg_per_kwh, price_nano_per_kwh FROM site WHERE id = ANY($1::text[])
"""
_NO_OVERHEAD_MILLI = 1_000
_MOST_PUE_MILLI = 5_000


@dataclass(frozen=True, slots=True)
class Power:
    """What a site's power costs and emits, as operators wrote it; lists by the hour, UTC."""

    pue_milli: int
    carbon_mg_per_kwh: tuple[int, ...]
    price_nano_per_kwh: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Passport:
    """``key``: the node's public key; empty = it signs nothing."""

    site: str
    key: str
    power: Power | None = None  # None = nothing is known of its site's


class Passports:
    """As they are now: a node that enrols again has another key.

    ``signing``: whether nodes have credentials of their own, and so a key to sign with.
    """

    def __init__(self, pool: Pool, *, signing: bool) -> None:
        self._pool = pool
        self._signing = signing

    async def of(self, nodes: Collection[str]) -> dict[str, Passport]:
        """By node.

        Raises:
            Unreachable: the database did not answer.
        """
        async with transaction(self._pool, readonly=True) as connection:
            found = await connection.fetch(_PASSPORTS, list(nodes))
        return {
            it["id"]: Passport(it["site"], it["public_key"] if self._signing else "", _power(it))
            for it in found
        }

    async def powers(self, sites: Collection[str]) -> dict[str, Power]:
        """By site; those of which nothing is known are left out.

        Raises:
            Unreachable: the database did not answer.
        """
        async with transaction(self._pool, readonly=True) as connection:
            found = await connection.fetch(_POWERS, list(sites))
        known = {it["id"]: _power(it) for it in found}
        return {site: power for site, power in known.items() if power is not None}


def _power(row: asyncpg.Record) -> Power | None:
    carbon, price = row["carbon_mg_per_kwh"] or [], row["price_nano_per_kwh"] or []
    pue_milli = row["pue_milli"] or _NO_OVERHEAD_MILLI
    if not carbon and not price and pue_milli == _NO_OVERHEAD_MILLI:
        return None
    pue_milli = max(_NO_OVERHEAD_MILLI, min(_MOST_PUE_MILLI, pue_milli))
    return Power(pue_milli, tuple(carbon), tuple(price))
