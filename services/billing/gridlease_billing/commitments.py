"""Capacity bought ahead: bought at the reserved price, billed hour by hour, used or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gridlease_kernel.faults import Invalid
from gridlease_kernel.ids import Ids
from gridlease_kernel.money import MAX_NANO, amount_nano, rate_nano_per_hour

from gridlease_billing.contract_ports import Bought, Covered, Hour, Known, Using
from gridlease_billing.credit import reused
from gridlease_billing.domain.commitment import HOUR_MS, Commitment, Matched, match
from gridlease_billing.domain.price import Price, Tier
from gridlease_billing.meter_charge import drawn
from gridlease_billing.ports import Books, Work

SETTLED_MS = 600_000  # after an hour's end, before it is billed: the last reports come in
LONGEST_HOURS = 5 * 8_784
BATCH = 50  # hours at a time


@dataclass(frozen=True, slots=True)
class Wish:
    """What a tenant wants to buy."""

    tenant: str
    project: str
    chip: str
    site: str
    quantity_milli: int
    starts_ms: int
    ends_ms: int
    request_id: str


async def buy(books: Books, ids: Ids, wish: Wish) -> Known:
    """A commitment at the reserved price in force now, which stays; once for each request id.

    Raises:
        Invalid: NO_PRICE, NOT_WHOLE_HOURS, PERIOD_IN_THE_PAST, PERIOD_TOO_LONG,
            QUANTITY_TOO_LARGE, REQUEST_ID_REUSED.
    """
    _check(wish)

    async def work(tx: Work) -> Known:
        before = await tx.commitments.find(wish.tenant, wish.request_id)
        if before is not None:
            if _wished(before) != wish:
                raise reused("another commitment")
            return before
        now = await tx.now()
        if wish.starts_ms < now.ms // HOUR_MS * HOUR_MS:
            raise _refused("PERIOD_IN_THE_PAST", "begin_time", "Name an hour that is to come.")
        kind = (wish.chip, Tier.RESERVED, wish.site)
        price = (await tx.prices.in_force([kind], now.ms)).get(kind)
        if price is None:
            raise _refused("NO_PRICE", "chip", "List the prices to see what is sold as reserved.")
        await tx.commitments.insert(_bought(wish, ids.new("cm"), price), price.version, now.ms)
        found = await tx.commitments.find(wish.tenant, wish.request_id)
        assert found is not None, wish
        return found

    return await books.run(work)


async def list_commitments(books: Books, tenant: str) -> list[Known]:
    """A tenant's commitments with what of them was used, newest first."""

    async def work(tx: Work) -> list[Known]:
        return await tx.commitments.known(tenant)

    return await books.run(work, tenant=tenant)


async def bill_hours(books: Books, limit: int = BATCH) -> int:
    """Bills the next hour that is over of each commitment, at most ``limit`` of them; how many.

    All commitments of one tenant in one hour are one commit: the fee of each whole pot, and back
    what the usage that they cover had been charged.
    """

    async def work(tx: Work) -> int:
        now = await tx.now()
        if now.suspect:
            return 0
        due = await tx.commitments.due(now.ms - SETTLED_MS - HOUR_MS, limit)
        for tenant, hour_ms in due:
            await tx.ledger.lock_wallets([tenant])
            await _bill(tx, tenant, hour_ms, now.ms)
        return len(due)

    return await books.run(work)


async def _bill(tx: Work, tenant: str, hour_ms: int, now_ms: int) -> None:
    pots = {it.id: it for it in await tx.commitments.running(tenant, hour_ms)}
    uses = await tx.commitments.uses(tenant, hour_ms)
    matched = match(pots.values(), [it.use for it in uses], hour_ms, hour_ms + HOUR_MS)
    covered = _covers(matched, uses)
    for pot in matched.pots:
        fee = pots[pot.commitment].rate_nano_per_hour
        own = [it for it in covered if it.drawn.commitment == pot.commitment]
        cover = sum(it.cover_nano for it in own)
        await tx.commitments.write(Hour(pot, tenant, fee, cover), own, now_ms)
        revenue = await tx.ledger.platform("revenue")
        key = f"{pot.commitment}/{hour_ms}"
        if cover:
            wallet = await tx.ledger.open_wallet(tenant)
            sides = {revenue: -cover, wallet.account: cover}
            await tx.ledger.journal("commitment_cover", f"cover/{key}", key, sides, now_ms)
        if fee:
            sides = {**await drawn(tx, tenant, fee), revenue: fee}
            await tx.ledger.journal("commitment_fee", f"fee/{key}", key, sides, now_ms)


def _covers(matched: Matched, uses: Sequence[Using]) -> list[Covered]:
    """What each draw gives back: of the totals of its segment, so that slices sum to the whole."""
    known = {(it.use.lease, it.use.segment): it for it in uses}
    so_far = {key: it.before_milli_ns for key, it in known.items()}
    covered = []
    for it in matched.drawn:
        key = (it.lease, it.segment)
        rate, quantity = known[key].rate_nano_per_hour, known[key].use.quantity_milli
        before = amount_nano(rate, so_far[key] // quantity)
        so_far[key] += it.milli_ns
        covered.append(Covered(it, amount_nano(rate, so_far[key] // quantity) - before))
    return covered


def _bought(wish: Wish, number: str, price: Price) -> Bought:
    rate = rate_nano_per_hour(price.price_nano_per_hour, wish.quantity_milli)
    if rate > MAX_NANO:
        raise _refused("QUANTITY_TOO_LARGE", "quantity_milli", "Buy less.")
    pot = Commitment(
        f"commitments/{number}",
        wish.tenant,
        wish.chip,
        wish.quantity_milli,
        wish.starts_ms,
        wish.ends_ms,
        rate,
        wish.site,
    )
    return Bought(pot, wish.project, wish.request_id)


def _wished(known: Known) -> Wish:
    pot = known.bought.pot
    return Wish(
        pot.tenant,
        known.bought.project,
        pot.chip,
        pot.site,
        pot.quantity_milli,
        pot.starts_ms,
        pot.ends_ms,
        known.bought.request_id,
    )


def _check(wish: Wish) -> None:
    if wish.starts_ms % HOUR_MS or wish.ends_ms % HOUR_MS:
        raise _refused("NOT_WHOLE_HOURS", "begin_time", "Begin and end at whole hours, UTC.")
    hours = (wish.ends_ms - wish.starts_ms) // HOUR_MS
    if not 0 < hours <= LONGEST_HOURS:
        raise _refused("PERIOD_TOO_LONG", "end_time", "Buy between one hour and five years.")


def _refused(reason: str, field: str, remedy: str) -> Invalid:
    return Invalid("That cannot be bought ahead.", reason=reason, field=field, remedy=remedy)
