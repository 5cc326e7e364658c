"""How many members of a job a node would hold, if this or that came free.

Evictions and shadow starts ask the same question of nodes that are full now. Devices of one chip
count alike here; which of them a member gets is decided when it is placed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.job import Allocation, Needs, Span
from gridlease_scheduler.domain.node import Node

from .feasible import fits, may_be_emulated

_MOST = 1 << 40


@dataclass(frozen=True, slots=True)
class Way:
    """One member's demand on a node of one chip; ``devices`` 0 = CPUs alone."""

    chip: str
    devices: int
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    mbps: int = 0


@dataclass(frozen=True, slots=True)
class Slack:
    """What is free of a node, or would be. ``devices``: their number, by chip. ``mbps``: what is
    not promised of its link now; what leases give back of it is not counted on."""

    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    devices: Mapping[str, int]
    mbps: int = 0

    def plus(self, allocation: Allocation) -> Slack:
        """With this lease gone."""
        return self._changed(allocation, 1)

    def minus(self, allocation: Allocation) -> Slack:
        """With this lease as well."""
        return self._changed(allocation, -1)

    def less(self, way: Way, members: int) -> Slack:
        """With so many members on it."""
        held = (way.chip,) * bool(way.devices)
        return Slack(
            self.cpu_milli - members * way.cpu_milli,
            self.memory_bytes - members * way.memory_bytes,
            self.disk_bytes - members * way.disk_bytes,
            {k: n - members * way.devices * (k in held) for k, n in self.devices.items()},
            self.mbps - members * way.mbps,
        )

    def covers(self, allocation: Allocation) -> bool:
        """Is there room for it?"""
        many = len(allocation.device_ids)
        return (
            allocation.cpu_milli <= self.cpu_milli
            and allocation.memory_bytes <= self.memory_bytes
            and allocation.disk_bytes <= self.disk_bytes
            and (not many or many <= self.devices.get(allocation.chip, 0))
        )

    def _changed(self, allocation: Allocation, sign: int) -> Slack:
        devices = self.devices
        if allocation.device_ids:
            many = devices.get(allocation.chip, 0) + sign * len(allocation.device_ids)
            devices = {**devices, allocation.chip: many}
        return Slack(
            self.cpu_milli + sign * allocation.cpu_milli,
            self.memory_bytes + sign * allocation.memory_bytes,
            self.disk_bytes + sign * allocation.disk_bytes,
            devices,
            self.mbps,
        )


class Vacancies:
    """What is free of nodes, remembered for as long as a node is the same value."""

    __slots__ = ("_kinds", "_known")

    def __init__(self) -> None:
        self._known: dict[str, tuple[Node, Slack, int]] = {}
        self._kinds: dict[tuple[object, ...], int] = {}

    def slack(self, node: Node) -> Slack:
        """As the function of this name says."""
        return self._look(node)[1]

    def kind(self, node: Node) -> int:
        """Equal for nodes that are alike in all that leases do not change."""
        return self._look(node)[2]

    def _look(self, node: Node) -> tuple[Node, Slack, int]:
        known = self._known.get(node.node_id)
        if known is None or known[0] is not node:
            kind = self._kinds.setdefault(_kind(node), len(self._kinds))
            known = self._known[node.node_id] = (node, slack(node), kind)
        return known


def slack(node: Node) -> Slack:
    """What no lease holds. Devices that are still being cleaned count: they come free soon."""
    devices: dict[str, int] = {}
    for device in node.devices:
        if device.device_id not in node.held:
            devices[device.chip] = devices.get(device.chip, 0) + 1
    return Slack(
        node.free_cpu_milli, node.free_memory_bytes, node.free_disk_bytes, devices,
        node.link_mbps - node.reserved_mbps,
    )  # fmt: skip


def members(way: Way, free: Slack) -> int:
    """How many members of a job there is room for."""
    most = _MOST
    if way.devices:
        most = free.devices.get(way.chip, 0) // way.devices
    if way.cpu_milli:
        most = min(most, free.cpu_milli // way.cpu_milli)
    if way.memory_bytes:
        most = min(most, free.memory_bytes // way.memory_bytes)
    if way.disk_bytes:
        most = min(most, free.disk_bytes // way.disk_bytes)
    if way.mbps:
        most = min(most, free.mbps // way.mbps)
    return max(0, most) if most != _MOST else 0


def ways(
    needs: Needs,
    nodes: Iterable[Node],
    catalogue: Catalogue,
    barred: Collection[str],
    vacancies: Vacancies,
) -> dict[str, tuple[Way, ...]]:
    """Nodes that could take a member if they were empty, with the ways to do it.

    Bounded work: nodes alike in all that leases do not change are asked about once.
    """
    candidates = tuple(nodes)
    kinds = [vacancies.kind(node) for node in candidates]
    samples = dict(zip(kinds, candidates, strict=True))
    real = {x.chip for node in samples.values() if not node.emulated for x in node.devices}
    emulated_ok = may_be_emulated(needs, real, catalogue)
    known: dict[int, tuple[Way, ...]] = {}
    found: dict[str, tuple[Way, ...]] = {}
    for key, node in zip(kinds, candidates, strict=True):
        if key not in known:
            each = emptied(needs, node, catalogue, emulated_ok=emulated_ok)
            known[key] = tuple(way for way, _ in each if way.chip not in barred)
        if known[key]:
            found[node.node_id] = known[key]
    return found


def place(node: Node, span: Span) -> str:
    """What members must share: two nodes with equal answers are near enough to each other.

    A node whose rack or rail is not known stands alone.
    """
    match span:
        case Span.ANY:
            return ""
        case Span.SITE:
            return node.site
        case Span.RACK:
            return f"{node.site}/{node.rack}" if node.rack else f"={node.node_id}"
        case Span.RAIL:
            return f"{node.site}/{node.rail}" if node.rail else f"={node.node_id}"
        case Span.HOST:
            return node.node_id


def _kind(node: Node) -> tuple[object, ...]:
    devices = tuple((x.chip, x.memory_bytes) for x in node.devices)
    return (
        node.site, node.cpu_chip, node.cpu_milli, node.memory_bytes, node.disk_bytes, devices,
        node.runtimes, node.connected, node.cordoned, node.emulated, node.drivers,
        node.architecture, node.rdma, node.link_mbps, node.threads_per_core,
    )  # fmt: skip


def emptied(
    needs: Needs, node: Node, catalogue: Catalogue, *, emulated_ok: bool = True
) -> tuple[tuple[Way, int], ...]:
    """How many members a node would hold if nothing else were on it, by the way to use it."""
    empty = replace(
        node,
        used_cpu_milli=0,
        used_memory_bytes=0,
        used_disk_bytes=0,
        reserved_mbps=0,
        held=frozenset(),
        devices=tuple(replace(x, clean=True) for x in node.devices),
    )
    answer = fits(needs, empty, catalogue, emulated_ok=emulated_ok)
    if not isinstance(answer, tuple):
        return ()
    free = slack(empty)
    found = [
        Way(
            x.allocation.chip, len(x.allocation.device_ids), x.allocation.cpu_milli,
            x.allocation.memory_bytes, x.allocation.disk_bytes, needs.network.guaranteed_mbps,
        )
        for x in answer
    ]  # fmt: skip
    return tuple((way, members(way, free)) for way in found)
