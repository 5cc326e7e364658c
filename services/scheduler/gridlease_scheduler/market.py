"""Tells billing once a window how full each chip is at each site: spot prices move by that."""

from __future__ import annotations

import logging

from gridlease_kernel.faults import Unreachable

from .domain.chips import Catalogue
from .domain.order.spot import Utilization, utilization
from .domain.stock import stock
from .ports import Aside, Market, Store, Tx

_LOG = logging.getLogger(__name__)
_MOST = 200_000  # waiting jobs that are counted
_MOST_CHIPS = 1_024
_AGAIN_S = 10.0
# These wait for money or for their own people, not for capacity: to count them would make a price
# rise because it is too high.
_NOT_FOR_CAPACITY = frozenset(
    {
        "PRICE_ABOVE_MAX",
        "PRICE_TOO_HIGH",
        "NO_PRICE",
        "QUOTA_FULL",
        "BUDGET_TOO_SMALL",
        "CREDIT_TOO_LOW",
        "INVOICE_OVERDUE",
    }
)


class TellMarket:
    """The use case; one for each term of leadership.

    Windows end at whole multiples of their length, by the database's clock, so that a new leader
    tells of the same ones as the one before: billing moves a price once a window.
    """

    def __init__(
        self, store: Store, aside: Aside, market: Market, catalogue: Catalogue, window_ms: int
    ) -> None:
        self._store = store
        self._aside = aside
        self._market = market
        self._catalogue = catalogue
        self._window_ms = window_ms
        self._told_ms = -1

    async def __call__(self) -> float:
        """Tell, if that is due; how long it may rest now, in seconds.

        Raises:
            Unreachable: the database is away.
        """
        async with self._store.reading() as tx:
            now_ms = (await tx.nodes.now()).ms
        end_ms = now_ms - now_ms % self._window_ms
        rest_s = (end_ms + self._window_ms - now_ms) / 1e3
        if end_ms == self._told_ms:
            return rest_s
        uses = await self._aside.read(self._read)
        if uses:
            try:
                moved = await self._market.tell(end_ms, uses)
            except Unreachable as fault:  # not at once: looking at a large fleet takes a while
                _LOG.warning("the market waits: %s", fault)
                return min(rest_s, _AGAIN_S)
            _LOG.info("told how full chips are", extra={"chips": len(uses), "moved": moved})
        self._told_ms = end_ms
        return rest_s

    async def _read(self, tx: Tx) -> tuple[Utilization, ...]:
        fleet = await tx.nodes.fleet()
        queue = await tx.jobs.queue(_MOST)
        waiting = [x.pending for x in queue if x.reason.code not in _NOT_FOR_CAPACITY]
        return utilization(stock(fleet.nodes), waiting, self._catalogue)[:_MOST_CHIPS]
