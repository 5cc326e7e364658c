"""Legal entities, tenants' tax profiles and the tax table in PostgreSQL: insert only."""

from __future__ import annotations

import asyncpg
from gridlease_store.pool import Connection

from gridlease_billing.domain.issuer import LegalEntity, TaxProfile, TaxSource
from gridlease_billing.domain.tax import TaxRate

_ENTITY = """
SELECT * FROM legal_entity WHERE entity = $1 ORDER BY version DESC LIMIT 1
"""
_ENTITIES = "SELECT DISTINCT ON (entity) * FROM legal_entity ORDER BY entity, version DESC"
_TAKE_PREFIX = "INSERT INTO invoice_prefix VALUES ($1, $2) ON CONFLICT DO NOTHING"
_OWNER = "SELECT entity FROM invoice_prefix WHERE prefix = $1"
_PUT_ENTITY = """
INSERT INTO legal_entity (entity, name, address, country, tax_id, prefix, recorded_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
_PROFILE = "SELECT * FROM tax_profile WHERE tenant = $1 ORDER BY version DESC LIMIT 1"
_PUT_PROFILE = """
INSERT INTO tax_profile (tenant, name, address, country, tax_id, language, entity, recorded_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
_RATES = "SELECT * FROM tax_rate ORDER BY country, effective_ms"
_PUT_RATE = "INSERT INTO tax_rate VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING"


class PostgresTaxes:
    """Who issues, to whom, at which tax; in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def entity(self, name: str) -> LegalEntity | None:
        found = await self._db.fetchrow(_ENTITY, name)
        return None if found is None else _entity(found)

    async def entities(self) -> list[LegalEntity]:
        return [_entity(it) for it in await self._db.fetch(_ENTITIES)]

    async def put_entity(self, it: LegalEntity) -> bool:
        """False: another entity's numbers begin so."""
        await self._db.execute(_TAKE_PREFIX, it.prefix, it.entity)
        if await self._db.fetchval(_OWNER, it.prefix) != it.entity:
            return False
        await self._db.execute(
            _PUT_ENTITY, it.entity, it.name, it.address, it.country, it.tax_id, it.prefix,
            it.recorded_ms,
        )  # fmt: skip
        return True

    async def profile(self, tenant: str) -> TaxProfile | None:
        it = await self._db.fetchrow(_PROFILE, tenant)
        if it is None:
            return None
        names = ("name", "address", "country", "tax_id", "language", "entity", "recorded_ms")
        return TaxProfile(tenant, *(it[name] for name in names))

    async def put_profile(self, it: TaxProfile) -> None:
        await self._db.execute(
            _PUT_PROFILE, it.tenant, it.name, it.address, it.country, it.tax_id, it.language,
            it.entity, it.recorded_ms,
        )  # fmt: skip

    async def rates(self) -> list[TaxSource]:
        return [
            TaxSource(
                TaxRate(it["country"], it["name"], it["permyriad"], it["effective_ms"]),
                it["source"],
            )
            for it in await self._db.fetch(_RATES)
        ]

    async def put_rate(self, it: TaxSource, now_ms: int) -> bool:
        """False: the country has an entry of that time."""
        rate = it.rate
        done = await self._db.execute(
            _PUT_RATE, rate.country, rate.effective_ms, rate.name, rate.permyriad, it.source, now_ms
        )
        return int(done.split()[-1]) == 1


def _entity(it: asyncpg.Record) -> LegalEntity:
    names = ("entity", "name", "address", "country", "tax_id", "prefix", "recorded_ms")
    return LegalEntity(*(it[name] for name in names))
