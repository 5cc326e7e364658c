"""Hard, nested limits; borrowing; taking back."""

import pytest
from gridlease_scheduler.domain.job import Tier
from gridlease_scheduler.domain.order.quota import (
    Book,
    QuotaFull,
    Room,
    borrowed,
    reclaimable,
    shortcomings,
)
from gridlease_scheduler.domain.snapshot import Quota

from tests.unit.scheduler.standing import A100, CATALOGUE, runs


def book(*quotas, running=()):
    return Book(quotas, CATALOGUE, running)


def held(job, project, count, **changes):
    return runs(job, "n1", [f"{job}-{i}" for i in range(count)], project=project, **changes)


def test_without_quotas_there_is_room():
    assert book().admits("p", A100, 10**9) == Room()


def test_a_limit_is_hard():
    mine = book(Quota("p", "", A100, 0, 8_000), running=[held("a", "p", 6)])
    assert mine.admits("p", A100, 2_000) == Room(8_000)
    full = mine.admits("p", A100, 3_000)
    assert isinstance(full, QuotaFull)
    assert (full.project, full.short_milli, full.owed) == ("p", 1_000, False)
    assert full.reason.code == "QUOTA_FULL"
    assert "p may hold 8 A100-80GB at once and holds 6" in full.reason.message
    assert "when 1 of them come free" in full.reason.hint
    assert full.reason.evidence["limit_milli"] == "8000"
    never = mine.admits("p", A100, 9_000)
    assert "Ask for at most 8" in never.reason.hint


def test_a_holding_counts_in_every_ancestor():
    quotas = (Quota("org", "", A100, 0, 8_000), Quota("team", "org"), Quota("me", "team"))
    mine = book(*quotas, running=[held("a", "me", 5), held("b", "team", 2)])
    assert isinstance(mine.admits("me", A100, 1_000), Room)
    full = mine.admits("me", A100, 2_000)
    assert full.project == "org"
    mine.hold("team", A100, 1_000)
    assert isinstance(mine.admits("me", A100, 1_000), QuotaFull)
    mine.hold("team", A100, -1_000)
    assert isinstance(mine.admits("me", A100, 1_000), Room)


@pytest.mark.parametrize(
    ("chip", "counted"), [("", True), ("A100", True), ("a100-80gb", True), ("H100", False)]
)
def test_a_quota_covers_a_chip_a_family_or_all_accelerators(chip, counted):
    mine = book(Quota("p", "", chip, 0, 1_000))
    assert isinstance(mine.admits("p", A100, 2_000), QuotaFull) is counted
    assert isinstance(mine.admits("p", "cpu-x86-64", 2_000), Room)


def test_cores_have_quotas_of_their_own():
    mine = book(Quota("p", "", "cpu-x86-64", 0, 4_000))
    assert isinstance(mine.admits("p", "cpu-x86-64", 4_500), QuotaFull)


SIBLINGS = (
    Quota("org", "", A100, 0, 16_000),
    Quota("left", "org", A100, 8_000, 0),
    Quota("right", "org", A100, 8_000, 0),
)


def test_what_siblings_leave_idle_may_be_borrowed():
    mine = book(*SIBLINGS, running=[held("a", "left", 8)])
    assert mine.admits("left", A100, 4_000) == Room(4_000)
    assert mine.admits("right", A100, 8_000) == Room(0)


def test_the_owner_takes_back_what_was_borrowed():
    running = [
        held("old", "left", 8, started_ms=1),
        held("new", "left", 4, started_ms=2, priority=50),
        held("own", "right", 4),
    ]
    mine = book(*SIBLINGS, running=running)
    full = mine.admits("right", A100, 4_000)
    assert isinstance(full, QuotaFull)
    assert full.owed
    assert "being taken back" in full.reason.hint
    assert borrowed(mine, running) == {"new"}
    assert reclaimable(mine, running, "right", A100, 4_000, Tier.ON_DEMAND) == {"new"}
    # more than its own: it is owed nothing
    assert reclaimable(mine, running, "right", A100, 5_000, Tier.ON_DEMAND) == frozenset()
    assert not mine.admits("right", A100, 5_000).owed


def test_a_lower_class_takes_nothing_back():
    running = [held("a", "left", 12), held("own", "right", 4)]
    mine = book(*SIBLINGS, running=running)
    assert reclaimable(mine, running, "right", A100, 4_000, Tier.SPOT) == frozenset()
    reserved = [held("a", "left", 12, tier=Tier.RESERVED), held("own", "right", 4)]
    assert reclaimable(mine, reserved, "right", A100, 4_000, Tier.RESERVED) == frozenset()


def test_lending_within_a_family_is_its_own_affair():
    quotas = (
        Quota("org", "", A100, 16_000, 0),
        Quota("left", "org", A100, 8_000, 0),
        Quota("right", "org", A100, 8_000, 0),
        Quota("other", "", A100, 8_000, 0),
    )
    running = [held("a", "left", 8, started_ms=1), held("b", "left", 4, started_ms=2)]
    mine = book(*quotas, running=running)
    # org as a whole stays within its guarantee, so a stranger takes nothing from it
    assert reclaimable(mine, running, "other", A100, 8_000, Tier.ON_DEMAND) == frozenset()
    assert reclaimable(mine, running, "right", A100, 8_000, Tier.ON_DEMAND) == {"b"}


def test_projects_without_a_parent_lend_to_each_other():
    quotas = (Quota("mine", "", A100, 8_000, 0),)
    running = [held("guest", "elsewhere", 4)]
    mine = book(*quotas, running=running)
    assert borrowed(mine, running) == {"guest"}
    assert reclaimable(mine, running, "mine", A100, 8_000, Tier.ON_DEMAND) == {"guest"}


def test_the_newest_and_lowest_is_the_borrowed_part():
    quotas = (Quota("p", "", A100, 4_000, 0),)
    running = [
        held("early", "p", 2, started_ms=1),
        held("late", "p", 2, started_ms=3),
        held("low", "p", 2, started_ms=0, priority=1),
        held("spot", "p", 2, started_ms=0, tier=Tier.SPOT, priority=99),
    ]
    assert borrowed(book(*quotas, running=running), running) == {"low", "spot"}


def test_a_guarantee_of_all_accelerators_is_used_up_by_any():
    quotas = (Quota("p", "", "", 4_000, 0),)
    running = [held("a", "p", 4), held("b", "p", 1, chip="L4-24GB")]
    assert borrowed(book(*quotas, running=running), running) == {"a", "b"}


def test_what_no_limit_will_ever_allow_is_known():
    mine = book(Quota("org", "", A100, 0, 8_000), Quota("p", "org"), running=[held("a", "p", 8)])
    assert mine.ever("p", A100, 8_000)
    assert not mine.ever("p", A100, 9_000)
    assert mine.ever("p", "L4-24GB", 9_000)


def test_loops_end():
    quotas = (Quota("a", "b", A100, 0, 1_000), Quota("b", "a", A100, 0, 1_000))
    assert isinstance(book(*quotas).admits("a", A100, 2_000), QuotaFull)
    assert shortcomings(quotas) == ("a is its own ancestor.", "b is its own ancestor.")


def test_quotas_that_cannot_hold_are_told():
    assert shortcomings(SIBLINGS) == ()
    assert shortcomings((*SIBLINGS, Quota("third", "org", A100, 1_000, 0))) == (
        "org cannot cover what its projects are guaranteed together.",
    )
    assert shortcomings((Quota("p", "", A100, 2_000, 1_000),)) == (
        "p is guaranteed more than its limit.",
    )
    assert shortcomings((Quota("p", "", A100), Quota("p", "", A100))) == (
        "A project has two quotas for one chip.",
    )
