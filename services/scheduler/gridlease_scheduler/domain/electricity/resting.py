"""Which hosts have been empty for long? What ``idle`` looks at, from the fleet as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.node import Node
from gridlease_scheduler.domain.snapshot import Site

from .idle import Host


def empty_since(nodes: Iterable[Node], before: Mapping[str, int], now_ms: int) -> dict[str, int]:
    """Since when each real node is empty, as far as anybody has watched."""
    return {
        x.node_id: before.get(x.node_id, now_ms)
        for x in nodes
        if x.connected and not x.cordoned and not x.emulated and not _used(x)
    }


def _used(node: Node) -> bool:
    return bool(node.held or node.used_cpu_milli or node.used_memory_bytes)


def hosts(
    nodes: Iterable[Node],
    since: Mapping[str, int],
    sites: Iterable[Site],
    catalogue: Catalogue,
    wake_ms: int,
) -> tuple[Host, ...]:
    """The empty ones. Those with the same devices at the same site stand in for one another."""
    pue = {x.name: max(1_000, x.pue_milli) for x in sites}
    return tuple(
        Host(
            x.node_id,
            kind(x),
            since[x.node_id],
            idle_mw(x, catalogue) * pue.get(x.site, 1_000) // 1_000,
            wake_ms,
        )
        for x in nodes
        if x.node_id in since
    )


def kind(node: Node) -> str:
    """Its devices and its site, in words."""
    chips = sorted(x.chip for x in node.devices)
    counts = [f"{chips.count(chip)} {chip}" for chip in sorted(set(chips))]
    return f"{', '.join(counts) or node.cpu_chip} at {node.site}"


def idle_mw(node: Node, catalogue: Catalogue) -> int:
    """What its devices draw when they do nothing, by the catalogue, in milliwatts."""
    known = [catalogue.find(x.chip) for x in node.devices]
    return sum(1_000 * chip.idle_watts for chip in known if chip is not None)
