"""Tariffs by hand: whose is in force, where its steps begin, and when its minimum is due."""

import pytest
from gridlease_billing.domain.meter_price import Entry, cost, grown, tariff_of
from gridlease_billing.domain.rating import Step, Tariff, price_of

TARIFF = Tariff((Step(0, 7), Step(10, 5), Step(25, 2)), 1)


@pytest.mark.parametrize(
    ("total", "price"), [(0, 0), (1, 7), (10, 70), (11, 75), (25, 145), (26, 147), (100, 295)]
)
def test_a_step_begins_with_the_first_unit_above_it(total, price):
    assert price_of(TARIFF, total) == price


def test_a_minimum_is_due_once_and_is_used_up():
    tariff = Tariff((Step(0, 7),), 1, minimum_nano=20)
    assert [cost(tariff, total) for total in (0, 1, 2, 3, 10)] == [0, 20, 20, 21, 70]
    assert [grown(tariff, 0, 1), grown(tariff, 1, 1), grown(tariff, 2, 1)] == [20, 0, 1]


def _entry(version, site="", effective_ms=0, meter="egress"):
    return Entry(version, meter, site, TARIFF, False, effective_ms, 0)


def test_a_sites_own_tariff_goes_before_that_of_all_and_the_latest_before_the_older():
    book = [_entry(1), _entry(2, "sites/a"), _entry(3, effective_ms=50), _entry(4, meter="energy")]

    def version(site, now_ms):
        found = tariff_of(book, "egress", site, now_ms)
        return found and found.version

    assert [version("sites/a", 99), version("sites/b", 49), version("sites/b", 50)] == [2, 1, 3]
    assert tariff_of(book, "storage", "sites/a", 99) is None
