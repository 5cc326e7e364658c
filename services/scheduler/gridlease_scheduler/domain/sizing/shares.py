"""Which configuration does each job get, when all of them share what there is of each chip?

A multiple-choice knapsack: at most one option a job, capacities by chip, the sum of values as large
as possible. Prices per device come first (the Lagrangian dual, lowered and raised until demand
meets capacity); they give a bound and, by it, the few options that can still be part of a better
answer. Among these the answer is built, improved by exchanges of two, and searched for a while:
small cases are solved, large ones are within a per cent or so of the bound.

Source: Geoffrion, Lagrangean relaxation for integer programming (1974); fixing by reduced cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

_PRICE_STEPS = 60
_FIRST_STEP = 0.5
_STEP_DECAY = 0.92
_EXCHANGES = 200
_PARTNERS = 10_000  # pairs looked at
_SEARCH_STEPS = 4_000
_LEAST_GAIN = 1e-9
_GOOD = 5e-4  # of the bound: what is closer to it is not improved


@dataclass(frozen=True, slots=True)
class Option:
    """``devices`` of one chip (by index), worth ``value`` (positive, without a unit)."""

    chip: int
    devices: int
    value: float


Choice: TypeAlias = "list[Option | None]"
Near: TypeAlias = "tuple[float, Option | None]"  # what is lost against the best, at the prices


def share(jobs: Sequence[Sequence[Option]], capacity: Sequence[int]) -> Choice:
    """One option or none for each job, within the capacity, worth as much as can be found."""
    jobs = [[x for x in options if 0 < x.devices <= capacity[x.chip]] for options in jobs]
    prices, bound = _priced(jobs, capacity)
    choice = _within(jobs, capacity, prices)
    _fill(jobs, capacity, choice)
    for improve in (_exchange, _search):
        gap = bound - _worth(choice)
        if gap <= max(_LEAST_GAIN, _GOOD * bound):
            break
        near = [_near(options, prices, gap) for options in jobs]
        choice = improve(near, prices, capacity, choice)
    return choice


def _worth(choice: Choice) -> float:
    return sum(option.value for option in choice if option)


def _best(options: Sequence[Option], prices: Sequence[float]) -> tuple[Option | None, float]:
    """The option with the largest value above its price, and that surplus."""
    found, most = None, 0.0
    for option in options:
        surplus = option.value - prices[option.chip] * option.devices
        if surplus > most:
            found, most = option, surplus
    return found, most


def _priced(jobs: Sequence[Sequence[Option]], capacity: Sequence[int]) -> tuple[list[float], float]:
    """Prices by chip, and the least upper bound met on the way (which they gave)."""
    hulls = [_hull(options) for options in jobs]
    total = sum(max((x.value for x in options), default=0.0) for options in jobs)
    start = total / max(1, sum(capacity))
    prices = [start] * len(capacity)
    step, least, best = _FIRST_STEP, float("inf"), prices
    for _ in range(_PRICE_STEPS):
        used = [0] * len(capacity)
        bound = sum(price * room for price, room in zip(prices, capacity, strict=True))
        for options in hulls:
            option, surplus = _best(options, prices)
            bound += surplus
            if option:
                used[option.chip] += option.devices
        if bound < least:
            least, best = bound, prices
        prices = [
            max(price, start * 1e-6) * (1 + step * max(-0.9, min(1.0, (n - room) / max(1, room))))
            for price, n, room in zip(prices, used, capacity, strict=True)
        ]
        step *= _STEP_DECAY
    return best, least


def _hull(options: Sequence[Option]) -> list[Option]:
    """The options that are best at some price: the upper hull by chip."""
    found: list[Option] = []
    for chip in {option.chip for option in options}:
        line: list[Option] = []
        for option in sorted(
            (x for x in options if x.chip == chip), key=lambda x: (x.devices, x.value)
        ):
            while line and _under(line, option):
                line.pop()
            if not line or option.value > line[-1].value:
                line.append(option)
        found += line
    return found


def _under(line: list[Option], option: Option) -> bool:
    """Does the last of the line lie below the chord from the one before to ``option``?"""
    last = line[-1]
    if last.devices == option.devices:
        return True
    before_devices, before_value = (line[-2].devices, line[-2].value) if len(line) > 1 else (0, 0.0)
    rise = (last.value - before_value) * (option.devices - before_devices)
    return rise <= (option.value - before_value) * (last.devices - before_devices)


def _near(options: Sequence[Option], prices: Sequence[float], gap: float) -> list[Near]:
    """What a better answer could still hold: what loses less than the gap, least loss first."""
    _, most = _best(options, prices)
    all_of: list[Near] = [(most, None)]
    all_of += [(most - x.value + prices[x.chip] * x.devices, x) for x in options]
    return sorted((x for x in all_of if x[0] < gap), key=lambda x: x[0])


def _within(
    jobs: Sequence[Sequence[Option]], capacity: Sequence[int], prices: Sequence[float]
) -> Choice:
    """Each job its best at these prices, in order of surplus a device, while there is room."""
    free = list(capacity)
    choice: Choice = [None] * len(jobs)
    wishes = []
    for index, options in enumerate(jobs):
        option, surplus = _best(options, prices)
        if option:
            wishes.append((-surplus / option.devices, index))
    for _, index in sorted(wishes):
        fitting = [x for x in jobs[index] if x.devices <= free[x.chip]]
        option, _ = _best(fitting, prices)
        choice[index] = option
        if option:
            free[option.chip] -= option.devices
    return choice


def _free(capacity: Sequence[int], choice: Choice) -> list[int]:
    free = list(capacity)
    for option in choice:
        if option:
            free[option.chip] -= option.devices
    return free


def _fill(jobs: Sequence[Sequence[Option]], capacity: Sequence[int], choice: Choice) -> None:
    """What is left over goes where a device more is worth most, until nothing gains."""
    free = _free(capacity, choice)
    for _ in range(sum(capacity)):
        best: tuple[float, int, Option] | None = None
        for index, options in enumerate(jobs):
            held = choice[index]
            for option in options:
                same = held is not None and held.chip == option.chip
                more = option.devices - (held.devices if held and same else 0)
                gain = option.value - (held.value if held else 0.0)
                if gain <= _LEAST_GAIN or more > free[option.chip]:
                    continue
                rate = gain / max(more, 0.5)
                if best is None or rate > best[0]:
                    best = rate, index, option
        if best is None:
            return
        _, index, option = best
        held = choice[index]
        if held:
            free[held.chip] += held.devices
        free[option.chip] -= option.devices
        choice[index] = option


def _exchange(
    near: Sequence[Sequence[Near]],
    _prices: Sequence[float],
    capacity: Sequence[int],
    choice: Choice,
) -> Choice:
    """Two jobs at a time take the options that are worth most together, until none gains."""
    choice = list(choice)
    free = _free(capacity, choice)
    looks = iter(range(_PARTNERS))
    for _ in range(_EXCHANGES):
        swap = next(_swaps(near, free, choice, looks), None)
        if swap is None:
            break
        for index, option in swap:
            _move(free, choice[index], option)
            choice[index] = option
    return choice


def _move(free: list[int], held: Option | None, option: Option | None) -> None:
    if held:
        free[held.chip] += held.devices
    if option:
        free[option.chip] -= option.devices


def _swaps(
    near: Sequence[Sequence[Near]], free: list[int], choice: Choice, looks: Iterator[int]
) -> Iterator[tuple[tuple[int, Option | None], tuple[int, Option | None]]]:
    """Pairs of changes that gain, best partner first for each change, while looks are left."""
    most = [max((_value(x) for _, x in options), default=0.0) for options in near]
    for first, options in enumerate(near):
        held = choice[first]
        for _, option in options:
            if option is held:
                continue
            room = list(free)
            _move(room, held, option)
            gain = _value(option) - _value(held)
            for second, others in enumerate(near):
                mine = choice[second]
                least = _value(mine) - gain + _LEAST_GAIN
                if second == first or (most[second] <= least and gain <= _LEAST_GAIN):
                    continue
                if next(looks, None) is None:
                    return
                other = _partner(others, mine, room, least)
                if other is not _NOTHING:
                    yield (first, option), (second, other)


_NOTHING = Option(-1, 0, 0.0)


def _value(option: Option | None) -> float:
    return option.value if option else 0.0


def _partner(
    others: Sequence[Near], held: Option | None, room: list[int], least: float
) -> Option | None:
    """The other job's best option above ``least`` that fits with the first, or ``_NOTHING``."""
    if held:
        room = list(room)
        room[held.chip] += held.devices
    if min(room) < 0:
        return _NOTHING
    found: Option | None = _NOTHING
    if _value(held) > least and (held is None or held.devices <= room[held.chip]):
        found, least = held, _value(held)
    for _, option in others:
        if option is None:
            if least < 0.0:
                found, least = None, 0.0
        elif option.value > least and option.devices <= room[option.chip]:
            found, least = option, option.value
    return found


def _search(
    near: Sequence[Sequence[Near]],
    prices: Sequence[float],
    capacity: Sequence[int],
    choice: Choice,
) -> Choice:
    """Depth first through what could be better, within a bound on steps.

    An answer is worth the bound, less what each option loses, less the price of what stays free.
    """
    order = sorted(range(len(near)), key=lambda i: (len(near[i]), i))
    best, most = list(choice), _worth(choice)
    bound = sum(price * room for price, room in zip(prices, capacity, strict=True))
    bound += sum(max((_surplus(x, prices) for _, x in options), default=0.0) for options in near)
    current: Choice = [None] * len(near)
    free = list(capacity)
    stack = [(0, iter(near[order[0]]), 0.0)] if order else []
    for _ in range(_SEARCH_STEPS):
        if not stack:
            break
        depth, options, lost = stack[-1]
        index = order[depth]
        _move(free, current[index], None)
        current[index] = None
        loss, option = next(options, (inf, None))
        if lost + loss >= bound - most - _LEAST_GAIN:
            stack.pop()
            continue
        if option and option.devices > free[option.chip]:
            continue
        current[index] = option
        _move(free, None, option)
        if depth + 1 < len(order):
            stack.append((depth + 1, iter(near[order[depth + 1]]), lost + loss))
        elif (worth := _worth(current)) > most:
            best, most = list(current), worth
    return best


def _surplus(option: Option | None, prices: Sequence[float]) -> float:
    return option.value - prices[option.chip] * option.devices if option else 0.0
