"""What the slow path knows and the fast path does not: who should get which chip, and its worth.

Jobs are collapsed into classes (alike in tenant, purpose and acceptable chips); a linear program
over classes and chips answers with max-min shares of effective throughput and with a shadow price
for each chip. The program is built and read here; who solves it is a port (``adapters/optimiser``,
HiGHS in a process of its own). The fast path works without advice and is never slower with it.

Source: heterogeneity-aware max-min is Gavel's (Narayanan et al., OSDI'20, section 4.1); collapsing
to classes keeps 60 x 20 at about 20 ms where 1,000 x 20 takes 1.5 s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gridlease_scheduler.domain.chips import Catalogue, Chip
from gridlease_scheduler.domain.job import Needs, Purpose
from gridlease_scheduler.domain.node import Node
from gridlease_scheduler.domain.snapshot import Running, Snapshot

_MOST_CLASSES = 200  # the largest demand first; the rest go without advice


@dataclass(frozen=True, slots=True)
class JobClass:
    """Jobs that are alike to the optimiser.

    ``devices``: how many they want in all. ``throughput``: work a device of each acceptable chip
    does, relative (A100-80GB = 100).
    """

    key: str
    weight: int
    devices: int
    throughput: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Classes, and how many devices there are of each chip."""

    classes: tuple[JobClass, ...]
    capacity: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Solution:
    """``devices``: (class, chip) -> devices, fractional. ``prices``: a chip's shadow price, the
    effective throughput that one more device of it would add; 0 = there is enough of it."""

    devices: tuple[tuple[str, str, float], ...] = ()
    prices: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Advice:
    """A solution as the planner looks it up. ``made_ms``: of which instant it speaks."""

    favoured: dict[str, tuple[str, ...]]  # class -> chips, the largest share first
    prices: dict[str, float]
    made_ms: int = 0


NO_ADVICE = Advice({}, {})


def class_of(tenant: str, needs: Needs) -> str:
    """The class of a job: tenant, purpose, and what it accepts; empty for CPU jobs."""
    if needs.accelerator is None:
        return ""
    wanted = (needs.accelerator, *needs.alternatives)
    chips = "/".join(
        ",".join((*sorted(x.lower() for x in need.chips), need.vendor, str(need.memory_min_bytes)))
        for need in wanted
    )
    return f"{tenant}|{needs.purpose}|{chips}"


def problem(snapshot: Snapshot) -> Problem:
    """The program of everything that waits or runs on accelerators.

    What runs counts in its class too: shares are of the whole capacity, not of what is free.
    """
    weights = {share.tenant: max(1, share.weight) for share in snapshot.shares}
    capacity = _capacity(snapshot.nodes)
    demand: dict[str, int] = {}
    facts: dict[str, tuple[int, tuple[tuple[str, int], ...]]] = {}
    for task in snapshot.pending:
        key = class_of(task.tenant, task.needs)
        accelerator = task.needs.accelerator
        if not key or accelerator is None:
            continue
        demand[key] = demand.get(key, 0) + task.tasks * accelerator.count
        if key not in facts:
            speeds = _speeds(task.needs, snapshot.catalogue, capacity)
            facts[key] = (weights.get(task.tenant, 1) * (1 + task.priority), speeds)
    _count_running(demand, facts, snapshot.running)
    largest = sorted(demand, key=lambda key: (-demand[key], key))[:_MOST_CLASSES]
    classes = tuple(
        JobClass(key, facts[key][0], demand[key], facts[key][1])
        for key in sorted(largest)
        if facts[key][1]
    )
    return Problem(classes, tuple(sorted(capacity.items())))


def _count_running(
    demand: dict[str, int],
    facts: dict[str, tuple[int, tuple[tuple[str, int], ...]]],
    running: Iterable[Running],
) -> None:
    """What a tenant holds of a chip is demand of its class on that chip, at the least priority."""
    for lease in running:
        count = len(lease.allocation.device_ids)
        if not count:
            continue
        chip = lease.allocation.chip
        key = f"{lease.tenant}|running|{chip.lower()}"
        demand[key] = demand.get(key, 0) + count
        facts.setdefault(key, (1 + lease.priority, ((chip, 100),)))


def _capacity(nodes: Iterable[Node]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for node in nodes:
        if node.connected and not node.cordoned:
            for device in node.devices:
                totals[device.chip] = totals.get(device.chip, 0) + 1
    return totals


def _speeds(
    needs: Needs, catalogue: Catalogue, capacity: dict[str, int]
) -> tuple[tuple[str, int], ...]:
    """The acceptable chips that exist, each with its throughput."""
    assert needs.accelerator is not None
    found: dict[str, int] = {}
    for need in (needs.accelerator, *needs.alternatives):
        for chip in catalogue.matching(need):
            if chip.name in capacity and (speed := worth(chip, needs.purpose)) > 0:
                found[chip.name] = speed
    return tuple(sorted(found.items()))


def worth(chip: Chip, purpose: Purpose) -> int:
    """What one device of a chip does for a purpose: work for training, work per cost for others."""
    if purpose is Purpose.TRAINING:
        return chip.throughput
    return chip.throughput * 100 // max(1, chip.cost)


def advise(solution: Solution, made_ms: int) -> Advice:
    """A solution in the form that the planner looks up; shares below a hundredth are noise."""
    shares: dict[str, list[tuple[float, str]]] = {}
    for key, chip, devices in solution.devices:
        if devices > 0.01:
            shares.setdefault(key, []).append((-devices, chip))
    favoured = {key: tuple(chip for _, chip in sorted(found)) for key, found in shares.items()}
    return Advice(favoured, dict(solution.prices), made_ms)


@dataclass(frozen=True, slots=True)
class Lookup:
    """Advice as the planner asks for it: it orders the ways to place a job and removes none.

    ``shares``: chips in which some class with such needs has a share, whosever it is: of tenants
    that ask for the same, the optimiser cannot say which of them should have which chip.
    ``prices``: those above 0, in thousandths. ``preferred``: the chip that a job tries first.
    """

    shares: dict[str, frozenset[str]]
    prices: dict[str, int]
    preferred: dict[str, str] = field(default_factory=dict, compare=False)

    def behind(self, needs: Needs, chip: str) -> int:
        """1 for a scarce chip in which its class has no share though it has one in others."""
        if chip not in self.prices:
            return 0
        mine = self.shares.get(class_of("", needs))
        return int(mine is not None and chip not in mine)

    def price(self, chip: str) -> int:
        """What one more of it would be worth to others."""
        return self.prices.get(chip, 0)


NO_LOOKUP = Lookup({}, {})


def lookup(advice: Advice) -> Lookup:
    """By needs alone; without any scarce chip there is nothing to say."""
    prices = {x: round(price * 1_000) for x, price in advice.prices.items()}
    prices = {x: price for x, price in sorted(prices.items()) if price > 0}
    if not prices:
        return NO_LOOKUP
    shares: dict[str, set[str]] = {}
    for key, chips in advice.favoured.items():
        _, _, alike = key.partition("|")
        shares.setdefault(f"|{alike}", set()).update(chips)
    return Lookup({key: frozenset(shares[key]) for key in sorted(shares)}, prices)
