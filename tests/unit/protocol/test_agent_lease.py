"""The agent's leases: grants, starts, exits, restarts, and the order of what is to be done."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gridlease_agent.domain import lease as core
from gridlease_agent.domain.lease import Answer
from gridlease_agent.domain.spool import (
    Clocks,
    Deadline,
    ExitRecord,
    Phase,
    Shim,
    StopOrder,
    Wanted,
)
from gridlease_agent.domain.step import (
    Delete,
    Extend,
    Kill,
    Scrub,
    Settle,
    Start,
    Stop,
    next_steps,
)
from hypothesis import given
from hypothesis import strategies as st

S = 10**9
WANTED = Wanted("a", ("d0",))
ALIVE = frozenset({"a"})


def at(seconds, boot="b1", raw=None):
    return Clocks(boot, seconds * S, (seconds if raw is None else raw) * S)


def answer(valid_s=120, *, last=False, segment=1, final=False, reason=""):
    return Answer("a", valid_s * 1_000, last, reason, segment, final)


def known(*run, generation=1):
    spool = core.scrubbed(core.new_spool("s1", ("d0", "d1")), ("d0", "d1"))
    return core.apply_desired_set(spool, at(0), generation, run or (WANTED,), ())


def granted(valid_s=120):
    return core.grant_answer(known(), at(0), at(1), answer(valid_s))


def running():
    return core.observe_ready(core.started(granted(), "a"), "a", 2 * S)


def record(ended_s, code=0):
    return ExitRecord("b1", code, "EXITED", 2 * S, ended_s * S)


def shim(ends_s=120, boot="b1"):
    return {"a": Shim("a", ("d0",), Deadline(boot, ends_s * S, ends_s * S), 2 * S)}


def row(spool):
    return spool.rows["a"]


class TestDesiredSet:
    def test_an_older_one_is_dropped(self):
        spool = known(generation=5)
        assert core.apply_desired_set(spool, at(1), 4, (), ()) is spool

    def test_the_same_again_changes_nothing(self):
        spool = known()
        assert core.apply_desired_set(spool, at(9), 1, (WANTED,), ()) == spool

    def test_a_stop_before_the_start_never_starts(self):
        spool = core.apply_desired_set(granted(), at(3), 2, (), (StopOrder("a", 30_000),))
        assert row(spool).phase is Phase.CLEAN
        assert row(spool).exit.reason == "STOPPED"
        assert not row(spool).gone

    def test_a_stop_of_a_running_one_has_its_notice_once(self):
        order = (StopOrder("a", 30_000),)
        spool = core.apply_desired_set(running(), at(10), 2, (), order)
        assert row(spool).stop_at_ns == 40 * S
        assert row(core.apply_desired_set(spool, at(20), 3, (), order)).stop_at_ns == 40 * S

    def test_the_first_word_on_why_it_stops_stays(self):
        first = (StopOrder("a", 30_000, "PREEMPTED", "Another needs its place."),)
        spool = core.apply_desired_set(running(), at(10), 2, (), first)
        assert row(spool).stop_reason == "PREEMPTED"
        again = core.apply_desired_set(spool, at(11), 3, (), (StopOrder("a", 1_000, "NODE_LOST"),))
        assert row(again).stop_at_ns == 12 * S
        assert row(again).stop_reason == "PREEMPTED"
        [stop] = next_steps(again, at(11), shim(), (), 0, 5_000)
        assert stop == Stop("a", 12 * S, "STOPPED", "PREEMPTED", "Another needs its place.")

    def test_no_longer_named_is_stopped_at_once(self):
        assert row(core.apply_desired_set(running(), at(10), 2, (), ())).stop_at_ns == 10 * S

    def test_a_stop_of_an_unknown_one_leaves_a_row_that_has_ended(self):
        spool = core.apply_desired_set(core.new_spool("s", ()), at(0), 1, (), (StopOrder("a", 0),))
        assert row(spool).phase >= Phase.EXITED


class TestGrant:
    def test_counts_from_when_the_request_was_sent(self):
        assert row(granted()).deadline == Deadline("b1", 120 * S, 120 * S)

    def test_the_latest_of_all_answers_holds(self):
        spool = core.grant_answer(granted(), at(10), at(50), answer(60))
        assert row(spool).deadline.boottime_ns == 120 * S

    def test_suspend_counts(self):
        assert row(granted()).deadline.left_ns(at(119, raw=20)) == 1 * S
        assert row(granted()).deadline.left_ns(at(20, raw=119)) == 1 * S
        assert row(granted()).deadline.left_ns(at(130, raw=20)) == 0

    def test_a_refusal_before_the_start_ends_it(self):
        spool = core.grant_answer(known(), at(0), at(1), answer(0, last=True, reason="X"))
        assert (row(spool).phase, row(spool).exit.reason) == (Phase.CLEAN, "X")

    def test_a_refusal_while_it_runs_leaves_the_deadline(self):
        spool = core.grant_answer(running(), at(60), at(61), answer(0, last=True))
        assert (row(spool).phase, row(spool).last) == (Phase.STARTING, True)
        assert row(spool).deadline == row(running()).deadline

    def test_only_an_ended_lease_is_acknowledged(self):
        assert not row(core.grant_answer(running(), at(3), at(4), answer(final=True))).gone
        spool = core.observe_exit(running(), "a", record(9))
        spool = core.grant_answer(spool, at(10), at(11), answer(0, final=True))
        assert not row(spool).gone
        assert row(core.scrubbed(spool, ("d0",))).gone


class TestStart:
    def test_needs_everything_at_once(self):
        spool = granted()
        assert core.may_start(spool, "a", at(5), ())
        assert not core.may_start(spool, "a", at(5), ("d0",))
        assert not core.may_start(spool, "a", at(120), ())
        assert not core.may_start(spool, "a", at(5, boot="b2"), ())
        assert not core.may_start(known(), "a", at(5), ())
        assert not core.may_start(replace(spool, dirty=frozenset(("d0",))), "a", at(5), ())
        assert not core.may_start(core.started(spool, "a"), "a", at(5), ())
        assert not core.may_start(replace(spool, named=frozenset()), "a", at(5), ())

    def test_writes_the_phase_and_the_dirty_device_together(self):
        spool = core.started(granted(), "a")
        assert (row(spool).phase, spool.dirty) == (Phase.STARTING, {"d0"})

    def test_is_given_up_after_its_time(self):
        spool = known(replace(WANTED, start_by_ms=5_000))
        assert row(core.ticked(spool, at(4), ALIVE)).phase is Phase.KNOWN
        assert row(core.ticked(spool, at(5), ALIVE)).exit.reason == "START_BY_PASSED"


class TestMeter:
    def test_counts_from_ready_to_exit(self):
        assert row(core.ticked(running(), at(10), ALIVE)).counters == {(1, "run"): 8 * S}

    def test_a_task_not_seen_alive_is_not_counted_on(self):
        spool = core.ticked(running(), at(10), ALIVE)
        assert row(core.ticked(spool, at(20), ())).counters == {(1, "run"): 8 * S}
        ended = core.observe_exit(running(), "a", record(12))
        assert row(ended).counters == {(1, "run"): 10 * S}
        assert row(ended).exit.ran_ns == 10 * S

    def test_a_new_segment_counts_from_when_it_was_heard_of(self):
        spool = core.grant_answer(running(), at(60), at(62), answer(segment=2))
        assert row(core.ticked(spool, at(70), ALIVE)).counters == {
            (1, "run"): 60 * S,
            (2, "run"): 8 * S,
        }

    @given(st.lists(st.integers(2, 10_000), max_size=8))
    def test_however_often_it_is_read_it_is_the_same(self, readings):
        spool = running()
        for seconds in sorted(readings):
            spool = core.ticked(spool, at(seconds), ALIVE)
        assert row(core.ticked(spool, at(10_000), ALIVE)).counters == {(1, "run"): 9_998 * S}


class TestRecover:
    def test_the_same_boot_adopts_what_lives(self):
        spool = core.recover(running(), at(50), shim(ends_s=200), {})
        assert row(spool).phase is Phase.STARTING
        assert row(spool).deadline.boottime_ns == 200 * S

    @pytest.mark.parametrize("boot", ["b1", "b2"])
    def test_an_exit_file_tells_code_and_time(self, boot):
        spool = core.recover(running(), at(50, boot=boot), {}, {"a": record(40, code=7)})
        assert (row(spool).exit.code, row(spool).exit.ran_ns) == (7, 38 * S)

    def test_neither_means_that_the_start_was_lost(self):
        assert row(core.recover(running(), at(50), {}, {})).exit.reason == "START_LOST"

    def test_a_reboot_ends_with_the_last_counters_on_disk(self):
        spool = core.recover(core.ticked(running(), at(30), ALIVE), at(1, boot="b2"), {}, {})
        assert (row(spool).exit.reason, row(spool).exit.ran_ns) == ("NODE_REBOOT", 28 * S)

    def test_a_reboot_voids_grants(self):
        spool = core.recover(granted(), at(1, boot="b2"), {}, {})
        assert (row(spool).phase, row(spool).deadline) == (Phase.KNOWN, None)
        assert not core.may_start(spool, "a", at(1, boot="b2"), ())

    def test_a_sandbox_without_a_row_keeps_its_device(self):
        empty = core.scrubbed(core.new_spool("s2", ("d0", "d1")), ("d0", "d1"))
        spool = core.recover(empty, at(50), shim(), {})
        assert spool.dirty == {"d0"}
        assert not [s for s in next_steps(spool, at(50), shim(), (), None, 1) if s == Scrub]

    def test_a_new_spool_trusts_no_device(self):
        assert core.new_spool("s", ("d0", "d1")).dirty == {"d0", "d1"}


class TestSteps:
    def steps(self, spool, now, shims=None, prepared=("a",), asked_ns=0):
        return next_steps(spool, now, shims or {}, prepared, asked_ns, 5_000)

    def test_a_known_lease_asks_for_its_first_grant_while_it_prepares(self):
        assert self.steps(known(), at(1), prepared=(), asked_ns=None) == (Settle(),)

    def test_a_granted_and_prepared_one_starts(self):
        (step,) = self.steps(granted(), at(5))
        assert isinstance(step, Start)
        assert step.spool_after == core.started(granted(), "a")

    def test_two_leases_never_start_on_one_device(self):
        spool = known(WANTED, Wanted("b", ("d0",)))
        for lease_id in ("a", "b"):
            spool = core.grant_answer(spool, at(0), at(0), replace(answer(), lease_id=lease_id))
        assert [s.lease_id for s in self.steps(spool, at(5), prepared=("a", "b"))] == ["a"]

    def test_renewal_is_asked_at_half_of_the_grant_and_then_every_retry(self):
        assert self.steps(running(), at(59), shim()) == ()
        assert self.steps(running(), at(60), shim()) == (Settle(),)
        assert self.steps(running(), at(64), shim(), asked_ns=60 * S) == ()
        assert self.steps(running(), at(65), shim(), asked_ns=60 * S) == (Settle(),)

    def test_what_runs_is_reported_between_renewals_where_that_is_wanted(self):
        def due(spool, now_s, report_ms, asked_ns=0):
            return next_steps(spool, at(now_s), shim(), (), asked_ns, 5_000, report_ms)

        assert due(running(), 9, 10_000) == ()
        assert due(running(), 10, 10_000) == (Settle(),)
        assert due(running(), 50, 0) == ()
        assert due(core.started(granted(), "a"), 50, 10_000) == ()  # nothing runs yet
        over = core.grant_answer(running(), at(20), at(20), answer(100, last=True, reason="X"))
        assert due(over, 30, 10_000)[-1] == Settle()  # refused, and it runs until its end

    def test_the_same_grant_told_again_is_no_new_one(self):
        spool = running()
        for now_s in (10, 20, 30):
            left = replace(answer(120 - now_s), valid_for_ms=(120 - now_s) * 1_000 + 40)
            spool = core.grant_answer(spool, at(now_s), at(now_s), left)
        assert row(spool).span_ms == 120_000
        assert row(spool).deadline == row(running()).deadline
        longer = core.grant_answer(spool, at(40), at(40), answer(82))
        assert row(longer).deadline == Deadline("b1", 122 * S, 122 * S)

    def test_a_renewal_is_handed_to_the_shim(self):
        spool = core.grant_answer(running(), at(60), at(61), answer())
        assert self.steps(spool, at(61), shim()) == (Extend("a", Deadline("b1", 180 * S, 180 * S)),)

    def test_stop_then_kill(self):
        spool = core.apply_desired_set(running(), at(10), 2, (), (StopOrder("a", 30_000),))
        assert self.steps(spool, at(11), shim()) == (Stop("a", 40 * S, "STOPPED"),)
        assert self.steps(spool, at(40), shim()) == (Kill("a"),)

    def test_the_last_grant_tells_the_workload(self):
        spool = core.grant_answer(running(), at(60), at(61), answer(60, last=True, reason="X"))
        assert self.steps(spool, at(61), shim()) == (Stop("a", 120 * S, "X"),)

    def test_scrub_settle_delete(self):
        spool = core.observe_exit(running(), "a", record(9))
        assert self.steps(spool, at(10), asked_ns=None) == (Scrub(frozenset(("d0",))), Settle())
        spool = core.scrubbed(spool, ("d0",))
        spool = core.grant_answer(spool, at(10), at(11), answer(0, final=True))
        assert self.steps(spool, at(12)) == ()
        spool = core.apply_desired_set(spool, at(13), 2, (), ())
        assert self.steps(spool, at(13)) == (Delete("a"),)
        assert core.deleted(spool, "a").rows == {}
        assert core.settle_report(spool) == ()
        assert core.sync_report(spool)[0].gone

    def test_a_device_under_a_sandbox_is_not_scrubbed(self):
        assert self.steps(core.new_spool("s", ("d0",)), at(1), shim()) == ()
