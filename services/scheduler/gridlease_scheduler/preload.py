"""What each node should have at hand, from the jobs of late; looked up anew once a minute."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from gridlease_kernel.clock import Clock
from gridlease_kernel.faults import Fault

from .domain.preload import RECENT_JOBS, Usage, Wish, preload, usages
from .ports import Aside, Tx

_LOG = logging.getLogger(__name__)
_EVERY_NS = 60 * 10**9
_Found = tuple[tuple[Usage, ...], Mapping[str, frozenset[str]]]


class Preloads:
    """Read beside everything else: an answer to a node never waits for it."""

    def __init__(self, aside: Aside, clock: Clock) -> None:
        self._aside = aside
        self._clock = clock
        self._found: _Found = ((), {})
        self._asked_ns: int | None = None
        self._asking: asyncio.Task[None] | None = None

    def of_node(self, node_id: str) -> tuple[Wish, ...]:
        """As last looked up; begins to look again where that is long ago."""
        now_ns = self._clock.boottime_ns()
        due = self._asked_ns is None or now_ns - self._asked_ns >= _EVERY_NS
        if due and (self._asking is None or self._asking.done()):
            self._asked_ns = now_ns
            self._asking = asyncio.create_task(self._ask(), name="preload")
        uses, chips = self._found
        return preload(uses, chips.get(node_id, frozenset()))

    async def _ask(self) -> None:
        async def read(tx: Tx) -> _Found:
            recent = await tx.jobs.recent(RECENT_JOBS)
            return usages(recent), await tx.nodes.chips()

        try:
            self._found = await self._aside.read(read)
        except Fault as trouble:  # the last answer stands
            _LOG.warning("recent jobs cannot be read: %s", trouble)
