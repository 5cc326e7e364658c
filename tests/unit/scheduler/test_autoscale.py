"""Services follow their requests: up soon, down late, to zero and back."""

import pytest
from gridlease_scheduler.domain.sizing.autoscale import Load, Scaling, wanted

SCALING = Scaling(least=0, most=8, target=10)
NOW_MS = 10_000_000


def watched(*spans, every_ms=5_000):
    """Loads until now: (seconds, in flight) spans, the last one ends now."""
    found, at_ms = [], NOW_MS
    for seconds, in_flight in reversed(spans):
        for _ in range(max(1, seconds * 1000 // every_ms)):
            found.append(Load(at_ms, in_flight))
            at_ms -= every_ms
    return found


def ask(replicas, *spans, scaling=SCALING):
    found = wanted(watched(*spans), replicas, NOW_MS, scaling)
    return found.replicas, found.reason.code


def test_load_above_the_target_grows_at_once():
    assert ask(2, (30, 20), (15, 55)) == (6, "LOAD_ABOVE_TARGET")


def test_one_spike_is_no_trend():
    assert ask(4, (60, 30), (5, 50)) == (4, "STEADY")


def test_a_little_overload_is_borne():
    assert ask(2, (30, 22)) == (2, "STEADY")
    assert ask(2, (30, 23)) == (3, "LOAD_ABOVE_TARGET")


def test_shrinking_waits_for_the_hold_time():
    assert ask(6, (60, 55), (290, 12)) == (6, "STEADY")
    assert ask(6, (60, 55), (310, 12)) == (2, "LOAD_BELOW_TARGET")


def test_it_shrinks_to_the_largest_need_of_the_hold_time():
    assert ask(6, (600, 12), (10, 35), (100, 12)) == (4, "LOAD_BELOW_TARGET")


def test_zero_only_after_the_idle_time():
    assert ask(3, (60, 5), (590, 0)) == (1, "LOAD_BELOW_TARGET")
    assert ask(1, (60, 5), (590, 0)) == (1, "STEADY")
    assert ask(1, (60, 5), (605, 0)) == (0, "IDLE")


def test_zero_stays_until_a_request_wakes_it():
    assert ask(0, (900, 0)) == (0, "ASLEEP")
    assert ask(0, (900, 0), (5, 1)) == (1, "WOKEN")
    assert ask(0, (900, 0), (15, 31)) == (4, "WOKEN")


def test_bounds_hold_and_say_so():
    assert ask(2, (30, 500)) == (8, "AT_MOST")
    assert ask(1, (900, 0), scaling=Scaling(1, 8, 10)) == (1, "AT_LEAST")
    assert ask(0, (900, 0), scaling=Scaling(2, 8, 10)) == (2, "AT_LEAST")
    assert wanted([], 12, NOW_MS, SCALING).replicas == 8
    over = wanted(watched((30, 500)), 2, NOW_MS, SCALING).reason
    assert over.hint
    assert over.evidence == {
        "in_flight": "500.00", "target": "10", "needed": "50", "from": "2", "to": "8",
    }  # fmt: skip


def test_without_observations_nothing_changes():
    assert wanted([], 3, NOW_MS, SCALING).reason.code == "NO_OBSERVATION"
    assert wanted([Load(NOW_MS - 20_000, 90)], 3, NOW_MS, SCALING).replicas == 3
    assert wanted([Load(NOW_MS + 1, 90)], 3, NOW_MS, SCALING).replicas == 3


def test_time_that_was_not_watched_is_no_idle_time():
    loads = [Load(NOW_MS - 700_000, 0), *watched((100, 0))]
    assert wanted(loads, 2, NOW_MS, SCALING).replicas == 2


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_observations_is_of_no_matter(order):
    loads = watched((60, 55), (310, 12))[::order]
    assert wanted(loads, 6, NOW_MS, SCALING).replicas == 2
