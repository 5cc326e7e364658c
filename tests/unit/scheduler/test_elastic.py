"""Elastic jobs: who grows, who stays, and what jobs learn from each other."""

from dataclasses import replace

import pytest
from gridlease_scheduler.domain.sizing.elastic import Change, Policy, Snapshot, change, decide
from gridlease_scheduler.domain.sizing.lessons import Lessons, Row, learn
from gridlease_scheduler.domain.sizing.prospects import rates
from gridlease_scheduler.domain.sizing.seats import Host, Wish, seat
from gridlease_scheduler.domain.sizing.shares import Option, share

from .trainees import HOSTS, held, table, trainee


def after(*jobs, hosts=HOSTS, lessons=None, at_s=600.0):
    return decide(Snapshot(at_s, hosts, jobs), lessons or Lessons())[0]


def test_a_job_alone_starts_on_its_best_chip():
    found = after(trainee("a"))
    assert found["a"].chip == "A100"
    assert change(None, found["a"]) is Change.STARTS


def test_no_job_at_all_is_answered_with_nothing():
    assert decide(Snapshot(0.0, HOSTS, ()), Lessons()) == ({}, Lessons())
    assert after(trainee("a"), hosts=()) == {}


def test_a_job_alone_grows_where_the_gain_beats_the_restart():
    has = held("A100", a100_0=2)
    found = after(trainee("a", has=has))
    assert found["a"].devices > 2
    assert change(has, found["a"]) is Change.GROWS


def test_it_stays_where_the_gain_is_less_than_the_restart():
    has = held("A100", a100_0=4)
    flat = table(power=0.1, most=8)
    assert after(trainee("a", has=has, rows=flat))["a"] == has


def test_a_job_that_is_about_to_end_is_left_alone():
    has = held("A100", a100_0=2)
    long = trainee("a", has=has, done=0.5, device_s=20_000.0)
    assert after(long)["a"].devices > 2
    assert after(replace(long, done=0.995, device_s=2_000.0))["a"] == has


def test_all_share_where_there_are_many():
    found = after(*(trainee(f"j{i:02}") for i in range(20)))
    assert len(found) == 20
    assert sum(each.devices for each in found.values()) <= 28


def test_a_newcomer_is_let_in_when_the_cluster_is_full():
    jobs = [
        trainee("a", has=held("A100", a100_0=8, a100_1=8)),
        trainee("b", has=held("L4", l4_0=4, l4_1=4, l4_2=4)),
    ]
    found = after(*jobs, trainee("new"))
    assert "new" in found


def test_each_goes_to_the_chip_on_which_it_gains_most():
    speeds = {"x": {"L4": 1.0, "A100": 10.0}, "y": {"L4": 1.0, "A100": 1.3}}
    jobs = [
        trainee(f"{kind}{i}", rows=table(most=1, speeds=speeds[kind]), most=1)
        for kind in "xy"
        for i in range(14)
    ]
    found = after(*jobs)
    assert all(found[f"x{i}"].chip == "A100" for i in range(14))
    assert sum(found[f"y{i}"].chip == "L4" for i in range(12)) >= 12 - 2


def test_bounds_of_the_job_hold_also_where_nothing_was_tried():
    found = after(trainee("a", least=3, most=5))
    assert 3 <= found["a"].devices <= 5
    assert after(trainee("a", least=40, most=50)) == {}


def test_jobs_of_one_application_start_at_the_size_that_pays():
    pioneer = trainee("a", app="net", has=held("A100", a100_0=8), done=0.01)
    _, lessons = decide(Snapshot(0.0, HOSTS, (pioneer,)), Lessons())
    lone = after(trainee("b", app="other"), lessons=lessons)
    taught = after(trainee("b", app="net"), lessons=lessons)
    assert taught["b"].devices > lone["b"].devices


def test_what_was_measured_outweighs_estimates():
    has = held("A100", a100_0=2)
    wrong = {"A100": (Row(1, 1, 1.0), Row(2, 1, 9.0))}
    right = {"A100": (Row(1, 1, 1.0), Row(2, 1, 1.5))}
    lessons = learn(Lessons(), [trainee("a", app="n", rows=wrong), trainee("b", app="n")], 0.0)
    running = trainee("c", app="n", has=has, rows=right)
    lessons = learn(learn(lessons, [running], 60.0), [running], 120.0)
    assert rates(lessons, trainee("d", app="n"))["A100", 2] == pytest.approx(1.5, rel=0.1)


def test_the_whole_work_is_known_once_some_was_seen_done():
    has = held("A100", a100_0=1)
    rows = {"A100": (Row(1, 1, 2.0),)}
    first = trainee("a", app="n", has=has, rows=rows, done=0.0)
    lessons = learn(Lessons(), [first], 0.0)
    assert lessons.apps["n"].total is None
    lessons = learn(lessons, [first], 60.0)
    lessons = learn(lessons, [replace(first, done=0.1)], 120.0)
    assert lessons.apps["n"].total == pytest.approx(2.0 * 120 / 0.1)


def test_a_restart_is_no_work():
    has = held("A100", a100_0=1)
    rows = {"A100": (Row(1, 1, 2.0),)}
    first = trainee("a", app="n", has=has, rows=rows, restart_left_s=50.0)
    lessons = learn(Lessons(), [first], 0.0)
    lessons = learn(lessons, [replace(first, restart_left_s=0.0, done=0.1)], 60.0)
    assert lessons.apps["n"].total == pytest.approx(2.0 * 10 / 0.1)


def test_lessons_are_bounded():
    lessons = Lessons()
    for i in range(600):
        lessons = learn(lessons, [trainee(f"j{i}")], 60.0 * i)
    assert len(lessons.apps) == 500
    assert "j599" in lessons.apps
    assert list(lessons.tracks) == ["j599"]


def test_counts_beyond_what_is_known_gain_less_and_less():
    known = rates(Lessons(), trainee("a", rows={"L4": (Row(1, 1, 1.0), Row(2, 1, 1.8))}, seen=1))
    assert set(known) == {("L4", n) for n in (1, 2, 4, 8)}
    assert 1.8 < known["L4", 4] / known["L4", 2] * 1.0 + 0.2 < 2.0
    assert known["L4", 8] / known["L4", 4] < known["L4", 4] / known["L4", 2] < 1.8


def test_the_unchanged_stay_and_the_others_take_the_tightest_nodes():
    stays = held("L4", l4_0=2)
    wishes = [
        Wish("small", "L4", 2),
        Wish("stays", "L4", 2, stays),
        Wish("large", "L4", 6, held("L4", l4_1=2)),
    ]
    found = seat(HOSTS, wishes)
    assert found["stays"] == stays
    assert found["large"] == held("L4", l4_0=2, l4_1=4)
    assert found["small"] == held("L4", l4_2=2)


def test_a_job_whose_node_is_gone_is_seated_anew():
    found = seat([Host("l4-1", "L4", 4)], [Wish("a", "L4", 2, held("L4", l4_0=2))])
    assert found["a"] == held("L4", l4_1=2)
    assert seat([], [Wish("a", "L4", 2)]) == {}


def test_words_for_changes():
    two = held("L4", l4_0=2)
    assert change(None, None) is Change.WAITS
    assert change(two, two) is Change.STAYS
    assert change(two, None) is Change.STOPS
    assert change(two, held("L4", l4_0=1)) is Change.SHRINKS
    assert change(two, held("L4", l4_1=2)) is Change.MOVES
    assert change(two, held("A100", a100_0=8)) is Change.MOVES


def test_shares_find_the_best_of_a_small_case():
    jobs = [
        [Option(0, 1, 1.0), Option(0, 2, 1.9), Option(1, 1, 3.0)],
        [Option(0, 1, 1.0), Option(1, 1, 2.5)],
        [Option(1, 1, 1.2)],
    ]
    found = share(jobs, (2, 1))
    assert sum(option.value for option in found if option) == pytest.approx(4.4)
    assert share([], (2, 1)) == []
    assert share([[]], (2, 1)) == [None]


def test_a_wider_margin_never_changes_more():
    has = held("A100", a100_0=4)
    jobs = (trainee("a", has=has, rows=table(power=0.5, most=8)),)
    sticky, _ = decide(Snapshot(600.0, HOSTS, jobs), Lessons(), Policy(margin=0.9))
    assert sticky["a"] == has
