"""Thinning: when it is done changes nothing, counters keep their ends, and it stays in bounds."""

from gridlease_agent.domain.thinning import HOUR_MS, LADDER, Mark, most_kept, surplus
from hypothesis import given
from hypothesis import strategies as st

SPANS = st.lists(st.integers(1, 40_000), min_size=1, max_size=300)


def marks(spans):
    at_ms, found = 0, []
    for sequence, span in enumerate(spans, start=1):
        at_ms += span
        found.append(Mark(sequence, at_ms))
    return found


def thin(those, now_ms):
    gone = set(surplus(those, now_ms))
    return [mark for mark in those if mark.sequence not in gone]


@given(SPANS, st.integers(0, 8 * HOUR_MS), st.integers(0, 8 * HOUR_MS))
def test_twice_is_as_once(spans, age_ms, later_ms):
    those = marks(spans)
    now = those[-1].at_ms + age_ms
    assert thin(thin(those, now), now) == thin(those, now)
    assert thin(thin(those, now), now + later_ms) == thin(those, now + later_ms)
    assert thin(thin(those, now), None) == thin(those, None)


@given(SPANS, st.integers(0, 8 * HOUR_MS))
def test_every_span_keeps_its_last(spans, age_ms):
    those = marks(spans)
    now = those[-1].at_ms + age_ms
    kept = thin(those, now)
    assert kept[-1] == those[-1]
    for rung in LADDER:
        last = {mark.at_ms // rung.every_ms: mark for mark in those}
        assert set(last.values()) <= set(kept) | {
            mark for mark in last.values() if now - mark.at_ms > rung.beyond_ms
        }
    minutes = {mark.at_ms // LADDER[-1].every_ms: mark for mark in those}
    assert set(minutes.values()) <= set(kept)


@given(SPANS, st.integers(0, 8 * HOUR_MS))
def test_the_young_are_all_kept_and_the_old_are_few(spans, age_ms):
    those = marks(spans)
    now = those[-1].at_ms + age_ms
    kept = thin(those, now)
    young = [mark for mark in those if now - mark.at_ms < LADDER[0].beyond_ms]
    assert kept[len(kept) - len(young) :] == young
    for rung in LADDER:
        old = [x.at_ms // rung.every_ms for x in kept if now - x.at_ms > rung.beyond_ms + 60_000]
        assert len(old) == len(set(old))


def test_a_day_at_one_a_second():
    those = [Mark(n, n * 1000) for n in range(24 * 3600)]
    assert len(thin(those, 24 * HOUR_MS)) <= most_kept(24)
