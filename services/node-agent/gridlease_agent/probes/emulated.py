"""Nodes that are not there: what an 8-GPU server, a Jetson, a TPU host or an FPGA host would say.

Every record is marked emulated. The names and sizes are the vendors' public ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from gridlease_agent.probes.facts import (
    CpuFacts,
    DeviceFacts,
    DiskFacts,
    HostFacts,
    MemoryFacts,
    NodeFacts,
)

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Model:
    """A kind of emulated node."""

    family: str
    vendor: str
    chip: str
    count: int
    device_bytes: int
    cpu: str
    cores: int
    memory_bytes: int
    disk_bytes: int
    arch: str = "x86_64"


MODELS: dict[str, Model] = {
    "a100": Model("gpu", "nvidia", "NVIDIA A100-SXM4-80GB", 8, 80 * _GIB,
                  "AMD EPYC 7742 64-Core Processor", 128, 1024 * _GIB, 15_000 * _GIB),
    "h100": Model("gpu", "nvidia", "NVIDIA H100 80GB HBM3", 8, 80 * _GIB,
                  "Intel(R) Xeon(R) Platinum 8480C", 112, 2048 * _GIB, 28_000 * _GIB),
    "orin": Model("jetson", "nvidia", "NVIDIA Jetson AGX Orin 64GB", 1, 64 * _GIB,
                  "ARMv8 Processor rev 1 (v8l)", 12, 64 * _GIB, 64 * _GIB, "aarch64"),
    "tpu": Model("tpu", "google", "TPU v5e", 8, 16 * _GIB,
                 "AMD EPYC 7B13", 224, 400 * _GIB, 1_000 * _GIB),
    "fpga": Model("fpga", "amd", "AMD Alveo U250", 2, 64 * _GIB,
                  "Intel(R) Xeon(R) Gold 6226R", 32, 192 * _GIB, 2_000 * _GIB),
}  # fmt: skip


def probe(kind: str, index: int) -> NodeFacts:
    """The ``index``-th emulated node of a kind in ``MODELS``: always the same facts."""
    model = MODELS[kind]
    name = f"emulated-{kind}-{index:03d}"
    devices = tuple(
        DeviceFacts(
            id=f"EMULATED-{kind}-{index:03d}-{slot}",
            index=slot,
            family=model.family,
            vendor=model.vendor,
            chip=model.chip,
            memory_bytes=model.device_bytes,
            driver="emulated",
            emulated=True,
        )
        for slot in range(model.count)
    )
    return NodeFacts(
        host=HostFacts(name, "emulated", f"emulated-{index:03d}", model.arch, "none", "emulated"),
        cpu=CpuFacts(model.cpu, model.cores, model.cores * 1000),
        memory=MemoryFacts(model.memory_bytes, model.memory_bytes, model.memory_bytes),
        disk=DiskFacts("/", model.disk_bytes, model.disk_bytes),
        devices=devices,
        emulated=True,
    )


def fleet(count: int) -> list[NodeFacts]:
    """``count`` nodes, the kinds in turn: servers first, as a small data centre has them."""
    kinds = list(MODELS)
    return [probe(kinds[index % len(kinds)], index) for index in range(count)]
