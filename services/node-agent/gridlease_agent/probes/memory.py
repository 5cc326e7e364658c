"""The host's memory, and how much of it the agent may hand out."""

from __future__ import annotations

from pathlib import Path

from gridlease_agent.probes.facts import MemoryFacts
from gridlease_agent.probes.reading import limits, text


def probe(root: Path = Path("/")) -> MemoryFacts:
    """Total, what is available now, and the smallest limit above us."""
    rows = dict(
        line.split(":", 1) for line in text(root, "proc/meminfo").splitlines() if ":" in line
    )

    def kib(name: str) -> int:
        return int(rows.get(name, "0 kB").split()[0]) * 1024

    total = kib("MemTotal")
    found = limits(root, "memory", "memory.limit_in_bytes", "memory.max")
    caps = [int(value) for value in found if value != "max"]
    return MemoryFacts(total, min([total, *caps]), kib("MemAvailable"))
