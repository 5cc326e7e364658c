"""Bids, and how full the pool is."""

from gridlease_scheduler.domain.job import Tier
from gridlease_scheduler.domain.order.spot import Affordable, TooDear, bid, utilization
from gridlease_scheduler.domain.snapshot import Offered
from gridlease_scheduler.domain.stock import Stock

from tests.unit.scheduler.standing import A100, CATALOGUE, waits

CENT = 10_000_000
OFFERS = [Offered(A100, Tier.SPOT, 80 * CENT), Offered(A100, Tier.ON_DEMAND, 200 * CENT)]


def spot(most):
    return waits(tier=Tier.SPOT, need={"max_price_nano_per_hour": most})


def test_a_bid_is_for_all_of_the_job():
    assert bid(spot(0), A100, 2_000, OFFERS) == Affordable(160 * CENT)
    assert bid(spot(160 * CENT), A100, 2_000, OFFERS) == Affordable(160 * CENT)
    dear = bid(spot(159 * CENT), A100, 2_000, OFFERS)
    assert isinstance(dear, TooDear)
    assert dear.reason.code == "PRICE_ABOVE_MAX"
    assert "costs 1.6 an hour now; the job pays at most 1.59" in dear.reason.message


def test_each_class_has_its_price():
    assert bid(waits(), A100, 1_000, OFFERS) == Affordable(200 * CENT)
    assert bid(waits(), "L4-24GB", 1_000, OFFERS) == Affordable(0)


def test_how_full_is_told_by_chip_and_site():
    stocks = [
        Stock(A100, "s1", False, 0, 8_000, 2_000),
        Stock(A100, "s2", False, 0, 4_000, 4_000),
        Stock(A100, "s2", True, 0, 64_000, 64_000),
    ]
    told = utilization(stocks, [waits(count=4, tasks=2), waits(chips=())], CATALOGUE)
    assert [(x.site, x.permille, x.waiting_milli) for x in told] == [
        ("s1", 750, 8_000),
        ("s2", 0, 8_000),
    ]
