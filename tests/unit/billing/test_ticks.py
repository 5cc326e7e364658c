"""Ticks: what may move without a decision, and that both ways charge the same."""

import asyncio
from dataclasses import replace

from gridlease_billing.domain import grant
from gridlease_billing.domain.grant_row import (
    Ask,
    Funds,
    Phase,
    Quote,
    Report,
    State,
    Terms,
)
from gridlease_billing.domain.tick import CATALOGUE, Known, only_counts, tracks
from gridlease_billing.ticks import Settler, Tick
from gridlease_kernel.clock import SystemClock

TERMS = Terms()
S = 1_000_000_000


def opened():
    ask = Ask("l", tenant="t", node="n", notice_ms=30_000)
    made = grant.authorize({}, [ask], {"l": Quote(36 * S)}, Funds(10**12), 0, TERMS)
    report = Report("l", "s", Phase.STARTING)
    settled = grant.settle(
        made.rows, {"l": report}, {"l": Quote(36 * S)}, Funds(10**12), 1_000, TERMS
    )
    return settled.rows[0]


def test_an_open_lease_may_move_until_it_is_due():
    row = opened()
    (track,) = tracks(row)
    assert track.counts == (0,) * len(CATALOGUE)
    assert track.cap_ns == 120 * S
    assert track.quick_until_ms == 1_000 + 120_000 - 66_000


def test_a_lease_that_awaits_a_word_may_not_move():
    row = opened()
    for other in (replace(row, state=State.FENCED), replace(row, spool_id=None)):
        assert [it.quick_until_ms for it in tracks(other)] == [0]


def test_what_is_told_beyond_the_grant_needs_a_decision():
    row = replace(opened(), counters={(1, "run"): 121 * S})
    assert [it.quick_until_ms for it in tracks(row)] == [0]


def test_a_report_that_only_counts():
    known = Known(1, "n", "s", "", 1, 36 * S, 121_000, 31_000)
    report = Report("l", "s", Phase.STARTING, counters={(1, "run"): S, (1, "egress"): 5})
    assert only_counts(report, known, "n", 30_999)
    assert not only_counts(report, known, "n", 31_000)
    assert not only_counts(report, known, "other", 0)
    for other in (
        replace(report, final=True),
        replace(report, phase=Phase.EXITED),
        replace(report, spool_id="x"),
        replace(report, counters={(2, "run"): S}),
        replace(report, counters={(1, "of my own"): 1}),
    ):
        assert not only_counts(other, known, "n", 0)


async def test_who_waits_for_a_settler_that_is_closed_hears_of_it():
    class Stuck:
        async def run(self, _work):
            await asyncio.Event().wait()

    settler = Settler(Stuck(), TERMS, lambda *_: True, SystemClock())
    known = Known(1, "n1", "s", "", 1, 1, 1, 1)
    ticks = [Tick(known, Report("l", "s", Phase.STARTING), (0,) * len(CATALOGUE))]
    waiting = [asyncio.create_task(settler._fold(ticks)) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the first are under way
    waiting.append(asyncio.create_task(settler._fold(ticks)))
    await asyncio.sleep(0)
    await settler.close()
    async with asyncio.timeout(5):
        found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(it) for it in found] == [ConnectionAbortedError] * 4
