"""What a job costs now, in PostgreSQL: one statement, so that all of it is of one instant."""

from __future__ import annotations

import asyncpg
from gridlease_store.pool import Connection

from gridlease_billing.domain.job_cost import JobCost, LeaseCost

_MOST_LEASES = 1_000
# Run time is the meters run and run_priority. Live amounts are the row's and what ticks have moved
# since: docs/billing.md, Ticks.
_COST = """
WITH mine AS (
    SELECT l.id, l.node, l.chip, l.quantity_milli, l.state, l.ends_at_ms, l.budget_nano,
        l.charged_nano + coalesce(m.ahead, 0) AS charged,
        l.held_nano - coalesce(m.ahead, 0) AS held,
        coalesce(s.rate_nano_per_hour, l.rate_nano_per_hour) AS rate,
        coalesce(s.number, 0) AS segment
    FROM lease AS l
    LEFT JOIN LATERAL (SELECT sum(rated_nano - base_nano)::int8 AS ahead FROM meter
        WHERE meter.lease = l.id) AS m ON true
    LEFT JOIN LATERAL (SELECT number, rate_nano_per_hour FROM segment
        WHERE segment.lease = l.id ORDER BY number DESC LIMIT 1) AS s ON true
    WHERE l.tenant = $1 AND l.job = $2
), ended AS (
    SELECT coalesce(sum(amount_nano) FILTER (WHERE meter ^@ 'run'), 0)::int8 AS run,
        coalesce(sum(amount_nano) FILTER (WHERE NOT meter ^@ 'run'), 0)::int8 AS other
    FROM line WHERE lease IN (SELECT id FROM mine WHERE state = 'FINAL')
), wallet AS (
    SELECT b.posted, b.held, b.credit_limit FROM account AS a JOIN balance AS b ON b.account = a.id
    WHERE a.kind = 'tenant_prepaid' AND a.tenant = $1 AND a.currency = 'USD'
), running AS (
    SELECT coalesce(sum(coalesce(s.rate_nano_per_hour, l.rate_nano_per_hour)), 0)::int8 AS rate
    FROM lease AS l LEFT JOIN LATERAL (SELECT rate_nano_per_hour FROM segment
        WHERE segment.lease = l.id ORDER BY number DESC LIMIT 1) AS s ON true
    WHERE l.tenant = $1 AND l.state = 'OPEN'
)
SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8 AS now_ms,
    ended.run + coalesce((SELECT sum(charged) FROM mine WHERE state <> 'FINAL'), 0)::int8
        AS charged,
    ended.other, credited(ARRAY(SELECT id FROM mine)) AS given,
    coalesce((SELECT sum(held) FROM mine WHERE state <> 'FINAL'), 0)::int8 AS held,
    coalesce((SELECT sum(rate) FROM mine WHERE state = 'OPEN'), 0)::int8 AS rate,
    (SELECT max(budget_nano) FROM mine) AS budget,
    coalesce((SELECT posted FROM wallet), 0) AS posted,
    coalesce((SELECT wallet.held FROM wallet), 0) AS reserved,
    coalesce((SELECT credit_limit FROM wallet), 0) AS credit_limit,
    running.rate AS tenant_rate,
    (SELECT count(*)::int FROM mine WHERE state = 'FINAL') AS ended,
    (SELECT coalesce(jsonb_agg(to_jsonb(live) ORDER BY live.id), '[]') FROM (
        SELECT * FROM mine WHERE state <> 'FINAL' ORDER BY id LIMIT $3) AS live) AS leases
FROM ended, running
"""


class PostgresCosts:
    """What leases cost as they stand, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def of_job(self, tenant: str, job: str) -> JobCost:
        it = await self._db.fetchrow(_COST, tenant, job, _MOST_LEASES)
        assert it is not None, "sums are one row"
        return _cost(job, it)


def _cost(job: str, it: asyncpg.Record) -> JobCost:
    return JobCost(
        job,
        it["now_ms"],
        it["charged"],
        it["other"],
        it["given"],
        it["held"],
        it["rate"],
        it["budget"],
        it["posted"] - it["reserved"] + it["credit_limit"],
        it["posted"] + it["credit_limit"],
        it["tenant_rate"],
        it["ended"],
        tuple(
            LeaseCost(
                lease["id"],
                lease["node"],
                lease["chip"],
                lease["quantity_milli"],
                lease["state"],
                lease["segment"],
                lease["rate"],
                lease["charged"],
                lease["held"],
                lease["ends_at_ms"],
            )
            for lease in it["leases"]
        ),
    )
