"""The price book in PostgreSQL: insert only."""

from __future__ import annotations

from collections.abc import Collection

import asyncpg
from gridlease_store.pool import Connection

from gridlease_billing.domain.price import NewPrice, Price, Tier
from gridlease_billing.domain.spot import LastMove
from gridlease_billing.ports import SpotMove

# As ``domain.price.in_force``, by the index, one row a chip and tier.
_IN_FORCE = """
SELECT found.* FROM unnest($1::text[], $2::text[]) AS wanted (chip, tier), LATERAL (
    SELECT * FROM price
    WHERE price.chip = wanted.chip AND price.tier = wanted.tier AND effective_ms <= $3
    ORDER BY effective_ms DESC, version DESC LIMIT 1
) AS found
"""
_HISTORY = "SELECT * FROM price ORDER BY chip, tier, version"
_FIND = "SELECT * FROM price WHERE request_id = $1"
_INSERT = """
INSERT INTO price (chip, tier, price_nano_per_hour, effective_ms, recorded_ms, request_id)
VALUES ($1, $2, $3, $4, $5, $6) RETURNING *
"""
_LAST_MOVES = """
SELECT DISTINCT ON (chip) chip, window_number, recorded_ms FROM spot_move
WHERE chip = ANY ($1) ORDER BY chip, window_number DESC
"""
# Who comes second waits for the first to commit, and then adds nothing; nor is a price moved that
# is in force no more.
_CLAIM = """
INSERT INTO spot_move (
    chip, window_number, before_version, total_milli, used_milli, waiting_milli, recorded_ms
)
SELECT $1, $2, $3, $4, $5, $6, $7
WHERE NOT EXISTS (
    SELECT FROM price
    WHERE chip = $1 AND tier = 'SPOT' AND version > $3 AND effective_ms <= $7
)
ON CONFLICT DO NOTHING RETURNING chip
"""


class PostgresPrices:
    """The price table, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def in_force(
        self, wanted: Collection[tuple[str, str]], now_ms: int
    ) -> dict[tuple[str, str], Price]:
        if not wanted:
            return {}
        chips, tiers = map(list, zip(*sorted(set(wanted)), strict=True))
        found = await self._db.fetch(_IN_FORCE, chips, tiers, now_ms)
        return {(it["chip"], it["tier"]): _price(it) for it in found}

    async def history(self) -> list[Price]:
        return [_price(it) for it in await self._db.fetch(_HISTORY)]

    async def find(self, request_id: str) -> Price | None:
        found = await self._db.fetchrow(_FIND, request_id)
        return None if found is None else _price(found)

    async def insert(self, price: NewPrice, now_ms: int) -> Price:
        found = await self._db.fetchrow(
            _INSERT,
            price.chip,
            price.tier,
            price.price_nano_per_hour,
            now_ms if price.effective_ms is None else price.effective_ms,
            now_ms,
            price.request_id,
        )
        assert found is not None
        return _price(found)

    async def last_spot_moves(self, chips: Collection[str]) -> dict[str, LastMove]:
        found = await self._db.fetch(_LAST_MOVES, list(chips))
        return {it["chip"]: LastMove(it["window_number"], it["recorded_ms"]) for it in found}

    async def move_spot(self, move: SpotMove, now_ms: int) -> Price | None:
        use = move.use
        claimed = await self._db.fetchval(
            _CLAIM,
            use.chip,
            move.window,
            move.before_version,
            use.total_milli,
            use.used_milli,
            use.waiting_milli,
            now_ms,
        )
        if claimed is None:
            return None
        request_id = f"spot/{use.chip}/{move.window}"
        new = NewPrice(use.chip, Tier.SPOT, move.price_nano_per_hour, None, request_id)
        return await self.insert(new, now_ms)


def _price(record: asyncpg.Record) -> Price:
    return Price(
        record["version"],
        record["chip"],
        record["tier"],
        record["price_nano_per_hour"],
        record["effective_ms"],
        record["recorded_ms"],
        record["currency"],
    )
