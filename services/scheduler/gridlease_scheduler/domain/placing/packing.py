"""Where does a request cost the fleet least? Scores are kept and renewed only where nodes changed.

A placement changes one node, so of the scores of a request that was seen before only those of the
nodes changed since then are computed again. Ties go to the fixed order of nodes: large ones first,
then those with the fewest CPUs per device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from .fragmentation import (
    Outlook,
    Request,
    Room,
    Weights,
    after,
    choices,
    cost,
    given_back,
    outlook,
    scarcity,
)

_FIRST_LESSON = 64  # arrivals after which the outlook is learned for the first time
_LESSON_GROWTH = 1.5  # and again each time that there are half as many more


@dataclass(frozen=True, slots=True)
class Spot:
    """A place for one request: the node's index in the fleet, devices by index, and the price."""

    node: int
    taken: tuple[int, ...]
    price: float


@dataclass(slots=True)
class _Scores:
    """One request's price on every node, as of entry ``read`` of the log of changes."""

    prices: list[float]
    least: float
    read: int
    lesson: int


@dataclass(slots=True)
class Fleet:
    """Nodes with what is free on them, who sits where, and what was learned."""

    rooms: list[Room]
    weights: Weights = field(default_factory=Weights)
    residents: list[dict[str, tuple[Request, tuple[int, ...]]]] = field(init=False)
    seen: dict[Request, int] = field(default_factory=dict)
    arrived: int = 0
    lesson: int = 0
    ahead: Outlook = field(init=False)
    changed: list[int] = field(default_factory=list)
    _scores: dict[Request, _Scores] = field(default_factory=dict)
    _known: dict[Request, dict[Room, tuple[float, tuple[int, ...]]]] = field(default_factory=dict)
    _costs: dict[Room, float] = field(default_factory=dict)
    _next_lesson: int = _FIRST_LESSON
    _cpu_milli: int = field(init=False)

    def __post_init__(self) -> None:
        self.residents = [{} for _ in self.rooms]
        self._cpu_milli = sum(room.cpu_milli for room in self.rooms)
        self._learn()

    def _learn(self) -> None:
        supply: dict[str, int] = {}
        for room in self.rooms:
            supply[room.chip] = supply.get(room.chip, 0) + len(room.free)
        most = max((len(room.free) for room in self.rooms), default=0)
        self.ahead = outlook(self.seen, supply, self._cpu_milli, most, self.weights)
        self.lesson += 1
        self._known.clear()
        self._costs.clear()

    def arrive(self, request: Request) -> None:
        """Count an arrival, whether or not it will be placed."""
        self.seen[request] = self.seen.get(request, 0) + 1
        self.arrived += 1
        if self.arrived >= self._next_lesson:
            self._next_lesson = int(self._next_lesson * _LESSON_GROWTH)
            self._learn()

    def best(self, request: Request) -> Spot | None:
        """The cheapest place that is free, or None: there is no room."""
        least = self.least(request)
        if least == inf:
            return None
        node = self.prices(request).index(least)
        return Spot(node, self.quote(request, self.rooms[node])[1], least)

    def prices(self, request: Request) -> list[float]:
        """The price of the request on every node; infinite where there is no room."""
        return self._up_to_date(request).prices

    def least(self, request: Request) -> float:
        """The lowest of its prices; infinite = no room."""
        return self._up_to_date(request).least

    def _up_to_date(self, request: Request) -> _Scores:
        mine = self._scores.get(request)
        now = len(self.changed)
        if mine is None or mine.lesson != self.lesson:
            prices = [self.quote(request, room)[0] for room in self.rooms]
            mine = _Scores(prices, min(prices, default=inf), now, self.lesson)
            self._scores[request] = mine
        elif mine.read < now:
            for node in set(self.changed[mine.read :]):
                mine.prices[node] = self.quote(request, self.rooms[node])[0]
            mine.least, mine.read = min(mine.prices), now
        return mine

    def quote(self, request: Request, room: Room) -> tuple[float, tuple[int, ...]]:
        """The price of the request in a room, and the devices that it would take."""
        known = self._known.setdefault(request, {})
        answer = known.get(room)
        if answer is None:
            answer = known[room] = self._quote(request, room)
        return answer

    def _quote(self, request: Request, room: Room) -> tuple[float, tuple[int, ...]]:
        best: tuple[float, tuple[int, ...]] = (inf, ())
        for taken in choices(request, room):
            price = self.cost(after(request, room, taken))
            if price < best[0]:
                best = (price, taken)
        if best[0] == inf:
            return best
        extra = scarcity(request, room, self.ahead, self.weights) - self.cost(room)
        return best[0] + extra, best[1]

    def cost(self, room: Room) -> float:
        """The price of a state of a node."""
        price = self._costs.get(room)
        if price is None:
            price = self._costs[room] = cost(room, self.ahead, self.weights)
        return price

    def put(self, name: str, request: Request, node: int, taken: tuple[int, ...]) -> None:
        """Place it."""
        self.rooms[node] = after(request, self.rooms[node], taken)
        self.residents[node][name] = (request, taken)
        self.changed.append(node)

    def take(self, name: str, node: int) -> None:
        """Remove it."""
        request, taken = self.residents[node].pop(name)
        self.rooms[node] = given_back(request, self.rooms[node], taken)
        self.changed.append(node)


def in_order(rooms: Mapping[str, Room]) -> tuple[str, ...]:
    """The fixed order of nodes: most devices first, then fewest CPUs per device, then as given."""

    def key(name: str) -> tuple[int, int]:
        room = rooms[name]
        return -len(room.free), room.cpu_milli // max(1, len(room.free))

    return tuple(sorted(rooms, key=key))
