"""What may be charged of segments that overlap, and what a hold covers."""

from gridlease_billing.domain.segment import Segment, chargeable, frozen, open_rate, span_ns
from gridlease_kernel.money import HOUR_NS, hold_nano, largest_remainder, rate_nano_per_hour
from hypothesis import given
from hypothesis import strategies as st


@given(
    st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 60_000)), min_size=1, max_size=4),
    st.lists(st.integers(0, 10**14), min_size=4, max_size=4),
)
def test_no_more_than_was_granted_and_no_more_in_sum(steps, told):
    segments, starts_ms, ends_ms = [], 0, 0
    for number, (later_ms, lasts_ms) in enumerate(steps, start=1):
        starts_ms = min(starts_ms + later_ms, ends_ms) if segments else 0
        ends_ms = max(ends_ms, starts_ms + lasts_ms)
        segments.append(Segment(number, 1, 1, starts_ms, ends_ms))
    counters = {(it.number, "run"): told[it.number - 1] for it in segments}
    spans = chargeable(tuple(segments), counters)
    assert sum(spans) <= span_ns(tuple(segments))
    for it, ns in zip(segments, spans, strict=True):
        assert ns <= min(it.granted_ns, told[it.number - 1])
    if sum(told) >= 4 * 10**14:
        assert sum(spans) == span_ns(tuple(segments))


@given(st.integers(0, 2_500_000_000_000), st.integers(0, 10**9))
def test_a_hold_covers_its_span(rate, span_ms):
    exact = rate * span_ms * 1_000_000
    assert exact <= hold_nano(rate, span_ms) * HOUR_NS < exact + HOUR_NS


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=8))
def test_the_largest_remainders_are_rounded_up(parts):
    step = 10_000_000
    found = largest_remainder(parts, step)
    assert sum(found) == (sum(parts) + step // 2) // step * step
    up = [part % step for part, it in zip(parts, found, strict=True) if it > part]
    down = [
        part % step for part, it in zip(parts, found, strict=True) if it <= part and part % step
    ]
    assert min(up, default=step) >= max(down, default=0)


def test_a_segment_before_one_that_was_used_is_over():
    segments = (Segment(1, 9, 1, 0, 60_000), Segment(2, 5, 2, 30_000, 90_000))
    assert open_rate(segments) == (9, 2)
    over = frozen(segments, {(1, "run"): 30 * 10**9, (2, "run"): 1})
    assert [it.frozen_ns for it in over] == [30 * 10**9, None]
    assert open_rate(over) == (5, 1)
    late = {(1, "run"): 55 * 10**9, (2, "run"): 20 * 10**9}
    assert chargeable(over, late) == (30 * 10**9, 20 * 10**9)


def test_the_dearest_rate_is_held_for_and_a_rate_is_rounded_half_up():
    assert open_rate((Segment(1, 5, 1, 0, 9), Segment(2, 9, 2, 1, 9), Segment(3, 7, 3, 2, 9))) == (
        9,
        3,
    )
    assert [rate_nano_per_hour(price, 500) for price in (1, 2, 3)] == [1, 1, 2]
