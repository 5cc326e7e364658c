"""Where tasks go, and what those that wait are told."""

import dataclasses

import pytest
from gridlease_scheduler.domain.job import Purpose
from gridlease_scheduler.domain.node import Device, has_room, with_held
from gridlease_scheduler.domain.plan import Placed, Snapshot, Waiting, decide, plan, still_valid
from gridlease_scheduler.domain.stock import stock

from tests.unit.scheduler.fleet import CATALOGUE, GIB, needs, node, task

replace = dataclasses.replace


def where(nodes, need):
    decision = decide(task(need=need), nodes, CATALOGUE)
    assert isinstance(decision, Placed), decision
    return decision


def why(nodes, need):
    decision = decide(task(need=need), nodes, CATALOGUE)
    assert isinstance(decision, Waiting), decision
    assert decision.reason.message
    assert decision.reason.hint
    return decision.reason.code


@pytest.mark.parametrize(
    ("purpose", "chip"),
    [
        (Purpose.TRAINING, "RTX-3090-24GB"),  # the most work for the price, of GPUs
        (Purpose.INFERENCE, "L4-24GB"),
        (Purpose.BATCH, "RTX-3090-24GB"),
    ],
)
def test_each_purpose_has_its_chip(purpose, chip):
    nodes = [node("a", "H100-80GB"), node("b", "L4-24GB"), node("c", "RTX-3090-24GB")]
    decision = where(nodes, needs(vendor="nvidia", purpose=purpose))
    assert decision.allocation.chip == chip
    assert decision.reason.evidence["purpose"] == purpose.value


def test_the_tightest_node_is_taken():
    wide = node("wide", *["A100-80GB"] * 8, cpu_milli=256_000)
    nodes = [wide, node("tight", "A100-80GB", cpu_milli=32_000)]
    assert where(nodes, needs("A100")).node_id == "tight"


def test_cpu_tasks_stay_off_accelerator_nodes():
    nodes = [node("a-gpu", "A100-80GB", cpu_milli=1_000), node("z-cpu", cpu_milli=64_000)]
    assert where(nodes, needs()).node_id == "z-cpu"


def test_devices_of_one_lease_are_of_one_chip():
    mixed = node("n", "A100-40GB", "A100-80GB")
    assert where([mixed], needs("A100")).allocation.chip == "A100-40GB"  # the cheaper one
    assert why([mixed], needs("A100", count=2)) == "TOO_FEW_DEVICES"


def test_real_nodes_come_before_emulated_ones():
    fake = node("a", "A100-80GB", emulated=True)
    real = node("b", "A100-80GB")
    asks = needs("A100", allow_emulated=True)
    assert where([fake, real], asks).node_id == "b"
    decision = where([fake], asks)
    assert "nothing really runs" in decision.reason.message


@pytest.mark.parametrize(
    ("chips", "others", "placed"),
    [
        (("A100",), (), True),  # a chip that only an emulated node has
        ((), (), False),
        (("A100",), (node("real", "A100-80GB", connected=False),), False),
    ],
)
def test_an_emulated_node_is_the_last_resort(chips, others, placed):
    nodes = [node("fake", "A100-80GB", emulated=True), *others]
    decision = decide(task(need=needs(*chips)), nodes, CATALOGUE)
    assert isinstance(decision, Placed) is placed


def test_the_nearest_obstacle_is_told():
    full = node("n", "A100-80GB")
    held = replace(full, held=frozenset({"gpu-0"}))
    dirty = replace(full, devices=(replace(full.devices[0], clean=False),))
    other = node("m", "L4-24GB")
    assert why([], needs()) == "NO_NODES"
    assert why([other], needs("H100")) == "NO_SUCH_CHIP"
    assert why([other, held], needs("A100")) == "CHIP_BUSY"
    assert why([other, dirty], needs("A100")) == "DEVICE_DIRTY"
    assert why([full], needs("A100", count=2)) == "TOO_FEW_DEVICES"
    assert why([full], needs(cpu_milli=9_000)) == "NOT_ENOUGH_CPU"
    assert why([replace(full, used_cpu_milli=7_500)], needs()) == "NOT_ENOUGH_CPU"
    assert why([full], needs(memory_bytes=33 * GIB)) == "NOT_ENOUGH_MEMORY"
    assert why([full], needs(disk_bytes=101 * GIB)) == "NOT_ENOUGH_DISK"
    assert why([full], needs(runtime="torch")) == "RUNTIME_MISSING"
    assert why([replace(full, cordoned=True)], needs()) == "NODES_CORDONED"
    assert why([replace(full, connected=False)], needs()) == "NODES_DISCONNECTED"
    assert why([replace(full, emulated=True)], needs()) == "EMULATED_ONLY"


def test_a_dirty_device_of_another_chip_does_not_confuse():
    mixed = node("n", "A100-80GB", "L4-24GB")
    dirty = replace(mixed.devices[1], clean=False)
    mixed = replace(mixed, devices=(mixed.devices[0], dirty), held=frozenset({"gpu-0"}))
    assert why([mixed], needs("A100")) == "CHIP_BUSY"


def test_figures_say_what_is_missing():
    decision = decide(task(need=needs(cpu_milli=9_000)), [node("n")], CATALOGUE)
    assert decision.reason.evidence["asked_cpu_milli"] == "9000"
    assert decision.reason.evidence["most_cpu_milli"] == "8000"
    assert decision.ruled_out == {"NOT_ENOUGH_CPU": 1}


def test_order_is_priority_then_age_and_nothing_holds_up_the_rest():
    tasks = (
        task("old", 1),
        task("huge", 2, priority=50, need=needs(cpu_milli=99_000)),
        task("first", 3, priority=9),
    )
    decisions = plan(Snapshot((node("n", cpu_milli=1_000),), tasks, CATALOGUE))
    assert [(x.task.job, isinstance(x, Placed)) for x in decisions] == [
        ("huge", False),
        ("first", True),
        ("old", False),
    ]


def test_what_has_changed_since_the_plan_is_left_out():
    one = node("n", "A100-80GB", "A100-80GB", cpu_milli=2_000)
    tasks = tuple(task(f"j{number}", number, need=needs("A100")) for number in range(2))
    placements = [x for x in plan(Snapshot((one,), tasks, CATALOGUE)) if isinstance(x, Placed)]
    assert len(placements) == 2
    waiting = {"j0": 1, "j1": 1}
    assert len(still_valid(placements, {"n": one}, waiting)) == 2
    assert len(still_valid(placements, {"n": one}, {"j0": 1, "j1": 2})) == 1
    assert still_valid(placements, {"n": replace(one, connected=False)}, waiting) == ()
    assert still_valid(placements, {}, waiting) == ()
    taken = with_held(one, placements[0].allocation)
    assert not has_room(taken, placements[0].allocation)
    assert [x.task.job for x in still_valid(placements, {"n": taken}, waiting)] == ["j1"]
    # The same placement twice: the second time its device is held.
    assert len(still_valid([placements[0]] * 2, {"n": one}, waiting)) == 1


def test_stock_counts_what_may_be_had_now():
    away = node("a", "A100-80GB", connected=False)
    dirty = node("b", "A100-80GB", "A100-80GB", held=frozenset({"gpu-0"}))
    dirty = replace(dirty, devices=(dirty.devices[0], replace(dirty.devices[1], clean=False)))
    fake = replace(node("c"), devices=(Device("t", "tpu-v5e", "google", 1, emulated=True),))
    rows = {(x.chip, x.emulated): (x.total_milli, x.free_milli) for x in stock([away, dirty, fake])}
    assert rows[("A100-80GB", False)] == (3_000, 0)
    assert rows[("tpu-v5e", True)] == (1_000, 1_000)
    assert rows[("cpu-x86-64", False)] == (24_000, 16_000)
