"""Which configuration does each job get, when all of them share what there is of each chip?

A multiple-choice knapsack: at most one option a job, capacities by chip, the sum of values as large
as possible. Prices per device come first (the Lagrangian dual, lowered and raised until demand
meets capacity); they give a bound and, by it, the few options that can still be part of a better
answer. Among these the answer is built and improved by single and pairwise exchanges.

Source: Geoffrion, Lagrangean relaxation for integer programming (1974); fixing by reduced cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

_PRICE_STEPS = 60
_FIRST_STEP = 0.5
_STEP_DECAY = 0.92
_EXCHANGES = 200
_LEAST_GAIN = 1e-9


@dataclass(frozen=True, slots=True)
class Option:
    """``devices`` of one chip (by index), worth ``value`` (positive, without a unit)."""

    chip: int
    devices: int
    value: float


Choice: TypeAlias = "list[Option | None]"


def share(jobs: Sequence[Sequence[Option]], capacity: Sequence[int]) -> Choice:
    """One option or none for each job, within the capacity, worth as much as can be found."""
    prices, bound = _priced(jobs, capacity)
    choice = _within(jobs, capacity, prices)
    _fill(jobs, capacity, choice)
    for _ in range(2):
        gap = bound - _worth(choice)
        if gap <= _LEAST_GAIN:
            break
        near = [_near(options, prices, gap) for options in jobs]
        if not _exchange(near, capacity, choice):
            break
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


def _near(options: Sequence[Option], prices: Sequence[float], gap: float) -> list[Option | None]:
    """What a better answer could still hold: no more than ``gap`` below the best surplus."""
    _, most = _best(options, prices)
    floor = most - gap
    near: list[Option | None] = [
        x for x in options if x.value - prices[x.chip] * x.devices >= floor
    ]
    if floor <= 0.0:
        near.append(None)
    return near


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
    near: Sequence[Sequence[Option | None]], capacity: Sequence[int], choice: Choice
) -> bool:
    """Two jobs at a time take the options that are worth most together; was anything gained?"""
    free = _free(capacity, choice)
    gained = False
    for _ in range(_EXCHANGES):
        swap = next(_swaps(near, free, choice), None)
        if swap is None:
            break
        gained = True
        for index, option in swap:
            held = choice[index]
            if held:
                free[held.chip] += held.devices
            if option:
                free[option.chip] -= option.devices
            choice[index] = option
    return gained


def _swaps(
    near: Sequence[Sequence[Option | None]], free: list[int], choice: Choice
) -> Iterator[tuple[tuple[int, Option | None], tuple[int, Option | None]]]:
    """Pairs of changes that gain, best partner first for each change."""
    for first, options in enumerate(near):
        held = choice[first]
        for option in options:
            if option is held:
                continue
            room = list(free)
            if held:
                room[held.chip] += held.devices
            if option:
                room[option.chip] -= option.devices
            gain = (option.value if option else 0.0) - (held.value if held else 0.0)
            for second, others in enumerate(near):
                if second == first:
                    continue
                other = _partner(others, choice[second], room, gain)
                if other is not _NOTHING:
                    yield (first, option), (second, other)


_NOTHING = Option(-1, 0, 0.0)


def _partner(
    others: Sequence[Option | None], held: Option | None, room: list[int], gain: float
) -> Option | None:
    """The other job's best option by which the pair gains and fits, or ``_NOTHING``."""
    base = (held.value if held else 0.0) - gain + _LEAST_GAIN
    found: Option | None = _NOTHING
    for option in [*others, held]:
        value = option.value if option else 0.0
        if value <= base:
            continue
        after = list(room)
        if held:
            after[held.chip] += held.devices
        if option:
            after[option.chip] -= option.devices
        if min(after) >= 0:
            found, base = option, value
    return found
