"""Estimates along a curve: how far they stray, and what they are drawn to."""

import math
import random

import pytest
from gridlease_scheduler.domain.sizing.curves import Point, drawn, unevenness


def curve(error, counts=24, seed=1):
    chance = random.Random(seed)
    return {n: 0.8 * math.log(n) + chance.gauss(0.0, error) for n in range(1, counts + 1)}


def test_a_smooth_curve_has_no_error():
    assert unevenness(curve(0.0)) == 0.0


@pytest.mark.parametrize("error", [0.1, 0.2, 0.4])
def test_the_error_is_read_off_neighbours(error):
    found = [unevenness(curve(error, seed=seed)) for seed in range(40)]
    assert sum(found) / 40 == pytest.approx(error, rel=0.35)


def test_without_neighbours_nothing_is_said():
    assert unevenness({}) is None
    assert unevenness({1: 0.0, 2: 0.5, 4: 1.0, 8: 1.4}) is None


def test_what_is_certain_stays():
    points = {n: Point(log, 0.0) for n, log in curve(0.3).items()}
    assert drawn(points) == points


def test_what_is_uncertain_is_drawn_to_the_curve():
    points = {n: Point(log, 0.09) for n, log in curve(0.3).items()}
    before = [abs(point.log - 0.8 * math.log(n)) for n, point in points.items()]
    after = [abs(point.log - 0.8 * math.log(n)) for n, point in drawn(points).items()]
    assert sum(after) < 0.6 * sum(before)
    assert all(point.variance < 0.09 for point in drawn(points).values())


def test_one_certain_point_pulls_its_neighbours():
    points = {1: Point(0.0, 0.0), 2: Point(2.0, 0.25), 4: Point(1.2, 0.0), 8: Point(1.8, 0.0)}
    found = drawn(points)
    assert found[1].log == 0.0
    assert 0.4 < found[2].log < 1.2


def test_one_or_two_points_are_left_as_they_are():
    for points in ({}, {1: Point(0.0, 0.1)}, {1: Point(0.0, 0.1), 2: Point(0.5, 0.1)}):
        assert drawn(points) == points
