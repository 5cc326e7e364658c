"""The wire's shapes: what comes in is checked, what goes out comes back."""

import pytest
from gridlease.billing.v1 import lease_pb2
from gridlease.type.v1 import job_pb2
from gridlease_billing.domain.grant_row import Phase
from gridlease_billing.rpc import shapes
from gridlease_kernel.faults import Invalid


def _order(**more):
    given = {
        "lease": "ls-1",
        "job": "projects/p/jobs/j",
        "tenant": "tenants/t",
        "project": "projects/p",
        "node": "nodes/n1",
        "chip": "L4-24GB",
        "quantity_milli": 1000,
    }
    return lease_pb2.LeaseOrder(**{**given, **more})


def test_an_order_is_an_ask_and_zero_means_none():
    ask = shapes.ask(_order())
    assert (ask.node, ask.tier) == ("n1", "ON_DEMAND")
    assert (ask.budget_nano, ask.max_rate_nano_per_hour) == (None, None)
    assert shapes.ask(_order(tier=job_pb2.TIER_SPOT, budget_nano=5)).budget_nano == 5


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"tenant": "t"}, "BAD_NAME"),
        ({"job": "j"}, "BAD_NAME"),
        ({"lease": "a\x00"}, "BAD_CHARACTER"),
        ({"tier": 77}, "UNKNOWN_TIER"),
        ({"notice_ms": 600_001}, "NOTICE_TOO_LONG"),
    ],
)
def test_a_broken_order_is_refused_with_a_remedy(broken, reason):
    with pytest.raises(Invalid) as caught:
        shapes.ask(_order(**broken))
    assert caught.value.reason == reason
    assert caught.value.remedy


def test_a_report_takes_the_higher_of_two_counters():
    counters = [lease_pb2.Counter(segment=1, meter="run", cumulative=it) for it in (7, 5)]
    found = shapes.report("s", lease_pb2.LeaseReport(lease="a", phase=3, counters=counters))
    assert found.counters == {(1, "run"): 7}
    assert found.phase is Phase.EXITED


@pytest.mark.parametrize(("sent", "read"), [(0, Phase.KNOWN), (4, Phase.CLEAN), (9, Phase.CLEAN)])
def test_a_phase_of_another_version_is_read_as_the_nearest(sent, read):
    assert shapes.report("s", lease_pb2.LeaseReport(lease="a", phase=sent)).phase is read


def test_a_page_token_comes_back():
    assert shapes.page_key(shapes.page_token((17, "ls-1"))) == (17, "ls-1")
    assert shapes.page_key(shapes.page_token(None)) is None
    for bad in ("%", "YQ==", "MS8A"):
        with pytest.raises(Invalid) as caught:
            shapes.page_key(bad)
        assert caught.value.field == "page_token"
