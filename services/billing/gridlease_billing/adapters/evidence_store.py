"""What nodes said: reports as they were signed, and alarms about what was not believed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import asyncpg
from gridlease_store.pool import Connection

from gridlease_billing.domain.evidence import WHOLE, Proof
from gridlease_billing.domain.excess import Excess
from gridlease_billing.domain.grant_row import Report
from gridlease_billing.domain.settlement import Alarm
from gridlease_billing.domain.tick import CATALOGUE
from gridlease_billing.ports import Suspended

_COLUMNS = """
lease, segment, part, tenant, node_key, report, signature, run, egress, storage, energy, provision,
recorded_ms
"""
_TOLD = """
unnest($2::text[], $3::int[], $4::text[], $5::text[], $6::bytea[], $7::int8[], $8::int8[],
    $9::int8[], $10::int8[], $11::int8[])
    AS t (lease, segment, part, report, signature, run, egress, storage, energy, provision)
JOIN lease AS l ON l.id = t.lease
"""
_REPLACED = """
SET report = excluded.report, signature = excluded.signature, run = excluded.run,
    egress = excluded.egress, storage = excluded.storage, energy = excluded.energy,
    provision = excluded.provision, recorded_ms = excluded.recorded_ms
"""
# The one that counts furthest on every meter: what does not, on some, is looked at again.
_KEEP = f"""
INSERT INTO signed_report AS r ({_COLUMNS})
SELECT t.lease, t.segment, t.part, l.tenant, l.node_key, t.report, t.signature, t.run, t.egress,
    t.storage, t.energy, t.provision, $1
FROM {_TOLD} WHERE l.node_key <> '' ORDER BY t.lease, t.segment
ON CONFLICT (lease, segment, part) DO UPDATE {_REPLACED}
WHERE excluded.run >= r.run AND excluded.egress >= r.egress AND excluded.storage >= r.storage
    AND excluded.energy >= r.energy AND excluded.provision >= r.provision
"""  # noqa: S608 - constants
# One report counts further on one meter, and less far on another: each meter has its own.
_KEEP_PART = f"""
INSERT INTO signed_report AS r ({_COLUMNS})
SELECT t.lease, t.segment, m.part, l.tenant, l.node_key, t.report, t.signature,
    coalesce(t.run, 0), t.egress, t.storage, t.energy, t.provision, $1
FROM {_TOLD}, LATERAL (SELECT DISTINCT CASE t.part WHEN '' THEN c.meter ELSE t.part END AS part
    FROM (VALUES ('run', t.run), ('egress', t.egress), ('storage', t.storage),
        ('energy', t.energy), ('provision', t.provision)) AS c (meter, told)
    WHERE c.told > coalesce((SELECT max(CASE c.meter WHEN 'run' THEN s.run
            WHEN 'egress' THEN s.egress WHEN 'storage' THEN s.storage WHEN 'energy' THEN s.energy
            ELSE s.provision END)
        FROM signed_report AS s WHERE s.lease = t.lease AND s.segment = t.segment
            AND (t.part <> '' OR s.part IN ('', c.meter))), 0)) AS m
WHERE l.node_key <> ''
ON CONFLICT (lease, segment, part) DO UPDATE {_REPLACED}
"""  # noqa: S608 - constants
_DOUBT = """
INSERT INTO doubted_report (lease, kind, tenant, node_key, report, signature, recorded_ms)
SELECT l.id, t.kind, l.tenant, l.node_key, t.report, t.signature, $5
FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) AS t (lease, kind, report, signature)
JOIN lease AS l ON l.id = t.lease
ON CONFLICT DO NOTHING
"""
_RAISE = """
INSERT INTO alarm (recorded_ms, kind, tenant, lease, node, facts)
SELECT $6, * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::jsonb[])
ON CONFLICT DO NOTHING RETURNING kind, lease
"""
_EXCESS = "SELECT * FROM excess WHERE lease = ANY($1) ORDER BY lease, segment"
_PUT_EXCESS = """
INSERT INTO excess (lease, segment, tenant, cause, told_ns, charged_ns, amount_nano,
    written_off_nano, recorded_ms)
SELECT *, $9 FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::int8[], $6::int8[],
    $7::int8[], $8::int8[])
ON CONFLICT (lease, segment) DO UPDATE SET cause = excluded.cause, told_ns = excluded.told_ns,
    charged_ns = excluded.charged_ns, amount_nano = excluded.amount_nano,
    written_off_nano = excluded.written_off_nano, recorded_ms = excluded.recorded_ms
"""
_SUSPEND = """
UPDATE lease SET suspense_ns = (SELECT coalesce(sum(greatest(0, told_ns - charged_ns)), 0)::int8
    FROM excess WHERE excess.lease = lease.id) WHERE id = ANY($1)
"""
_OPEN = """
SELECT e.*, l.node, l.job, l.project, d.node_key, d.report, d.signature FROM excess AS e
JOIN lease AS l ON l.id = e.lease
LEFT JOIN doubted_report AS d ON d.lease = e.lease AND d.kind = e.cause
WHERE ($1 = '' OR e.tenant = $1) AND ($3 OR e.open_nano <> 0)
ORDER BY e.lease, e.segment LIMIT $2
"""


class PostgresEvidence:
    """The tables signed_report, doubted_report, alarm and excess, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def keep_signed(self, reports: Sequence[Report], now_ms: int) -> None:
        """Reports that were folded as they are: each proves all of its segments' counters."""
        await self.keep_proofs([it for report in reports for it in _proofs(report)], now_ms)

    async def keep_proofs(self, proofs: Sequence[Proof], now_ms: int) -> None:
        """The furthest word on each segment; where reports contradict each other, one a meter."""
        later = list(proofs)
        while later:  # several reports of one lease in a call: one after another
            now: dict[tuple[str, int], Proof] = {}
            later = [it for it in later if now.setdefault((it.lease_id, it.segment), it) is not it]
            whole = [it for it in now.values() if it.part == WHOLE and None not in it.counts]
            parts = [it for it in now.values() if it.part != WHOLE or None in it.counts]
            if whole and await self._keep(_KEEP, whole, now_ms) < len(whole):
                parts += whole
            if parts:
                await self._keep(_KEEP_PART, parts, now_ms)

    async def _keep(self, statement: str, proofs: Sequence[Proof], now_ms: int) -> int:
        rows = sorted(
            (it.lease_id, it.segment, it.part, it.text, it.signature, *it.counts) for it in proofs
        )
        done = await self._db.execute(statement, now_ms, *map(list, zip(*rows, strict=True)))
        return int(done.rpartition(" ")[2])

    async def keep_doubted(self, doubted: Sequence[tuple[str, Report]], now_ms: int) -> None:
        """``doubted``: kinds of alarms, each with the report that raised it; the first is kept."""
        found = {(it.lease_id, kind): it for kind, it in reversed(doubted)}
        rows = [(lease, kind, it.text, it.signature) for (lease, kind), it in sorted(
            found.items(), key=lambda pair: pair[0])]  # fmt: skip
        if rows:
            await self._db.execute(_DOUBT, *map(list, zip(*rows, strict=True)), now_ms)

    async def raise_alarms(self, alarms: Sequence[Alarm], now_ms: int) -> list[Alarm]:
        """Those that were not raised before."""
        if not alarms:
            return []
        rows = [(it.kind, it.tenant, it.lease_id, it.node, dict(it.facts)) for it in alarms]
        found = await self._db.fetch(_RAISE, *map(list, zip(*rows, strict=True)), now_ms)
        new = {(it["kind"], it["lease"]) for it in found}
        fresh = {(it.kind, it.lease_id): it for it in alarms if (it.kind, it.lease_id) in new}
        return list(fresh.values())

    async def excess(self, leases: Collection[str]) -> dict[str, dict[int, Excess]]:
        """What leases told beyond what may be charged, by segment."""
        found: dict[str, dict[int, Excess]] = {}
        for it in await self._db.fetch(_EXCESS, list(leases)):
            found.setdefault(it["lease"], {})[it["segment"]] = _excess(it)
        return found

    async def put_excess(self, changed: Sequence[Excess], now_ms: int) -> None:
        """Under their leases' locks."""
        rows = sorted(
            (it.lease_id, it.segment, it.tenant, it.cause, it.told_ns, it.charged_ns,
             it.amount_nano, it.written_off_nano) for it in changed
        )  # fmt: skip
        await self._db.execute(_PUT_EXCESS, *map(list, zip(*rows, strict=True)), now_ms)
        await self._db.execute(_SUSPEND, sorted({it.lease_id for it in changed}))

    async def suspended(self, tenant: str, limit: int, *, closed: bool) -> list[Suspended]:
        """By lease. ``closed``: also those of which nothing lies in suspense any more."""
        return [
            Suspended(
                _excess(it),
                it["node"],
                it["project"],
                it["job"],
                it["node_key"] or "",
                it["report"] or "",
                it["signature"] or b"",
            )
            for it in await self._db.fetch(_OPEN, tenant, limit, closed)
        ]


def _proofs(report: Report) -> list[Proof]:
    return [
        Proof(
            report.lease_id,
            number,
            WHOLE,
            report.text,
            report.signature,
            tuple(report.counters.get((number, meter), 0) for meter in CATALOGUE),
        )
        for number in sorted({segment for segment, _ in report.counters})
    ]


def _excess(it: asyncpg.Record) -> Excess:
    return Excess(
        it["lease"],
        it["segment"],
        it["tenant"],
        it["cause"],
        it["told_ns"],
        it["charged_ns"],
        it["amount_nano"],
        it["written_off_nano"],
        it["recorded_ms"],
    )
