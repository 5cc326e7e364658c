"""The scheduler's whole life over the production decisions: nothing lost, one holder, no overdraft.

A model shell keeps jobs and leases and applies what ``rule``, ``ends`` and ``lease`` decide, while
tenants submit and cancel, tasks fail, nodes are drained, cut off and come back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gridlease_scheduler.adapters import catalogue
from gridlease_scheduler.domain import ends
from gridlease_scheduler.domain.chips import AcceleratorNeed
from gridlease_scheduler.domain.job import Allocation, JobState, Needs, Reason, Span, Tier
from gridlease_scheduler.domain.lease import Cause, Exit, Lease, Phase, State, to_closing
from gridlease_scheduler.domain.node import Device, Node, with_held
from gridlease_scheduler.domain.plan import Placed
from gridlease_scheduler.domain.ruling import Ruling, rule
from gridlease_scheduler.domain.snapshot import Pending, Quota, Running, Snapshot
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition
from hypothesis.stateful import rule as step

BOOK = catalogue.load()
GIB, MINUTE_MS = 2**30, 60_000
MOVES = {
    JobState.PENDING: {JobState.RUNNING, JobState.CANCELLED},
    JobState.RUNNING: {
        JobState.PENDING, JobState.STOPPING, JobState.SUCCEEDED, JobState.FAILED,
        JobState.CANCELLED,
    },
    JobState.STOPPING: {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED},
}  # fmt: skip
LIMITS = {"small": 3_000, "large": 0}
TOLD = Reason("PREEMPTED", "Its place is needed.")


@dataclass
class Job:
    """A job of the model. ``number`` orders them; ``ends`` counts what it came to."""

    name: str
    number: int
    project: str
    needs: Needs
    tasks: int
    priority: int
    state: JobState = JobState.PENDING
    attempt: int = 0
    evicted: int = 0
    submitted_ms: int = 0


@dataclass
class Held:
    """A lease of the model with what its job needs to know."""

    lease: Lease
    job: str
    index: int
    allocation: Allocation
    started_ms: int
    stop: Reason = field(default_factory=Reason)


class Life(RuleBasedStateMachine):
    """See above."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0
        self.nodes: dict[str, Node] = {
            "a": _node("a", 4, "r1"), "b": _node("b", 4, "r1"), "c": _node("c", 2, "r2"),
        }  # fmt: skip
        self.jobs: dict[str, Job] = {}
        self.held: dict[str, Held] = {}
        self.leases = 0

    # -- what people and machines do ------------------------------------------------------------

    @step(
        project=st.sampled_from(sorted(LIMITS)),
        count=st.integers(0, 4),
        tasks=st.integers(1, 3),
        priority=st.sampled_from([0, 50, 90]),
        tier=st.sampled_from(Tier),
        span=st.sampled_from([Span.ANY, Span.HOST, Span.RACK]),
    )
    def submit(
        self, project: str, count: int, tasks: int, priority: int, tier: Tier, span: Span
    ) -> None:
        number = len(self.jobs)
        need = AcceleratorNeed(("T4",), count=count) if count else None
        needs = Needs(1_000, GIB, GIB, need, tier=tier, span=span)
        name = f"projects/{project}/jobs/j{number}"
        self.jobs[name] = Job(
            name, number, project, needs, tasks, priority, submitted_ms=self.now_ms
        )

    @step(minutes=st.sampled_from([1, 15, 90]))
    def time_passes(self, minutes: int) -> None:
        self.now_ms += minutes * MINUTE_MS

    @step()
    def decide(self) -> None:
        snapshot = self._snapshot()
        ruling = rule(snapshot)
        again = rule(snapshot)
        assert again.decisions == ruling.decisions, "the same input gives the same decisions"
        assert again.evictions == ruling.evictions
        self._apply(ruling)

    @precondition(lambda self: self._active())
    @step(data=st.data(), code=st.sampled_from([0, 0, 1, 137]))
    def a_task_exits(self, data: st.DataObject, code: int) -> None:
        one = data.draw(st.sampled_from(self._active()))
        one.lease = replace(one.lease, phase=Phase.EXITED, exit=Exit(code, "EXITED", 10**9))
        one.lease = to_closing(one.lease, Cause.EXITED, 0)
        self._follow(one.job)

    @precondition(lambda self: self._active())
    @step(data=st.data())
    def a_lease_is_lost(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self._active()))
        one.lease = to_closing(one.lease, Cause.NODE_LOST, 0)
        self._follow(one.job)

    @precondition(lambda self: self.jobs)
    @step(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(list(self.jobs.values())))
        if job.state is JobState.PENDING:
            self._move(job, JobState.CANCELLED)
        elif job.state is JobState.RUNNING:
            self._move(job, JobState.STOPPING)
            self._end(job.name, Cause.STOPPED, Reason("STOPPED"))

    @step(name=st.sampled_from("abc"))
    def drain(self, name: str) -> None:
        self.nodes[name] = replace(self.nodes[name], cordoned=True)
        for job in {x.job for x in self._active() if x.lease.node_id == name}:
            if self.jobs[job].state is JobState.RUNNING:
                self._end(job, Cause.DRAINED, Reason("DRAINED"))

    @step(name=st.sampled_from("abc"))
    def cut_off(self, name: str) -> None:
        self.nodes[name] = replace(self.nodes[name], connected=False)

    @step()
    def heal(self) -> None:
        self.nodes = {
            name: replace(node, connected=True, cordoned=False) for name, node in self.nodes.items()
        }

    @step(tier=st.sampled_from([Tier.SPOT, Tier.ON_DEMAND]), count=st.integers(1, 4))
    def fill(self, tier: Tier, count: int) -> None:
        """Many small jobs at once, placed as far as they go."""
        for _ in range(6):
            self.submit("large", count, 1, 0, tier, Span.ANY)
        self.decide()

    @step(count=st.integers(2, 4))
    def something_urgent(self, count: int) -> None:
        """Whoever must give way has run for long enough to be asked."""
        self.now_ms += 90 * MINUTE_MS
        self.submit("large", count, 2, 90, Tier.RESERVED, Span.ANY)
        self.decide()

    @step()
    def all_close(self) -> None:
        for one in self._closing():
            self._close(one)

    @precondition(lambda self: self._closing())
    @step(data=st.data())
    def a_lease_closes(self, data: st.DataObject) -> None:
        self._close(data.draw(st.sampled_from(self._closing())))

    # -- the model's shell ----------------------------------------------------------------------

    def _active(self) -> list[Held]:
        return [x for x in self.held.values() if x.lease.state is State.ACTIVE]

    def _closing(self) -> list[Held]:
        return [x for x in self.held.values() if x.lease.state is State.CLOSING]

    def _of(self, job: Job) -> list[Held]:
        mine = [x for x in self.held.values() if x.job == job.name]
        return [x for x in mine if x.lease.attempt == job.attempt]

    def _views(self) -> dict[str, Node]:
        nodes = dict(self.nodes)
        for one in self.held.values():
            if one.lease.state is not State.CLOSED:
                node = nodes[one.lease.node_id]
                nodes[node.node_id] = with_held(node, one.allocation)
        return nodes

    def _snapshot(self) -> Snapshot:
        pending = [
            Pending(
                x.name, f"tenants/{x.project}", f"projects/{x.project}", x.attempt + 1, x.priority,
                x.number, 30_000, 120_000, x.needs, tasks=x.tasks, tasks_max=x.tasks,
                submitted_ms=x.submitted_ms,
            )
            for x in self.jobs.values()
            if x.state is JobState.PENDING
        ]  # fmt: skip
        running = []
        for lease_id, one in self.held.items():
            if one.lease.state is State.CLOSED:
                continue
            job = self.jobs[one.job]
            running.append(
                Running(
                    lease_id, job.name, one.index, f"tenants/{job.project}",
                    f"projects/{job.project}", one.lease.node_id, job.priority, job.needs.tier,
                    one.allocation, one.started_ms, self.now_ms - one.started_ms,
                    notice_ms=30_000, evictions=job.evicted, tasks_min=job.tasks,
                    closing=one.lease.state is State.CLOSING,
                )
            )  # fmt: skip
        quotas = tuple(
            Quota(f"projects/{name}", limit_milli=limit) for name, limit in LIMITS.items() if limit
        )
        return Snapshot(
            tuple(self._views().values()), tuple(pending), BOOK, running=tuple(running),
            quotas=quotas, now_ms=self.now_ms,
        )  # fmt: skip

    def _apply(self, ruling: Ruling) -> None:
        for decision in ruling.decisions:
            if isinstance(decision, Placed):
                self._place(decision)
        for eviction in ruling.evictions:
            victims = {victim.job for victim in eviction.victims}
            for name in victims:
                assert self.jobs[name].state is JobState.RUNNING
                assert self.jobs[name].needs.tier is not Tier.RESERVED
                self.jobs[name].evicted += 1
                self._end(name, Cause.PREEMPTED, TOLD)

    def _place(self, placed: Placed) -> None:
        job = self.jobs[placed.task.job]
        assert job.state is JobState.PENDING
        assert [x.index for x in placed.members] == list(range(job.tasks)), "all or none"
        nodes = {x.node_id for x in placed.members}
        racks = {self.nodes[x].rack for x in nodes}
        assert job.needs.span is not Span.HOST or len(nodes) == 1
        assert job.needs.span is not Span.RACK or len(racks) == 1
        job.attempt += 1
        self._move(job, JobState.RUNNING)
        for member in placed.members:
            node = self.nodes[member.node_id]
            assert node.connected
            assert not node.cordoned
            self.leases += 1
            lease = Lease(
                f"l{self.leases}", f"{job.name}/tasks/{member.index}", job.attempt, member.node_id,
                member.allocation.device_ids,
            )  # fmt: skip
            self.held[lease.lease_id] = Held(
                lease, job.name, member.index, member.allocation, self.now_ms
            )

    def _end(self, job: str, cause: Cause, why: Reason) -> None:
        for one in self._of(self.jobs[job]):
            if one.lease.state is State.ACTIVE:
                one.lease, one.stop = to_closing(one.lease, cause, 30_000), why

    def _follow(self, name: str) -> None:
        job = self.jobs[name]
        over = [_member(x) for x in self._of(job) if x.lease.state is not State.ACTIVE]
        told = ends.follow(over)
        if told is not None:
            self._end(name, *told)

    def _close(self, one: Held) -> None:
        one.lease = replace(one.lease, state=State.CLOSED)
        job = self.jobs[one.job]
        mine = self._of(job)
        if any(x.lease.state is not State.CLOSED for x in mine):
            self._follow(job.name)
            return
        patience = ends.Patience(max_attempts=3, evicted=job.evicted)
        self._move(job, ends.ended(job.state, [_member(x) for x in mine], patience).state)

    def _move(self, job: Job, state: JobState) -> None:
        assert state in MOVES[job.state], f"I6: {job.name} from {job.state} to {state}"
        job.state = state

    # -- what holds -----------------------------------------------------------------------------

    @invariant()
    def one_holder(self) -> None:
        """I1: a device and a task have at most one unclosed lease."""
        live = [x for x in self.held.values() if x.lease.state is not State.CLOSED]
        slots = [(x.lease.node_id, device) for x in live for device in x.lease.devices]
        assert len(slots) == len(set(slots))
        tasks = [x.lease.task_id for x in live]
        assert len(tasks) == len(set(tasks))

    @invariant()
    def nothing_lost(self) -> None:
        """I2: a job waits, runs by leases of its attempt, or has ended; none is stuck between."""
        for job in self.jobs.values():
            live = [x for x in self._of(job) if x.lease.state is not State.CLOSED]
            running = job.state in (JobState.RUNNING, JobState.STOPPING)
            assert bool(live) == running, (job.name, job.state)

    @invariant()
    def within_capacity_and_quota(self) -> None:
        """I7: no node and no project has more than it may."""
        for node in self._views().values():
            assert node.free_cpu_milli >= 0
            assert node.free_memory_bytes >= 0
            assert node.free_disk_bytes >= 0
        for project, limit in LIMITS.items():
            held = sum(
                1_000 * len(x.lease.devices)
                for x in self.held.values()
                if x.lease.state is not State.CLOSED and self.jobs[x.job].project == project
            )
            assert not limit or held <= limit


def _member(one: Held) -> ends.Member:
    return ends.Member(one.index, one.lease, one.stop)


def _node(name: str, devices: int, rack: str) -> Node:
    return Node(
        name, "s", "cpu-x86-64", 8_000, 32 * GIB, 100 * GIB,
        tuple(Device(f"gpu-{n}", "T4-16GB", "nvidia", 16 * GIB) for n in range(devices)),
        rack=rack,
    )  # fmt: skip


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
