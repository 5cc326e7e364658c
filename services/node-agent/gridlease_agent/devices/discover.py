"""All accelerators of this host, whatever family they are of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from gridlease_agent.devices import listing
from gridlease_agent.devices.family import Family, load
from gridlease_agent.devices.nvml import Gpu, Nvml, Part
from gridlease_agent.devices.place import NVML, Place
from gridlease_agent.probes.facts import DeviceFacts
from gridlease_agent.probes.reading import text

Lister: TypeAlias = Callable[[Family, Path], tuple[DeviceFacts, ...]]


def by_nvml(family: Family, root: Path) -> tuple[DeviceFacts, ...]:
    """What NVIDIA's own library knows; nothing where it cannot be asked.

    A GPU in MIG mode is told with its instances, which are devices of their own.
    """
    nvml = Nvml.open(Place(root).library(NVML))
    if nvml is None:
        return ()
    try:
        driver = nvml.driver()
        found: list[DeviceFacts] = []
        for gpu in nvml.gpus():
            whole = DeviceFacts(
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
                divided=gpu.divided,
            )
            found += [whole, *_parts(family, root, gpu, whole)]
        return tuple(found)
    finally:
        nvml.close()


def _parts(family: Family, root: Path, gpu: Gpu, whole: DeviceFacts) -> Iterator[DeviceFacts]:
    minors = text(root, "proc/driver/nvidia-caps/mig-minors")
    for part in gpu.parts:
        fields = {"index": str(gpu.minor)} | _access(minors, gpu.minor, part)
        yield replace(
            whole,
            id=part.uuid,
            chip=part.name or f"{whole.chip} MIG",
            memory_bytes=part.memory_bytes,
            nodes=listing.nodes(family, root, fields, part=True),
            part_of=whole.id,
            divided=False,
        )


def _access(minors: str, minor: int, part: Part) -> dict[str, str]:
    """The numbers of the nodes that open one instance; none that is not named.

    Source: NVIDIA MIG user guide, "Device Nodes and Capabilities": /proc/driver/nvidia-caps.

    >>> part = Part("MIG-1", "", 0, 3, 0)
    >>> _access("config 1\\ngpu0/gi3/access 30\\ngpu0/gi3/ci0/access 31\\n", 0, part)
    {'access': '30', 'compute_access': '31'}
    """
    own = f"gpu{minor}/gi{part.gpu_instance}"
    paths = {"access": f"{own}/access", "compute_access": f"{own}/ci{part.compute_instance}/access"}
    found = {
        name: re.search(rf"^{re.escape(path)} (\d+)$", minors, re.MULTILINE)
        for name, path in paths.items()
    }
    return {name: match.group(1) for name, match in found.items() if match is not None}


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
