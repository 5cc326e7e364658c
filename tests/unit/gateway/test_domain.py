"""Keys, names, rates and offers: pure rules."""

import datetime

import pytest
from gridlease_gateway.domain import keys, names, offers, rates
from gridlease_gateway.domain.keys import KeyRecord, Role
from gridlease_gateway.domain.offers import Ask, PriceTag, Stock
from gridlease_gateway.domain.rates import Rate
from gridlease_kernel.faults import Forbidden, Missing, Precondition, Unauthenticated

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
SECRET = "ab" * 32


def record(**changes):
    values = {
        "id": "k-1", "secret_sha256": keys.digest_of(SECRET), "role": Role.TENANT,
        "tenant": "demo", "project": "demo", "display_name": "", "create_time": NOW,
    }  # fmt: skip
    return KeyRecord(**{**values, **changes})


def test_a_key_is_read_as_written():
    assert keys.read_header("Bearer " + keys.written("k-1234", SECRET)) == ("k-1234", SECRET)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", "KEY_MISSING"),
        ("Basic abc", "KEY_MISSING"),
        ("Bearer ", "KEY_MISSING"),
        ("Bearer gl_short", "KEY_MALFORMED"),
        ("Bearer gl_k-1_" + "AB" * 32, "KEY_MALFORMED"),
        ("Bearer gl_k-1_" + "ab" * 33, "KEY_MALFORMED"),
    ],
)
def test_what_is_no_key(header, reason):
    with pytest.raises(Unauthenticated) as caught:
        keys.read_header(header)
    assert caught.value.reason == reason


def test_who_it_is():
    caller = keys.identify(record(), SECRET, NOW)
    assert (caller.tenant, caller.project) == ("tenants/demo", "projects/demo")


@pytest.mark.parametrize(
    ("known", "secret", "reason"),
    [
        (None, SECRET, "KEY_UNKNOWN"),
        (record(), "cd" * 32, "KEY_UNKNOWN"),
        (record(revoke_time=NOW), SECRET, "KEY_REVOKED"),
        (record(expire_time=NOW), SECRET, "KEY_EXPIRED"),
        (record(revoke_time=NOW), "cd" * 32, "KEY_UNKNOWN"),
    ],
)
def test_who_is_refused(known, secret, reason):
    with pytest.raises(Unauthenticated) as caught:
        keys.identify(known, secret, NOW)
    assert caught.value.reason == reason


def test_roles():
    tenant, operator = keys.Caller(Role.TENANT), keys.Caller(Role.OPERATOR)
    keys.allow(operator, Role.OPERATOR)
    keys.allow(operator, Role.TENANT)
    keys.allow(tenant, Role.TENANT)
    with pytest.raises(Forbidden):
        keys.allow(tenant, Role.OPERATOR)
    with pytest.raises(Precondition):
        operator.own_project()
    with pytest.raises(Precondition):
        operator.own_tenant()


def test_names():
    assert names.project_of_job("projects/p/jobs/j") == "projects/p"
    for bad in (
        "",
        "jobs/j",
        "projects/p/jobs/",
        "projects/p/jobs/j/tasks/0",
        "projects/p\n/jobs/j",
    ):
        assert names.project_of_job(bad) is None
    assert names.id_of("tenants/t", "tenants") == "t"
    assert names.id_of("tenants/t", "projects") is None
    assert isinstance(names.no_job("x"), Missing)


def test_a_rate_lets_a_burst_through_and_then_paces():
    rate, due = Rate(per_s=10, burst=5), 0
    waits = []
    for _ in range(7):
        verdict = rates.admit(rate, due, 1_000)
        due = verdict.due_ns
        waits.append(verdict.wait_ns)
    assert waits[:5] == [0] * 5
    assert waits[5] == waits[6] == 100_000_000  # a refusal costs nothing
    assert rates.admit(rate, due, 1_000 + 100_000_000).wait_ns == 0


STOCK = [
    Stock("cpu-x86-64", "sites/a", 8_000, 8_000, 0, False),
    Stock("A100-40GB", "sites/a", 8_000, 0, 40 << 30, False),
    Stock("A100-80GB", "sites/a", 8_000, 0, 80 << 30, True),
]
PRICES = [
    PriceTag("A100-40GB", 2, 20, "USD"),
    PriceTag("A100-80GB", 2, 30, "USD"),
    PriceTag("A100-80GB", 3, 10, "USD"),
    PriceTag("H100-80GB", 2, 50, "USD"),
    PriceTag("cpu-x86-64", 2, 1, "USD"),
]


@pytest.mark.parametrize(
    ("ask", "chips"),
    [
        (Ask(("a100",), True, 0, 0, 1_000, 2), ["A100-40GB"]),  # a real one before an emulated
        (Ask(("A100",), True, 50 << 30, 0, 1_000, 2), ["A100-80GB"]),
        (Ask((), True, 0, 0, 1_000, 3), ["A100-80GB"]),
        (Ask((), False, 0, 0, 250, 2), ["cpu-x86-64"]),
        (Ask(("H100",), True, 0, 0, 1_000, 2), ["H100-80GB"]),  # nobody has it; it has a price
        (Ask(("A10",), True, 0, 0, 1_000, 2), []),  # not the family of an A100
    ],
)
def test_the_cheapest_that_fits(ask, chips):
    assert [chip for _, chip, _ in offers.candidates(ask, STOCK, PRICES)] == chips


def test_offers_are_stock_with_its_prices():
    found = [(it.stock.chip, it.price.tier) for it in offers.on_offer(STOCK, PRICES, "A100")]
    assert found == [("A100-40GB", 2), ("A100-80GB", 2), ("A100-80GB", 3)]
    assert len(offers.on_offer(STOCK, PRICES)) == 4
    assert offers.with_default_tier(Ask((), False, 0, 0, 1, 0)).tier == 2


def test_a_sites_own_price_goes_before_that_of_everywhere():
    stock = [Stock("A100-80GB", f"sites/{it}", 8_000, 8_000, 80 << 30, False) for it in "ab"]
    prices = [*PRICES, PriceTag("A100-80GB", 2, 25, "USD", "sites/b")]
    found = {
        (it.stock.site, it.price.tier): it.price.price_nano_per_hour
        for it in offers.on_offer(stock, prices)
    }
    assert found == {
        ("sites/a", 2): 30,
        ("sites/a", 3): 10,
        ("sites/b", 2): 25,
        ("sites/b", 3): 10,
    }
    ask = Ask(("A100",), True, 0, 0, 1_000, 2)
    assert offers.candidates(ask, stock, prices) == [
        (25, "A100-80GB", "sites/b"),
        (30, "A100-80GB", "sites/a"),
    ]
