"""The price book and the table of priorities in PostgreSQL: insert only."""

from __future__ import annotations

from collections.abc import Collection

import asyncpg
from gridlease_store.pool import Connection

from gridlease_billing.domain.book import Span
from gridlease_billing.domain.price import Kind, NewPrice, Price, Tier
from gridlease_billing.domain.priority import Band, NewPriorityTable, PriorityTable
from gridlease_billing.domain.spot import LastMove
from gridlease_billing.price_ports import SpotMove

# As ``domain.price.price_at``, by the index: a site's own, or else that of everywhere.
_IN_FORCE = """
SELECT DISTINCT ON (wanted.chip, wanted.tier, wanted.site) wanted.site AS wanted_site, found.*
FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (chip, tier, site),
LATERAL (VALUES (0, wanted.site), (1, '')) AS place (fallback, site),
LATERAL (
    SELECT * FROM price
    WHERE price.chip = wanted.chip AND price.tier = wanted.tier AND price.site = place.site
        AND effective_ms <= $4
    ORDER BY effective_ms DESC, version DESC LIMIT 1
) AS found
WHERE NOT found.withdrawn
ORDER BY wanted.chip, wanted.tier, wanted.site, place.fallback
"""
_AS_OF = """
SELECT * FROM price_book WHERE valid @> $1::int8 AND recorded @> $2::int8 AND NOT withdrawn
ORDER BY chip, tier, site
"""
_HISTORY = "SELECT * FROM price ORDER BY chip, tier, site, version"
_FIND = "SELECT * FROM price WHERE request_id = $1"
_INSERT = """
INSERT INTO price (chip, tier, price_nano_per_hour, effective_ms, recorded_ms, request_id, site,
    withdrawn, correction)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING *
"""
_PRIORITIES = """
SELECT * FROM priority_multiplier WHERE effective_ms <= $1
ORDER BY effective_ms DESC, version DESC LIMIT 1
"""
_PRIORITIES_AS_OF = """
SELECT * FROM priority_book WHERE valid @> $1::int8 AND recorded @> $2::int8
"""
_PRIORITY_HISTORY = "SELECT * FROM priority_multiplier ORDER BY version"
_FIND_PRIORITIES = "SELECT * FROM priority_multiplier WHERE request_id = $1"
_INSERT_PRIORITIES = """
INSERT INTO priority_multiplier (above, permille, effective_ms, recorded_ms, correction, request_id)
VALUES ($1, $2, $3, $4, $5, $6) RETURNING *
"""
_LAST_MOVES = """
SELECT DISTINCT ON (chip, site) chip, site, window_number, recorded_ms FROM spot_move
WHERE (chip, site) IN (SELECT * FROM unnest($1::text[], $2::text[]))
ORDER BY chip, site, window_number DESC
"""
# Who comes second waits for the first to commit, and then adds nothing; nor is a price moved that
# is in force no more.
_CLAIM = """
INSERT INTO spot_move (chip, window_number, before_version, total_milli, used_milli, waiting_milli,
    recorded_ms, site, floor_nano)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
WHERE NOT EXISTS (
    SELECT FROM price
    WHERE chip = $1 AND tier = 'SPOT' AND site IN ($8, $10) AND version > $3 AND effective_ms <= $7
)
ON CONFLICT DO NOTHING RETURNING chip
"""


class PostgresPrices:
    """The tables of the price book, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def in_force(self, wanted: Collection[Kind], now_ms: int) -> dict[Kind, Price]:
        if not wanted:
            return {}
        columns = map(list, zip(*sorted(set(wanted)), strict=True))
        found = await self._db.fetch(_IN_FORCE, *columns, now_ms)
        return {(it["chip"], it["tier"], it["wanted_site"]): _price(it) for it in found}

    async def as_of(self, valid_ms: int, recorded_ms: int) -> list[Price]:
        found = await self._db.fetch(_AS_OF, valid_ms, recorded_ms)
        return [_price(it, _span(it)) for it in found]

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
            price.site,
            price.withdrawn,
            price.correction,
        )
        assert found is not None
        return _price(found)

    async def priorities(self, now_ms: int) -> PriorityTable | None:
        found = await self._db.fetchrow(_PRIORITIES, now_ms)
        return None if found is None else _table(found)

    async def priorities_as_of(self, valid_ms: int, recorded_ms: int) -> PriorityTable | None:
        found = await self._db.fetchrow(_PRIORITIES_AS_OF, valid_ms, recorded_ms)
        return None if found is None else _table(found, _span(found))

    async def priority_history(self) -> list[PriorityTable]:
        return [_table(it) for it in await self._db.fetch(_PRIORITY_HISTORY)]

    async def find_priorities(self, request_id: str) -> PriorityTable | None:
        found = await self._db.fetchrow(_FIND_PRIORITIES, request_id)
        return None if found is None else _table(found)

    async def insert_priorities(self, new: NewPriorityTable, now_ms: int) -> PriorityTable:
        found = await self._db.fetchrow(
            _INSERT_PRIORITIES,
            [it.above for it in new.bands],
            [it.permille for it in new.bands],
            now_ms if new.effective_ms is None else new.effective_ms,
            now_ms,
            new.correction,
            new.request_id,
        )
        assert found is not None
        return _table(found)

    async def last_spot_moves(
        self, places: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], LastMove]:
        if not places:
            return {}
        columns = map(list, zip(*places, strict=True))
        found = await self._db.fetch(_LAST_MOVES, *columns)
        return {
            (it["chip"], it["site"]): LastMove(it["window_number"], it["recorded_ms"])
            for it in found
        }

    async def move_spot(self, move: SpotMove, now_ms: int) -> Price | None:
        use = move.use
        claimed = await self._db.fetchval(
            _CLAIM,
            use.chip,
            move.window,
            move.before.version,
            use.total_milli,
            use.used_milli,
            use.waiting_milli,
            now_ms,
            use.site,
            move.floor_nano,
            move.before.site,
        )
        if claimed is None:
            return None
        request_id = "/".join(("spot", use.chip, *(use.site,) * bool(use.site), str(move.window)))
        new = NewPrice(use.chip, Tier.SPOT, move.price_nano_per_hour, None, request_id, use.site)
        return await self.insert(new, now_ms)


def _span(record: asyncpg.Record) -> Span:
    return Span(
        record["version"],
        record["valid_from"],
        record["valid_to"],
        record["recorded_from"],
        record["recorded_to"],
    )


def _price(record: asyncpg.Record, span: Span | None = None) -> Price:
    return Price(
        record["version"],
        record["chip"],
        record["tier"],
        record["price_nano_per_hour"],
        record["effective_ms"],
        record["recorded_ms"],
        record["currency"],
        record["site"],
        record["withdrawn"],
        record["correction"],
        span,
    )


def _table(record: asyncpg.Record, span: Span | None = None) -> PriorityTable:
    bands = zip(record["above"], record["permille"], strict=True)
    return PriorityTable(
        record["version"],
        tuple(Band(*each) for each in bands),
        record["effective_ms"],
        record["recorded_ms"],
        record["correction"],
        span,
    )
