"""The scheduler's leases: what an observation says, and when a lease may be CLOSED."""

from __future__ import annotations

import itertools

from gridlease_scheduler.domain.lease import (
    Cause,
    Exit,
    Lease,
    Phase,
    Sighting,
    State,
    Terms,
    close_answered,
    closed,
    connected,
    desired_set,
    device_free,
    lost,
    may_close,
    observe,
    to_closing,
    wait_span_ms,
)
from hypothesis import given
from hypothesis import strategies as st

TERMS = Terms()
LEASE = Lease("a", "t", 1, "n", ("d0",))


def test_silence_says_nothing():
    assert observe([LEASE], "n", []).changed == ()


def test_another_nodes_word_says_nothing():
    assert observe([LEASE], "m", [Sighting("a", Phase.CLEAN, gone=True)]).changed == ()


def test_an_exit_closes():
    observed = observe([LEASE], "n", [Sighting("a", Phase.EXITED, Exit(3, "EXITED", 7))])
    (lease,) = observed.exited
    assert (lease.state, lease.cause, lease.exit) == (
        State.CLOSING, Cause.EXITED, Exit(3, "EXITED", 7))  # fmt: skip


def test_phases_only_go_up_in_whatever_order_reports_come():
    sightings = [
        Sighting("a", Phase.KNOWN),
        Sighting("a", Phase.STARTING),
        Sighting("a", Phase.EXITED, Exit(0, "EXITED")),
        Sighting("a", Phase.CLEAN, Exit(0, "EXITED"), gone=True),
    ]
    ends = set()
    for order in itertools.permutations(sightings + sightings[:1]):
        lease = LEASE
        for sighting in order:
            lease = next(iter(observe([lease], "n", [sighting]).changed), lease)
        ends.add(lease)
    assert len(ends) == 1


def test_the_first_cause_stays():
    lease = to_closing(to_closing(LEASE, Cause.STOPPED, 30_000), Cause.NODE_LOST, 0)
    assert (lease.cause, lease.notice_ms) == (Cause.STOPPED, 30_000)


def test_closed_needs_closes_answer_and_then_gone_or_the_wait():
    lease = to_closing(LEASE, Cause.NODE_LOST, 0)
    (gone,) = observe([lease], "n", [Sighting("a", Phase.CLEAN, gone=True)]).changed
    assert not may_close(gone, 10**9)
    assert may_close(close_answered(gone, 60_000, 0, TERMS), 0)
    waiting = close_answered(lease, 60_000, 1_000, TERMS)
    end = 1_000 + 60_000 + 60 + 120 + 5_000
    assert (may_close(waiting, end - 1), may_close(waiting, end)) == (False, True)
    assert closed(waiting, end).state is State.CLOSED


def test_an_active_lease_ignores_a_late_answer_of_close():
    assert close_answered(LEASE, 0, 0, TERMS) is LEASE


@given(st.integers(0, 10**8), st.integers(1, 10**8), st.integers(0, 5_000), st.integers(0, 10**8))
def test_the_wait_covers_the_agents_deadline(valid_ms, grant_ms, drift_ppm, used_ms):
    """Deadline on a slow clock, wait on a fast one: any two clocks differ by at most rho."""
    valid_ms = min(valid_ms, grant_ms)
    used_ms = min(used_ms, valid_ms)
    terms = Terms(grant_ms=grant_ms, drift_ppm=drift_ppm)
    half = drift_ppm / 2_000_000
    for agent, billing, scheduler in itertools.product((-half, half), repeat=3):
        stops_ms = valid_ms / (1 + agent)  # true time after the grant was committed
        closed_at_ms = used_ms / (1 + billing)
        wait_ms = -(-(valid_ms - used_ms) // 1)
        places_ms = closed_at_ms + wait_span_ms(wait_ms, terms) / (1 + scheduler)
        slack_ms = (terms.kill_ms + terms.step_ms) * (1 - 2 * half)
        second_order_ms = grant_ms * (4 * half) ** 2
        assert places_ms + second_order_ms + 1e-3 >= stops_ms + slack_ms


def test_the_desired_set_is_whole():
    closing = to_closing(Lease("b", "u", 1, "n", ("d1",)), Cause.STOPPED, 30_000)
    over = closed(
        close_answered(to_closing(Lease("c", "v", 1, "n", ()), Cause.STOPPED, 0), 0, 0, TERMS),
        10**6,
    )
    other = Lease("d", "w", 1, "m", ("d0",))
    wanted = desired_set([closing, LEASE, over, other], "n", 7)
    assert [x.lease_id for x in wanted.run] == ["a"]
    assert [(x.lease_id, x.notice_ms) for x in wanted.stop] == [("b", 30_000)]
    assert (wanted.node_id, wanted.generation) == ("n", 7)


def test_silence_of_a_node():
    assert connected(0, 29_999, TERMS)
    assert not connected(0, 30_000, TERMS)
    assert not lost(LEASE, 0, 119_999)
    assert lost(LEASE, 0, 120_000)
    assert not lost(to_closing(LEASE, Cause.STOPPED, 0), 0, 10**9)


def test_a_device_is_free_only_when_everybody_says_so():
    assert device_free("d1", "n", [LEASE], connected=True, dirty=False)
    assert device_free("d0", "m", [LEASE], connected=True, dirty=False)
    assert not device_free("d0", "n", [LEASE], connected=True, dirty=False)
    assert not device_free("d1", "n", [LEASE], connected=False, dirty=False)
    assert not device_free("d1", "n", [LEASE], connected=True, dirty=True)
