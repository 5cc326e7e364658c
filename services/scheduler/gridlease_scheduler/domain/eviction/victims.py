"""The cheapest set of victims that makes room for a gang on a group of nodes.

What a node can offer is a short list: for each number of members, the cheapest victims that make
room for them. Which nodes then take how many members is a knapsack over these lists, solved
exactly. A victim on several nodes is paid for once, wherever it makes room: at first each of its
nodes is charged its part, which can only be too cheap; where the answer uses a part of it alone,
both ways are tried, with it gone altogether and with it left alone (branch and bound). Within the
bound on the work the answer is the optimum, and the best that was found beyond it.

Bounded work: on large groups only the nodes with the cheapest devices are listed, about twice as
many as the gang has members, and the knapsack is estimated until the last.

Source: Land and Doig, An automatic method of solving discrete programming problems (1960).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from gridlease_scheduler.domain.job import Tier
from gridlease_scheduler.domain.order.fair import effective, level
from gridlease_scheduler.domain.placing.vacancy import Slack, Way, members
from gridlease_scheduler.domain.snapshot import Running

from .knapsack import Option, cheapest_choice, estimated_choice

_EVERY_SUBSET = 8  # of a node's victims; beyond that, the cheapest per device first
_BRANCHES = 150
_EXACT_WORK = 30_000  # steps of the knapsack beyond which the search goes by its estimate
_ALL_WORK = 300_000  # steps of all branches together, and at least a few branches
_FEW_BRANCHES = 8
_LOST_SHIFT, _MILLI_SHIFT = 48, 16

_Vector: TypeAlias = tuple[int, int, int, int, int]  # devices, cpu, memory, disk, Mbit/s
_NOTHING: _Vector = (0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Victim:
    """A running job that might be put out, as a whole.

    ``rank``: its standing, lowest first. ``lost``: effective device-milliseconds since its last
    checkpoint. ``cost`` orders equal losses too: fewer devices, then lower priority.
    """

    job: str
    leases: tuple[Running, ...]
    rank: int
    level: int
    lost: int
    cost: int
    milli: int
    notice_ms: int
    worked_ms: int
    evictions: int

    @classmethod
    def of(
        cls, job: str, leases: Sequence[Running], speeds: Mapping[str, int], *, borrows: bool
    ) -> Victim:
        """From its leases; ``speeds`` is throughput by chip."""
        one = leases[0]
        milli = sum([x.allocation.quantity_milli for x in leases])
        lost = lost_work(leases, speeds)
        return cls(
            job,
            tuple(sorted(leases, key=_lease_id)) if len(leases) > 1 else (one,),
            standing(one, borrows=borrows),
            level(one.tier, one.priority),
            lost,
            (lost << _LOST_SHIFT) + (milli << _MILLI_SHIFT) + one.priority,
            milli,
            max([x.notice_ms for x in leases]),
            max([x.worked_ms for x in leases]),
            max([x.evictions for x in leases]),
        )


@dataclass(frozen=True, slots=True)
class Found:
    """Victims, what they cost, and how many members go to which node."""

    cost: int
    victims: tuple[Victim, ...]
    places: tuple[tuple[str, int], ...]


def lost_work(leases: Iterable[Running], speeds: Mapping[str, int]) -> int:
    """What would have to be done again, in thousandths of effective device-milliseconds."""
    return sum(
        effective(
            x.allocation.quantity_milli,
            max(0, x.worked_ms - x.saved_ms),
            speeds.get(x.allocation.chip, 100),
        )
        for x in leases
    )


def standing(lease: Running, *, borrows: bool) -> int:
    """Who goes first: spot before on-demand; within each, borrowers before owners."""
    return 2 * (lease.tier is not Tier.SPOT) + (not borrows)


def _lease_id(lease: Running) -> str:
    return lease.lease_id


def cheapest(
    tasks: int, way: Way, rooms: Mapping[str, Slack], pool: Sequence[Victim]
) -> Found | None:
    """The victims to take from the pool, or None if not even all of it makes room."""
    search = _Search(tasks, way, rooms, pool)
    chosen = search.best()
    return None if chosen is None else search.least(chosen)


@dataclass(frozen=True, slots=True)
class _Branch:
    """Victims on several nodes that are gone altogether, and those left alone."""

    gone: frozenset[int] = frozenset()
    kept: frozenset[int] = frozenset()


class _Search:
    """One group of nodes, one way to use them, one pool."""

    def __init__(
        self, tasks: int, way: Way, rooms: Mapping[str, Slack], pool: Sequence[Victim]
    ) -> None:
        self.tasks, self.way, self.rooms, self.pool = tasks, way, rooms, pool
        self.gains: list[dict[str, _Vector]] = [_gains(x, way, rooms) for x in pool]
        self.here: dict[str, list[int]] = {name: [] for name in rooms}
        for at, gain in enumerate(self.gains):
            for name in gain:
                self.here[name].append(at)
        self._known: dict[tuple[str, tuple[int, ...], tuple[int, ...]], tuple[Option, ...]] = {}
        self._near = self._cheap_nodes()
        self._work = 0

    def best(self) -> tuple[int, ...] | None:
        """The cheapest set found, as places in the pool."""
        root = self._relaxed(_Branch())
        if root is None:
            return None
        best_cost, best = -1, None
        heap: list[tuple[int, int, _Branch, tuple[tuple[int, str], ...]]] = []
        heapq.heappush(heap, (root[0], 0, _Branch(), root[1]))
        seen = 1
        while heap:
            bound, _, branch, used = heapq.heappop(heap)
            if best is not None and bound >= best_cost:
                break
            chosen = tuple(sorted({at for at, _ in used} | branch.gone))
            cost = self._cost(chosen)
            if best is None or cost < best_cost:
                best_cost, best = cost, chosen
            split = self._partly(branch, used)
            if split is None or self._spent(seen):
                continue
            for child in (
                _Branch(branch.gone | {split}, branch.kept),
                _Branch(branch.gone, branch.kept | {split}),
            ):
                answer = self._relaxed(child)
                seen += 1
                if answer is not None and (best is None or answer[0] < best_cost):
                    heapq.heappush(heap, (max(bound, answer[0]), seen, child, answer[1]))
        return best

    def least(self, chosen: Sequence[int]) -> Found:
        """A set without those that it can do without, the dearest dropped first."""
        free: dict[str, _Vector] = {}
        for at in chosen:
            for name, gain in self.gains[at].items():
                before = free.get(name) or _free(self.rooms[name], self.way)
                free[name] = _plus(before, gain)
        counts = {x: members(self.way, room) for x, room in self.rooms.items() if x not in free}
        counts |= {name: _count(self.way, each) for name, each in free.items()}
        spare = sum(counts.values()) - self.tasks
        kept = []
        for at in sorted(chosen, key=lambda x: (-self.pool[x].cost, self.pool[x].job)):
            without = {name: _minus(free[name], gain) for name, gain in self.gains[at].items()}
            less = {name: _count(self.way, each) for name, each in without.items()}
            fewer = sum(counts[name] - count for name, count in less.items())
            if fewer > spare:
                kept.append(self.pool[at])
                continue
            spare -= fewer
            free |= without
            counts |= less
        victims = tuple(sorted(kept, key=lambda x: x.job))
        return Found(sum(x.cost for x in victims), victims, _placed(self.tasks, counts))

    def _spent(self, seen: int) -> bool:
        return seen >= _BRANCHES or (seen >= _FEW_BRANCHES and self._work >= _ALL_WORK)

    def _partly(self, branch: _Branch, used: tuple[tuple[int, str], ...]) -> int | None:
        """The victim of which the largest part was had for nothing; None = all is paid."""
        nodes: dict[int, int] = {}
        for at, name in used:
            if at not in branch.gone:
                nodes[at] = nodes.get(at, 0) + self._part(at, name)
        unpaid = [(self.pool[at].cost - paid, at) for at, paid in nodes.items()]
        # Parts are rounded down, by less than one for each node.
        owing = [(cost, -at) for cost, at in unpaid if cost > len(self.gains[at])]
        return -max(owing)[1] if owing else None

    def _relaxed(self, branch: _Branch) -> tuple[int, tuple[tuple[int, str], ...]] | None:
        """A lower bound, and the victims that it uses on each node."""
        touched = {name for at in branch.gone for name in self.gains[at]}
        lists: list[tuple[Option, ...]] = []
        names: list[str] = []
        for name in [*self._near, *sorted(touched.difference(self._near))]:
            options = self._options(name, branch)
            if options:
                lists.append(options)
                names.append(name)
        work = sum(map(len, lists)) * self.tasks
        self._work += work
        found = (cheapest_choice if work <= _EXACT_WORK else estimated_choice)(self.tasks, lists)
        if found is None:
            return None
        used = tuple((at, names[place]) for place, victims in found[1] for at in victims)
        return found[0] + self._cost(branch.gone), used

    def _options(self, name: str, branch: _Branch) -> tuple[Option, ...]:
        """What a node offers: ever more members at ever higher cost."""
        here = self.here[name]
        gone = tuple(x for x in here if x in branch.gone)
        free = tuple(x for x in here if x not in branch.gone and x not in branch.kept)
        key = (name, gone, free)
        if key not in self._known:
            base = _free(self.rooms[name], self.way)
            for at in gone:
                base = _plus(base, self.gains[at][name])
            self._known[key] = self._listed(name, base, free)
        return self._known[key]

    def _listed(self, name: str, base: _Vector, mine: tuple[int, ...]) -> tuple[Option, ...]:
        best: dict[int, tuple[int, tuple[int, ...]]] = {}
        for cost, victims, free in self._subsets(name, base, mine):
            count = min(self.tasks, _count(self.way, free))
            if count and (count not in best or cost < best[count][0]):
                best[count] = (cost, victims)
        options: list[Option] = []
        for count in sorted(best, reverse=True):
            cost, victims = best[count]
            if not options or cost < options[-1].cost:
                options.append(Option(count, cost, victims))
        return tuple(reversed(options))

    def _subsets(
        self, name: str, base: _Vector, mine: tuple[int, ...]
    ) -> Iterable[tuple[int, tuple[int, ...], _Vector]]:
        """Sets of victims of a node, with their cost and what is free without them."""
        items = [(at, self._part(at, name), self.gains[at][name]) for at in mine]
        every = _plus(base, (sum(x[2][0] for x in items), 0, 0, 0, 0))
        if self.way.devices and _count(self.way, every) == every[0] // self.way.devices:
            return _by_devices(base, items)
        if len(items) > _EVERY_SUBSET:
            items.sort(key=lambda x: (self._dearness(x[0]), self.pool[x[0]].job))
            found: list[tuple[int, tuple[int, ...], _Vector]] = [(0, (), base)]
            for at, cost, gain in items:
                before = found[-1]
                found.append((before[0] + cost, (*before[1], at), _plus(before[2], gain)))
            return found
        sets: list[tuple[int, tuple[int, ...], _Vector]] = [(0, (), base)]
        for at, cost, gain in items:
            sets += [(had + cost, (*x, at), _plus(free, gain)) for had, x, free in sets]
        return sets

    def _part(self, at: int, name: str) -> int:
        """What of a victim's cost a node is charged: by what it frees there."""
        gain = self.gains[at]
        if len(gain) == 1:
            return self.pool[at].cost
        axis = 0 if self.way.devices else 1
        total = sum(x[axis] for x in gain.values())
        return self.pool[at].cost * gain[name][axis] // total if total else 0

    def _cheap_nodes(self) -> list[str]:
        """The nodes worth a list: those with room already, then those with the cheapest devices."""
        most = 2 * self.tasks + 32
        if len(self.rooms) <= most:
            return list(self.rooms)
        keyed = []
        for name, room in self.rooms.items():
            cost = 0
            if not members(self.way, room):
                cost = min((self._dearness(x) for x in self.here[name]), default=-1)
            if cost >= 0:
                keyed.append((cost, name))
        return [name for _, name in heapq.nsmallest(most, keyed)]

    def _dearness(self, at: int) -> int:
        """Cost for each device that it would free here."""
        freed = sum(x[0] if self.way.devices else x[1] for x in self.gains[at].values())
        return self.pool[at].cost // max(1, freed)

    def _cost(self, given: Iterable[int]) -> int:
        return sum(self.pool[x].cost for x in given)


def _placed(tasks: int, counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Which node takes how many members: as few nodes as can be, in a fixed order."""
    left, places = tasks, []
    for count, name in sorted((-count, name) for name, count in counts.items() if count):
        if left:
            places.append((name, min(left, -count)))
            left -= places[-1][1]
    return tuple(places)


def _by_devices(
    base: _Vector, items: Sequence[tuple[int, int, _Vector]]
) -> Iterable[tuple[int, tuple[int, ...], _Vector]]:
    """The cheapest set for each number of devices, where nothing else is short: exact."""
    best: dict[int, tuple[int, tuple[int, ...]]] = {base[0]: (0, ())}
    for at, cost, gain in items:
        if gain[0]:
            for have, (had, victims) in sorted(best.items(), reverse=True):
                there = best.get(have + gain[0])
                if there is None or had + cost < there[0]:
                    best[have + gain[0]] = (had + cost, (*victims, at))
    return [(cost, x, (have, *base[1:])) for have, (cost, x) in best.items()]


def _gains(victim: Victim, way: Way, rooms: Mapping[str, Slack]) -> dict[str, _Vector]:
    """What comes free of which node if it ends."""
    found: dict[str, _Vector] = {}
    for lease in victim.leases:
        if lease.node_id in rooms:
            holds = lease.allocation
            many = len(holds.device_ids) if holds.chip == way.chip else 0
            gain = (many, holds.cpu_milli, holds.memory_bytes, holds.disk_bytes, 0)
            found[lease.node_id] = _plus(found.get(lease.node_id, _NOTHING), gain)
    return found


def _free(room: Slack, way: Way) -> _Vector:
    many = room.devices.get(way.chip, 0)
    return (many, room.cpu_milli, room.memory_bytes, room.disk_bytes, room.mbps)


def _plus(one: _Vector, other: _Vector) -> _Vector:
    a, b = one, other
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4])


def _minus(one: _Vector, other: _Vector) -> _Vector:
    a, b = one, other
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3], a[4] - b[4])


def _count(way: Way, free: _Vector) -> int:
    """How many members there is room for."""
    asked = (way.devices, way.cpu_milli, way.memory_bytes, way.disk_bytes, way.mbps)
    return max(0, min((x // y for x, y in zip(free, asked, strict=True) if y), default=0))
