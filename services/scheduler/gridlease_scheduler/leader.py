"""What only the leader does, for one term: place, close, give up on the silent, think slowly, tell
billing how full chips are.

Each loop runs on a wake-up and on a slow tick, survives the database's and billing's absence, and
ends the term when a write is refused because another leads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from gridlease_kernel.faults import Fault

from .close import Close
from .cycle import Cycle
from .lost import Lost
from .maintenance import EndMaintenance
from .market import TellMarket
from .ports import Wakeups
from .slow import Slow

_LOG = logging.getLogger(__name__)
_TROUBLE_S = 0.5
_STALE_S = 0.05

Step = Callable[[], Awaitable[float]]  # answers how long it may rest, in seconds


class Leader:
    """The loops of one term."""

    def __init__(
        self,
        epoch: int,
        cycle: Cycle,
        close: Close,
        lost: Lost,
        end_maintenance: EndMaintenance,
        slow: Slow,
        market: TellMarket,
        wakeups: Wakeups,
        tick_s: float,
    ) -> None:
        self._epoch = epoch
        self._slow = slow
        self._market = market
        self._begun = False
        self._cycle = cycle
        self._close = close
        self._lost = lost
        self._end_maintenance = end_maintenance
        self._wakeups = wakeups
        self._tick_s = tick_s

    async def run(self, over: asyncio.Event) -> None:
        """Lead until ``over`` is set or a write is refused."""
        tasks = [
            asyncio.create_task(self._loop(self._place, "place")),
            asyncio.create_task(self._loop(self._end, "close")),
            asyncio.create_task(self._loop(self._listen, "lost")),
            asyncio.create_task(self._loop(self._think, "slow")),
            asyncio.create_task(self._loop(self._market, "market")),
            asyncio.create_task(over.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _place(self) -> float:
        done = await self._cycle(self._epoch)
        if done.placed:
            _LOG.info("placed", extra={"tasks": done.placed, "stale": done.stale})
        if done.stale:
            return _STALE_S
        return self._tick_s if done.again_ms is None else min(self._tick_s, done.again_ms / 1e3)

    async def _end(self) -> float:
        wait_ms = await self._close(self._epoch)
        return self._tick_s if wait_ms is None else min(self._tick_s, wait_ms / 1e3)

    async def _listen(self) -> float:
        closed = await self._lost(self._epoch)
        if closed:
            _LOG.warning("leases of silent nodes are closing", extra={"leases": closed})
        if back := await self._end_maintenance(self._epoch):
            _LOG.info("maintenance is over", extra={"nodes": back})
        return self._tick_s / 10

    async def _think(self) -> float:
        if not self._begun:  # the fast path first: a new leader has enough to read
            self._begun = True
            return self._slow.every_ms / 1e3
        done = await self._slow(self._epoch)
        if done.resized or done.moved or done.proposed:
            facts = {"resized": done.resized, "moved": done.moved, "proposed": done.proposed}
            _LOG.info("the slow path has spoken", extra=facts)
        return done.rest_ms / 1e3

    async def _loop(self, step: Step, name: str) -> None:
        """Returns when the term is over."""
        topic = "work" if name in ("place", "close") else name  # silence and time wake nobody
        async with self._wakeups.watch(topic) as ticket:
            while True:
                try:
                    rest_s = await step()
                except Fault as fault:
                    if fault.reason == "LEADER_DEPOSED":
                        _LOG.warning("another leads now", extra={"epoch": self._epoch})
                        return
                    _LOG.warning("%s waits: %s", name, fault)
                    rest_s = _TROUBLE_S
                except Exception:  # noqa: BLE001 - logged, with its trace
                    # A bug met by one job must not stop the closing of all others' leases.
                    _LOG.exception("%s failed", name)
                    rest_s = self._tick_s / 10
                await ticket.wait(rest_s)
