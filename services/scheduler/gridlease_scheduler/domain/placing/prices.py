"""What is a rest of a device worth, and which chips are sought after? Learned from arrivals.

Shares of a device do not tile it: beside one of 810 thousandths nothing common fits. The prices
are the duals of the cutting-stock programme "serve the shares seen so far with the fewest devices":
each size gets the part of a device that it really costs, and what is left on a device is worth the
dearest set of sizes that fits in it.

Source: P. C. Gilmore, R. E. Gomory, "A linear programming approach to the cutting-stock problem",
Operations Research 9(6), 1961 (column generation with a knapsack).
"""

from __future__ import annotations

from collections.abc import Mapping

CELLS = 100  # a device is cut into hundredths: the unit in which shares are priced
_ROUNDS = 400  # pivots at most; twenty-odd sizes need about a hundred
_TINY = 1e-9


def cells(milli: int) -> int:
    """A share in hundredths of a device, rounded up: what it takes away."""
    return -(-milli * CELLS // 1_000)


def share_prices(demand: Mapping[int, float]) -> dict[int, float]:
    """What each size of share costs, in devices: the duals of the cutting-stock programme.

    Args:
        demand: How often each size (in cells, 1 to CELLS) is asked for.
    """
    sizes = sorted(size for size, count in demand.items() if count > 0)
    if not sizes:
        return {}
    n = len(sizes)
    inverse = [[0.0] * n for _ in range(n)]  # of the basis, whose columns are patterns
    for i, size in enumerate(sizes):
        inverse[i][i] = 1.0 / (CELLS // size)
    level = [demand[size] * inverse[i][i] for i, size in enumerate(sizes)]
    duals = [sum(row[j] for row in inverse) for j in range(n)]
    for _ in range(_ROUNDS):
        pattern, worth = _best_pattern(sizes, duals)
        if worth <= 1.0 + 1e-7:
            break
        column = [sum(row[j] * count for j, count in pattern.items()) for row in inverse]
        ratios = [(level[i] / column[i], i) for i in range(n) if column[i] > _TINY]
        if not ratios:
            break
        _pivot(inverse, level, column, min(ratios)[1])
        duals = [sum(row[j] for row in inverse) for j in range(n)]
    return {size: max(0.0, dual) for size, dual in zip(sizes, duals, strict=True)}


def _best_pattern(sizes: list[int], duals: list[float]) -> tuple[dict[int, int], float]:
    """The dearest set of sizes that fits on one device, by index, and its price."""
    best = [0.0] * (CELLS + 1)
    last = [-1] * (CELLS + 1)
    for room in range(1, CELLS + 1):
        best[room] = best[room - 1]
        for i, size in enumerate(sizes):
            if size > room:
                break
            if best[room - size] + duals[i] > best[room] + _TINY:
                best[room], last[room] = best[room - size] + duals[i], i
    pattern: dict[int, int] = {}
    room = CELLS
    while room > 0:
        i = last[room]
        if i < 0:
            room -= 1
        else:
            pattern[i] = pattern.get(i, 0) + 1
            room -= sizes[i]
    return pattern, best[CELLS]


def _pivot(inverse: list[list[float]], level: list[float], column: list[float], out: int) -> None:
    """Put a pattern in the place of row ``out``'s."""
    scale = column[out]
    inverse[out] = [each / scale for each in inverse[out]]
    level[out] /= scale
    for i, factor in enumerate(column):
        if i != out and abs(factor) > _TINY:
            inverse[i] = [a - factor * b for a, b in zip(inverse[i], inverse[out], strict=True)]
            level[i] -= factor * level[out]


def rest_values(demand: Mapping[int, float]) -> tuple[float, ...]:
    """What 0 to CELLS free cells of one device are worth, in devices; a whole one is worth 1."""
    prices = share_prices(demand)
    best = [0.0] * (CELLS + 1)
    for room in range(1, CELLS + 1):
        best[room] = best[room - 1]
        for size, price in prices.items():
            if size <= room:
                best[room] = max(best[room], best[room - size] + price)
    best[CELLS] = 1.0
    return tuple(min(1.0, each) for each in best)


def pressure(tied: Mapping[str, float], supply: Mapping[str, float]) -> dict[str, float]:
    """How sought after is each chip by those who can use nothing else?

    Args:
        tied: Devices asked for by requests that name the chip, split evenly over all they name.
        supply: Devices of each chip.

    Returns:
        Each chip's share of such demand over its share of the supply, times how much of all
        demand is tied; 0 where nobody names a chip.
    """
    wanted, there = sum(tied.values()), sum(supply.values())
    if not wanted or not there:
        return dict.fromkeys(supply, 0.0)
    return {
        chip: (tied.get(chip, 0.0) / wanted) / (count / there) if count else 0.0
        for chip, count in supply.items()
    }
