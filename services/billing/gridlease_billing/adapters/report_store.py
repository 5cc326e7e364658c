"""Reports, budgets and notices in PostgreSQL. Sums are made there; nothing of the books changes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

import asyncpg
from gridlease_store.pool import Connection, Pool, transaction

from gridlease_billing.domain.report import (
    DAY_MS,
    BooksCheck,
    Budget,
    Capacity,
    Notice,
    Period,
    Revenue,
    Span,
    Told,
)
from gridlease_billing.ports import EVERY, Wallet
from gridlease_billing.report_ports import ReportWork

_SEE = "SELECT set_config('gridlease.tenant', $1, true)"
_SLOW = "SET LOCAL statement_timeout = '60s'"
_NOW = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8"
_MONTH = """
SELECT (extract(epoch FROM date_trunc('month', to_timestamp($1 / 1000.0) AT TIME ZONE 'UTC'))
    * 1000)::int8
"""
# What has ended stands in lines; what runs is read as it stands, now.
_SPENT = """
SELECT recorded_ms AS at_ms, tenant, project, chip, site, tier, lease, amount_nano,
    CASE WHEN meter = 'run' THEN charged / 1000000 * quantity_milli ELSE 0 END AS milli_ms
FROM line WHERE recorded_ms >= $1 AND recorded_ms < $2
UNION ALL
SELECT $3::int8, l.tenant, l.project, l.chip, l.site, l.tier, l.id,
    l.charged_nano + coalesce(m.more_nano, 0),
    coalesce(least(m.run, m.cap), 0)::int8 / 1000000 * l.quantity_milli
FROM lease AS l LEFT JOIN LATERAL (
    SELECT sum(rated_nano - base_nano)::int8 AS more_nano, sum(run) AS run,
        (SELECT sum((s.ends_ms - s.starts_ms) * 1000000) FROM segment AS s WHERE s.lease = l.id)
            AS cap
    FROM meter WHERE meter.lease = l.id
) AS m ON true
WHERE l.state IN ('HELD', 'OPEN', 'FENCED') AND $3 >= $1 AND $3 < $2
"""
_REVENUE = f"""
WITH spent AS ({_SPENT})
SELECT CASE WHEN $4 = '' THEN NULL ELSE (extract(epoch FROM date_trunc($4,
        to_timestamp(at_ms / 1000.0) AT TIME ZONE 'UTC')) * 1000)::int8 END AS starts_ms,
    chip, site, CASE WHEN $7 THEN tier ELSE '' END AS tier, CASE WHEN $8 THEN coalesce((
        SELECT c.supplier FROM lease AS l JOIN supplier_contract AS c ON c.id = l.contract
        WHERE l.id = spent.lease), '') ELSE '' END AS supplier,
    sum(milli_ms)::int8 AS milli_ms, sum(amount_nano)::int8 AS amount_nano
FROM spent WHERE ($5 = '' OR tenant = $5) AND ($6 = '' OR project = $6)
GROUP BY 1, 2, 3, 4, 5 HAVING sum(amount_nano) <> 0 OR sum(milli_ms) <> 0
ORDER BY 1, 2, 3, 4, 5 LIMIT 10000
"""  # noqa: S608 - a constant
_SUM = f"""
WITH spent AS ({_SPENT})
SELECT coalesce(sum(amount_nano), 0)::int8 FROM spent
WHERE tenant = $4 AND ($5 = '' OR project = $5)
"""  # noqa: S608 - a constant
_BY_DAY = """
SELECT tenant, recorded_ms / 86400000 AS day, sum(amount_nano)::int8 AS amount_nano FROM line
WHERE recorded_ms >= $1 AND recorded_ms < $2 GROUP BY 1, 2
"""
_IDLE = """
SELECT w.chip, w.site, sum(w.span_ms::numeric * w.total_milli)::int8 AS total,
    sum(w.span_ms::numeric * (w.total_milli - w.used_milli))::int8 AS idle,
    coalesce((SELECT own.price_nano_per_hour FROM (SELECT DISTINCT ON (p.site) p.* FROM price AS p
        WHERE p.chip = w.chip AND p.tier = 'ON_DEMAND' AND p.site IN ('', w.site)
            AND p.effective_ms <= $3
        ORDER BY p.site, p.effective_ms DESC, p.version DESC) AS own
        WHERE NOT own.withdrawn ORDER BY own.site = '' LIMIT 1), 0) AS price
FROM chip_window AS w WHERE w.end_ms > $1 AND w.end_ms <= $2
GROUP BY w.chip, w.site ORDER BY w.chip, w.site
"""
_KEEP_WINDOW = """
INSERT INTO chip_window (end_ms, chip, site, span_ms, total_milli, used_milli)
SELECT $1, chip, site, $2, total, least(used, total)
FROM unnest($3::text[], $4::text[], $5::int8[], $6::int8[]) AS t (chip, site, total, used)
ON CONFLICT DO NOTHING
"""
_FORGET_WINDOWS = """
DELETE FROM chip_window WHERE (end_ms, chip, site) IN
    (SELECT end_ms, chip, site FROM chip_window WHERE end_ms < $1 ORDER BY end_ms LIMIT $2)
"""
_RATES = """
SELECT coalesce(s.rate_nano_per_hour, l.rate_nano_per_hour) AS rate FROM lease AS l
LEFT JOIN LATERAL (SELECT rate_nano_per_hour FROM segment WHERE segment.lease = l.id
    ORDER BY number DESC LIMIT 1) AS s ON true
WHERE l.tenant = $1 AND l.state = 'OPEN'
"""
_WALLET = """
SELECT b.account, b.posted, b.held FROM account a JOIN balance b ON b.account = a.id
WHERE a.kind = 'tenant_prepaid' AND a.tenant = $1
"""
_SET_BUDGET = """
INSERT INTO spending_budget (tenant, project, amount_nano, thresholds_permille)
VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, project) DO UPDATE
SET amount_nano = excluded.amount_nano, thresholds_permille = excluded.thresholds_permille
"""
_BUDGETS = """
SELECT * FROM spending_budget WHERE $1 = '*' OR tenant = $1 ORDER BY tenant, project
"""
_LOCK_BUDGET = "SELECT * FROM spending_budget WHERE tenant = $1 AND project = $2 FOR UPDATE"
_LOOKED = """
UPDATE spending_budget SET told_month_ms = $3, told_nano = $4 WHERE tenant = $1 AND project = $2
"""
_NOTICES = """
SELECT * FROM notice WHERE sequence > $1 AND ($2 = '' OR tenant = $2)
    AND ($3 = '' OR project IN ('', $3)) ORDER BY sequence LIMIT $4
"""
_CHECK = """
SELECT encode(books_head(), 'hex') AS head, months.astray, months.ahead,
    (SELECT jsonb_object_agg(kind, number) FROM (SELECT kind, count(*) AS number FROM alarm
        WHERE recorded_ms > $1 - 7 * 86400000::int8 GROUP BY kind) AS a) AS alarms,
    state.suspense_nano, state.unexplained
FROM months_kept($1) AS months, suspense_state() AS state
"""


class PostgresReports:
    """One transaction's reports."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def now_ms(self) -> int:
        return int(await self._db.fetchval(_NOW))

    async def month_of(self, ms: int) -> int:
        return int(await self._db.fetchval(_MONTH, ms))

    async def revenue(
        self,
        span: Span,
        now_ms: int,
        period: Period,
        tenant: str,
        project: str,
        *,
        by_tier: bool = False,
        by_supplier: bool = False,
    ) -> list[Revenue]:
        found = await self._db.fetch(
            _REVENUE, span.start_ms, span.end_ms, now_ms, period.value, tenant, project, by_tier,
            by_supplier,
        )  # fmt: skip
        return [
            Revenue(
                it["starts_ms"], it["chip"], it["site"], it["milli_ms"], it["amount_nano"],
                it["tier"], it["supplier"],
            )
            for it in found
        ]  # fmt: skip

    async def idle(self, span: Span, now_ms: int) -> list[Capacity]:
        found = await self._db.fetch(_IDLE, span.start_ms, span.end_ms, now_ms)
        return [
            Capacity(it["chip"], it["total"], it["idle"], it["price"], it["site"]) for it in found
        ]

    async def keep_windows(
        self, end_ms: int, span_ms: int, places: Mapping[tuple[str, str], tuple[int, int]]
    ) -> None:
        rows = [(*place, *places[place]) for place in sorted(places)]
        if rows:
            columns = map(list, zip(*rows, strict=True))
            await self._db.execute(_KEEP_WINDOW, end_ms, span_ms, *columns)

    async def forget_windows(self, before_ms: int, limit: int) -> int:
        done = str(await self._db.execute(_FORGET_WINDOWS, before_ms, limit))
        return int(done.rpartition(" ")[2])

    async def wallet(self, tenant: str) -> Wallet:
        row = await self._db.fetchrow(_WALLET, tenant)
        return (
            Wallet(0, 0, 0) if row is None else Wallet(row["account"], row["posted"], row["held"])
        )

    async def rates(self, tenant: str) -> list[int]:
        return [it["rate"] for it in await self._db.fetch(_RATES, tenant)]

    async def spent_nano(self, tenant: str, project: str, since_ms: int, now_ms: int) -> int:
        values = (since_ms, now_ms + 1, now_ms, tenant, project)
        return int(await self._db.fetchval(_SUM, *values))

    async def spent_by_day(self, span: Span) -> dict[str, dict[int, int]]:
        found: dict[str, dict[int, int]] = {}
        for it in await self._db.fetch(_BY_DAY, span.start_ms, span.end_ms):
            found.setdefault(it["tenant"], {})[it["day"] * DAY_MS] = it["amount_nano"]
        return found

    async def set_budget(self, budget: Budget) -> None:
        if not budget.amount_nano:
            await self._db.execute(
                "DELETE FROM spending_budget WHERE tenant = $1 AND project = $2",
                budget.tenant,
                budget.project,
            )
            return
        await self._db.execute(
            _SET_BUDGET,
            budget.tenant,
            budget.project,
            budget.amount_nano,
            list(budget.thresholds_permille),
        )

    async def budgets(self, tenant: str) -> list[Budget]:
        return [_budget(it) for it in await self._db.fetch(_BUDGETS, tenant)]

    async def lock_budget(self, tenant: str, project: str) -> Budget | None:
        row = await self._db.fetchrow(_LOCK_BUDGET, tenant, project)
        return None if row is None else _budget(row)

    async def looked(self, budget: Budget, month_ms: int, spent_nano: int) -> None:
        values = (budget.tenant, budget.project, month_ms, spent_nano)
        await self._db.execute(_LOOKED, *values)

    async def tell(self, notice: Notice, now_ms: int) -> bool:
        told = await self._db.fetchval(
            "SELECT tell($1, $2, $3, $4, $5, $6, $7)",
            notice.kind,
            notice.tenant,
            notice.project,
            notice.entity,
            dict(notice.facts),
            notice.key,
            now_ms,
        )
        return bool(told)

    async def notices(self, tenant: str, project: str, after: int, limit: int) -> list[Told]:
        return [
            Told(
                it["sequence"],
                it["recorded_ms"],
                Notice(
                    it["kind"], it["tenant"], it["project"], it["entity"], it["key"], it["facts"]
                ),
            )
            for it in await self._db.fetch(_NOTICES, after, tenant, project, limit)
        ]

    async def check(self, sums: Sequence[int]) -> BooksCheck:
        await self._db.execute(_SLOW)
        row = await self._db.fetchrow(_CHECK, await self.now_ms())
        assert row is not None
        broken = await self._db.fetch("SELECT lane, seq FROM broken_links() LIMIT 100")
        total, off_balance, journals, entries = sums
        return BooksCheck(
            row["head"],
            tuple(f"{it['lane']}/{it['seq']}" for it in broken),
            total,
            off_balance,
            journals,
            entries,
            row["astray"],
            row["ahead"],
            row["alarms"] or {},
            row["suspense_nano"],
            row["unexplained"],
        )

    async def months(self, now_ms: int) -> tuple[int, int]:
        row = await self._db.fetchrow("SELECT astray, ahead FROM months_kept($1)", now_ms)
        assert row is not None
        return row["astray"], row["ahead"]

    async def restored(self) -> tuple[int, int] | None:
        row = await self._db.fetchrow(
            "SELECT id, restored_ms FROM restored WHERE opened_ms IS NULL ORDER BY id LIMIT 1"
        )
        return None if row is None else (row["id"], row["restored_ms"])

    async def opened(self, mark: int, now_ms: int) -> None:
        await self._db.execute("UPDATE restored SET opened_ms = $2 WHERE id <= $1", mark, now_ms)

    async def unfinished(self, limit: int) -> list[str]:
        found = await self._db.fetch(
            "SELECT id FROM lease WHERE state IN ('HELD', 'OPEN') ORDER BY id LIMIT $1", limit
        )
        return [it["id"] for it in found]


class PostgresReportBook:
    """``ports.ReportBook``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @contextlib.asynccontextmanager
    async def work(self, tenant: str = EVERY) -> AsyncIterator[ReportWork]:
        async with transaction(self._pool) as connection:
            await connection.execute(_SEE, tenant)
            yield PostgresReports(connection)


def _budget(row: asyncpg.Record) -> Budget:
    return Budget(
        row["tenant"],
        row["project"],
        row["amount_nano"],
        tuple(row["thresholds_permille"]),
        row["told_month_ms"],
        row["told_nano"],
    )
