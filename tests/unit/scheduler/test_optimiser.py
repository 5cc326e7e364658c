"""The slow path's program against exhaustive search, and the child that solves it."""

from __future__ import annotations

import itertools
import sys

import pytest
from gridlease_kernel.faults import Unreachable
from gridlease_scheduler.adapters.optimiser import ChildOptimiser
from gridlease_scheduler.domain.slow.advice import JobClass, Problem, Solution, advise
from gridlease_scheduler.optimiser import solve

_STEPS = 12  # the grid of the exhaustive search: twelfths of a device


def _given(problem: Problem) -> dict[str, object]:
    return {
        "classes": [
            {"key": x.key, "weight": x.weight, "devices": x.devices, "throughput": x.throughput}
            for x in problem.classes
        ],
        "capacity": problem.capacity,
    }


def _levels(problem: Problem, devices: dict[tuple[str, str], float]) -> list[float]:
    """Each class's normalised throughput, ascending: what max-min compares."""
    found = []
    for one in problem.classes:
        best = max(speed for _, speed in one.throughput)
        done = sum(devices.get((one.key, chip), 0.0) * speed for chip, speed in one.throughput)
        found.append(done / best / one.weight)
    return sorted(found)


def _best_by_search(problem: Problem) -> float:
    """The highest least level of two classes on two chips, by trying every split of each chip."""
    first, second = problem.classes
    chips = [chip for chip, _ in problem.capacity]
    room = dict(problem.capacity)
    best = 0.0
    for split in itertools.product(range(_STEPS + 1), repeat=len(chips)):
        devices: dict[tuple[str, str], float] = {}
        for chip, part in zip(chips, split, strict=True):
            devices[first.key, chip] = room[chip] * part / _STEPS
            devices[second.key, chip] = room[chip] * (_STEPS - part) / _STEPS
        wanted = {x.key: x.devices for x in problem.classes}
        used = {
            x.key: sum(n for (key, _), n in devices.items() if key == x.key)
            for x in problem.classes
        }
        if all(used[key] <= wanted[key] + 1e-9 for key in used):
            best = max(best, _levels(problem, devices)[0])
    return best


@pytest.mark.parametrize(
    ("fast", "slow", "a100", "t4"),
    [(100, 20, 2, 4), (100, 90, 1, 3), (50, 50, 4, 1), (100, 5, 3, 3)],
)
def test_the_least_level_is_that_of_an_exhaustive_search(
    fast: int, slow: int, a100: int, t4: int
) -> None:
    problem = Problem(
        (
            JobClass("a", 1, 8, (("A100", fast), ("T4", slow))),
            JobClass("b", 1, 8, (("A100", 100), ("T4", 60))),
        ),
        (("A100", a100), ("T4", t4)),
    )
    answer = solve(_given(problem))
    devices = {(key, chip): n for key, chip, n in answer["devices"]}
    assert _levels(problem, devices)[0] >= _best_by_search(problem) - 1e-6


def test_capacity_and_demand_hold_and_scarce_chips_have_a_price() -> None:
    problem = Problem(
        (
            JobClass("a", 3, 5, (("A100", 100),)),
            JobClass("b", 1, 100, (("A100", 100), ("T4", 10))),
        ),
        (("A100", 8), ("T4", 200)),
    )
    answer = solve(_given(problem))
    used: dict[str, float] = {}
    for _, chip, n in answer["devices"]:
        used[chip] = used.get(chip, 0.0) + n
    assert used["A100"] == pytest.approx(8)
    assert used["T4"] <= 97 + 1e-6
    prices = dict(answer["prices"])
    assert prices["A100"] > prices["T4"] == 0


def test_a_weight_of_three_gets_three_times_as_much() -> None:
    problem = Problem(
        (JobClass("a", 3, 99, (("A100", 100),)), JobClass("b", 1, 99, (("A100", 100),))),
        (("A100", 8),),
    )
    devices = {key: n for key, _, n in solve(_given(problem))["devices"]}
    assert devices == {"a": pytest.approx(6, abs=1e-3), "b": pytest.approx(2, abs=1e-3)}


def test_advice_puts_the_largest_share_first() -> None:
    solution = Solution((("a", "T4", 1.0), ("a", "A100", 3.0), ("b", "T4", 0.001)), (("T4", 0.5),))
    advice = advise(solution, 7)
    assert advice.favoured == {"a": ("A100", "T4")}
    assert advice.prices == {"T4": 0.5}


_PROBLEM = Problem((JobClass("a", 1, 1, (("T4", 10),)),), (("T4", 1),))


async def test_the_child_answers_and_is_kept() -> None:
    optimiser = ChildOptimiser(timeout_s=60.0)
    try:
        first = await optimiser.solve(_PROBLEM)
        assert first.devices == (("a", "T4", 1.0),)
        assert await optimiser.solve(_PROBLEM) == first
    finally:
        await optimiser.close()


async def test_a_child_that_is_too_slow_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/cat")  # opens no file called -m, and is silent
    optimiser = ChildOptimiser(timeout_s=0.5)
    with pytest.raises(Unreachable) as caught:
        await optimiser.solve(_PROBLEM)
    assert caught.value.reason == "OPTIMISER_SILENT"
