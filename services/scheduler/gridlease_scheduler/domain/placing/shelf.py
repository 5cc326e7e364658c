"""Where one member of a shape may go, cheapest state first, and how many fit in a rack.

A ``Shelf`` belongs to one shape, one chip and the kinds of nodes that will do; jobs with the same
share it, whatever else tells them apart. It reads the index's logs: nothing is looked at again
that has not moved since.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from gridlease_scheduler.domain.job import Allocation

from .index import Host, Index, Pool, Shape, State

RACK, RAIL, SITE = range(3)
_FEW = 48  # states that are looked through one by one
_LOOKED = 400  # states of all its kinds, up to which a shelf tries to
_MANY = 4_096  # members of a shape that takes nothing; no gang is larger


@dataclass(slots=True, eq=False)
class Shelf:
    """See above. ``kinds``: serial numbers."""

    index: Index
    chip: str
    shape: Shape
    kinds: frozenset[int]
    pool: Pool = field(init=False)
    fits: dict[State, int] = field(default_factory=dict)
    tables: dict[int, Table] = field(default_factory=dict)
    allocations: dict[object, Allocation] = field(default_factory=dict)  # known ones, by devices
    prices: dict[State, float] = field(default_factory=dict)
    _heap: list[tuple[float, tuple[object, ...], State]] = field(default_factory=list)
    _inside: set[State] = field(default_factory=set)
    largest: int = 0  # devices of the chip on one node
    _few: list[State] | None = field(default_factory=list)
    _seen: int = -1
    _read: int = -1
    _lesson: int = -1
    _several: dict[int, Shelf] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pool = self.index.pools[self.chip]
        likes = (x.like for x in self.index.kinds.values() if x.serial in self.kinds)
        for like in likes if self.chip else ():
            count = sum(device.chip == self.chip for device in like.devices)
            self.largest = max(self.largest, count)

    def fit(self, state: State) -> int:
        """How many members one node in this state holds."""
        found = self.fits.get(state)
        if found is None:
            found = self.fits[state] = self._fit(state)
        return found

    def _fit(self, state: State) -> int:
        if state.kind.serial not in self.kinds:
            return 0
        shape, most = self.shape, _MANY
        if shape.devices:
            most = state.free[self.at(state)] // shape.devices
        for wanted, left in (
            (shape.cpu_milli, state.cpu_milli),
            (shape.memory_bytes, state.memory_bytes),
            (shape.disk_bytes, state.disk_bytes),
            (shape.mbps, state.mbps),
        ):
            if wanted:
                most = min(most, left // wanted)
        return max(0, most)

    def at(self, state: State) -> int:
        """The place of the shelf's chip among those of the state's kind; 0 for CPUs."""
        return state.kind.chips.index(self.chip) if self.chip else 0

    def price(self, state: State) -> float:
        """What it costs the fleet to put one member on a node in this state."""
        found = self.prices.get(state)
        if found is None:
            shape, index = self.shape, self.index
            after = state.after.get(shape)
            if after is None:
                after = state.after[shape] = index.without(state, self.at(state), shape)
            chips = (self.chip,) if self.chip else state.kind.chips
            found = sum((index.cost(chip, after) - index.cost(chip, state) for chip in chips), 0.0)
            self.prices[state] = found
        return found

    def learn(self, hosts: Iterable[Host]) -> None:
        """Note fits and prices of the states of these hosts."""
        for host in hosts:
            if self.fit(host.state):
                self.price(host.state)

    def best(self) -> State | None:
        """The cheapest state that holds a member; None = there is no room."""
        index = self.index
        few = self._few
        if self._lesson != index.lesson or (few is not None and self._seen != index.made):
            few = self._look()
        if few is not None:
            for state in few:
                if state.count:
                    return state
            return None
        pool = self.pool
        if self._read != pool.born_start + len(pool.born):
            self._catch_up()
        heap = self._heap
        while heap:
            state = heap[0][2]
            if state.count:
                return state
            heappop(heap)
            self._inside.discard(state)
        return None

    def several(self, members: int) -> Shelf:
        """The shelf of so many members on one host."""
        found = self._several.get(members)
        if found is None:
            shape = self.shape
            found = self._several[members] = shelf(
                self.index, self.chip, self.kinds,
                shape.devices * members, shape.cpu_milli * members, shape.memory_bytes * members,
                shape.disk_bytes * members, shape.mbps * members,
            )  # fmt: skip
        return found

    def table(self, level: int) -> Table:
        """How many members fit in each rack (rail, site), now."""
        found = self.tables.get(level)
        if found is None:
            found = self.tables[level] = Table(self, level)
            self.pool.followed = True
        found.catch_up()
        return found

    def _look(self) -> list[State] | None:
        """States were made, or prices learned: as long as there are few, a sorted list is best."""
        index = self.index
        if self._lesson != index.lesson:
            self.prices.clear()
            self._lesson, self._read = index.lesson, -1
        self._seen, self._few = index.made, None
        if sum(len(index.of_kind[serial]) for serial in self.kinds) <= _LOOKED:
            mine = [x for serial in self.kinds for x in index.of_kind[serial] if self.fit(x)]
            if len(mine) <= _FEW:
                self._few = sorted(mine, key=lambda x: (self.price(x), x.sort))
        return self._few

    def _catch_up(self) -> None:
        pool, index = self.pool, self.index
        end = pool.born_start + len(pool.born)
        if self._read < pool.born_start:
            self._inside = {x for x in index.states.values() if x.count and self.fit(x)}
            self._heap = [(self.price(x), x.sort, x) for x in self._inside]
            heapify(self._heap)
        else:
            inside = self._inside
            for state in pool.born[self._read - pool.born_start :]:
                if state.count and state not in inside and self.fit(state):
                    inside.add(state)
                    heappush(self._heap, (self.price(state), state.sort, state))
        self._read = end


@dataclass(slots=True, eq=False)
class Table:
    """Room for one shape by group: bit n of ``some`` is set where a group holds n members."""

    of: Shelf
    level: int
    room: list[int] = field(default_factory=list)
    some: int = 0
    total: int = 0
    _groups: dict[int, list[int]] = field(default_factory=dict)  # heaps; stale ones are skipped
    _count: dict[int, int] = field(default_factory=dict)
    _read: int = -1

    def tightest(self, members: int) -> int | None:
        """The group with the least room that holds them all, the first of equals."""
        above = self.some >> members
        if not above:
            return None
        return self._first(members + (above & -above).bit_length() - 1)

    def widest(self) -> int | None:
        """The group with the most room; None = there is none anywhere."""
        return self._first(self.some.bit_length() - 1) if self.some else None

    def _first(self, room: int) -> int:
        heap = self._groups[room]
        while self.room[heap[0]] != room:
            heappop(heap)
        return heap[0]

    def catch_up(self) -> None:
        """Read what moved since the last time."""
        pool = self.of.pool
        end = pool.moved_start + len(pool.moved)
        if self._read == end:
            return
        groups = len(self.of.index.members[self.level])
        if self._read < pool.moved_start or end - self._read > 2 * len(pool.hosts):
            self._anew(groups)
        else:
            self.room.extend([0] * (groups - len(self.room)))
            self._follow(pool.moved[self._read - pool.moved_start :])
        self._read = end

    def _anew(self, groups: int) -> None:
        fits, level = self.of.fits, self.level
        self.room, self.some, self.total = [0] * groups, 0, 0
        self._groups, self._count = {}, {}
        room = [0] * groups
        for host in self.of.pool.hosts.values():
            many = fits.get(host.state)
            room[host.groups[level]] += self.of.fit(host.state) if many is None else many
        for group, each in enumerate(room):
            if each:
                self._set(group, each)

    def _follow(self, moved: list[tuple[Host, State | None, State | None]]) -> None:
        fits, level = self.of.fits, self.level
        change: dict[int, int] = {}
        for host, before, after in moved:
            was = 0 if before is None else fits.get(before)
            now = 0 if after is None else fits.get(after)
            if was is None:
                assert before is not None
                was = self.of.fit(before)
            if now is None:
                assert after is not None
                now = self.of.fit(after)
            if was != now:
                group = host.groups[level]
                change[group] = change.get(group, 0) + now - was
        for group, each in change.items():
            if each:
                self._set(group, self.room[group] + each)

    def _set(self, group: int, room: int) -> None:
        before = self.room[group]
        count = self._count
        if before:
            count[before] -= 1
            if not count[before]:
                self.some &= ~(1 << before)
                del self._groups[before]
        self.room[group] = room
        self.total += room - before
        if room:
            count[room] = count.get(room, 0) + 1
            if count[room] == 1:
                self.some |= 1 << room
                self._groups[room] = [group]
            else:
                heappush(self._groups[room], group)


def shelf(
    index: Index, chip: str, kinds: frozenset[int],
    devices: int, cpu_milli: int, memory_bytes: int, disk_bytes: int, mbps: int,
) -> Shelf:  # fmt: skip
    """The one shelf of these amounts and kinds."""
    key = (chip, kinds, devices, cpu_milli, memory_bytes, disk_bytes, mbps)
    found = index.shelves.get(key)
    if found is None:
        shape = Shape(devices, cpu_milli, memory_bytes, disk_bytes, mbps)
        found = index.shelves[key] = Shelf(index, chip, shape, kinds)
    assert isinstance(found, Shelf)
    return found
