"""What probes answer: plain frozen records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostFacts:
    hostname: str
    kernel: str
    boot_id: str
    arch: str
    cgroup_mode: str
    system: str


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """``usable`` CPUs may run tasks (affinity and cgroup); ``online`` are the machine's."""

    model: str
    online: int
    usable_milli: int
    threads_per_core: int = 0  # the most that any core has; 0 = the host does not say


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """``usable_bytes`` is the smaller of the machine's memory and the agent's cgroup limit."""

    total_bytes: int
    usable_bytes: int
    available_bytes: int


@dataclass(frozen=True, slots=True)
class DiskFacts:
    path: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """One accelerator. ``chip`` is the vendor's own name; the catalogue maps it."""

    id: str
    index: int
    family: str  # gpu, jetson, tpu, fpga
    vendor: str
    chip: str
    memory_bytes: int
    driver: str = ""
    bus: str = ""
    nodes: tuple[str, ...] = ()
    emulated: bool = False
    kind: str = ""  # CDI's "vendor/class"
    part_of: str = ""  # a part of another device (a MIG instance): that one's id
    apart: bool = True  # as a part it has memory and faults of its own (MIG; not MPS)
    divided: bool = False  # into parts that are lent in its place (a GPU in MIG mode)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """Everything a node reports about itself."""

    host: HostFacts
    cpu: CpuFacts
    memory: MemoryFacts
    disk: DiskFacts
    devices: tuple[DeviceFacts, ...] = ()
    emulated: bool = False
