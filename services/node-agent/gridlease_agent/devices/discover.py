"""All accelerators of this host, whatever family they are of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from gridlease_agent.devices import listing
from gridlease_agent.devices.family import Family, load
from gridlease_agent.devices.nvml import Nvml
from gridlease_agent.probes.facts import DeviceFacts

Lister: TypeAlias = Callable[[Family, Path], tuple[DeviceFacts, ...]]


def by_nvml(family: Family, root: Path) -> tuple[DeviceFacts, ...]:
    """What NVIDIA's own library knows; nothing where it cannot be asked."""
    nvml = Nvml.open()
    if nvml is None:
        return ()
    try:
        driver = nvml.driver()
        return tuple(
            DeviceFacts(
                id=gpu.uuid or f"{family.name}-{gpu.index}",
                index=gpu.index,
                family=family.family,
                vendor=family.vendor,
                chip=gpu.name or "unknown",
                memory_bytes=gpu.memory_bytes,
                driver=driver,
                bus=gpu.bus,
                nodes=listing.nodes(family, root, {"index": str(gpu.minor)}),
                kind=family.kind,
            )
            for gpu in nvml.gpus()
        )
    finally:
        nvml.close()


LISTERS: Mapping[str, Lister] = {"nvml": by_nvml}


def discover(
    root: Path = Path("/"),
    families: Iterable[Family] | None = None,
    listers: Mapping[str, Lister] = LISTERS,
) -> tuple[DeviceFacts, ...]:
    """Every device that the host shows under ``root``, family by family."""
    found: list[DeviceFacts] = []
    for family in load() if families is None else families:
        if listing.is_present(family, root):
            lister = listers.get(family.lister)
            asked = lister(family, root) if lister is not None else ()
            found += asked or listing.devices(family, root)
    return tuple(found)
