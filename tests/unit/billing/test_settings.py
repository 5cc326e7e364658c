"""Billing's settings and its default prices."""

import pytest
from gridlease_billing.bootstrap import read_defaults
from gridlease_billing.domain.grant_row import Terms
from gridlease_billing.domain.spot import SpotPolicy
from gridlease_billing.settings import load
from gridlease_kernel.faults import Invalid

BARE = {"GRIDLEASE_NATS_URL": "nats://x", "GRIDLEASE_POSTGRES_DSN": "postgresql://x"}


def test_the_defaults_are_the_protocols():
    assert load(BARE).terms() == Terms()
    assert load(BARE).owner_dsn == "postgresql://x"


@pytest.mark.parametrize(
    "name", ["GRANT_MS", "HOLD_TTL_MS", "BILLING_CONNECTIONS", "SPOT_WINDOW_MS"]
)
def test_nonsense_is_refused_by_name(name):
    with pytest.raises(Invalid) as caught:
        load({**BARE, f"GRIDLEASE_{name}": "0"})
    assert caught.value.field == f"GRIDLEASE_{name}"


def test_the_spot_rule_is_set_by_variables():
    assert load(BARE).spot() == SpotPolicy()
    told = {"SPOT_FIXED": "L4-24GB, T4-16GB", "SPOT_FLOOR_PERMILLE": "300"}
    policy = load({**BARE, **{f"GRIDLEASE_{name}": value for name, value in told.items()}}).spot()
    assert policy == SpotPolicy(floor_permille=300, fixed=frozenset({"L4-24GB", "T4-16GB"}))
    with pytest.raises(Invalid) as caught:
        load({**BARE, "GRIDLEASE_SPOT_FLOOR_PERMILLE": "1001"})
    assert caught.value.field == "GRIDLEASE_SPOT_FLOOR_PERMILLE"


def test_every_chip_of_the_catalogue_has_a_default_price():
    import importlib.resources
    import tomllib

    folder = importlib.resources.files("gridlease_scheduler") / "chips"
    names = {
        chip["name"]
        for file in folder.iterdir()
        if file.name.endswith(".toml")
        for chip in tomllib.loads(file.read_text())["chip"]
    }
    for tier in ("ON_DEMAND", "RESERVED", "SPOT"):
        assert {it.chip for it in read_defaults() if it.tier == tier} == names


def test_tiers_cost_less_as_promised():
    prices = {(it.chip, it.tier): it.price_nano_per_hour for it in read_defaults()}
    assert prices["cpu-x86-64", "ON_DEMAND"] == 48_000_000
    assert prices["cpu-x86-64", "RESERVED"] == 33_600_000
    assert prices["cpu-x86-64", "SPOT"] == 19_200_000
