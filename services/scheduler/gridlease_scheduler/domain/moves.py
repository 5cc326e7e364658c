"""May moving one or two others make room for a request that fits nowhere? All or nothing.

A plan ejects residents from one node, each to its cheapest other place, so that the request fits
there. Among the plans for all nodes the one that costs the fleet least wins. Nodes only fill up
between moves, so a node that could not be cleared for a request is looked at again only once it has
changed, and every node once a move was made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from math import inf

from .fragmentation import Request, given_back
from .packing import Fleet, Spot

_MOST_PAIRS = 60  # pairs of residents looked at on one node


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


@dataclass(slots=True)
class Mover:
    """Plans moves within a budget of moves per arrival; 0 = never.

    Attributes:
        worst: The highest price, in devices, that a repair may cost the fleet beyond what it
            brings.
    """

    fleet: Fleet
    per_arrival: float
    most_moves: int = 2
    for_cpus_alone: bool = False
    made: int = 0
    _failed: dict[Request, tuple[int, int]] = field(default_factory=dict)

    def left(self) -> int:
        """How many moves the arrivals so far still allow."""
        return int(self.per_arrival * self.fleet.arrived) - self.made

    def repair(self, request: Request) -> Repair | None:
        """The cheapest way to make room for a request that fits nowhere, if there is one."""
        budget = min(self.left(), self.most_moves)
        if budget <= 0 or not (request.devices or self.for_cpus_alone):
            return None
        best: Repair | None = None
        for node in self._worth_a_look(request):
            for names in self._victims(request, node, budget):
                found = self._plan(request, node, names, best.price if best else inf)
                if found is not None:
                    best = found
        if best is None:
            self._failed[request] = (len(self.fleet.changed), self.made)
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
            if (not request.chips or room.chip in request.chips) and len(
                room.free
            ) >= request.devices:
                yield node

    def _victims(self, request: Request, node: int, budget: int) -> Iterator[tuple[str, ...]]:
        """Sets of residents, equal ones once, without which the request fits on the node."""
        residents = self.fleet.residents[node]
        room = self.fleet.rooms[node]
        kinds: dict[object, str] = {}
        for name, (each, taken) in residents.items():
            free = tuple(room.free[i] for i in taken)
            key = (each, free if each.devices == 1 else taken)
            kinds.setdefault(key, name)
        singles = list(kinds.values())
        alone = [name for name in singles if self._fits_without(request, node, (name,))]
        for name in alone:
            yield (name,)
        if budget < 2 or alone:
            return
        looked = 0
        for pair in combinations(residents, 2):
            looked += 1
            if looked > _MOST_PAIRS:
                return
            if self._fits_without(request, node, pair):
                yield pair

    def _fits_without(self, request: Request, node: int, names: tuple[str, ...]) -> bool:
        room = self.fleet.rooms[node]
        for name in names:
            room = given_back(self.fleet.residents[node][name][0], room, self._devices(node, name))
        return self.fleet.quote(request, room)[0] < inf

    def _devices(self, node: int, name: str) -> tuple[int, ...]:
        return self.fleet.residents[node][name][1]

    def _plan(
        self, request: Request, node: int, names: tuple[str, ...], below: float
    ) -> Repair | None:
        """Eject these, place the request, then each ejected one elsewhere."""
        fleet = self.fleet
        room = fleet.rooms[node]
        price = 0.0
        for name in names:
            each, taken = fleet.residents[node][name]
            emptier = given_back(each, room, taken)
            price -= fleet.cost(room) - fleet.cost(emptier)
            room = emptier
        own, taken = fleet.quote(request, room)
        price += own
        moves: list[Move] = []
        used = {node}
        for name in names:
            each = fleet.residents[node][name][0]
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
        least, where = inf, -1
        best = min(prices)
        if best < inf:
            node = prices.index(best)
            if node in used:
                for i, price in enumerate(prices):
                    if price < least and i not in used:
                        least, where = price, i
            else:
                least, where = best, node
        if where < 0:
            return None
        return Spot(where, self.fleet.quote(request, self.fleet.rooms[where])[1], least)
