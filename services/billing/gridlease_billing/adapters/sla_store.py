"""How much of a month leases were there, in PostgreSQL."""

from __future__ import annotations

from gridlease_store.pool import Connection

from gridlease_billing.domain.sla import Month, Stay

_MONTH = """(extract(epoch FROM date_trunc('month',
    to_timestamp(l.ends_at_ms / 1000.0) AT TIME ZONE 'UTC')) * 1000)::int8"""
_NEXT = """(extract(epoch FROM date_trunc('month', to_timestamp({0} / 1000.0) AT TIME ZONE 'UTC')
    + interval '1 month') * 1000)::int8"""
# Months in which something was lost, that ended before a time, with nothing of them still open.
_DUE = f"""
SELECT DISTINCT l.tenant, l.project, {_MONTH} AS month_ms FROM lease AS l
WHERE l.cause IN ('NODE_LOST', 'GRANT_ENDED') AND l.charged_ns > 0
    AND l.ends_at_ms >= $2 AND {_NEXT.format("l.ends_at_ms")} <= $1
    AND NOT EXISTS (SELECT FROM sla_month AS s WHERE s.month_ms = {_MONTH}
        AND s.tenant = l.tenant AND s.project = l.project)
    AND NOT EXISTS (SELECT FROM lease AS o WHERE o.tenant = l.tenant AND o.project = l.project
        AND o.state <> 'FINAL' AND o.ends_at_ms < {_NEXT.format("l.ends_at_ms")})
ORDER BY month_ms, l.tenant, l.project LIMIT $3
"""  # noqa: S608 - constants
_STAYS = f"""
SELECT l.id, l.quantity_milli, s.granted_ms, coalesce(n.run_ms, 0) AS run_ms, s.provision_ms,
    coalesce(l.cause, '') AS cause, coalesce(n.cost_nano, 0) AS cost_nano, l.contract
FROM lease AS l
JOIN LATERAL (SELECT max(g.ends_ms) - min(g.starts_ms) AS granted_ms,
        coalesce(sum(m.provision), 0)::int8 / 1000000 AS provision_ms
    FROM segment AS g LEFT JOIN meter AS m ON m.lease = g.lease AND m.segment = g.number
    WHERE g.lease = l.id) AS s ON s.granted_ms IS NOT NULL
LEFT JOIN LATERAL (SELECT sum(charged)::int8 / 1000000 AS run_ms,
        sum(amount_nano)::int8 AS cost_nano
    FROM line WHERE line.lease = l.id AND line.meter = 'run') AS n ON true
WHERE l.tenant = $1 AND l.project = $2 AND l.state = 'FINAL'
    AND l.ends_at_ms >= $3 AND l.ends_at_ms < {_NEXT.format("$3::int8")}
ORDER BY l.id
"""  # noqa: S608 - constants
_WRITE = "INSERT INTO sla_month VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"


class PostgresSla:
    """The table sla_month, and the leases of a month, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def due(self, ended_by_ms: int, from_ms: int, limit: int) -> list[tuple[str, str, int]]:
        found = await self._db.fetch(_DUE, ended_by_ms, from_ms, limit)
        return [(it["tenant"], it["project"], it["month_ms"]) for it in found]

    async def stays(self, tenant: str, project: str, month_ms: int) -> list[Stay]:
        return [
            Stay(*it.values()) for it in await self._db.fetch(_STAYS, tenant, project, month_ms)
        ]

    async def write(
        self, tenant: str, project: str, month_ms: int, month: Month, now_ms: int
    ) -> None:
        await self._db.execute(
            _WRITE, tenant, project, month_ms, month.up_milli_ms, month.down_milli_ms,
            month.permille, month.credit_nano, now_ms,
        )  # fmt: skip
