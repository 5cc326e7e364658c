"""Goodput rows from reported step times and gradient noise."""

import pytest
from gridlease_scheduler.domain.sizing.goodput import (
    Batches,
    Gradient,
    Line,
    Step,
    gain,
    line,
    noise,
    rows,
    speed,
)

BATCHES = Batches(initial=128, most=4096, local_least=32, local_most={"A100": 1024, "L4": 256})
NODES = {"A100": (8, 2), "L4": (4, 3)}
QUIET = [Gradient(128, 10.0, 1.0)]  # hardly any noise: larger batches are worth nothing
NOISY = [Gradient(128, 0.001, 1000.0)]  # all noise: each example counts


def times(chip, devices, nodes, compute_ms, sync_ms, batches=(64, 128, 256)):
    return [
        Step(chip, devices, nodes, local, (10 + compute_ms * local + sync_ms) / 1e3, sync_ms / 1e3)
        for local in batches
    ]


def test_noise_decides_what_a_larger_batch_is_worth():
    assert gain(QUIET, 4096, 128) == pytest.approx(1.1, abs=0.01)
    assert gain(NOISY, 4096, 128) == pytest.approx(32, rel=0.01)
    assert gain(QUIET, 128, 128) == gain(NOISY, 128, 128) == 1.0
    assert gain([], 4096, 128) == 1.0


def test_gain_is_interpolated_between_batches_and_stays_beyond():
    both = [Gradient(128, 1.0, 10.0), Gradient(512, 3.0, 30.0)]
    middle = gain([Gradient(320, 2.0, 20.0)], 320, 128)
    assert gain(both, 320, 128) == pytest.approx(middle)
    assert gain(both, 64, 128) == 1.0
    assert gain(both, 1024, 128) == pytest.approx(gain(both[1:], 1024, 128))


def test_noise_is_what_replicas_disagree_about():
    # Truth: squared norm 4, variance 12 at a local batch of 32 (of 4 replicas), so 3 at 128.
    found = noise(4, 128, 128, mean_square=4.0 + 12.0, square_mean=4.0 + 12.0 / 4)
    assert found == Gradient(128, pytest.approx(4.0), pytest.approx(3.0))
    assert noise(2, 128, 128, mean_square=1.0, square_mean=1.2).variance == 0.0


def test_lines():
    assert line([]) == Line(0.0, 0.0)
    assert line([(3.0, 5.0)]) == Line(5.0, 0.0)
    found = line([(1.0, 3.0), (2.0, 5.0), (3.0, 7.0)])
    assert (found.base, found.slope) == (pytest.approx(1.0), pytest.approx(2.0))
    assert line([(1.0, 5.0), (2.0, 3.0)]) == Line(4.0, 0.0)
    through_zero = line([(1.0, 0.5), (2.0, 3.0)])
    assert through_zero.base == 0.0
    assert through_zero.slope > 0.0


def test_step_times_are_taken_apart():
    found = speed([*times("A100", 2, 1, 1.0, 4.0), *times("A100", 8, 1, 1.0, 16.0)], "A100")
    assert found.compute.at(512) == pytest.approx(0.522)
    assert found.sync_s(1, 1) == 0.0
    assert found.sync_s(5, 1) == pytest.approx(0.010)
    assert found.sync_s(8, 2) == pytest.approx(0.016), "unknown over nodes: as on one"
    assert speed([], "A100") is None


def test_rows_reach_twice_what_was_seen():
    found = rows(times("A100", 1, 1, 1.0, 0.0), NOISY, BATCHES, NODES)
    assert [each.devices for each in found["A100"]] == [1, 2]
    assert "L4" not in found
    found = rows(times("A100", 6, 1, 1.0, 1.0), NOISY, BATCHES, NODES)
    assert [(each.devices, each.nodes) for each in found["A100"]][7:9] == [(8, 1), (9, 2)]
    assert found["A100"][-1].devices == 12


def test_noisy_gradients_scale_and_quiet_ones_do_not():
    steps = [*times("A100", 2, 1, 1.0, 5.0), *times("A100", 4, 1, 1.0, 6.0)]
    noisy = rows(steps, NOISY, BATCHES, NODES)["A100"]
    quiet = rows(steps, QUIET, BATCHES, NODES)["A100"]
    assert noisy[7].per_s > 5 * noisy[0].per_s
    assert noisy[7].batch == 4096
    assert quiet[3].per_s < 4 * quiet[0].per_s
    assert quiet[0].batch == 128
    assert noisy[0].row.per_s == noisy[0].per_s


def test_what_memory_does_not_hold_is_accumulated():
    only = Batches(initial=2048, most=2048, local_least=32, local_most={"L4": 256})
    found = rows(times("L4", 1, 1, 1.0, 0.0), NOISY, only, NODES)["L4"]
    assert (found[0].local_batch, found[0].accumulation, found[0].batch) == (256, 7, 2048)
    assert (found[1].local_batch, found[1].accumulation, found[1].batch) == (256, 3, 2048)


def test_a_chip_that_was_tried_on_one_device_borrows_the_exchange():
    slow = times("L4", 1, 1, 4.0, 0.0)
    alone = rows(slow, NOISY, BATCHES, NODES)["L4"]
    with_other = rows([*slow, *times("A100", 2, 1, 1.0, 50.0)], NOISY, BATCHES, NODES)["L4"]
    assert with_other[0].per_s == alone[0].per_s
    assert with_other[1].per_s < alone[1].per_s


def test_counts_with_more_than_the_largest_batch_are_left_out():
    tiny = Batches(initial=8, most=64, local_least=16, local_most={"A100": 64})
    found = rows(times("A100", 4, 1, 1.0, 1.0), NOISY, tiny, NODES)["A100"]
    assert [each.devices for each in found] == [1, 2, 3, 4]
    assert all(8 <= each.batch <= 64 for each in found)
