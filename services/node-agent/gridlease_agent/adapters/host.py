"""This boot's clocks."""

from __future__ import annotations

from gridlease_kernel.clock import Clock, SystemClock

from gridlease_agent import shim
from gridlease_agent.domain.spool import Clocks


class ThisHost:
    """The host as it runs; ``boot_id`` may be given by a test that plays a reboot."""

    def __init__(self, clock: Clock | None = None, boot_id: str = "") -> None:
        self._clock = clock or SystemClock()
        self._boot_id = boot_id or shim.boot_id()

    def now(self) -> Clocks:
        return Clocks(self._boot_id, self._clock.boottime_ns(), self._clock.raw_ns())
