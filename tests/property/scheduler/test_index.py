"""The index that is kept equals one built anew, after whatever happened."""

from dataclasses import replace

from gridlease_scheduler.domain.job import Span
from gridlease_scheduler.domain.placing.index import Index
from gridlease_scheduler.domain.placing.shelf import RACK, RAIL, SITE
from gridlease_scheduler.domain.plan import Placed, Planner
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.scheduler.fleet import CATALOGUE, GIB, needs, node, task

CHIPS = ("A100-80GB", "A100-40GB", "L4-24GB")
SHAPES = st.builds(
    lambda chips, cpu, number: node(
        f"n{number}",
        *chips,
        cpu_milli=cpu * 1_000,
        memory_bytes=16 * GIB,
        rack=f"r{number // 2}" if number % 5 else "",
        rail=f"l{number % 2}",
        site="east" if number < 4 else "west",
    ),
    st.lists(st.sampled_from(CHIPS), max_size=4),
    st.integers(1, 8),
    st.integers(0, 7),
)
ASKS = st.builds(
    lambda chips, count, cpu, tasks, span: (
        needs(*chips, count=count, cpu_milli=cpu, span=span),
        tasks,
    ),
    st.sampled_from(((), ("A100",), ("L4",), ("A100-80GB", "L4"))),
    st.integers(1, 3),
    st.integers(100, 3_000),
    st.integers(1, 4),
    st.sampled_from(list(Span)),
)


class Kept(RuleBasedStateMachine):
    """Places, releases, replaces and removes; compares with a fresh start each time."""

    @initialize(nodes=st.lists(SHAPES, max_size=6, unique_by=lambda x: x.node_id))
    def begin(self, nodes):
        self.planner = Planner(Index(nodes, CATALOGUE))
        self.index = self.planner.index
        self.placed = []
        self.asks = []
        self.number = 0

    @rule(ask=ASKS)
    def place(self, ask):
        need, tasks = ask
        self.number += 1
        one = replace(task(f"j{self.number}", self.number, need=need), tasks=tasks)
        self.asks.append(ask)
        decision = self.planner.decide(one)
        if isinstance(decision, Placed):
            assert len(decision.members) == tasks
            self.placed.append(decision)

    @rule(data=st.data())
    def release(self, data):
        if self.placed:
            at = data.draw(st.integers(0, len(self.placed) - 1))
            for member in self.placed.pop(at).members:
                self.index.release(member.node_id, member.allocation)

    @rule(data=st.data())
    def apply_again(self, data):
        """What one index gave out, another accepts."""
        if self.placed:
            decision = data.draw(st.sampled_from(self.placed))
            for member in decision.members:
                self.index.release(member.node_id, member.allocation)
            for member in decision.members:
                self.index.apply(member.node_id, member.allocation)

    @rule(shape=SHAPES, connected=st.booleans())
    def replace_node(self, shape, connected):
        """A node comes, or comes back as another, without its leases."""
        self._forget(shape.node_id)
        self.index.replace(replace(shape, connected=connected))

    @rule(data=st.data())
    def remove(self, data):
        if self.index.hosts:
            node_id = data.draw(st.sampled_from(sorted(self.index.hosts)))
            self._forget(node_id)
            self.index.remove(node_id)

    def _forget(self, node_id):
        for decision in [x for x in self.placed if node_id in {m.node_id for m in x.members}]:
            self.placed.remove(decision)
            for member in decision.members:
                if member.node_id in self.index.hosts:
                    self.index.release(member.node_id, member.allocation)

    @invariant()
    def it_equals_one_built_anew(self):
        views = self.index.views()
        fresh = Planner(Index(views, CATALOGUE))
        assert {x.node_id: x for x in views} == {x.node_id: x for x in fresh.index.views()}
        for node_id, host in self.index.hosts.items():
            other = fresh.index.hosts[node_id]
            assert [sorted(x) for x in host.free] == [sorted(x) for x in other.free]
            assert host.state.sort[3:-1] == other.state.sort[3:-1]
        assert sum(x.count for x in self.index.states.values()) == len(views)
        for need, _ in self.asks[-4:]:
            mine, theirs = self.planner._ask(need), fresh._ask(need)
            chips = {chip for chip, way in theirs.ways if way.best()}
            assert {chip for chip, way in mine.ways if way.best()} == chips
            known = dict(mine.ways)
            for chip, way in theirs.ways:
                if chip not in known or len([x for x, _ in mine.ways if x == chip]) > 1:
                    continue
                for level in (RACK, RAIL, SITE):
                    assert known[chip].table(level).total == way.table(level).total
                    ours = sorted(x for x in known[chip].table(level).room if x)
                    assert ours == sorted(x for x in way.table(level).room if x)


TestKept = Kept.TestCase
TestKept.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
