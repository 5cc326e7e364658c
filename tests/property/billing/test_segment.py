"""What may be charged of segments that overlap, and what a hold covers."""

from gridlease_billing.domain.segment import Segment, chargeable, span_ns
from gridlease_kernel.money import HOUR_NS, hold_nano, largest_remainder
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
