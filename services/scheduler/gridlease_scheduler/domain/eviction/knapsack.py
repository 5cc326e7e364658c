"""At most one option of each list, so that all members are held: the cheapest such choice.

A multiple-choice knapsack. Members beyond what is asked for count for nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Taken: TypeAlias = "tuple[tuple[int, tuple[int, ...]], ...]"  # victims, by place in the lists


@dataclass(frozen=True, slots=True)
class Option:
    """Room for so many members of a node, and whose end makes it."""

    count: int
    cost: int
    victims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Chain:
    """Options taken so far, the last one first."""

    before: _Chain | None
    place: int
    victims: tuple[int, ...]

    def all(self) -> Taken:
        """Every option of the chain."""
        found, link = [(self.place, self.victims)], self.before
        while link is not None:
            found.append((link.place, link.victims))
            link = link.before
        return tuple(found)


def cheapest_choice(tasks: int, lists: Sequence[tuple[Option, ...]]) -> tuple[int, Taken] | None:
    """The cheapest choice of at most one option a node that holds all members: exact."""
    best: list[tuple[int, _Chain] | None] = [None] * (tasks + 1)
    best[0] = (0, _Chain(None, 0, ()))
    for place, options in enumerate(lists):
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
                    after[now] = (cost, _Chain(before[1], place, option.victims))
        best = after
    found = best[tasks]
    return None if found is None else (found[0], found[1].all())


def estimated_choice(tasks: int, lists: Sequence[tuple[Option, ...]]) -> tuple[int, Taken] | None:
    """The same, by the cheapest next member: never too low, and quick."""
    heap: list[tuple[int, int, int, int]] = []
    held = [Option(0, 0, ())] * len(lists)

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
    return sum(x.cost for x in held), tuple((at, x.victims) for at, x in enumerate(held))
