"""The spot price follows use: a report of how full chips are becomes entries of the price book."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gridlease_kernel.faults import Invalid

from gridlease_billing.domain.price import Price, Tier
from gridlease_billing.domain.spot import ChipUse, SpotPolicy, due, moved
from gridlease_billing.ports import Books, Now, SpotMove, Work

_LOG = logging.getLogger(__name__)


async def move_spot(
    books: Books, end_ms: int, uses: Sequence[ChipUse], policy: SpotPolicy
) -> list[Price]:
    """The new prices, in force from now on; at most one for each chip and window, ever.

    ``end_ms``: when the window that was looked at ended. Only SPOT prices move, and only of chips
    that have an on-demand price, which is their cap.

    Raises:
        Invalid: WINDOW_TO_COME.
    """
    by_chip = {use.chip: use for use in uses if policy.moves(use.chip)}

    async def work(tx: Work) -> list[Price]:
        now = await tx.now()
        _check(end_ms, now, policy)
        last = await tx.prices.last_spot_moves(by_chip)
        wanted = [(chip, tier) for chip in by_chip for tier in (Tier.SPOT, Tier.ON_DEMAND)]
        prices = await tx.prices.in_force(wanted, now.ms)
        entries = []
        for chip, use in sorted(by_chip.items()):  # two reports at once wait in one order
            spot, cap = prices.get((chip, Tier.SPOT)), prices.get((chip, Tier.ON_DEMAND))
            if spot is None or cap is None or not due(last.get(chip), end_ms, now.ms, policy):
                continue
            nano = moved(spot.price_nano_per_hour, cap.price_nano_per_hour, use, policy)
            if nano is not None:
                move = SpotMove(use, policy.window(end_ms), spot.version, nano)
                entries.append(await tx.prices.move_spot(move, now.ms))
        return [entry for entry in entries if entry is not None]

    written = await books.run(work)
    for price in written:
        facts = {"price_nano_per_hour": price.price_nano_per_hour, "version": price.version}
        full = by_chip[price.chip].full_permille
        _LOG.info("spot price moved", extra={"chip": price.chip, "full_permille": full, **facts})
    return written


def _check(end_ms: int, now: Now, policy: SpotPolicy) -> None:
    if policy.window(end_ms) > policy.window(now.ms) + 1:
        raise Invalid(
            "That window has not begun yet.",
            reason="WINDOW_TO_COME",
            field="window_end_time",
            remedy="Set the clocks of both databases right.",
        )
