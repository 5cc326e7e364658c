"""The slow path's solver, a program of its own: one problem a line in, one solution a line out.

HiGHS (through scipy) is heavy to load and must never share the scheduler's process: it runs here,
is given a bounded time by its parent, and is killed and started again when it does not answer.

    python -m gridlease_scheduler.optimiser < problems.jsonl > solutions.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

_ROUNDS = 64  # of water filling; what is still open then shares the last level
_CLOSE = 1e-7

Row: TypeAlias = dict[int, float]


class Program:
    """One allocation problem as a linear program; variables are devices of (class, chip)."""

    def __init__(self, problem: dict[str, Any]) -> None:
        self.classes: list[dict[str, Any]] = problem["classes"]
        self.capacity: dict[str, float] = dict(problem["capacity"])
        self.pairs = [
            (number, chip, float(speed))
            for number, one in enumerate(self.classes)
            for chip, speed in one["throughput"]
            if chip in self.capacity
        ]

    def bounds_rows(self) -> tuple[list[Row], list[float]]:
        """Capacity of each chip, then the demand of each class."""
        chips: dict[str, Row] = {chip: {} for chip in self.capacity}
        wants: list[Row] = [{} for _ in self.classes]
        for column, (number, chip, _) in enumerate(self.pairs):
            chips[chip][column] = 1.0
            wants[number][column] = 1.0
        limits = [self.capacity[chip] for chip in chips]
        return [*chips.values(), *wants], limits + [float(x["devices"]) for x in self.classes]

    def gain(self, number: int) -> Row:
        """The class's effective throughput, normalised by its best chip and its weight."""
        best = max((speed for one, _, speed in self.pairs if one == number), default=1.0)
        scale = best * float(self.classes[number]["weight"])
        return {
            column: speed / scale
            for column, (one, _, speed) in enumerate(self.pairs)
            if one == number
        }

    def most(self, number: int) -> float:
        """What the class would have alone, in the same unit."""
        left = float(self.classes[number]["devices"])
        scale = self.gain(number)
        total = 0.0
        for column in sorted(scale, key=lambda x: -scale[x]):
            chip = self.pairs[column][1]
            taken = min(left, self.capacity[chip])
            total += taken * scale[column]
            left -= taken
        return total


def solve(problem: dict[str, Any]) -> dict[str, Any]:
    """Max-min shares by water filling, then the most throughput at those levels and its duals."""
    program = Program(problem)
    if not program.pairs:
        return {"devices": [], "prices": [[chip, 0.0] for chip in program.capacity]}
    levels = _fill(program)
    return _spread(program, levels)


def _fill(program: Program) -> dict[int, float]:
    """The level of each class: raise all together, fix those that cannot rise, go on."""
    numbers = [n for n in range(len(program.classes)) if program.gain(n)]
    fixed: dict[int, float] = {}
    for _ in range(_ROUNDS):
        rising = [n for n in numbers if n not in fixed]
        if not rising:
            break
        level, tight = _raise(program, rising, fixed)
        fixed |= dict.fromkeys(tight or rising, level)
    last = max(fixed.values(), default=0.0)
    return {n: fixed.get(n, last) for n in numbers}


def _raise(program: Program, rising: list[int], fixed: dict[int, float]) -> tuple[float, list[int]]:
    """The highest common level of the rising ones, and which of them hold it down."""
    width = len(program.pairs)
    rows, limits = program.bounds_rows()
    head = len(rows)
    for number in rising:
        rows.append({**{c: -v for c, v in program.gain(number).items()}, width: 1.0})
        limits.append(0.0)
    for number, level in fixed.items():
        rows.append({c: -v for c, v in program.gain(number).items()})
        limits.append(-level * (1 - _CLOSE))
    costs = np.zeros(width + 1)
    costs[width] = -1.0
    ceiling = max(program.most(number) for number in rising)
    found = _linprog(costs, rows, limits, width + 1, [(0, None)] * width + [(0, ceiling)])
    duals = found.ineqlin.marginals[head : head + len(rising)]
    tight = [number for number, dual in zip(rising, duals, strict=True) if dual < -_CLOSE]
    return float(found.x[width]), tight


def _spread(program: Program, levels: dict[int, float]) -> dict[str, Any]:
    """The most total throughput with every class at its level; capacity's duals are the prices."""
    rows, limits = program.bounds_rows()
    for number, level in levels.items():
        rows.append({c: -v for c, v in program.gain(number).items()})
        limits.append(-level * (1 - 10 * _CLOSE))
    costs = np.array([-speed for _, _, speed in program.pairs])
    found = _linprog(costs, rows, limits, len(program.pairs), [(0, None)] * len(program.pairs))
    prices = -found.ineqlin.marginals[: len(program.capacity)]
    return {
        "devices": [
            [program.classes[number]["key"], chip, round(float(x), 6)]
            for (number, chip, _), x in zip(program.pairs, found.x, strict=True)
            if x > _CLOSE
        ],
        "prices": [
            [chip, round(max(0.0, float(price)), 6)]
            for chip, price in zip(program.capacity, prices, strict=True)
        ],
    }


def _linprog(costs: Any, rows: list[Row], limits: list[float], width: int, bounds: Any) -> Any:
    entries = [(at, column, value) for at, row in enumerate(rows) for column, value in row.items()]
    ats, columns, values = zip(*entries, strict=True)
    matrix = coo_matrix((values, (ats, columns)), shape=(len(rows), width)).tocsr()
    found = linprog(costs, A_ub=matrix, b_ub=np.array(limits), bounds=bounds, method="highs")
    if found.x is None:
        raise ArithmeticError(found.message)
    return found


def _answers(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            yield solve(json.loads(line))
        except (ArithmeticError, ValueError, KeyError, TypeError) as trouble:
            yield {"error": f"{type(trouble).__name__}: {trouble}"}


def main() -> int:
    """Answer until the input ends."""
    for answer in _answers(iter(sys.stdin.readline, "")):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
