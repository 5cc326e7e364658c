"""What a node's sandboxes stand on: cores, disk rate, networks. Needs root; one for each node.

    ready(spec) -> spec      before its plan is written: completed with what it was given
    settled(folder)          after its plan is written
    left(lease_id)           its sandbox is removed
    keep_up()                now and then: what should hold is written again where it does not

``BARE`` gives nothing and refuses what it would have to give.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gridlease_kernel.faults import Precondition, Unreachable

from gridlease_agent import shim
from gridlease_agent.isolate import cgroups
from gridlease_agent.isolate.cores import CoreTable
from gridlease_agent.network.tasks import TaskNetworks
from gridlease_agent.runtimes import network
from gridlease_agent.runtimes.spec import SandboxSpec

_LOG = logging.getLogger(__name__)
_NONE: Mapping[str, int] = {}


class Ground:
    """Of one node; safe to call from any thread."""

    def __init__(
        self,
        leases: Path | None = None,
        cores: CoreTable | None = None,
        networks: TaskNetworks | None = None,
        io_bytes_per_s: int = 0,
    ) -> None:
        self._leases = leases
        self._cores = cores
        self._networks = networks
        self._io_bytes_per_s = io_bytes_per_s
        self._io_device = ""
        self._lock = threading.RLock()
        if leases is not None and io_bytes_per_s:
            leases.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._io_device = cgroups.disk_of(leases)

    def adopt(self) -> None:
        """At the start: who has what stands in the plans; networks without one are removed."""
        with self._lock:
            self._adopt(self._kept())

    def _adopt(self, kept: Mapping[str, Mapping[str, Any]]) -> None:
        if self._cores is not None:
            self._cores.adopt({key: one["cores"] for key, one in kept.items() if "cores" in one})
            cgroups.fence()
        if self._networks is not None:
            rows = {key: one["network"] for key, one in kept.items() if "network" in one}
            self._networks.adopt({key: network.read(row) for key, row in rows.items()})

    def _kept(self) -> dict[str, dict[str, Any]]:
        """Plans of leases that may still run."""
        if self._leases is None or not self._leases.is_dir():
            return {}
        found = {}
        for folder in self._leases.iterdir():
            plan = shim.read_json(str(folder / "spec.json"))
            if plan is not None and (folder / "notice").exists():  # removed ones have none
                found[folder.name] = plan
        return found

    def ready(self, spec: SandboxSpec) -> SandboxSpec:
        """The spec with its cores and its network, which exist from now on.

        Raises:
            Precondition: NO_TASK_NETWORK, NO_UPLINK, NO_PACKET_FILTER.
            Unreachable: NO_FREE_CORE, NETWORK_REFUSED.
        """
        if self._io_device and not spec.io_device:
            spec = dataclasses.replace(
                spec, io_device=self._io_device, io_bytes_per_s=self._io_bytes_per_s
            )
        with self._lock:
            try:
                return self._with_network(self._with_cores(spec))
            except BaseException:
                self.left(spec.lease_id)
                raise

    def _with_cores(self, spec: SandboxSpec) -> SandboxSpec:
        if self._cores is None or spec.cpus:
            return spec
        cgroups.fence()
        cpus, own = self._cores.take(spec.lease_id, spec.cpu_milli, alone=spec.core_tag)
        return dataclasses.replace(spec, cpus=cpus, own_cores=own)

    def _with_network(self, spec: SandboxSpec) -> SandboxSpec:
        if spec.network is None:
            return spec
        if self._networks is None:
            raise Precondition(
                "This node gives tasks no network.",
                reason="NO_TASK_NETWORK",
                field="network.egress",
                remedy="Run the agent as root with crun and iproute2, or choose another node.",
            )
        made = self._networks.join(spec.lease_id, spec.network)
        return dataclasses.replace(spec, network=made)

    def settled(self, lease_id: str) -> None:
        """Every member of its gang here finds the others in ``/run/gridlease/peers.json``."""
        if self._networks is None or self._leases is None:
            return
        with self._lock:
            if lease_id not in self._networks.leases():
                return
            told = {"peers": self._networks.peers(lease_id)}
            for member in self._networks.gang(lease_id):
                folder = self._leases / member / "notice"
                if folder.is_dir():
                    shim.write_json(str(folder / "peers.json"), told)
                    (folder / "peers.json").chmod(0o644)

    def left(self, lease_id: str) -> None:
        """Take back what a lease had; the last count of its bytes is on record by then."""
        with self._lock:
            if self._cores is not None:
                self._cores.give(lease_id)
            if self._networks is not None:
                self._networks.leave(lease_id)

    def keep_up(self) -> None:
        """Cores that were given or returned while a sandbox was being made."""
        if self._cores is not None:
            with self._lock:
                self._cores.settle()

    def egress_bytes(self) -> Mapping[str, int]:
        """What each task has sent so far: lease -> bytes."""
        if self._networks is None:
            return _NONE
        with self._lock:
            try:
                return self._networks.sent()
            except Unreachable as trouble:  # the counters on record stand until the next look
                _LOG.warning("the tasks' networks were not counted: %s", trouble)
                return _NONE


BARE = Ground()
