"""What there is and what is free, by chip and site: a function of the nodes alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .node import Node


@dataclass(frozen=True, slots=True)
class Stock:
    """Devices (or CPU cores) of one chip at one site, in thousandths."""

    chip: str
    site: str
    emulated: bool
    memory_bytes: int
    total_milli: int = 0
    free_milli: int = 0


def stock(nodes: Iterable[Node]) -> tuple[Stock, ...]:
    """All of it, by chip, site, and whether it is real."""
    totals: dict[tuple[str, str, bool], list[int]] = {}
    for node in nodes:
        takes_work = node.connected and not node.cordoned
        if node.cpu_chip and node.cpu_milli:
            row = totals.setdefault((node.cpu_chip, node.site, node.emulated), [0, 0, 0])
            row[1] += node.cpu_milli
            row[2] += node.free_cpu_milli if takes_work else 0
        for device in node.devices:
            key = (device.chip, node.site, device.emulated or node.emulated)
            row = totals.setdefault(key, [0, 0, 0])
            row[0] = max(row[0], device.memory_bytes)
            row[1] += 1_000
            free = takes_work and device.clean and device.device_id not in node.held
            row[2] += 1_000 if free else 0
    return tuple(
        Stock(chip, site, emulated, *row) for (chip, site, emulated), row in sorted(totals.items())
    )
