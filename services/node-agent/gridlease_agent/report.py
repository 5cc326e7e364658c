"""Tells the scheduler what this node is made of: at connection, and when it has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from gridlease.type.v1 import fleet_pb2
from gridlease_kernel.faults import Fault, Precondition

from gridlease_agent.book import Bell

_LOG = logging.getLogger(__name__)
_RETRY_S = 1.0


class Inventories(Protocol):
    """SyncService, as far as it takes inventories."""

    async def report(self, inventory: fleet_pb2.NodeInventory) -> str: ...


class Reporter:
    """Looks on each slow tick whether there is something new to say."""

    def __init__(
        self,
        scheduler: Inventories,
        look: Callable[[], fleet_pb2.NodeInventory],
        tick_ms: int,
        expected_site: str = "",
    ) -> None:
        self._scheduler = scheduler
        self._look = look
        self._tick_s = tick_ms / 1000
        self._said = b""
        self._bell = Bell()
        self._silent = False
        self._expected_site = expected_site.removeprefix("sites/")
        self.site = ""
        self.reported = asyncio.Event()

    def again(self) -> None:
        """Say it anew: who hears may have forgotten."""
        self._said = b""
        self._bell.ring()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            answered = await self._report()
            await self._bell.wait(self._tick_s if answered else min(_RETRY_S, self._tick_s))

    async def _report(self) -> bool:
        record = self._look()
        said = record.SerializeToString(deterministic=True)
        if said == self._said:
            return True
        try:
            self.site = await self._scheduler.report(record)
        except Fault as fault:
            if not self._silent:
                _LOG.warning("the inventory was not taken: %s", fault)
            self._silent = True
            return False
        self._check_site()
        self._silent, self._said = False, said
        self.reported.set()
        return True

    def _check_site(self) -> None:
        if self._expected_site and self.site != f"sites/{self._expected_site}":
            raise Precondition(
                f"This node belongs to {self.site}, not to sites/{self._expected_site}.",
                reason="SITE_MISMATCH",
                field="--site",
                remedy="Correct --site, or join again with a token of that site.",
            )
