"""What nodes said: reports as they were signed, and alarms about what was not believed."""

from __future__ import annotations

from collections.abc import Sequence

from gridlease_store.pool import Connection

from gridlease_billing.domain.grant_row import Report
from gridlease_billing.domain.settlement import Alarm

_KEEP = """
INSERT INTO signed_report (lease, segment, tenant, node_key, report, signature, total, recorded_ms)
SELECT t.lease, t.segment, l.tenant, l.node_key, t.report, t.signature, t.total, $6
FROM unnest($1::text[], $2::int[], $3::text[], $4::bytea[], $5::numeric[])
    AS t (lease, segment, report, signature, total) JOIN lease AS l ON l.id = t.lease
WHERE l.node_key <> ''
ORDER BY t.lease, t.segment
ON CONFLICT (lease, segment) DO UPDATE
    SET report = excluded.report, signature = excluded.signature, total = excluded.total,
        recorded_ms = excluded.recorded_ms
    WHERE excluded.total >= signed_report.total
"""
_RAISE = """
INSERT INTO alarm (recorded_ms, kind, tenant, lease, node, facts)
SELECT $6, * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::jsonb[])
ON CONFLICT DO NOTHING RETURNING kind, lease
"""
_SUSPEND = "UPDATE lease SET suspense_ns = suspense_ns + $2 WHERE id = $1"


class PostgresEvidence:
    """The tables signed_report and alarm, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def keep_signed(self, reports: Sequence[Report], now_ms: int) -> None:
        """Each segment's last report as its node signed it."""
        last: dict[tuple[str, int], tuple[str, bytes, int]] = {}
        for it in reports:
            total = sum(it.counters.values())
            for segment in {segment for segment, _ in it.counters}:
                key = (it.lease_id, segment)
                if key not in last or last[key][2] <= total:
                    last[key] = (it.text, it.signature, total)
        if last:
            rows = [(*key, *last[key]) for key in sorted(last)]
            await self._db.execute(_KEEP, *map(list, zip(*rows, strict=True)), now_ms)

    async def raise_alarms(self, alarms: Sequence[Alarm], now_ms: int) -> list[Alarm]:
        """Those that were not raised before; their excess goes into suspense."""
        if not alarms:
            return []
        rows = [(it.kind, it.tenant, it.lease_id, it.node, dict(it.facts)) for it in alarms]
        found = await self._db.fetch(_RAISE, *map(list, zip(*rows, strict=True)), now_ms)
        new = {(it["kind"], it["lease"]) for it in found}
        fresh = {(it.kind, it.lease_id): it for it in alarms if (it.kind, it.lease_id) in new}
        for it in fresh.values():
            if it.excess_ns:
                await self._db.execute(_SUSPEND, it.lease_id, it.excess_ns)
        return list(fresh.values())
