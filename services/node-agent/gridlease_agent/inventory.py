"""What this node is made of, as the scheduler is told."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field

from gridlease.type.v1 import fleet_pb2

from gridlease_agent.domain.chips import chip_name, cpu_chip
from gridlease_agent.domain.fitness import Fitness
from gridlease_agent.probes.facts import DeviceFacts, NodeFacts

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lending:
    """What of the host is lent, and how it is isolated."""

    memory_bytes: int
    disk_bytes: int
    sandbox_runtime: str
    unenforced: tuple[str, ...]
    agent_version: str
    fitness: Fitness = field(default_factory=Fitness)


_MOST_IMAGES = 4096  # Source: fleet.proto, NodeInventory.images


def inventory(
    facts: NodeFacts,
    lending: Lending,
    runtimes: list[str],
    dirty: frozenset[str],
    quarantined: frozenset[str] = frozenset(),
    images: tuple[str, ...] = (),
) -> fleet_pb2.NodeInventory:
    """The wire's record; chips bear the catalogue's names."""
    return fleet_pb2.NodeInventory(
        cpu_chip=cpu_chip(facts.host.arch),
        cpu_model=facts.cpu.model,
        images=sorted(images[:_MOST_IMAGES]),
        cpu_milli=facts.cpu.usable_milli,
        threads_per_core=facts.cpu.threads_per_core,
        memory_bytes=lending.memory_bytes,
        disk_bytes=lending.disk_bytes,
        devices=[
            fleet_pb2.Device(
                id=device.id,
                chip=chip_name(device.chip, device.memory_bytes),
                vendor=device.vendor,
                memory_bytes=device.memory_bytes,
                state=(
                    fleet_pb2.DEVICE_STATE_DIRTY
                    if device.id in dirty
                    else fleet_pb2.DEVICE_STATE_CLEAN
                ),
                emulated=device.emulated,
            )
            for device in facts.devices
        ],
        runtimes=runtimes,
        sandbox_runtime=lending.sandbox_runtime,
        unenforced=list(lending.unenforced),
        emulated=facts.emulated,
        hostname=facts.host.hostname,
        agent_version=lending.agent_version,
        architecture=facts.host.arch,
        drivers=drivers(facts.devices),
        kernel=facts.host.kernel,
        burn_in_score=lending.fitness.score,
        ailment=lending.fitness.ailment,
        quarantined=sorted(quarantined),
    )


_L4T = re.compile(r"R(\d+) \(release\), REVISION: ([\d.]+)")


def drivers(devices: tuple[DeviceFacts, ...]) -> dict[str, str]:
    """What drives the devices, by the toolkit that asks for it.

    >>> board = DeviceFacts("0", 0, "jetson", "nvidia", "Orin", 0, "R36 (release), REVISION: 3.0")
    >>> drivers((board,))
    {'l4t': '36.3.0'}
    """
    found: dict[str, str] = {}
    for device in devices:
        release = _L4T.search(device.driver)
        if release is not None:
            found["l4t"] = f"{release.group(1)}.{release.group(2)}"
        elif device.vendor == "nvidia" and device.driver:
            found["cuda"] = device.driver
        elif device.vendor == "amd" and device.family == "gpu" and device.driver:
            found["rocm"] = device.driver
    return found


def lent_memory_bytes(usable_bytes: int, reserve_bytes: int) -> int:
    """What is left for tasks; a small host keeps at most half for itself.

    >>> lent_memory_bytes(8 << 30, 1 << 30) >> 30
    7
    """
    return usable_bytes - min(reserve_bytes, usable_bytes // 2)


def lent_disk_bytes(total_bytes: int, free_bytes: int, share_percent: int) -> int:
    """A share of the disk, and not more than nine tenths of what was free at the first start."""
    return min(total_bytes * share_percent // 100, free_bytes * 9 // 10)
