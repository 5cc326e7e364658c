"""A jump of the database's clock is seen; a slow answer is none."""

from gridlease_billing.domain.clock_jump import Reading, Watch, jumped

SECOND = 1_000_000_000


def reading(database_ms, asked_s, heard_s=None):
    heard_s = asked_s if heard_s is None else heard_s
    return Reading(database_ms, int(asked_s * SECOND), int(heard_s * SECOND))


def test_clocks_that_run_together_have_not_jumped():
    assert not jumped(reading(5_000, 0), reading(65_000, 60))
    assert not jumped(reading(5_000, 0), reading(65_900, 60))


def test_a_jump_is_seen_in_both_directions():
    assert jumped(reading(5_000, 0), reading(67_000, 60))
    assert jumped(reading(5_000, 0), reading(62_000, 60))


def test_a_slow_answer_is_no_jump():
    assert not jumped(reading(5_000, 0), reading(65_000, 55, 62))


def test_grants_of_before_a_jump_are_suspect_as_long_as_they_may_run():
    watch = Watch().seen(reading(5_000, 0), 120_000)
    assert not watch.suspect(0)
    watch = watch.seen(reading(20_000, 10), 120_000)
    assert watch.suspect(10 * SECOND)
    watch = watch.seen(reading(21_000, 11), 120_000)
    assert watch.suspect(129 * SECOND)
    assert not watch.suspect(130 * SECOND)


def test_readings_that_cross_do_not_go_back():
    newer = reading(20_000, 20)
    watch = Watch().seen(newer, 1).seen(reading(10_000, 10), 1)
    assert watch == Watch(newer)
