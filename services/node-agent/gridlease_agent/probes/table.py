"""All that a host is: its own probes, and its accelerators by their families."""

from __future__ import annotations

from pathlib import Path

from gridlease_agent.devices.discover import discover as devices
from gridlease_agent.probes import cpu, disk, host, memory
from gridlease_agent.probes.facts import NodeFacts


def discover(state_dir: Path, root: Path = Path("/")) -> NodeFacts:
    """All that this host is, read now; ``state_dir`` decides which disk counts."""
    return NodeFacts(
        host=host.probe(root),
        cpu=cpu.probe(root),
        memory=memory.probe(root),
        disk=disk.probe(state_dir),
        devices=devices(root),
    )
