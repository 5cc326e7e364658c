"""Between equally tight nodes, idle devices are stranded the least."""

from gridlease_scheduler.domain.plan import Placed, decide

from tests.unit.scheduler.fleet import CATALOGUE, needs, node, task


def where(nodes, need):
    decision = decide(task(need=need), nodes, CATALOGUE)
    assert isinstance(decision, Placed), decision
    return decision.node_id


def test_a_task_with_many_cpus_leaves_those_that_idle_devices_need():
    chips = ["A100-80GB"] * 2
    nodes = [node("a-lean", *chips, cpu_milli=16_000), node("b-rich", *chips, cpu_milli=64_000)]
    assert where(nodes, needs("A100", cpu_milli=15_000)) == "b-rich"


def test_a_task_with_few_cpus_takes_the_device_that_is_short_of_them():
    chips = ["A100-80GB"] * 2
    nodes = [node("a-rich", *chips, cpu_milli=64_000), node("b-lean", *chips, cpu_milli=16_000)]
    assert where(nodes, needs("A100", cpu_milli=1_000)) == "b-lean"


def test_a_task_for_cpus_alone_leaves_those_that_idle_devices_need():
    nodes = [
        node("a-lean", "A100-80GB", cpu_milli=12_000),
        node("b-rich", "A100-80GB", cpu_milli=64_000),
    ]
    assert where(nodes, needs(cpu_milli=8_000)) == "b-rich"
