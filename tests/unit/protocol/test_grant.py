"""Billing's grants: each transition, and what must hold for any sequence of them."""

from __future__ import annotations

from dataclasses import replace

from gridlease_billing.domain import grant
from gridlease_billing.domain.grant import (
    Ask,
    Cause,
    Funds,
    Granted,
    GrantRow,
    Phase,
    Quote,
    Refused,
    Report,
    State,
    Terms,
    authorize,
    close,
    expire,
    fold,
    settle,
)
from gridlease_kernel.money import hold_nano
from hypothesis import given
from hypothesis import strategies as st

TERMS = Terms(grant_ms=120_000, hold_ttl_ms=60_000, late_after_ms=1_000_000)
QUOTE = Quote(3_600_000_000)  # 1,000,000 nano-units a second
RICH = Funds(10**18)
S = 1_000


def ask(lease_id="a", **fields):
    return Ask(lease_id, **{"job": "j", "notice_ms": 30 * S, **fields})


def held(*asks, now=0, funds=RICH):
    asks = asks or (ask(),)
    return authorize({}, asks, {a.lease_id: QUOTE for a in asks}, funds, now, TERMS).rows


def settled(rows, reports, now, funds=RICH, quote=QUOTE):
    rows = [rows] if isinstance(rows, GrantRow) else rows
    quotes = {row.lease_id: quote for row in rows}
    return settle(rows, {r.lease_id: r for r in reports}, quotes, funds, now, TERMS)


def report(lease_id="a", ran_s=0, *, phase=Phase.STARTING, final=False, spool="s1", segment=1):
    counters = {(segment, grant.RUN_METER): ran_s * 10**9} if ran_s else {}
    return Report(lease_id, spool, phase, final, counters)


def opened(now=0):
    (row,) = held(now=now)
    return settled(row, [report(phase=Phase.KNOWN)], now).rows[0]


class TestAuthorize:
    def test_holds_a_grant_and_its_notice(self):
        (row,) = held(now=5)
        assert row.state is State.HELD
        assert row.held_nano == hold_nano(QUOTE.rate_nano_per_hour, 150 * S)
        assert row.ends_at_ms == 5 + 60 * S

    def test_inserts_only(self):
        fenced = close(opened(), "a", 0, Cause.STOPPED, 10, TERMS).row
        again = authorize({"a": fenced}, [ask()], {"a": QUOTE}, RICH, 20, TERMS)
        assert again.rows == ()
        assert again.answers == (Refused("a", "LEASE_FENCED"),)

    def test_a_retry_of_a_live_one_is_answered_alike(self):
        (row,) = held()
        again = authorize({"a": row}, [ask()], {"a": Quote(7)}, Funds(0), 20, TERMS)
        assert again.rows == ()
        assert again.answers == (Granted("a", QUOTE.rate_nano_per_hour),)

    def test_all_or_none(self):
        both = [ask("a"), ask("b")]
        one = hold_nano(QUOTE.rate_nano_per_hour, 150 * S)
        quotes = {"a": QUOTE, "b": QUOTE}
        refused = authorize({}, both, quotes, Funds(2 * one - 1), 0, TERMS)
        assert refused.rows == ()
        assert {a.reason for a in refused.answers} == {Cause.FUNDS_EXHAUSTED}
        assert len(authorize({}, both, quotes, Funds(2 * one), 0, TERMS).rows) == 2

    def test_a_budget_and_a_price_limit_refuse_with_their_own_reasons(self):
        dear = ask(max_rate_nano_per_hour=1)
        budget = authorize({}, [ask()], {"a": QUOTE}, Funds(10**18, 1), 0, TERMS)
        price = authorize({}, [dear], {"a": QUOTE}, RICH, 0, TERMS)
        assert budget.answers == (Refused("a", Cause.BUDGET_EXHAUSTED),)
        assert price.answers == (Refused("a", Cause.PRICE_ABOVE_MAX),)

    def test_a_close_that_came_first_leaves_nothing_to_authorise(self):
        tombstone = close(None, "a", 0, Cause.STOPPED, 0, TERMS)
        assert (tombstone.row.state, tombstone.wait_ms) == (State.FINAL, 0)
        late = authorize({"a": tombstone.row}, [ask()], {"a": QUOTE}, RICH, 1, TERMS)
        assert late.rows == ()


class TestSettle:
    def test_the_first_opens_and_pins_the_spool(self):
        (row,) = held()
        after = settled(row, [report(phase=Phase.KNOWN)], 10 * S)
        (row,) = after.rows
        assert (row.state, row.spool_id, row.ends_at_ms) == (State.OPEN, "s1", 130 * S)
        assert after.answers[0].valid_for_ms == 120 * S
        assert not after.answers[0].last

    def test_renews_from_now_and_charges_what_ran(self):
        after = settled(opened(), [report(ran_s=55)], 60 * S)
        (row,), (effect,) = after.rows, after.effects
        assert row.ends_at_ms == 180 * S
        assert effect.charge_nano == 55 * 10**6
        assert row.held_nano == hold_nano(QUOTE.rate_nano_per_hour, (180 - 55 + 30) * S)

    def test_a_young_grant_is_answered_with_the_remainder(self):
        after = settled(opened(), [report()], 10 * S)
        assert after.rows[0].ends_at_ms == 120 * S
        assert after.answers[0].valid_for_ms == 110 * S

    def test_another_spool_gets_nothing_and_pins_nothing(self):
        after = settled(opened(), [report(spool="s2", ran_s=9)], 60 * S)
        assert after.answers[0].reason == "SPOOL_MISMATCH"
        assert (after.answers[0].valid_for_ms, after.answers[0].last) == (0, True)
        assert after.rows[0] == opened()

    def test_another_spools_last_word_counts_only_when_all_time_is_over(self):
        fenced = close(opened(), "a", 0, Cause.STOPPED, 10 * S, TERMS).row
        last = report(spool="s2", phase=Phase.EXITED, final=True)
        soon = fenced.ends_at_ms + TERMS.margin_ms
        assert not settled(fenced, [last], soon - 1).answers[0].final_acknowledged
        assert settled(fenced, [last], soon).answers[0].final_acknowledged

    def test_a_refusal_leaves_the_prepaid_notice(self):
        now = 110 * S
        after = settled(opened(), [report(ran_s=100)], now, funds=Funds(0))
        (row,), (answer,) = after.rows, after.answers
        assert (row.state, row.cause) == (State.FENCED, Cause.FUNDS_EXHAUSTED)
        assert (answer.last, answer.valid_for_ms) == (True, 30 * S)
        assert settled(row, [report(ran_s=139)], 139 * S).effects[0].charge_nano == 39 * 10**6

    def test_usage_after_fencing_is_charged_and_never_beyond_the_grant(self):
        fenced = close(opened(), "a", 0, Cause.STOPPED, 10 * S, TERMS).row
        after = settled(fenced, [report(ran_s=125, phase=Phase.EXITED, final=True)], 130 * S)
        assert after.rows[0].charged_nano == 120 * 10**6
        assert after.effects[0].suspense_ns == 5 * 10**9
        assert (after.rows[0].state, after.rows[0].held_nano) == (State.FINAL, 0)
        assert after.answers[0].final_acknowledged

    def test_after_final_usage_is_recorded_not_charged(self):
        final = settled(opened(), [report(ran_s=5, phase=Phase.EXITED, final=True)], 9 * S).rows[0]
        late = settled(final, [report(ran_s=8)], 20 * S)
        assert late.effects[0] == grant.Effect("a", late_ns=3 * 10**9)

    def test_another_price_opens_a_segment_and_each_counts_on_its_own(self):
        dear = Quote(2 * QUOTE.rate_nano_per_hour)
        (row,) = settled(opened(), [report(ran_s=60)], 60 * S, quote=dear).rows
        assert [s.number for s in row.segments] == [1, 2]
        assert row.held_nano == hold_nano(dear.rate_nano_per_hour, 150 * S) + 1
        both = replace(report(), counters={(1, "run"): 61 * 10**9, (2, "run"): 10 * 10**9})
        (row,) = settled(row, [both], 71 * S, quote=dear).rows
        assert row.charged_nano == (61 + 20) * 10**6

    def test_a_price_above_the_limit_is_a_refusal(self):
        row = opened()
        row = replace(row, ask=replace(row.ask, max_rate_nano_per_hour=QUOTE.rate_nano_per_hour))
        after = settled(row, [report()], 60 * S, quote=Quote(QUOTE.rate_nano_per_hour + 1))
        assert after.rows[0].cause is Cause.PRICE_ABOVE_MAX

    def test_an_unknown_lease_gets_nothing(self):
        answer = grant.unknown(report(final=True))
        assert (answer.valid_for_ms, answer.last, answer.final_acknowledged) == (0, True, True)


class TestGang:
    def rows(self):
        a, b = held(ask("a", gang="g"), ask("b", gang="g"))
        return settled([a, b], [report("a", phase=Phase.KNOWN)], 0).rows

    def test_the_first_member_decides_for_all(self):
        both = settled(self.rows(), [report("b", phase=Phase.KNOWN)], S).rows
        after = settled(both, [report("a")], 60 * S).rows
        assert [row.ends_at_ms for row in after] == [180 * S, 180 * S]

    def test_a_member_that_prepares_keeps_its_hold(self):
        (_, b) = settled(self.rows(), [report("a")], 59 * S).rows
        assert (b.state, b.ends_at_ms) == (State.HELD, 119 * S)

    def test_a_refusal_fences_all(self):
        a, b = settled(self.rows(), [report("a")], 59 * S, funds=Funds(0)).rows
        assert (a.state, b.state) == (State.FENCED, State.FINAL)
        assert b.held_nano == 0


class TestCloseAndExpire:
    def test_close_returns_what_remains_and_is_idempotent(self):
        first = close(opened(), "a", 0, Cause.STOPPED, 50 * S, TERMS)
        again = close(first.row, "a", 0, Cause.NODE_LOST, 60 * S, TERMS)
        assert (first.wait_ms, again.wait_ms) == (70 * S, 60 * S)
        assert again.row == first.row

    def test_notice_extends_once_as_far_as_it_was_prepaid(self):
        closed = close(opened(), "a", 10**9, Cause.STOPPED, 110 * S, TERMS)
        assert closed.wait_ms == 30 * S
        assert closed.effect.hold_nano <= 0
        assert close(closed.row, "a", 10**9, Cause.STOPPED, 120 * S, TERMS).wait_ms == 20 * S

    def test_never_granted_means_no_wait(self):
        (row,) = held()
        closed = close(row, "a", 30 * S, Cause.PREEMPTED, 1, TERMS)
        assert (closed.wait_ms, closed.row.state, closed.row.held_nano) == (0, State.FINAL, 0)

    def test_a_suspect_clock_waits_a_whole_grant(self):
        closed = close(opened(), "a", 0, Cause.STOPPED, 119 * S, TERMS, clock_suspect=True)
        assert closed.wait_ms >= 120 * S

    def test_time_alone(self):
        (row,) = held()
        assert expire(row, 60 * S - 1, TERMS) is row
        assert expire(row, 60 * S, TERMS).cause is Cause.HOLD_ENDED
        ended = expire(opened(), 120 * S, TERMS)
        assert (ended.state, ended.cause) == (State.FENCED, Cause.GRANT_ENDED)
        assert expire(ended, 120 * S + TERMS.late_after_ms, TERMS).state is State.FINAL
        assert close(ended, "a", 30 * S, Cause.STOPPED, 130 * S, TERMS).wait_ms == 0


counter_sets = st.lists(
    st.dictionaries(st.tuples(st.integers(1, 3), st.just("run")), st.integers(0, 10**12)),
    max_size=6,
)


@given(counter_sets, st.randoms(use_true_random=False))
def test_fold_ignores_order_and_multiplicity(messages, random):
    def folded(them):
        total = {}
        for message in them:
            total = fold(total, message)
        return total

    shuffled = messages + [random.choice(messages) for _ in messages]
    random.shuffle(shuffled)
    assert folded(shuffled) == folded(messages)


steps = st.lists(
    st.tuples(
        st.sampled_from(["settle", "settle", "settle", "close", "final", "poor"]),
        st.integers(0, 90_000),  # ms later
        st.integers(0, 110),  # ran, percent of the time that has passed
        st.sampled_from([1_000_000_007, 3_600_000_000, 9_999_999_999]),
    ),
    max_size=12,
)


@given(steps)
def test_any_life_is_charged_within_its_grant_and_its_hold(life):
    now, ran_ns, segment = 0, {}, 1
    funds = 10**9
    (row,) = held()
    spent = row.held_nano
    for what, later_ms, percent, rate in life:
        now += later_ms
        before = row
        if what == "close":
            closed = close(row, "a", 30 * S, Cause.STOPPED, now, TERMS)
            row, effect = closed.row, closed.effect
        else:
            if row.segments:
                key = (segment, grant.RUN_METER)
                ran_ns[key] = ran_ns.get(key, 0) + later_ms * percent * 10_000
            told = Report("a", "s1", Phase.STARTING, what == "final", dict(ran_ns))
            left = Funds(0 if what == "poor" else funds - spent)
            after = settle([row], {"a": told}, {"a": Quote(rate)}, left, now, TERMS)
            (row,), (effect,) = after.rows, after.effects
            segment = max(segment, after.answers[0].segment)
        spent += effect.charge_nano + effect.hold_nano
        assert effect.charge_nano >= 0
        assert row.ends_at_ms >= before.ends_at_ms or not before.ever_granted
        assert before.state in (State.HELD, State.OPEN) or row.ends_at_ms == before.ends_at_ms
        assert list(State).index(row.state) >= list(State).index(before.state)
        assert sum(grant.chargeable_ns(row)) <= grant.granted_ns(row)
        assert sum(grant.chargeable_ns(row)) <= sum(ran_ns.values())
        assert 0 <= row.held_nano <= grant.reserve_nano(row)
        assert effect.charge_nano <= before.held_nano or before.state is State.HELD
        assert 0 <= spent == row.charged_nano + row.held_nano <= funds
