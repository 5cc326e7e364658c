"""Whatever comes, ends and is described anew: nobody is promised what a link does not have left."""

from collections import Counter
from dataclasses import replace

from gridlease_scheduler.domain.job import NetworkClass, NetworkNeed
from gridlease_scheduler.domain.links.network import Link, LinkKind
from gridlease_scheduler.domain.node import with_held
from gridlease_scheduler.domain.plan import Placed, Waiting
from gridlease_scheduler.domain.ruling import rule
from gridlease_scheduler.domain.snapshot import Snapshot
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition
from hypothesis.stateful import rule as step

from tests.unit.scheduler.standing import CATALOGUE, node, runs, waits

UPLINK = 20
RACKS = {"n1": "r1", "n2": "r1", "n3": "r2", "n4": "r2", "n5": "r3"}
PLACES = ("nodes/n1", "nodes/n3", *(f"racks/s1/r{k}" for k in (1, 2, 3)), "sites/s1")
NEEDS = st.builds(
    NetworkNeed, st.integers(0, 12), st.sampled_from(NetworkClass), st.sampled_from((0, 30))
)


class Town(RuleBasedStateMachine):
    """Five nodes of two devices in three racks; the operators' links come, change and go."""

    def __init__(self):
        super().__init__()
        self.links = {}
        self.leases = []
        self.number = 0
        self.owed = Counter()  # promised of a link beyond what it has, by an operator's own word

    @step(
        name=st.sampled_from("abcd"),
        ends=st.lists(st.sampled_from(PLACES), min_size=2, max_size=2, unique=True),
        capacity=st.integers(0, 40),
        latency=st.integers(0, 20),
        kind=st.sampled_from(LinkKind),
        up=st.booleans(),
    )
    def describe(self, name, ends, capacity, latency, kind, up):
        if capacity:
            self.links[name] = Link(name, *ends, capacity, latency, kind, up)
        else:
            self.links.pop(name, None)
        self.owed = {
            x: max(0, self.promised()[x] - self.links[x].capacity_mbit) for x in self.links
        }

    @step(asked=st.lists(st.tuples(NEEDS, st.integers(1, 3), st.integers(1, 2)), max_size=4))
    def arrive(self, asked):
        tasks = []
        for need, members, count in asked:
            self.number += 1
            tasks.append(
                waits(
                    f"j{self.number}", self.number, count=count, tasks=members,
                    need={"network": need},
                )
            )  # fmt: skip
        snapshot = Snapshot(
            self.nodes(), tuple(tasks), CATALOGUE, running=tuple(self.leases),
            links=tuple(self.links.values()), now_ms=1,
        )  # fmt: skip
        for decision in rule(snapshot).decisions:
            match decision:
                case Placed():
                    self.hold(decision)
                case Waiting(reason=reason):
                    assert reason.code
                    assert reason.hint

    def hold(self, placed):
        for member in placed.members:
            assert all(self.links[x].up for x in member.path)
            assert len(set(member.path)) == len(member.path)
            lease = runs(placed.task.job, member.node_id, member.allocation.device_ids)
            mbps = placed.task.needs.network.guaranteed_mbps
            self.leases.append(
                replace(
                    lease, lease_id=f"{placed.task.job}/{member.index}", index=member.index,
                    network_mbps=mbps, network_path=member.path, allocation=member.allocation,
                )
            )  # fmt: skip
            for link in member.path:
                assert not (mbps and self.owed.get(link)), "a link that owes was promised again"

    @precondition(lambda self: self.leases)
    @step(data=st.data())
    def end(self, data):
        self.leases.remove(data.draw(st.sampled_from(self.leases)))
        now = self.promised()
        self.owed = {x: max(0, now[x] - link.capacity_mbit) for x, link in self.links.items()}

    def nodes(self):
        found = []
        for name, rack in RACKS.items():
            made = node(name, 2, rack=rack, link_mbps=UPLINK)
            for lease in self.leases:
                if lease.node_id == name:
                    made = with_held(made, lease.allocation)
            mbps = sum(x.network_mbps for x in self.leases if x.node_id == name)
            found.append(replace(made, reserved_mbps=mbps))
        return tuple(found)

    def promised(self):
        found = Counter()
        for lease in self.leases:
            for link in lease.network_path:
                found[link] += lease.network_mbps
        return found

    @invariant()
    def nothing_is_promised_twice(self):
        promised = self.promised()
        for name, link in self.links.items():
            assert promised[name] <= link.capacity_mbit + self.owed.get(name, 0), (name, promised)
        for each in self.nodes():
            assert each.reserved_mbps <= UPLINK


Town.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestTown = Town.TestCase
