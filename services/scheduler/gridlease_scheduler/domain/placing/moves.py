"""May moving a few others make room for a request that fits nowhere? All or nothing.

A plan ejects residents from one node, each to its cheapest place on another, so that the request
fits there. On each node one resident is tried, then two, then the cheapest that do when more must
leave. Among the plans for all nodes the one that costs the fleet least wins; for a request without
devices it must also be cheap, as CPUs given to it are lost to devices that idle beside them. Nodes
only fill up between moves, so a node that could not be cleared for a request is looked at again
only once it has changed, and every node once a move was made. Where no plan is found, devices may
still be divided anew among those who share them (``exchanges``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, islice
from math import inf

from .exchanges import Exchange, Exchanger
from .fragmentation import WHOLE, Request, Room, given_back
from .packing import Fleet, Spot

_MOST_SETS = 60  # sets of one or two residents looked at on one node
_A_MOVE = 0.1  # what a move is taken to cost, in devices, when several must free CPUs together


@dataclass(frozen=True, slots=True)
class Move:
    """One resident that goes to another place."""

    name: str
    request: Request
    origin: int
    spot: Spot


@dataclass(frozen=True, slots=True)
class Repair:
    """The moves that make room, the place that they make, and the price of it all."""

    moves: tuple[Move, ...]
    spot: Spot
    price: float


@dataclass(frozen=True, slots=True)
class _Way:
    """Residents of a node, and its room without them."""

    names: tuple[str, ...]
    requests: tuple[Request, ...]
    room: Room


@dataclass(slots=True)
class Mover:
    """Plans moves within a budget of moves per arrival; 0 = never.

    Attributes:
        most_moves: Residents that one repair may move.
        core_worth: What room may cost for a request without devices, in devices a core; 0 = none
            is made for it. The higher, the fewer of those are turned away, and the more devices
            stay idle for want of CPUs.
    """

    fleet: Fleet
    per_arrival: float
    most_moves: int = 8
    core_worth: float = 0.02
    made: int = 0
    _exchanger: Exchanger = field(init=False)
    _failed: dict[Request, tuple[int, int]] = field(default_factory=dict)
    _known: dict[tuple[int, int], tuple[Room, tuple[_Way, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._exchanger = Exchanger(self.fleet)

    def left(self) -> int:
        """How many moves the arrivals so far still allow."""
        return int(self.per_arrival * self.fleet.arrived) - self.made

    def repair(self, request: Request) -> Repair | None:
        """The cheapest way to make room for a request that fits nowhere, if there is one."""
        budget = min(self.left(), self.most_moves)
        limit = inf if request.devices else self.core_worth * request.cpu_milli / 1_000
        if budget <= 0 or limit <= 0:
            return None
        best: Repair | None = None
        for node in self._worth_a_look(request):
            for way in self._ways(request, node, budget):
                found = self._plan(request, node, way, best.price if best else limit)
                if found is not None:
                    best = found
        if best is None:
            self._failed[request] = (len(self.fleet.changed), self.made)
            exchange = self._exchanger.find(request, budget)
            return None if exchange is None else _repair(exchange)
        return best

    def apply(self, name: str, request: Request, repair: Repair) -> None:
        """Carry it out: residents leave first, then all sit down."""
        for move in repair.moves:
            self.fleet.take(move.name, move.origin)
        self.fleet.put(name, request, repair.spot.node, repair.spot.taken)
        for move in repair.moves:
            self.fleet.put(move.name, move.request, move.spot.node, move.spot.taken)
        self.made += len(repair.moves)

    def _worth_a_look(self, request: Request) -> Iterator[int]:
        """Nodes that may have become clearable since the last failure, in the fixed order."""
        failed = self._failed.get(request)
        nodes: list[int] | range = range(len(self.fleet.rooms))
        if failed is not None and failed[1] == self.made:
            nodes = sorted(set(self.fleet.changed[failed[0] :]))
        for node in nodes:
            room = self.fleet.rooms[node]
            if len(room.free) >= request.devices and room.chip in (request.chips or (room.chip,)):
                yield node

    def _ways(self, request: Request, node: int, budget: int) -> Iterator[_Way]:
        """Sets of residents without which the request fits on the node: no more than it takes."""
        for size in range(1, min(budget, 2) + 1):
            enough = [way for way in self._emptied(node, size) if _holds(request, way.room)]
            if enough:
                yield from enough
                return
        if budget > 2:
            way = self._cleared(request, node, budget)
            if way is not None:
                yield way

    def _emptied(self, node: int, size: int) -> tuple[_Way, ...]:
        """The node without one or two residents; of those that are alike, one stands for all."""
        room = self.fleet.rooms[node]
        known = self._known.get((node, size))
        if known is not None and known[0] is room:
            return known[1]
        alike: dict[object, _Way] = {}
        residents = self.fleet.residents[node].items()
        for each in islice(combinations(residents, size), _MOST_SETS):
            emptier, kind = room, []
            for _, (request, taken) in each:
                emptier = given_back(request, emptier, taken)
                kind.append(request)
            way = _Way(tuple(name for name, _ in each), tuple(kind), emptier)
            alike.setdefault((way.requests, tuple(sorted(emptier.free))), way)
        ways = tuple(alike.values())
        self._known[node, size] = (room, ways)
        return ways

    def _cleared(self, request: Request, node: int, budget: int) -> _Way | None:
        """The node without the cheapest residents that must leave, one device after the other."""
        room = self.fleet.rooms[node]
        staying = dict(self.fleet.residents[node])
        names: list[str] = []
        requests: list[Request] = []
        while not _holds(request, room):
            leaving = self._cheapest(request, room, staying)
            if not leaving or len(names) + len(leaving) > budget:
                return None
            for name in leaving:
                each, taken = staying.pop(name)
                room = given_back(each, room, taken)
                names.append(name)
                requests.append(each)
        return _Way(tuple(names), tuple(requests), room)

    def _cheapest(
        self,
        request: Request,
        room: Room,
        staying: Mapping[str, tuple[Request, tuple[int, ...]]],
    ) -> list[str]:
        """Who leaves next: all of one device while devices are missing, else one with CPUs."""
        least = {name: self.fleet.least(each) for name, (each, _) in staying.items()}
        if request.device_milli == WHOLE and room.free.count(WHOLE) < request.devices:
            on: dict[int, list[str]] = {}
            for name, (_, taken) in staying.items():
                for device in taken:
                    on.setdefault(device, []).append(name)
            names = min(on.values(), key=lambda each: sum(map(least.__getitem__, each)), default=[])
            return names if all(least[name] < inf for name in names) else []
        missing = (request.cpu_milli - room.cpu_milli, request.memory_mib - room.memory_mib)

        def rate(name: str) -> float:
            each, taken = staying[name]
            brought = min(each.cpu_milli, missing[0]), min(each.memory_mib, missing[1])
            gain = brought[0] / 1_000 if missing[0] > 0 else brought[1] / 4_096
            lost = least[name] + self.fleet.cost(given_back(each, room, taken))
            price = max(0.0, lost - self.fleet.cost(room)) + _A_MOVE
            return price / gain if gain > 0 else inf

        best = min(staying, key=rate, default=None)
        return [best] if best is not None and max(missing) > 0 and rate(best) < inf else []

    def _plan(self, request: Request, node: int, way: _Way, below: float) -> Repair | None:
        """Eject these, place the request, then each ejected one elsewhere, if for less."""
        if any(self.fleet.least(each) == inf for each in way.requests):
            return None
        own, taken = self.fleet.quote(request, way.room)
        price = own + self.fleet.cost(way.room) - self.fleet.cost(self.fleet.rooms[node])
        moves: list[Move] = []
        used = {node}
        for name, each in zip(way.names, way.requests, strict=True):
            if price + self.fleet.least(each) >= below:
                return None
            spot = self._elsewhere(each, used)
            if spot is None or price + spot.price >= below:
                return None
            used.add(spot.node)
            price += spot.price
            moves.append(Move(name, each, node, spot))
        return Repair(tuple(moves), Spot(node, taken, own), price)

    def _elsewhere(self, request: Request, used: set[int]) -> Spot | None:
        """The cheapest place outside some nodes."""
        prices = self.fleet.prices(request)
        least = self.fleet.least(request)
        node = prices.index(least)
        if node in used:
            least, node = min((price, i) for i, price in enumerate(prices) if i not in used)
        if least == inf:
            return None
        return Spot(node, self.fleet.quote(request, self.fleet.rooms[node])[1], least)


def _repair(exchange: Exchange) -> Repair:
    """The exchange as a plan: what it loses is the price of the newcomer's place."""
    moves = tuple(
        Move(name, request, origin, Spot(node, (device,), 0.0))
        for name, request, (origin, _), (node, device) in exchange.moves
    )
    node, device = exchange.place
    return Repair(moves, Spot(node, (device,), exchange.lost), exchange.lost)


def _holds(request: Request, room: Room) -> bool:
    """Is there room for it?"""
    if request.cpu_milli > room.cpu_milli or request.memory_mib > room.memory_mib:
        return False
    if request.devices < 2:
        return max(room.free) >= request.device_milli
    return room.free.count(WHOLE) >= request.devices
