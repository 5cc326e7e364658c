"""Billing's money under everything that goes wrong: no atom more or less than what ran."""

from __future__ import annotations

import pytest

from tests.sim.money import bills, postgres
from tests.sim.money.command import in_memory
from tests.sim.money.run import world
from tests.sim.money.town import PROFILES

# (seed, world, events): what once failed, with what each showed.
KEPT = {
    "a clock that went back cuts a last word: suspense, with its alarm": (1, 11, 20_000),
    "a report that made its lease final by being late was never charged": (1, 3, 10_000),
}
KEPT_ON_POSTGRESQL = {
    "an order that comes an hour late is admitted when all else has ended": {
        "seed": 4, "events": 1_500, "worlds": [0], "size": postgres.SMALL, "changes": {"slow": 0.5},
    },
    "so it is where the database's clock jumps": {
        "seed": 4, "events": 1_500, "worlds": [3], "size": postgres.SMALL,
        "changes": {"slow": 0.2, "jump": 0.2},
    },
}  # fmt: skip


# What the back office does in worlds of some size, and what comes of it.
OFFICE = {
    "invoice done", "draft done", "finalize done", "refund part done", "refund rest",
    "refund whole", "refund all done", "CREDIT_EXCEEDS_LINE", "NO_SUCH_LINE",
    "NOTHING_LEFT_TO_CREDIT", "answered again", "tariff done", "commitment done", "hours done",
    "contract done", "assign", "release done", "payout done",
    "exchange done", "issuer done", "profile done", "tax rate done", "tax STANDARD", "tax NONE",
    "NO_LEGAL_ENTITY", "budget done", "watch done",
    "cut short done", "hours passed", "spot done", "site price done", "priorities done",
    "payment done", "payment back done", "write off", "verified INVOICE",
    "verified CREDIT_NOTE", "line USAGE", "line CORRECTION", "line CREDIT", "line CREDIT_NOTE",
    "line PURCHASE", "meter run", "meter egress", "meter storage", "meter energy", "meter cover",
    "meter run_priority", "month priced", "energy passed on", "meter is what was counted",
    "statement",
}  # fmt: skip


@pytest.mark.parametrize("number", range(len(PROFILES)))
def test_no_atom_drifts(number):
    outcome = world(7, number, events=1_250)
    assert outcome.broken == []
    assert outcome.drift_nano == 0
    assert outcome.told_nano > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_what_once_failed_holds(name):
    assert world(*KEPT[name]).broken == []


@pytest.mark.slow
def test_no_atom_drifts_over_a_million_events():
    outcome = in_memory(3, 1_000_000)
    assert outcome.broken == []
    assert (outcome.events >= 1_000_000, outcome.drift_nano) == (True, 0)


def test_a_seed_is_one_run():
    first, second = (world(5, 1, events=600) for _ in range(2))
    assert first == second
    assert first != world(6, 1, events=600)


def test_worlds_meet_what_they_are_meant_to_meet():
    """A simulator in which nothing happens would pass."""
    met = {}
    for number in range(len(PROFILES)):
        met |= world(11, number, events=1_000).met
    assert met.keys() >= {
        "report", "authorize", "close", "credit", "price", "expire", "lost", "crash", "restart",
        "cut off", "died", "jump", "lie", "DATABASE_UNREACHABLE", "journal meter_charge",
        "journal sla_credit", "journal reclaim_credit", "journal suspense", "journal invoice",
        "journal credit_note", "CREDIT_EXCEEDS_LINE", "NOTHING_LEFT_TO_CREDIT",
    }  # fmt: skip


def test_no_atom_drifts_on_postgresql():
    """A moment of it; and verify-bill agrees with each invoice."""
    outcome = postgres.run(
        2, 300, worlds=[1], size=postgres.QUICK, changes={"crash": 0.1}, each_end=bills.verified
    )
    assert outcome.broken == []
    assert outcome.drift_nano == 0
    assert outcome.met["backends killed"] > 0
    assert outcome.met["verified INVOICE"] > 0
    assert outcome.met["meter is what was counted"] > 0
    assert outcome.met["statement"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT_ON_POSTGRESQL)
def test_what_once_failed_on_postgresql_holds(name):
    outcome = postgres.run(**KEPT_ON_POSTGRESQL[name])
    assert outcome.broken == []
    assert outcome.drift_nano == 0


@pytest.mark.slow
def test_no_atom_drifts_on_postgresql_over_a_hundred_thousand_events():
    outcome = postgres.run(4, 100_000, each_end=bills.verified, processes=2)
    assert outcome.broken == []
    assert (outcome.events >= 100_000, outcome.drift_nano) == (True, 0)
    assert outcome.met["server killed"] > 0
    assert outcome.met["verified INVOICE"] > 0


@pytest.mark.slow
def test_the_back_office_does_all_that_it_is_meant_to_do():
    outcome = postgres.run(
        12, 6_000, each=1_500, worlds=[1, 2, 4, 6], size=postgres.SMALL, each_end=bills.verified
    )
    assert outcome.broken == []
    assert outcome.drift_nano == 0
    assert OFFICE - outcome.met.keys() == set()
