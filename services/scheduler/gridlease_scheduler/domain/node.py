"""A node as the planner sees it: what it has, and what is still free of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .job import Allocation


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator. ``clean``: the node's last word says so; the node's own record counts."""

    device_id: str
    chip: str
    vendor: str
    memory_bytes: int
    clean: bool = True
    emulated: bool = False
    island: str = ""  # devices of one fast interconnect, within the node


THREADS_UNKNOWN = 2  # of a core, where the node does not say: the careful guess


@dataclass(frozen=True, slots=True)
class Node:
    """Capacity, and what unclosed leases leave of it."""

    node_id: str
    site: str
    cpu_chip: str
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    devices: tuple[Device, ...] = ()
    runtimes: frozenset[str] = frozenset()
    connected: bool = True
    cordoned: bool = False
    emulated: bool = False
    used_cpu_milli: int = 0
    used_memory_bytes: int = 0
    used_disk_bytes: int = 0
    held: frozenset[str] = frozenset()
    rack: str = ""
    rail: str = ""
    drivers: tuple[tuple[str, str], ...] = ()  # such as ("cuda", "550.54"), ("jetpack", "6.0")
    architecture: str = ""
    rdma: str = ""  # "roce", "infiniband" or empty
    link_mbps: int = 0  # of its own uplink; 0 = unknown
    reserved_mbps: int = 0  # promised to its leases
    threads_per_core: int = THREADS_UNKNOWN
    images: frozenset[str] = frozenset()  # at hand there, by digest and by the names last asked for
    ailing: tuple[Device, ...] = ()  # out of stock, and counted nowhere; they explain a wait

    @property
    def free_cpu_milli(self) -> int:
        """Thousandths of a core that may still be given away."""
        return self.cpu_milli - self.used_cpu_milli

    @property
    def free_memory_bytes(self) -> int:
        """Memory that may still be given away, in bytes."""
        return self.memory_bytes - self.used_memory_bytes

    @property
    def free_disk_bytes(self) -> int:
        """Disk that may still be given away, in bytes."""
        return self.disk_bytes - self.used_disk_bytes

    def free_devices(self, chip: str) -> tuple[Device, ...]:
        """Clean devices of one chip that no unclosed lease holds, by id."""
        mine = (x for x in self.devices if x.chip == chip and x.clean)
        return tuple(
            sorted(
                (x for x in mine if x.device_id not in self.held),
                key=lambda x: (len(x.device_id), x.device_id),
            )
        )


def has_room(node: Node, allocation: Allocation) -> bool:
    """Would capacity still not be exceeded, and no device be held twice, with this as well?"""
    present = {device.device_id for device in node.devices}
    return (
        allocation.cpu_milli <= node.free_cpu_milli
        and allocation.memory_bytes <= node.free_memory_bytes
        and allocation.disk_bytes <= node.free_disk_bytes
        and present.issuperset(allocation.device_ids)
        and node.held.isdisjoint(allocation.device_ids)
    )


def with_held(node: Node, allocation: Allocation) -> Node:
    """The node once a lease holds this of it."""
    return replace(
        node,
        used_cpu_milli=node.used_cpu_milli + allocation.cpu_milli,
        used_memory_bytes=node.used_memory_bytes + allocation.memory_bytes,
        used_disk_bytes=node.used_disk_bytes + allocation.disk_bytes,
        held=node.held | set(allocation.device_ids),
    )
