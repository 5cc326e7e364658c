"""The ground of this very host, and in words what it cannot hold here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from gridlease_kernel.faults import Precondition

from gridlease_agent.isolate import cgroups, cores
from gridlease_agent.isolate.cgroups import CgroupMode
from gridlease_agent.isolate.cores import CoreTable
from gridlease_agent.isolate.ground import BARE, Ground
from gridlease_agent.network.platform import Platform
from gridlease_agent.network.tasks import TaskNetworks, ways
from gridlease_agent.runtimes.choose import Runtime
from gridlease_agent.settings import Settings

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """``unenforced``: a line each of what this host cannot do for isolation."""

    ground: Ground
    unenforced: tuple[str, ...]


def host_ground(state: Path, runtime: Runtime, settings: Settings) -> Found:
    """Built, and what an earlier agent left taken over. Blocking: asks the kernel some questions.

    Raises:
        Invalid: UPLINKS_INVALID.
    """
    if runtime.name != "crun" or not runtime.root:
        return Found(BARE, ("network: tasks have a loopback alone",))
    words = [*_cgroup_words(), *_core_words()]
    networks: TaskNetworks | None = None
    protected = [each.strip() for each in settings.protected.split(",") if each.strip()]
    try:
        networks = TaskNetworks(
            state, ways(settings.uplinks), Platform(state, protected, settings.nats_url)
        )
        words += networks.unenforced()
    except Precondition as trouble:
        words.append(f"network: tasks have a loopback alone: {trouble}")
    leases = state.absolute() / "leases"
    if settings.io_bytes_per_s and not cgroups.disk_of(state):
        words.append("io: the state folder is on no disk of its own; its rate is not limited")
    elif not settings.io_bytes_per_s:
        words.append("io: no rate is set; disk bandwidth is not limited")
    table = CoreTable(cores.layout(), leases)
    ground = Ground(leases, table, networks, settings.io_bytes_per_s)
    ground.adopt()
    return Found(ground, tuple(words))


def _cgroup_words() -> list[str]:
    found = cgroups.mode()
    if found is CgroupMode.V2:
        return []
    if found is CgroupMode.NONE:
        return ["cgroups: none: CPU time, memory and processes are not limited"]
    return [
        f"cgroups: {found.value}: memory.oom.group is of version 2 alone: one process may be "
        "killed for memory where the others go on; buffered writes escape the disk's rate"
    ]


def _core_words() -> list[str]:
    if cores.core_scheduling() or all(len(core) == 1 for core in cores.layout()):
        return []
    return [
        "core scheduling: this kernel has none: shared leases may meet on the threads of one core; "
        "exclusive ones have whole cores"
    ]
