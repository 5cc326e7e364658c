"""The cheapest set of victims that makes room for a gang on a group of nodes.

What a node can offer is a short list: for each number of members, the cheapest of its own victims
that make room for them (all subsets are tried, for a node has few). Which nodes then take how many
members is a knapsack over these lists, solved exactly. Victims on several nodes are what is left:
with few of them every subset is tried as given, and the answer is the optimum; with many, single
ones are added and dropped for as long as that helps.

Bounded work: on large groups only the nodes with the cheapest devices are listed, about twice as
many as the gang has members.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

from .fair import effective, level
from .job import Tier
from .snapshot import Running
from .vacancy import Slack, Way, members

_EVERY_SUBSET = 8  # of a node's victims; beyond that, the cheapest per device first
_SPANNING_EXACT = 7  # victims on several nodes of which every subset is tried
_SPANNING_TRIED = 12
_ROUNDS = 6
_EXACT_WORK = 60_000  # steps of the knapsack beyond which the search goes by its estimate
_LOST_SHIFT, _MILLI_SHIFT = 48, 16

_Vector: TypeAlias = tuple[int, int, int, int]  # devices, cpu, memory, disk


@dataclass(frozen=True, slots=True)
class _Chain:
    """Options taken so far, the last one first."""

    before: _Chain | None
    victims: tuple[int, ...]

    def all(self) -> tuple[int, ...]:
        """Every victim of the chain."""
        found, link = list(self.victims), self.before
        while link is not None:
            found.extend(link.victims)
            link = link.before
        return tuple(found)


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
        milli = sum(x.allocation.quantity_milli for x in leases)
        lost = lost_work(leases, speeds)
        cost = (lost << _LOST_SHIFT) + (milli << _MILLI_SHIFT) + one.priority
        return cls(
            job,
            tuple(sorted(leases, key=lambda x: x.lease_id)),
            2 * int(one.tier is not Tier.SPOT) + int(not borrows),
            level(one.tier, one.priority),
            lost,
            cost,
            milli,
            max(x.notice_ms for x in leases),
            max(x.worked_ms for x in leases),
            max(x.evictions for x in leases),
        )


@dataclass(frozen=True, slots=True)
class Found:
    """Victims, what they cost, and how many members go to which node."""

    cost: int
    victims: tuple[Victim, ...]
    places: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class _Option:
    """Room for so many members of a node, and whose end makes it."""

    count: int
    cost: int
    victims: tuple[int, ...]


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


def cheapest(
    tasks: int, way: Way, rooms: Mapping[str, Slack], pool: Sequence[Victim]
) -> Found | None:
    """The victims to take from the pool, or None if not even all of it makes room."""
    search = _Search(tasks, way, rooms, pool)
    chosen = search.best()
    return None if chosen is None else search.least(chosen)


class _Search:
    """One group of nodes, one way to use them, one pool."""

    def __init__(
        self, tasks: int, way: Way, rooms: Mapping[str, Slack], pool: Sequence[Victim]
    ) -> None:
        self.tasks, self.way, self.rooms, self.pool = tasks, way, rooms, pool
        self.gains: list[dict[str, _Vector]] = [_gains(x, way, rooms) for x in pool]
        self.singles: dict[str, list[int]] = {name: [] for name in rooms}
        self.spanning: list[int] = []
        for at, gain in enumerate(self.gains):
            if len(gain) == 1:
                self.singles[next(iter(gain))].append(at)
            elif gain:
                self.spanning.append(at)
        self.spanning.sort(key=lambda x: (self._dearness(x), self.pool[x].job))
        self._known: dict[tuple[str, tuple[int, ...]], tuple[_Option, ...]] = {}
        self._near = self._cheap_nodes()

    def best(self) -> tuple[int, ...] | None:
        """The cheapest set found, as places in the pool."""
        if len(self.spanning) <= _SPANNING_EXACT:
            sets: list[tuple[int, ...]] = [
                given
                for many in range(len(self.spanning) + 1)
                for given in combinations(self.spanning, many)
            ]
            return self._best_of(sets)
        return self._climbed()

    def least(self, chosen: Sequence[int]) -> Found:
        """A set without those that it can do without, the dearest dropped first."""
        kept = list(chosen)
        for at in sorted(chosen, key=lambda x: (-self.pool[x].cost, self.pool[x].job)):
            rest = [x for x in kept if x != at]
            if self._holds(rest):
                kept = rest
        victims = tuple(sorted((self.pool[x] for x in kept), key=lambda x: x.job))
        return Found(sum(x.cost for x in victims), victims, self._places(kept))

    def _best_of(self, sets: Iterable[tuple[int, ...]]) -> tuple[int, ...] | None:
        best_cost, best = -1, None
        for given in sorted(sets, key=self._cost):
            if best is not None and self._cost(given) >= best_cost:
                break
            found = self._filled(given, exact=True)
            if found is not None and (best is None or found[0] < best_cost):
                best_cost, best = found
        return best

    def _climbed(self) -> tuple[int, ...] | None:
        """By single steps from what is feasible at first."""
        tried = self.spanning[:_SPANNING_TRIED]
        given: tuple[int, ...] = ()
        found = self._filled(given, exact=False)
        for at in self.spanning:
            if found is not None:
                break
            given = (*given, at)
            found = self._filled(given, exact=False)
        if found is None:
            return None
        for _ in range(_ROUNDS):
            steps = [tuple(sorted({*given} ^ {at})) for at in sorted({*tried, *given})]
            answers = [(self._filled(step, exact=False), step) for step in steps]
            better = [(x[0], step) for x, step in answers if x is not None and x[0] < found[0]]
            if not better:
                break
            _, given = min(better)
            found = self._filled(given, exact=False)
            assert found is not None
        exact = self._filled(given, exact=True)
        return exact[1] if exact is not None else found[1]

    def _filled(self, given: tuple[int, ...], *, exact: bool) -> tuple[int, tuple[int, ...]] | None:
        """Cost and set, once the given victims on several nodes are gone."""
        touched = {name for at in given for name in self.gains[at]}
        names = [*self._near, *sorted(touched.difference(self._near))]
        lists = []
        for name in names:
            mine = tuple(x for x in given if name in self.gains[x])
            options = self._options(name, mine)
            if options:
                lists.append(options)
        work = sum(map(len, lists)) * self.tasks
        fill = _knapsack if exact or work <= _EXACT_WORK else _estimate
        found = fill(self.tasks, lists)
        if found is None:
            return None
        return found[0] + self._cost(given), (*given, *found[1])

    def _options(self, name: str, given: tuple[int, ...]) -> tuple[_Option, ...]:
        """What a node offers: ever more members at ever higher cost."""
        key = (name, given)
        if key not in self._known:
            base = _free(self.rooms[name], self.way)
            for at in given:
                base = _plus(base, self.gains[at][name])
            self._known[key] = self._listed(name, base)
        return self._known[key]

    def _listed(self, name: str, base: _Vector) -> tuple[_Option, ...]:
        singles = self.singles[name]
        best: dict[int, tuple[int, tuple[int, ...]]] = {}
        for victims, free in self._subsets(name, singles, base):
            count = min(self.tasks, _count(self.way, free))
            cost = self._cost(victims)
            if count and (count not in best or cost < best[count][0]):
                best[count] = (cost, victims)
        options: list[_Option] = []
        for count in sorted(best, reverse=True):
            cost, victims = best[count]
            if not options or cost < options[-1].cost:
                options.append(_Option(count, cost, victims))
        return tuple(reversed(options))

    def _subsets(
        self, name: str, singles: list[int], base: _Vector
    ) -> Iterable[tuple[tuple[int, ...], _Vector]]:
        if len(singles) <= _EVERY_SUBSET:
            sets: list[tuple[tuple[int, ...], _Vector]] = [((), base)]
            for at in singles:
                gain = self.gains[at][name]
                sets += [((*victims, at), _plus(free, gain)) for victims, free in sets]
            return sets
        order = sorted(singles, key=lambda x: (self._dearness(x), self.pool[x].job))
        found: list[tuple[tuple[int, ...], _Vector]] = [((), base)]
        for at in order:
            victims, free = found[-1]
            found.append(((*victims, at), _plus(free, self.gains[at][name])))
        return found

    def _cheap_nodes(self) -> list[str]:
        """The nodes worth a list: those with room already, then those with the cheapest devices."""
        most = 2 * self.tasks + 32
        if len(self.rooms) <= most:
            return list(self.rooms)
        keyed = []
        for name, room in self.rooms.items():
            cost = 0
            if not members(self.way, room):
                cost = min((self._dearness(x) for x in self.singles[name]), default=-1)
            if cost >= 0:
                keyed.append((cost, name))
        return [name for _, name in heapq.nsmallest(most, keyed)]

    def _dearness(self, at: int) -> int:
        """Cost for each device that it would free here."""
        freed = sum(x[0] if self.way.devices else x[1] for x in self.gains[at].values())
        return self.pool[at].cost // max(1, freed)

    def _cost(self, given: Iterable[int]) -> int:
        return sum(self.pool[x].cost for x in given)

    def _rooms_after(self, chosen: Sequence[int]) -> dict[str, int]:
        gone: dict[str, _Vector] = {}
        for at in chosen:
            for name, gain in self.gains[at].items():
                before = gone.get(name) or _free(self.rooms[name], self.way)
                gone[name] = _plus(before, gain)
        return {
            name: _count(self.way, gone.get(name) or _free(room, self.way))
            for name, room in self.rooms.items()
        }

    def _holds(self, chosen: Sequence[int]) -> bool:
        return sum(self._rooms_after(chosen).values()) >= self.tasks

    def _places(self, chosen: Sequence[int]) -> tuple[tuple[str, int], ...]:
        order = sorted((-count, name) for name, count in self._rooms_after(chosen).items())
        left, places = self.tasks, []
        for count, name in order:
            if left and count:
                places.append((name, min(left, -count)))
                left -= places[-1][1]
        return tuple(places)


def _knapsack(
    tasks: int, lists: Sequence[tuple[_Option, ...]]
) -> tuple[int, tuple[int, ...]] | None:
    """The cheapest choice of at most one option a node that holds all members: exact."""
    best: list[tuple[int, _Chain] | None] = [None] * (tasks + 1)
    best[0] = (0, _Chain(None, ()))
    for options in lists:
        after = best.copy()
        for held in range(tasks):
            before = best[held]
            if before is None:
                continue
            for option in options:
                now = min(tasks, held + option.count)
                cost = before[0] + option.cost
                there = after[now]
                if there is None or cost < there[0]:
                    after[now] = (cost, _Chain(before[1], option.victims))
        best = after
    found = best[tasks]
    return None if found is None else (found[0], found[1].all())


def _estimate(
    tasks: int, lists: Sequence[tuple[_Option, ...]]
) -> tuple[int, tuple[int, ...]] | None:
    """The same, by the cheapest next member: never too low, and quick."""
    heap: list[tuple[int, int, int, int]] = []
    held = [_Option(0, 0, ())] * len(lists)

    def offer(at: int) -> None:
        now = held[at]
        steps = [
            ((x.cost - now.cost) // (x.count - now.count), -x.count, at, to)
            for to, x in enumerate(lists[at])
            if x.count > now.count
        ]
        if steps:
            heapq.heappush(heap, min(steps))

    for at in range(len(lists)):
        offer(at)
    left = tasks
    while left > 0:
        if not heap:
            return None
        _, _, at, to = heapq.heappop(heap)
        left -= lists[at][to].count - held[at].count
        held[at] = lists[at][to]
        offer(at)
    return sum(x.cost for x in held), tuple(at for x in held for at in x.victims)


def _gains(victim: Victim, way: Way, rooms: Mapping[str, Slack]) -> dict[str, _Vector]:
    """What comes free of which node if it ends."""
    found: dict[str, _Vector] = {}
    for lease in victim.leases:
        if lease.node_id in rooms:
            holds = lease.allocation
            many = len(holds.device_ids) if holds.chip == way.chip else 0
            gain = (many, holds.cpu_milli, holds.memory_bytes, holds.disk_bytes)
            found[lease.node_id] = _plus(found.get(lease.node_id, (0, 0, 0, 0)), gain)
    return found


def _free(room: Slack, way: Way) -> _Vector:
    return (room.devices.get(way.chip, 0), room.cpu_milli, room.memory_bytes, room.disk_bytes)


def _plus(one: _Vector, other: _Vector) -> _Vector:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3])


def _count(way: Way, free: _Vector) -> int:
    """How many members there is room for."""
    asked = (way.devices, way.cpu_milli, way.memory_bytes, way.disk_bytes)
    return max(0, min((x // y for x, y in zip(free, asked, strict=True) if y), default=0))
