"""The cluster that a trace is replayed on: nodes, sites, prices and watts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from gridlease_scheduler.domain.chips import CPU_VENDOR, Catalogue, Chip
from gridlease_scheduler.domain.job import Tier
from gridlease_scheduler.domain.node import Device, Node
from gridlease_scheduler.domain.snapshot import Offered, Site

from gridlease_simulate.fields import nearest, wrong

FULL_PERCENT = 100
DEFAULT_A100_NANO = 1_500_000_000  # an hour of what the catalogue's relative costs are relative to
_CORES_A_DEVICE_MILLI = 12_000
_MEMORY_A_DEVICE_BYTES = 96 << 30
_DISK_BYTES = 2 << 40


@dataclass(frozen=True, slots=True)
class Group:
    """``count`` nodes alike. ``price_nano``: of a device-hour, or of a core-hour where there are
    no devices; 0 = the chip's. ``watts``: what each node draws beside its CPUs and devices."""

    name: str
    site: str
    count: int
    chip: str
    devices: int
    cpu_chip: str
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    price_nano: int = 0
    watts: int = 0
    per_rack: int = 0
    names: tuple[str, ...] = ()  # the nodes' own names, where a file gives them
    runtimes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cluster:
    """All that a replay knows of its fleet. ``slices``: into how many each device is split."""

    name: str
    groups: tuple[Group, ...]
    sites: tuple[Site, ...]
    catalogue: Catalogue
    currency: str = "USD"
    prices_nano: Mapping[str, int] = field(default_factory=dict)
    tier_percent: Mapping[Tier, int] = field(default_factory=dict)
    a100_nano: int = DEFAULT_A100_NANO
    busy_percent: int = FULL_PERCENT  # of the way from idle to peak watts, while held
    slices: int = 1

    def nodes(self) -> tuple[Node, ...]:
        """Every node, empty, in the order of the groups."""
        return tuple(node for group in self.groups for node in self._nodes(group))

    def _nodes(self, group: Group) -> list[Node]:
        found = []
        chip = self.chip(group.chip) if group.devices else None
        memory = chip.memory_bytes // self.slices if chip is not None else 0
        devices = tuple(
            Device(
                str(at),
                chip.name,
                chip.vendor,
                memory,
                island=str(at // self.slices) if self.slices > 1 else "",
            )
            for at in range(group.devices * self.slices)
            if chip is not None
        )
        for at in range(group.count):
            rack = f"{group.site}-{group.name}-r{at // group.per_rack}" if group.per_rack else ""
            found.append(
                Node(
                    group.names[at] if group.names else f"{group.name}-{at:04d}",
                    group.site,
                    group.cpu_chip,
                    group.cpu_milli,
                    group.memory_bytes,
                    group.disk_bytes,
                    devices,
                    frozenset(group.runtimes),
                    rack=rack,
                    rail=rack,
                )
            )
        return found

    def chip(self, name: str) -> Chip:
        """The entry of a chip that this cluster has."""
        found = self.catalogue.find(name)
        assert found is not None, name
        return found

    def price_nano(self, chip: str, tier: Tier) -> int:
        """An hour of one device (or core) of a chip: from the table, or from its relative cost."""
        listed = self.prices_nano.get(chip)
        if listed is None:
            listed = self.a100_nano * self.chip(chip).cost // 100
        return listed * self.tier_percent.get(tier, FULL_PERCENT) // 100

    def group_price_nano(self, group: Group, chip: str, tier: Tier) -> int:
        """The same on one group of nodes, whose own price comes first."""
        priced = group.chip if group.devices else group.cpu_chip
        if group.price_nano and chip == priced:
            return group.price_nano * self.tier_percent.get(tier, FULL_PERCENT) // 100
        return self.price_nano(chip, tier)

    def offers(self) -> tuple[Offered, ...]:
        """What each chip costs in each tier, where it is cheapest, as the planner reads it."""
        asked: dict[tuple[str, Tier], int] = {}
        for group in self.groups:
            for chip in {group.cpu_chip, *([group.chip] if group.devices else [])}:
                for tier in Tier:
                    price = self.group_price_nano(group, chip, tier)
                    asked[chip, tier] = min(price, asked.get((chip, tier), price))
        return tuple(Offered(chip, tier, price) for (chip, tier), price in sorted(asked.items()))

    def widest(self) -> int:
        """The most devices (slices) on one node."""
        return max((group.devices for group in self.groups), default=0) * self.slices

    def split(self, slices: int) -> Cluster:
        """The same with every device as ``slices`` equal parts, each planned as a device."""
        return dataclasses.replace(self, slices=slices)


def resolve(catalogue: Catalogue, name: str, field_name: str, *, cpu: bool = False) -> Chip:
    """The one entry that a name or family means: of a family, the one with the least memory.

    Raises:
        Invalid: UNKNOWN_CHIP.
    """
    fitting = [each for each in catalogue.chips if (each.vendor == CPU_VENDOR) == cpu]
    exact = [each for each in fitting if each.name.lower() == name.lower()]
    family = [each for each in fitting if each.family.lower() == name.lower()]
    found = exact or sorted(family, key=lambda each: (each.memory_bytes, each.name))
    if not found:
        raise wrong(
            f"There is no {'CPU' if cpu else 'chip'} {name!r} in the catalogue.",
            reason="UNKNOWN_CHIP",
            field=field_name,
            remedy=nearest(name, {n for each in fitting for n in (each.name, each.family)})
            + " A [[chip]] table in the cluster file adds one.",
        )
    return found[0]


def like(cluster: Cluster, chip: Chip, devices: int) -> Group:
    """A group of such nodes: as the cluster's own nodes with that chip, else sized by devices."""
    for group in cluster.groups:
        if group.devices == devices and group.chip == chip.name:
            return group
    site = cluster.groups[0].site if cluster.groups else cluster.sites[0].name
    return Group(
        name=chip.name.lower(),
        site=site,
        count=1,
        chip=chip.name,
        devices=devices,
        cpu_chip=cluster.groups[0].cpu_chip if cluster.groups else "cpu-x86-64",
        cpu_milli=_CORES_A_DEVICE_MILLI * devices,
        memory_bytes=_MEMORY_A_DEVICE_BYTES * devices,
        disk_bytes=_DISK_BYTES,
    )
