"""Writes down what leases' devices draw, as a cumulative meter of each lease."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping

from gridlease_kernel.faults import Fault

from gridlease_agent.book import Book
from gridlease_agent.domain import meters
from gridlease_agent.domain.health import Watched

_LOG = logging.getLogger(__name__)
_EVERY_S = 10.0


class EnergyTally:
    """What devices have counted since the last look, given to the leases that held them at both.

    ``watched``: devices by id, as they are sampled. What an agent that ended did not write down is
    lost, for the tenant's good.
    """

    def __init__(
        self, watched: Callable[[], Mapping[str, Watched]], known: Collection[str]
    ) -> None:
        self._watched = watched
        self._known = frozenset(known)  # those that are no emulation
        self._before: dict[str, int] = {}
        self._held: Mapping[str, frozenset[str]] = {}

    async def run(self, book: Book) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look(book)
            except Fault as fault:
                _LOG.warning("energy is not written down: %s", fault)
            await asyncio.sleep(_EVERY_S)

    async def look(self, book: Book) -> None:
        """One look: what was drawn since the one before is written down."""
        now = {
            device: reading
            for device, it in self._watched().items()
            if device in self._known and (reading := _reading(it)) is not None
        }
        before, self._before = self._before, now
        held, self._held = self._held, meters.holders(book.spool)
        drawn = {
            device: reading - before[device]
            for device, reading in now.items()
            if reading > before.get(device, reading)
        }
        if any(device in held for device in drawn):
            await book.change(lambda spool: meters.drew(spool, drawn, held))


def _reading(it: Watched) -> int | None:
    """The device's own counter, or the integral of its power while that is not in doubt."""
    if it.vitals.energy_mj is not None:
        return it.vitals.energy_mj
    return None if "power" in it.suspect else it.energy_mj
