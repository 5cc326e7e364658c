"""Whatever the load: within bounds, monotone, without flapping, zero only after the idle time."""

from dataclasses import replace

from gridlease_scheduler.domain.sizing.autoscale import Load, Scaling, wanted
from hypothesis import given
from hypothesis import strategies as st

NOW_MS = 100_000_000
SCALINGS = st.builds(
    lambda least, more, target, growth, hold, idle, tolerance: Scaling(
        least, least + more + 1, target, growth, growth + hold, idle, tolerance
    ),
    st.integers(0, 4),
    st.integers(0, 30),
    st.integers(1, 20),
    st.integers(1_000, 30_000),
    st.integers(0, 300_000),
    st.integers(1, 600_000),
    st.integers(0, 30),
)
LOADS = st.lists(
    st.builds(Load, st.integers(NOW_MS - 900_000, NOW_MS), st.integers(0, 300)), max_size=60
)


def steady(scaling, in_flight, until_ms):
    """A constant load, well watched, for longer than any window."""
    step_ms = max(1, scaling.growth_ms // 2)
    count = 2 * scaling.window_ms // step_ms
    count = min(count, 3_000)
    return [Load(until_ms - i * step_ms, in_flight) for i in range(count)]


@given(LOADS, st.integers(0, 40), SCALINGS)
def test_within_bounds(loads, replicas, scaling):
    found = wanted(loads, replicas, NOW_MS, scaling)
    assert scaling.least <= found.replicas <= scaling.most
    assert found.reason.code
    assert found.reason.message


@given(LOADS, st.integers(0, 40), SCALINGS, st.lists(st.integers(0, 50), min_size=60, max_size=60))
def test_more_load_never_means_fewer(loads, replicas, scaling, more):
    higher = [
        replace(load, in_flight=load.in_flight + extra)
        for load, extra in zip(loads, more, strict=False)
    ]
    low = wanted(loads, replicas, NOW_MS, scaling)
    assert wanted(higher, replicas, NOW_MS, scaling).replicas >= low.replicas


@given(st.integers(0, 300), st.integers(0, 40), SCALINGS)
def test_constant_load_settles_and_stays(in_flight, replicas, scaling):
    loads = steady(scaling, in_flight, NOW_MS)
    first = wanted(loads, replicas, NOW_MS, scaling).replicas
    second = wanted(loads, first, NOW_MS, scaling).replicas
    settled = wanted(loads, second, NOW_MS, scaling).replicas
    assert settled == second
    assert settled <= scaling.most
    need = -(-in_flight // scaling.target)
    bearable = settled * scaling.target * (100 + scaling.tolerance_percent)
    assert bearable >= in_flight * 100 or settled == scaling.most
    assert settled <= max(need, scaling.least, first if replicas <= scaling.most else need)


@given(LOADS, st.integers(1, 40), SCALINGS)
def test_zero_only_after_the_idle_time(loads, replicas, scaling):
    if wanted(loads, replicas, NOW_MS, scaling).replicas == 0:
        idle_since = NOW_MS - scaling.idle_after_ms
        assert not any(load.in_flight for load in loads if load.at_ms >= idle_since)
        assert any(load.at_ms <= idle_since for load in loads)


@given(st.integers(1, 300), SCALINGS)
def test_a_request_wakes_what_rests(in_flight, scaling):
    assert wanted([Load(NOW_MS, in_flight)], 0, NOW_MS, scaling).replicas >= 1
