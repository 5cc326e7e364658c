"""Makes what a task has used fit for the next: outputs kept, scratch wiped, devices checked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from gridlease_kernel.clock import Clock
from gridlease_kernel.faults import Fault

from gridlease_agent.book import Book
from gridlease_agent.domain import lease
from gridlease_agent.domain.task import SCRATCH
from gridlease_agent.ports import Files
from gridlease_agent.sandbox import Absent, SandboxRunner

_LOG = logging.getLogger(__name__)
_PAUSE_S = 2.0
_PRUNE_S = 3600.0


class Scrubber:
    """Scrubs, verifies, and puts it on record, in this order."""

    def __init__(
        self, book: Book, sandboxes: SandboxRunner, files: Files, clock: Clock, *, emulated: bool
    ) -> None:
        self._book = book
        self._sandboxes = sandboxes
        self._files = files
        self._clock = clock
        self._emulated = emulated

    def possible(self, devices: Collection[str]) -> frozenset[str]:
        """Those that this node knows how to scrub; the others stay dirty, and nothing starts
        on them [T 17]."""
        return frozenset(
            device for device in devices if device.startswith(SCRATCH) or self._emulated
        )

    async def prune(self) -> None:
        """Until cancelled: what is kept of tasks leaves when its time is over."""
        while True:
            now_ns = round(self._clock.wall().timestamp() * 1e9)
            await asyncio.to_thread(self._files.prune, now_ns=now_ns)
            await asyncio.sleep(_PRUNE_S)

    async def scrub(self, devices: Collection[str]) -> None:
        """What could not be scrubbed stays dirty and is tried again after a pause."""
        folders = sorted(device for device in devices if device.startswith(SCRATCH))
        clean = [each for each in folders if await self._wipe(each.removeprefix(SCRATCH))]
        if len(clean) == len(folders):
            # Emulated devices hold nothing; the step named only those that no sandbox is on.
            clean = sorted(devices)
        if clean:
            await self._book.change(lambda spool: lease.scrubbed(spool, clean))
        if len(clean) < len(devices):
            await asyncio.sleep(_PAUSE_S)

    async def _wipe(self, lease_id: str) -> bool:
        task = self._book.task(lease_id)
        outputs = task.outputs if task else ()
        try:
            await asyncio.to_thread(self._files.keep, lease_id, outputs)
            if not isinstance(self._sandboxes.inspect(lease_id), Absent):
                await asyncio.to_thread(self._sandboxes.remove, lease_id)
            await asyncio.to_thread(self._files.discard, lease_id)
        except (Fault, OSError) as trouble:
            _LOG.error(
                "a scratch folder could not be wiped: %s", trouble, extra={"lease": lease_id}
            )
            return False
        return lease_id not in self._files.folders()
