"""What the tests of billing share: short terms, a tenant, a node, and the checks of the books."""

import asyncio
from dataclasses import replace

from gridlease_billing.authorize import authorize
from gridlease_billing.close import Closure, close
from gridlease_billing.credit import balance, journal_summary, pay_in
from gridlease_billing.domain.grant_row import Ask, Cause, Phase, Report, Terms
from gridlease_billing.domain.price import NewPrice
from gridlease_billing.ports import Credit, Scope
from gridlease_billing.prices import create_price
from gridlease_billing.settle import settle
from gridlease_billing.usage import list_usage

TENANT = "tenants/demo"
PROJECT = "projects/demo"
NODE = "n1"
CHIP = "H100-80GB"
USD = 1_000_000_000
PRICE = 36 * USD  # an hour: 0.01 USD a second
TERMS = Terms(grant_ms=60_000, hold_ttl_ms=30_000, late_after_ms=3_600_000, ahead_ms=3_600_000)
SECOND_NS = 1_000_000_000


def ask(lease, **more):
    given = {
        "job": f"{PROJECT}/jobs/j",
        "tenant": TENANT,
        "project": PROJECT,
        "node": NODE,
        "chip": CHIP,
        "quantity_milli": 1_000,
        "tier": "ON_DEMAND",
        "notice_ms": 10_000,
    }
    return Ask(lease_id=lease, **{**given, **more})


def report(lease, ran_ns=0, *, segment=1, phase=Phase.STARTING, final=False, spool="s1"):
    counters = {(segment, "run"): ran_ns} if ran_ns else {}
    return Report(lease, spool, phase, final, counters)


class World:
    """The books and short words for what is done to them."""

    def __init__(self, books, pool):
        self.books = books
        self.pool = pool
        self.terms = TERMS

    async def begin(self, usd=100):
        await self.price(PRICE, "first")
        await pay_in(self.books, Credit(TENANT, usd * USD, "first", "test"))

    async def price(self, nano, request_id, chip=CHIP, tier="ON_DEMAND", effective_ms=None):
        new = NewPrice(chip, tier, nano, effective_ms, request_id)
        return await create_price(self.books, new)

    async def authorize(self, *asks):
        return await authorize(self.books, asks, self.terms)

    async def settle(self, *reports, node=NODE):
        return await settle(self.books, node, reports, self.terms)

    async def close(self, lease, notice_ms=0, cause=Cause.STOPPED, cut_short_ms=0):
        closure = Closure(lease, notice_ms, cause, cut_short_ms)
        return (await close(self.books, [closure], self.terms))[lease]

    async def balance(self, tenant=TENANT):
        return await balance(self.books, tenant)

    async def usage(self, **scope):
        page = await list_usage(self.books, Scope(TENANT, **scope), None, 1_000)
        return list(page.lines)

    async def pass_time(self, lease, ms):
        """As if ``ms`` had passed for one lease: its times move back by as much."""
        async with self.pool.acquire() as db, db.transaction():
            await db.execute(
                "UPDATE lease SET ends_at_ms = ends_at_ms - $2 WHERE id = $1", lease, ms
            )
            await db.execute(
                "UPDATE segment SET starts_ms = starts_ms - $2, ends_ms = ends_ms - $2"
                " WHERE lease = $1",
                lease,
                ms,
            )

    async def row(self, lease):
        return await self.pool.fetchrow("SELECT * FROM lease WHERE id = $1", lease)

    async def check(self):
        """The books' invariants, whatever was done."""
        summary = await journal_summary(self.books)
        assert summary.sum_nano == 0
        assert summary.off_balance == 0
        assert not await self.pool.fetch(
            "SELECT journal FROM entry GROUP BY journal HAVING sum(amount) <> 0"
        )
        runs = [line for line, _, _ in await self.usage() if line.meter in ("run", "run_priority")]
        for line in runs:
            assert line.charged_ns <= line.counter_ns
            assert line.charged_ns <= line.granted_ns
            assert line.meter == "run_priority" or (
                line.amount_nano == line.rate_nano_per_hour * line.charged_ns // 3_600_000_000_000
            )
        lines = sum(line.amount_nano for line in runs)
        charged = await self.pool.fetchval(
            "SELECT (coalesce(sum(charged_nano), 0) + coalesce((SELECT sum(rated_nano - base_nano)"
            " FROM meter JOIN lease l ON l.id = lease WHERE l.tenant = $1), 0))::int8"
            " FROM lease WHERE tenant = $1",
            TENANT,
        )
        posted = await self.pool.fetchval(
            "SELECT coalesce(sum(amount), 0)::int8 FROM entry JOIN account a ON a.id = account"
            " JOIN journal j ON j.id = journal"
            " WHERE a.kind = 'tenant_prepaid' AND a.tenant = $1 AND j.kind = 'charge'",
            TENANT,
        )
        assert lines == charged == -posted
        assert not await self.pool.fetch("SELECT * FROM broken_links()")


async def together(*calls):
    """All at once; their answers or exceptions."""
    return await asyncio.gather(*calls, return_exceptions=True)


__all__ = ["Cause", "Phase", "World", "ask", "replace", "report", "together"]
