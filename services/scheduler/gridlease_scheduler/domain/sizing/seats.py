"""On which nodes do the devices lie that each job was given? Who keeps its share keeps its seat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Host:
    """A node as training jobs see it: devices of one chip."""

    node: str
    chip: str
    devices: int


@dataclass(frozen=True, slots=True)
class Held:
    """Devices of one chip on nodes: (node, devices), sorted by the node's name, none empty."""

    chip: str
    nodes: tuple[tuple[str, int], ...]

    @property
    def devices(self) -> int:
        """How many in all."""
        return sum(count for _, count in self.nodes)


@dataclass(frozen=True, slots=True)
class Wish:
    """``devices`` of ``chip`` for a job; ``held``: what it has now."""

    job: str
    chip: str
    devices: int
    held: Held | None = None

    @property
    def unchanged(self) -> bool:
        """Does it ask for what it has?"""
        return (
            self.held is not None
            and self.held.chip == self.chip
            and self.held.devices == self.devices
        )


def seat(hosts: Sequence[Host], wishes: Sequence[Wish]) -> dict[str, Held]:
    """Devices for every wish, which together fit: the unchanged stay, then the largest first.

    A job goes to the one node that it leaves fullest; where none has enough, to as few as hold it.
    """
    free = {host.node: host.devices for host in hosts}
    chips = {host.node: host.chip for host in hosts}
    size = {host.node: host.devices for host in hosts}
    answer: dict[str, Held] = {}
    rest = []
    for wish in wishes:
        if wish.unchanged and wish.held and _still_there(wish.held, free, chips):
            answer[wish.job] = wish.held
            _take(free, wish.held.nodes)
        else:
            rest.append(wish)
    for wish in sorted(rest, key=lambda wish: (-wish.devices, wish.job)):
        open_nodes = {node: n for node, n in free.items() if n and chips[node] == wish.chip}
        nodes = _spot(open_nodes, size, wish.devices)
        if nodes:
            answer[wish.job] = Held(wish.chip, nodes)
            _take(free, nodes)
    return answer


def _still_there(held: Held, free: Mapping[str, int], chips: Mapping[str, str]) -> bool:
    return all(chips.get(node) == held.chip and free[node] >= count for node, count in held.nodes)


def _take(free: dict[str, int], nodes: tuple[tuple[str, int], ...]) -> None:
    for node, count in nodes:
        free[node] -= count


def _spot(
    free: Mapping[str, int], size: Mapping[str, int], devices: int
) -> tuple[tuple[str, int], ...]:
    """The tightest single node, else whole free nodes and the tightest rest, else the emptiest."""
    found: list[tuple[str, int]] = []
    left = dict(free)
    while devices:
        enough = [(room, node) for node, room in left.items() if room >= devices]
        if enough:
            _, node = min(enough)
            found.append((node, devices))
            return tuple(sorted(found))
        if not left:
            return ()
        _, _, node = min((-room, size[node], node) for node, room in left.items())
        room = left.pop(node)
        found.append((node, room))
        devices -= room
    return ()
