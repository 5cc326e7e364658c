"""Closing: billing is asked until it answers, the wait passes, and no lease holds up another."""

import contextlib
from dataclasses import replace

import pytest
from gridlease_kernel.faults import Unreachable
from gridlease_scheduler.close import Close
from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.job import Allocation
from gridlease_scheduler.domain.lease import Cause, Exit, Lease, Phase, State, Terms
from gridlease_scheduler.ports import HeldLease

TERMS = Terms(grant_ms=0, drift_ppm=0, kill_ms=0, step_ms=0)


class Clock:
    ms = 0

    def now_ms(self):
        return self.ms


class Billing:
    def __init__(self):
        self.waits = {}
        self.down = False
        self.asked = []
        self.credited = {}

    async def close(self, leases, cut_short_ms=None):
        self.asked.append([lease.lease_id for lease in leases])
        self.credited |= cut_short_ms or {}
        if self.down:
            raise Unreachable("away", reason="BILLING_UNREACHABLE")
        return {lease.lease_id: self.waits[lease.lease_id] for lease in leases}


class Store:
    """Answers what is CLOSING; a test's ``Closer`` overrides the rest."""

    def __init__(self, held):
        self.held = held
        self.leases = self

    @contextlib.asynccontextmanager
    async def reading(self):
        yield self

    async def closing(self):
        return self.held

    async def split(self):
        return []


class Closer(Close):
    """Notes what it would finish, and stumbles over a lease named ``bad``."""

    def __init__(self, *parts):
        super().__init__(*parts)
        self.finished = []

    async def _finish(self, held, now_ms, epoch):
        if held.lease.lease_id == "bad":
            raise AssertionError(held)
        self.finished.append(held.lease.lease_id)


def held(lease_id, *, gone=False):
    lease = Lease(
        lease_id, "t", 1, "n", (), state=State.CLOSING, cause=Cause.EXITED,
        phase=Phase.EXITED, exit=Exit(0, "EXITED"), gone=gone,
    )  # fmt: skip
    return HeldLease(lease, "j", 0, "s", True, "", Allocation(1, 1, 1, (), "x", 1))


def closer(*leases):
    billing, clock = Billing(), Clock()
    billing.waits = {each.lease.lease_id: 0 for each in leases}
    store = Store(list(leases))
    return Closer(store, billing, clock, TERMS, Catalogue(())), billing, clock, store


async def test_the_wait_counts_from_the_receipt_and_gone_ends_it():
    close, billing, clock, store = closer(held("a"), held("b"))
    billing.waits = {"a": 100, "b": 50}
    assert await close(1) == 50
    store.held[0] = replace(store.held[0], lease=replace(store.held[0].lease, gone=True))
    assert await close(1) == 50
    assert close.finished == ["a"]
    clock.ms = 50
    await close(1)
    assert close.finished[-1] == "b"
    assert billing.asked == [["a", "b"]]  # an answer is not asked for twice


async def test_gone_alone_closes_nothing_while_billing_is_silent():
    close, billing, _, _ = closer(held("a", gone=True))
    billing.down = True
    first = await close(1)
    second = await close(1)
    assert 0 < first < second <= 5_000
    assert close.finished == []
    billing.down = False
    await close(1)
    assert close.finished == ["a"]


async def test_a_bug_with_one_lease_holds_up_no_other():
    close, *_ = closer(held("bad", gone=True), held("good", gone=True))
    with pytest.raises(ExceptionGroup):
        await close(1)
    assert close.finished == ["good"]


async def test_a_lease_is_not_closed_before_billing_knows_what_is_owed():
    cut = held("cut", gone=True)
    lease = replace(
        cut.lease, cause=Cause.PREEMPTED, notice_ms=60_000, exit=Exit(137, "STOPPED", 9)
    )
    close, billing, _, store = closer(replace(cut, lease=lease, given_ms=10_000))
    assert await close(1) is None
    assert billing.credited == {"cut": 50_000}
    assert close.finished == ["cut"]
    billing.down = True
    close.finished.clear()
    assert await close(1) is not None
    assert close.finished == []
    assert store.held
