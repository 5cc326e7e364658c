"""The table of probes: add a family of devices by adding a file and a row here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gridlease_agent.probes import cpu, disk, host, memory, nvidia
from gridlease_agent.probes.facts import DeviceFacts, NodeFacts

DEVICE_PROBES: dict[str, Callable[[Path], tuple[DeviceFacts, ...]]] = {
    "nvidia": nvidia.probe,
}


def discover(state_dir: Path, root: Path = Path("/")) -> NodeFacts:
    """All that this host is, read now; ``state_dir`` decides which disk counts."""
    found = [device for probe in DEVICE_PROBES.values() for device in probe(root)]
    return NodeFacts(
        host=host.probe(root),
        cpu=cpu.probe(root),
        memory=memory.probe(root),
        disk=disk.probe(state_dir),
        devices=tuple(found),
    )
