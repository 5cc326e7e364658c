"""The spot price follows use: a report of how full chips are becomes entries of the price book."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from gridlease_kernel.faults import Invalid

from gridlease_billing.domain.price import Kind, Price, Tier
from gridlease_billing.domain.spot import ChipUse, SpotPolicy, due, floor_nano, moved
from gridlease_billing.ports import Books, Now, Work
from gridlease_billing.price_ports import SpotMove

_LOG = logging.getLogger(__name__)


async def move_spot(
    books: Books, end_ms: int, uses: Sequence[ChipUse], policy: SpotPolicy
) -> list[Price]:
    """The new prices, in force from now on; at most one for each chip, site and window, ever.

    ``end_ms``: when the window that was looked at ended. Only SPOT prices move, and only of chips
    that have an on-demand price there, which is their cap. A site that has no price of its own yet
    begins with that of everywhere.

    Raises:
        Invalid: WINDOW_TO_COME.
    """
    by_place = {use.place: use for use in uses if policy.moves(use.chip)}

    async def work(tx: Work) -> list[Price]:
        now = await tx.now()
        _check(end_ms, now, policy)
        last = await tx.prices.last_spot_moves(by_place)
        wanted = [
            (chip, tier, site) for chip, site in by_place for tier in (Tier.SPOT, Tier.ON_DEMAND)
        ]
        prices = await tx.prices.in_force(wanted, now.ms)
        entries = []
        # Two reports at once wait in one order; a site is looked at before everywhere, which its
        # first price goes by.
        for place in sorted(by_place, key=lambda it: (it[0], not it[1], it[1])):
            if not due(last.get(place), end_ms, now.ms, policy):
                continue
            move = _move(by_place[place], prices, end_ms, now.ms, policy)
            if move is not None:
                entries.append(await tx.prices.move_spot(move, now.ms))
        return [entry for entry in entries if entry is not None]

    written = await books.run(work)
    for price in written:
        facts = {"price_nano_per_hour": price.price_nano_per_hour, "version": price.version}
        full = by_place[price.chip, price.site].full_permille
        where = {"chip": price.chip, "site": price.site, "full_permille": full}
        _LOG.info("spot price moved", extra={**where, **facts})
    return written


def _move(
    use: ChipUse, prices: Mapping[Kind, Price], end_ms: int, now_ms: int, policy: SpotPolicy
) -> SpotMove | None:
    spot = prices.get((use.chip, Tier.SPOT, use.site))
    cap = prices.get((use.chip, Tier.ON_DEMAND, use.site))
    if spot is None or cap is None:
        return None
    floor = floor_nano(cap.price_nano_per_hour, use, policy, now_ms)
    nano = moved(spot.price_nano_per_hour, cap.price_nano_per_hour, use, policy, floor)
    return None if nano is None else SpotMove(use, policy.window(end_ms), spot, nano, floor)


def _check(end_ms: int, now: Now, policy: SpotPolicy) -> None:
    if policy.window(end_ms) > policy.window(now.ms) + 1:
        raise Invalid(
            "That window has not begun yet.",
            reason="WINDOW_TO_COME",
            field="window_end_time",
            remedy="Set the clocks of both databases right.",
        )
