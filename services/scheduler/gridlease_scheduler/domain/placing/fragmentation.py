"""How much of a node will never be used? A price for the state that a placement leaves behind.

FGD (see Source) counts the idle devices that a request drawn from the known mix could not use.
Five things go past it: CPUs that idle devices will need are kept for them before they are gone
(``Weights.hinges``); rests of a device are valued by what still tiles them (``prices``); where CPUs
are the scarcer good, none are kept for rests that nothing tiles; chips that some requests insist on
are left to those (``prices.pressure``); and the mix is learned from the arrivals seen so far,
instead of being known beforehand.

Source: Q. Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with
Fragmentation Gradient Descent", USENIX ATC 2023.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import sqrt

from .prices import CELLS, cells, pressure, rest_values

WHOLE = 1_000
_CALM = 0.95  # of the fleet's CPUs per device: asked for less than that, CPUs are not scarce


@dataclass(frozen=True, slots=True)
class Request:
    """What one pod or task asks for; ``device_milli`` is below 1,000 only for one device."""

    cpu_milli: int
    memory_mib: int
    devices: int = 0
    device_milli: int = 0
    chips: frozenset[str] = frozenset()

    @property
    def asked_milli(self) -> int:
        """Thousandths of devices asked for in all."""
        return self.devices * self.device_milli


@dataclass(frozen=True, slots=True)
class Room:
    """What is free on a node; ``free`` holds thousandths by device."""

    chip: str
    cpu_milli: int
    memory_mib: int
    free: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Weights:
    """What counts how much, in devices. Tuned on seeds other than those of the bench.

    Calm: the fleet has more CPUs than its devices need. Tense: the arrivals ask for as many CPUs
    per device as the fleet has. In between, the two are mixed.

    Attributes:
        unusable: FGD's measure.
        hinges: Calm: pairs (cores per idle device that should stay free, price of a core missing).
        tense: The same when tense.
        spread: Calm: price of the square root of the devices idle on one node: few empty nodes
            are better than many that are half full.
        spread_tense: The same when tense.
        bulk: Calm: price of their square; below 0, so that nodes stay whole.
        rest: Worth of what is left on devices; by far the largest: tiling comes first.
        scarce: A chip that others insist on, as often as it is asked for beyond its share.
        groups: The power of its devices by which a rare large request counts.
    """

    unusable: float = 0.65
    hinges: tuple[tuple[float, float], ...] = (
        (6.0, 0.10),
        (9.0, 0.12),
        (13.0, 0.03),
        (20.0, 0.037),
    )
    tense: tuple[tuple[float, float], ...] = (
        (6.0, 0.10),
        (9.0, 0.08),
        (20.0, 0.09),
        (35.0, 0.0045),
    )
    spread: float = 0.31
    spread_tense: float = 0.24
    bulk: float = -0.025
    rest: float = 10.0
    scarce: float = 1.0
    groups: float = 0.9


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the arrivals seen so far say about those to come.

    Attributes:
        rest: What 0 to CELLS free cells of one device are worth, in devices.
        usable: By chip and by the number of ``cpus`` that are free.
        pressure: How sought after each chip is by those who can use nothing else.
        tension: 0 = CPUs to spare, 1 = the arrivals ask for as many per device as the fleet has.
    """

    rest: tuple[float, ...]
    usable: Mapping[str, tuple[Usable, ...]]
    cpus: tuple[int, ...]
    pressure: Mapping[str, float]
    tension: float = 0.0


@dataclass(frozen=True, slots=True)
class Usable:
    """Which part of the mix could use a device, given the CPUs that are free beside it.

    ``by_cells``: by the free cells of one device; ``by_whole``: by the count of whole devices.
    """

    by_cells: tuple[float, ...]
    by_whole: tuple[float, ...]


def outlook(
    seen: Mapping[Request, int],
    supply: Mapping[str, int],
    cpu_milli: int,
    most: int,
    weights: Weights | None = None,
) -> Outlook:
    """Learn from arrivals.

    Args:
        seen: How often each request arrived so far.
        supply: Devices of each chip in the fleet.
        cpu_milli: CPUs of the fleet.
        most: Devices of the largest node.
        weights: For how rare large requests count.
    """
    groups = (weights or Weights()).groups
    shares: dict[int, float] = {}
    tied: dict[str, float] = {}
    for request, count in seen.items():
        if request.devices == 1 and request.device_milli < WHOLE:
            size = cells(request.device_milli)
            shares[size] = shares.get(size, 0.0) + count
        known = [chip for chip in request.chips if chip in supply]
        for chip in known:
            tied[chip] = tied.get(chip, 0.0) + count * request.asked_milli / len(known)
    cpus = tuple(sorted({request.cpu_milli for request in seen if request.devices}))
    tension = _tension(seen, supply, cpu_milli)
    power = groups * _rarity(seen) * (1.0 - tension)  # where CPUs run out first, devices are not it
    usable = {chip: _usable(seen, chip, cpus, most, power) for chip in supply}
    return Outlook(rest_values(shares), usable, cpus, pressure(tied, supply), tension)


def _tension(seen: Mapping[Request, int], supply: Mapping[str, int], cpu_milli: int) -> float:
    """0 = CPUs to spare, 1 = arrivals ask for as many CPUs per device as the fleet has."""
    devices = sum(count * request.asked_milli for request, count in seen.items()) / WHOLE
    cpus = sum(count * request.cpu_milli for request, count in seen.items())
    if not devices or not cpu_milli:
        return 0.0
    ratio = (cpus / devices) / (cpu_milli / sum(supply.values()))
    return min(1.0, max(0.0, (ratio - _CALM) / (1.0 - _CALM)))


def _usable(
    seen: Mapping[Request, int], chip: str, cpus: tuple[int, ...], most: int, power: float
) -> tuple[Usable, ...]:
    """One row for each number of ``cpus`` that is free; row 0: fewer than the smallest."""
    by_cpu: dict[int, list[tuple[Request, float]]] = {}
    total = 0.0
    for request, count in seen.items():
        if not request.devices:
            continue
        counted = count * request.devices**power
        total += counted
        if not request.chips or chip in request.chips:
            by_cpu.setdefault(request.cpu_milli, []).append((request, counted))
    total = total or 1.0
    shares, whole = [0.0] * (CELLS + 1), [0.0] * (most + 1)
    rows = [Usable(tuple(shares), tuple(whole))]
    for cpu in cpus:
        for request, counted in by_cpu.get(cpu, ()):
            if request.device_milli < WHOLE:
                shares[cells(request.device_milli)] += counted / total
            elif request.devices <= most:
                whole[request.devices] += counted / total
        rows.append(Usable(tuple(accumulate(shares)), tuple(accumulate(whole))))
    return tuple(rows)


def _rarity(seen: Mapping[Request, int]) -> float:
    """How much more a request for many devices counts: the rarer such requests, the more.

    A rare one is dropped whole when it comes, and by then its room is gone. Where they are half
    of what is asked for, they count as often as they come.
    """
    asked = sum(count * request.asked_milli for request, count in seen.items())
    groups = sum(
        count * request.asked_milli for request, count in seen.items() if request.devices > 1
    )
    return max(0.0, 1.0 - 2.0 * groups / asked) if asked else 0.0


def unusable(room: Room, ahead: Outlook) -> float:
    """Idle devices that the next request is expected to be unable to use (FGD's measure)."""
    row = ahead.usable[room.chip][bisect_right(ahead.cpus, room.cpu_milli)]
    lost, whole = 0.0, 0
    for milli in room.free:
        if milli == WHOLE:
            whole += 1
        elif milli:
            lost += milli / WHOLE * (1.0 - row.by_cells[milli * CELLS // WHOLE])
    return lost + whole * (1.0 - row.by_cells[CELLS] - row.by_whole[whole])


def cost(room: Room, ahead: Outlook, weights: Weights) -> float:
    """The price of a node's state; a placement costs the difference that it makes."""
    idle = sum(room.free) / WHOLE
    if not idle:
        return 0.0
    worth = sum(ahead.rest[milli * CELLS // WHOLE] for milli in room.free)
    needy = idle + ahead.tension * (worth - idle)  # devices for which CPUs are kept
    return (
        weights.unusable * unusable(room, ahead)
        + strain(needy, room.cpu_milli, ahead.tension, weights)
        - weights.rest * worth
    )


def strain(idle: float, cpu_milli: int, tension: float, weights: Weights) -> float:
    """The part of the price that needs no mix: devices idle on many nodes, or short of CPUs."""
    calm = 1.0 - tension
    price = sqrt(idle) * (calm * weights.spread + tension * weights.spread_tense)
    price += calm * weights.bulk * idle * idle
    cores = cpu_milli / 1_000
    for share, hinges in ((calm, weights.hinges), (tension, weights.tense)):
        for ratio, each in hinges if share else ():
            missing = ratio * idle - cores
            if missing > 0:
                price += share * each * missing
    return price


def scarcity(request: Request, room: Room, ahead: Outlook, weights: Weights) -> float:
    """What it costs to take a chip that others insist on."""
    if not request.devices:
        return 0.0
    return weights.scarce * ahead.pressure.get(room.chip, 0.0)


def choices(request: Request, room: Room) -> Iterable[tuple[int, ...]]:
    """The ways in which the request may be put on the node, by device index; none = no room.

    Devices that are equally free are the same to it, so only the first of them is named.
    """
    if request.cpu_milli > room.cpu_milli or request.memory_mib > room.memory_mib:
        return ()
    if request.chips and room.chip not in request.chips:
        return ()
    if not request.devices:
        return ((),)
    if request.device_milli == WHOLE:
        whole = tuple(i for i, milli in enumerate(room.free) if milli == WHOLE)
        return (whole[: request.devices],) if len(whole) >= request.devices else ()
    firsts: dict[int, int] = {}
    for i, milli in enumerate(room.free):
        if milli >= request.device_milli:
            firsts.setdefault(milli, i)
    return tuple((i,) for i in firsts.values())


def after(request: Request, room: Room, taken: tuple[int, ...]) -> Room:
    """The room that is left."""
    free = list(room.free)
    for i in taken:
        free[i] -= request.device_milli
    return Room(
        room.chip,
        room.cpu_milli - request.cpu_milli,
        room.memory_mib - request.memory_mib,
        tuple(free),
    )


def given_back(request: Request, room: Room, taken: tuple[int, ...]) -> Room:
    """The room once the request has left."""
    free = list(room.free)
    for i in taken:
        free[i] += request.device_milli
    return Room(
        room.chip,
        room.cpu_milli + request.cpu_milli,
        room.memory_mib + request.memory_mib,
        tuple(free),
    )
