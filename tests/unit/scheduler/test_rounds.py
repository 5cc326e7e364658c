"""Orders of jobs: what a play costs, what the search finds, and when a decision stands."""

from dataclasses import replace
from itertools import permutations
from math import inf

import pytest
from gridlease_scheduler.domain.slow import rounds
from gridlease_scheduler.domain.slow.playout import NOWHERE, Play, Rates, Release, Runner, assign
from gridlease_scheduler.domain.slow.rounds import Memory, Past, RoundJob, Search, decide

HOUR_S = 3_600.0
ONE_EACH = {"fast": 1, "slow": 1}
PLAIN = Rates(step_s=360.0, growth=0.0, switch_s=30.0, shy_s=0.0, late=0.0, unfair=0.0)


def job(name, hours, fast=1.0, slow=1.0, *, scale=1, age_s=0.0, got=0.0, pinned=False):
    """``hours`` = remaining hours at speed 1; None = unknown."""
    left = None if hours is None else hours * HOUR_S
    return RoundJob(name, scale, {"fast": fast, "slow": slow}, age_s, got, left, pinned)


def runner(*seconds, scale=1, kind=NOWHERE, late_s=inf, unfair_s=inf):
    """Seconds to its end on kind 0, 1, …; None = it does not run there."""
    options = sorted((each, at) for at, each in enumerate(seconds) if each is not None)
    return Runner(scale, tuple((at, each) for each, at in options), kind, 0.0, late_s, unfair_s)


class TestPlay:
    def test_the_cost_is_the_sum_of_the_times_to_each_end(self):
        play = Play([runner(3_570.0), runner(7_170.0)], [1], PLAIN)
        assert play.cost([0, 1]) == 3_600 + (3_600 + 7_200)
        assert play.cost([1, 0]) == 7_200 + (7_200 + 3_600)

    def test_devices_change_hands_only_at_the_end_of_a_round(self):
        assert Play([runner(100.0), runner(330.0)], [1], PLAIN).cost([0, 1]) == 130 + 360 + 360

    def test_a_job_moves_to_a_faster_kind_that_comes_free(self):
        stays = runner(3_600.0, 36_000.0, kind=1)
        play = Play([runner(330.0), stays], [1, 1], PLAIN)
        # One hundredth was done on the slow kind before the fast one came free.
        assert play.cost([0, 1]) == pytest.approx(360 + 360 + 30 + 0.99 * 3_600)

    def test_a_late_end_weighs_more(self):
        rates = replace(PLAIN, late=0.5, unfair=2.0)
        late = runner(3_570.0, late_s=3_000.0, unfair_s=3_500.0)
        assert Play([late], [1], rates).cost([0]) == 3_600 + 300 + 200

    def test_it_gives_up_above_the_limit(self):
        play = Play([runner(3_570.0)], [1], PLAIN)
        assert play.cost([0], limit=3_000.0) == inf
        assert play.cost([0], limit=3_601.0) == 3_600

    def test_devices_given_back_later_are_waited_for(self):
        play = Play([runner(330.0, scale=2)], [0], PLAIN, [Release(720.0, ((0, 2),))])
        assert play.cost([0]) == 720 + 360
        assert Play([runner(330.0, scale=2)], [1], PLAIN).cost([0]) == inf

    def test_its_work_is_bounded_by_jobs_and_releases(self):
        jobs = [runner(100.0 * at + 1) for at in range(30)]
        play = Play(jobs, [1], PLAIN, [Release(50.0 * at, ((0, 1),)) for at in range(1, 8)])
        play.cost(list(range(30)))
        assert play.visits <= 30 * (30 + 7)

    def test_who_chooses_first_takes_what_ends_soonest(self):
        jobs = [runner(100.0, 200.0), runner(100.0, 900.0), runner(50.0)]
        assert assign([0, 1, 2], jobs, [1, 1], PLAIN) == {0: 0, 1: 1}
        assert assign([2, 1, 0], jobs, [1, 1], PLAIN) == {2: 0, 1: 1}


class TestDecide:
    def test_a_short_job_with_little_to_gain_leaves_the_fast_kind(self):
        jobs = [job("short", 1, fast=1.1), job("long", 10, fast=4.0)]
        assert decide(0, ONE_EACH, jobs).run == {"short": "slow", "long": "fast"}

    def test_the_shortest_goes_first_where_only_one_can(self):
        jobs = [job("long", 10), job("short", 1), job("middle", 5)]
        assert decide(0, {"fast": 1}, jobs).run == {"short": "fast"}

    def test_a_job_that_fits_nowhere_is_left_out(self):
        jobs = [job("wide", 1, scale=2), job("still", 1, fast=0.0, slow=0.0), job("fits", 1)]
        found = decide(0, ONE_EACH, jobs)
        assert found.run == {"fits": "fast"}
        assert set(found.memory.order) == {"wide", "still", "fits"}

    def test_nothing_to_run_or_nowhere_to_run_it(self):
        assert decide(0, ONE_EACH, []).run == {}
        assert decide(0, {}, [job("a", 1)]).run == {}

    def test_a_small_gain_does_not_move_a_job(self):
        almost_done = job("a", 0.1, fast=1.5)
        held = Memory(running={"a": "slow"})
        assert decide(0, ONE_EACH, [almost_done], held).run == {"a": "slow"}
        assert decide(0, ONE_EACH, [job("a", 9, fast=1.5)], held).run == {"a": "fast"}

    def test_the_order_of_the_input_does_not_matter(self):
        jobs = [job(name, 3, fast=1 + at % 2) for at, name in enumerate("abcdef")]
        found = {str(decide(0, ONE_EACH, each)) for each in (jobs, jobs[::-1], jobs[3:] + jobs[:3])}
        assert len(found) == 1

    def test_a_pinned_job_stays_where_it_runs(self):
        jobs = [job("a", 100, slow=0.01, pinned=True), job("b", 1)]
        assert decide(0, ONE_EACH, jobs, Memory(running={"a": "slow"})).run["a"] == "slow"
        assert decide(0, {"fast": 1}, jobs, Memory(running={"a": "fast"})).run == {"a": "fast"}
        assert decide(0, ONE_EACH, jobs).run == {"a": "fast", "b": "slow"}


class TestWhenADecisionStands:
    JOBS = (job("a", 5), job("b", 6), job("c", 7))

    def found(self):
        return decide(0, ONE_EACH, self.JOBS)

    def test_nothing_new_and_it_stands(self):
        first = self.found()
        again = decide(360, ONE_EACH, self.JOBS, first.memory)
        assert again.memory is first.memory
        assert again.run == first.run

    @pytest.mark.parametrize(
        ("t_s", "free", "jobs"),
        [
            (360, ONE_EACH, JOBS[1:]),
            (360, ONE_EACH, (*JOBS, job("d", 1))),
            (360, {"fast": 1}, JOBS),
            (360, ONE_EACH, tuple(job(each.name, 5, fast=0.0) for each in JOBS)),
            (7_200, ONE_EACH, JOBS),
            (-1, ONE_EACH, JOBS),
        ],
        ids=["gone", "come", "capacity", "speed", "time", "clock back"],
    )
    def test_something_new_and_it_is_searched_again(self, t_s, free, jobs):
        again = decide(t_s, free, jobs, self.found().memory)
        assert again.memory.planned_s == t_s
        assert set(again.run.values()) <= set(free)


class TestUnknownWork:
    def test_as_much_again_as_was_received_is_assumed(self):
        jobs = [job("old", None, got=10 * HOUR_S), job("new", None)]
        assert decide(0, {"fast": 1}, jobs).run == {"new": "fast"}

    def test_an_hour_on_a_slow_kind_counts_for_what_it_did(self):
        begun = decide(0, {"slow": 1}, [job("a", None, slow=0.25)])
        later = [job("a", None, slow=0.25, age_s=2 * HOUR_S, got=2 * HOUR_S)]
        found = decide(2 * HOUR_S, {"slow": 1}, later, begun.memory)
        assert found.memory.worked["a"] == Past(2 * HOUR_S, HOUR_S / 2)

    def test_without_a_record_all_time_was_spent_well(self):
        found = decide(0, {"slow": 1}, [job("a", None, slow=0.25, got=HOUR_S)])
        assert found.memory.worked["a"] == Past(HOUR_S, HOUR_S)


class TestWaitedTooLong:
    DAY_S = 24 * HOUR_S
    A_DAY = Search(patience_s=DAY_S, longest_patience_s=DAY_S)

    def test_it_goes_first_and_takes_what_suits_it(self):
        jobs = [
            job("long", 99, age_s=self.DAY_S + 1),
            job("short", 1),
            job("later", 98, age_s=self.DAY_S),
        ]
        assert decide(0, {"fast": 1}, jobs, search=self.A_DAY).run == {"long": "fast"}

    def test_it_is_not_overtaken_at_once(self):
        jobs = [job("long", 99, age_s=self.DAY_S, got=360.0), job("short", 1)]
        held = Memory(running={"long": "fast"})
        assert decide(0, {"fast": 1}, jobs, held, self.A_DAY).run == {"long": "fast"}
        assert decide(0, {"fast": 1}, jobs, search=self.A_DAY).run == {"short": "fast"}

    def test_patience_is_as_long_as_the_work_that_is_here_and_a_week_at_most(self):
        for days, first in ((4, "short"), (6, "short"), (8, "long")):
            jobs = [job("long", 150, age_s=days * self.DAY_S), job("short", 1)]
            assert decide(0, {"fast": 1}, jobs).run == {first: "fast"}


class TestBounds:
    def test_a_thousand_jobs_cost_no_more_than_the_budget(self, monkeypatch):
        plays = []

        class Counted(Play):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                plays.append(self)

        monkeypatch.setattr(rounds, "Play", Counted)
        jobs = [
            job(f"j{at}", 1 + at % 37, fast=1 + at % 5, scale=1 + at % 3) for at in range(1_000)
        ]
        for free in ({"fast": 12, "slow": 12}, {"fast": 600, "slow": 600}):
            search = Search(visits=20_000)
            found = decide(0, free, jobs, search=search)
            assert len(found.memory.order) == 1_000
            last_play = search.depth * (search.depth + 16)
            assert plays.pop().visits <= search.visits + 3 * last_play

    def test_the_search_comes_close_to_the_best_of_all_orders(self):
        for seed in range(20):
            jobs = [
                runner(*((700 + 997 * (seed + 3 * at) % 9_000) * (1 + (seed + at) % 4 * kind)
                         for kind in (0, 1)), scale=1 + (seed * at) % 2)
                for at in range(5)
            ]  # fmt: skip
            play = Play(jobs, [2, 2], Rates())
            start = sorted(range(5), key=lambda j: jobs[j].options[0][1])
            found = play.cost(rounds._searched(play, [], [start], Search()))
            best = min(play.cost(each) for each in permutations(range(5)))
            assert best <= found <= 1.02 * best
