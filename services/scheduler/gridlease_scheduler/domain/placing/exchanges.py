"""May two or three devices be divided anew among those who share them, so that one more fits?

Where a share fits nowhere, not even once others have left for places that are free, the rests of
some devices together may still hold it: one gives up a share, another takes it and gives up one of
its own. Devices with the same shares are alike, so it is enough to look at kinds of devices. What
is lost is the worth of the rests before, less that after (``prices.rest_values``): rests that
would be filled anyway are not broken up for little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations_with_replacement, islice, product
from operator import itemgetter

from .fragmentation import WHOLE, Request
from .packing import Fleet
from .prices import CELLS

_SIZES = (2, 3)  # devices divided anew at once; the fewest that do
_MOST_MOVES = 4  # of one exchange
_MOST_LOST = 0.26  # of the worth of rests, in devices
_KEPT = 2  # divisions of one set of kinds
_TRIES = 300  # sets of devices looked at for one division

Kind = tuple[int, ...]  # the shares on a device, in thousandths, ascending
Device = tuple[int, int]  # node and index
Seating = tuple[tuple[int, ...], int]  # for each share, and for the newcomer, which device it gets


@dataclass(frozen=True, slots=True)
class Division:
    """Which device each share goes to, what that loses, and how many move."""

    lost: float
    moves: int
    seating: Seating


@dataclass(frozen=True, slots=True)
class Exchange:
    """(name, request, from, to) of all who move, the newcomer's device, and what is lost."""

    moves: tuple[tuple[str, Request, Device, Device], ...]
    place: Device
    lost: float


@dataclass(slots=True)
class Exchanger:
    """Finds exchanges; keeps the devices by kind, and what was divided or failed before.

    What failed is tried again only with kinds of devices that were not there before.
    """

    fleet: Fleet
    _read: int | None = None
    _kinds: dict[Device, Kind] = field(default_factory=dict)
    _sharers: dict[Device, tuple[tuple[int, str, Request], ...]] = field(default_factory=dict)
    _devices: dict[Kind, dict[Device, None]] = field(default_factory=dict)
    _divided: dict[tuple[tuple[Kind, ...], int], tuple[Division, ...]] = field(default_factory=dict)
    _failed: dict[tuple[Request, int], frozenset[Kind]] = field(default_factory=dict)
    _lesson: int = 0

    def find(self, request: Request, budget: int) -> Exchange | None:
        """The exchange that loses least and makes room for the request, if there is one.

        Args:
            request: Fits nowhere; only a share of one device can be helped.
            budget: Moves at most.
        """
        if request.devices != 1 or request.device_milli >= WHOLE:
            return None
        self._catch_up()
        for size in _SIZES:
            # Three devices only where all are shared: with one alone there is little to exchange.
            # One that has room by itself lacks CPUs, not order.
            kinds = [
                kind
                for kind in sorted(self._devices)
                if sum(kind) > WHOLE - request.device_milli and (size == 2 or len(kind) > 1)
            ]
            now = frozenset(kinds)
            fresh = now - self._failed.get((request, size), frozenset())
            found = self._of_kinds(request, kinds, fresh, size, budget) if fresh else None
            if found is not None:
                return found
            self._failed[request, size] = now
        return None

    def _catch_up(self) -> None:
        """Sort the devices of changed nodes by kind; forget what older lessons taught."""
        if self._lesson != self.fleet.lesson:
            self._lesson = self.fleet.lesson
            self._divided.clear()
            self._failed.clear()
        changed = range(len(self.fleet.rooms))
        nodes = changed if self._read is None else sorted(set(self.fleet.changed[self._read :]))
        self._read = len(self.fleet.changed)
        for node in nodes:
            for index in range(len(self.fleet.rooms[node].free)):
                self._sort((node, index))

    def _sort(self, device: Device) -> None:
        """Keep the device under its kind; one that somebody has whole is under none."""
        node, index = device
        residents = self.fleet.residents[node].items()
        sharers = [
            (each.device_milli, name, each) for name, (each, taken) in residents if index in taken
        ]
        sharers.sort(key=itemgetter(0, 1))
        self._sharers[device] = tuple(sharers)
        kind = tuple(milli for milli, _, _ in sharers)
        old = self._kinds.get(device)
        if kind == old:
            return
        if old is not None and old in self._devices:
            self._devices[old].pop(device, None)
            if not self._devices[old]:
                del self._devices[old]
        self._kinds[device] = kind
        if not kind or kind[-1] < WHOLE:
            self._devices.setdefault(kind, {})[device] = None

    def _of_kinds(
        self, request: Request, kinds: list[Kind], fresh: frozenset[Kind], size: int, budget: int
    ) -> Exchange | None:
        """The best exchange between so many devices, at least one of them of a fresh kind."""
        found: list[tuple[float, int, tuple[Kind, ...], Seating]] = []
        most = size * WHOLE - request.device_milli
        for group in combinations_with_replacement(kinds, size):
            if sum(map(sum, group)) <= most and not fresh.isdisjoint(group):
                found += (
                    (each.lost, each.moves, group, each.seating)
                    for each in self._divisions(group, request.device_milli)
                    if each.moves <= budget
                )
        for lost, _, group, seating in sorted(found):
            for devices in islice(self._sets(group), _TRIES):
                moves = self._moves(request, devices, seating)
                if moves is not None:
                    return Exchange(moves, devices[seating[1]], lost)
        return None

    def _sets(self, group: tuple[Kind, ...]) -> Iterator[tuple[Device, ...]]:
        """Devices of these kinds, each on another node."""
        for devices in product(*(tuple(self._devices[kind]) for kind in group)):
            if len({node for node, _ in devices}) == len(devices):
                yield devices

    def _divisions(self, group: tuple[Kind, ...], milli: int) -> tuple[Division, ...]:
        """The ways to divide devices of these kinds that lose least."""
        known = self._divided.get((group, milli))
        if known is None:
            rest = self.fleet.ahead.rest
            before = sum(rest[(WHOLE - sum(kind)) * CELLS // WHOLE] for kind in group)
            best: dict[tuple[float, int], Seating] = {}
            for seating, moves, free in _seatings(group, milli):
                lost = round(before - sum(rest[each * CELLS // WHOLE] for each in free), 6)
                if moves and lost <= _MOST_LOST:
                    best.setdefault((lost, moves), seating)
            ways = sorted(best.items(), key=itemgetter(0))[:_KEPT]
            known = tuple(Division(lost, moves, seating) for (lost, moves), seating in ways)
            self._divided[group, milli] = known
        return known

    def _moves(
        self, request: Request, devices: tuple[Device, ...], seating: Seating
    ) -> tuple[tuple[str, Request, Device, Device], ...] | None:
        """Who moves, or None: CPUs, memory or chips do not allow it."""
        rooms = [self.fleet.rooms[node] for node, _ in devices]
        cpu, memory = [room.cpu_milli for room in rooms], [room.memory_mib for room in rooms]
        if sum(cpu) < request.cpu_milli or sum(memory) < request.memory_mib:
            return None  # the most frequent reason, where CPUs are scarce
        coming = [(request, seating[1])]
        moves = []
        targets = iter(seating[0])
        for i, device in enumerate(devices):
            for _, name, each in self._sharers[device]:
                to = next(targets)
                if to != i:
                    cpu[i], memory[i] = cpu[i] + each.cpu_milli, memory[i] + each.memory_mib
                    coming.append((each, to))
                    moves.append((name, each, device, devices[to]))
        for each, to in coming:
            if each.chips and rooms[to].chip not in each.chips:
                return None
            cpu[to], memory[to] = cpu[to] - each.cpu_milli, memory[to] - each.memory_mib
        return None if min(*cpu, *memory) < 0 else tuple(moves)


def _seatings(
    group: tuple[Kind, ...], milli: int
) -> Iterator[tuple[Seating, int, tuple[int, ...]]]:
    """Every way to seat all shares and the newcomer: (who goes where, moves, what stays free)."""
    shares = [(each, i) for i, kind in enumerate(group) for each in kind]
    order = sorted(range(len(shares)), key=lambda i: -shares[i][0])  # large ones first
    free = [WHOLE] * len(group)
    seats = [0] * len(shares)

    def seated(rank: int, moved: int) -> Iterator[int]:
        if moved > _MOST_MOVES:
            return
        if rank == len(order):
            yield moved
            return
        each, at = shares[order[rank]]
        for target in range(len(group)):
            if free[target] >= each:
                free[target] -= each
                seats[order[rank]] = target
                yield from seated(rank + 1, moved + (target != at))
                free[target] += each

    for place in range(len(group)):
        free[place] -= milli
        for moved in seated(0, 0):
            yield (tuple(seats), place), moved, tuple(free)
        free[place] += milli
