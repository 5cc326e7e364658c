"""Once a second: what the node measures goes to the mesh and to the local metrics page.

It decides nothing and bills nothing. A sample that takes longer than its second is followed by the
next at once, never by two: time is not made up for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from gridlease_kernel.clock import Clock
from gridlease_mesh.telemetry_sample import NodeIdentity, Sample, sample

from gridlease_agent.domain.health import Watched
from gridlease_agent.ports import Host
from gridlease_agent.sampling.devices import DeviceSampler
from gridlease_agent.sampling.host import HostSampler
from gridlease_agent.sampling.leases import LeaseSampler

_LOG = logging.getLogger(__name__)
_EVERY_NS = 1_000_000_000

Leases = Callable[[], Mapping[str, str]]  # those that run -> their cgroups
Offer = Callable[[Sample], None]


class Observer:
    """Samples, keeps the newest, and offers each to whoever listens."""

    def __init__(
        self,
        identity: NodeIdentity,
        devices: DeviceSampler,
        host: HostSampler,
        leases: LeaseSampler,
        running: Leases,
        clocks: tuple[Host, Clock],
        offers: Sequence[Offer],
    ) -> None:
        self._identity = identity
        self._devices = devices
        self._host = host
        self._leases = leases
        self._running = running
        self._clocks = clocks
        self._offers = offers

    @property
    def watched(self) -> Mapping[str, Watched]:
        """Devices by id, as they were last judged."""
        return self._devices.watched

    async def run(self) -> None:
        """Until cancelled."""
        host, _wall = self._clocks
        due_ns = host.now().raw_ns
        while True:
            self.look()
            now_ns = host.now().raw_ns
            due_ns = max(due_ns + _EVERY_NS, now_ns)
            await asyncio.sleep((due_ns - now_ns) / 1e9)

    def look(self) -> Sample:
        """One sample, offered to all."""
        host, wall = self._clocks
        now_ns = host.now().raw_ns
        running = dict(sorted(self._running().items()))
        leases = tuple(running)
        identity = self._identity
        if leases != identity.leases:
            identity = self._identity = NodeIdentity(
                identity.hostname,
                identity.agent_version,
                identity.boot_id,
                identity.devices,
                leases,
            )
        taken = sample(
            time_unix_ms=round(wall.wall().timestamp() * 1000),
            identity=identity,
            devices=self._devices.read(now_ns),
            host=self._host.read(now_ns),
            leases=self._leases.read(running),
        )
        for offer in self._offers:
            offer(taken)
        return taken
