"""Dry runs: where, when, on which other chip and at what price."""

from dataclasses import replace

from gridlease_scheduler.domain.forecast import forecast, options
from gridlease_scheduler.domain.job import Allocation, Purpose, Tier
from gridlease_scheduler.domain.plan import Placed
from gridlease_scheduler.domain.snapshot import Offered, Quota, Running, Snapshot

from tests.unit.scheduler.fleet import CATALOGUE, GIB, needs, node, task

A100 = "A100-80GB"
HOUR_MS = 3_600_000
NOW_MS = 1_800_000_000_000
DOLLAR = 1_000_000_000


H100, T4 = (
    next(x.name for x in CATALOGUE.accelerators() if x.family == family)
    for family in ("H100", "T4")
)
PRICES = tuple(
    Offered(name, Tier.ON_DEMAND, dollars * DOLLAR)
    for name, dollars in ((A100, 2), (H100, 4), (T4, 1))
)


def snapshot(*nodes, **fields):
    return Snapshot(nodes, (), CATALOGUE, offers=PRICES, now_ms=NOW_MS, **fields)


def held(node_id, job="other", *, longest_ms=HOUR_MS, worked_ms=0, device="gpu-0"):
    allocation = Allocation(1_000, GIB, GIB, (device,), A100, 1_000)
    return Running(
        f"l-{job}", job, 0, "tenants/other", "projects/other", node_id, 0, Tier.ON_DEMAND,
        allocation, NOW_MS - worked_ms, worked_ms, 0, longest_ms,
    )  # fmt: skip


def busy(node_id):
    return node(
        node_id, A100, used_cpu_milli=1_000, used_memory_bytes=GIB, used_disk_bytes=GIB,
        held=frozenset({"gpu-0"}),
    )  # fmt: skip


def wanted(*chips, tasks=1, **changes):
    return replace(task(need=needs(*chips, **changes)), tasks=tasks, tasks_max=tasks)


def test_what_fits_starts_now_and_costs_what_its_chip_costs():
    found = forecast(wanted(A100, tasks=2), 3 * HOUR_MS, snapshot(node("a", A100, A100)))
    assert isinstance(found.decision, Placed)
    assert (found.chip, found.earliest_ms) == (A100, NOW_MS)
    assert found.rate_nano_per_hour == 4 * DOLLAR
    assert found.amount_nano == 12 * DOLLAR
    assert found.remedies == ()


def test_what_waits_is_told_when_what_would_help_and_what_else_there_is():
    fleet = snapshot(busy("a"), node("b", H100), running=(held("a", worked_ms=HOUR_MS // 2),))
    found = forecast(wanted(A100), 2 * HOUR_MS, fleet)
    assert found.decision.reason.code == "CHIP_BUSY"
    left_ms = found.earliest_ms - NOW_MS
    assert HOUR_MS // 2 <= left_ms <= HOUR_MS
    assert found.remedies[0] == f"Allow {H100} as well: there it could begin at once."
    by_chip = {x.chip: x for x in found.options}
    assert by_chip[A100].asked_for
    assert not by_chip[A100].placeable
    other = by_chip[H100]
    assert (other.placeable, other.asked_for) == (True, False)
    assert other.relative_milli > 1_000
    assert other.duration_ms == 2 * HOUR_MS * 1_000 // other.relative_milli
    assert other.amount_nano == 4 * DOLLAR * other.duration_ms // HOUR_MS


def test_nobody_knows_when_a_job_without_an_end_is_in_the_way():
    fleet = snapshot(busy("a"), running=(held("a", longest_ms=0),))
    assert forecast(wanted(A100), 0, fleet).earliest_ms is None


def test_smaller_chips_are_no_way_out_and_named_ones_always_shown():
    fleet = snapshot(busy("a"), node("b", T4), running=(held("a"),))
    assert [x.chip for x in forecast(wanted(A100), 0, fleet).options] == [A100]
    none = forecast(wanted(H100), 0, fleet)
    assert none.decision.reason.code == "NO_SUCH_CHIP"
    assert (H100, False) in [(x.chip, x.placeable) for x in none.options]


def test_a_full_quota_is_the_reason_and_no_time_is_promised():
    quota = Quota("projects/demo", chip=A100, limit_milli=1_000)
    fleet = snapshot(node("a", A100, A100), quotas=(quota,))
    found = forecast(wanted(A100, count=2), 0, fleet)
    assert "QUOTA" in found.decision.reason.code
    assert found.earliest_ms is None


def test_prices_that_are_not_known_are_not_made_up():
    fleet = replace(snapshot(node("a", A100)), offers=())
    found = forecast(wanted(A100), HOUR_MS, fleet)
    assert found.rate_nano_per_hour is found.amount_nano is None


def test_who_would_give_way_is_told():
    fleet = snapshot(busy("a"), running=(held("a", worked_ms=HOUR_MS, longest_ms=0),))
    found = forecast(replace(wanted(A100), priority=90), 0, fleet)
    assert found.victims == ("other",)


def test_a_job_of_cpus_is_compared_among_cpus():
    need = wanted(purpose=Purpose.BATCH)
    found = options(need, HOUR_MS, snapshot(node("a", A100)), "cpu-x86-64")
    assert [x.chip for x in found] == ["cpu-x86-64"]
    assert found[0].placeable


def test_cpus_of_another_kind_count_only_where_they_are_real_and_free():
    arm = node("arm", cpu_chip="cpu-aarch64", used_cpu_milli=8_000)
    toy = node("toy", cpu_chip="cpu-riscv64", emulated=True)
    found = options(wanted(), HOUR_MS, snapshot(node("a"), arm, toy), "cpu-x86-64")
    assert {x.chip: x.placeable for x in found} == {"cpu-x86-64": True, "cpu-aarch64": False}
    assert next(x for x in found if not x.placeable).reason.code == "NOT_ENOUGH_CPU"


def test_a_job_goes_where_its_chip_is_cheaper_and_is_told_that_sites_price():
    nodes = [node("a", A100, site="dear"), node("b", A100, site="cheap"), node("c", A100)]
    own = (
        Offered(A100, Tier.ON_DEMAND, 3 * DOLLAR, "dear"),
        Offered(A100, Tier.ON_DEMAND, DOLLAR, "cheap"),
    )
    seen = replace(snapshot(*nodes), offers=(*PRICES, *own))
    found = forecast(wanted(A100), HOUR_MS, seen)
    assert (found.decision.node_id, found.rate_nano_per_hour) == ("b", DOLLAR)
    rest = replace(seen, nodes=(nodes[0], nodes[2]))
    found = forecast(wanted(A100), HOUR_MS, rest)
    assert (found.decision.node_id, found.rate_nano_per_hour) == ("c", 2 * DOLLAR)
