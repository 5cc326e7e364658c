"""Leases in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import asyncpg
from gridlease_kernel.faults import Conflict
from gridlease_store.pool import Connection

from gridlease_billing.domain.carbon import SitePower
from gridlease_billing.domain.grant_row import Ask, Cause, GrantRow, State
from gridlease_billing.domain.late import charged_from
from gridlease_billing.domain.segment import Segment, chargeable
from gridlease_billing.domain.tick import CATALOGUE, Known, tracks
from gridlease_billing.domain.usage import Stored, wholes
from gridlease_billing.ports import Change, Scope

_LOCK = "SELECT * FROM lease WHERE id = ANY($1) ORDER BY id FOR UPDATE"
_LOCK_GANGS = """
WITH asked AS MATERIALIZED (
    SELECT l.id, l.gang FROM unnest($1::text[], $2::text[]) AS t (id, node)
    JOIN lease AS l ON l.id = t.id AND l.node = t.node
)
SELECT * FROM lease
WHERE id = ANY(ARRAY(SELECT id FROM asked))
    OR gang = ANY(ARRAY(SELECT gang FROM asked WHERE gang <> ''))
ORDER BY id FOR UPDATE
"""
_DUE = """
SELECT id FROM lease
WHERE (state IN ('HELD', 'OPEN') AND ends_at_ms <= $1)
    OR (state = 'FENCED' AND ends_at_ms <= $1 - $2)
ORDER BY ends_at_ms LIMIT $3
"""
_LOCK_DUE = "SELECT * FROM lease WHERE id = ANY($1) ORDER BY id FOR UPDATE SKIP LOCKED"
_BILLABLE = """
SELECT * FROM lease
WHERE tenant = $1 AND project = $2 AND ($3 = '' OR job = $3)
    AND state = 'FINAL' AND invoice IS NULL AND (charged_ns > 0 OR id IN (
        SELECT l.lease FROM line AS l WHERE l.tenant = $1 AND l.meter <> 'run'
            AND l.class = 'usage' AND l.amount_nano <> 0))
ORDER BY id LIMIT $4 FOR UPDATE
"""
_UNFINISHED = """
SELECT count(*) FROM lease
WHERE tenant = $1 AND project = $2 AND ($3 = '' OR job = $3) AND state <> 'FINAL'
"""
_SPENT = """
SELECT job, sum(charged_nano + held_nano)::int8 AS spent
FROM lease WHERE job = ANY($1) GROUP BY job
"""
_PAGE = """
SELECT * FROM lease
WHERE tenant = $1 AND ($2 = '' OR project = $2) AND ($3 = '' OR job = $3)
    AND EXISTS (SELECT FROM segment WHERE segment.lease = lease.id)
    AND (opened_ms, id) < ($4, $5)
ORDER BY opened_ms DESC, id DESC LIMIT $6
"""
_SEGMENTS = "SELECT * FROM segment WHERE lease = ANY($1) ORDER BY lease, number"
_COUNTERS = "SELECT * FROM counter WHERE lease = ANY($1)"
_METERS = """
SELECT lease, segment, run, egress, storage, energy, provision, rated_nano - base_nano AS ahead
FROM meter WHERE lease = ANY($1) ORDER BY id
"""
_INSERT = """
INSERT INTO lease (id, job, gang, tenant, project, node, chip, quantity_milli, tier, priority,
    budget_nano, max_rate_nano_per_hour, attempt, notice_ms, rate_nano_per_hour, price_version,
    grant_ms, state, ends_at_ms, held_nano, charged_nano, cause, opened_ms, site, node_key,
    surcharge_nano_per_hour, priority_version, power, contract)
SELECT t.*, contract_of(t.node)
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
    $7::text[], $8::int8[], $9::text[], $10::int[], $11::int8[], $12::int8[], $13::int[],
    $14::int8[], $15::int8[], $16::int8[], $17::int8[], $18::text[], $19::int8[], $20::int8[],
    $21::int8[], $22::text[], $23::int8[], $24::text[], $25::text[], $26::int8[],
    $27::int8[], $28::int8[])
    AS t (id, job, gang, tenant, project, node)
ON CONFLICT DO NOTHING
"""
_POWER = """
SELECT id FROM site_power WHERE site = $1 AND pue_milli = $2 AND carbon_mg_per_kwh = $3
    AND price_nano_per_kwh = $4
"""
_NEW_POWER = """
INSERT INTO site_power (site, pue_milli, carbon_mg_per_kwh, price_nano_per_kwh)
VALUES ($1, $2, $3, $4) RETURNING id
"""
_UPDATE = """
UPDATE lease SET state = t.state, ends_at_ms = t.ends_at_ms, spool_id = t.spool_id,
    held_nano = t.held_nano, charged_nano = t.charged_nano, cause = t.cause,
    suspense_ns = lease.suspense_ns + t.suspense_ns, late_ns = lease.late_ns + t.late_ns,
    charged_ns = t.charged_ns
FROM unnest($1::text[], $2::text[], $3::int8[], $4::text[], $5::int8[], $6::int8[], $7::text[],
    $8::int8[], $9::int8[], $10::int8[])
    AS t (id, state, ends_at_ms, spool_id, held_nano, charged_nano, cause, suspense_ns, late_ns,
        charged_ns)
WHERE lease.id = t.id
"""
_PUT_SEGMENTS = """
INSERT INTO segment (lease, number, rate_nano_per_hour, price_version, starts_ms, ends_ms,
    frozen_ns, surcharge_nano_per_hour, priority_version)
SELECT * FROM unnest($1::text[], $2::int[], $3::int8[], $4::int8[], $5::int8[], $6::int8[],
    $7::int8[], $8::int8[], $9::int8[])
ON CONFLICT (lease, number) DO UPDATE SET ends_ms = excluded.ends_ms,
    frozen_ns = excluded.frozen_ns
"""
# A decision takes in what ticks have charged: base and rated are equal again.
_PUT_METERS = """
INSERT INTO meter (lease, segment, run, egress, storage, energy, provision, rate_nano_per_hour,
    cap, base_nano, rated_nano, starts_ms, quick_until_ms, contract, account)
SELECT t.lease, t.segment, t.run, t.egress, t.storage, t.energy, t.provision, t.rate, t.cap,
    t.rated, t.rated, t.starts_ms, t.quick_until_ms, t.contract, coalesce(a.id, 0)
FROM unnest($1::text[], $2::int[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[],
    $8::int8[], $9::int8[], $10::int8[], $11::int8[], $12::int8[], $13::text[], $14::int8[])
    AS t (lease, segment, run, egress, storage, energy, provision, rate, cap, rated, starts_ms,
        quick_until_ms, tenant, contract)
LEFT JOIN account AS a ON a.kind = 'tenant_prepaid' AND a.tenant = t.tenant AND a.currency = 'USD'
ORDER BY t.lease, t.segment
ON CONFLICT (lease, segment) DO UPDATE
    SET run = greatest(meter.run, excluded.run), egress = greatest(meter.egress, excluded.egress),
        storage = greatest(meter.storage, excluded.storage),
        energy = greatest(meter.energy, excluded.energy),
        provision = greatest(meter.provision, excluded.provision),
        rate_nano_per_hour = excluded.rate_nano_per_hour, cap = excluded.cap,
        base_nano = excluded.base_nano, rated_nano = excluded.rated_nano,
        starts_ms = excluded.starts_ms, quick_until_ms = excluded.quick_until_ms,
        account = excluded.account
"""
_PUT_COUNTERS = """
INSERT INTO counter (lease, segment, meter, cumulative)
SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::int8[])
ON CONFLICT (lease, segment, meter) DO UPDATE
    SET cumulative = greatest(counter.cumulative, excluded.cumulative)
"""
_QUICK = """
SELECT m.id, m.account, l.id AS lease, l.node, l.spool_id, l.node_key, m.segment,
    m.rate_nano_per_hour, l.ends_at_ms, m.quick_until_ms
FROM meter AS m JOIN lease AS l ON l.id = m.lease
WHERE l.id = ANY($1) AND m.quick_until_ms > 0
"""
_WRITE_LINES = """
INSERT INTO line (recorded_ms, lease, segment, meter, tenant, project, job, node, site, chip, tier,
    quantity_milli, rate_nano_per_hour, price_version, starts_ms, ends_ms, counter, granted,
    charged, amount_nano, currency, surcharge_nano_per_hour, priority_version)
SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8, lease.id, t.segment, t.meter,
    tenant, project, job, node, site, chip, tier, quantity_milli, t.rate, t.price_version,
    t.starts_ms, t.ends_ms, t.counter, t.granted, t.charged, t.amount, t.currency, t.surcharge,
    t.priority_version
FROM unnest($1::text[], $2::int[], $3::text[], $4::int8[], $5::int8[], $6::int8[], $7::int8[],
    $8::int8[], $9::int8[], $10::int8[], $11::int8[], $12::text[], $13::int8[], $14::int8[])
    AS t (lease, segment, meter, rate, price_version, starts_ms, ends_ms, counter, granted,
        charged, amount, currency, surcharge, priority_version)
JOIN lease ON lease.id = t.lease
"""
_LAST = (2**62, "\U0010ffff")


class PostgresLeases:
    """The lease, segment and counter tables, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def lock(self, leases: Collection[str]) -> dict[str, Stored]:
        return await self._whole(await self._db.fetch(_LOCK, list(leases)), lock=True)

    async def lock_gangs(self, asked: Collection[tuple[str, str]]) -> dict[str, Stored]:
        leases, nodes = [lease for lease, _ in asked], [node for _, node in asked]
        found = await self._db.fetch(_LOCK_GANGS, leases, nodes)
        return await self._whole(found, lock=True)

    async def lock_due(self, now_ms: int, late_after_ms: int, limit: int) -> dict[str, Stored]:
        due = await self._db.fetch(_DUE, now_ms, late_after_ms, limit)
        found = await self._db.fetch(_LOCK_DUE, [it["id"] for it in due])
        return await self._whole(found, lock=True)

    async def lock_billable(self, scope: Scope, limit: int) -> dict[str, Stored]:
        return await self._whole(
            await self._db.fetch(_BILLABLE, scope.tenant, scope.project, scope.job, limit)
        )

    async def count_unfinished(self, scope: Scope) -> int:
        found = await self._db.fetchval(_UNFINISHED, scope.tenant, scope.project, scope.job)
        return int(found)

    async def spent_nano(self, jobs: Collection[str]) -> dict[str, int]:
        if not jobs:
            return {}
        return {it["job"]: it["spent"] for it in await self._db.fetch(_SPENT, list(jobs))}

    async def page(self, scope: Scope, after: tuple[int, str] | None, limit: int) -> list[Stored]:
        key = after or _LAST
        rows = await self._db.fetch(_PAGE, scope.tenant, scope.project, scope.job, *key, limit)
        whole = await self._whole(rows)
        return [whole[it["id"]] for it in rows]

    async def insert(self, changes: Sequence[Change], now_ms: int) -> None:
        """Raises Conflict where another transaction inserted one of them first."""
        if not changes:
            return
        powers = await self._powers({(it.after.ask.site, it.after.ask.power) for it in changes})
        rows = [
            (*_inserted(it, now_ms), powers.get((it.after.ask.site, it.after.ask.power), 0))
            for it in sorted(changes, key=lambda it: it.after.lease_id)
        ]
        done = await self._db.execute(_INSERT, *map(list, zip(*rows, strict=True)))
        if int(done.split()[-1]) != len(rows):
            raise Conflict(
                "Another call wrote one of these leases first.",
                reason="DATABASE_CONFLICT",
                remedy="Read again and retry.",
            )

    async def _powers(
        self, wanted: Collection[tuple[str, SitePower | None]]
    ) -> dict[tuple[str, SitePower | None], int]:
        """The numbers of sites' power as it stands; one that is new is written."""
        found: dict[tuple[str, SitePower | None], int] = {}
        for site, power in sorted(wanted, key=lambda it: (it[0], repr(it[1]))):
            if power is not None:
                values = (site, power.pue_milli, power.carbon_mg_per_kwh, power.price_nano_per_kwh)
                number = await self._db.fetchval(_POWER, *values)
                found[site, power] = number or await self._db.fetchval(_NEW_POWER, *values)
        return found

    async def update(self, changes: Sequence[Change]) -> None:
        changed = [it for it in changes if it.after != it.before]
        if not changed:
            return
        await self._put(_UPDATE, (_updated(it) for it in changed))
        await self._put(_PUT_SEGMENTS, _segments(changed))
        await self._put(_PUT_METERS, _meters(changed))
        await self._put(_PUT_COUNTERS, _counters(changed))
        await self._put(_WRITE_LINES, _lines(changed))

    async def quick(self, leases: Collection[str]) -> dict[str, Known]:
        """Those whose counters may move by themselves."""
        found = await self._db.fetch(_QUICK, list(leases))
        return {
            it["lease"]: Known(
                it["id"],
                it["node"],
                it["spool_id"],
                it["node_key"],
                it["segment"],
                it["rate_nano_per_hour"],
                it["ends_at_ms"],
                it["quick_until_ms"],
                it["account"],
            )
            for it in found
        }

    async def _put(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        columns = list(map(list, zip(*rows, strict=True)))
        if columns:
            await self._db.execute(statement, *columns)

    async def _whole(
        self, leases: Sequence[asyncpg.Record], *, lock: bool = False
    ) -> dict[str, Stored]:
        """With ``lock``, ticks wait until the transaction ends: what is read stays as it is."""
        if not leases:
            return {}
        ids = [it["id"] for it in leases]
        segments: dict[str, list[Segment]] = {}
        for it in await self._db.fetch(_SEGMENTS, ids):
            segments.setdefault(it["lease"], []).append(_segment(it))
        counters: dict[str, dict[tuple[int, str], int]] = {}
        ahead: dict[str, int] = {}
        for it in await self._db.fetch(f"{_METERS} FOR UPDATE" if lock else _METERS, ids):
            known = counters.setdefault(it["lease"], {})
            known.update({(it["segment"], name): it[name] for name in CATALOGUE if it[name]})
            ahead[it["lease"]] = ahead.get(it["lease"], 0) + it["ahead"]
        for it in await self._db.fetch(_COUNTERS, ids):
            counters.setdefault(it["lease"], {})[it["segment"], it["meter"]] = it["cumulative"]
        return {
            it["id"]: _stored(
                it,
                segments.get(it["id"], []),
                counters.get(it["id"], {}),
                ahead.get(it["id"], 0),
            )
            for it in leases
        }


def _segment(record: asyncpg.Record) -> Segment:
    return Segment(
        record["number"],
        record["rate_nano_per_hour"],
        record["price_version"],
        record["starts_ms"],
        record["ends_ms"],
        record["frozen_ns"],
        record["surcharge_nano_per_hour"],
        record["priority_version"],
    )


def _stored(
    record: asyncpg.Record,
    segments: list[Segment],
    counters: dict[tuple[int, str], int],
    ahead_nano: int,
) -> Stored:
    """``ahead_nano``: what ticks have charged, out of the hold, since the row was written."""
    row = GrantRow(
        ask=_ask(record),
        rate_nano_per_hour=record["rate_nano_per_hour"],
        grant_ms=record["grant_ms"],
        state=State(record["state"]),
        ends_at_ms=record["ends_at_ms"],
        segments=tuple(segments),
        spool_id=record["spool_id"],
        counters=counters,
        held_nano=record["held_nano"] - ahead_nano,
        charged_nano=record["charged_nano"] + ahead_nano,
        cause=None if record["cause"] is None else Cause(record["cause"]),
        surcharge_nano_per_hour=record["surcharge_nano_per_hour"],
        priority_version=record["priority_version"],
    )
    return Stored(
        row,
        record["price_version"],
        record["opened_ms"],
        record["invoice"] or "",
        record["suspense_ns"],
    )


def _ask(record: asyncpg.Record) -> Ask:
    return Ask(
        lease_id=record["id"],
        job=record["job"],
        gang=record["gang"],
        tenant=record["tenant"],
        project=record["project"],
        node=record["node"],
        chip=record["chip"],
        quantity_milli=record["quantity_milli"],
        tier=record["tier"],
        priority=record["priority"],
        budget_nano=record["budget_nano"],
        max_rate_nano_per_hour=record["max_rate_nano_per_hour"],
        attempt=record["attempt"],
        notice_ms=record["notice_ms"],
        site=record["site"],
        node_key=record["node_key"],
        contract=record["contract"],
    )


def _inserted(change: Change, now_ms: int) -> tuple[object, ...]:
    row, ask = change.after, change.after.ask
    assert not row.segments, "a lease begins without a grant"
    return (
        ask.lease_id, ask.job, ask.gang, ask.tenant, ask.project, ask.node, ask.chip,
        ask.quantity_milli, ask.tier, ask.priority, ask.budget_nano, ask.max_rate_nano_per_hour,
        ask.attempt, ask.notice_ms, row.rate_nano_per_hour, change.price_version, row.grant_ms,
        row.state.value, row.ends_at_ms, row.held_nano, row.charged_nano,
        row.cause and row.cause.value, now_ms, ask.site, ask.node_key,
        row.surcharge_nano_per_hour, row.priority_version,
    )  # fmt: skip


def _updated(change: Change) -> tuple[object, ...]:
    row, effect = change.after, change.effect
    charged_ns = sum(chargeable(row.segments, row.counters))
    return (
        row.lease_id, row.state.value, row.ends_at_ms, row.spool_id, row.held_nano,
        row.charged_nano, row.cause and row.cause.value, effect.suspense_ns, effect.late_ns,
        charged_ns,
    )  # fmt: skip


def _segments(changes: Sequence[Change]) -> Iterable[tuple[object, ...]]:
    for change in changes:
        known = change.before.segments if change.before else ()
        for it in change.after.segments:
            if it not in known:
                yield (
                    change.after.lease_id, it.number, it.rate_nano_per_hour, it.period,
                    it.starts_ms, it.ends_ms, it.frozen_ns, it.surcharge_nano_per_hour,
                    it.priority_version,
                )  # fmt: skip


def _meters(changes: Sequence[Change]) -> Iterable[tuple[object, ...]]:
    for change in changes:
        row = change.after
        for it in tracks(row):
            yield (
                row.lease_id, it.segment, *it.counts, it.rate_nano_per_hour, it.cap_ns,
                it.rated_nano, it.starts_ms, it.quick_until_ms, row.ask.tenant, row.ask.contract,
            )  # fmt: skip


def _counters(changes: Sequence[Change]) -> Iterable[tuple[object, ...]]:
    """Meters beyond the catalogue."""
    for change in changes:
        known = change.before.counters if change.before else {}
        for (segment, meter), cumulative in change.after.counters.items():
            if meter not in CATALOGUE and known.get((segment, meter)) != cumulative:
                yield (change.after.lease_id, segment, meter, cumulative)


def _lines(changes: Sequence[Change]) -> Iterable[tuple[object, ...]]:
    """What leases cost that have just become FINAL."""
    for change in changes:
        row = change.after
        if row.state is not State.FINAL or (change.before and change.before.state is State.FINAL):
            continue
        counters = charged_from(change.before, row)
        for segment, it in zip(row.segments, wholes(Stored(row, 0, 0)), strict=True):
            yield (
                it.lease, it.segment, it.meter, it.rate_nano_per_hour, it.price_version,
                segment.starts_ms, segment.ends_ms, counters.get((it.segment, it.meter), 0),
                it.granted_ns, it.charged_ns, it.amount_nano, it.currency,
                segment.surcharge_nano_per_hour, segment.priority_version,
            )  # fmt: skip
