"""All that a host is: its own probes, and its accelerators by their families."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gridlease_agent.devices.discover import discover as devices
from gridlease_agent.devices.place import Place
from gridlease_agent.probes import cpu, disk, host, memory
from gridlease_agent.probes.facts import NodeFacts


def discover(state_dir: Path, root: Path = Path("/"), place: Place | None = None) -> NodeFacts:
    """All that this host is, read now; ``state_dir`` decides which disk counts.

    Args:
        place: where devices are looked for, where it is not ``root``.

    Raises:
        Invalid: BAD_FAMILY.
    """
    place = place or Place(root)
    found = devices(place.root, place.known())
    if place.emulated and place.root != root:
        found = tuple(replace(device, emulated=True) for device in found)
    return NodeFacts(
        host=host.probe(root),
        cpu=cpu.probe(root),
        memory=memory.probe(root),
        disk=disk.probe(state_dir),
        devices=found,
    )
